"""What a ledger promises of ownership: one owner at a time, and no word from an earlier one.

Must not know which ledger it is talking to; a lease of no seconds has run out, so that nothing here waits.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.outcomes import Blame, Ending, Reason
from relay.store import Entry, Kind, Store, Written
from relay.store.chain import Integrity
from relay.store.diary import from_fields
from relay.store.ledger import Wish, WishKind
from tests.store.conftest import NOW, OpenStore, a_call

many = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
SID = "CA" + "1" * 32
ENDED = Ending(Blame.NOBODY, Reason.GOODBYE)


async def test_who_adds_a_call_may_hold_it(store: Store) -> None:
    mine = await store.add(a_call(owner="a"))
    assert await store.claim(mine.id, "b", 30) is None
    assert await store.claim(mine.id, "a", 30) == 0
    assert await store.renew("a", [mine.id], 30) == {mine.id: 0}
    assert await store.orphans("b", 30, 10) == []


async def test_a_call_of_nobody_is_the_first_claimers(store: Store) -> None:
    record = await store.add(a_call())
    assert await store.claim(record.id, "a", 30) == 1
    assert await store.claim(record.id, "b", 30) is None
    assert await store.claim("call_of_nobody", "b", 30) is None


async def test_a_lease_that_ran_out_is_anybodys_and_the_earlier_owner_writes_nothing_more(
    store: Store,
) -> None:
    record = await store.add(a_call(owner="a"))
    assert await store.renew("a", [record.id], 0) == {record.id: 0}
    [orphan] = await store.orphans("b", 30, 10)
    assert (orphan.id, orphan.owner, orphan.fence) == (record.id, "b", 1)
    record.note(NOW, "woken up late")
    assert await store.save(record) is Written.STALE
    assert await store.renew("a", [record.id], 30) == {}
    orphan.note(NOW, "taken on")
    assert await store.save(orphan) is Written.KEPT
    found = await store.get(record.id)
    assert found is not None
    assert [event["event"] for event in found.events] == ["taken on"]
    orphan.ending, orphan.ended_at = ENDED, NOW
    assert await store.save(orphan) is Written.KEPT
    assert await store.save(record) is Written.STALE  # not its own end


async def test_an_orphan_is_given_to_one_node_only(store: Store) -> None:
    ids = {(await store.add(a_call())).id for _ in range(12)}
    claimed: list[str] = []

    async def claim(node: str) -> None:
        while found := await store.orphans(node, 30, 2):
            claimed.extend(record.id for record in found)

    async with trio.open_nursery() as nursery:
        for node in "abcd":
            nursery.start_soon(claim, node)
    # Who passed by the rows that another was claiming may have stopped early; the next one finds the rest.
    await claim("e")
    assert sorted(claimed) == sorted(ids)


async def test_a_call_past_its_limit_is_taken_from_its_owner_but_once_a_lease(store: Store) -> None:
    now = datetime.now(UTC)
    record = await store.add(a_call(owner="a", time_limit_seconds=60))
    record.answered_at = now - timedelta(seconds=89)
    await store.save(record)
    assert await store.orphans("b", 30, 10) == []
    late = await store.add(a_call(owner="a", time_limit_seconds=60))
    late.answered_at = now - timedelta(seconds=95)
    await store.save(late)
    assert [orphan.id for orphan in await store.orphans("b", 30, 10)] == [late.id]
    assert await store.orphans("c", 30, 10) == []


async def test_a_call_that_the_carrier_has_ended_is_taken_from_an_owner_who_does_not_listen(
    store: Store,
) -> None:
    deaf, hearing, untold, live = [await store.add(a_call(owner=owner)) for owner in "abaa"]
    for record in (deaf, hearing, live):
        await store.wish(record.id, WishKind.CALLBACK, {"status": "completed"})
    await store.wish(deaf.id, WishKind.HANG_UP)
    for record in (deaf, hearing, untold):
        await store.confirm(record.id, NOW)
    unread = await store.unread("c")
    assert len(unread) == 2
    assert len(await store.unread("a")) == 1  # its own it has yet to read
    assert len(await store.wishes("b")) == 1
    await store.wish(hearing.id, WishKind.CALLBACK, {"status": "completed"})  # the carrier repeats itself
    assert await store.bereaved(unread, "a", 30, 10) == []
    [claimed] = await store.bereaved(unread, "c", 30, 10)
    assert (claimed.id, claimed.owner, claimed.fence) == (deaf.id, "c", 1)
    assert await store.bereaved(unread, "d", 30, 10) == []
    assert len(await store.unread("d")) == 1  # of `hearing` alone, while the one is still asking the carrier
    assert await store.save(deaf) is Written.STALE
    assert [wish.kind for wish in await store.wishes("c")] == [WishKind.HANG_UP]


async def test_of_all_nodes_that_miss_the_owner_at_once_one_takes_its_call(store: Store) -> None:
    ids = [(await store.add(a_call(owner="gone"))).id for _ in range(7)]
    for call_id in ids:
        for status in ("in-progress", "completed"):
            await store.wish(call_id, WishKind.CALLBACK, {"status": status})
        await store.confirm(call_id, NOW)
    unread = await store.unread("a")
    claimed: list[str] = []

    async def claim(node: str) -> None:
        while found := await store.bereaved(unread, node, 30, 2):
            claimed.extend(record.id for record in found)

    async with trio.open_nursery() as nursery:
        for node in "abcd":
            nursery.start_soon(claim, node)
    assert sorted(claimed) == sorted(ids)


async def test_the_next_stream_takes_the_call_at_once_and_only_once(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    assert await store.take_over(record.id, 1, "b", 30) == 1
    assert await store.take_over(record.id, 1, "c", 30) is None
    assert await store.take_over(record.id, 2, "c", 30) == 2
    found = await store.get(record.id)
    assert found is not None
    assert (found.owner, found.fence, found.attempt) == ("c", 2, 2)
    assert await store.save(record) is Written.STALE


async def test_what_a_node_does_not_name_it_does_not_hold(store: Store) -> None:
    mine, forgotten = await store.add(a_call(owner="a")), await store.add(a_call(owner="a"))
    others = await store.add(a_call(owner="b"))
    await store.renew("a", [mine.id, forgotten.id], 0)
    assert await store.renew("a", [mine.id, others.id, "call_of_nobody"], 30) == {mine.id: 0}
    assert [orphan.id for orphan in await store.orphans("c", 30, 10)] == [forgotten.id]
    assert await store.lost("a", [mine.id, forgotten.id, others.id]) == {forgotten.id, others.id}
    assert await store.lost("a", []) == set()


async def test_a_stream_takes_its_call_along_and_begins_once(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    assert await store.take_stream(record.id, 1, SID, "b", 30) is None  # no such document was served yet
    assert await store.take_stream("call_of_nobody", 0, SID, "b", 30) is None
    assert await store.take_stream(record.id, 0, SID, "b", 30) == 1
    assert await store.take_stream(record.id, 0, SID, "b", 30) is None
    assert await store.take_stream(record.id, 0, SID, "a", 30) is None
    found = await store.get(record.id)
    assert found is not None
    assert (found.owner, found.fence, found.attempt, found.sid) == ("b", 1, 0, SID)
    record.note(NOW, "said too late")
    assert await store.save(record) is Written.STALE
    assert await store.take_over(record.id, 1, "c", 30) == 2
    assert await store.take_stream(record.id, 0, SID, "a", 30) is None
    assert await store.take_stream(record.id, 1, SID, "a", 30) == 3


async def test_a_stream_that_begins_at_the_owner_changes_no_hands(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    assert await store.take_stream(record.id, 0, SID, "a", 30) == 0
    assert await store.take_stream(record.id, 0, SID, "a", 30) is None
    record.note(NOW, "on")
    assert await store.save(record) is Written.KEPT


async def test_a_stream_of_another_call_of_the_carriers_takes_nothing_and_spends_nothing(
    store: Store,
) -> None:
    record = await store.add(a_call(owner="a"))
    assert await store.learn_sid(record.id, SID)
    assert await store.take_stream(record.id, 0, "CA" + "9" * 32, "b", 30) is None
    assert await store.take_stream(record.id, 0, SID, "b", 30) == 1


async def test_of_nodes_that_claim_one_stream_at_once_one_has_it(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    fences: list[int | None] = []

    async def take(node: str) -> None:
        fences.append(await store.take_stream(record.id, 0, SID, node, 30))

    async with trio.open_nursery() as nursery:
        for node in "bcdefg":
            nursery.start_soon(take, node)
    assert sorted(fences, key=str) == [1, None, None, None, None, None]


async def test_what_others_have_to_say_reaches_the_owner(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    told = Entry(Kind.EVENT, NOW, {"event": "carrier", "status": "ringing"})
    await store.tell(record.id, [told])
    [wish] = await store.wishes("a")
    assert (wish.call_id, wish.kind) == (record.id, WishKind.NOTED)
    assert from_fields(wish.fields["entries"]) == [told]
    record.take_in(from_fields(wish.fields["entries"]))
    assert await store.save(record) is Written.KEPT
    found = await store.get(record.id)
    assert found is not None
    assert [event["event"] for event in found.events] == ["carrier"]


async def test_what_comes_after_the_end_or_was_not_read_before_it_stands_behind_it(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    await store.tell(record.id, [Entry(Kind.EVENT, NOW, {"event": "not read"})])
    record.ending, record.ended_at = ENDED, NOW
    assert await store.save(record) is Written.KEPT
    await store.tell(record.id, [Entry(Kind.EVENT, NOW, {"event": "recording"})])
    await store.tell("call_of_nobody", [Entry(Kind.EVENT, NOW, {"event": "recording"})])
    found = await store.get(record.id)
    assert found is not None
    assert [event["event"] for event in found.events] == ["not read", "recording"]
    assert [entry.kind for entry in found.entries] == [Kind.INTENT, Kind.ENDING, Kind.EVENT, Kind.EVENT]
    verification = await store.verify(record.id)
    assert verification is not None
    assert verification.integrity is Integrity.INTACT
    assert await store.save(record) is Written.SETTLED


async def test_an_erased_call_takes_nothing_more(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    record.ending, record.ended_at = ENDED, NOW
    await store.save(record)
    await store.erase(record.to, "t", NOW)
    await store.tell(record.id, [Entry(Kind.EVENT, NOW, {"event": "recording"})])
    found = await store.get(record.id)
    assert found is not None
    assert found.events == []


async def test_an_end_that_the_carrier_does_not_confirm_is_looked_after_by_one_node_at_a_time(
    store: Store,
) -> None:
    async def ended(sid: str | None, started_at: datetime = NOW) -> str:
        record = await store.add(a_call(owner="a", started_at=started_at))
        await store.renew("a", [record.id], 0)  # its lease is over
        record.sid, record.ending, record.ended_at = sid, ENDED, NOW
        await store.save(record)
        return record.id

    silent = await ended(SID)
    await ended(None)
    await ended("CA" + "2" * 32, NOW - timedelta(hours=2))
    confirmed = await ended("CA" + "3" * 32)
    await store.confirm(confirmed, NOW)
    live = await store.add(a_call(owner="a"))
    await store.learn_sid(live.id, "CA" + "4" * 32)
    await store.renew("a", [live.id], 0)
    since = NOW - timedelta(hours=1)
    [found] = await store.unconfirmed(since, 0, 10)
    assert (found.id, found.sid) == (silent, SID)
    assert await store.unconfirmed(since, 30, 0) == []
    assert len(await store.unconfirmed(since, 30, 10)) == 1
    assert await store.unconfirmed(since, 30, 10) == []


async def test_the_earliest_answer_counts(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    for seconds in (5, 3, 4):
        record.answered_at = NOW + timedelta(seconds=seconds)
        await store.save(record)
    found = await store.get(record.id)
    assert found is not None
    assert found.answered_at == NOW + timedelta(seconds=3)


async def test_a_call_that_ended_is_nobodys(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    record.ending, record.ended_at = ENDED, NOW
    await store.save(record)
    assert await store.claim(record.id, "a", 30) is None
    assert await store.take_over(record.id, 1, "a", 30) is None
    assert await store.take_stream(record.id, 0, SID, "a", 30) is None
    assert await store.renew("a", [record.id], 30) == {}
    assert await store.orphans("b", 30, 10) == []
    assert not await store.wish(record.id, WishKind.GOODBYE)


@many
@given(
    moves=st.lists(st.tuples(st.sampled_from(["claim", "take", "expire", "write"]), st.sampled_from("abc")))
)
async def test_fences_only_rise_and_one_node_at_a_time_can_write(
    open_ledger: OpenStore, moves: list[tuple[str, str]]
) -> None:
    async with open_ledger() as store:
        record = await store.add(a_call())
        fences: dict[str, int] = {}
        highest = attempt = 0
        for move, node in moves:
            if move == "expire":
                await store.renew(node, [record.id], 0)
            elif move == "write":
                record.fence = fences.get(node, -1)
                written = await store.write(record.progress())
                assert (written is Written.KEPT) == (record.fence == highest)
            else:
                attempt += 1
                taken = (
                    await store.claim(record.id, node, 30)
                    if move == "claim"
                    else await store.take_over(record.id, attempt, node, 30)
                )
                if taken is not None:
                    assert taken == highest + 1 or (taken == highest == fences.get(node))
                    fences[node] = highest = taken


async def test_the_owner_finds_each_wish_once_and_in_order(store: Store) -> None:
    mine, other = await store.add(a_call(owner="a")), await store.add(a_call(owner="b"))
    assert await store.wish(mine.id, WishKind.CALLBACK, {"status": "ringing"})
    assert await store.wish(other.id, WishKind.HANG_UP)
    assert await store.wish(mine.id, WishKind.GOODBYE)
    assert not await store.wish("call_of_nobody", WishKind.GOODBYE)
    assert await store.wishes("a") == [
        Wish(mine.id, WishKind.CALLBACK, {"status": "ringing"}),
        Wish(mine.id, WishKind.GOODBYE),
    ]
    assert await store.wishes("a") == []


async def test_a_wish_follows_the_call_to_its_next_owner(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    await store.wish(record.id, WishKind.GOODBYE)
    await store.take_over(record.id, 1, "b", 30)
    assert await store.wishes("a") == []
    assert await store.wishes("b") == [Wish(record.id, WishKind.GOODBYE)]


async def test_a_nonce_is_spent_once(store: Store) -> None:
    answers: list[bool] = []

    async def spend() -> None:
        answers.append(await store.spend("token"))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(spend)
    assert sorted(answers) == [False] * 5 + [True]
