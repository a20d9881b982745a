"""What a ledger promises of calls: kept before they are dialled, never turned back, ended exactly once.

Must not know which ledger it is talking to.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.outcomes import Blame, Ending, Reason
from relay.store import CallRecord, Status, Store, StoreError, TranscriptLine, Written
from relay.store.records import ENTRIES_OF_A_KIND, ENTRIES_OF_AN_EVENT, Kind
from tests.store.conftest import NOW, OpenStore, a_call

BUSY = Ending(Blame.CALLEE, Reason.BUSY, "no room: \0 \ud800 ☎")
many = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


def end(record: CallRecord, ending: Ending = BUSY) -> None:
    record.ending, record.ended_at = ending, NOW + timedelta(seconds=20)
    record.raise_status(Status.ENDED)


async def known(store: Store, call_id: str) -> CallRecord:
    record = await store.get(call_id)
    assert record is not None
    return record


async def test_a_new_call_is_kept_with_all_that_was_asked_for(store: Store) -> None:
    record = a_call(
        record=True,
        machine_detection="enable",
        purpose="collections",
        variables={"name": "Ada ☎"},
        from_="+12025550100",
        seller="Acme",
        state="US-TX",
        zone="America/Chicago",
    )
    assert await store.add(record) is record
    found = await known(store, record.id)
    assert found.as_json() == record.as_json()
    assert found.intent() == record.intent()
    assert (found.record, found.machine_detection, found.variables) == (True, "enable", {"name": "Ada ☎"})
    assert (found.from_, found.seller) == ("+12025550100", "Acme")
    assert (found.state, found.zone) == ("US-TX", "America/Chicago")


async def test_an_unknown_call_is_none(store: Store) -> None:
    assert await store.get("call_of_nobody") is None
    assert await store.find("CA0") is None
    assert await store.under_key("no such key") is None


async def test_an_id_is_given_once(store: Store) -> None:
    record = a_call()
    await store.add(record)
    with pytest.raises(StoreError, match=record.id):
        await store.add(a_call(id=record.id))


async def test_one_idempotency_key_is_one_call(store: Store) -> None:
    first = await store.add(a_call(idempotency_key="k", request_digest="d"))
    again = await store.add(a_call(idempotency_key="k", request_digest="other"))
    assert (again.id, again.request_digest) == (first.id, "d")
    assert [record.id for record in await store.recent(10)] == [first.id]
    found = await store.under_key("k")
    assert found is not None
    assert found.id == first.id


async def test_of_requests_at_once_with_one_key_one_becomes_a_call(store: Store) -> None:
    answers: list[CallRecord] = []

    async def place() -> None:
        answers.append(await store.add(a_call(idempotency_key="k")))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(place)
    assert len(answers) == 8
    assert len({answer.id for answer in answers}) == 1


async def test_what_happens_is_kept_as_it_happens(store: Store) -> None:
    record = await store.add(a_call())
    record.note(NOW, "dialing", attempt=1)
    record.raise_status(Status.DIALING)
    assert await store.save(record) is Written.KEPT
    record.answered_at = NOW
    record.answered_by = "human"
    record.raise_status(Status.LIVE)
    record.transcribe(TranscriptLine("callee", "Hello? \0 \ud800", NOW, interrupted=False))
    record.measure(NOW, agent_seconds=0.6, relay_seconds=0.0004)
    record.ran(NOW, "lookup", run="t1", arguments={"order": 7}, result="shipped \0")
    record.charge(NOW, "carrier", "0.0085", "USD")
    record.judged(NOW, 1, "ab" * 32, None)
    assert await store.save(record) is Written.KEPT
    found = await known(store, record.id)
    assert found.as_json() == record.as_json()
    assert found.entries == record.entries
    assert found.kept == record.kept == len(record.entries)


async def test_writing_twice_is_writing_once(store: Store) -> None:
    record = await store.add(a_call())
    record.note(NOW, "one")
    first = record.progress()
    record.note(NOW, "two")
    both = record.progress()
    for progress in (first, both, first, both):
        assert await store.write(progress) is Written.KEPT
    found = await known(store, record.id)
    assert [event["event"] for event in found.events] == ["one", "two"]


async def test_what_was_lost_on_the_way_is_said_and_nothing_else_moves(store: Store) -> None:
    record = await store.add(a_call())
    record.note(NOW, "torn")
    record.kept = 2
    record.note(NOW, "whole")
    assert await store.save(record) is Written.KEPT
    found = await known(store, record.id)
    assert [event["event"] for event in found.events] == ["entry lost", "whole"]


async def test_the_final_record_is_written_once_and_the_first_stays(store: Store) -> None:
    record = await store.add(a_call())
    end(record)
    record.counts = {"frames": 3}
    record.notices = [{"code": 13224, "message": "no such number"}]
    assert await store.save(record) is Written.KEPT
    assert await store.save(record) is Written.SETTLED
    other = await known(store, record.id)
    end(other, Ending(Blame.US, Reason.CRASHED))
    other.note(NOW, "late")
    assert await store.save(other) is Written.SETTLED
    found = await known(store, record.id)
    assert found.ending is not None
    assert (found.ending.blame, found.ending.reason) == (Blame.CALLEE, Reason.BUSY)
    assert found.ending.detail.startswith("no room")
    assert (found.status, found.ended_at) == (Status.ENDED, record.ended_at)
    assert (found.counts, found.notices) == (record.counts, record.notices)
    assert [entry.kind for entry in found.entries] == [Kind.INTENT, Kind.ENDING]


async def test_what_is_noted_behind_the_ending_is_not_written(store: Store) -> None:
    record = await store.add(a_call())
    end(record)
    await store.save(record)
    record.note(NOW, "hung up")
    assert await store.save(record) is Written.SETTLED
    assert (await known(store, record.id)).events == []


async def test_a_call_that_is_not_here_is_not_written(store: Store) -> None:
    assert await store.save(a_call()) is Written.UNKNOWN


@many
@given(statuses=st.lists(st.sampled_from([s for s in Status if s is not Status.ENDED]), min_size=1))
async def test_ranks_only_rise(open_ledger: OpenStore, statuses: list[Status]) -> None:
    async with open_ledger() as store:
        record = await store.add(a_call())
        seen = Status.QUEUED
        for status in statuses:
            record.status = status  # whatever the writer believes
            await store.save(record)
            now = (await known(store, record.id)).status
            assert now.rank == max(seen.rank, status.rank)
            seen = now


async def test_the_first_answer_counts(store: Store) -> None:
    record = await store.add(a_call())
    record.answered_at = NOW
    await store.save(record)
    record.answered_at = NOW + timedelta(seconds=5)
    await store.save(record)
    assert (await known(store, record.id)).answered_at == NOW


async def test_a_sid_belongs_to_one_call_and_a_call_to_one_sid(store: Store) -> None:
    one, two = await store.add(a_call()), await store.add(a_call())
    assert await store.learn_sid(one.id, "CA1")
    assert await store.learn_sid(one.id, "CA1")
    assert not await store.learn_sid(one.id, "CA2")
    assert not await store.learn_sid(two.id, "CA1")
    assert not await store.learn_sid("call_of_nobody", "CA3")
    found = await store.find("CA1")
    assert found is not None
    assert found.id == one.id


async def test_a_sid_that_is_taken_does_not_cost_the_rest_of_the_record(store: Store) -> None:
    one, two = await store.add(a_call()), await store.add(a_call())
    one.sid = two.sid = "CA1"
    await store.save(one)
    end(two)
    assert await store.save(two) is Written.KEPT
    assert (await known(store, two.id)).sid is None


async def test_only_the_confirmation_is_written_after_the_end_and_only_once(store: Store) -> None:
    record = await store.add(a_call())
    end(record)
    await store.save(record)
    await store.confirm(record.id, NOW)
    await store.confirm(record.id, NOW + timedelta(seconds=9))
    await store.confirm("call_of_nobody", NOW)
    assert (await known(store, record.id)).carrier_confirmed_at == NOW


async def test_the_newest_calls_come_first(store: Store) -> None:
    records = [await store.add(a_call(started_at=NOW + timedelta(seconds=n))) for n in range(3)]
    records[2].note(NOW, "dialing")
    await store.save(records[2])
    found = await store.recent(2)
    assert [record.id for record in found] == [records[2].id, records[1].id]
    assert found[0].summary() == records[2].summary()


async def test_a_diary_has_an_end_and_says_what_it_leaves_out(store: Store) -> None:
    record = await store.add(a_call())
    for number in range(ENTRIES_OF_A_KIND + 3):
        record.note(NOW, f"event {number}")
    record.transcribe(TranscriptLine("agent", "Still here.", NOW, interrupted=True))
    end(record)
    assert await store.save(record) is Written.KEPT
    found = await known(store, record.id)
    assert (len(found.events), found.events_left_out, len(found.transcript)) == (ENTRIES_OF_A_KIND, 3, 1)


async def test_an_event_that_is_told_again_and_again_leaves_room_for_others(store: Store) -> None:
    record = await store.add(a_call())
    for number in range(ENTRIES_OF_A_KIND + 3):
        record.note(NOW, "unknown agent event", number=number)
    await store.save(record)
    record = await known(store, record.id)
    record.note(NOW, "unknown agent event", number=0)
    record.note(NOW, "opted out")
    assert [event["event"] for event in record.events].count("unknown agent event") == ENTRIES_OF_AN_EVENT
    assert record.events[-1]["event"] == "opted out"
    assert record.events_left_out == ENTRIES_OF_A_KIND + 4 - ENTRIES_OF_AN_EVENT


async def test_a_record_read_back_goes_on_where_it_was(store: Store) -> None:
    record = await store.add(a_call())
    record.note(NOW, "one")
    await store.save(record)
    found = await known(store, record.id)
    found.note(NOW, "two")
    assert await store.save(found) is Written.KEPT
    assert [event["event"] for event in (await known(store, record.id)).events] == ["one", "two"]
