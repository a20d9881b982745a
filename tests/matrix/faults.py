"""The table of the kill matrix: what a far end can do to a live call, when, and what becomes of the call.

Must not know how a cell is played: a fault says what the far end does, through the verbs of its stream.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from relay.outcomes import Blame, Ending, Reason
from relay.wire.callbacks import CarrierStatus
from tests.far_ends import BINARY, CLOSE, TEXT, frame

if TYPE_CHECKING:
    from tests.matrix.far_sides import FarSide
    from tests.matrix.play import Victim


class Moment(Enum):
    """Where in its life a call is struck."""

    BEFORE_READY = "before ready"  # the agent has its session.update and has not answered
    OPENING = "opening"  # the greeting is being heard
    MID_SPEECH = "mid-speech"  # the agent speaks, the callee is forwarded
    TOOL_RUNNING = "tool running"
    FAREWELL = "farewell"  # the goodbye is being spoken


class Leg(Enum):
    """Which far end is struck."""

    PHONE = "phone"
    AGENT = "agent"
    BOTH = "both"  # in the same tick
    OURS = "ours"  # no far end: we want the call to be over


@dataclass(frozen=True)
class Dies:
    """The call ends for this reason, at the latest so long after the fault."""

    blame: Blame
    reason: Reason
    within_seconds: float = 0.1
    forced: bool = False  # the struck far end answers no close frame any more
    others: tuple[tuple[Blame, Reason], ...] = ()  # where several may notice first
    is_told: bool = True  # the carrier, to hang up; False where it has said itself that the call is over

    def allows(self, ending: Ending) -> bool:
        """Whether the call may have ended so."""
        return (ending.blame, ending.reason) in ((self.blame, self.reason), *self.others)


@dataclass(frozen=True)
class Survives:
    """The call goes on to its goodbye, and its record has a line or a count of the fault."""

    noted: str
    is_whole: bool = True  # no frame is lost, but for a moment without an agent


@dataclass(frozen=True)
class Mendable:
    """What another session of the agent's can make good, where it is to be had."""

    gone: Dies
    back: Survives = Survives("agent lost", is_whole=False)


Verdict: TypeAlias = Dies | Survives
Verdicts: TypeAlias = Mapping["Leg", Verdict | Mendable]


class After(Enum):
    """What becomes of the agent behind a loss that can be mended."""

    GONE = "for good"  # whoever dials it again is not answered
    BACK = "back"  # and gives the session to its token


@dataclass(frozen=True, eq=False)
class Fault:
    """One thing that goes wrong: how, and what it means for the call on each leg that it can strike."""

    name: str
    strike: Callable[[Victim, FarSide], Awaitable[None]]
    verdicts: Verdicts
    but: Mapping[tuple[Leg, Moment], Verdict | Mendable] = field(default_factory=dict)  # where it matters
    at_handshake: bool = False  # instead of the answer to the upgrade: `strike` has the bare stream


@dataclass(frozen=True)
class Cell:
    """One fault, on one leg, at one moment."""

    fault: Fault
    leg: Leg
    moment: Moment
    after: After | None
    verdict: Verdict  # what the table says becomes of the call

    def __str__(self) -> str:
        words = [self.leg.value, self.moment.value, self.fault.name, self.after.value if self.after else ""]
        return "-".join(words).strip("-").replace(" ", "-")


def cells() -> Iterator[Cell]:
    """Every cell that makes sense: only the agent is dialled, and only before it is ready."""
    for fault in FAULTS:
        for leg in fault.verdicts:
            for moment in Moment:
                if not fault.at_handshake or moment is Moment.BEFORE_READY:
                    yield from _cells_at(fault, leg, moment)


def _cells_at(fault: Fault, leg: Leg, moment: Moment) -> Iterator[Cell]:
    match fault.but.get((leg, moment), fault.verdicts[leg]):
        case Mendable(gone, back):
            yield Cell(fault, leg, moment, After.GONE, gone)
            yield Cell(fault, leg, moment, After.BACK, back)
        case verdict:
            yield Cell(fault, leg, moment, None, verdict)


# ---- how it goes wrong -------------------------------------------------------------------------------------

HUGE: Final = b"x" * 2 * 2**20  # twice what the agent may send in one message
SECONDS_A_BYTE: Final = 1.0
MANY: Final = 3000  # more messages than a timeline has lines for
FLOOD_SECONDS: Final = 40  # of sound at once: more than the phone may be ahead
WIND_UP_SECONDS: Final = 8.0  # for a goodbye by us


def closes(code: int) -> Callable[[Victim, FarSide], Awaitable[None]]:
    async def strike(_: Victim, far: FarSide) -> None:
        # Behind the library's back: where it closes itself, a ping that comes meanwhile is the end of it.
        await far.stream.send_through(frame(CLOSE, code.to_bytes(2), masked=far.is_client))

    return strike


async def fin(_: Victim, far: FarSide) -> None:
    await far.stream.aclose()


async def rst(_: Victim, far: FarSide) -> None:
    far.stream.reset()
    await trio.lowlevel.checkpoint()


async def half_closes(_: Victim, far: FarSide) -> None:
    await far.stream.send_eof()


async def stops_reading(_: Victim, far: FarSide) -> None:
    far.stream.shut_window()
    await trio.lowlevel.checkpoint()


async def stops_writing(_: Victim, far: FarSide) -> None:
    far.stream.fall_mute()
    await trio.lowlevel.checkpoint()


async def drips(_: Victim, far: FarSide) -> None:
    far.stream.fall_mute()
    for byte in frame(TEXT, b"{}" * 50, masked=far.is_client):
        await far.stream.send_through(bytes([byte]))
        await trio.sleep(SECONDS_A_BYTE)


def says(times: int, message: bytes, opcode: int = TEXT) -> Callable[[Victim, FarSide], Awaitable[None]]:
    async def strike(_: Victim, far: FarSide) -> None:
        await far.stream.send_through(frame(opcode, message, masked=far.is_client) * times)  # in a row

    return strike


async def misshapes(_: Victim, far: FarSide) -> None:
    await far.say(event="media", type="reply.audio", streamSid=far.stream_sid, media=[], data=7)


async def floods(victim: Victim, far: FarSide) -> None:
    sound = base64.b64encode(b"\x10" * 8000).decode()  # a second of it
    said = {"type": "reply.audio", "reply_id": victim.fresh_name(), "data": sound}
    await says(FLOOD_SECONDS, json.dumps(said).encode())(victim, far)


def starts_again(stream_sid: str | None) -> Callable[[Victim, FarSide], Awaitable[None]]:
    async def strike(victim: Victim, far: FarSide) -> None:
        sid = stream_sid or far.stream_sid
        start = {
            "accountSid": "AC" + "0" * 32,
            "streamSid": sid,
            "callSid": victim.sid,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        }
        await far.say(event="start", streamSid=sid, start=start)

    return strike


async def hangs_up_without_stop(victim: Victim, far: FarSide) -> None:
    far.stream.fall_mute()
    await victim.carrier_says(CarrierStatus.COMPLETED)


def session_error(code: str) -> Callable[[Victim, FarSide], Awaitable[None]]:
    async def strike(_: Victim, far: FarSide) -> None:
        await far.say(type="session.error", code=code, message="")

    return strike


def answers(status: str) -> Callable[[Victim, FarSide], Awaitable[None]]:
    async def strike(_: Victim, far: FarSide) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await far.stream.receive_some(4096)
        await far.stream.send_all(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno".encode())

    return strike


async def accepts_and_is_mute(_: Victim, __: FarSide) -> None:
    await trio.lowlevel.checkpoint()


async def both_reset(victim: Victim, far: FarSide) -> None:
    victim.phone.stream.reset()
    far.stream.reset()
    await trio.lowlevel.checkpoint()


async def wound_up(victim: Victim, _: FarSide) -> None:
    victim.line.wind_up(Ending(Blame.US, Reason.DRAINED), within_seconds=WIND_UP_SECONDS)
    await trio.lowlevel.checkpoint()


async def cut(victim: Victim, _: FarSide) -> None:
    victim.line.end(Ending(Blame.US, Reason.CUT))
    await trio.lowlevel.checkpoint()


# ---- what becomes of the call ------------------------------------------------------------------------------

PONG_SECONDS: Final = 8.0  # ping and its pong: the longest that a far end can be gone unseen
MEDIA_SECONDS: Final = 5.1  # without a frame of the carrier's
WINDOW_SECONDS: Final = 7.1  # the next ping finds the window shut, and may not leave within 2 s
READY_SECONDS: Final = 8.0  # for the agent's first word
SEARCH_SECONDS: Final = 8.0  # for another session of the agent's
APOLOGY_SECONDS: Final = 2.5  # to be heard, behind what the phone still plays


def fails(reason: Reason, seen_seconds: float = 0.1, *, forced: bool = False) -> Dies:
    """The agent is given up, and the callee hears an apology."""
    return Dies(Blame.AGENT, reason, seen_seconds + APOLOGY_SECONDS, forced)


def missed(reason: Reason, seen_seconds: float = 0.1) -> Mendable:
    """The agent is missed, and another session is looked for."""
    return Mendable(fails(reason, seen_seconds + SEARCH_SECONDS))


def at_first(reason: Reason) -> Mendable:
    """There was no session yet: the second attempt shares the first one's time, and nothing was lost."""
    return Mendable(fails(reason, SEARCH_SECONDS), Survives("session failed", is_whole=False))


BEFORE_READY: Final = (Leg.AGENT, Moment.BEFORE_READY)
PROTOCOL: Final[Verdicts] = {
    Leg.PHONE: Dies(Blame.CARRIER, Reason.PROTOCOL),
    Leg.AGENT: fails(Reason.PROTOCOL),
}
LOST: Final[Verdicts] = {Leg.PHONE: Dies(Blame.CARRIER, Reason.LOST), Leg.AGENT: missed(Reason.LOST)}
LOST_AT_FIRST: Final = {BEFORE_READY: at_first(Reason.LOST)}
LEFT: Final[Verdicts] = {Leg.PHONE: Dies(Blame.CARRIER, Reason.LOST), Leg.AGENT: fails(Reason.LOST)}
NOT_READY: Final = fails(Reason.NOT_READY, READY_SECONDS, forced=True)
SILENT: Final[Verdicts] = {
    Leg.PHONE: Dies(Blame.CARRIER, Reason.SILENT, MEDIA_SECONDS, forced=True),
    Leg.AGENT: missed(Reason.SILENT, PONG_SECONDS),
}
# All was said: the goodbye counts, though its echo may be missing.
SAID: Final = Dies(Blame.NOBODY, Reason.GOODBYE, MEDIA_SECONDS, forced=True)
UNREAD: Final = Survives("unreadable message")


FAULTS: Final = [
    Fault("clean close", closes(1000), LEFT),
    Fault("close 1001", closes(1001), LOST, LOST_AT_FIRST),
    Fault("close 1008", closes(1008), LEFT),
    Fault("close 1011", closes(1011), LOST, LOST_AT_FIRST),
    Fault("close 1013", closes(1013), LOST, LOST_AT_FIRST),
    Fault("close 4000", closes(4000), LEFT),
    Fault("FIN without a close frame", fin, LOST, LOST_AT_FIRST),
    Fault("RST", rst, LOST, LOST_AT_FIRST),
    Fault("half-close", half_closes, LOST, LOST_AT_FIRST),
    Fault(
        "stops reading",
        stops_reading,
        {
            Leg.PHONE: Dies(Blame.CARRIER, Reason.STALLED, WINDOW_SECONDS, forced=True),
            Leg.AGENT: missed(Reason.STALLED, WINDOW_SECONDS),
        },
        # What it had to say was heard before anybody missed its ear.
        {(Leg.AGENT, Moment.FAREWELL): SAID},
    ),
    Fault(
        "stops writing",
        stops_writing,
        SILENT,
        {BEFORE_READY: NOT_READY, (Leg.PHONE, Moment.FAREWELL): SAID},
    ),
    Fault("one byte a second", drips, SILENT, {BEFORE_READY: NOT_READY, (Leg.PHONE, Moment.FAREWELL): SAID}),
    Fault("garbage text", says(1, b"{nope"), {Leg.PHONE: UNREAD, Leg.AGENT: UNREAD}),
    Fault("garbage text ten times", says(10, b"{nope"), PROTOCOL),
    Fault("JSON of a wrong shape", misshapes, {Leg.PHONE: UNREAD, Leg.AGENT: UNREAD}),
    Fault(
        "flood of unknown messages",
        says(MANY, b'{"event": "noise", "type": "noise"}'),
        {Leg.PHONE: Survives("unknown phone event"), Leg.AGENT: Survives("unknown agent event")},
    ),
    Fault(
        "flood of sound",
        floods,
        {Leg.AGENT: fails(Reason.FLOOD)},
        {BEFORE_READY: Survives("late_frames")},
    ),
    Fault("binary frame", says(1, b"\0" * 160, BINARY), PROTOCOL),
    Fault("2 MB frame", says(1, HUGE), PROTOCOL),
    Fault("start repeated", starts_again(None), {Leg.PHONE: Survives("start repeated")}),
    Fault("start of another stream", starts_again("MZ" + "9" * 32), {Leg.PHONE: PROTOCOL[Leg.PHONE]}),
    Fault(
        "stop that never comes",
        hangs_up_without_stop,
        {Leg.PHONE: Dies(Blame.CALLEE, Reason.HUNG_UP, forced=True, is_told=False)},
    ),
    Fault(
        "fatal session.error",
        session_error("session_expired"),
        {Leg.AGENT: fails(Reason.ERROR)},
        {BEFORE_READY: fails(Reason.REFUSED)},
    ),
    Fault(
        "passing session.error",
        session_error("at_capacity"),
        {Leg.AGENT: missed(Reason.ERROR)},
        {BEFORE_READY: at_first(Reason.REFUSED)},
    ),
    Fault(
        "session.error of no weight",
        session_error("invalid_value"),
        {Leg.AGENT: Survives("session error")},
        {BEFORE_READY: fails(Reason.REFUSED)},
    ),
    Fault("mute after TCP accept", accepts_and_is_mute, {Leg.AGENT: NOT_READY}, at_handshake=True),
    Fault(
        "401 at the handshake",
        answers("401 Unauthorized"),
        {Leg.AGENT: fails(Reason.UNAUTHORIZED)},
        at_handshake=True,
    ),
    Fault(
        "404 at the handshake",
        answers("404 Not Found"),
        {Leg.AGENT: fails(Reason.REFUSED)},
        at_handshake=True,
    ),
    Fault(
        "503 at the handshake",
        answers("503 Service Unavailable"),
        {Leg.AGENT: at_first(Reason.REFUSED)},
        at_handshake=True,
    ),
    Fault("200 instead of 101", answers("200 OK"), {Leg.AGENT: fails(Reason.REFUSED)}, at_handshake=True),
    Fault("RST of both legs", both_reset, {Leg.BOTH: Dies(Blame.CARRIER, Reason.LOST)}),
    Fault(
        "wind-up",
        wound_up,
        {Leg.OURS: Dies(Blame.US, Reason.DRAINED, WIND_UP_SECONDS)},
        {(Leg.OURS, Moment.FAREWELL): Dies(Blame.NOBODY, Reason.GOODBYE, WIND_UP_SECONDS)},
    ),
    Fault("cut", cut, {Leg.OURS: Dies(Blame.US, Reason.CUT)}),
]
