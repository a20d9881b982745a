"""Every call is placed, ended and recorded once, whatever the carrier says or does not say.

Must not know HTTP or real time: the carrier is a class, the store is the one in memory, the clock jumps.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
import trio_websocket
from trio.testing import MockClock

from relay.agent_key import RETRY_SECONDS, VERDICT_SECONDS
from relay.carrier import (
    AlreadyEnded,
    CarrierCall,
    Dialled,
    DialOrder,
    HangUp,
    HungUp,
    NotHungUp,
    Notice,
    NotPermitted,
    Permission,
    Placed,
    Refused,
    Unavailable,
    Uncertain,
)
from relay.clips import Clips
from relay.compliance import DialRequest, Facts, Permit, load_rulebook
from relay.compliance import Refused as Forbidden
from relay.costs import shipped_prices
from relay.doubt import LISTED, LISTED_SECONDS, LOOK_SECONDS, UNKNOWN_SECONDS
from relay.gatekeeper import Gatekeeper
from relay.handshake import HandshakeRefused
from relay.legs import Leg
from relay.limits import Limits
from relay.line import Line
from relay.meter import Meter
from relay.outcomes import Blame, Ending, LegClosed, Reason, Refusal
from relay.placing import Agent, Cast
from relay.profiles import Profile
from relay.reconciler import Reconciler
from relay.recordings import NO_RECORDINGS, Recordings
from relay.script import Overrides
from relay.store import CallRecord, ListEntry, MemoryStore, Spool, Status, Store, StoreError, Wish, Written
from relay.store.ledger import Judge, Retention
from relay.store.records import Progress
from relay.switchboard import CallRequest, Document, House, Phase, Switchboard
from relay.telemetry.capture import Captures
from relay.telemetry.metrics import Metrics
from relay.telemetry.traces import Traces
from relay.terms import BargeIn
from relay.tools import Tool
from relay.wire.callbacks import (
    AmdCallback,
    AnsweredBy,
    CarrierStatus,
    StatusCallback,
    StreamCallback,
    StreamEvent,
)
from tests.far_ends import MemoryStream, join_agent_leg, join_phone_leg, memory_pair
from tests.test_call import LOUD, SILENCE, Far
from tests.test_dialogue import PATIENT

SID = "CA" + "1" * 32
STREAM = "MZ" + "2" * 32
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
PROFILE = Profile(
    name="default",
    purpose="informational",
    disclosure="This is an automated call from the clinic.",
    system_prompt="Be kind.",
    limits=PATIENT,
)
ANNOUNCED = Profile(
    name="announced",
    purpose="informational",
    disclosure="This is an automated call from the clinic. Press 9 to stop it.",
    disclosure_mode="carrier",
    greeting="Hello?",
    system_prompt="Be kind.",
)
OFFICE_HOURS = datetime(2026, 3, 10, 18, tzinfo=UTC)  # in all of America
RULEBOOK = load_rulebook()
FRESH_NUMBERS = (f"+1202555{number:04}" for number in itertools.cycle(range(100, 200)))  # fictional
NUMBER = "+12025550143"
NOWHERE = Path("no-spool")  # nothing is spooled while the store answers


def virtual_now() -> datetime:
    """The clock that everybody here shares."""
    return EPOCH + timedelta(seconds=trio.current_time())


POSSIBLY_OURS = CarrierCall(SID, CarrierStatus.IN_PROGRESS, NUMBER)  # as the carrier's list has it


def candidates(record: CallRecord) -> list[object]:
    """What the timeline says of the carrier's list, look after look."""
    return [event["candidates"] for event in record.events if event["event"] == LISTED]


class FakeCarrier:
    """The carrier as a class: what it answers is set, what it was asked is kept."""

    def __init__(self, clock: Callable[[], datetime] = virtual_now) -> None:
        self.clock = clock
        self.answer: Dialled | Exception = Placed(SID)
        self.queue_seconds = 0.0  # held back by the pace
        self.answer_seconds = 0.1
        self.hang_up_answer: HangUp | Exception = HungUp()
        self.status: CarrierCall | Unavailable | None = None
        self.told: list[Notice] | Unavailable = []
        self.listed: list[CarrierCall] | Unavailable = []
        self.permits: list[Permit] = []  # one for each order that was sent
        self.hung_up: list[tuple[str, float]] = []
        self.asked: list[str] = []
        self.recorded: list[tuple[str, str]] = []
        self.record_answer: str | Unavailable = "RE" + "0" * 32

    @property
    def dialled(self) -> list[str]:
        """The calls that were ordered, oldest first."""
        return [permit.call_id for permit in self.permits]

    async def dial(
        self, order: DialOrder, permission: Permission, *, on_dialing: Callable[[], None] = lambda: None
    ) -> Dialled:
        await trio.sleep(self.queue_seconds)
        permit = await permission()
        if not isinstance(permit, Permit):
            return NotPermitted(permit.refusal)
        assert permit.covers(order.call_id, permit.attempt, order.to, self.clock())
        on_dialing()
        await trio.lowlevel.checkpoint()
        self.permits.append(permit)
        await trio.sleep(self.answer_seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def hang_up(self, sid: str) -> HangUp:
        self.hung_up.append((sid, trio.current_time()))
        await trio.sleep(0.1)
        if isinstance(self.hang_up_answer, Exception):
            raise self.hang_up_answer
        if isinstance(self.hang_up_answer, HungUp) and isinstance(self.status, CarrierCall):
            self.status = replace(self.status, status=CarrierStatus.COMPLETED)
        return self.hang_up_answer

    async def record(self, sid: str, callback: str) -> str | Unavailable:
        await trio.sleep(0.1)
        self.recorded.append((sid, callback))
        return self.record_answer

    async def status_of(self, sid: str) -> CarrierCall | Unavailable | None:
        self.asked.append(sid)
        await trio.sleep(0.1)
        return self.status

    async def calls_since(self, to: str, since: datetime) -> list[CarrierCall] | Unavailable:
        await trio.sleep(0.1)
        return self.listed

    async def notices(self, sid: str) -> list[Notice] | Unavailable:
        await trio.sleep(0.1)
        return self.told


class CountingStore(MemoryStore):
    """Counts final records, and fails when told to."""

    def __init__(self) -> None:
        super().__init__(clock=virtual_now)
        self.saved: list[str] = []
        self.fails: Exception | None = None

    def _look(self) -> None:
        if self.fails:
            raise self.fails

    async def add(self, record: CallRecord) -> CallRecord:
        self._look()
        return await super().add(record)

    async def get(self, call_id: str) -> CallRecord | None:
        self._look()
        return await super().get(call_id)

    async def write(self, progress: Progress) -> Written:
        if progress.ending is not None:
            self.saved.append(progress.call_id)
        self._look()
        return await super().write(progress)

    async def claim(self, call_id: str, node: str, lease_seconds: float) -> int | None:
        self._look()
        return await super().claim(call_id, node, lease_seconds)

    async def renew(self, node: str, call_ids: Collection[str], lease_seconds: float) -> dict[str, int]:
        self._look()
        return await super().renew(node, call_ids, lease_seconds)

    async def lost(self, node: str, call_ids: Collection[str]) -> set[str]:
        self._look()
        return await super().lost(node, call_ids)

    async def take_stream(
        self, call_id: str, attempt: int, sid: str, node: str, lease_seconds: float
    ) -> int | None:
        self._look()
        return await super().take_stream(call_id, attempt, sid, node, lease_seconds)

    async def unconfirmed(self, since: datetime, lease_seconds: float, limit: int) -> list[CallRecord]:
        self._look()
        return await super().unconfirmed(since, lease_seconds, limit)

    async def orphans(self, node: str, lease_seconds: float, limit: int) -> list[CallRecord]:
        self._look()
        return await super().orphans(node, lease_seconds, limit)

    async def unread(self, node: str) -> set[int]:
        self._look()
        return await super().unread(node)

    async def wishes(self, node: str) -> list[Wish]:
        self._look()
        return await super().wishes(node)

    async def facts(self, number: str, now: datetime, besides: str = "") -> Facts:
        self._look()
        return await super().facts(number, now, besides)

    async def permit(self, request: DialRequest, judge: Judge) -> Permit | Forbidden:
        self._look()
        return await super().permit(request, judge)

    async def suppress(self, entries: Sequence[ListEntry]) -> None:
        self._look()
        await super().suppress(entries)


class Desk:
    """One node under test: a switchboard, with the carrier, the store and the legs around it."""

    def __init__(
        self,
        nursery: trio.Nursery,
        calls: trio.Nursery,
        *,
        max_calls: int = 10,
        folder: Path | None = None,
        node: str = "node",
        carrier: FakeCarrier | None = None,
        store: CountingStore | None = None,
        ledger: Store | None = None,  # instead of `store`, which is empty then
        clock: Callable[[], datetime] = virtual_now,
        spool: Spool | None = None,
        rule_time: Callable[[], datetime | None] = lambda: OFFICE_HOURS,
        cast: Cast | None = None,  # the usual one
        calls_per_hour: int = 1_000_000,
        profile: Profile = PROFILE,
        tools: Sequence[Tool] = (),
        recordings: Recordings = NO_RECORDINGS,
    ) -> None:
        self.nursery = nursery
        self.calls = calls
        self.carrier = carrier or FakeCarrier(clock)
        self.store = store or CountingStore()
        ledger = ledger or self.store
        self.spool = spool or Spool(ledger, NOWHERE)
        self.metrics = Metrics()
        self.meter = Meter(self.metrics)
        self.traces = Traces()
        self.streams: list[MemoryStream] = []
        self.agent_fails: BaseException | None = None
        self._agents_in, self._agents = trio.open_memory_channel[Far](100)
        rulebook = replace(RULEBOOK, dials_per_hour=calls_per_hour)
        self.gatekeeper = Gatekeeper(ledger, rulebook, clock=clock, rule_time=rule_time)
        self.board = Switchboard(
            house=House(
                node=node,
                from_number="+12025550100",
                public_url="https://relay.test",
                max_call_seconds=600,
                max_calls=max_calls,
                ring_seconds=30,
                barge_in=BargeIn.INTERRUPTED,
                lead_silence_seconds=0.25,
                overrides=Overrides(),
            ),
            calls=calls,
            carrier=self.carrier,
            open_agent=self.open_agent,
            store=ledger,
            spool=self.spool,
            gatekeeper=self.gatekeeper,
            agents=Cast(default=Agent(profile, tools), announced=Agent(ANNOUNCED)) if cast is None else cast,
            clock=clock,
            probe=self.probe,
            captures=Captures(folder),
            recordings=recordings,
            traces=self.traces,
            meter=self.meter,
        )
        self.reconciler = Reconciler(
            node=node,
            switchboard=self.board,
            store=ledger,
            spool=self.spool,
            carrier=self.carrier,
            clock=clock,
            retention=Retention(),
            meter=self.meter,
            traces=self.traces,
            recordings=recordings,
            prices=shipped_prices(),
        )
        self.unreachable: Refusal | None = None

    async def probe(self) -> Refusal | None:
        await trio.sleep(0.01)
        return self.unreachable

    async def open_agent(self, resume_token: str | None) -> Leg:
        await trio.lowlevel.checkpoint()
        if self.agent_fails is not None:
            raise self.agent_fails
        ours, theirs = memory_pair()
        self.streams.append(ours)
        leg, far = await join_agent_leg(self.nursery, ours, theirs)
        self._agents_in.send_nowait(Far(far.socket, far.stream))
        return leg

    async def agent(self) -> Far:
        """The far end of the next session that was opened."""
        return await self._agents.receive()

    async def place(self, **request: Any) -> Line:
        """A call that was taken."""
        line = await self.board.place(CallRequest(**{"to": next(FRESH_NUMBERS), **request}))
        assert isinstance(line, Line), line
        return line

    async def placed(self, **request: Any) -> Line:
        """A call that the carrier has taken too."""
        line = await self.place(**request)
        await line.decided.wait()
        return line

    async def says(self, line: Line, *statuses: CarrierStatus) -> None:
        """Status callbacks, in that order."""
        for status in statuses:
            await self.board.carrier_called_back(line.record.id, StatusCallback(SID, status))

    async def streams_in(self, line: Line, attempt: int = 0) -> Far:
        """Twilio fetches the document and connects its stream; answers with the far end."""
        assert await self.board.document(line.record.id, attempt) is Document.CONNECT
        return await self.joins(line.record.id, attempt)

    async def joins(self, call_id: str, attempt: int) -> Far:
        """Twilio connects the stream of a document that it has fetched; answers with the far end."""
        known = self.board.line(call_id)
        line = await self.board.admit(call_id, attempt, (known and known.record.sid) or SID)
        assert line is not None
        ours, theirs = memory_pair()
        self.streams.append(ours)
        leg, far = await join_phone_leg(self.nursery, ours, theirs)
        line.connect(leg, STREAM)
        await trio.testing.wait_all_tasks_blocked()
        return Far(far.socket, far.stream)

    async def opens(self, phone: Far) -> Far:
        """The agent speaks its opening and the person hears it out; answers with the agent's far end."""
        agent = await self.agent()
        await agent.say(type="session.ready", session_id="s1")
        await agent.say(type="reply.started", reply_id="r0")
        await agent.say(type="reply.audio", data=LOUD, reply_id="r0")
        await agent.say(type="reply.done", reply_id="r0")
        mark = (await phone.hear("mark"))["mark"]["name"]
        await phone.say(event="mark", streamSid=STREAM, mark={"name": mark})
        await trio.testing.wait_all_tasks_blocked()
        return agent

    async def in_conversation(self) -> tuple[Line, Far]:
        """A call whose opening was heard; with the agent's far end."""
        line = await self.placed()
        phone = await self.streams_in(line)
        self.nursery.start_soon(self.stay_on_the_line, phone)
        return line, await self.opens(phone)

    async def stay_on_the_line(self, phone: Far) -> None:
        """The person says nothing, and Twilio goes on sending frames."""
        try:
            while True:
                media = {"payload": SILENCE, "track": "inbound"}
                await phone.say(event="media", streamSid=STREAM, media=media)
                await trio.sleep(1)
        except trio_websocket.ConnectionClosed:
            pass

    async def ended(self, line: Line, blame: Blame, reason: Reason) -> CallRecord:
        """The call ends so: one record, nothing open, the carrier told; answers with the record."""
        with trio.fail_after(1000):
            await self.board.wait_idle()
        record = await self.store.get(line.record.id)
        assert record is not None
        assert record.status is Status.ENDED
        assert record.ending is not None
        assert (record.ending.blame, record.ending.reason) == (blame, reason), record.ending
        assert self.store.saved.count(record.id) == 1
        assert all(stream.closed for stream in self.streams)
        assert len(self.carrier.hung_up) <= (2 if isinstance(self.carrier.hang_up_answer, NotHungUp) else 1)
        return record


@pytest.fixture
def instant_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No threads: on a clock that jumps, hours would pass while one of them writes."""

    async def run_sync(work: Callable[..., Any], *given: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*given)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@asynccontextmanager
async def open_desk(**settings: Any) -> AsyncIterator[Desk]:
    """A node; whatever still runs behind the block, its calls excepted, is cancelled."""
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as calls:
            yield Desk(nursery, calls, **settings)
        nursery.cancel_scope.cancel()


def shown(line: Line) -> object:
    """The status as the operator sees it."""
    return line.record.summary()["status"]


OPERATOR = (Blame.US, Reason.OPERATOR)


# ---- placing --------------------------------------------------------------------------------------


async def test_a_call_that_the_carrier_takes_is_dialing_and_has_a_sid(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed(to=NUMBER)
        assert line.record.summary() == {
            "id": line.record.id,
            "sid": SID,
            "status": "dialing",
            "to": NUMBER,
            "agent": "default",
        }
        await desk.says(line, CarrierStatus.NO_ANSWER)
        record = await desk.ended(line, Blame.CALLEE, Reason.NO_ANSWER)
        assert record.duration_seconds == 0
        assert desk.carrier.hung_up == []


async def test_a_call_that_the_carrier_refuses_says_why(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.carrier.answer = Refused(21219, 400, "Verify the number first.")
        line = await desk.placed()
        assert line.refusal == "Verify the number first."
        await desk.ended(line, Blame.CARRIER, Reason.REFUSED)
        assert desk.carrier.hung_up == []


async def test_an_ambiguous_call_is_adopted_by_a_signed_request(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.carrier.answer = Uncertain("timed out")
        line = await desk.placed()
        assert shown(line) == "unknown"
        desk.carrier.listed = [POSSIBLY_OURS]
        await trio.sleep(290)
        assert line.learn_sid(SID)
        await desk.says(line, CarrierStatus.RINGING)
        await trio.sleep(25)
        assert shown(line) == "ringing"
        await desk.streams_in(line)
        await desk.says(line, CarrierStatus.COMPLETED)
        await desk.ended(line, Blame.CALLEE, Reason.HUNG_UP)


async def test_an_ambiguous_call_that_is_never_heard_of_was_not_placed(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.carrier.answer = Uncertain("timed out")
        began = trio.current_time()
        line = await desk.placed()
        record = await desk.ended(line, Blame.CARRIER, Reason.NOT_PLACED)
        assert trio.current_time() - began == pytest.approx(LISTED_SECONDS, abs=1)
        assert desk.carrier.dialled == [line.record.id]
        assert candidates(record) == [{}]


async def test_what_may_be_our_call_is_waited_for_and_named_and_never_hung_up(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.carrier.answer = Uncertain("timed out")
        desk.carrier.listed = [POSSIBLY_OURS]
        began = trio.current_time()
        line = await desk.placed()
        await trio.sleep(UNKNOWN_SECONDS - 20)
        assert shown(line) == "unknown"
        over = replace(POSSIBLY_OURS, status=CarrierStatus.COMPLETED)
        desk.carrier.listed = [over]
        record = await desk.ended(line, Blame.CARRIER, Reason.NOT_PLACED)
        assert trio.current_time() - began == pytest.approx(UNKNOWN_SECONDS, abs=2)
        assert candidates(record) == [{SID: "in-progress"}, {SID: "completed"}]
        assert SID in str(record.ending and record.ending.detail)
        assert record.sid is None
        assert desk.carrier.hung_up == []
        assert desk.carrier.dialled == [line.record.id]


async def test_another_call_of_ours_to_that_number_is_not_taken_for_the_one_in_doubt(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        earlier = await desk.placed(to=NUMBER)
        assert earlier.record.sid == SID
        await desk.says(earlier, CarrierStatus.BUSY)
        await desk.board.wait_idle()
        desk.carrier.answer = Uncertain("timed out")
        desk.carrier.listed = [replace(POSSIBLY_OURS, status=CarrierStatus.BUSY)]
        line = await desk.placed(to=NUMBER)
        record = await desk.ended(line, Blame.CARRIER, Reason.NOT_PLACED)
        assert candidates(record) == [{}]


async def test_a_call_that_a_signed_request_named_to_another_node_is_ours_by_the_list(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.carrier.answer = Uncertain("timed out")
        desk.carrier.listed = [POSSIBLY_OURS]
        line = await desk.placed()
        assert await desk.store.learn_sid(line.record.id, SID)
        await trio.sleep(LOOK_SECONDS + 1)
        assert line.record.sid == SID
        line.hang_up(goodbye=False)
        await desk.ended(line, Blame.US, Reason.OPERATOR)
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]


@pytest.mark.parametrize("down", ["carrier", "ledger"])
async def test_a_list_that_cannot_be_read_proves_nothing(autojump_clock: MockClock, down: str) -> None:
    class Unfindable(CountingStore):
        async def find(self, sid: str) -> CallRecord | None:
            raise StoreError("disk full")

    async with open_desk(store=Unfindable() if down == "ledger" else CountingStore()) as desk:
        desk.carrier.answer = Uncertain("timed out")
        unreadable = Unavailable(None, 503, "no answer")
        desk.carrier.listed = unreadable if down == "carrier" else [POSSIBLY_OURS]
        began = trio.current_time()
        line = await desk.placed()
        record = await desk.ended(line, Blame.CARRIER, Reason.NOT_PLACED)
        assert trio.current_time() - began == pytest.approx(UNKNOWN_SECONDS, abs=2)
        assert candidates(record) == []
        assert "cannot be read" in str(record.ending and record.ending.detail)


async def test_a_call_learnt_before_its_ambiguous_answer_does_not_wait_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.carrier.answer = Uncertain("timed out")
        desk.carrier.answer_seconds = 10
        line = await desk.place()
        await trio.sleep(2)
        assert line.learn_sid(SID)
        await desk.ended(line, Blame.CARRIER, Reason.FAILED)
        assert trio.current_time() < 120
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]


async def test_a_full_node_refuses_and_never_takes_one_more(autojump_clock: MockClock) -> None:
    async with open_desk(max_calls=2) as desk:
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await desk.board.place(CallRequest(to=next(FRESH_NUMBERS))))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert sorted(type(answer).__name__ for answer in answers) == ["Line"] * 2 + ["Refusal"] * 3
        desk.board.cut_all()


@pytest.mark.parametrize("problem", ["public-url", "draining", "no-store", "unknown-agent"])
async def test_a_refused_request_leaves_nothing_behind(autojump_clock: MockClock, problem: str) -> None:
    async with open_desk() as desk:
        match problem:
            case "public-url":
                desk.unreachable = Refusal("public-url", "no tunnel")
            case "draining":
                desk.board.drain()
            case "no-store":
                desk.store.fails = StoreError("disk full")
        agent = "nobody" if problem == "unknown-agent" else "default"
        refused = await desk.board.place(CallRequest(to=NUMBER, agent=agent))
        assert isinstance(refused, Refusal)
        assert refused.code == problem
        if problem in ("draining", "no-store"):  # and the balancer is told
            assert desk.board.refusal is not None
            assert desk.board.refusal.code == problem
        assert desk.board.lines == []
        await desk.board.wait_idle()
        assert desk.carrier.dialled == []


async def test_the_same_key_is_the_same_call_and_another_body_a_conflict(autojump_clock: MockClock) -> None:
    async with open_desk(max_calls=1) as desk:
        line = await desk.placed(idempotency_key="k", digest="d")
        again = await desk.board.place(CallRequest(to="+1", idempotency_key="k", digest="d"))
        assert isinstance(again, CallRecord)  # although the node is full
        assert again.id == line.record.id
        other = await desk.board.place(CallRequest(to="+1", idempotency_key="k", digest="e"))
        assert isinstance(other, Refusal)
        assert other.code == "key-conflict"
        assert desk.carrier.dialled == [line.record.id]
        desk.board.cut_all()


async def test_two_requests_with_one_key_at_once_dial_once(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        answers: list[object] = []

        async def ask() -> None:
            request = CallRequest(to=NUMBER, idempotency_key="k", digest="d")
            answers.append(await desk.board.place(request))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        await trio.sleep(1)
        assert sorted(type(answer).__name__ for answer in answers) == ["CallRecord"] * 3 + ["Line"]
        assert len(desk.carrier.dialled) == len(desk.board.lines) == 1
        desk.board.cut_all()


# ---- what the carrier says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "blame", "reason"),
    [
        (CarrierStatus.BUSY, Blame.CALLEE, Reason.BUSY),
        (CarrierStatus.NO_ANSWER, Blame.CALLEE, Reason.NO_ANSWER),
        (CarrierStatus.FAILED, Blame.CARRIER, Reason.FAILED),
        (CarrierStatus.CANCELED, Blame.CARRIER, Reason.CANCELED),
        (CarrierStatus.COMPLETED, Blame.CARRIER, Reason.NO_STREAM),
    ],
)
@pytest.mark.parametrize("late", [False, True])
async def test_the_first_terminal_callback_ends_the_call(
    autojump_clock: MockClock, status: CarrierStatus, blame: Blame, reason: Reason, late: bool
) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        desk.carrier.told = [Notice(11200, "The document could not be fetched.")]
        if not late:
            await desk.says(line, CarrierStatus.INITIATED, CarrierStatus.RINGING)
        await desk.says(line, status, CarrierStatus.RINGING, CarrierStatus.IN_PROGRESS)
        await desk.says(line, CarrierStatus.COMPLETED)
        record = await desk.ended(line, blame, reason)
        assert record.carrier_confirmed_at is not None
        assert record.answered_at is None
        assert record.duration_seconds == 0
        assert record.notices == [{"code": 11200, "message": "The document could not be fetched."}]
        assert desk.carrier.hung_up == []


async def test_ranks_only_rise_when_callbacks_come_out_of_order(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        await desk.says(line, CarrierStatus.IN_PROGRESS, CarrierStatus.RINGING, CarrierStatus.INITIATED)
        assert line.record.status is Status.LIVE
        desk.board.cut_all()


async def test_an_answered_call_without_a_stream_ends_after_fifteen_seconds(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        await desk.says(line, CarrierStatus.RINGING)
        await trio.sleep(20)
        began = trio.current_time()
        assert await desk.board.document(line.record.id, 0) is Document.CONNECT
        await trio.sleep(14.9)
        assert shown(line) == "live"
        await trio.sleep(0.2)
        assert line.ending is not None
        assert await desk.board.document(line.record.id, 1) is Document.SAY
        await desk.ended(line, Blame.CARRIER, Reason.NO_STREAM)
        ((_, hung_up_at),) = desk.carrier.hung_up
        assert 25 <= hung_up_at - began <= 26  # ten seconds for the spoken farewell


async def test_a_document_behind_the_stream_ends_a_call_whose_stream_was_refused(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        assert await desk.board.document(line.record.id, 0) is Document.CONNECT
        assert await desk.board.document(line.record.id, 1) is Document.SAY
        await desk.says(line, CarrierStatus.COMPLETED)
        await desk.ended(line, Blame.CARRIER, Reason.NO_STREAM)
        assert desk.carrier.hung_up == []


@pytest.mark.parametrize(
    ("found", "blame", "reason"),
    [
        (CarrierStatus.BUSY, Blame.CALLEE, Reason.BUSY),
        (CarrierStatus.COMPLETED, Blame.CARRIER, Reason.NO_STREAM),
        (CarrierStatus.RINGING, Blame.CALLEE, Reason.NO_ANSWER),
        (CarrierStatus.IN_PROGRESS, Blame.CARRIER, Reason.NO_STREAM),
        (CarrierStatus.QUEUED, Blame.CARRIER, Reason.FAILED),
        (None, Blame.CARRIER, Reason.FAILED),
    ],
)
async def test_a_call_that_nobody_reports_on_is_asked_after(
    autojump_clock: MockClock, found: CarrierStatus | None, blame: Blame, reason: Reason
) -> None:
    async with open_desk() as desk:
        desk.carrier.status = CarrierCall(SID, found, NUMBER) if found else None
        line = await desk.placed()
        began = trio.current_time()
        await desk.ended(line, blame, reason)
        assert desk.carrier.asked == [SID]
        assert trio.current_time() - began <= 30 + 60 + 25
        told = [sid for sid, _ in desk.carrier.hung_up]
        assert told == ([] if found and found.is_terminal else [SID])


async def test_a_stream_that_the_carrier_gave_up_ends_the_call(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        await desk.streams_in(line)
        await desk.board.stream_called_back(
            line.record.id, StreamCallback(SID, StreamEvent.ERROR, STREAM, "31921")
        )
        await desk.ended(line, Blame.CARRIER, Reason.LOST)


async def test_a_token_is_good_for_one_stream_of_one_call(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        assert await desk.board.admit("call_other", 0, SID) is None
        assert await desk.board.admit(line.record.id, 0, "CA" + "9" * 32) is None
        await desk.streams_in(line)
        assert await desk.board.admit(line.record.id, 0, SID) is None
        assert await desk.board.admit(line.record.id, 1, SID) is None
        desk.board.cut_all()


async def test_the_record_is_closed_with_the_call(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        desk.agent_fails = LegClosed(Blame.AGENT, Reason.UNREACHABLE, "no route")
        await desk.streams_in(line)
        await trio.sleep(5)
        assert line.record.status is Status.ENDED  # the apology was heard, or its time was up
        closed = line.record.as_json()
        await desk.board.machine_detected(line.record.id, AmdCallback(SID, AnsweredBy.HUMAN))
        await desk.says(line, CarrierStatus.RINGING)
        assert await desk.board.document(line.record.id, 1) is Document.HANG_UP
        assert line.record.as_json() == closed
        await desk.says(line, CarrierStatus.COMPLETED)
        record = await desk.ended(line, Blame.AGENT, Reason.UNREACHABLE)
        assert {key for key, value in record.as_json().items() if value != closed[key]} == {
            "carrier_confirmed_at"
        }


# ---- what the operator says -----------------------------------------------------------------------


@pytest.mark.parametrize("goodbye", [False, True])
async def test_hanging_up_on_a_queued_call_never_dials_it(autojump_clock: MockClock, goodbye: bool) -> None:
    async with open_desk() as desk:
        desk.carrier.queue_seconds = 30
        line = await desk.place()
        await trio.sleep(5)
        assert line.record.status is Status.QUEUED
        line.hang_up(goodbye=goodbye)
        began = trio.current_time()
        await desk.ended(line, *OPERATOR)
        assert trio.current_time() - began < 0.1
        assert desk.carrier.dialled == []


@pytest.mark.parametrize("goodbye", [False, True])
async def test_hanging_up_while_the_order_is_under_way_hangs_up_what_it_places(
    autojump_clock: MockClock, goodbye: bool
) -> None:
    async with open_desk() as desk:
        desk.carrier.answer_seconds = 2
        line = await desk.place()
        await trio.sleep(1)
        assert line.record.status is Status.DIALING
        line.hang_up(goodbye=goodbye)
        await desk.ended(line, *OPERATOR)
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]


async def test_an_order_that_nobody_answers_does_not_hold_up_the_end(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.carrier.answer_seconds = 60
        line = await desk.place()
        await trio.sleep(1)
        began = trio.current_time()
        line.hang_up(goodbye=False)
        await desk.ended(line, *OPERATOR)
        assert trio.current_time() - began <= 5.1


@pytest.mark.parametrize("goodbye", [False, True])
async def test_hanging_up_on_a_ringing_call_tells_the_carrier_at_once(
    autojump_clock: MockClock, goodbye: bool
) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        await desk.says(line, CarrierStatus.RINGING)
        began = trio.current_time()
        line.hang_up(goodbye=goodbye)
        await desk.ended(line, *OPERATOR)
        assert desk.carrier.hung_up == [(SID, began)]


@pytest.mark.parametrize("goodbye", [False, True])
async def test_hanging_up_on_a_live_call_tells_the_carrier_at_once(
    autojump_clock: MockClock, goodbye: bool
) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        far = await desk.streams_in(line)
        began = trio.current_time()
        line.hang_up(goodbye=goodbye)  # nobody has said a word yet, so there is no goodbye
        await desk.ended(line, *OPERATOR)
        assert desk.carrier.hung_up == [(SID, began)]
        assert far.stream is not None


async def test_a_hang_up_that_fails_is_not_the_end_of_anything(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        desk.carrier.hang_up_answer = NotHungUp("503")
        line.hang_up(goodbye=False)
        await desk.ended(line, *OPERATOR)
        assert len(desk.carrier.hung_up) == 2  # tried again when the call is seen off


# ---- the agent's key ------------------------------------------------------------------------------


async def test_a_refused_key_stops_new_calls_until_a_probe_finds_it_good(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.board.agent_key.watch)
        desk.agent_fails = HandshakeRefused(401)
        line = await desk.placed()
        await desk.streams_in(line)
        await desk.ended(line, Blame.AGENT, Reason.UNAUTHORIZED)
        assert desk.board.refusal is not None
        assert desk.board.refusal.code == "agent-key"
        refused = await desk.board.place(CallRequest(to=next(FRESH_NUMBERS)))
        assert refused == desk.board.refusal
        await trio.sleep(RETRY_SECONDS + 1)
        assert desk.board.refusal is not None
        desk.agent_fails = None
        desk.nursery.start_soon(refuse_session, desk)
        await trio.sleep(RETRY_SECONDS + VERDICT_SECONDS + 1)
        assert desk.board.refusal is not None
        await trio.sleep(RETRY_SECONDS + VERDICT_SECONDS + 1)
        assert desk.board.refusal is None


async def refuse_session(desk: Desk) -> None:
    """As the live service does: behind the 101, and once."""
    await (await desk.agent()).say(type="session.error", code="unauthorized", message="no")


# ---- farewells ------------------------------------------------------------------------------------


async def test_a_spoken_farewell_is_hung_up_on_after_ten_seconds(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        await trio.aclose_forcefully((await desk.streams_in(line)).stream)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert await desk.board.document(line.record.id, 1) is Document.SAY
        await desk.ended(line, Blame.CARRIER, Reason.LOST)
        ((_, hung_up_at),) = desk.carrier.hung_up
        assert hung_up_at - began == pytest.approx(10, abs=1.5)


async def test_a_spoken_farewell_that_the_carrier_ends_itself_needs_no_hang_up(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        await trio.aclose_forcefully((await desk.streams_in(line)).stream)
        await trio.sleep(3)
        await desk.says(line, CarrierStatus.COMPLETED)
        record = await desk.ended(line, Blame.CARRIER, Reason.LOST)
        assert desk.carrier.hung_up == []
        assert record.carrier_confirmed_at is not None


async def test_an_unknown_call_gets_the_document_for_strangers(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        assert await desk.board.document("call_nobody", 0) is Document.UNKNOWN


# ---- signals --------------------------------------------------------------------------------------


async def test_a_draining_node_goes_on_with_what_it_has(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        desk.board.drain()
        assert desk.board.refusal is not None
        far = await desk.streams_in(line)
        assert line.ending is None
        desk.board.wind_up_all()
        assert desk.board.phase is Phase.CLOSING
        await desk.ended(line, Blame.US, Reason.DRAINED)
        assert far.stream is not None


async def test_cutting_ends_every_call_in_every_phase(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        live = await desk.placed()
        await desk.streams_in(live)
        desk.carrier.queue_seconds = 60
        queued = await desk.place()
        desk.board.cut_all()
        began = trio.current_time()
        await desk.board.wait_idle()
        assert trio.current_time() - began < 3
        for line in (live, queued):
            assert line.record.ending == Ending(Blame.US, Reason.CUT)
        assert sorted(desk.store.saved) == sorted(line.record.id for line in (live, queued))


async def test_whoever_waits_for_the_last_call_is_woken_although_calls_came_meanwhile(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        await desk.placed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.board.wait_idle)
            await trio.testing.wait_all_tasks_blocked()
            await desk.placed()
            desk.board.cut_all()
            with trio.fail_after(10):
                await desk.board.wait_idle()
            nursery.cancel_scope.deadline = trio.current_time() + 10
        assert not nursery.cancel_scope.cancelled_caught


@pytest.mark.parametrize("phase", ["queued", "dialing", "ringing", "live", "farewell"])
async def test_a_cancelled_nursery_still_saves_every_record_once(
    autojump_clock: MockClock, phase: str
) -> None:
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as calls:
            desk = Desk(nursery, calls)
            match phase:
                case "queued":
                    desk.carrier.queue_seconds = 60
                    line = await desk.place()
                case "dialing":
                    desk.carrier.answer_seconds = 60
                    line = await desk.place()
                case "farewell":
                    desk.agent_fails = LegClosed(Blame.AGENT, Reason.UNREACHABLE, "no route")
                    line = await desk.placed()
                    await desk.streams_in(line)
                case _:
                    line = await desk.placed()
                    if phase == "live":
                        await desk.streams_in(line)
            await trio.sleep(2)
            calls.cancel_scope.cancel()
        ending = (Blame.AGENT, Reason.UNREACHABLE) if phase == "farewell" else (Blame.US, Reason.CUT)
        await desk.ended(line, *ending)
        assert desk.board.lines == []
        nursery.cancel_scope.cancel()


async def test_a_call_cancelled_as_its_stream_arrives_leaves_no_stream(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as calls:
            desk = Desk(nursery, calls)
            line = await desk.placed()
            ours, theirs = memory_pair()
            leg, _ = await join_phone_leg(nursery, ours, theirs)
            desk.streams.append(ours)
            assert await desk.board.admit(line.record.id, 0, SID) is line
            line.connect(leg, STREAM)
            calls.cancel_scope.cancel()
        await desk.ended(line, Blame.US, Reason.CUT)
        nursery.cancel_scope.cancel()


# ---- bugs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["dial", "agent", "hang-up", "save"])
async def test_a_bug_in_one_call_does_not_disturb_another(autojump_clock: MockClock, where: str) -> None:
    async with open_desk() as desk:
        healthy = await desk.placed()
        await desk.streams_in(healthy)
        match where:
            case "dial":
                desk.carrier.answer = ZeroDivisionError()
                broken = await desk.place()
                await trio.sleep(1)
            case "agent":
                desk.carrier.answer = Placed("CA" + "2" * 32)
                desk.agent_fails = ZeroDivisionError()
                broken = await desk.placed()
                await desk.streams_in(broken)
                await trio.sleep(1)
            case "hang-up":
                desk.carrier.hang_up_answer = ZeroDivisionError()
                broken = await desk.placed()
                broken.end(Ending(Blame.US, Reason.OPERATOR))
                await trio.sleep(1)
                desk.carrier.hang_up_answer = AlreadyEnded()
            case _:
                broken = await desk.placed()
                desk.store.fails = ZeroDivisionError()
                broken.end(Ending(Blame.US, Reason.OPERATOR))
                await trio.sleep(1)
                desk.store.fails = None
        assert broken.record.status is Status.ENDED
        assert broken.record.ending is not None
        wanted = Reason.CRASHED if where in ("dial", "agent") else Reason.OPERATOR
        assert broken.record.ending.reason is wanted
        assert desk.store.saved == [broken.record.id]
        assert healthy.ending is None
        assert healthy.call is not None
        desk.board.cut_all()
        await desk.board.wait_idle()
        assert sorted(desk.store.saved) == sorted([broken.record.id, healthy.record.id])


async def test_a_store_that_is_down_at_the_end_does_not_keep_the_phone_ringing(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        desk.store.fails = StoreError("disk full")
        line.hang_up(goodbye=False)
        await desk.board.wait_idle()
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]


async def test_a_capture_is_written_when_the_call_is_over(tmp_path: Path) -> None:
    async with open_desk(folder=tmp_path) as desk:
        line = await desk.placed()
        far = await desk.streams_in(line)
        await far.send('{"event":"stop","streamSid":"' + STREAM + '"}')
        await desk.ended(line, Blame.CALLEE, Reason.HUNG_UP)
        assert '"stop"' in (tmp_path / f"{line.record.id}.jsonl").read_text()


# ---- what an agent brings along ----------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "granted"), [(None, 90), (60, 60), (600, 90)])
async def test_an_agents_own_limit_shortens_its_calls(
    asked: int | None, granted: int, autojump_clock: MockClock
) -> None:
    short = PROFILE.model_copy(update={"limits": Limits(call_seconds=90)})
    async with open_desk(profile=short) as desk:
        line = await desk.place(time_limit_seconds=asked)
        assert line.record.time_limit_seconds == line.order.limit_seconds == granted
        desk.board.cut_all()


async def test_a_call_is_told_what_its_agent_says_of_talking(autojump_clock: MockClock) -> None:
    german = PROFILE.model_copy(update={"language": "de-DE", "opt_out_words": ("Feierabend",)})
    sounds = Clips(filler=b"\x31" * 800)
    cast = Cast(default=Agent(german, clips=sounds, content="0123"))
    async with open_desk(cast=cast) as desk:
        line = await desk.place()
        assert line.terms.clips is sounds
        assert line.terms.limits is german.limits
        assert line.terms.hears_opt_out("Jetzt ist Feierabend!")
        assert line.terms.hears_opt_out("Rufen Sie mich nicht mehr an.")
        (script,) = [event for event in line.record.as_json()["events"] if event["event"] == "script"]
        assert script["files"] == "0123"
        desk.board.cut_all()


async def test_the_carrier_speaks_the_agents_language(autojump_clock: MockClock) -> None:
    german = ANNOUNCED.model_copy(update={"language": "de-DE"})
    async with open_desk(cast=Cast(announced=Agent(german))) as desk:
        line = await desk.place(agent="announced")
        announcement = await desk.board.announcement(line.record.id)
        assert announcement is not None
        assert announcement.language == "de-DE"
        desk.board.cut_all()
