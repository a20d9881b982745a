"""The conversation as a state machine: what the relay does when a leg, a tool or the clock says something.

Knows no trio, no clock, no socket and no log; `now` is an argument in seconds, answers are actions.

The rules of interruption follow what the live agent service was seen to do; those of the opening and of the
goodbye are ours: nothing of the callee's is forwarded before the opening was heard, and no call hangs up on a
sentence. An opt-out overrides all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from relay.actions import (
    Action,
    CancelReply,
    EndCall,
    ForwardToAgent,
    Note,
    OptOutWay,
    PlayOnPhone,
    SendMark,
    Transcribe,
)
from relay.alarms import Alarms, Watch
from relay.errands import Errands
from relay.goodbye import Goodbye
from relay.hearing import Hearing
from relay.interruption import Interruption
from relay.keypad import Keypad
from relay.leaving import Leaving
from relay.opening import Opening
from relay.outcomes import Blame, Ending, Reason
from relay.own_stream import OwnStream
from relay.playout import Playout, Purpose
from relay.reception import Reception
from relay.replies import Replies
from relay.session_faults import Fault, session_failed
from relay.sessions import Sessions
from relay.standing import Stage, Standing
from relay.tally import Tally
from relay.terms import Terms
from relay.tool_runs import ToolRuns
from relay.turns import Turns
from relay.watchdogs import Watchdogs
from relay.wire import agent, phone
from relay.wire.audio import BYTES_PER_SECOND, is_audible, payload_seconds

_WORD_CHARACTERS = 64  # of a far end's word in our timeline
_FLOOD = Ending(Blame.AGENT, Reason.FLOOD, "the phone holds more than a person can listen to")


class Dialogue:
    """One conversation. Feed it messages; perform the actions it answers with, in order and at once."""

    def __init__(self, stream_sid: str, terms: Terms, *, now: float) -> None:
        self.tally = Tally()
        self._stream = OwnStream(stream_sid, self.tally)
        self._terms = terms
        standing = self._at = Standing()
        alarms = self._alarms = Alarms[Watch]()
        playout = self._playout = Playout()
        replies = self._replies = Replies()
        self._opening = Opening(playout, alarms, terms.lead_silence_seconds)
        self.turns = Turns(playout)
        self.hearing = Hearing(playout, replies)
        self._interruption = Interruption(playout, replies, self.hearing, self.tally, terms, now)
        runs = self._tool_runs = ToolRuns(are_ours=terms.tools_are_ours)
        goodbye = self._goodbye = Goodbye(playout, replies)
        self._sessions = Sessions(alarms, playout, replies, runs, goodbye, terms, now)
        dogs = self._watchdogs = Watchdogs(alarms, playout, replies, goodbye, runs, terms)
        self._ahead_seconds = terms.limits.ahead_seconds
        self._leaving = Leaving(
            standing, alarms, playout, replies, goodbye, runs, self._interruption, dogs, terms.clips
        )
        self._reception = Reception(
            standing, alarms, replies, self._interruption, self._sessions, dogs, terms, self.tally
        )
        self._keypad = Keypad(
            terms.keys, standing, alarms, playout, replies, runs, goodbye, self._interruption, dogs
        )
        self.errands = Errands(
            standing, playout, replies, runs, goodbye, self._watchdogs, self._keypad, terms
        )

    @property
    def deadline(self) -> float:
        """When `on_time` wants to be called next; infinite when nothing is waited for."""
        watch, goodbye = self._alarms.earliest, self._goodbye.deadline  # asked for at each frame: no min()
        return goodbye if goodbye < watch else watch

    @property
    def is_ready(self) -> bool:
        """Whether the agent has a session that hears and speaks."""
        return self._at.stage is not Stage.CONNECTING

    @property
    def said_goodbye(self) -> bool:
        """Whether a goodbye is being said or was said."""
        return self._goodbye.is_begun

    @property
    def leaving(self) -> Ending | None:
        """What the call ends with once our last words have begun, whatever it is that ends it."""
        return self._leaving.ending

    # ---- the phone -----------------------------------------------------------------------------------------

    def on_phone(self, message: phone.PhoneMessage, now: float) -> Sequence[Action]:
        """Answer one message of the carrier's."""
        if isinstance(message, phone.Media):
            if self.forwards and self._stream.brings(message):
                return (ForwardToAgent(message.media.payload),)
            if self._stream.is_foreign(message):
                return self._stream.foreign()
            self.tally.early_frames += (
                message.media.track == "inbound" and self._at.stage is not Stage.LEAVING
            )
            return ()
        match message:
            case phone.Unrecognised(event):
                return self._stream.unrecognised(event)
            case phone.Connected():
                return ()
            case phone.StreamStarted():
                return self._stream.started(message)
            case _ if self._stream.is_foreign(message):
                return self._stream.foreign()
            case phone.MarkReached():
                return self._mark_reached(message.mark.name, now)
            case phone.KeyPressed(phone.DtmfBody(digit)) if digit == self._terms.opt_out_key:
                return self.opt_out("key", now)
            case phone.KeyPressed(phone.DtmfBody(digit)):
                return self._keypad.pressed(digit, now)
            case phone.StreamStopped():
                return (EndCall(Ending(Blame.CALLEE, Reason.HUNG_UP, "stop")),)
            case _:
                assert_never(message)

    @property
    def forwards(self) -> bool:
        """Whether the callee's audio goes to the agent; nothing else follows from a frame then."""
        return self._at.is_callee_heard

    def _mark_reached(self, name: str, now: float) -> Sequence[Action]:
        purpose = self._playout.reached(name)
        self.hearing.proven()
        match purpose:
            case Purpose.OPENING:
                return [*self._reception.heard(name, now), *self._keypad.give(now)]
            case Purpose.GOODBYE:
                return self._goodbye.heard()
            case Purpose.KEYS:
                return self.errands.keys_heard()
            case Purpose.LAST_WORDS:
                return self._leaving.over()
            case _:
                return ()

    def machine_detected(self, who: str, now: float) -> Sequence[Action]:
        """The carrier's verdict on whoever has picked up (`AnsweredBy`)."""
        return self._reception.told(who, now)

    # ---- the agent -----------------------------------------------------------------------------------------

    def on_agent(self, message: agent.AgentMessage, now: float) -> Sequence[Action]:
        """Answer one event of the agent's; during our last words it has no say, but what was said is kept."""
        if self._at.stage is Stage.LEAVING and not isinstance(message, agent.CalleeSaid | agent.AgentSaid):
            self.tally.late_frames += isinstance(message, agent.ReplyAudio)
            return ()
        if isinstance(message, agent.ReplyAudio):
            return self._reply_audio(message, now)
        match message:
            case agent.Unrecognised(event):
                self.tally.unknown_events += 1
                return (Note("unknown agent event", {"name": event[:_WORD_CHARACTERS]}),)
            case agent.SessionReady():
                return self._session_ready(message, now)
            case agent.SessionError() | agent.SessionEnded():
                fault = session_failed(message, was_ready=self.is_ready)
                return self.on_agent_lost(fault, now) if isinstance(fault, Fault) else (fault,)
            case agent.SpeechStarted() | agent.SpeechStopped() | agent.CalleePartial():
                return self._callee_sounds(message, now)
            case agent.CalleeSaid() | agent.AgentSaid():
                return self._said(message, now)
            case agent.ReplyStarted(reply_id):
                return self._reply_started(reply_id)
            case agent.ReplyDone() | agent.ReplyError():
                return self._reply_done(message, now)
            case agent.ToolCall() if self._at.stage is Stage.LISTENING:
                return (Note("tool call ignored", {"tool": message.name[:_WORD_CHARACTERS]}),)
            case agent.ToolCall():
                actions = self._tool_runs.called(message)
                self._watchdogs.tool_called(now)
                return actions
            case agent.AgentPartial():
                self.hearing.word(message)
                return ()
            case agent.SessionUpdated():
                return ()
            case _:
                assert_never(message)

    def _session_ready(self, message: agent.SessionReady, now: float) -> Sequence[Action]:
        if self.is_ready:
            return ()
        if misfit := self._sessions.misfit(message):
            return self.on_agent_lost(Fault(misfit), now)
        if self._sessions.greets:
            self._at.stage = Stage.OPENING
            self._opening.begin(now, self._reception.longest_seconds)
        elif self._reception.is_listening:
            self._at.stage = Stage.LISTENING
            self._sessions.ready(message, now)
            return (Note("session ready"),)
        else:
            self._at.stage = Stage.OPEN
            self._watchdogs.opened(now)
            self._watchdogs.owe(now)
        return (Note("session ready"), *self._sessions.ready(message, now))

    def on_agent_lost(self, fault: Fault, now: float) -> Sequence[Action]:
        """The agent's session is gone, or did not come about: another one, or our last words."""
        if self._at.stage is Stage.LEAVING:
            return ()
        self._at.stage = Stage.CONNECTING
        self.turns.drop()
        self.hearing.broken_off()
        self._watchdogs.stop()
        return self._unless_in_vain(self._sessions.lost(fault, now, heard=self._reception.has_heard), now)

    def _unless_in_vain(self, verdict: Sequence[Action] | Ending, now: float) -> Sequence[Action]:
        return self._leaving.apologise(verdict, now) if isinstance(verdict, Ending) else verdict

    def _said(self, message: agent.CalleeSaid | agent.AgentSaid, now: float) -> Sequence[Action]:
        if not message.text:
            return ()
        if isinstance(message, agent.AgentSaid):
            return (Transcribe("agent", message.text, message.interrupted, self.hearing.said(message)),)
        self.turns.said(now)
        undone = self._watchdogs.callee_said(now)
        if self._at.stage is Stage.OPEN:
            self._watchdogs.owe(now)
        opts_out = self._terms.hears_opt_out(message.text)
        follows = self.opt_out("words", now) if opts_out else self._reception.said(message.text, now)
        return (Transcribe("callee", message.text, False), *undone, *follows)

    # ---- replies -------------------------------------------------------------------------------------------

    def _reply_started(self, reply_id: str | None) -> Sequence[Action]:
        if self._at.stage is Stage.LISTENING:  # it answers a machine
            return (CancelReply(reply_id),) if reply_id else ()
        if self.is_ready:
            self._replies.start(reply_id)
        return ()

    @property
    def heard_reply(self) -> str | None:
        """The reply that is being heard, if it has a name: its chunks go to the phone, and that is all."""
        return self._replies.heard if self._at.stage is Stage.OPEN else None

    def room_octets(self, now: float) -> int:
        """How much more of it the phone may be sent before it is too far ahead of what is played."""
        ahead = self._ahead_seconds - max(0.0, self._playout.playing_until - now)
        return int(ahead * BYTES_PER_SECOND)

    def played(self, octets: int, now: float) -> None:
        """So much of it was sent."""
        self._playout.sent(octets / BYTES_PER_SECOND, now)

    def _reply_audio(self, message: agent.ReplyAudio, now: float) -> Sequence[Action]:
        reply = self._replies.active
        if reply is None or message.reply_id != reply.id:
            reply = self._replies.owner_of(message.reply_id) if self._at.is_agent_played else None
            if reply is None:
                self.tally.late_frames += 1
                return ()
        seconds = payload_seconds(message.data)
        if self._playout.playing_until + seconds > now + self._ahead_seconds:
            return [*self._interruption.silence(now), *self._leaving.apologise(_FLOOD, now)]
        actions = self._opening.lead(now)
        reply.was_sent = True
        actions.append(PlayOnPhone(message.data))
        is_first = not reply.is_audible and is_audible(message.data)
        reply.is_audible |= is_first
        (self._playout.sent if reply.is_audible else self._playout.sent_silence)(seconds, now)
        if is_first:
            self._watchdogs.agent_sounds(now)
            actions += self.turns.answered(seconds, now)
        self.hearing.sent(reply, seconds)
        if self._at.stage is Stage.OPENING and reply.is_audible:
            actions += self._opening.sounds(seconds, now)
        return actions

    def _reply_done(self, message: agent.ReplyDone | agent.ReplyError, now: float) -> Sequence[Action]:
        if isinstance(message, agent.ReplyError):
            note = Note("reply failed", {"code": message.code[:_WORD_CHARACTERS]})
            return [note, *self._reply_done(agent.ReplyDone("failed", message.reply_id), now)]
        if message.was_cut:
            return self._interrupted(now) if self._replies.cut(message.reply_id) else ()
        reply = self._replies.finish(message.reply_id)
        if reply is None:
            return ()
        self.hearing.ended(reply)
        is_spoken = reply.is_audible and message.was_completed
        if reply.is_audible:
            self._watchdogs.agent_spoke(now)
        if self._at.stage is Stage.OPENING and not self._opening.is_marked:
            return (
                self._opening.mark(now) if is_spoken else self._leaving.apologise(self._opening.failure, now)
            )
        if is_spoken and self._goodbye.is_answered:
            return self._goodbye.said(now)
        marks = [SendMark(self._playout.mark(Purpose.REPLY))] if reply.was_sent else []
        return [*marks, *self._goodbye.reply_ended(now), *self.errands.reply_ended(now)]

    # ---- interruption --------------------------------------------------------------------------------------

    def _callee_sounds(self, message: agent.AgentMessage, now: float) -> Sequence[Action]:
        if isinstance(message, agent.CalleePartial):
            self._watchdogs.callee_speaks(now)
            return ()
        if isinstance(message, agent.SpeechStopped):
            self.turns.commit(now)
            self._watchdogs.callee_is_quiet(now)
            self._reception.quiet(now)
            return ()
        self._watchdogs.callee_sounds(now)
        self._reception.sounds(now)
        tail = self._replies.active is None and self._playout.holds_audio(now)
        cleared = self._interruption.noticed(now, tail=tail, may_clear=self._at.stage is Stage.OPEN)
        return [*cleared, *self._goodbye.interrupted(now)] if cleared and tail else cleared

    def _interrupted(self, now: float) -> Sequence[Action]:
        self.errands.forget()  # what this turn asked for must not leak into the next
        self._watchdogs.interrupted()
        cleared = self._interruption.clear(now, "interrupted")
        if self._at.stage is Stage.OPENING:
            interrupted = Ending(Blame.AGENT, Reason.ERROR, "the opening was interrupted")
            return [*cleared, *self._leaving.apologise(interrupted, now)]
        return [*cleared, *self._goodbye.interrupted(now)]

    # ---- opting out ----------------------------------------------------------------------------------------

    def opt_out(self, how: OptOutWay, now: float) -> Sequence[Action]:
        """Silence the agent, say our own last sentence and end the call: at once, and never undone."""
        return () if self._leaving.opted_out else self._leaving.opt_out(how, now)

    # ---- the clock, and us ---------------------------------------------------------------------------------

    def wind_up(self, ending: Ending, now: float, *, within_seconds: float) -> Sequence[Action]:
        """Have the agent say goodbye because we end the call; it ends `within_seconds` whatever happens."""
        if self._at.stage is Stage.LEAVING:
            self._leaving.hurry(now + within_seconds)
            return ()
        if self._at.stage is not Stage.OPEN:
            return (EndCall(ending),)
        return self._goodbye.wind_up(ending, now, within_seconds=within_seconds)

    def on_time(self, now: float) -> Sequence[Action]:
        """Answer the passing of `deadline`."""
        actions = list(self._goodbye.on_time(now))
        for watch in self._alarms.due(now):
            match watch:
                case Watch.STAGE:
                    actions += self._overdue(now)
                case Watch.RESUME:
                    actions += self._unless_in_vain(
                        self._sessions.not_resumed(heard=self._reception.has_heard), now
                    )
                case Watch.ANSWER:
                    actions += self._reception.ring(now)
                case Watch.KEYS:
                    actions += self._keypad.ring(now)
                case _:
                    actions += self._unless_in_vain(self._watchdogs.ring(watch, now), now)
        return actions

    def _overdue(self, now: float) -> Sequence[Action]:
        if self._at.stage is Stage.LEAVING:
            return self._leaving.over()
        if self._at.stage is Stage.CONNECTING:
            return self._leaving.apologise(self._sessions.not_ready(), now)
        if self._opening.is_marked:
            return (EndCall(Ending(Blame.CARRIER, Reason.SILENT, "the opening's mark was never echoed")),)
        return self._leaving.apologise(Ending(Blame.AGENT, Reason.SILENT, "the opening was not spoken"), now)
