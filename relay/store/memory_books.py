"""The books in memory: gone with the process, and the plainest statement of what they do.

Knows no database and no thread; nothing in it waits, so that every method is one step.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

import trio

from relay.store.books import Account, Books, Callback, Slot, draw_confirmation


class MemoryBooks(Books):
    """Books for one process."""

    def __init__(self) -> None:
        self._positions = count(1)
        self._slots: dict[tuple[str, datetime], Slot] = {}
        self._accounts: dict[tuple[str, str], Account] = {}
        self._callbacks: dict[str, Callback] = {}  # by the call that wished it

    # ---- appointments --------------------------------------------------------------------------------------

    async def open_slots(self, slots: Sequence[Slot]) -> int:
        await trio.lowlevel.checkpoint()
        known = len(self._slots)
        for slot in slots:
            fresh = Slot(slot.calendar, slot.starts_at, slot.note, position=next(self._positions))
            self._slots.setdefault((slot.calendar, slot.starts_at), fresh)
        return len(self._slots) - known

    async def free_slots(
        self, calendar: str, since: datetime, until: datetime, limit: int, *, or_of: str = ""
    ) -> list[Slot]:
        await trio.lowlevel.checkpoint()
        here = (slot for slot in self._slots.values() if slot.calendar == calendar)
        found = [s for s in here if (s.is_free or s.call_id == or_of) and since <= s.starts_at < until]
        return sorted(found, key=lambda slot: slot.starts_at)[:limit]

    async def book(
        self, calendar: str, starts_at: datetime, *, call_id: str, number: str, at_most: int
    ) -> Slot | None:
        await trio.lowlevel.checkpoint()
        slot = self._slots.get((calendar, starts_at))
        if slot is None or slot.call_id == call_id:
            return slot
        has = sum(other.call_id == call_id for other in self._slots.values())
        if not slot.is_free or has >= at_most:
            return None
        taken = {other.confirmation for other in self._slots.values()}
        number_of_it = next(drawn for drawn in iter(draw_confirmation, "") if drawn not in taken)
        booked = replace(slot, confirmation=number_of_it, call_id=call_id, number=number)
        self._slots[calendar, slot.starts_at] = booked
        return booked

    async def release(self, confirmation: str) -> Slot | None:
        await trio.lowlevel.checkpoint()
        for key, slot in self._slots.items():
            if slot.confirmation == confirmation:
                self._slots[key] = replace(slot, confirmation=None, call_id=None, number=None)
                return self._slots[key]
        return None

    async def slots(self, after: int, limit: int, calendar: str | None = None) -> list[Slot]:
        await trio.lowlevel.checkpoint()
        found = [s for s in self._slots.values() if s.position > after and calendar in (None, s.calendar)]
        return sorted(found, key=lambda slot: slot.position)[:limit]

    # ---- accounts ------------------------------------------------------------------------------------------

    async def keep_accounts(self, accounts: Sequence[Account]) -> None:
        await trio.lowlevel.checkpoint()
        for account in accounts:
            key = (account.book, account.id)
            known = self._accounts.get(key)
            position = known.position if known else next(self._positions)
            self._accounts[key] = replace(account, position=position)

    async def accounts_of(self, book: str, number: str) -> list[Account]:
        await trio.lowlevel.checkpoint()
        found = [a for a in self._accounts.values() if a.book == book and a.number == number]
        return sorted(found, key=lambda account: account.id)

    async def account(self, book: str, account_id: str) -> Account | None:
        await trio.lowlevel.checkpoint()
        return self._accounts.get((book, account_id))

    async def accounts(self, after: int, limit: int, book: str | None = None) -> list[Account]:
        await trio.lowlevel.checkpoint()
        found = [a for a in self._accounts.values() if a.position > after and book in (None, a.book)]
        return sorted(found, key=lambda account: account.position)[:limit]

    async def remove_account(self, book: str, account_id: str) -> bool:
        await trio.lowlevel.checkpoint()
        return self._accounts.pop((book, account_id), None) is not None

    # ---- callbacks -----------------------------------------------------------------------------------------

    async def wish_callback(self, wish: Callback) -> None:
        await trio.lowlevel.checkpoint()
        self._callbacks[wish.call_id] = replace(wish, position=next(self._positions))

    async def callbacks(self, after: int, limit: int, *, open_only: bool) -> list[Callback]:
        await trio.lowlevel.checkpoint()
        found = [wish for wish in self._callbacks.values() if wish.position > after]
        found = [wish for wish in found if not open_only or wish.done_at is None]
        return sorted(found, key=lambda wish: wish.position)[:limit]

    async def settle_callback(self, callback_id: str, who: str, at: datetime) -> Callback | None:
        await trio.lowlevel.checkpoint()
        for call_id, wish in self._callbacks.items():
            if wish.id == callback_id:
                settled = wish if wish.done_at else replace(wish, done_at=at, done_by=who)
                self._callbacks[call_id] = settled
                return settled
        return None

    # ---- privacy -------------------------------------------------------------------------------------------

    def about(self, number: str) -> dict[str, list[dict[str, Any]]]:
        """Everything about one number, as JSON."""
        return {
            "appointments": [s.as_json() for s in self._slots.values() if s.number == number],
            "accounts": [a.as_json() for a in self._accounts.values() if a.number == number],
            "callbacks": [w.as_json() for w in self._callbacks.values() if w.number == number],
        }

    def forget(self, number: str) -> None:
        """Take a person out; what they booked stays taken, by nobody."""
        for key, slot in self._slots.items():
            if slot.number == number:
                self._slots[key] = replace(slot, number=None)
        self._accounts = {key: a for key, a in self._accounts.items() if a.number != number}
        self._callbacks = {key: w for key, w in self._callbacks.items() if w.number != number}

    def forget_calls(self, call_ids: Collection[str]) -> None:
        """Take out who wished or booked something in these calls."""
        for key, slot in self._slots.items():
            if slot.call_id in call_ids:
                self._slots[key] = replace(slot, number=None)
        self._callbacks = {key: w for key, w in self._callbacks.items() if w.call_id not in call_ids}
