"""Every request of the carrier's may land on another node: one call, one record, nothing lost, nothing cut.

Must not know HTTP or real time: switchboards share a ledger and a carrier, and the clock jumps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from relay.carrier import Dialled, NotHungUp, Placed, Refused, Uncertain
from relay.line import STREAM_SECONDS, Line
from relay.outcomes import Blame, Ending, LegClosed, Reason
from relay.placing import Cast
from relay.reconciler import WISH_SECONDS
from relay.store import CallRecord, Kind, ListEntry, Listing, Status, StoreError, Wish, Written
from relay.store.chain import Integrity
from relay.store.records import Progress
from relay.switchboard import Document
from relay.wire.callbacks import (
    AmdCallback,
    AnsweredBy,
    CarrierStatus,
    RecordingCallback,
    RecordingStatus,
    StatusCallback,
    StreamCallback,
    StreamEvent,
)
from tests.test_call import Far
from tests.test_switchboard import SID, STREAM, CountingStore, Desk, FakeCarrier, open_desk, virtual_now

RECORDING = RecordingCallback(SID, "RE" + "3" * 32, RecordingStatus.COMPLETED)


@dataclass
class Nodes:
    """Three nodes behind one address: `a` dials, the others get what the carrier asks."""

    a: Desk
    b: Desk
    c: Desk
    store: CountingStore
    carrier: FakeCarrier

    @property
    def all(self) -> tuple[Desk, ...]:
        return self.a, self.b, self.c

    async def streams_elsewhere(self, line: Line) -> Far:
        """The document is fetched from `b`, the stream begins at `c`."""
        assert await self.b.board.document(line.record.id, 0, SID) is Document.CONNECT
        phone = await self.c.joins(line.record.id, 0)
        self.c.nursery.start_soon(self.c.stay_on_the_line, phone)
        return phone

    async def only_record(self, call_id: str, blame: Blame, reason: Reason) -> CallRecord:
        """The call is over everywhere, once, and its diary is whole."""
        with trio.fail_after(1000):
            for desk in self.all:
                await desk.board.wait_idle()
        record = await self.store.get(call_id)
        assert record is not None
        assert record.ending is not None
        assert (record.ending.blame, record.ending.reason) == (blame, reason), record.ending
        assert self.carrier.dialled == [call_id]
        assert [entry.kind for entry in record.entries].count(Kind.ENDING) == 1
        verification = await self.store.verify(call_id)
        assert verification is not None
        assert verification.integrity is Integrity.INTACT
        assert all(stream.closed for desk in self.all for stream in desk.streams)
        return record


@asynccontextmanager
async def open_nodes(store: CountingStore | None = None) -> AsyncIterator[Nodes]:
    store, carrier = store or CountingStore(), FakeCarrier()
    async with AsyncExitStack() as stack:
        desks = [
            await stack.enter_async_context(open_desk(store=store, carrier=carrier, node=name))
            for name in "abc"
        ]
        for desk in desks:
            desk.nursery.start_soon(desk.reconciler.run)
        yield Nodes(desks[0], desks[1], desks[2], store, carrier)


def events(record: CallRecord) -> list[str]:
    return [event["event"] for event in record.events]


# ---- document and stream --------------------------------------------------------------------------


async def test_a_call_lives_where_its_stream_begins_and_its_record_knows_what_every_node_knew(
    autojump_clock: MockClock,
) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await nodes.b.board.carrier_called_back(line.record.id, StatusCallback(SID, CarrierStatus.RINGING))
        await trio.sleep(3)
        answered_at = virtual_now()
        assert await nodes.b.board.document(line.record.id, 0, SID) is Document.CONNECT
        await trio.sleep(0.2)
        phone = await nodes.c.joins(line.record.id, 0)
        nodes.c.nursery.start_soon(nodes.c.stay_on_the_line, phone)
        await nodes.c.opens(phone)
        with trio.fail_after(2 * WISH_SECONDS):
            await nodes.a.board.wait_idle()  # gives way at once, so that it may drain
        await trio.sleep(5)
        await phone.say(event="stop", streamSid=STREAM)
        record = await nodes.only_record(line.record.id, Blame.CALLEE, Reason.HUNG_UP)
        assert nodes.store.saved == [record.id]
        assert [sid for sid, _ in nodes.carrier.hung_up] == [SID]  # by the one who had it last
        assert record.owner == "c"
        assert record.answered_at == answered_at
        told = events(record)
        for event in ("script", "started", "dialing", "sid learnt", "carrier", "document fetched", "moved"):
            assert event in told, event
        attempts = [e.body and e.body["refusal"] for e in record.entries if e.kind is Kind.VERDICT]
        assert attempts == [None, None]  # before the dial, and when somebody picked up


async def test_what_the_dialler_had_not_written_yet_follows_the_call(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()  # half a second before the next saving of its diary
        await nodes.streams_elsewhere(line)
        await trio.sleep(0.1)
        kept = await nodes.store.get(line.record.id)
        assert kept is not None
        assert "dialing" not in events(kept)
        await trio.sleep(2)
        kept = await nodes.store.get(line.record.id)
        assert kept is not None
        assert {"started", "dialing", "sid learnt"} <= set(events(kept))
        assert [e.kind for e in kept.entries].count(Kind.VERDICT) == 2
        nodes.c.board.cut_all()
        await nodes.only_record(line.record.id, Blame.US, Reason.CUT)


@pytest.mark.parametrize("answer", [Placed(SID), Uncertain("timed out"), Refused(20500, 500, "no")])
async def test_the_answer_to_the_order_may_come_after_the_call_has_moved(
    autojump_clock: MockClock, answer: Dialled
) -> None:
    async with open_nodes() as nodes:
        nodes.carrier.answer, nodes.carrier.answer_seconds = answer, 4
        line = await nodes.a.place()
        await trio.sleep(1)
        phone = await nodes.streams_elsewhere(line)
        await line.decided.wait()
        assert (await nodes.a.board.newest(line)).summary()["sid"] == SID
        await nodes.a.board.wait_idle()
        (moved,) = nodes.c.board.lines
        await nodes.c.opens(phone)
        await trio.sleep(2 * STREAM_SECONDS)
        assert moved.ending is None
        assert nodes.carrier.hung_up == []
        await phone.say(event="stop", streamSid=STREAM)
        await nodes.only_record(line.record.id, Blame.CALLEE, Reason.HUNG_UP)


async def test_a_token_is_spent_on_all_nodes_at_once(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await nodes.streams_elsewhere(line)
        for desk in nodes.all:
            assert await desk.board.admit(line.record.id, 0, SID) is None
        (moved,) = nodes.c.board.lines
        assert moved.ending is None
        nodes.c.board.cut_all()


async def test_a_stream_at_the_dialler_itself_moves_nothing(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        assert await nodes.b.board.document(line.record.id, 0, SID) is Document.CONNECT
        phone = await nodes.a.joins(line.record.id, 0)
        assert await nodes.b.board.admit(line.record.id, 0, SID) is None
        await trio.sleep(1)
        assert (line.ending, line.yielded, line.record.fence) == (None, False, 0)
        await phone.say(event="stop", streamSid=STREAM)
        record = await nodes.only_record(line.record.id, Blame.CALLEE, Reason.HUNG_UP)
        assert "document fetched" in events(record)


async def test_a_document_served_elsewhere_starts_the_wait_for_the_stream(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        assert await nodes.b.board.document(line.record.id, 0, SID) is Document.CONNECT
        began = trio.current_time()
        await nodes.only_record(line.record.id, Blame.CARRIER, Reason.NO_STREAM)
        assert trio.current_time() - began <= STREAM_SECONDS + 15
        assert len(nodes.carrier.hung_up) == 1


async def test_a_document_teaches_the_owner_whom_to_hang_up_on(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.carrier.answer = Uncertain("timed out")
        line = await nodes.a.placed()
        assert await nodes.b.board.document(line.record.id, 0, SID) is Document.CONNECT
        await trio.sleep(1)
        line.hang_up(goodbye=False)
        await nodes.only_record(line.record.id, Blame.US, Reason.OPERATOR)
        assert [sid for sid, _ in nodes.carrier.hung_up] == [SID]


async def test_a_document_that_names_no_call_of_the_carriers_teaches_no_name(
    autojump_clock: MockClock,
) -> None:
    async with open_nodes() as nodes:
        nodes.carrier.answer = Uncertain("timed out")
        line = await nodes.a.placed()
        assert await nodes.b.board.document(line.record.id, 0, "") is Document.CONNECT
        await trio.sleep(2 * WISH_SECONDS)
        assert line.record.sid is None
        nodes.a.board.cut_all()


async def test_a_document_of_another_call_of_the_carriers_is_a_strangers(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await trio.sleep(2)
        stranger = "CA" + "9" * 32
        assert await nodes.b.board.document(line.record.id, 0, stranger) is Document.UNKNOWN
        assert await nodes.b.board.admit(line.record.id, 0, stranger) is None
        assert line.answered_at is None
        nodes.a.board.cut_all()


async def test_a_number_listed_while_it_rings_is_connected_by_no_node(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await nodes.store.suppress([ListEntry(line.record.to, Listing.ADDED, "t", "t", virtual_now())])
        assert await nodes.store.wishes("a")  # told, and not acted on yet
        assert await nodes.b.board.document(line.record.id, 0, SID) is Document.HANG_UP
        record = await nodes.only_record(line.record.id, Blame.US, Reason.NOT_PERMITTED)
        assert [sid for sid, _ in nodes.carrier.hung_up] == [SID]
        assert [e.body and e.body["refusal"] for e in record.entries if e.kind is Kind.VERDICT] == [
            None,
            "dnc-listed",
        ]


async def test_a_node_that_cannot_go_on_with_a_call_lets_it_go(autojump_clock: MockClock) -> None:
    async with (
        open_nodes() as nodes,
        open_desk(store=nodes.store, carrier=nodes.carrier, node="d", cast=Cast()) as bare,
    ):
        line = await nodes.a.placed()
        await trio.sleep(2)
        assert await bare.board.adopt(line.record.id, 1) is None
        assert bare.board.lines == []
        assert [found.id for found in await nodes.store.orphans("x", 30, 10)] == [line.record.id]
        nodes.a.board.cut_all()


class SlowWishes(CountingStore):
    """Answers late what it has read, and forgotten, at once."""

    async def wishes(self, node: str) -> list[Wish]:
        told = await super().wishes(node)
        await trio.sleep(0.7 if told else 0)
        return told


async def test_a_wish_that_reaches_a_node_after_the_call_has_left_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    async with open_nodes(SlowWishes()) as nodes:
        line = await nodes.a.placed()
        assert await nodes.b.board.document(line.record.id, 0, SID) is Document.CONNECT
        await trio.sleep(WISH_SECONDS + 0.1)
        await nodes.c.joins(line.record.id, 0)
        assert await nodes.a.board.holds(line) is False
        await trio.sleep(4)
        (moved,) = nodes.c.board.lines
        assert "document fetched" in events(moved.record)
        nodes.c.board.cut_all()


# ---- the ledger is down ---------------------------------------------------------------------------


async def test_without_the_ledger_a_stream_begins_at_the_dialler_or_nowhere(
    autojump_clock: MockClock,
) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await trio.sleep(1.5)
        nodes.store.fails = StoreError("disk full")
        assert await nodes.b.board.admit(line.record.id, 0, SID) is None
        assert await nodes.a.board.admit(line.record.id, 0, SID) is line
        assert await nodes.a.board.admit(line.record.id, 0, SID) is None
        nodes.store.fails = None
        nodes.a.board.cut_all()


async def test_a_dialler_that_cannot_ask_the_ledger_cuts_no_call_that_may_have_moved(
    autojump_clock: MockClock,
) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await trio.sleep(1.5)
        await nodes.a.says(line, CarrierStatus.IN_PROGRESS)
        phone = await nodes.streams_elsewhere(line)
        await nodes.c.opens(phone)
        nodes.store.fails = StoreError("disk full")
        with trio.fail_after(60):
            await nodes.a.board.wait_idle()  # for all it knows the stream never came
        assert nodes.carrier.hung_up == []
        (moved,) = nodes.c.board.lines
        assert moved.ending is None
        nodes.store.fails = None
        await phone.say(event="stop", streamSid=STREAM)
        await nodes.c.board.wait_idle()


# ---- the end --------------------------------------------------------------------------------------


class SlowEnd(CountingStore):
    """Takes its time over a final record."""

    async def write(self, progress: Progress) -> Written:
        if progress.ending is not None:
            await trio.sleep(2)
        return await super().write(progress)


@pytest.mark.parametrize(
    ("ending", "document"),
    [
        (Ending(Blame.NOBODY, Reason.GOODBYE), Document.HANG_UP),
        (Ending(Blame.US, Reason.OPERATOR), Document.HANG_UP),
        (Ending(Blame.AGENT, Reason.LOST), Document.SAY),
    ],
)
async def test_a_call_that_is_being_left_is_taken_by_nobody(
    autojump_clock: MockClock, ending: Ending, document: Document
) -> None:
    async with open_nodes(SlowEnd()) as nodes:
        nodes.carrier.hang_up_answer = NotHungUp("503")
        line = await nodes.a.placed()
        phone = await nodes.streams_elsewhere(line)
        (moved,) = nodes.c.board.lines
        await nodes.c.opens(phone)
        moved.end(ending)
        await phone.wait_closed()  # what the carrier sees before it goes on
        kept = await nodes.store.get(line.record.id)
        assert kept is not None
        assert kept.ending is None
        assert await nodes.b.board.document(line.record.id, 1, SID) is document
        assert nodes.b.board.lines == []
        await nodes.only_record(line.record.id, ending.blame, ending.reason)


async def test_a_stream_that_nobody_left_goes_on_at_whoever_is_asked(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await nodes.streams_elsewhere(line)
        (moved,) = nodes.c.board.lines
        assert await nodes.a.board.document(line.record.id, 1, SID) is Document.CONNECT  # before it gave way
        phone = await nodes.b.joins(line.record.id, 1)
        nodes.b.nursery.start_soon(nodes.b.stay_on_the_line, phone)
        await trio.sleep(1)
        assert moved.yielded
        assert line.yielded
        assert [len(desk.board.lines) for desk in nodes.all] == [0, 1, 0]
        await phone.say(event="stop", streamSid=STREAM)
        record = await nodes.only_record(line.record.id, Blame.CALLEE, Reason.HUNG_UP)
        assert (record.owner, record.attempt) == ("b", 1)


async def test_a_call_comes_back_to_the_node_that_dialled_it(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await nodes.streams_elsewhere(line)
        assert await nodes.a.board.document(line.record.id, 1, SID) is Document.CONNECT
        phone = await nodes.a.joins(line.record.id, 1)
        nodes.a.nursery.start_soon(nodes.a.stay_on_the_line, phone)
        await trio.sleep(2)
        (back,) = nodes.a.board.lines
        assert back is not line
        assert back.ending is None
        back.hang_up(goodbye=False)
        await nodes.only_record(line.record.id, Blame.US, Reason.OPERATOR)
        assert len(nodes.carrier.hung_up) == 1


# ---- what the operator says -----------------------------------------------------------------------


@pytest.mark.parametrize("goodbye", [False, True])
async def test_a_hang_up_is_heard_from_any_node(autojump_clock: MockClock, goodbye: bool) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await nodes.streams_elsewhere(line)
        assert await nodes.b.board.hang_up_elsewhere(line.record.id, goodbye=goodbye)
        await nodes.only_record(line.record.id, Blame.US, Reason.OPERATOR)
        assert len(nodes.carrier.hung_up) == 1


async def test_a_hang_up_at_the_dialler_that_has_not_noticed_reaches_the_call(
    autojump_clock: MockClock,
) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await nodes.streams_elsewhere(line)
        line.hang_up(goodbye=False)  # nobody asked the ledger before
        await nodes.only_record(line.record.id, Blame.US, Reason.OPERATOR)
        assert len(nodes.carrier.hung_up) == 1


async def test_a_node_asks_the_ledger_whether_a_call_is_still_its_own(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        assert await nodes.a.board.holds(line) is True
        await nodes.streams_elsewhere(line)
        assert await nodes.a.board.holds(line) is False
        assert line.yielded
        (moved,) = nodes.c.board.lines
        assert await nodes.c.board.holds(moved) is True
        nodes.c.board.cut_all()


async def test_an_opt_out_meets_the_call_wherever_it_is(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        phone = await nodes.streams_elsewhere(line)
        await nodes.c.opens(phone)
        await nodes.store.suppress([ListEntry(line.record.to, Listing.ADDED, "t", "t", virtual_now())])
        began = trio.current_time()
        await nodes.only_record(line.record.id, Blame.US, Reason.OPTED_OUT)
        assert trio.current_time() - began <= 6


# ---- callbacks ------------------------------------------------------------------------------------


async def test_callbacks_reach_the_owner_from_any_node(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await nodes.streams_elsewhere(line)
        await nodes.a.board.machine_detected(line.record.id, AmdCallback(SID, AnsweredBy.HUMAN))
        await trio.sleep(1)
        await nodes.b.board.machine_detected(line.record.id, AmdCallback("CA" + "9" * 32, AnsweredBy.FAX))
        started = StreamCallback(SID, StreamEvent.STARTED, STREAM)
        await nodes.b.board.stream_called_back(line.record.id, started)
        await nodes.b.board.recorded(line.record.id, RECORDING)
        await trio.sleep(1)
        (moved,) = nodes.c.board.lines
        assert moved.record.answered_by == "human"
        gone = StreamCallback(SID, StreamEvent.ERROR, STREAM, "31921")
        await nodes.b.board.stream_called_back(line.record.id, gone, 0)
        record = await nodes.only_record(line.record.id, Blame.CARRIER, Reason.LOST)
        assert record.answered_by == "human"
        assert {"answered by", "stream", "recording"} <= set(events(record))


async def test_the_error_of_a_stream_that_was_replaced_ends_nothing(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        await nodes.streams_elsewhere(line)
        assert await nodes.b.board.document(line.record.id, 1, SID) is Document.CONNECT
        await nodes.b.joins(line.record.id, 1)
        gone = StreamCallback(SID, StreamEvent.ERROR, STREAM, "31921")
        for desk in nodes.all:
            await desk.board.stream_called_back(line.record.id, gone, 0)
        await trio.sleep(1)
        (moved,) = nodes.b.board.lines
        assert moved.ending is None
        nodes.b.board.cut_all()


async def test_what_is_told_after_the_end_is_kept_whichever_node_hears_it(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        line = await nodes.a.placed()
        phone = await nodes.streams_elsewhere(line)
        await phone.say(event="stop", streamSid=STREAM)
        await nodes.only_record(line.record.id, Blame.CALLEE, Reason.HUNG_UP)
        await nodes.b.board.carrier_called_back(line.record.id, StatusCallback(SID, CarrierStatus.COMPLETED))
        await nodes.b.board.recorded(line.record.id, RECORDING)
        foreign = RecordingCallback("CA" + "9" * 32, "RE" + "9" * 32, RecordingStatus.COMPLETED)
        await nodes.a.board.recorded(line.record.id, foreign)
        record = await nodes.only_record(line.record.id, Blame.CALLEE, Reason.HUNG_UP)
        assert record.carrier_confirmed_at is not None
        assert [e.get("recording_sid") for e in record.events if e["event"] == "recording"] == [
            RECORDING.recording_sid
        ]
        assert record.status is Status.ENDED


async def test_an_agent_that_is_lost_has_its_farewell_from_any_node(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.c.agent_fails = LegClosed(Blame.AGENT, Reason.UNREACHABLE, "no route")
        line = await nodes.a.placed()
        phone = await nodes.streams_elsewhere(line)
        await phone.wait_closed()
        assert await nodes.b.board.document(line.record.id, 1, SID) is Document.SAY
        await nodes.b.board.carrier_called_back(line.record.id, StatusCallback(SID, CarrierStatus.COMPLETED))
        await nodes.only_record(line.record.id, Blame.AGENT, Reason.UNREACHABLE)
