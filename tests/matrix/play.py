"""Plays one cell of the kill matrix beside an undisturbed call, through all of the relay but its web edge.

Must not know what the table expects: it tells what happened, and how long it took.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from unittest import mock

import structlog
import trio
import trio.lowlevel
import trio_websocket

import relay.handshake
import relay.legs
from relay.carrier import Placed
from relay.handshake import accept_phone_leg, open_agent_leg
from relay.line import Line
from relay.outcomes import Ending
from relay.switchboard import Document
from relay.tools.builtin import end_call
from relay.tools.functions import tool
from relay.wire.callbacks import CarrierStatus, StatusCallback
from tests.far_ends import AGENT_URL, answer_upgrade
from tests.matrix.conversation import OPTIONS, Conversation
from tests.matrix.far_sides import BreakableStream, FarSide, Wire, connect_websocket
from tests.matrix.faults import After, Cell, Leg, Moment
from tests.test_switchboard import PROFILE, Desk

TOOL_SECONDS = 1.0  # that the tool of the conversation takes
STRUCK_SECONDS = 0.02  # for a fault to arrive before its far side says anything more
LOOK_SECONDS = 0.01  # between two looks at what nobody announces
NEVER_SECONDS = 60.0  # longer than anything here may take


@tool
async def book() -> str:
    """Book."""
    await trio.sleep(TOOL_SECONDS)
    return "booked"


TOOLS = (end_call, book)
AGENT = PROFILE.model_copy(update={"tools": tuple(tool.name for tool in TOOLS)})


@dataclass(frozen=True)
class Outcome:
    """What became of one call."""

    ending: Ending
    records: int  # final ones
    noted: frozenset[str]  # in the record: events of its timeline, and what was counted
    told_at: list[float]  # when the carrier was told to hang up
    open_streams: int
    frames_lost: list[str]  # either way, between the first and the last that came
    frames_unheard: int  # either way, at the end
    frames_came: int
    latest_seconds: float  # the longest that a frame took


@dataclass(frozen=True)
class Played:
    """One cell: the call that was struck, the other one, and the moments on the clock."""

    struck: Outcome
    bystander: Outcome
    struck_at: float
    known_at: float  # the call has its ending
    closed_at: float  # and none of our sockets is open any more
    tasks_left: list[str]

    @property
    def noticed_seconds(self) -> float:
        """From the fault to the ending."""
        return self.known_at - self.struck_at

    @property
    def closed_seconds(self) -> float:
        """From the ending to the last of our sockets."""
        return self.closed_at - self.known_at


class Victim(Conversation):
    """The call that is struck, as its faults know it."""

    def __init__(self, desk: Desk, cell: Cell, line: Line, sid: str, stream_sid: str) -> None:
        super().__init__(desk.nursery, line, sid, stream_sid, at=self._live)
        self.struck_at: float | None = None
        self._desk = desk
        self._cell = cell

    async def _live(self, moment: Moment) -> None:
        if self._cell.moment is moment and self.struck_at is None:
            await self._strike(self.phone if self._cell.leg is Leg.PHONE else self.agent)

    async def _strike(self, far: FarSide) -> None:
        self.struck_at = trio.current_time()
        self._desk.nursery.start_soon(self._break, far)
        await trio.sleep(STRUCK_SECONDS)

    async def _break(self, far: FarSide) -> None:
        with suppress(trio_websocket.ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await self._cell.fault.strike(self, far)

    async def be_agent(self, stream: BreakableStream) -> None:
        """As any other one, unless it is the handshake that fails, or the agent is gone for good."""
        if self.struck_at is None and self._cell.fault.at_handshake:
            await self._strike(FarSide(None, stream))
        elif self.struck_at is None or self._cell.after is After.BACK:
            await super().be_agent(stream)

    async def carrier_says(self, status: CarrierStatus) -> None:
        """A status callback."""
        await self._desk.board.carrier_called_back(self.line.record.id, StatusCallback(self.sid, status))


async def _goes_on(_moment: Moment) -> None:
    await trio.lowlevel.checkpoint()


Talk = TypeVar("Talk", bound=Conversation)


class Node(Desk):
    """A node whose agents are dialled by the relay's own code, over the wire of the test."""

    def __init__(self, nursery: trio.Nursery, calls: trio.Nursery, wire: Wire) -> None:
        super().__init__(nursery, calls, profile=AGENT, tools=TOOLS)
        self._wire = wire
        self._talks: dict[str, Conversation] = {}  # by call id
        self._far_streams: list[BreakableStream] = []

    async def open_agent(self, resume_token: str | None = None) -> relay.legs.Leg:
        """As the service does."""
        _NODE.set(self)
        headers = {"Authorization": resume_token or "key"}
        return await open_agent_leg(AGENT_URL, headers=headers, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def dialled(self) -> Any:
        """A connection to the agent of the call that dials."""
        talk = self._talks[structlog.contextvars.get_contextvars()["call_id"]]  # its tasks carry its id
        ours, theirs = self._connect(talk)
        self.nursery.start_soon(talk.be_agent, theirs)
        return ours

    def _connect(self, talk: Conversation) -> tuple[Any, BreakableStream]:
        ours, theirs = self._wire()
        talk.our_streams.append(ours)
        self._far_streams.append(theirs)
        return ours, theirs

    async def clear_away(self) -> None:
        """Close what the far sides have left open."""
        for stream in self._far_streams:
            await trio.aclose_forcefully(stream.inner)

    async def place_call(self, number: int, talks: Callable[[Line, str, str], Talk]) -> Talk:
        """A call whose phone was answered and whose stream has come."""
        sid, stream_sid = f"CA{number:032}", f"MZ{number:032}"
        self.carrier.answer = Placed(sid)
        line = await self.placed()
        talk = self._talks[line.record.id] = talks(line, sid, stream_sid)
        assert await self.board.document(line.record.id, 0) is Document.CONNECT
        assert await self.board.admit(line.record.id, 0, sid) is line
        ours, theirs = self._connect(talk)
        async with trio.open_nursery() as joining:
            joining.start_soon(answer_upgrade, ours)
            websocket = await connect_websocket(self.nursery, theirs, **OPTIONS)
        talk.phone = FarSide(websocket, theirs, stream_sid=stream_sid, is_client=True)
        line.connect(accept_phone_leg(ours), stream_sid)
        self.nursery.start_soon(talk.hold_phone)
        return talk

    async def outcome(self, talk: Conversation) -> Outcome:
        """What became of a call that is over."""
        record = await self.store.get(talk.line.record.id)
        assert record is not None
        assert record.ending is not None
        ways = (talk.to_agent, talk.to_phone)
        return Outcome(
            ending=record.ending,
            records=self.store.saved.count(record.id),
            noted=frozenset([str(event["event"]) for event in record.events])
            | {name for name, count in record.counts.items() if count},
            told_at=[at for sid, at in self.carrier.hung_up if sid == talk.sid],
            open_streams=sum(not _is_closed(stream) for stream in talk.our_streams),
            frames_lost=[payload for way in ways for payload in way.lost()],
            frames_unheard=max(way.unheard_at_the_end() for way in ways),
            frames_came=sum(len(way.came) for way in ways),
            latest_seconds=max(way.latest_seconds() for way in ways),
        )


_NODE: ContextVar[Node] = ContextVar("node")


async def _open_tcp(_host: str, _port: int) -> Any:
    await trio.lowlevel.checkpoint()
    return _NODE.get().dialled()


def network() -> AbstractContextManager[object]:
    """Around all that is played: what the relay dials is the agent of the call that dials."""
    return mock.patch.object(relay.handshake, "open_tcp", _open_tcp)


async def play(cell: Cell, wire: Wire) -> Played:
    """Strike one of two live calls, and see what becomes of both; within `network()`."""
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as calls:
            node = Node(nursery, calls, wire)
            with trio.fail_after(NEVER_SECONDS):
                victim = await node.place_call(1, partial(Victim, node, cell))
                victim.may_end.set()
                bystander = await node.place_call(2, partial(Conversation, nursery, at=_goes_on))
                known_at = await _when(lambda: victim.line.ending is not None)
                closed_at = await _when(lambda: all(map(_is_closed, victim.our_streams)))
                bystander.may_end.set()
                await node.board.wait_idle()
            tasks_left = sorted(task.name for task in calls.child_tasks)
            struck, other = await node.outcome(victim), await node.outcome(bystander)
        await node.clear_away()
        nursery.cancel_scope.cancel()
    assert victim.struck_at is not None
    return Played(struck, other, victim.struck_at, known_at, closed_at, tasks_left)


async def _when(is_true: Callable[[], bool]) -> float:
    while not is_true():  # noqa: ASYNC110 - nobody announces it
        await trio.sleep(LOOK_SECONDS)
    return trio.current_time()


def _is_closed(stream: Any) -> bool:
    closed: bool = stream.socket.fileno() == -1 if hasattr(stream, "socket") else stream.closed
    return closed
