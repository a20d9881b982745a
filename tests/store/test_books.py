"""What the books promise: a slot is one person's, an account its number's, a wish is kept until it is seen.

Must not know which ledger keeps them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import trio

from relay.outcomes import Blame, Ending, Reason
from relay.store import Account, Callback, Slot, Store
from relay.store.ledger import Retention
from tests.store.conftest import NOW, NUMBER, a_call

OTHER = "+12025550199"
EASTERN = timezone(timedelta(hours=-5))
TEN = datetime(2026, 3, 3, 10, tzinfo=EASTERN)
ELEVEN = TEN + timedelta(hours=1)
WEEK = timedelta(days=7)


def wish(call_id: str, **fields: object) -> Callback:
    wanted = {
        "id": f"callback_{call_id}",
        "call_id": call_id,
        "agent": "default",
        "number": NUMBER,
        "at": TEN,
        "note": "about the crown",
        "wished_at": NOW,
    }
    return Callback(**{**wanted, **fields})  # type: ignore[arg-type]


async def book(store: Store, at: datetime, call_id: str, calendar: str = "lakeside") -> Slot | None:
    return await store.books.book(calendar, at, call_id=call_id, number=NUMBER, at_most=2)


async def free(store: Store, calendar: str = "lakeside") -> list[datetime]:
    return [slot.starts_at for slot in await store.books.free_slots(calendar, NOW, NOW + WEEK, 10)]


# ---- appointments ------------------------------------------------------------------------------------------


async def test_what_was_opened_can_be_booked_by_the_clock_of_the_place(store: Store) -> None:
    opened = [Slot("lakeside", ELEVEN, "Doctor Lee"), Slot("lakeside", TEN), Slot("harbour", TEN)]
    assert await store.books.open_slots(opened) == 3
    assert await free(store) == [TEN, ELEVEN]
    found = (await store.books.free_slots("lakeside", NOW, NOW + WEEK, 10))[0]
    assert found.starts_at.isoformat() == "2026-03-03T10:00:00-05:00"
    assert await free(store, "lost") == []
    assert await store.books.free_slots("lakeside", NOW, TEN, 10) == []
    assert len(await store.books.free_slots("lakeside", TEN, NOW + WEEK, 1)) == 1


async def test_opening_a_slot_again_leaves_its_booking_alone(store: Store) -> None:
    await store.books.open_slots([Slot("lakeside", TEN)])
    booked = await book(store, TEN, "call_1")
    again = [Slot("lakeside", TEN.astimezone(UTC), "another"), Slot("lakeside", ELEVEN)]
    assert await store.books.open_slots(again) == 1
    assert (await store.books.slots(0, 1))[0] == booked


async def test_a_slot_is_booked_once_and_its_confirmation_is_its_own(store: Store) -> None:
    await store.books.open_slots([Slot("lakeside", TEN), Slot("lakeside", ELEVEN)])
    first = await book(store, TEN, "call_1")
    assert first is not None
    assert (first.call_id, first.number, len(first.confirmation or "")) == ("call_1", NUMBER, 6)
    assert await book(store, TEN, "call_2") is None
    assert await book(store, TEN, "call_1") == first
    with_own = await store.books.free_slots("lakeside", NOW, NOW + WEEK, 10, or_of="call_1")
    assert [slot.starts_at for slot in with_own] == [TEN, ELEVEN]
    assert await free(store) == [ELEVEN]
    second = await book(store, ELEVEN, "call_2")
    assert second is not None
    assert second.confirmation != first.confirmation
    assert await free(store) == []


async def test_what_is_no_slot_cannot_be_booked(store: Store) -> None:
    await store.books.open_slots([Slot("lakeside", TEN)])
    assert await book(store, ELEVEN, "call_1") is None
    assert await book(store, TEN, "call_1", calendar="harbour") is None


async def test_of_many_who_want_one_slot_at_once_one_has_it(store: Store) -> None:
    await store.books.open_slots([Slot("lakeside", TEN)])
    got: list[Slot] = []

    async def want(call_id: str) -> None:
        if slot := await book(store, TEN, call_id):
            got.append(slot)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(want, f"call_{number}")
    assert len(got) == 1
    assert (await store.books.slots(0, 10))[0].call_id == got[0].call_id


async def test_a_call_cannot_book_out_the_calendar(store: Store) -> None:
    hours = [TEN + timedelta(hours=hour) for hour in range(3)]
    await store.books.open_slots([Slot("lakeside", hour) for hour in hours])
    booked = [await book(store, hour, "call_1") for hour in hours]
    assert [slot is not None for slot in booked] == [True, True, False]


async def test_a_booking_that_is_released_can_be_booked_by_another(store: Store) -> None:
    await store.books.open_slots([Slot("lakeside", TEN)])
    booked = await book(store, TEN, "call_1")
    assert booked is not None
    released = await store.books.release(booked.confirmation or "")
    assert released is not None
    assert (released.is_free, released.call_id, released.number) == (True, None, None)
    assert await store.books.release(booked.confirmation or "") is None
    assert await book(store, TEN, "call_2") is not None


async def test_slots_are_listed_page_by_page(store: Store) -> None:
    await store.books.open_slots([Slot("lakeside", TEN), Slot("harbour", TEN), Slot("lakeside", ELEVEN)])
    first = await store.books.slots(0, 2)
    assert [slot.calendar for slot in first] == ["lakeside", "harbour"]
    assert [s.starts_at for s in await store.books.slots(first[-1].position, 2)] == [ELEVEN]
    assert len(await store.books.slots(0, 10, "lakeside")) == 2


# ---- accounts ----------------------------------------------------------------------------------------------


async def test_an_account_is_found_by_its_number_and_by_its_id_in_its_book_alone(store: Store) -> None:
    ada = Account("patients", "A1", NUMBER, {"name": "Ada"})
    child = Account("patients", "A2", NUMBER, {"name": "Ben"})
    await store.books.keep_accounts([child, ada, Account("debtors", "A1", OTHER, {"owes": "12"})])
    found = await store.books.accounts_of("patients", NUMBER)
    assert [(each.id, each.fields) for each in found] == [("A1", {"name": "Ada"}), ("A2", {"name": "Ben"})]
    assert await store.books.accounts_of("debtors", NUMBER) == []
    by_id = await store.books.account("debtors", "A1")
    assert by_id is not None
    assert by_id.number == OTHER
    assert await store.books.account("patients", "A3") is None


async def test_an_account_that_is_imported_again_is_replaced(store: Store) -> None:
    await store.books.keep_accounts([Account("patients", "A1", NUMBER, {"name": "Ada", "due": "Monday"})])
    await store.books.keep_accounts([Account("patients", "A1", OTHER, {"name": "Ada"})])
    (kept,) = await store.books.accounts(0, 10)
    assert (kept.number, kept.fields) == (OTHER, {"name": "Ada"})
    assert await store.books.accounts_of("patients", NUMBER) == []


async def test_an_account_can_be_taken_out(store: Store) -> None:
    await store.books.keep_accounts([Account("patients", "A1", NUMBER)])
    assert await store.books.remove_account("patients", "A1") is True
    assert await store.books.remove_account("patients", "A1") is False
    assert await store.books.accounts(0, 10, "patients") == []


# ---- callbacks ---------------------------------------------------------------------------------------------


async def test_a_wish_is_kept_until_somebody_has_seen_to_it(store: Store) -> None:
    await store.books.wish_callback(wish("call_1"))
    await store.books.wish_callback(wish("call_2"))
    first, second = await store.books.callbacks(0, 10, open_only=True)
    assert first.at.isoformat() == "2026-03-03T10:00:00-05:00"
    assert await store.books.callbacks(first.position, 10, open_only=True) == [second]
    settled = await store.books.settle_callback(first.id, "ada", NOW)
    assert settled is not None
    assert (settled.done_by, settled.done_at) == ("ada", NOW)
    later = await store.books.settle_callback(first.id, "ben", NOW + WEEK)
    assert later == settled
    assert await store.books.callbacks(0, 10, open_only=True) == [second]
    assert len(await store.books.callbacks(0, 10, open_only=False)) == 2
    assert await store.books.settle_callback("callback_lost", "ada", NOW) is None


async def test_a_call_has_one_wish_and_the_last_one_counts(store: Store) -> None:
    await store.books.wish_callback(wish("call_1"))
    await store.books.wish_callback(wish("call_1", id="callback_b", at=ELEVEN))
    (kept,) = await store.books.callbacks(0, 10, open_only=False)
    assert (kept.id, kept.at) == ("callback_b", ELEVEN)


# ---- privacy -----------------------------------------------------------------------------------------------


async def fill(store: Store, call_id: str) -> None:
    await store.books.open_slots([Slot("lakeside", TEN)])
    await book(store, TEN, call_id)
    await store.books.keep_accounts([Account("patients", "A1", NUMBER, {"name": "Ada"})])
    await store.books.wish_callback(wish(call_id))


async def test_a_person_is_told_what_the_books_have_and_then_it_is_gone(store: Store) -> None:
    await fill(store, "call_1")
    told = await store.export_subject(NUMBER)
    assert [each["starts_at"] for each in told["appointments"]] == ["2026-03-03T10:00:00-05:00"]
    assert told["accounts"][0]["fields"] == {"name": "Ada"}
    assert told["callbacks"][0]["note"] == "about the crown"
    await store.erase(NUMBER, "ada", NOW)
    forgotten = await store.export_subject(NUMBER)
    assert [forgotten[name] for name in ("appointments", "accounts", "callbacks")] == [[], [], []]
    (slot,) = await store.books.slots(0, 10)
    assert (slot.is_free, slot.number) == (False, None)


async def test_who_booked_is_forgotten_with_the_record_of_the_call(store: Store) -> None:
    record = await store.add(a_call())
    await fill(store, record.id)
    record.ending, record.ended_at = Ending(Blame.NOBODY, Reason.GOODBYE), NOW
    await store.save(record)
    await store.purge(replace(Retention(), evidence_seconds=60), NOW + timedelta(hours=1))
    (slot,) = await store.books.slots(0, 10)
    assert (slot.is_free, slot.number) == (False, None)
    assert await store.books.callbacks(0, 10, open_only=False) == []
    assert len(await store.books.accounts(0, 10)) == 1
