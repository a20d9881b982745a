"""What was said is forgotten in time, and the record of it later, without anybody asking.

Must not know HTTP or how a ledger forgets; of live calls there are none.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from relay.outcomes import Blame, Ending, Reason
from relay.reconciler import PURGE_SECONDS
from relay.service import _retention
from relay.settings import load_settings
from relay.store import CallRecord, Retention, Store, StoreError, TranscriptLine, sql_subjects
from tests.store.conftest import a_call
from tests.test_switchboard import EPOCH, CountingStore, open_desk
from tests.web.conftest import store

__all__ = ["store"]

CALLS = 5


async def a_talk(store: Store, days_ago: int) -> CallRecord:
    """A call that ended some days before the clock of the tests began."""
    record = await store.add(a_call(started_at=EPOCH - timedelta(days=days_ago)))
    record.transcribe(TranscriptLine("callee", "My name is Ada.", record.started_at, interrupted=False))
    record.ending, record.ended_at = Ending(Blame.NOBODY, Reason.GOODBYE), record.started_at
    await store.save(record)
    return record


async def left_of(store: Store, record: CallRecord) -> tuple[int, bool]:
    """How many lines of it are kept, and whether the number is."""
    kept = await store.get(record.id)
    assert kept is not None
    return len(kept.transcript), kept.to != ""


async def test_one_round_forgets_all_that_is_past_its_period_however_much_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_subjects, "PURGED_AT_ONCE", 2)
    talks = [await a_talk(store, 31) for _ in range(CALLS)]
    ancient = [await a_talk(store, 2200) for _ in range(CALLS)]
    recent = await a_talk(store, 29)
    async with open_desk(ledger=store, clock=lambda: EPOCH) as desk:
        await desk.reconciler.purge()
    assert {await left_of(store, talk) for talk in talks} == {(0, True)}
    assert {await left_of(store, talk) for talk in ancient} == {(0, False)}
    assert await left_of(store, recent) == (1, True)


async def test_it_happens_by_itself_and_a_ledger_that_is_down_is_asked_again(
    autojump_clock: MockClock,
) -> None:
    store = CountingStore()
    talk = await a_talk(store, 31)
    async with open_desk(store=store) as desk:
        desk.nursery.start_soon(desk.reconciler.run)
        assert await left_of(store, talk) == (1, True)
        await trio.sleep(PURGE_SECONDS - 1)
        store.fails = StoreError("disk full")
        await trio.sleep(2)
        store.fails = None
        await trio.sleep(PURGE_SECONDS)
        assert await left_of(store, talk) == (0, True)


def test_the_periods_are_those_of_the_settings() -> None:
    assert _retention(load_settings({})) == Retention()
    chosen = load_settings({"RELAY_KEEP_TRANSCRIPT_DAYS": "1", "RELAY_KEEP_EVIDENCE_DAYS": "2"})
    assert _retention(chosen) == Retention(transcript_seconds=86_400, evidence_seconds=2 * 86_400)
