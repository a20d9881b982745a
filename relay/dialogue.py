"""The conversation as a state machine: what the relay does when either side, a tool or the clock says something.

Knows no trio, no clock, no socket and no log; `now` is an argument in seconds, answers are actions.

The rules of interruption are those of the AssemblyAI dossier, section 9; the rules of the opening and of the goodbye
are ours: nothing of the callee's is forwarded before the opening was heard, and no call hangs up on a sentence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from relay.actions import (
    Action,
    CancelReply,
    ClearPhoneAudio,
    CreateReply,
    EndCall,
    ForwardToAgent,
    Note,
    PlayOnPhone,
    RetryWithoutVoice,
    RunTool,
    SendMark,
    SendToolResult,
    Transcribe,
    TurnAnswered,
)
from relay.alarms import Alarms
from relay.outcomes import Blame, Ending, Reason, WireError
from relay.playout import Playout, Purpose
from relay.wire import agent, phone
from relay.wire.audio import is_digital_silence, payload_seconds, silence

READY_SECONDS = (
    8.0  # no session.ready: the person has answered and hears nothing; AssemblyAI's own limit is 10
)
OPENING_SECONDS = 10.0  # the longest that a person is talked at without being heard
MARK_GRACE_SECONDS = 2.0  # an echo comes within a network round trip of the end of its audio
FAREWELL_REPLY_SECONDS = 2.5  # a managed agent starts the reply to a tool's result well within this
FAREWELL_LIMIT_SECONDS = 20.0  # a goodbye longer than this is no goodbye
REPLY_PATIENCE_SECONDS = 3.0  # a wind-up lets the agent finish its sentence for so long
GOODBYES_UNDONE = 2  # the third goodbye in a row stands, whoever interrupts it
FOREIGN_MESSAGES = 10  # messages for another stream before the socket is given up
TOOL_CALLS = 100  # in one call; an agent in a loop is told no from then on
_DEAD_REPLIES = (
    32  # ids of interrupted replies remembered; late audio is late by milliseconds, not by replies
)

WIND_UP = "Say in one short sentence that this call has to end now, thank the person, and say goodbye."

_AUTH_CODES = frozenset({"unauthorized", "forbidden"})
_FATAL_CODES = _AUTH_CODES | {"session_expired", "session_not_found", "session_forbidden"}


class BargeIn(StrEnum):
    """Which event silences the phone (BARGE_IN)."""

    INTERRUPTED = "interrupted"
    SPEECH_STARTED = "speech-started"


class _Stage(Enum):
    CONNECTING = auto()  # no session.ready yet
    OPENING = auto()  # the greeting is being heard; the callee is not forwarded
    OPEN = auto()


class _Alarm(Enum):
    READY = auto()
    OPENING = auto()
    FAREWELL_REPLY = auto()
    FAREWELL_MARK = auto()
    FAREWELL_LIMIT = auto()
    PATIENCE = auto()


@dataclass(slots=True)
class _Reply:
    id: str | None
    sent_seconds: float = 0.0
    audible: bool = False


@dataclass(slots=True)
class _Goodbye:
    ending: Ending
    ours: bool  # a wind-up by us, which no interruption undoes
    asked: bool  # whether the agent knows that it is to say goodbye


@dataclass(slots=True)
class Tally:
    """What was counted in one call."""

    early_frames: int = 0  # of the callee's, before the opening was heard
    late_frames: int = 0  # of the agent's, after their reply was interrupted
    foreign_messages: int = 0
    unknown_events: int = 0
    clears: int = 0
    barge_ins: int = 0


class Dialogue:
    """One conversation. Feed it messages; perform the actions it answers with, in order and at once."""

    def __init__(
        self,
        stream_sid: str,
        *,
        now: float,
        barge_in: BargeIn = BargeIn.INTERRUPTED,
        interruptible: bool = True,
        lead_silence_seconds: float = 0.25,
    ) -> None:
        self.tally = Tally()
        self._stream_sid = stream_sid
        self._barge_in = barge_in
        self._interruptible = interruptible
        self._lead_silence_seconds = lead_silence_seconds  # 0 once it was sent
        self._stage = _Stage.CONNECTING
        self._playout = Playout()
        self._reply: _Reply | None = None
        self._last_was_cut = False
        self._dead: deque[str] = deque(maxlen=_DEAD_REPLIES)
        self._opening_marked = False
        self._committed_at: float | None = None
        self._epoch = 0
        self._tool_epochs: dict[str, int] = {}
        self._tools_seen: set[str] = set()
        self._goodbye: _Goodbye | None = None
        self._undone = 0
        self._alarms = Alarms[_Alarm]()
        self._alarms.set(_Alarm.READY, now + READY_SECONDS)

    @property
    def deadline(self) -> float:
        """When `on_time` wants to be called next; infinite when nothing is waited for."""
        return self._alarms.earliest

    @property
    def is_ready(self) -> bool:
        """Whether the agent has said session.ready."""
        return self._stage is not _Stage.CONNECTING

    @property
    def said_goodbye(self) -> bool:
        """Whether a goodbye is being said or was said."""
        return self._goodbye is not None

    # ---- the phone ---------------------------------------------------------------------------------------------

    def on_phone(self, message: phone.PhoneMessage, now: float) -> Sequence[Action]:
        """Answer one message of the carrier's."""
        if isinstance(message, phone.Media):
            if message.stream_sid != self._stream_sid:
                return self._foreign()
            if message.media.track != "inbound":
                return ()
            if self._stage is not _Stage.OPEN:
                self.tally.early_frames += 1
                return ()
            return (ForwardToAgent(message.media.payload),)
        match message:
            case phone.Unrecognised(event):
                self.tally.unknown_events += 1
                return (Note("unknown phone event", {"name": event}),)
            case phone.Connected():
                return ()
            case _ if message.stream_sid != self._stream_sid and not isinstance(message, phone.StreamStarted):
                return self._foreign()
            case phone.MarkReached():
                return self._mark_reached(message.mark.name, now)
            case phone.KeyPressed():
                return (Note("key pressed", {"digit": message.dtmf.digit}),)
            case phone.StreamStarted():
                if message.stream_sid == self._stream_sid:
                    return (Note("start repeated"),)
                return (_end(Blame.CARRIER, Reason.PROTOCOL, "a second, different start"),)
            case phone.StreamStopped():
                return (_end(Blame.CALLEE, Reason.HUNG_UP, "stop"),)

    def _foreign(self) -> Sequence[Action]:
        self.tally.foreign_messages += 1
        if self.tally.foreign_messages < FOREIGN_MESSAGES:
            return ()
        return (_end(Blame.CARRIER, Reason.PROTOCOL, "messages for another stream"),)

    def _mark_reached(self, name: str, now: float) -> Sequence[Action]:
        match self._playout.reached(name):
            case Purpose.OPENING if self._stage is _Stage.OPENING:
                self._stage = _Stage.OPEN
                self._alarms.drop(_Alarm.OPENING)
                return (Note("opening heard"),)
            case Purpose.GOODBYE if self._goodbye and self._reply is None:
                return (Note("goodbye heard"), EndCall(self._goodbye.ending))
            case _:
                return ()

    # ---- the agent ---------------------------------------------------------------------------------------------

    def on_agent(self, message: agent.AgentMessage, now: float) -> Sequence[Action]:
        """Answer one event of the agent's."""
        if isinstance(message, agent.ReplyAudio):
            return self._reply_audio(message, now)
        match message:
            case agent.Unrecognised(event):
                self.tally.unknown_events += 1
                return (Note("unknown agent event", {"name": event}),)
            case agent.SessionReady():
                return self._session_ready(message, now)
            case agent.SessionError():
                return self._session_error(message)
            case agent.SessionEnded():
                return (_end(Blame.AGENT, Reason.SESSION_ENDED),)
            case agent.SpeechStarted():
                return self._speech_started(now)
            case agent.SpeechStopped():
                self._committed_at = now
                return ()
            case agent.CalleeSaid(text):
                self._committed_at = self._committed_at or now
                return (Transcribe("callee", text, False),) if text else ()
            case agent.ReplyStarted(reply_id):
                self._begin_reply(reply_id)
                return ()
            case agent.AgentSaid(text, interrupted):
                return (Transcribe("agent", text, interrupted),) if text else ()
            case agent.ReplyDone():
                return self._reply_done(message, now)
            case agent.ReplyError(code):
                return (Note("reply failed", {"code": code}),)
            case agent.ToolCall():
                return self._tool_call(message)
            case agent.SessionUpdated() | agent.CalleePartial() | agent.AgentPartial():
                return ()

    def _session_ready(self, message: agent.SessionReady, now: float) -> Sequence[Action]:
        if self.is_ready:
            return ()
        if foreign := message.foreign_encoding:
            return (_end(Blame.AGENT, Reason.WRONG_FORMAT, f"the session speaks {foreign}"),)
        self._stage = _Stage.OPENING
        self._alarms.drop(_Alarm.READY)
        self._alarms.set(_Alarm.OPENING, now + OPENING_SECONDS)
        return (Note("session ready"),)

    def _session_error(self, message: agent.SessionError) -> Sequence[Action]:
        code = message.code.lower()
        detail = f"{code}: {message.message}" if message.message else code
        if not self.is_ready:
            if code == "invalid_value" and message.param == "output.voice":
                return (RetryWithoutVoice(detail),)
            return (
                _end(Blame.AGENT, Reason.UNAUTHORIZED if code in _AUTH_CODES else Reason.REFUSED, detail),
            )
        if code in _FATAL_CODES:
            return (_end(Blame.AGENT, Reason.ERROR, detail),)
        return (Note("session error", {"code": code, "param": message.param}),)

    def _begin_reply(self, reply_id: str | None) -> _Reply:
        self._reply = _Reply(reply_id)
        self._alarms.drop(_Alarm.FAREWELL_REPLY)
        self._alarms.drop(_Alarm.FAREWELL_MARK)  # a reply on top of the goodbye becomes part of it
        return self._reply

    def _reply_audio(self, message: agent.ReplyAudio, now: float) -> Sequence[Action]:
        reply = self._reply
        if reply is None or (message.reply_id is not None and message.reply_id != reply.id):
            if message.reply_id in self._dead or (message.reply_id is None and self._last_was_cut):
                self.tally.late_frames += 1
                return ()
            reply = self._begin_reply(message.reply_id)
        seconds = payload_seconds(message.data)
        actions: list[Action] = []
        if self._lead_silence_seconds:  # the line opens late: without it the first word is clipped
            self._playout.sent(self._lead_silence_seconds, now)
            actions.append(PlayOnPhone(silence(self._lead_silence_seconds)))
            self._lead_silence_seconds = 0.0
        self._playout.sent(seconds, now)
        reply.sent_seconds += seconds
        actions.append(PlayOnPhone(message.data))
        if not reply.audible and not is_digital_silence(message.data):
            actions += self._first_sound(reply, now)
        if (
            self._stage is _Stage.OPENING
            and reply.sent_seconds >= OPENING_SECONDS
            and not self._opening_marked
        ):
            actions += self._mark_opening(now)
        return actions

    def _first_sound(self, reply: _Reply, now: float) -> Sequence[Action]:
        reply.audible = True
        if self._stage is _Stage.OPENING and not self._opening_marked:
            self._alarms.set(_Alarm.OPENING, now + OPENING_SECONDS + MARK_GRACE_SECONDS)
            return (Note("opening started"),)
        committed_at, self._committed_at = self._committed_at, None
        return () if committed_at is None else (TurnAnswered(now - committed_at),)

    def _reply_done(self, message: agent.ReplyDone, now: float) -> Sequence[Action]:
        reply = self._reply
        if message.reply_id is not None and (reply is None or reply.id not in (None, message.reply_id)):
            if message.was_cut and message.reply_id not in self._dead:
                return self._interrupted(message.reply_id, now)
            return ()
        self._reply = None
        self._last_was_cut = message.was_cut
        if message.was_cut:
            return self._interrupted(message.reply_id or (reply and reply.id) or None, now)
        if self._stage is _Stage.OPENING:
            if reply is None or not reply.audible:
                return (_end(Blame.AGENT, Reason.SILENT, "the opening was silence"),)
            return () if self._opening_marked else self._mark_opening(now)
        if self._goodbye:
            return self._reply_done_in_goodbye(self._goodbye, reply, now)
        return (SendMark(self._playout.mark(Purpose.REPLY)),) if reply and reply.sent_seconds else ()

    def _mark_opening(self, now: float) -> Sequence[Action]:
        self._opening_marked = True
        self._alarms.set(_Alarm.OPENING, max(self._playout.playing_until, now) + MARK_GRACE_SECONDS)
        return (SendMark(self._playout.mark(Purpose.OPENING)),)

    # ---- interruption ------------------------------------------------------------------------------------------

    def _speech_started(self, now: float) -> Sequence[Action]:
        if self._stage is not _Stage.OPEN or not self._interruptible:
            return ()
        tail = self._reply is None and self._playout.holds_audio(now)
        if not tail and self._barge_in is BargeIn.INTERRUPTED:
            return ()
        cleared = self._clear(now, "speech started")
        return [*cleared, *self._undo_goodbye(now)] if cleared and tail else cleared

    def _interrupted(self, reply_id: str | None, now: float) -> Sequence[Action]:
        if reply_id is not None:
            self._dead.append(reply_id)
        self._epoch += 1  # results of tools that this turn asked for must not leak into the next
        if self._stage is _Stage.OPENING:
            return [
                *self._clear(now, "opening"),
                _end(Blame.AGENT, Reason.ERROR, "the opening was interrupted"),
            ]
        return [*self._clear(now, "interrupted"), *self._undo_goodbye(now)]

    def _clear(self, now: float, why: str) -> list[Action]:
        if not self._playout.clear(now):
            return []
        self.tally.clears += 1
        self.tally.barge_ins += 1
        return [ClearPhoneAudio(), Note("barge-in", {"by": why})]

    # ---- tools -------------------------------------------------------------------------------------------------

    def _tool_call(self, call: agent.ToolCall) -> Sequence[Action]:
        if call.call_id in self._tools_seen:
            return (Note("tool call repeated", {"tool": call.name}),)
        if len(self._tools_seen) >= TOOL_CALLS:
            return (SendToolResult(call.call_id, "No more functions can be run in this call.", True),)
        self._tools_seen.add(call.call_id)
        try:
            arguments = call.read_arguments()
        except WireError as problem:
            return (SendToolResult(call.call_id, str(problem), True),)
        self._tool_epochs[call.call_id] = self._epoch
        return (RunTool(call.call_id, call.name, arguments),)

    def on_tool(
        self, call_id: str, result: str, now: float, *, is_error: bool = False, ends_call: bool = False
    ) -> Sequence[Action]:
        """Answer the end of a tool run; a result of an interrupted turn is dropped, and so is its hang-up."""
        if self._tool_epochs.pop(call_id, None) != self._epoch:
            return (Note("tool result dropped"),)
        actions: list[Action] = [SendToolResult(call_id, result, is_error)]
        if ends_call and not is_error and self._goodbye is None:
            self._goodbye = _Goodbye(Ending(Blame.NOBODY, Reason.GOODBYE), ours=False, asked=True)
            self._alarms.set(_Alarm.FAREWELL_LIMIT, now + FAREWELL_LIMIT_SECONDS)
            if self._reply is None:
                self._alarms.set(_Alarm.FAREWELL_REPLY, now + FAREWELL_REPLY_SECONDS)
            actions.append(Note("goodbye begun"))
        return actions

    # ---- goodbye -----------------------------------------------------------------------------------------------

    def wind_up(self, ending: Ending, now: float, *, within_seconds: float) -> Sequence[Action]:
        """Have the agent say goodbye because we end the call; it ends after `within_seconds` whatever happens."""
        if self._stage is not _Stage.OPEN:
            return (EndCall(ending),)
        limit = now + within_seconds
        if self._goodbye:
            self._goodbye.ours = True
            self._alarms.set(_Alarm.FAREWELL_LIMIT, min(limit, self._alarms.at(_Alarm.FAREWELL_LIMIT)))
            return ()
        self._goodbye = _Goodbye(ending, ours=True, asked=False)
        self._alarms.set(_Alarm.FAREWELL_LIMIT, limit)
        if self._reply is None:
            return [Note("winding up"), *self._ask_for_goodbye(self._goodbye, now)]
        self._alarms.set(_Alarm.PATIENCE, now + REPLY_PATIENCE_SECONDS)
        return (Note("winding up"),)

    def _ask_for_goodbye(self, goodbye: _Goodbye, now: float) -> list[Action]:
        goodbye.asked = True
        self._alarms.drop(_Alarm.PATIENCE)
        self._alarms.set(_Alarm.FAREWELL_REPLY, now + FAREWELL_REPLY_SECONDS)
        return [CreateReply(WIND_UP)]

    def _reply_done_in_goodbye(self, goodbye: _Goodbye, reply: _Reply | None, now: float) -> Sequence[Action]:
        if not goodbye.asked:
            return self._ask_for_goodbye(goodbye, now)
        if reply and reply.audible:
            return self._mark_goodbye(now)
        self._alarms.set(
            _Alarm.FAREWELL_REPLY, now + FAREWELL_REPLY_SECONDS
        )  # a silent pre-amble is no goodbye
        return ()

    def _mark_goodbye(self, now: float) -> Sequence[Action]:
        self._alarms.set(_Alarm.FAREWELL_MARK, max(self._playout.playing_until, now) + MARK_GRACE_SECONDS)
        return (SendMark(self._playout.mark(Purpose.GOODBYE)),)

    def _undo_goodbye(self, now: float) -> Sequence[Action]:
        """The person spoke over the goodbye: they are not done, twice at most, and never against a wind-up."""
        goodbye = self._goodbye
        if goodbye is None:
            return ()
        self._alarms.drop(_Alarm.FAREWELL_MARK)
        if goodbye.ours and not goodbye.asked:
            return self._ask_for_goodbye(goodbye, now)
        if goodbye.ours or self._undone >= GOODBYES_UNDONE:
            self._alarms.set(_Alarm.FAREWELL_REPLY, now + FAREWELL_REPLY_SECONDS)
            return ()
        self._undone += 1
        self._goodbye = None
        for alarm in (_Alarm.FAREWELL_REPLY, _Alarm.FAREWELL_LIMIT):
            self._alarms.drop(alarm)
        return (Note("goodbye undone"),)

    # ---- time --------------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> Sequence[Action]:
        """Answer the passing of `deadline`."""
        actions: list[Action] = []
        for alarm in self._alarms.due(now):
            actions += self._ring(alarm, now)
        return actions

    def _ring(self, alarm: _Alarm, now: float) -> Sequence[Action]:
        match alarm:
            case _Alarm.READY:
                return (_end(Blame.AGENT, Reason.NOT_READY),)
            case _Alarm.OPENING if self._opening_marked:
                return (_end(Blame.CARRIER, Reason.SILENT, "the opening's mark was never echoed"),)
            case _Alarm.OPENING:
                return (_end(Blame.AGENT, Reason.SILENT, "the opening was not spoken"),)
            case _Alarm.PATIENCE:
                return (CancelReply(self._reply.id),) if self._reply and self._reply.id else ()
            case _Alarm.FAREWELL_REPLY:
                return self._mark_goodbye(now)  # nothing more comes: what was spoken counts
            case _Alarm.FAREWELL_MARK | _Alarm.FAREWELL_LIMIT:
                return (EndCall(self._goodbye.ending),) if self._goodbye else ()


def _end(blame: Blame, reason: Reason, detail: str = "") -> EndCall:
    return EndCall(Ending(blame, reason, detail))
