"""No dial without a stored permit of its own attempt, and a number that is listed meanwhile is left in peace.

Must not know HTTP or real time, except where the dialer itself is held against the gate.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from relay.carrier import NotPermitted
from relay.compliance import OWN_LIST, DialRequest, Permit, Revocation
from relay.compliance import Refused as Forbidden
from relay.gatekeeper import FRESH_SECONDS, Gatekeeper, rule_time_from
from relay.line import Line
from relay.outcomes import Blame, Reason, Refusal
from relay.placing import CallRequest
from relay.store import LEASE_SECONDS, ListEntry, Listing, Status, StoreError, open_spool
from relay.store.ledger import Judge
from relay.switchboard import Document
from relay.wire.callbacks import CarrierStatus
from tests.test_dialer import dialer_against, says
from tests.test_switchboard import (
    EPOCH,
    NUMBER,
    OFFICE_HOURS,
    RULEBOOK,
    SID,
    STREAM,
    CountingStore,
    Desk,
    instant_disk,
    open_desk,
    virtual_now,
)

__all__ = ["instant_disk"]

NIGHT = datetime(2026, 3, 11, 8, tzinfo=UTC)  # in all of America
NOT_PERMITTED = (Blame.US, Reason.NOT_PERMITTED)
CALLEE_STEPS_SECONDS = 3.0  # an unanswered call is over so soon after its number was listed
CLOSED_SECONDS = 5.0  # and an answered one


def listed(number: str, at: datetime = EPOCH) -> list[ListEntry]:
    """What an operator enters."""
    return [ListEntry(number, Listing.ADDED, "operator", "operator", at)]


def codes(line: Line) -> list[object]:
    """What the gate said of each time that it was asked, by the diary."""
    return [entry.body and entry.body["refusal"] for entry in line.record.entries if entry.kind == "verdict"]


# ---- before the dial ------------------------------------------------------------------------------


async def test_a_dial_has_a_stored_verdict_and_a_permit_of_the_same_attempt(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        (permit,) = desk.carrier.permits
        (verdict,) = await desk.store.verdicts(line.record.id)
        assert (permit.call_id, permit.attempt, permit.to) == (line.record.id, 1, line.record.to)
        assert verdict == permit.verdict.as_json()
        assert codes(line) == [None]
        assert await desk.store.dials_since(EPOCH - timedelta(days=1)) == 1
        desk.board.cut_all()


async def test_a_refusal_is_stored_and_told_and_nothing_is_dialled(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        await desk.store.suppress(listed(NUMBER))
        line = await desk.placed(to=NUMBER)
        assert line.forbidden is not None
        assert line.forbidden.code == "dnc-listed"
        await desk.ended(line, *NOT_PERMITTED)
        assert desk.carrier.dialled == []
        (verdict,) = await desk.store.verdicts(line.record.id)
        assert any(finding.get("code") == "dnc-listed" for finding in verdict["findings"])
        assert codes(line) == ["dnc-listed"]
        assert await desk.store.dials_since(EPOCH - timedelta(days=1)) == 0


async def test_each_try_after_429_spends_a_permit_of_a_new_attempt() -> None:
    """The real dialer and gate; the third try is refused, since the number was listed during the pause."""
    async with open_desk() as desk:
        desk.carrier.queue_seconds = 60  # the desk's own carrier stays out of it
        line = await desk.place(to=NUMBER)
        store = desk.store
        gate = Gatekeeper(store, RULEBOOK, clock=lambda: datetime.now(UTC), rule_time=lambda: OFFICE_HOURS)
        permits: list[Permit | Forbidden] = []

        async def permission() -> Permit | Forbidden:
            if len(permits) == 2:
                await store.suppress(listed(NUMBER))
            permits.append(await gate.permit(line))
            return permits[-1]

        busy = says(429, {"code": 20429, "message": "Too Many Requests"})
        async with dialer_against(busy, busy, says(201, {"sid": SID})) as (dialer, api):
            outcome = await dialer.dial(line.order, permission)
        assert isinstance(outcome, NotPermitted)
        assert outcome.refusal.code == "dnc-listed"
        assert len(api.requests) == 2
        assert [type(permit) for permit in permits] == [Permit, Permit, Forbidden]
        assert [verdict["attempt"] for verdict in await store.verdicts(line.record.id)] == [1, 2, 3]
        desk.board.cut_all()


@pytest.mark.parametrize("fact", ["suppressions", "consents", "revocations", "lists", "attempts", "dials"])
async def test_a_fact_that_cannot_be_learnt_refuses(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, fact: str
) -> None:
    async with open_desk() as desk:
        whole = desk.store._facts

        def lacking(number: str, now: datetime, besides: str) -> object:
            facts = whole(number, now, besides)
            return type(facts)(**{name: getattr(facts, name) for name in facts.__slots__ if name != fact})

        monkeypatch.setattr(desk.store, "_facts", lacking)
        line = await desk.placed()
        assert line.forbidden is not None
        assert line.forbidden.code == "facts-missing"
        await desk.ended(line, *NOT_PERMITTED)
        assert desk.carrier.dialled == []


async def test_a_ledger_that_goes_down_while_a_call_is_queued_refuses_its_dial(
    autojump_clock: MockClock, instant_disk: None, tmp_path: Path
) -> None:
    async with open_spooled(tmp_path) as desk:
        desk.carrier.queue_seconds = 5
        line = await desk.place()
        desk.store.fails = StoreError("disk full")
        await line.decided.wait()
        assert line.forbidden is not None
        assert line.forbidden.code == "no-store"
        await desk.board.wait_idle()
        assert desk.carrier.dialled == []
        assert desk.board.refusal is not None
        assert desk.board.refusal.code == "no-store"
        desk.store.fails = None
        await desk.spool.wait_written()
        record = await desk.store.get(line.record.id)
        assert record is not None
        assert record.ending == line.ending
        assert desk.board.refusal is None


async def test_the_fourth_try_of_a_day_is_refused_by_the_real_clock(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        for _ in range(3):
            line = await desk.placed(to=NUMBER)
            await desk.says(line, CarrierStatus.BUSY)
            await desk.board.wait_idle()
        fourth = await desk.placed(to=NUMBER)
        assert fourth.forbidden is not None
        assert fourth.forbidden.code == "too-many-attempts"
        await trio.sleep(24 * 3600)  # while the clock of the rules of hours stands still
        fifth = await desk.placed(to=NUMBER)
        assert fifth.forbidden is None
        desk.board.cut_all()


async def test_the_set_clock_is_for_date_and_hour_alone(autojump_clock: MockClock) -> None:
    async with open_desk(rule_time=lambda: NIGHT) as desk:
        line = await desk.placed()
        assert line.forbidden is not None
        assert line.forbidden.code == "outside-hours"
        (verdict,) = await desk.store.verdicts(line.record.id)
        assert verdict["judged_at"] != verdict["checked_at"]
        assert str(verdict["checked_at"]).startswith(f"{virtual_now():%Y-%m-%d}")
        assert line.record.started_at.year == EPOCH.year


MORNING = datetime(2026, 3, 10, 13, tzinfo=UTC)  # nine where NUMBER was issued, six in California


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ({}, None),
        ({"zone": "America/Los_Angeles"}, "outside-hours"),
        ({"state": "US-CA"}, "outside-hours"),
        ({"state": "US-CA", "zone": "America/Chicago"}, None),  # the zone says where in the state
        ({"zone": "Nowhere/At_All"}, "zone-unknown"),
    ],
)
async def test_the_address_that_a_request_gives_counts_besides_the_number(
    autojump_clock: MockClock, address: dict[str, str], code: str | None
) -> None:
    async with open_desk(rule_time=lambda: MORNING) as desk:
        line = await desk.placed(to=NUMBER, **address)
        assert (line.forbidden and line.forbidden.code) == code
        (verdict,) = await desk.store.verdicts(line.record.id)
        if code != "zone-unknown":
            assert {"America/New_York", *filter(None, [address.get("zone")])} <= set(verdict["zones"])
            assert {"US-DC", *filter(None, [address.get("state")])} <= set(verdict["places"])
        desk.board.cut_all()


def test_a_set_clock_goes_on_from_where_it_was_set() -> None:
    assert rule_time_from(None)() is None
    shown = rule_time_from(NIGHT)()
    assert shown is not None
    assert timedelta(0) <= shown - NIGHT < timedelta(minutes=1)


async def test_a_permit_that_was_given_for_a_call_which_another_node_has_by_now_dials_nothing(
    autojump_clock: MockClock,
) -> None:
    class Stopping(CountingStore):
        async def permit(self, request: DialRequest, judge: Judge) -> Permit | Forbidden:
            await trio.sleep(LEASE_SECONDS + 1)  # as SIGSTOP does; another node takes the call meanwhile
            await self.orphans("other", LEASE_SECONDS, 10)
            return await super().permit(request, judge)

    async with open_desk(store=Stopping()) as desk:
        line = await desk.placed()
        assert line.forbidden is not None
        assert line.forbidden.code == "not-ours"
        assert desk.carrier.dialled == []


async def test_a_node_that_slept_past_its_lease_dials_nothing_that_another_has_ended(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.carrier.queue_seconds = LEASE_SECONDS + 10  # and nobody renews, as in a process that is stopped
        line = await desk.place()
        await trio.sleep(LEASE_SECONDS + 1)
        (orphan,) = await desk.store.orphans("other", LEASE_SECONDS, 10)
        assert orphan.id == line.record.id
        await desk.board.wait_idle()
        assert line.forbidden is not None
        assert line.forbidden.code == "not-ours"
        assert desk.carrier.dialled == []
        record = await desk.store.get(line.record.id)
        assert record is not None
        assert (record.owner, record.ending) == ("other", None)


# ---- the spend cap --------------------------------------------------------------------------------


async def test_no_more_is_dialled_in_an_hour_than_was_allowed(autojump_clock: MockClock) -> None:
    async with open_desk(calls_per_hour=2) as desk:
        desk.carrier.queue_seconds = 10
        lines = [await desk.place() for _ in range(2)]
        await trio.sleep(5)
        late = await desk.place()
        for line in [*lines, late]:
            await line.decided.wait()
        assert [line.forbidden for line in lines] == [None, None]
        assert late.forbidden is not None  # it was taken in time, and its turn came too late
        assert late.forbidden.code == "spend-cap"
        assert len(desk.carrier.dialled) == 2
        assert codes(late) == ["spend-cap"]
        (verdict,) = await desk.store.verdicts(late.record.id)
        assert [each["code"] for each in verdict["findings"] if "code" in each] == ["spend-cap"]
        desk.board.cut_all()


async def test_a_request_over_the_cap_leaves_no_record_and_may_be_repeated_when_there_is_room(
    autojump_clock: MockClock,
) -> None:
    async with open_desk(calls_per_hour=1) as desk:
        await desk.placed()
        again = CallRequest(to=NUMBER, idempotency_key="k", digest="d")
        refusal = await desk.board.place(again)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "spend-cap"
        assert await desk.store.under_key("k") is None
        await trio.sleep(3600)
        line = await desk.board.place(again)
        assert isinstance(line, Line)
        await line.decided.wait()
        assert line.forbidden is None
        desk.board.cut_all()


async def test_a_node_that_slept_past_its_lease_unnoticed_goes_on_under_a_new_fence(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.carrier.queue_seconds = LEASE_SECONDS + 10
        line = await desk.placed()
        assert desk.carrier.dialled == [line.record.id]
        line.hang_up(goodbye=False)
        await desk.ended(line, Blame.US, Reason.OPERATOR)


# ---- listed meanwhile -----------------------------------------------------------------------------


async def test_a_number_listed_while_its_call_is_queued_is_never_dialled(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        desk.carrier.queue_seconds = 30
        line = await desk.place(to=NUMBER)
        await trio.sleep(5)
        await desk.store.suppress(listed(NUMBER))
        began = trio.current_time()
        await line.decided.wait()
        assert trio.current_time() - began <= CALLEE_STEPS_SECONDS
        assert line.forbidden is not None  # which is what the request is answered with, 403
        assert line.forbidden.code == "dnc-listed"
        await desk.ended(line, *NOT_PERMITTED)
        assert desk.carrier.dialled == []
        assert line.record.status is Status.ENDED


@pytest.mark.parametrize("how", ["listed", "revoked"])
async def test_a_call_that_rings_is_hung_up_on_within_three_seconds(
    autojump_clock: MockClock, how: str
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line = await desk.placed(to=NUMBER)
        await desk.says(line, CarrierStatus.RINGING)
        await trio.sleep(5)
        began = trio.current_time()
        if how == "listed":
            await desk.store.suppress(listed(NUMBER))
        else:
            await desk.store.revoke(NUMBER, Revocation(virtual_now()))
        await desk.ended(line, *NOT_PERMITTED)
        ((sid, hung_up_at),) = desk.carrier.hung_up
        assert sid == SID
        assert hung_up_at - began <= CALLEE_STEPS_SECONDS


async def test_somebody_listed_while_talking_is_told_so_and_the_line_closes_within_five_seconds(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        line = await desk.placed(to=NUMBER)
        phone = await desk.streams_in(line)
        desk.nursery.start_soon(desk.stay_on_the_line, phone)
        await desk.opens(phone)
        await trio.sleep(3)
        began = trio.current_time()
        await desk.store.suppress(listed(NUMBER))
        assert await phone.hear("media")
        assert str((await phone.hear("mark"))["mark"]["name"]).startswith("last-words")
        assert await phone.wait_closed() == 1000
        assert trio.current_time() - began <= CLOSED_SECONDS
        await desk.ended(line, Blame.US, Reason.OPTED_OUT)
        ((_, hung_up_at),) = desk.carrier.hung_up
        assert hung_up_at - began <= CLOSED_SECONDS


async def test_wishes_of_other_nodes_arrive_within_half_a_second(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        for goodbye in (False, True):
            line = await desk.placed()
            await trio.sleep(0.77)
            assert await desk.board.hang_up_elsewhere(line.record.id, goodbye=goodbye)
            began = trio.current_time()
            await desk.board.wait_idle()
            assert line.ending is not None
            assert line.ending.reason is Reason.OPERATOR
            assert desk.carrier.hung_up.pop()[1] - began <= 0.5


# ---- who opts out in the call ---------------------------------------------------------------------


async def opt_out_by_key(desk: Desk, line: Line) -> None:
    """The callee hears the opening and presses the key."""
    phone = await desk.streams_in(line)
    desk.nursery.start_soon(desk.stay_on_the_line, phone)
    await desk.opens(phone)
    await phone.say(event="dtmf", streamSid=STREAM, dtmf={"digit": "9"})
    await trio.testing.wait_all_tasks_blocked()


async def test_an_opt_out_is_on_the_list_at_once(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed(to=NUMBER)
        await opt_out_by_key(desk, line)
        assert line.ending is None  # the clip is still being played
        (entry,) = await desk.store.suppressions(0, 10)
        assert (entry.number, entry.listing, entry.who) == (NUMBER, Listing.ADDED, line.record.id)
        await desk.ended(line, Blame.CALLEE, Reason.OPTED_OUT)
        again = await desk.placed(to=NUMBER)
        assert again.forbidden is not None
        assert again.forbidden.code == "dnc-listed"


@pytest.mark.parametrize("how", ["cut", "store down"])
async def test_an_opt_out_survives_whatever_happens_to_us(
    autojump_clock: MockClock, instant_disk: None, tmp_path: Path, how: str
) -> None:
    async with open_spooled(tmp_path) as desk:
        line = await desk.placed(to=NUMBER)
        if how == "store down":
            desk.store.fails = StoreError("disk full")
            await opt_out_by_key(desk, line)
            refused = await desk.board.place(CallRequest(to=NUMBER))
            assert isinstance(refused, Refusal)
            assert refused.code == "no-store"
        else:
            await opt_out_by_key(desk, line)
            desk.calls.cancel_scope.cancel()
        await desk.board.wait_idle()
        desk.store.fails = None
        await desk.spool.wait_written()
        facts = await desk.store.facts(NUMBER, virtual_now())
        assert facts.suppressions is not None
        assert [entry.list for entry in facts.suppressions] == [OWN_LIST]
        record = await desk.store.get(line.record.id)
        assert record is not None
        assert record.ending is not None
        assert record.ending.reason is Reason.OPTED_OUT


async def test_an_opt_out_whose_writing_is_cut_off_waits_in_the_spool(
    autojump_clock: MockClock, instant_disk: None, tmp_path: Path
) -> None:
    store = CountingStore()
    path = tmp_path / "spool"
    async with open_spool(store, path) as spool:
        with trio.CancelScope() as cut:
            cut.cancel()
            await spool.suppress(listed(NUMBER))
        assert await store.suppressions(0, 10) == []
    async with open_spool(store, path) as spool:
        await spool.wait_written()
    assert [entry.number for entry in await store.suppressions(0, 10)] == [NUMBER]


# ---- when somebody has picked up ------------------------------------------------------------------


async def test_a_number_listed_after_the_dial_is_hung_up_on_when_it_answers(
    autojump_clock: MockClock,
) -> None:
    async with open_desk() as desk:
        line = await desk.placed(to=NUMBER)
        await desk.store.suppress(listed(NUMBER))  # and nobody has read the wish yet
        assert await desk.board.document(line.record.id, 0) is Document.HANG_UP
        assert line.record.answered_at is not None
        record = await desk.ended(line, *NOT_PERMITTED)
        assert codes(line) == [None, "dnc-listed"]
        assert record.ending is not None
        assert record.ending.detail == "dnc-listed"


async def test_a_window_that_closed_while_it_rang_hangs_up(autojump_clock: MockClock) -> None:
    times = [OFFICE_HOURS]
    async with open_desk(rule_time=lambda: times[-1]) as desk:
        line = await desk.placed()
        times.append(NIGHT)
        assert await desk.board.document(line.record.id, 0) is Document.HANG_UP
        record = await desk.ended(line, *NOT_PERMITTED)
        assert codes(line) == [None, "outside-hours"]
        kept = await desk.store.get(record.id)
        assert kept is not None
        (verdict,) = kept.verdicts  # whole, with every rule; the one before the dial is beside its attempt
        assert [each["rule"] for each in verdict["findings"] if each.get("code") == "outside-hours"]
        assert len(await desk.store.verdicts(record.id)) == 1


async def test_a_window_that_closes_while_people_talk_ends_nothing(autojump_clock: MockClock) -> None:
    times = [OFFICE_HOURS]
    async with open_desk(rule_time=lambda: times[-1]) as desk:
        line = await desk.placed()
        await desk.streams_in(line)
        times.append(NIGHT)
        await desk.board.document(line.record.id, 0)  # the carrier asks twice now and then
        assert line.ending is None
        desk.board.cut_all()


@pytest.mark.parametrize(
    ("rang_seconds", "document"),
    [(FRESH_SECONDS - 60, Document.CONNECT), (FRESH_SECONDS + 1, Document.HANG_UP)],
)
async def test_without_the_ledger_only_a_fresh_permit_connects(
    autojump_clock: MockClock, rang_seconds: float, document: Document
) -> None:
    async with open_desk() as desk:
        desk.carrier.answer_seconds = rang_seconds
        line = await desk.place()
        await trio.sleep(rang_seconds)
        desk.store.fails = StoreError("disk full")
        assert await desk.board.document(line.record.id, 0) is document
        told = [each["connected"] for each in line.record.events if each["event"] == "not weighed again"]
        assert told == [document is Document.CONNECT]
        desk.board.cut_all()


@asynccontextmanager
async def open_spooled(folder: Path) -> AsyncIterator[Desk]:
    """A desk whose spool is being emptied, as in a service."""
    store = CountingStore()
    async with open_spool(store, folder / "spool") as spool, open_desk(store=store, spool=spool) as desk:
        yield desk
