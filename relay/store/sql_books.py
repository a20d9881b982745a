"""The books in SQLite or PostgreSQL: their statements, each in the transaction of one operation.

Knows no engine, no thread, no deadline and no key: `SqlStore` runs what is here, and hashes numbers.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from relay.store.books import Account, Books, Callback, Slot, at_offset, draw_confirmation, offset_minutes
from relay.store.tables import accounts, callbacks, slots

T = TypeVar("T")


class Run(Protocol):
    """Runs one transaction."""

    def __call__(self, work: Callable[[sa.Connection], T], *, durable: bool = False) -> Awaitable[T]: ...


class SqlBooks(Books):
    """The books behind `run`; `subject` hashes a number."""

    def __init__(self, run: Run, subject: Callable[[str], str]) -> None:
        self._run = run
        self._subject = subject

    # ---- appointments --------------------------------------------------------------------------------------

    async def open_slots(self, wanted: Sequence[Slot]) -> int:
        return await self._run(lambda c: _open_slots(c, wanted))

    async def free_slots(
        self, calendar: str, since: datetime, until: datetime, limit: int, *, or_of: str = ""
    ) -> list[Slot]:
        open_to = slots.c.confirmation.is_(None) | (slots.c.call_id == or_of)
        in_time = (slots.c.starts_at >= since) & (slots.c.starts_at < until)
        free = sa.select(slots).where(slots.c.calendar == calendar, open_to, in_time)
        return await self._run(lambda c: _slots(c, free.order_by(slots.c.starts_at).limit(limit)))

    async def book(
        self, calendar: str, starts_at: datetime, *, call_id: str, number: str, at_most: int
    ) -> Slot | None:
        whose = {"call_id": call_id, "subject": self._subject(number), "number": number}
        here = (slots.c.calendar == calendar) & (slots.c.starts_at == starts_at)
        return await self._run(lambda c: _book(c, here, whose, at_most), durable=True)

    async def release(self, confirmation: str) -> Slot | None:
        return await self._run(lambda c: _release(c, confirmation))

    async def slots(self, after: int, limit: int, calendar: str | None = None) -> list[Slot]:
        page = sa.select(slots).where(slots.c.id > after).order_by(slots.c.id).limit(limit)
        page = page if calendar is None else page.where(slots.c.calendar == calendar)
        return await self._run(lambda c: _slots(c, page))

    # ---- accounts ------------------------------------------------------------------------------------------

    async def keep_accounts(self, wanted: Sequence[Account]) -> None:
        subjects = [self._subject(account.number) for account in wanted]
        await self._run(lambda c: _keep_accounts(c, wanted, subjects))

    async def accounts_of(self, book: str, number: str) -> list[Account]:
        theirs = (accounts.c.book == book) & (accounts.c.subject == self._subject(number))
        return await self._run(lambda c: _accounts(c, sa.select(accounts).where(theirs), accounts.c.account))

    async def account(self, book: str, account_id: str) -> Account | None:
        named = (accounts.c.book == book) & (accounts.c.account == account_id)
        found = await self._run(lambda c: _accounts(c, sa.select(accounts).where(named), accounts.c.id))
        return found[0] if found else None

    async def accounts(self, after: int, limit: int, book: str | None = None) -> list[Account]:
        page = sa.select(accounts).where(accounts.c.id > after).limit(limit)
        page = page if book is None else page.where(accounts.c.book == book)
        return await self._run(lambda c: _accounts(c, page, accounts.c.id))

    async def remove_account(self, book: str, account_id: str) -> bool:
        named = (accounts.c.book == book) & (accounts.c.account == account_id)
        return await self._run(lambda c: c.execute(accounts.delete().where(named)).rowcount > 0)

    # ---- callbacks -----------------------------------------------------------------------------------------

    async def wish_callback(self, wish: Callback) -> None:
        subject = self._subject(wish.number)
        await self._run(lambda c: _wish_callback(c, wish, subject), durable=True)

    async def callbacks(self, after: int, limit: int, *, open_only: bool) -> list[Callback]:
        page = sa.select(callbacks).where(callbacks.c.id > after).order_by(callbacks.c.id).limit(limit)
        page = page.where(callbacks.c.done_at.is_(None)) if open_only else page
        return await self._run(lambda c: [_callback(row) for row in c.execute(page)])

    async def settle_callback(self, callback_id: str, who: str, at: datetime) -> Callback | None:
        return await self._run(lambda c: _settle_callback(c, callback_id, who, at))


# ---- appointments ----------------------------------------------------------------------------------------


def _slots(connection: sa.Connection, wanted: sa.Select[Any]) -> list[Slot]:
    return [_slot(row) for row in connection.execute(wanted)]


def _slot(row: Any) -> Slot:
    starts_at = at_offset(row.starts_at, row.offset_minutes)
    return Slot(row.calendar, starts_at, row.note, row.confirmation, row.call_id, row.number, row.id)


def _open_slots(connection: sa.Connection, wanted: Sequence[Slot]) -> int:
    added = 0
    for slot in wanted:
        here = (slots.c.calendar == slot.calendar) & (slots.c.starts_at == slot.starts_at)
        if connection.execute(sa.select(slots.c.id).where(here)).first() is None:
            row = {"calendar": slot.calendar, "starts_at": slot.starts_at, "note": slot.note}
            row |= {"offset_minutes": offset_minutes(slot.starts_at)}
            connection.execute(slots.insert().values(row))
            added += 1
    return added


def _book(
    connection: sa.Connection, here: sa.ColumnElement[bool], whose: dict[str, str], at_most: int
) -> Slot | None:
    wanted = sa.select(slots).where(here)
    row = connection.execute(wanted.with_for_update()).first()  # no two transactions look at once
    if row is None or row.call_id == whose["call_id"]:
        return None if row is None else _slot(row)
    mine = sa.select(sa.func.count()).where(slots.c.call_id == whose["call_id"])
    if row.confirmation is not None or connection.execute(mine).scalar_one() >= at_most:
        return None
    taken = sa.select(slots.c.id)
    confirmation = draw_confirmation()
    while connection.execute(taken.where(slots.c.confirmation == confirmation)).first() is not None:
        confirmation = draw_confirmation()
    connection.execute(slots.update().where(here).values(confirmation=confirmation, **whose))
    return _slots(connection, wanted)[0]


def _release(connection: sa.Connection, confirmation: str) -> Slot | None:
    found = connection.execute(sa.select(slots.c.id).where(slots.c.confirmation == confirmation)).first()
    if found is None:
        return None
    nobody = {"confirmation": None, "call_id": None, "subject": None, "number": None}
    connection.execute(slots.update().where(slots.c.id == found.id).values(nobody))
    return _slots(connection, sa.select(slots).where(slots.c.id == found.id))[0]


# ---- accounts --------------------------------------------------------------------------------------------


def _accounts(connection: sa.Connection, wanted: sa.Select[Any], order: sa.Column[Any]) -> list[Account]:
    return [
        Account(row.book, row.account, row.number, json.loads(row.fields), row.id)
        for row in connection.execute(wanted.order_by(order))
    ]


def _keep_accounts(connection: sa.Connection, wanted: Sequence[Account], subjects: Sequence[str]) -> None:
    for account, subject in zip(wanted, subjects, strict=True):
        named = (accounts.c.book == account.book) & (accounts.c.account == account.id)
        content = {"subject": subject, "number": account.number, "fields": json.dumps(account.fields)}
        if not connection.execute(accounts.update().where(named).values(content)).rowcount:
            name = {"book": account.book, "account": account.id}
            connection.execute(accounts.insert().values(name | content))


# ---- callbacks -------------------------------------------------------------------------------------------


def _callback(row: Any) -> Callback:
    return Callback(
        id=row.callback,
        call_id=row.call_id,
        agent=row.agent,
        number=row.number,
        at=at_offset(row.at, row.offset_minutes),
        note=row.note,
        wished_at=row.wished_at,
        done_at=row.done_at,
        done_by=row.done_by,
        position=row.id,
    )


def _wish_callback(connection: sa.Connection, wish: Callback, subject: str) -> None:
    connection.execute(callbacks.delete().where(callbacks.c.call_id == wish.call_id))
    columns = ("call_id", "agent", "number", "at", "note", "wished_at")
    row = {name: getattr(wish, name) for name in columns}
    row |= {"callback": wish.id, "subject": subject, "offset_minutes": offset_minutes(wish.at)}
    connection.execute(callbacks.insert().values(row))


def _settle_callback(connection: sa.Connection, callback_id: str, who: str, at: datetime) -> Callback | None:
    named = callbacks.c.callback == callback_id
    still_open = callbacks.update().where(named, callbacks.c.done_at.is_(None))
    connection.execute(still_open.values(done_at=at, done_by=who))
    row = connection.execute(sa.select(callbacks).where(named)).first()
    return None if row is None else _callback(row)


# ---- privacy ---------------------------------------------------------------------------------------------


def about(connection: sa.Connection, subject: str) -> dict[str, list[dict[str, Any]]]:
    """Everything about one number, as JSON."""
    wished = sa.select(callbacks).where(callbacks.c.subject == subject).order_by(callbacks.c.id)
    booked = sa.select(slots).where(slots.c.subject == subject).order_by(slots.c.id)
    theirs = sa.select(accounts).where(accounts.c.subject == subject)
    return {
        "appointments": [slot.as_json() for slot in _slots(connection, booked)],
        "accounts": [account.as_json() for account in _accounts(connection, theirs, accounts.c.id)],
        "callbacks": [_callback(row).as_json() for row in connection.execute(wished)],
    }


def forget(connection: sa.Connection, subject: str) -> None:
    """Take a person out; what they booked stays taken, by nobody."""
    mine = slots.update().where(slots.c.subject == subject)
    connection.execute(mine.values(subject=None, number=None))
    for table in (accounts, callbacks):
        connection.execute(table.delete().where(table.c.subject == subject))


def forget_calls(connection: sa.Connection, call_ids: Sequence[str]) -> None:
    """Take out who wished or booked something in these calls."""
    mine = slots.update().where(slots.c.call_id.in_(call_ids))
    connection.execute(mine.values(subject=None, number=None))
    connection.execute(callbacks.delete().where(callbacks.c.call_id.in_(call_ids)))
