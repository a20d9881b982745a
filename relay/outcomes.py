"""How calls end and why they are refused: the closed vocabulary of the house.

Knows no clock, no socket and no log; every other module may import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Blame(StrEnum):
    """Whose doing the end of a call was."""

    NOBODY = "nobody"
    CALLEE = "callee"
    CARRIER = "carrier"
    AGENT = "agent"
    US = "us"


class Reason(StrEnum):
    """Why a call ended. A closed list: a simulator scenario reaches each of them, and a test proves it."""

    # nobody
    GOODBYE = "goodbye"  # the agent said goodbye and it was heard to its end
    MESSAGE_LEFT = "message-left"  # an answering machine took the message, to its end
    TRANSFERRED = "transferred"  # the call was handed over to a person, and they have talked
    MONOLOGUE = "monologue"  # the agent spoke on and on, and nobody said a word
    # callee
    HUNG_UP = "hung-up"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    MACHINE = "machine"  # an answering machine picked up, and is not to be talked to
    SCREENED = "screened"  # a machine asked who calls and why, and nobody came to the telephone
    OPTED_OUT = "opted-out"  # also us: the number was listed while the call was live
    UNDISCLOSED = "undisclosed"  # keys cut the carrier's disclosure short each time it was spoken
    # carrier
    REFUSED = "refused"  # also agent: the far end said no before the conversation began
    NOT_PLACED = (
        "not-placed"  # an ambiguous create: nothing was heard of it, or the carrier lists no such call
    )
    FAILED = "failed"  # the network could not complete the call
    CANCELED = "canceled"
    NO_STREAM = "no-stream"  # answered, but the media stream never came
    TRANSFER_FAILED = "transfer-failed"  # nobody took the call over, and the agent could not take it back
    LOST = "lost"  # also agent: the socket went away without a goodbye
    SILENT = "silent"  # also agent: the socket is open and nothing comes out of it; callee: says nothing
    STALLED = "stalled"  # also agent: the far end stopped reading
    PROTOCOL = "protocol"  # also agent: what came cannot be understood
    # agent
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    NOT_READY = "not-ready"
    WRONG_FORMAT = "wrong-format"
    ERROR = "error"
    SESSION_ENDED = "session-ended"
    FLOOD = "flood"  # it sends speech much faster than a person can hear it
    # us
    OPERATOR = "operator"  # someone asked for it through /v1
    TIME_LIMIT = "time-limit"
    NOT_PERMITTED = "not-permitted"  # the gate said no, before the dial or when somebody picked up
    DRAINED = "drained"
    CUT = "cut"
    CRASHED = "crashed"


class Farewell(StrEnum):
    """What the callee hears after the bridge is gone."""

    SILENT = "silent"  # hang up at once
    SPOKEN = "spoken"  # the document after <Connect> says one sentence and hangs up
    DIALLED = "dialled"  # the document after <Connect> dials somebody else, who takes over


_SPOKEN_BLAMES = frozenset({Blame.AGENT, Blame.CARRIER})


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a call is over; the first cause wins. `detail` is for people: never compared, never a label."""

    blame: Blame
    reason: Reason
    detail: str = ""
    apologised: bool = field(default=False, compare=False)  # the callee was told, while the stream was up

    @property
    def farewell(self) -> Farewell:
        """Somebody may still be listening when a leg broke or we crashed: they are owed a sentence, once."""
        if self.apologised:
            return Farewell.SILENT
        if self.reason is Reason.TRANSFERRED:
            return Farewell.DIALLED
        if self.blame in _SPOKEN_BLAMES or self.reason is Reason.CRASHED:
            return Farewell.SPOKEN
        return Farewell.SILENT

    def as_json(self) -> dict[str, str]:
        """The `ending` object of the contract."""
        return {"blame": self.blame.value, "reason": self.reason.value}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is answered no: `code` is kebab-case and stable, `message` says what to do."""

    code: str
    message: str


class WireError(ValueError):
    """A message of a far end that cannot be read as its protocol says."""


class LegClosed(Exception):
    """One leg of the call can no longer be used.

    `leg` is the blame that the leg carries: CARRIER for the phone, AGENT for the agent. `kind` is LOST (end
    of file, reset, close frame), STALLED (the far end stopped reading), SILENT (it answers no ping any more)
    or PROTOCOL (framing violated); `code` is the WebSocket close code received, when there was one.
    """

    def __init__(self, leg: Blame, kind: Reason, detail: str, *, code: int | None = None) -> None:
        super().__init__(detail)
        self.leg = leg
        self.kind = kind
        self.detail = detail
        self.code = code

    @property
    def ending(self) -> Ending:
        """What the loss of this leg means for the call."""
        return Ending(self.leg, self.kind, self.detail)


def cause_of(bug: BaseException) -> BaseException:
    """What went wrong, out of the nurseries that it came through: the first of several."""
    return cause_of(bug.exceptions[0]) if isinstance(bug, BaseExceptionGroup) else bug
