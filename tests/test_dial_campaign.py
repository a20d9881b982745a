"""Thousands of calls through lying carriers and dying nodes: none twice, none unpermitted, none unrecorded.

Must not know HTTP: the carrier is a world of its own that places, rings, loses and repeats as a seed says.
"""

from __future__ import annotations

import gc
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
import trio
from trio.testing import MockClock

from relay import course, custody, gatekeeper, reconciler
from relay.carrier import (
    AlreadyEnded,
    Carrier,
    CarrierCall,
    Dialled,
    DialOrder,
    HangUp,
    HungUp,
    Notice,
    NotPermitted,
    Permission,
    Placed,
    Unavailable,
    Uncertain,
)
from relay.compliance import Permit
from relay.line import Line
from relay.outcomes import Refusal
from relay.placing import CallRequest
from relay.store import LEASE_SECONDS, CallRecord, MemoryStore, Status, Store, sql, sql_calls, sql_subjects
from relay.store.sql import open_store
from relay.switchboard import Document
from relay.wire.callbacks import CarrierStatus, StatusCallback
from tests.postgres import fresh_database, postgres_server
from tests.test_switchboard import Desk, virtual_now

__all__ = ["postgres_server"]

AMBIGUOUS = 0.05  # of the orders; half of them are carried out
TOO_MANY = 0.02
FOREIGN = 0.2  # of the ambiguous orders: somebody else's call to that number stands in the list as well
LOST = REPEATED = LATE = 0.1  # of the callbacks
CALLS_A_SECOND = 3.0


@dataclass
class Phone:
    """One call as the carrier has it."""

    sid: str
    call_id: str  # as its addresses say; empty for a call that is none of ours
    to: str
    created_at: datetime
    status: CarrierStatus = CarrierStatus.QUEUED
    over: trio.Event = field(default_factory=trio.Event)


class World:
    """The carrier, the people, and the balancer that finds the node which is alive."""

    def __init__(self, nursery: trio.Nursery, seed: int, clock: Callable[[], datetime]) -> None:
        self.rng = random.Random(seed)
        self.phones: dict[str, Phone] = {}
        self.listed: defaultdict[str, list[Phone]] = defaultdict(list)  # by number, ours and others'
        self.orders: list[tuple[str, str, Permit]] = []  # each request that was sent: call, number, permit
        self.carried_out: Counter[str] = Counter()  # by call, what rang or may have
        self.callbacks: Counter[str] = Counter()
        self.foreign_hang_ups = 0
        self.documents: Counter[Document] = Counter()
        self.node: Node | None = None
        self._nursery = nursery
        self._clock = clock

    async def dial(self, order: DialOrder, permission: Permission, on_dialing: Callable[[], None]) -> Dialled:
        """As the dialer does it: a permit for each request, and one more request after 429 alone."""
        while True:
            permit = await permission()
            if not isinstance(permit, Permit):
                return NotPermitted(permit.refusal)
            on_dialing()
            await trio.lowlevel.checkpoint()
            self.orders.append((order.call_id, order.to, permit))
            if self.rng.random() >= TOO_MANY:
                break
            await trio.sleep(self.rng.uniform(0.5, 2))
        self.carried_out[order.call_id] += 1
        is_ambiguous = self.rng.random() < AMBIGUOUS
        if not is_ambiguous or self.rng.random() < 0.5:
            phone = self._list(order.call_id, order.to)
            self._nursery.start_soon(self._ring, phone)
            if not is_ambiguous:
                await trio.sleep(self.rng.uniform(0.1, 0.5))
                return Placed(phone.sid)
        if self.rng.random() < FOREIGN:
            self._list("", order.to).status = CarrierStatus.IN_PROGRESS
        await trio.sleep(10)
        return Uncertain("no answer")

    def _list(self, call_id: str, to: str) -> Phone:
        phone = Phone(f"CA{len(self.phones):032x}", call_id, to, self._clock())
        self.phones[phone.sid] = phone
        self.listed[to].append(phone)
        return phone

    @property
    def foreign(self) -> list[Phone]:
        """The calls of somebody else's on the same account."""
        return [phone for phone in self.phones.values() if not phone.call_id]

    async def _ring(self, phone: Phone) -> None:
        await self._becomes(phone, CarrierStatus.INITIATED, self.rng.uniform(0.1, 2))
        await self._becomes(phone, CarrierStatus.RINGING, self.rng.uniform(0.1, 2))
        fate = self.rng.random()
        if fate < 0.5:
            unheard = CarrierStatus.BUSY if fate < 0.2 else CarrierStatus.NO_ANSWER
            return await self._becomes(phone, unheard, self.rng.uniform(1, 20))
        await self._becomes(phone, CarrierStatus.IN_PROGRESS, self.rng.uniform(1, 8))
        for attempt in range(self.rng.choice((1, 1, 1, 2))):
            if phone.over.is_set():
                return None
            if await self._fetches(phone, attempt) is not Document.CONNECT:
                break
            await trio.sleep(self.rng.uniform(1, 12))  # the person hangs up before there is a stream
        return await self._becomes(phone, CarrierStatus.COMPLETED, self.rng.uniform(0, 2))

    async def _becomes(self, phone: Phone, status: CarrierStatus, after_seconds: float) -> None:
        with trio.move_on_after(after_seconds):
            await phone.over.wait()
        if phone.over.is_set():
            return
        phone.status = status
        if status.is_terminal:
            phone.over.set()
        self._tell(phone, status)

    def _tell(self, phone: Phone, status: CarrierStatus) -> None:
        for times in range(2):
            if self.rng.random() < (LOST if times == 0 else 1 - REPEATED):
                self.callbacks["lost"] += times == 0
                continue
            self.callbacks["repeated"] += times
            late_seconds = self.rng.uniform(1, 20) if self.rng.random() < LATE else 0.05
            self._nursery.start_soon(self._deliver, phone, status, late_seconds)

    async def _deliver(self, phone: Phone, status: CarrierStatus, after_seconds: float) -> None:
        await trio.sleep(after_seconds)
        if self.node is not None and _is_about(self.node, phone):
            board = self.node.desk.board
            await self.node.does(board.carrier_called_back, phone.call_id, StatusCallback(phone.sid, status))

    async def _fetches(self, phone: Phone, attempt: int) -> Document | None:
        if self.node is None or not _is_about(self.node, phone):
            return None
        fetch = self.node.desk.board.document
        document: Document | None = await self.node.does(fetch, phone.call_id, attempt, phone.sid)
        if document is not None:
            self.documents[document] += 1
        return document

    async def hang_up(self, sid: str) -> HangUp:
        """End a call by the operator's word."""
        await trio.sleep(0.1)
        phone = self.phones[sid]
        self.foreign_hang_ups += phone.call_id == ""
        if phone.over.is_set():
            return AlreadyEnded()
        phone.over.set()
        phone.status = CarrierStatus.COMPLETED
        self._tell(phone, phone.status)
        return HungUp()


def _is_about(node: Node, phone: Phone) -> bool:
    """The first thing that the web does with a signed request."""
    line = node.desk.board.line(phone.call_id)
    return line is None or line.learn_sid(phone.sid)


class Mortal:
    """Whatever a node uses of the world around it; once the node is dead, nothing answers it any more."""

    def __init__(self, part: object, node: Node) -> None:
        self._part = part
        self._node = node

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def use(*given: Any, **named: Any) -> Any:
            await self._node.breathe()
            answer = await getattr(self._part, name)(*given, **named)
            await self._node.breathe()
            return answer

        return use


class Link(Carrier):
    """The carrier as one node has it, until the node dies."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def dial(
        self, order: DialOrder, permission: Permission, *, on_dialing: Callable[[], None] = lambda: None
    ) -> Dialled:
        return await self._world.dial(order, permission, on_dialing)

    async def hang_up(self, sid: str) -> HangUp:
        return await self._world.hang_up(sid)

    async def status_of(self, sid: str) -> CarrierCall | Unavailable | None:
        await trio.sleep(0.1)
        phone = self._world.phones[sid]
        return CarrierCall(sid, phone.status, phone.to)

    async def calls_since(self, to: str, since: datetime) -> list[CarrierCall] | Unavailable:
        await trio.sleep(0.1)
        listed = [phone for phone in self._world.listed[to] if phone.created_at >= since]
        return [CarrierCall(phone.sid, phone.status, to, phone.created_at) for phone in listed]

    async def record(self, sid: str, callback: str) -> str | Unavailable:
        await trio.lowlevel.checkpoint()
        return Unavailable(None, None, "not recorded")

    async def notices(self, sid: str) -> list[Notice] | Unavailable:
        await trio.lowlevel.checkpoint()
        return []


class Node:
    """One process: lives until it is killed, and then writes nothing and says nothing."""

    def __init__(self, name: str, world: World, store: Store, clock: Callable[[], datetime]) -> None:
        self.name = name
        self.is_dead = False
        self.desk: Desk
        self._world = world
        self._store = store
        self._clock = clock
        self._life = trio.CancelScope()

    async def run(self, task_status: trio.TaskStatus[Node]) -> None:
        """Until killed."""
        with self._life:
            async with trio.open_nursery() as front, trio.open_nursery() as calls:
                self.desk = Desk(
                    front,
                    calls,
                    node=self.name,
                    max_calls=5000,
                    ledger=cast("Store", Mortal(self._store, self)),
                    carrier=cast("Any", Mortal(Link(self._world), self)),
                    clock=self._clock,
                )
                front.start_soon(self.desk.reconciler.run)
                task_status.started(self)
                await trio.sleep_forever()

    async def breathe(self) -> None:
        """Return at once in a process that lives, never in one that is dead."""
        if self.is_dead:
            await trio.sleep_forever()

    def kill(self) -> None:
        """As SIGKILL does."""
        self.is_dead = True
        self._life.cancel()

    async def does(self, act: Callable[..., Awaitable[Any]], *given: Any) -> Any:
        """What the carrier asks of this process; None where it has died and no answer comes."""
        with trio.move_on_after(15):
            return await act(*given)
        return None


class Campaign:
    """Everybody is called once, and the node that does it is killed now and then."""

    def __init__(
        self, nursery: trio.Nursery, store: Store, *, seed: int, clock: Callable[[], datetime]
    ) -> None:
        self.world = World(nursery, seed, clock)
        self.store = store
        self.taken: Counter[str] = Counter()  # how often each number was asked for until somebody took it
        self._nursery = nursery
        self._clock = clock
        self._nodes = 0

    async def run(self, calls: int, *, killed_every: int) -> list[CallRecord]:
        """Place so many calls and wait for the last record; answers with all records."""
        await self._replace_node()
        async with trio.open_nursery() as asking:
            for number in range(calls):
                asking.start_soon(self._ask, f"+1202555{number:04}")
                await trio.sleep(self.world.rng.uniform(0, 2) / CALLS_A_SECOND)
                if number % killed_every == killed_every - 1:
                    await self._replace_node()
        records: list[CallRecord] = []
        with trio.move_on_after(1000):
            while not records or any(record.ending is None for record in records):
                await trio.sleep(60)
                records = await self.store.recent(calls + 1)
        return records

    async def _replace_node(self) -> None:
        if self.world.node is not None:
            self.world.node.kill()
            await trio.sleep(self.world.rng.uniform(0, 3))
        self._nodes += 1
        node = Node(f"node-{self._nodes}", self.world, self.store, self._clock)
        self.world.node = await self._nursery.start(node.run)

    async def _ask(self, number: str) -> None:
        """As a careful client: the same key until there is an answer."""
        request = CallRequest(to=number, idempotency_key=number, digest="the same")
        answer: Line | CallRecord | Refusal | None = None
        while answer is None or isinstance(answer, Refusal):
            assert self.world.node is not None
            answer = await self.world.node.does(self.world.node.desk.board.place, request)
            self.taken[number] += 1
            await trio.sleep(1)


async def check_campaign(campaign: Campaign, records: list[CallRecord], calls: int) -> None:
    """What was promised."""
    world = campaign.world
    assert len(records) == len(campaign.taken) == calls
    # None without a final record, of whichever node.
    assert [
        record.id for record in records if record.ending is None or record.status is not Status.ENDED
    ] == []
    # None twice: for one intent, one number, one permit.
    assert max(world.carried_out.values()) == 1
    assert max(Counter(record.to for record in records).values()) == 1
    assert max(Counter((call_id, permit.attempt) for call_id, _, permit in world.orders).values()) == 1
    # None without a permit of its own attempt, which the ledger has.
    for call_id, to, permit in world.orders:
        assert (permit.call_id, permit.to) == (call_id, to)
        verdicts = {verdict["attempt"]: verdict for verdict in await campaign.store.verdicts(call_id)}
        assert verdicts[permit.attempt] == permit.verdict.as_json()
    # None of anybody else's hung up, though the list has it under a number of ours; none of ours still up.
    assert world.foreign_hang_ups == 0
    assert {phone.status for phone in world.foreign} <= {CarrierStatus.IN_PROGRESS}
    assert [phone.sid for phone in world.phones.values() if phone.call_id and not phone.over.is_set()] == []


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nothing is logged, and nothing is searched for garbage: both take longer than the calls themselves."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.disable()  # all that is kept is kept to the end: a ledger of thousands, walked again and again
    yield
    gc.enable()
    structlog.reset_defaults()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_thousand_calls(autojump_clock: MockClock, quiet: None) -> None:
    calls = 10_000
    store = MemoryStore(kept=calls + 1, clock=virtual_now)
    async with trio.open_nursery() as nursery:
        campaign = Campaign(nursery, store, seed=1, clock=virtual_now)
        records = await campaign.run(calls, killed_every=500)
        await check_campaign(campaign, records, calls)
        assert campaign.world.documents[Document.CONNECT] > calls / 4
        assert len(campaign.world.foreign) > calls * AMBIGUOUS * FOREIGN / 2
        assert min(campaign.world.callbacks[kind] for kind in ("lost", "repeated")) > calls / 4
        assert campaign.world.node is not None
        assert campaign.world.node.name == f"node-{1 + calls // 500}"
        nursery.cancel_scope.cancel()


RATE = 20.0  # so many seconds of trio's pass in one of the database's


@pytest.fixture
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """A clock on which threads take time; what the database's own clock measures is shortened alike."""
    for module in (custody, reconciler, gatekeeper, sql_calls):
        monkeypatch.setattr(module, "LEASE_SECONDS", LEASE_SECONDS / RATE)
    monkeypatch.setattr(sql_subjects, "CLOCKS_APART_SECONDS", 3600.0)  # those of the nodes run so fast
    monkeypatch.setattr(sql, "OPERATION_SECONDS", sql.OPERATION_SECONDS * RATE)
    monkeypatch.setattr(course, "SAVE_SECONDS", course.SAVE_SECONDS * RATE)
    return MockClock(rate=RATE)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'relay.db'}"
    return fresh_database(request.getfixturevalue("postgres_server"))


@pytest.mark.slow
async def test_two_hundred_calls_on_a_database(fast_clock: MockClock, quiet: None, url: str) -> None:
    calls = 200
    began = datetime.now(UTC)

    def clock() -> datetime:  # of the nodes; read in the database's threads too, which know nothing of trio's
        return began + (datetime.now(UTC) - began) * RATE

    async with open_store(url, b"of tests") as store, trio.open_nursery() as nursery:
        campaign = Campaign(nursery, store, seed=1, clock=clock)
        records = await campaign.run(calls, killed_every=50)
        await check_campaign(campaign, records, calls)
        nursery.cancel_scope.cancel()
