"""What the tools of agents work with: appointments to be booked, accounts, and wishes to be called back.

Knows no database, no tool and no call but by its id; `MemoryBooks` and `SqlBooks` keep these promises.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from relay.store.records import stamp

CONFIRMATION_DIGITS = 6  # spoken on a telephone; each is taken once in the whole book


@dataclass(frozen=True, slots=True)
class Slot:
    """A time at which there can be one appointment.

    The offset of `starts_at` is the wall clock of the place: what is said to the person. `confirmation`,
    `call_id` and `number` are those of who has booked it; `position` is the store's.
    """

    calendar: str
    starts_at: datetime
    note: str = ""
    confirmation: str | None = None
    call_id: str | None = None
    number: str | None = None
    position: int = 0

    @property
    def is_free(self) -> bool:
        """Whether it can be booked."""
        return self.confirmation is None

    def as_json(self) -> dict[str, Any]:
        """One slot as it is listed."""
        return {
            "calendar": self.calendar,
            "starts_at": self.starts_at.isoformat(),
            "note": self.note,
            "confirmation": self.confirmation,
            "call_id": self.call_id,
            "number": self.number,
        }


@dataclass(frozen=True, slots=True)
class Account:
    """What an operator has on record of somebody; `fields` are what an agent may tell its owner."""

    book: str
    id: str
    number: str  # E.164
    fields: dict[str, str] = field(default_factory=dict)
    position: int = 0

    def as_json(self) -> dict[str, Any]:
        """One account as it is listed."""
        return {"book": self.book, "id": self.id, "number": self.number, "fields": dict(self.fields)}


@dataclass(frozen=True, slots=True)
class Callback:
    """Somebody's wish to be called again: no order, and no leave to dial.

    The offset of `at` is the wall clock of the person.
    """

    id: str
    call_id: str
    agent: str
    number: str
    at: datetime
    note: str
    wished_at: datetime
    done_at: datetime | None = None
    done_by: str | None = None
    position: int = 0

    def as_json(self) -> dict[str, Any]:
        """One wish as it is listed."""
        return {
            "id": self.id,
            "number": self.number,
            "agent": self.agent,
            "at": self.at.isoformat(),
            "note": self.note,
            "call_id": self.call_id,
            "wished_at": stamp(self.wished_at),
            "done_at": self.done_at and stamp(self.done_at),
            "done_by": self.done_by,
        }


class Books(Protocol):
    """Whatever keeps the books. Every method may raise StoreError; nothing else goes wrong by exception."""

    # ---- appointments --------------------------------------------------------------------------------------

    async def open_slots(self, slots: Sequence[Slot]) -> int:
        """Add times that can be booked; how many were new. One that is there already stays as it is."""

    async def free_slots(
        self, calendar: str, since: datetime, until: datetime, limit: int, *, or_of: str = ""
    ) -> list[Slot]:
        """What can be booked from `since` on and before `until`, or is the call `or_of`'s; in order."""

    async def book(
        self, calendar: str, starts_at: datetime, *, call_id: str, number: str, at_most: int
    ) -> Slot | None:
        """Take a slot for a call, on whatever node; None where there is none, or somebody was quicker.

        The slot that this call has already is given again as it is. None too where the call has `at_most`.
        """

    async def release(self, confirmation: str) -> Slot | None:
        """Free the slot of this confirmation again; the slot, or None where there is no such booking."""

    async def slots(self, after: int, limit: int, calendar: str | None = None) -> list[Slot]:
        """Slots behind position `after`, in order: pages of a list."""

    # ---- accounts ------------------------------------------------------------------------------------------

    async def keep_accounts(self, accounts: Sequence[Account]) -> None:
        """Add accounts; one that is there already, by book and id, is replaced."""

    async def accounts_of(self, book: str, number: str) -> list[Account]:
        """The accounts of a number in one book, by id."""

    async def account(self, book: str, account_id: str) -> Account | None:
        """One account of a book."""

    async def accounts(self, after: int, limit: int, book: str | None = None) -> list[Account]:
        """Accounts behind position `after`, in order: pages of a list."""

    async def remove_account(self, book: str, account_id: str) -> bool:
        """Take an account out; False where there is none."""

    # ---- callbacks -----------------------------------------------------------------------------------------

    async def wish_callback(self, wish: Callback) -> None:
        """Keep a wish; another one of the same call takes its place."""

    async def callbacks(self, after: int, limit: int, *, open_only: bool) -> list[Callback]:
        """Wishes behind position `after`, in order: pages of a list."""

    async def settle_callback(self, callback_id: str, who: str, at: datetime) -> Callback | None:
        """Somebody has seen to a wish; the first word counts. None where there is no such wish."""


def draw_confirmation() -> str:
    """A number that can be said; it proves nothing, and only names a booking."""
    return f"{secrets.randbelow(10**CONFIRMATION_DIGITS):0{CONFIRMATION_DIGITS}}"


def at_offset(instant: datetime, offset_minutes: int) -> datetime:
    """An instant by the wall clock that it was given in."""
    return instant.astimezone(timezone(timedelta(minutes=offset_minutes)))


def offset_minutes(instant: datetime) -> int:
    """How far the wall clock of an aware instant is ahead of UTC."""
    ahead = instant.utcoffset()
    if ahead is None:
        raise ValueError("the books take aware instants only")
    return int(ahead.total_seconds()) // 60
