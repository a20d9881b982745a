"""The ledger, the carrier and the live calls agree in the end, and nobody else's call is ever touched.

Must not know HTTP or real time: the carrier is a class, the ledger the one in memory, the clock jumps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from relay.carrier import AlreadyEnded, CarrierCall, HungUp, NotHungUp, Unavailable, Uncertain
from relay.compliance import DialRequest, Permit, Purpose, check
from relay.doubt import LISTED_SECONDS, UNKNOWN_SECONDS
from relay.outcomes import Blame, Ending, Reason
from relay.reconciler import (
    BEREAVED_LOOKS,
    BEREAVED_SECONDS,
    ORPHANS_AT_ONCE,
    RECONCILE_SECONDS,
    RENEW_SECONDS,
    UNCONFIRMED,
    WISH_SECONDS,
)
from relay.store import (
    LEASE_SECONDS,
    PAST_LIMIT_SECONDS,
    CallRecord,
    ListEntry,
    Listing,
    Status,
    StoreError,
    Wish,
    WishKind,
    Written,
    open_spool,
)
from relay.store.chain import Integrity
from relay.switchboard import Document
from relay.wire.callbacks import (
    CarrierStatus,
    RecordingCallback,
    RecordingStatus,
    StatusCallback,
)
from tests.test_switchboard import (
    NUMBER,
    OFFICE_HOURS,
    POSSIBLY_OURS,
    RULEBOOK,
    SID,
    STREAM,
    CountingStore,
    Desk,
    FakeCarrier,
    candidates,
    instant_disk,
    open_desk,
    virtual_now,
)
from tests.test_takeover import answer, paid

FOREIGN_SID = "CA" + "f" * 32
__all__ = ["instant_disk"]

A_ROUND_SECONDS = RECONCILE_SECONDS + LEASE_SECONDS + 1  # until an orphan that was just lost is looked at


async def orphan(
    desk: Desk, *, sid: str | None = SID, status: Status = Status.LIVE, dialled: bool = True
) -> CallRecord:
    """A call whose node is gone, and its permit."""
    record = CallRecord(
        id=f"call_{len(await desk.store.recent(100))}",
        to=NUMBER,
        agent="default",
        started_at=virtual_now(),
        time_limit_seconds=600,
        owner="gone",
    )
    await desk.store.add(record)
    if dialled:
        plea = DialRequest(record.id, 1, NUMBER, "+12025550100", Purpose.INFORMATIONAL, "Acme")
        asked_at = virtual_now()
        leave = await desk.store.permit(
            plea, lambda facts: check(plea, replace(facts, attempts=()), RULEBOOK, asked_at, OFFICE_HOURS)
        )
        assert isinstance(leave, Permit), leave
    record.sid = sid
    record.answered_at = virtual_now() if status is Status.LIVE else None
    record.raise_status(status)
    await desk.store.save(record)
    return record


async def settled(desk: Desk, call_id: str) -> CallRecord:
    """The call as the ledger has it when everything is over."""
    record = await desk.store.get(call_id)
    assert record is not None
    assert record.status is Status.ENDED
    assert desk.store.saved.count(call_id) == 1
    return record


def ended_as(record: CallRecord) -> tuple[Blame, Reason] | None:
    return None if record.ending is None else (record.ending.blame, record.ending.reason)


# ---- calls that nobody holds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "blame", "reason"),
    [
        (CarrierStatus.COMPLETED, Blame.US, Reason.CUT),
        (CarrierStatus.BUSY, Blame.CALLEE, Reason.BUSY),
        (CarrierStatus.NO_ANSWER, Blame.CALLEE, Reason.NO_ANSWER),
        (CarrierStatus.CANCELED, Blame.CARRIER, Reason.CANCELED),
    ],
)
async def test_an_orphan_that_the_carrier_has_ended_gets_its_record(
    autojump_clock: MockClock, found: CarrierStatus, blame: Blame, reason: Reason
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, found, NUMBER)
        record = await orphan(desk)
        await trio.sleep(A_ROUND_SECONDS)
        kept = await settled(desk, record.id)
        assert ended_as(kept) == (blame, reason)
        assert kept.carrier_confirmed_at is not None
        assert desk.carrier.hung_up == []
        assert paid(kept) == {"twilio-voice": 1}


@pytest.mark.parametrize("answer", ["hung up", "already ended"])
async def test_an_orphan_in_progress_is_hung_up_and_gets_its_record(
    autojump_clock: MockClock, answer: str
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, CarrierStatus.IN_PROGRESS, NUMBER)
        if answer == "already ended":
            desk.carrier.hang_up_answer = AlreadyEnded()
        record = await orphan(desk)
        await trio.sleep(A_ROUND_SECONDS)
        assert ended_as(await settled(desk, record.id)) == (Blame.US, Reason.CUT)
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]
        assert await desk.store.verify(record.id) is not None


async def test_an_orphan_that_cannot_be_hung_up_is_tried_again(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = Unavailable(None, 503, "no answer")
        desk.carrier.hang_up_answer = NotHungUp("503")
        record = await orphan(desk)
        await trio.sleep(3 * A_ROUND_SECONDS)
        kept = await desk.store.get(record.id)
        assert kept is not None
        assert kept.ending is None
        desk.carrier.hang_up_answer = AlreadyEnded()
        await trio.sleep(A_ROUND_SECONDS)
        assert ended_as(await settled(desk, record.id)) == (Blame.US, Reason.CUT)


@pytest.mark.parametrize("is_listed", [False, True])
async def test_an_orphan_that_may_have_been_placed_is_waited_for_before_it_counts_as_not_placed(
    autojump_clock: MockClock, is_listed: bool
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        patience_seconds = UNKNOWN_SECONDS if is_listed else LISTED_SECONDS
        desk.carrier.listed = [POSSIBLY_OURS] if is_listed else []
        record = await orphan(desk, sid=None, status=Status.UNKNOWN)
        await trio.sleep(patience_seconds - 1)
        kept = await desk.store.get(record.id)
        assert kept is not None
        assert kept.ending is None
        await trio.sleep(2 * A_ROUND_SECONDS)
        kept = await settled(desk, record.id)
        assert ended_as(kept) == (Blame.CARRIER, Reason.NOT_PLACED)
        assert candidates(kept) == [{SID: "in-progress"} if is_listed else {}]
        assert desk.carrier.asked == []
        assert desk.carrier.hung_up == []


async def test_an_orphan_that_nobody_permitted_was_never_dialled(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.listed = [POSSIBLY_OURS]
        record = await orphan(desk, sid=None, status=Status.QUEUED, dialled=False)
        await trio.sleep(A_ROUND_SECONDS)
        assert ended_as(await settled(desk, record.id)) == (Blame.US, Reason.CUT)
        assert desk.carrier.hung_up == []


async def test_an_orphan_whose_sid_a_late_callback_tells_is_asked_after(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, CarrierStatus.RINGING, NUMBER)
        record = await orphan(desk, sid=None, status=Status.UNKNOWN)
        await trio.sleep(100)
        await desk.board.carrier_called_back(record.id, StatusCallback(SID, CarrierStatus.RINGING))
        await trio.sleep(A_ROUND_SECONDS)
        assert ended_as(await settled(desk, record.id)) == (Blame.US, Reason.CUT)
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]


async def test_what_else_the_carrier_has_is_left_alone(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(FOREIGN_SID, CarrierStatus.IN_PROGRESS, NUMBER)
        await desk.board.carrier_called_back(
            "call_of_others", StatusCallback(FOREIGN_SID, CarrierStatus.IN_PROGRESS)
        )
        record = await orphan(desk, sid=None)
        assert await desk.store.learn_sid(record.id, SID)
        await desk.board.carrier_called_back(record.id, StatusCallback(FOREIGN_SID, CarrierStatus.COMPLETED))
        kept = await desk.store.get(record.id)
        assert kept is not None
        assert (kept.sid, kept.carrier_confirmed_at) == (SID, None)
        await trio.sleep(10 * A_ROUND_SECONDS)
        assert FOREIGN_SID not in desk.carrier.asked
        assert FOREIGN_SID not in [sid for sid, _ in desk.carrier.hung_up]


async def test_undecided_orphans_do_not_hold_up_those_behind_them(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        for _ in range(2 * ORPHANS_AT_ONCE):
            await orphan(desk, sid=None, status=Status.UNKNOWN)
        desk.carrier.status = CarrierCall(SID, CarrierStatus.COMPLETED, NUMBER)
        record = await orphan(desk)
        await trio.sleep(A_ROUND_SECONDS)
        await settled(desk, record.id)


def for_seconds(seconds: float, *, but_for: str = "") -> Callable[[str], Awaitable[None]]:
    """The carrier takes its time."""

    async def wait(sid: str) -> None:
        await trio.sleep(0 if sid == but_for else seconds)

    return wait


class Busy(FakeCarrier):
    """Somebody does something with a call while its carrier is being asked after one."""

    def __init__(self, meanwhile: Callable[[str], Awaitable[object]]) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    async def status_of(self, sid: str) -> CarrierCall | Unavailable | None:
        found = await super().status_of(sid)
        await self.meanwhile(sid)
        return found


async def trip(sid: str) -> None:
    """A bug that this one call meets."""
    if sid == SID:
        raise ZeroDivisionError


@pytest.mark.parametrize("where", ["a stream here", "the next document here", "the next document elsewhere"])
@pytest.mark.parametrize("status", [CarrierStatus.IN_PROGRESS, CarrierStatus.COMPLETED])
async def test_an_orphan_that_goes_on_while_the_carrier_answers_is_left_to_go_on(
    autojump_clock: MockClock, where: str, status: CarrierStatus
) -> None:
    went_on = trio.Event()

    async def meanwhile(_: str) -> None:
        if where == "a stream here":
            phone = await desk.joins(record.id, 0)
            desk.nursery.start_soon(desk.stay_on_the_line, phone)
        elif where == "the next document here":
            assert await desk.board.adopt(record.id, 1) is not None
        else:
            assert await desk.store.take_over(record.id, 1, "other", LEASE_SECONDS)
        went_on.set()

    async with open_desk(carrier=Busy(meanwhile)) as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, status, NUMBER)
        record = await orphan(desk)
        await went_on.wait()
        await trio.sleep(5)
        assert desk.carrier.hung_up == []
        kept = await desk.store.get(record.id)
        assert kept is not None
        assert (kept.ending, kept.attempt) == (None, 0 if where == "a stream here" else 1)
        desk.board.cut_all()


async def test_an_orphan_that_somebody_has_ended_meanwhile_keeps_that_ending(
    autojump_clock: MockClock,
) -> None:
    async def meanwhile(sid: str) -> None:
        fence = await desk.store.take_over(record.id, 1, "other", LEASE_SECONDS)
        theirs = await desk.store.get(record.id)
        assert theirs is not None
        assert theirs.fence == fence
        theirs.ending, theirs.ended_at = Ending(Blame.CALLEE, Reason.HUNG_UP), virtual_now()
        assert await desk.store.save(theirs) is Written.KEPT

    async with open_desk(carrier=Busy(meanwhile)) as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, CarrierStatus.COMPLETED, NUMBER)
        record = await orphan(desk)
        await trio.sleep(A_ROUND_SECONDS)
        kept = await desk.store.get(record.id)
        assert kept is not None
        assert ended_as(kept) == (Blame.CALLEE, Reason.HUNG_UP)
        assert desk.carrier.hung_up == []


async def test_a_call_of_our_own_that_is_past_its_limit_and_still_up_is_ended(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line = await desk.placed(time_limit_seconds=20)
        line.terms = replace(line.terms, time_limit_seconds=1e6)  # as if its watchdog had failed
        phone = await desk.streams_in(line)
        desk.nursery.start_soon(desk.stay_on_the_line, phone)
        await desk.opens(phone)
        await trio.sleep(20 + PAST_LIMIT_SECONDS + RECONCILE_SECONDS + 2)
        record = await desk.ended(line, Blame.US, Reason.TIME_LIMIT)
        assert record.duration_seconds >= 20 + PAST_LIMIT_SECONDS
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]


async def test_a_dead_nodes_calls_are_settled_before_their_leases_lapse_however_slow_the_carrier_is(
    autojump_clock: MockClock,
) -> None:
    async with open_desk(carrier=Busy(for_seconds(9))) as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, CarrierStatus.COMPLETED, NUMBER)
        lost = [await orphan(desk, sid=f"CA{number:032}") for number in range(2 * ORPHANS_AT_ONCE)]
        await trio.sleep(A_ROUND_SECONDS + 20)
        for record in lost:
            await settled(desk, record.id)


async def test_a_call_that_ended_as_its_node_died_waits_for_no_lease(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, CarrierStatus.COMPLETED, NUMBER)
        record = await orphan(desk)
        await desk.board.carrier_called_back(record.id, StatusCallback(SID, CarrierStatus.COMPLETED))
        await trio.sleep(BEREAVED_LOOKS * BEREAVED_SECONDS - 0.1)
        kept = await desk.store.get(record.id)
        assert kept is not None
        assert (kept.owner, kept.ending) == ("gone", None)
        await trio.sleep(0.5)
        assert ended_as(await settled(desk, record.id)) == (Blame.US, Reason.CUT)


async def test_a_ledger_that_stands_still_is_no_sign_that_an_owner_is_gone(autojump_clock: MockClock) -> None:
    class Still(CountingStore):
        async def unread(self, node: str) -> set[int]:
            found = await super().unread(node)
            await trio.sleep(8)
            return found

    async with open_desk(store=Still()) as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        record = await orphan(desk)
        await desk.board.carrier_called_back(record.id, StatusCallback(SID, CarrierStatus.COMPLETED))
        await trio.sleep(25)
        kept = await desk.store.get(record.id)
        assert kept is not None
        assert (kept.owner, kept.ending) == ("gone", None)


async def test_a_wish_that_a_bug_meets_keeps_none_behind_it(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line, _ = await desk.in_conversation()
        said = {"status": "a word of tomorrow", "at": virtual_now().isoformat(), "sid": SID}
        await desk.store.wish(line.record.id, WishKind.CALLBACK, said)
        await desk.store.wish(line.record.id, WishKind.HANG_UP)
        await trio.sleep(3 * WISH_SECONDS)
        await desk.ended(line, Blame.US, Reason.OPERATOR)


async def test_one_orphan_that_the_ledger_fails_for_costs_no_other_one_its_record(
    autojump_clock: MockClock, instant_disk: None, tmp_path: Path
) -> None:
    class Lame(CountingStore):
        lame = True

        async def claim(self, call_id: str, node: str, lease_seconds: float) -> int | None:
            if self.lame and call_id == failing.id:
                raise StoreError("a deadlock")
            return await super().claim(call_id, node, lease_seconds)

    store = Lame()
    async with (
        open_spool(store, tmp_path / "spool") as spool,
        open_desk(store=store, spool=spool, carrier=Busy(for_seconds(5, but_for=SID))) as desk,
    ):
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, CarrierStatus.IN_PROGRESS, NUMBER)
        failing = await orphan(desk)
        other = await orphan(desk, sid="CA" + "2" * 32)
        await trio.sleep(A_ROUND_SECONDS + 8)
        await settled(desk, other.id)
        store.lame = False
        await trio.sleep(3 * A_ROUND_SECONDS)
        await settled(desk, failing.id)


async def test_an_orphan_that_a_bug_meets_again_and_again_keeps_none_behind_it(
    autojump_clock: MockClock,
) -> None:
    async with open_desk(carrier=Busy(trip)) as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, CarrierStatus.COMPLETED, NUMBER)
        poisoned = await orphan(desk)
        others = [await orphan(desk, sid=f"CA{number:032}") for number in range(ORPHANS_AT_ONCE)]
        await trio.sleep(A_ROUND_SECONDS)
        for record in others:
            await settled(desk, record.id)
        kept = await desk.store.get(poisoned.id)
        assert kept is not None
        assert kept.ending is None


async def test_a_bug_in_one_round_stops_no_later_one(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.hang_up_answer = ZeroDivisionError()
        record = await orphan(desk)
        await trio.sleep(A_ROUND_SECONDS)
        desk.carrier.hang_up_answer = AlreadyEnded()
        await trio.sleep(A_ROUND_SECONDS)
        await settled(desk, record.id)


# ---- calls that have ended ------------------------------------------------------------------------


async def test_a_hang_up_that_failed_is_tried_again_until_the_carrier_confirms(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(SID, CarrierStatus.IN_PROGRESS, NUMBER)
        desk.carrier.hang_up_answer = NotHungUp("503")
        line = await desk.placed()
        await trio.sleep(1)
        line.hang_up(goodbye=False)
        await desk.ended(line, Blame.US, Reason.OPERATOR)
        tried = len(desk.carrier.hung_up)
        await trio.sleep(2 * A_ROUND_SECONDS)
        assert len(desk.carrier.hung_up) > tried
        kept = await desk.store.get(line.record.id)
        assert kept is not None
        assert kept.carrier_confirmed_at is None
        desk.carrier.hang_up_answer = HungUp()
        desk.carrier.status = CarrierCall(SID, CarrierStatus.COMPLETED, NUMBER)
        await trio.sleep(A_ROUND_SECONDS)
        kept = await desk.store.get(line.record.id)
        assert kept is not None
        assert kept.carrier_confirmed_at is not None
        tried = len(desk.carrier.hung_up)
        await trio.sleep(10 * A_ROUND_SECONDS)
        assert len(desk.carrier.hung_up) == tried
        assert desk.store.saved == [line.record.id]


async def test_an_end_that_a_bug_meets_again_and_again_keeps_none_behind_it(
    autojump_clock: MockClock,
) -> None:
    async with open_desk(carrier=Busy(trip)) as desk:
        for sid in (SID, FOREIGN_SID):
            record = await orphan(desk, sid=sid)
            record.ending, record.ended_at = Ending(Blame.US, Reason.CUT), virtual_now()
            await desk.store.save(record)
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = CarrierCall(FOREIGN_SID, CarrierStatus.COMPLETED, NUMBER)
        await trio.sleep(2 * A_ROUND_SECONDS)
        confirmed = {record.sid: record.carrier_confirmed_at for record in await desk.store.recent(10)}
        assert confirmed[SID] is None
        assert confirmed[FOREIGN_SID] is not None


async def test_a_carrier_that_never_confirms_is_asked_for_hours_and_not_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.status = Unavailable(None, 503, "no answer")
        desk.carrier.hang_up_answer = NotHungUp("503")
        line = await desk.placed()
        line.hang_up(goodbye=False)
        await desk.ended(line, Blame.US, Reason.OPERATOR)
        await trio.sleep(UNCONFIRMED.total_seconds())
        tried = len(desk.carrier.hung_up)
        assert tried > 100
        await trio.sleep(10 * A_ROUND_SECONDS)
        assert len(desk.carrier.hung_up) == tried


# ---- calls that we hold ---------------------------------------------------------------------------


async def test_a_long_call_keeps_its_lease(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line, _ = await desk.in_conversation()
        for _ in range(10):
            await trio.sleep(LEASE_SECONDS / 2)
            assert await desk.store.orphans("other", LEASE_SECONDS, 10) == []
        assert line.ending is None
        desk.board.cut_all()


async def test_what_was_said_is_in_the_ledger_within_a_second(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line, agent = await desk.in_conversation()
        await agent.say(type="transcript.user", text="Tuesday, please.")
        await trio.sleep(1.1)
        kept = await desk.store.get(line.record.id)
        assert kept is not None
        assert [said.text for said in kept.transcript] == ["Tuesday, please."]
        assert kept.ending is None
        desk.board.cut_all()


async def test_a_call_that_is_just_being_added_is_not_taken_for_a_lost_one(autojump_clock: MockClock) -> None:
    class SlowStore(CountingStore):
        async def add(self, record: CallRecord) -> CallRecord:
            await trio.sleep(1)
            return await super().add(record)

    async with open_desk(store=SlowStore()) as desk:
        held = await desk.placed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.place)
            await trio.sleep(0.5)
            await desk.reconciler.renew()
            new = desk.board.lines[-1]
            assert new is not held
            assert new.ending is None
        assert not new.yielded
        desk.board.cut_all()


async def test_a_line_that_lost_its_fence_closes_and_says_nothing_to_anybody(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line = await desk.placed()
        phone = await desk.streams_in(line)
        desk.nursery.start_soon(desk.stay_on_the_line, phone)
        await desk.opens(phone)
        assert await desk.store.take_over(line.record.id, 1, "other", LEASE_SECONDS)
        began = trio.current_time()
        assert await phone.wait_closed() == 1000
        assert trio.current_time() - began <= RENEW_SECONDS
        await desk.board.wait_idle()
        assert all(stream.closed for stream in desk.streams)
        assert desk.carrier.hung_up == []
        assert desk.store.saved == []
        kept = await desk.store.get(line.record.id)
        assert kept is not None
        assert (kept.owner, kept.ending) == ("other", None)


async def test_a_word_said_too_late_tells_that_the_call_is_another_nodes(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        assert await desk.store.take_over(line.record.id, 1, "other", LEASE_SECONDS)
        await desk.reconciler.save_live()
        assert line.yielded
        await desk.board.wait_idle()
        assert desk.carrier.hung_up == []


# ---- what other nodes hear ------------------------------------------------------------------------


async def test_a_callback_that_another_node_got_reaches_the_owner_and_teaches_the_sid(
    autojump_clock: MockClock,
) -> None:
    store = CountingStore()
    async with open_desk(store=store) as owner, open_desk(store=store, node="other") as other:
        owner.nursery.start_soon(owner.reconciler.run)
        owner.carrier.answer = Uncertain("timed out")
        line = await owner.placed()
        await other.board.carrier_called_back(line.record.id, StatusCallback(SID, CarrierStatus.RINGING))
        await trio.sleep(0.5)
        assert (line.record.sid, line.record.status) == (SID, Status.RINGING)
        await other.board.carrier_called_back(line.record.id, StatusCallback(SID, CarrierStatus.BUSY))
        began = trio.current_time()
        record = await owner.ended(line, Blame.CALLEE, Reason.BUSY)
        assert trio.current_time() - began <= 1
        assert record.carrier_confirmed_at is not None


class Telling(CountingStore):
    """Tells the wishes that it is given, once, and keeps those that are left anew."""

    def __init__(self) -> None:
        super().__init__()
        self.to_tell: list[Wish] = []
        self.left: list[Wish] = []

    async def wishes(self, node: str) -> list[Wish]:
        self._look()
        told, self.to_tell = self.to_tell, []
        await trio.lowlevel.checkpoint()
        return told

    async def wish(self, call_id: str, kind: WishKind, fields: dict[str, Any] | None = None) -> bool:
        await trio.lowlevel.checkpoint()
        self._look()
        self.left.append(Wish(call_id, kind, fields or {}))
        return True


class Failing(Telling):
    """Tells, and takes nothing back until it is up again."""

    async def wish(self, call_id: str, kind: WishKind, fields: dict[str, Any] | None = None) -> bool:
        if self.fails is None and not self.left and self.to_tell == []:
            self.fails = StoreError("disk full")
        return await super().wish(call_id, kind, fields)


async def test_a_wish_for_a_call_that_has_left_outlives_an_outage_and_keeps_no_other_one_waiting(
    autojump_clock: MockClock,
) -> None:
    store = Failing()
    async with open_desk(store=store) as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line, other = await desk.placed(), await desk.placed()
        gone = [Wish("call_gone", WishKind.CALLBACK, {"status": status}) for status in ("ringing", "busy")]
        store.to_tell = [*gone, Wish(line.record.id, WishKind.HANG_UP)]
        await trio.sleep(WISH_SECONDS + 0.1)
        assert line.ending == Ending(Blame.US, Reason.OPERATOR)
        assert store.left == []
        store.fails = None
        store.left = [Wish("", WishKind.STOP)]  # from now on all is taken
        store.to_tell = [Wish(other.record.id, WishKind.HANG_UP)]
        await trio.sleep(WISH_SECONDS + 0.1)
        assert other.ending == Ending(Blame.US, Reason.OPERATOR)
        assert store.left[1:] == gone
        await trio.sleep(5 * WISH_SECONDS)
        assert store.left[1:] == gone


# ---- the ledger is down ---------------------------------------------------------------------------


@pytest.mark.parametrize("outage_seconds", [5, 45, 200])
async def test_a_call_outlives_the_ledger_and_its_record_is_whole_when_it_is_back(
    autojump_clock: MockClock, instant_disk: None, tmp_path: Path, outage_seconds: int
) -> None:
    store = CountingStore()
    async with (
        open_spool(store, tmp_path / "spool") as spool,
        open_spool(store, tmp_path / "other spool") as other_spool,
        open_desk(store=store, spool=spool) as desk,
        open_desk(store=store, spool=other_spool, node="other") as other,
    ):
        desk.nursery.start_soon(desk.reconciler.run)
        other.nursery.start_soon(other.reconciler.run)
        line = await desk.placed()
        phone = await desk.streams_in(line)
        desk.nursery.start_soon(desk.stay_on_the_line, phone)
        agent = await desk.opens(phone)
        store.fails = StoreError("disk full")
        await agent.say(type="transcript.user", text="Are you there?")
        await answer(agent, "r1")
        await trio.sleep(outage_seconds)
        assert line.ending is None
        assert desk.board.refusal is not None
        assert desk.board.refusal.code == "no-store"
        store.fails = None
        await spool.wait_written()
        await other_spool.wait_written()
        await trio.sleep(A_ROUND_SECONDS)
        assert line.ending is None
        await phone.say(event="stop", streamSid=STREAM)
        await desk.board.wait_idle()
        await spool.wait_written()
        kept = await store.get(line.record.id)
        assert kept is not None
        assert ended_as(kept) == (Blame.CALLEE, Reason.HUNG_UP)
        assert [said.text for said in kept.transcript] == ["Are you there?"]
        assert "entry lost" not in [event["event"] for event in kept.events]


async def test_after_an_outage_nobody_takes_what_its_owner_had_no_time_to_renew(
    autojump_clock: MockClock, instant_disk: None, tmp_path: Path
) -> None:
    store = CountingStore()
    async with (
        open_spool(store, tmp_path / "spool") as spool,
        open_spool(store, tmp_path / "other spool") as other_spool,
        open_desk(store=store, spool=spool) as desk,
        open_desk(store=store, spool=other_spool, node="other") as other,
    ):
        desk.nursery.start_soon(desk.reconciler.run)
        line = await desk.placed()
        await trio.sleep_until(3)
        other.nursery.start_soon(other.reconciler.run)
        await trio.sleep_until(RENEW_SECONDS + 1)
        store.fails = StoreError("disk full")
        await trio.sleep_until(6 * RENEW_SECONDS + 0.5)  # the other looks for orphans next, then we renew
        store.fails = None
        await trio.sleep_until(6 * RENEW_SECONDS + 5)
        assert line.record.fence == 0
        kept = await store.get(line.record.id)
        assert kept is not None
        assert (kept.owner, kept.fence) == ("node", 0)
        desk.board.cut_all()


async def test_a_call_that_ends_during_an_outage_gets_its_own_record_and_not_an_orphans(
    autojump_clock: MockClock, instant_disk: None, tmp_path: Path
) -> None:
    store = CountingStore()
    async with open_spool(store, tmp_path / "spool") as spool, open_desk(store=store, spool=spool) as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line = await desk.placed()
        await trio.sleep(1.5)
        store.fails = StoreError("disk full")
        line.hang_up(goodbye=False)
        await trio.sleep(100)
        store.fails = None
        await spool.wait_written()
        await trio.sleep(A_ROUND_SECONDS)
        kept = await store.get(line.record.id)
        assert kept is not None
        assert kept.ending == Ending(Blame.US, Reason.OPERATOR)
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]


# ---- after the end --------------------------------------------------------------------------------


async def test_what_comes_after_the_end_adds_the_confirmation_and_the_recording_and_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line = await desk.placed()
        await desk.says(line, CarrierStatus.RINGING)
        line.hang_up(goodbye=False)
        ended = (await desk.ended(line, Blame.US, Reason.OPERATOR)).as_json()
        ready = RecordingCallback(SID, "RE" + "3" * 32, RecordingStatus.COMPLETED)
        await desk.board.recorded(line.record.id, ready)
        await desk.says(line, CarrierStatus.COMPLETED)
        await desk.store.suppress([ListEntry(line.record.to, Listing.ADDED, "t", "t", virtual_now())])
        assert not await desk.board.hang_up_elsewhere(line.record.id, goodbye=True)
        assert await desk.board.document(line.record.id, 1) is Document.HANG_UP
        await trio.sleep(2 * A_ROUND_SECONDS)
        kept = await desk.store.get(line.record.id)
        assert kept is not None
        shown = kept.as_json()
        assert {name for name in shown if shown[name] != ended[name]} == {"carrier_confirmed_at", "events"}
        (late,) = shown["events"][len(ended["events"]) :]
        assert (late["event"], late["recording_sid"]) == ("recording", ready.recording_sid)
        verification = await desk.store.verify(line.record.id)
        assert verification is not None
        assert verification.integrity is Integrity.INTACT
        assert timedelta(0) <= virtual_now() - (kept.ended_at or virtual_now())
