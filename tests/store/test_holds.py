"""What a ledger promises of ownership: one owner at a time, and no word from an earlier one.

Must not know which ledger it is talking to; a lease of no seconds has run out, so that nothing here waits.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.outcomes import Blame, Ending, Reason
from relay.store import Store, Written
from relay.store.ledger import Wish, WishKind
from tests.store.conftest import NOW, OpenStore, a_call

many = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
ENDED = Ending(Blame.NOBODY, Reason.GOODBYE)


async def test_who_adds_a_call_may_hold_it(store: Store) -> None:
    mine = await store.add(a_call(owner="a"))
    assert await store.claim(mine.id, "b", 30) is None
    assert await store.claim(mine.id, "a", 30) == 0
    assert await store.renew("a", 30) == {mine.id: 0}
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
    assert await store.renew("a", 0) == {record.id: 0}
    [orphan] = await store.orphans("b", 30, 10)
    assert (orphan.id, orphan.owner, orphan.fence) == (record.id, "b", 1)
    record.note(NOW, "woken up late")
    assert await store.save(record) is Written.STALE
    assert await store.renew("a", 30) == {}
    orphan.note(NOW, "taken on")
    assert await store.save(orphan) is Written.KEPT
    found = await store.get(record.id)
    assert found is not None
    assert [event["event"] for event in found.events] == ["taken on"]


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


async def test_the_next_stream_takes_the_call_at_once_and_only_once(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    assert await store.take_over(record.id, 1, "b", 30) == 1
    assert await store.take_over(record.id, 1, "c", 30) is None
    assert await store.take_over(record.id, 2, "c", 30) == 2
    found = await store.get(record.id)
    assert found is not None
    assert (found.owner, found.fence, found.attempt) == ("c", 2, 2)
    assert await store.save(record) is Written.STALE


async def test_a_call_that_ended_is_nobodys(store: Store) -> None:
    record = await store.add(a_call(owner="a"))
    record.ending, record.ended_at = ENDED, NOW
    await store.save(record)
    assert await store.claim(record.id, "a", 30) is None
    assert await store.take_over(record.id, 1, "a", 30) is None
    assert await store.renew("a", 30) == {}
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
                await store.renew(node, 0)
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
