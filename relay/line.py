"""One call of ours, from the stored intent to the final record.

Knows no HTTP and no vendor's API; holds what is known, says what follows from it, and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from enum import Enum, auto
from typing import Any, Literal

import trio

from relay.actions import Role, TurnAnswered
from relay.call import Call
from relay.carrier import DialOrder
from relay.compliance import OPT_OUT_KEY, DialRequest
from relay.hearing import ReplyHeard
from relay.leaving import LEAVING_SECONDS
from relay.legs import Leg
from relay.outcomes import Blame, Ending, Farewell, Reason, Refusal
from relay.reception import OPENING_HEARD
from relay.recordings import Recording
from relay.script import Announcement
from relay.store import CallRecord, Status, TranscriptLine
from relay.terms import Terms
from relay.tools import Toolbox
from relay.wire.callbacks import CarrierStatus
from relay.wire.twiml import KEY_SECONDS

DISCLOSED = "disclosure heard"  # the note that proves it where the carrier speaks the disclosure
RECORDING_STARTED = "recording started"  # the note of the carrier's, with its reference
RecordingPolicy = Literal["off", "disclosed", "call"]
ANNOUNCEMENTS = 2  # times that it is spoken: a key stops it, and the person may have meant something by it
SLOWEST_SPEECH = 8.0  # characters a second; synthetic voices speak 13 to 17
RING_GRACE_SECONDS = 60.0  # past the ringing time: Twilio may queue a call, and callbacks may be late
WIND_UP_SECONDS = 8.0  # for a goodbye by us; with the teardown behind it, 10 s are kept
DIAL_WORD_SECONDS = 3.0  # from the end of a call that was handed over to the word on what became of that
STREAM_SECONDS = 15.0  # from the answer to the stream's start; Twilio's own webhook budget is 15 s

UNCONNECTED = {  # what the carrier says of a call that never came about
    CarrierStatus.BUSY: Ending(Blame.CALLEE, Reason.BUSY),
    CarrierStatus.NO_ANSWER: Ending(Blame.CALLEE, Reason.NO_ANSWER),
    CarrierStatus.FAILED: Ending(Blame.CARRIER, Reason.FAILED),
    CarrierStatus.CANCELED: Ending(Blame.CARRIER, Reason.CANCELED),
}
_LIVE = {CarrierStatus.RINGING: Status.RINGING, CarrierStatus.IN_PROGRESS: Status.LIVE}


class Document(Enum):
    """Which TwiML document a call gets.

    SAY is the spoken farewell, ANNOUNCE discloses and connects, DIAL puts through to a person.
    """

    CONNECT = auto()
    ANNOUNCE = auto()
    OPTED_OUT = auto()
    DIAL = auto()
    SAY = auto()
    HANG_UP = auto()
    UNKNOWN = auto()


def document_after_key(digit: str, times_said: int) -> Document:
    """What follows a key that has stopped the disclosure: its repetition, if there is no wish to opt out."""
    if digit == OPT_OUT_KEY:
        return Document.OPTED_OUT
    return Document.ANNOUNCE if times_said < ANNOUNCEMENTS else Document.HANG_UP


class Line:
    """What the switchboard holds of a call that has not ended."""

    def __init__(
        self,
        record: CallRecord,
        order: DialOrder,
        plea: DialRequest,
        terms: Terms,
        tools: Toolbox,
        clock: Callable[[], datetime],
        *,
        announcement: Announcement | None = None,
        recording: RecordingPolicy = "off",
        transfers: Mapping[str, str] = {},
        on_opt_out: Callable[[str], None] = lambda _how: None,
        on_note: Callable[[str, Mapping[str, Any]], None] = lambda _event, _fields: None,
        on_turn: Callable[[float, float, float | None], None] = lambda _agent, _relay, _wait: None,
    ) -> None:
        self.record = record
        self.order = order
        self.plea = plea  # what the gate is asked for the newest attempt
        self.announcement = announcement  # the disclosure, where the carrier speaks it
        self.transfers = transfers  # the numbers of those whom the call may be handed over to, by name
        self.recording: RecordingPolicy = "call" if record.record else recording
        self.tape: Recording | None = None  # of this stream, once it has begun
        self.disclosed = trio.Event()  # the callee knows who calls, and that it is a machine
        if terms.heard:
            self.disclosed.set()
        self.on_opt_out = on_opt_out  # records it; set by the switchboard, like the two below
        self.on_note = on_note  # counts what is noted
        self.on_turn = on_turn
        self.terms = terms
        self.tools = tools
        self.decided = trio.Event()  # the carrier took the order, refused it, or left us in doubt
        self.refusal: str | None = None  # the carrier's no, with its remedy
        self.forbidden: Refusal | None = None  # the gate's no
        self.is_resumed = False  # from another node, which has dialled it
        # Another node owns the call by now: no word of ours reaches the carrier or the ledger.
        self.yielded = False
        self.is_spooled = False  # its record is not in the ledger yet
        self.confirmed = trio.Event()  # the carrier says that the call is over
        self.told_to_hang_up = False
        self.leave_by: float | None = None  # on trio's clock: opted out while the carrier speaks
        self.document_fetched = False
        self.streams_spent: set[int] = set()  # attempts whose token was used
        self.answered_at: float | None = None  # on trio's clock
        self.stream: tuple[Leg, str] | None = None
        self.stream_arrived = trio.Event()
        self.waiting = trio.CancelScope()  # around whatever precedes the bridge
        self.call: Call | None = None
        self._ending: Ending | None = None
        self._clock = clock

    # ---- the gate --------------------------------------------------------------------------------

    def next_plea(self) -> DialRequest:
        """What the gate is asked for one more attempt."""
        self.plea = replace(self.plea, attempt=self.plea.attempt + 1)
        return self.plea

    def forbid(self, refusal: Refusal) -> None:
        """The gate said no, before anything else has ended the call."""
        if self.ending is None:
            self.forbidden = refusal
            self.end(Ending(Blame.US, Reason.NOT_PERMITTED, refusal.code))

    def give_way(self) -> None:
        """Another node has the call: close what is open, and say nothing to anybody."""
        self.yielded = True
        self.end(Ending(Blame.US, Reason.CUT, "another node has taken over"))

    # ---- another node's call ---------------------------------------------------------------------

    def resume(self) -> None:
        """Go on with a call of another node's: it was answered there, and its cap counts from then."""
        self.is_resumed = True
        self.answered(self.record.answered_at)
        self.decided.set()

    # ---- endings ---------------------------------------------------------------------------------

    @property
    def ending(self) -> Ending | None:
        """Why the call is over; the first cause wins, whether the bridge or somebody else named it.

        A call that is handed over is not over with its bridge.
        """
        return self._ending if self.is_transferring else (self.call and self.call.ending) or self._ending

    @property
    def is_transferring(self) -> bool:
        """Whether the bridge is over because somebody else takes the call, or has taken it."""
        ending = None if self.call is None else self.call.ending
        return ending is not None and ending.reason is Reason.TRANSFERRED

    def transfer_over(self, ending: Ending) -> None:
        """The carrier says what became of the transfer."""
        if self.is_transferring:
            self.end(ending)

    def end(self, ending: Ending) -> None:
        """End the call, in whatever phase it is."""
        if self.ending is None:
            self._ending = ending
            if self.call is not None:
                self.call.end(ending)
            self.waiting.cancel(reason=ending.reason)

    def wind_up(self, ending: Ending, *, within_seconds: float) -> None:
        """End the call with a goodbye where somebody is listening, at once where nobody is."""
        if self.call is None or self.is_transferring:
            self.end(ending)
        else:
            self.call.wind_up(ending, within_seconds=within_seconds)

    def hang_up(self, *, goodbye: bool) -> None:
        """Somebody asked for the end."""
        ending = Ending(Blame.US, Reason.OPERATOR)
        if goodbye:
            self.wind_up(ending, within_seconds=WIND_UP_SECONDS)
        else:
            self.end(ending)

    def stop(self) -> None:
        """The number was listed: while live the person is told so, before that the call just ends."""
        if self.call is None:
            self.forbid(Refusal("dnc-listed", "the number was listed or revoked its consent just now"))
        elif self.is_transferring:  # to tell the person is no longer ours
            self.end(Ending(Blame.US, Reason.OPTED_OUT, "list"))
        else:
            self.call.opt_out()

    @property
    def farewell(self) -> Farewell:
        """What the person is owed after the stream; nothing where nobody ever answered."""
        if self.answered_at is None or self.ending is None:
            return Farewell.SILENT
        return Farewell.SPOKEN if self.leave_by is not None else self.ending.farewell

    @property
    def unheard_of(self) -> Ending:
        """What it means that nothing more is heard of this call."""
        if self.answered_at is not None:
            return Ending(Blame.CARRIER, Reason.NO_STREAM, "answered, but the media stream never came")
        if self.record.status is Status.RINGING:
            return Ending(Blame.CALLEE, Reason.NO_ANSWER, "it rang, and the carrier never said more")
        return Ending(Blame.CARRIER, Reason.FAILED, "the carrier never said what became of the call")

    # ---- what the carrier says -------------------------------------------------------------------

    def learn_sid(self, sid: str) -> bool:
        """Take the carrier's name of this call; False when it has another one already. A blank is none."""
        if self.record.sid is None and sid:
            self.record.sid = sid
            if self.answered_at is None:
                self.waiting.deadline = trio.current_time() + self.order.ring_seconds + RING_GRACE_SECONDS
            self.noted("sid learnt", {})
            self.decided.set()
        return self.record.sid == sid

    def carrier_said(self, status: CarrierStatus, at: datetime | None = None) -> None:
        """Follow a status callback; late, repeated and overtaken ones change nothing that is settled.

        `at`: when another node was told.
        """
        if status.is_terminal:
            self.confirmed.set()
            if self.is_transferring:  # what became of it is told beside this, and perhaps behind it
                self.waiting.deadline = trio.current_time() + DIAL_WORD_SECONDS
            else:
                self.end(self._terminal(status))
        elif status in _LIVE and self.ending is None:
            if status is CarrierStatus.IN_PROGRESS:
                self.answered(at)
            self.record.raise_status(_LIVE[status])

    def _terminal(self, status: CarrierStatus) -> Ending:
        if status in UNCONNECTED:
            return UNCONNECTED[status]
        if self.call is None and not self.document_fetched:
            return Ending(Blame.CARRIER, Reason.NO_STREAM, "it was over before its document was fetched")
        return Ending(Blame.CALLEE, Reason.HUNG_UP, "completed")

    def answered(self, at: datetime | None = None) -> None:
        """Somebody picked up: the earliest sign of it starts the clock, unless the call has ended already.

        `at`: when another node saw it.
        """
        now, known = self._clock(), self.record.answered_at
        at = min(at or now, now)
        if self.ending is not None or (self.answered_at is not None and known is not None and known <= at):
            return
        if self.answered_at is None:
            said_in = 0.0
            if self.announcement is not None:
                said_in = len(self.announcement.sentence) / SLOWEST_SPEECH + KEY_SECONDS
            patience_seconds = STREAM_SECONDS + ANNOUNCEMENTS * said_in
            self.waiting.deadline = trio.current_time() + patience_seconds
        self.answered_at = trio.current_time() - (now - at).total_seconds()
        self.record.answered_at = at
        self.record.raise_status(Status.LIVE)
        if known is None:
            self.noted("answered", {})

    def fetched_elsewhere(self, attempt: int, at: datetime, refusal: Refusal | None) -> None:
        """Another node has served the document of this call, or refused to."""
        self.answered(at)
        if refusal is None:
            self.document_fetched = True
            self.noted("document fetched", {"attempt": attempt})
        elif self.stream is None:
            self.noted("not permitted", {"code": refusal.code})
            self.forbid(refusal)

    @property
    def next_document(self) -> Document:
        """What connects the person to the newest stream; the disclosure comes before the first one."""
        is_announced = self.record.attempt == 0 and self.announcement is not None
        return Document.ANNOUNCE if is_announced else Document.CONNECT

    def document(self, attempt: int) -> Document:
        """What a fetch gets; one behind the newest stream is Twilio's word that this stream is over."""
        self.answered()
        if attempt > 0:
            self._disclosed("redirect")
        if self.is_transferring and self.ending is None and attempt == self.record.attempt + 1:
            return Document.DIAL
        if attempt == self.record.attempt and self.ending is None:
            self.document_fetched = True
            self.noted("document fetched", {"attempt": attempt})
            return self.next_document
        if self.ending is None:
            reason = Reason.NO_STREAM if self.stream is None else Reason.LOST
            self.end(Ending(Blame.CARRIER, reason, "the carrier went on to the next document"))
        return Document.SAY if self.farewell is Farewell.SPOKEN else Document.HANG_UP

    def key_pressed(self, follows: Document) -> Document:
        """A key has stopped the disclosure; `follows` is what comes of it. A call that ended stays ended."""
        self.noted("key pressed", {})  # not which, as in the talk
        if follows is Document.OPTED_OUT:
            self.opted_out("key")
            if self.ending is None and self.stream is None:
                self.leave_by = trio.current_time() + LEAVING_SECONDS
                self.end(Ending(Blame.CALLEE, Reason.OPTED_OUT, "key"))
            return follows
        if follows is Document.HANG_UP:
            self.end(Ending(Blame.CALLEE, Reason.UNDISCLOSED, f"stopped {ANNOUNCEMENTS} times"))
        return follows if self.ending is None else Document.HANG_UP

    def _disclosed(self, by: str) -> None:
        """What Twilio does behind `<Gather>` proves that what is said in it was not stopped."""
        if self.announcement is not None and not any(
            event["event"] == DISCLOSED for event in self.record.events
        ):
            self.noted(DISCLOSED, {"by": by})

    def connect(self, leg: Leg, stream_sid: str) -> None:
        """Take over the admitted stream; the call's own task bridges it from here."""
        self.answered()
        self._disclosed("stream")
        self.record.stream_sid = stream_sid
        self.stream = (leg, stream_sid)
        self.stream_arrived.set()

    def machine_detected(self, who: str) -> None:
        """The verdict of the carrier's answering-machine detection."""
        if self.ending is None:
            self.record.answered_by = who
            self.noted("answered by", {"who": who})
            if self.call is not None:
                self.call.machine_detected(who)

    # ---- the diary -------------------------------------------------------------------------------

    def noted(self, event: str, fields: Mapping[str, Any]) -> None:
        """Something for the timeline, which is closed with the final record."""
        if self.record.status is Status.ENDED:
            return
        if event in (DISCLOSED, OPENING_HEARD):
            self.disclosed.set()
        if event == "session":
            self.record.session_id = str(fields["session_id"])
        self.record.note(self._clock(), event, **fields)
        self.on_note(event, fields)

    def said(self, role: Role, text: str, *, interrupted: bool, reply: int | None) -> None:
        """Something for the transcript."""
        line = TranscriptLine(role, text, self._clock(), interrupted)
        self.record.transcribe(line, self._name_of(reply))

    def heard(self, reply: ReplyHeard) -> None:
        """What came of a reply at the phone. How far its text goes is kept, not the text: that is speech."""
        fields = {
            name: getattr(reply, name) for name in ReplyHeard.__struct_fields__ if name.endswith("seconds")
        }
        fields["characters"] = None if reply.heard is None else len(reply.heard)
        self.record.heard(self._clock(), str(self._name_of(reply.reply)), **fields)

    def _name_of(self, reply: int | None) -> str | None:
        """A reply's number is that of one stream; a call may have several."""
        return None if reply is None else f"{self.record.attempt}.{reply}"

    def turn_answered(self, turn: TurnAnswered, relay_seconds: float) -> None:
        """How long the person waited for this answer."""
        wait_seconds = None
        if turn.commit_seconds is not None:
            shares = turn.commit_seconds, turn.agent_seconds, relay_seconds, turn.queued_seconds
            wait_seconds = round(sum(shares), 3)
        self.record.measure(
            self._clock(),
            agent_seconds=round(turn.agent_seconds, 4),
            relay_seconds=round(relay_seconds, 6),
            commit_seconds=None if turn.commit_seconds is None else round(turn.commit_seconds, 3),
            queued_seconds=round(turn.queued_seconds, 3),
            wait_seconds=wait_seconds,
        )
        self.on_turn(turn.agent_seconds, relay_seconds, wait_seconds)

    def ran(self, tool: str, run: str, arguments: Mapping[str, Any], result: str) -> None:
        """A run of a tool, beside its line in the timeline."""
        self.record.ran(self._clock(), tool, run=run, arguments=arguments, result=result)

    def opted_out(self, how: str) -> None:
        """The person wants no more calls."""
        self.noted("opted out", {"how": how})
        self.on_opt_out(how)
