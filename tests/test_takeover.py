"""A call outlives the node that made it: another one goes on with it, and never two of them at once.

Must not know HTTP or real time: two switchboards share a ledger and a carrier, and one of them falls silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from relay.call import WIND_UP_SECONDS
from relay.line import STREAM_SECONDS, Line
from relay.outcomes import Blame, Ending, Reason
from relay.sessions import RESUME
from relay.store import CallRecord, ListEntry, Listing, Status, Store, StoreError
from relay.store.chain import Integrity
from relay.store.sql import open_store
from relay.switchboard import REATTACHMENTS, Document
from relay.wire.callbacks import CarrierStatus
from tests.test_call import LOUD, Far
from tests.test_switchboard import (
    NUMBER,
    OFFICE_HOURS,
    PROFILE,
    SID,
    STREAM,
    CountingStore,
    Desk,
    FakeCarrier,
    open_desk,
    virtual_now,
)

NIGHT = datetime(2026, 3, 11, 8, tzinfo=UTC)


def real_now() -> datetime:
    """For a database, whose threads cannot read a clock of trio's."""
    return datetime.now(UTC)


class Pair:
    """Two nodes; `first` has the call and says nothing more to the ledger, as if it were dead."""

    def __init__(self, first: Desk, second: Desk) -> None:
        self.first = first
        self.second = second
        self.store = first.store
        self.carrier = first.carrier
        self.line: Line
        self.phone: Far

    async def talk(self, *, heard: bool = True, **request: Any) -> str:
        """A call on the first node, with a word said if the opening was heard; answers with its id."""
        self.line = await self.first.placed(**request)
        self.phone = await self.first.streams_in(self.line)
        self.first.nursery.start_soon(self.first.stay_on_the_line, self.phone)
        if heard:
            agent = await self.first.opens(self.phone)
            await agent.say(type="transcript.user", text="Tuesday, please.")
            await answer(agent, "r1")
            await agent.say(type="transcript.agent", text="At ten or at two?", reply_id="r0")
            await trio.testing.wait_all_tasks_blocked()
        await self.first.reconciler.save_live()
        return self.line.record.id

    async def goes_on(self, call_id: str, attempt: int = 1) -> Far:
        """The carrier goes on to the next document and stream, on the second node."""
        assert await self.second.board.document(call_id, attempt) is Document.CONNECT
        phone = await self.second.joins(call_id, attempt)
        self.second.nursery.start_soon(self.second.stay_on_the_line, phone)
        return phone

    async def only_record(self, call_id: str, blame: Blame, reason: Reason) -> CallRecord:
        """Both are done with the call, one of them has written how it ended, and nothing is open."""
        with trio.fail_after(1000):
            await self.first.board.wait_idle()
            await self.second.board.wait_idle()
        record = await self.store.get(call_id)
        assert record is not None
        assert record.ending is not None
        assert (record.ending.blame, record.ending.reason) == (blame, reason), record.ending
        assert self.store.saved == [call_id]
        assert all(stream.closed for desk in (self.first, self.second) for stream in desk.streams)
        return record


async def answer(agent: Far, reply_id: str) -> None:
    """One reply that can be heard."""
    await agent.say(type="reply.started", reply_id=reply_id)
    await agent.say(type="reply.audio", data=LOUD, reply_id=reply_id)
    await agent.say(type="reply.done", reply_id=reply_id)


def paid(record: CallRecord) -> dict[str, int]:
    """How often each thing was charged: what the carrier does once, whatever nodes the call was on."""
    return dict(Counter(cost["item"] for cost in record.as_json()["costs"]))


@asynccontextmanager
async def open_pair(**settings: Any) -> AsyncIterator[Pair]:
    store, carrier = CountingStore(), FakeCarrier()
    async with (
        open_desk(store=store, carrier=carrier, node="first", **settings) as first,
        open_desk(store=store, carrier=carrier, node="second", **settings) as second,
    ):
        yield Pair(first, second)


# ---- the same call goes on ------------------------------------------------------------------------


async def test_who_heard_the_opening_hears_the_agent_go_on_and_no_second_greeting(
    autojump_clock: MockClock,
) -> None:
    async with open_pair() as pair:
        call_id = await pair.talk()
        phone = await pair.goes_on(call_id)
        agent = await pair.second.agent()
        session = (await agent.hear("session.update"))["session"]
        assert "greeting" not in session
        assert session["system_prompt"].startswith(PROFILE.system_prompt)
        assert "callee: Tuesday, please.\nagent: At ten or at two?" in session["system_prompt"]
        await agent.say(type="session.ready", session_id="s2")
        assert (await agent.hear("reply.create"))["instructions"] == RESUME
        media = {"payload": "cGF5bG9hZA==", "track": "inbound"}
        await phone.say(event="media", streamSid=STREAM, media=media)  # heard at once
        while (await agent.hear("input.audio"))["audio"] != "cGF5bG9hZA==":
            pass
        await agent.say(type="transcript.user", text="At two.")
        await trio.sleep(1)  # of a session that is paid for
        await phone.say(event="stop", streamSid=STREAM)
        await pair.second.board.wait_idle()
        await pair.first.reconciler.renew()
        record = await pair.only_record(call_id, Blame.CALLEE, Reason.HUNG_UP)
        assert [said.text for said in record.transcript] == [
            "Tuesday, please.",
            "At ten or at two?",
            "At two.",
        ]
        assert (record.owner, record.attempt, record.session_id) == ("second", 1, "s2")
        verification = await pair.store.verify(call_id)
        assert verification is not None
        assert verification.integrity is Integrity.INTACT
        assert paid(record) == {"twilio-voice": 1, "twilio-media-stream": 1, "assemblyai-session": 2}


async def test_who_did_not_hear_the_opening_out_is_greeted_again(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        call_id = await pair.talk(heard=False)
        phone = await pair.goes_on(call_id)
        agent = await pair.second.agent()
        session = (await agent.hear("session.update"))["session"]
        assert session["greeting"].startswith(PROFILE.disclosure)
        await agent.say(type="session.ready", session_id="s2")
        await trio.testing.wait_all_tasks_blocked()
        assert pair.line.call is not None
        await pair.first.reconciler.renew()
        await phone.say(event="stop", streamSid=STREAM)
        await pair.only_record(call_id, Blame.CALLEE, Reason.HUNG_UP)


async def test_whoever_lost_the_call_closes_its_sockets_and_tells_nobody(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        call_id = await pair.talk()
        await pair.goes_on(call_id)
        await pair.first.reconciler.renew()
        assert await pair.phone.wait_closed() == 1000
        await pair.first.board.wait_idle()
        assert pair.carrier.hung_up == []
        assert pair.store.saved == []
        (line,) = pair.second.board.lines
        line.hang_up(goodbye=False)
        await pair.only_record(call_id, Blame.US, Reason.OPERATOR)
        assert [sid for sid, _ in pair.carrier.hung_up] == [SID]


async def test_the_cap_counts_from_the_first_answer(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        call_id = await pair.talk(time_limit_seconds=100)
        answered_at = trio.current_time()
        await trio.sleep(60)
        phone = await pair.goes_on(call_id)
        await pair.first.reconciler.renew()
        agent = await pair.second.agent()
        await agent.say(type="session.ready", session_id="s2")
        assert await agent.hear("reply.create")
        await answer(agent, "r2")
        await agent.hear("reply.create")  # the goodbye
        assert trio.current_time() - answered_at == pytest.approx(100 - WIND_UP_SECONDS, abs=1)
        await phone.wait_closed()
        assert trio.current_time() - answered_at <= 101
        await pair.only_record(call_id, Blame.US, Reason.TIME_LIMIT)


async def test_a_stream_that_does_not_come_again_ends_the_call(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        call_id = await pair.talk()
        assert await pair.second.board.document(call_id, 1) is Document.CONNECT
        await pair.first.reconciler.renew()
        began = trio.current_time()
        await pair.only_record(call_id, Blame.CARRIER, Reason.NO_STREAM)
        assert trio.current_time() - began <= STREAM_SECONDS + 15
        assert [sid for sid, _ in pair.carrier.hung_up] == [SID]


# ---- when it does not go on -----------------------------------------------------------------------


async def test_a_call_goes_on_twice_and_then_says_farewell(autojump_clock: MockClock) -> None:
    store, carrier = CountingStore(), FakeCarrier()
    async with (
        open_desk(store=store, carrier=carrier, node="first") as first,
        open_desk(store=store, carrier=carrier, node="second") as second,
        open_desk(store=store, carrier=carrier, node="third") as third,
        open_desk(store=store, carrier=carrier, node="fourth") as fourth,
    ):
        desks = [first, second, third, fourth]
        line = await first.placed()
        await first.streams_in(line)
        for attempt in range(1, REATTACHMENTS + 1):
            assert await desks[attempt].board.document(line.record.id, attempt) is Document.CONNECT
            await desks[attempt].joins(line.record.id, attempt)
        assert await fourth.board.document(line.record.id, 3) is Document.SAY
        assert fourth.board.lines == []
        for desk in desks:
            await desk.reconciler.renew()
        assert [len(desk.board.lines) for desk in desks[:2]] == [1, 1]  # closing
        third.board.cut_all()


@pytest.mark.parametrize(
    ("ending", "document"),
    [
        (Ending(Blame.NOBODY, Reason.GOODBYE), Document.HANG_UP),
        (Ending(Blame.CALLEE, Reason.OPTED_OUT), Document.HANG_UP),
        (Ending(Blame.US, Reason.OPERATOR), Document.HANG_UP),
        (Ending(Blame.AGENT, Reason.LOST), Document.SAY),
        (Ending(Blame.US, Reason.CRASHED), Document.SAY),
    ],
)
async def test_a_call_that_has_ended_gets_the_farewell_that_it_is_owed(
    autojump_clock: MockClock, ending: Ending, document: Document
) -> None:
    async with open_pair() as pair:
        call_id = await pair.talk()
        pair.line.end(ending)
        await trio.sleep(1)
        assert pair.line.record.status is Status.ENDED
        assert await pair.second.board.document(call_id, 1) is document
        assert await pair.second.board.adopt(call_id, 1) is None
        assert pair.second.board.lines == []
        await pair.only_record(call_id, ending.blame, ending.reason)


async def test_a_call_that_never_answered_is_owed_nothing(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        line = await pair.first.placed()
        await pair.first.says(line, CarrierStatus.FAILED)
        await pair.first.board.wait_idle()
        assert await pair.second.board.document(line.record.id, 0) is Document.HANG_UP


async def test_a_number_listed_since_is_not_connected_again(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        call_id = await pair.talk(to=NUMBER)
        await pair.store.suppress([ListEntry(NUMBER, Listing.ADDED, "t", "t", virtual_now())])
        assert await pair.store.wishes("first")  # told to a node that died before it did anything
        assert await pair.second.board.document(call_id, 1) is Document.HANG_UP
        await pair.second.board.wait_idle()
        assert [sid for sid, _ in pair.carrier.hung_up] == [SID]
        await pair.first.reconciler.renew()
        await pair.only_record(call_id, Blame.US, Reason.NOT_PERMITTED)


async def test_a_window_that_closed_since_does_not_part_people(autojump_clock: MockClock) -> None:
    times = [OFFICE_HOURS]
    async with open_pair(rule_time=lambda: times[-1]) as pair:
        call_id = await pair.talk()
        times.append(NIGHT)
        await pair.goes_on(call_id)
        pair.second.board.cut_all()
        await pair.first.reconciler.renew()


async def test_another_node_weighs_the_address_too_that_the_request_gave(autojump_clock: MockClock) -> None:
    times = [datetime(2026, 3, 10, 18, tzinfo=UTC)]
    async with open_pair(rule_time=lambda: times[-1]) as pair:
        lines = [await pair.first.placed(), await pair.first.placed(zone="America/Halifax")]
        times.append(datetime(2026, 3, 11, 0, 15, tzinfo=UTC))  # 20:15 in Washington, 21:15 in Halifax
        documents = [await pair.second.board.document(line.record.id, 0) for line in lines]
        assert documents == [Document.CONNECT, Document.HANG_UP]
        pair.first.board.cut_all()


async def test_without_the_ledger_nobody_takes_a_call_over(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        call_id = await pair.talk()
        pair.store.fails = StoreError("disk full")
        assert await pair.second.board.document(call_id, 1) is Document.SAY
        assert await pair.second.board.admit(call_id, 1, SID) is None
        pair.store.fails = None
        pair.first.board.cut_all()


async def test_a_node_that_closes_takes_nothing_over(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        call_id = await pair.talk()
        pair.second.board.wind_up_all()
        assert await pair.second.board.document(call_id, 1) is Document.SAY
        pair.first.board.cut_all()


# ---- never two ------------------------------------------------------------------------------------


@asynccontextmanager
async def in_memory() -> AsyncIterator[Store]:
    yield CountingStore()


def ledger(kind: str, folder: Path) -> AbstractAsyncContextManager[Store]:
    return in_memory() if kind == "memory" else open_store(f"sqlite:///{folder / 'relay.db'}", b"of tests")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_of_nodes_that_take_a_call_at_the_same_time_one_wins(tmp_path: Path, kind: str) -> None:
    async with (
        ledger(kind, tmp_path) as store,
        open_desk(ledger=store, clock=real_now, node="first") as first,
        open_desk(ledger=store, clock=real_now, node="second") as second,
        open_desk(ledger=store, clock=real_now, node="third") as third,
    ):
        line = await first.placed()
        await first.streams_in(line)
        await first.reconciler.save_live()
        got: list[Document] = []

        async def fetch(desk: Desk) -> None:
            got.append(await desk.board.document(line.record.id, 1))

        async with trio.open_nursery() as nursery:
            for desk in (second, third):
                nursery.start_soon(fetch, desk)
        assert got == [Document.CONNECT, Document.CONNECT]  # one has it, and the other serves its document
        held = [desk.board.lines for desk in (second, third) if desk.board.lines]
        assert len(held) == 1
        kept = await store.get(line.record.id)
        assert kept is not None
        assert (kept.fence, kept.owner) == (held[0][0].record.fence, held[0][0].record.owner)
        await first.reconciler.renew()
        assert line.yielded
        for desk in (second, third):
            desk.board.cut_all()
            await desk.board.wait_idle()
        await first.board.wait_idle()
        kept = await store.get(line.record.id)
        assert kept is not None
        assert kept.ending == Ending(Blame.US, Reason.CUT)
