"""The ledger in SQLite or PostgreSQL: one transaction an operation, in a thread, under a deadline of ours.

Knows no statement; those are functions beside it. SQLite belongs to one process, PostgreSQL to all nodes.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import trio

from relay.compliance.case import Consent, DialRequest, Facts, Revocation
from relay.compliance.gate import Permit, Refused
from relay.store import sql_calls, sql_holds, sql_subjects
from relay.store.books import Books
from relay.store.chain import SealedEntry, Verification
from relay.store.ledger import Erasure, Judge, ListEntry, Purge, Retention, Store, Wish, WishKind, Written
from relay.store.migrations import upgrade
from relay.store.records import CallRecord, Entry, Progress, StoreError, StoreRefused
from relay.store.sql_books import SqlBooks

OPERATION_SECONDS = 5.0  # for one operation, the wait for its thread and connection included
OPENING_SECONDS = 60.0  # for the migrations, another node's before ours included
CONNECT_SECONDS = 3  # to reach PostgreSQL; its driver takes whole seconds
CONNECTIONS = 8  # of a node to PostgreSQL; more made it no faster
TRIES = 3  # of a transaction that lost a race: a deadlock, or two inserts of one key

_RACES = ("40001", "40P01", "23505")  # PostgreSQL: serialization failure, deadlock, unique violation

OnOperation = Callable[[float, bool], None]
"""Told after each operation how many seconds it took, and whether it was carried out."""

T = TypeVar("T")
Work = Callable[[sa.Connection], T]


class SqlStore(Store):
    """The ledger behind an engine; made by `open_store`."""

    def __init__(self, engine: sa.Engine, key: bytes, on_operation: OnOperation) -> None:
        self._engine = engine
        self._key = key
        self._on_operation = on_operation
        # As many as there are connections: what waits, waits here, where a deadline of ours holds.
        self._limiter = trio.CapacityLimiter(1 if engine.dialect.name == "sqlite" else CONNECTIONS)
        self.books: Books = SqlBooks(self._run, self._subject)

    def _subject(self, number: str) -> str:
        return hmac.new(self._key, number.encode(), hashlib.sha256).hexdigest()

    async def _run(self, work: Work[T], *, durable: bool = False) -> T:
        """One transaction. A thread that is late is left behind: it commits nothing, and keeps its place."""
        given_up = threading.Event()
        began_at, is_done = trio.current_time(), False
        try:
            with trio.fail_after(OPERATION_SECONDS):
                answer = await trio.to_thread.run_sync(
                    partial(_transact, self._engine, work, given_up, durable=durable),
                    limiter=self._limiter,
                    abandon_on_cancel=True,
                )
            is_done = True
            return answer
        except trio.TooSlowError:
            raise StoreError(f"the database did not answer within {OPERATION_SECONDS:g} s") from None
        finally:
            given_up.set()
            self._on_operation(trio.current_time() - began_at, is_done)

    # ---- calls --------------------------------------------------------------------------------------------

    async def add(self, record: CallRecord) -> CallRecord:
        subject, progress = self._subject(record.to), record.progress()
        earlier = await self._run(
            lambda c: sql_calls.add(c, record, progress, subject, _now(c)), durable=True
        )
        if earlier is None:
            record.kept = len(progress.entries)
        return earlier or record

    async def write(self, progress: Progress) -> Written:
        return await self._run(lambda c: sql_calls.write(c, progress))

    async def learn_sid(self, call_id: str, sid: str) -> bool:
        return await self._run(lambda c: sql_calls.learn_sid(c, call_id, sid))

    async def confirm(self, call_id: str, at: datetime) -> None:
        await self._run(lambda c: sql_calls.confirm(c, call_id, at))

    async def tell(self, call_id: str, entries: Sequence[Entry]) -> None:
        await self._run(lambda c: sql_calls.tell(c, call_id, entries))

    async def unconfirmed(self, since: datetime, lease_seconds: float, limit: int) -> list[CallRecord]:
        return await self._run(lambda c: sql_holds.unconfirmed(c, since, lease_seconds, limit, _now(c)))

    async def get(self, call_id: str) -> CallRecord | None:
        return await self._run(lambda c: sql_calls.get(c, call_id))

    async def find(self, sid: str) -> CallRecord | None:
        return await self._run(lambda c: sql_calls.find(c, sid))

    async def under_key(self, key: str) -> CallRecord | None:
        return await self._run(lambda c: sql_calls.under_key(c, key))

    async def recent(self, limit: int) -> list[CallRecord]:
        return await self._run(lambda c: sql_calls.recent(c, limit))

    async def dials_since(self, at: datetime) -> int:
        return await self._run(lambda c: sql_calls.dials_since(c, at))

    # ---- who owns a call ----------------------------------------------------------------------------------

    async def claim(self, call_id: str, node: str, lease_seconds: float) -> int | None:
        return await self._run(lambda c: sql_holds.claim(c, call_id, node, lease_seconds, _now(c)))

    async def renew(self, node: str, call_ids: Collection[str], lease_seconds: float) -> dict[str, int]:
        return await self._run(lambda c: sql_holds.renew(c, node, call_ids, lease_seconds, _now(c)))

    async def lost(self, node: str, call_ids: Collection[str]) -> set[str]:
        return await self._run(lambda c: sql_holds.lost(c, node, call_ids))

    async def take_over(self, call_id: str, attempt: int, node: str, lease_seconds: float) -> int | None:
        return await self._run(
            lambda c: sql_holds.take_over(c, call_id, attempt, node, lease_seconds, _now(c))
        )

    async def take_stream(
        self, call_id: str, attempt: int, sid: str, node: str, lease_seconds: float
    ) -> int | None:
        return await self._run(
            lambda c: sql_holds.take_stream(c, call_id, attempt, sid, node, lease_seconds, _now(c))
        )

    async def orphans(self, node: str, lease_seconds: float, limit: int) -> list[CallRecord]:
        return await self._run(lambda c: sql_holds.orphans(c, node, lease_seconds, limit, _now(c)))

    async def unread(self, node: str) -> set[int]:
        return await self._run(lambda c: sql_holds.unread(c, node))

    async def bereaved(
        self, unread: Collection[int], node: str, lease_seconds: float, limit: int
    ) -> list[CallRecord]:
        return await self._run(lambda c: sql_holds.bereaved(c, unread, node, lease_seconds, limit, _now(c)))

    async def wish(self, call_id: str, kind: WishKind, fields: dict[str, Any] | None = None) -> bool:
        return await self._run(lambda c: sql_holds.wish(c, call_id, kind, fields or {}))

    async def wishes(self, node: str) -> list[Wish]:
        return await self._run(lambda c: sql_holds.told_wishes(c, node))

    async def spend(self, nonce: str) -> bool:
        return await self._run(lambda c: sql_holds.spend(c, nonce, _now(c)))

    # ---- numbers ------------------------------------------------------------------------------------------

    async def facts(self, number: str, now: datetime, besides: str = "") -> Facts:
        subject = self._subject(number)
        return await self._run(lambda c: sql_subjects.facts(c, number, subject, now, besides))

    async def permit(self, request: DialRequest, judge: Judge) -> Permit | Refused:
        subject = self._subject(request.to)
        return await self._run(
            lambda c: sql_subjects.permit(c, request, subject, judge, partial(_now, c)), durable=True
        )

    async def verdicts(self, call_id: str) -> list[dict[str, Any]]:
        return await self._run(lambda c: sql_subjects.verdicts(c, call_id))

    async def suppress(self, entries: Sequence[ListEntry]) -> None:
        named = [replace(e, subject=self._subject(e.number)) if e.number else e for e in entries]
        await self._run(lambda c: sql_subjects.suppress(c, named), durable=True)

    async def listings(self, number: str) -> list[ListEntry]:
        subject = self._subject(number)
        return await self._run(lambda c: sql_subjects.listings(c, subject))

    async def suppressions(self, after: int, limit: int) -> list[ListEntry]:
        return await self._run(lambda c: sql_subjects.list_page(c, after, limit))

    async def renew_list(self, name: str, as_of: datetime) -> None:
        await self._run(lambda c: sql_subjects.renew_list(c, name, as_of))

    async def consent(self, number: str, consent: Consent) -> None:
        subject = self._subject(number)
        await self._run(lambda c: sql_subjects.consent(c, subject, consent), durable=True)

    async def revoke(self, number: str, revocation: Revocation) -> None:
        subject = self._subject(number)
        await self._run(lambda c: sql_subjects.revoke(c, subject, revocation), durable=True)

    # ---- proof and privacy --------------------------------------------------------------------------------

    async def sealed(self, call_id: str) -> list[SealedEntry]:
        return await self._run(lambda c: sql_calls.sealed(c, call_id))

    async def verify(self, call_id: str) -> Verification | None:
        return await self._run(lambda c: sql_calls.check(c, call_id))

    async def export_subject(self, number: str) -> dict[str, Any]:
        subject = self._subject(number)
        return await self._run(lambda c: sql_subjects.export_subject(c, number, subject))

    async def erase(self, number: str, who: str, at: datetime) -> Erasure:
        subject = self._subject(number)
        return await self._run(lambda c: sql_subjects.erase(c, subject, who, at), durable=True)

    async def erased(self, call_ids: Collection[str]) -> set[str]:
        return await self._run(lambda c: sql_subjects.erased(c, call_ids))

    async def purge(self, retention: Retention, now: datetime) -> Purge:
        return await self._run(lambda c: sql_subjects.purge(c, retention, now))


@asynccontextmanager
async def open_store(
    database_url: str, key: bytes, on_operation: OnOperation = lambda _seconds, _is_done: None
) -> AsyncGenerator[SqlStore]:
    """The ledger at this URL, its tables brought up to date. Numbers are hashed under `key`.

    Raises StoreError when the database cannot be reached, is newer than this program, or is an SQLite file
    that another process has open.
    """
    url = _read_url(database_url)
    with _sole_process(url):
        engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)
        try:
            with trio.move_on_after(OPENING_SECONDS) as opening:
                await trio.to_thread.run_sync(_migrate, engine, abandon_on_cancel=True)
            if opening.cancelled_caught:
                raise StoreError(f"the database was not ready within {OPENING_SECONDS:g} s")
            yield SqlStore(engine, key, on_operation)
        finally:
            engine.dispose()


def _read_url(database_url: str) -> sa.URL:
    try:
        url = sa.make_url(database_url)
    except sa.exc.ArgumentError:
        raise StoreError("is no database URL: sqlite:///relay.db, for example") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError("must begin with sqlite:/// or postgresql+psycopg://")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError("names no file: sqlite:///relay.db, for example")
    return url


@contextmanager
def _sole_process(url: sa.URL) -> Generator[None]:
    """Two processes on one SQLite file would each believe that the calls of the other are lost."""
    if url.get_backend_name() != "sqlite":
        yield
        return
    path = Path(url.database or "").resolve()
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        remedy = "its folder must be there, and writable"
        raise StoreError(f"{path} cannot be opened ({problem.strerror}): {remedy}") from problem
    try:
        _lock(descriptor, path.name)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        remedy = "stop it, or give all of them a PostgreSQL in RELAY_DATABASE_URL"
        raise StoreError(f"{name} is open in another process: {remedy}") from None


def _sqlite(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, connect_args={"check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: we say BEGIN, below
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=1000"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        # NORMAL may lose the newest commits with the machine's power, never with the process alone.
        level = "FULL" if connection.get_execution_options().get("durable") else "NORMAL"
        connection.exec_driver_sql(f"PRAGMA synchronous={level}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: sa.URL) -> sa.Engine:
    milliseconds = int(OPERATION_SECONDS * 1000)
    return sa.create_engine(
        url,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_pre_ping=True,  # after a restart of the server the first operation need not fail
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": milliseconds,
            "options": f"-c statement_timeout={milliseconds} -c timezone=UTC",
        },
    )


def _migrate(engine: sa.Engine) -> None:
    remedy = ". See that it is up, and that this user may write to it"
    with _translated(remedy), engine.begin() as connection:
        upgrade(connection)


def _transact(engine: sa.Engine, work: Work[T], given_up: threading.Event, *, durable: bool) -> T:
    """In a thread: one transaction, tried again where it lost a race."""
    with _translated():
        for tries_left in reversed(range(TRIES)):
            try:
                with engine.connect().execution_options(durable=durable) as connection, connection.begin():
                    outcome = work(connection)
                    if given_up.is_set():
                        raise StoreError("nobody waits for this any more")
                    return outcome
            except sa.exc.DBAPIError as problem:
                if not tries_left or getattr(problem.orig, "sqlstate", None) not in _RACES:
                    raise
        raise AssertionError


@contextmanager
def _translated(remedy: str = "") -> Generator[None]:
    try:
        yield
    except sa.exc.OperationalError as problem:  # of the way to the database: no row is quoted
        raise StoreError(str(problem.orig).partition("\n")[0] + remedy) from None
    except (
        sa.exc.SQLAlchemyError
    ) as problem:  # its text holds the parameters, which may be a number or speech
        kind = getattr(problem, "orig", None) or problem
        refused = isinstance(problem, sa.exc.DataError | sa.exc.IntegrityError | sa.exc.ProgrammingError)
        raise (StoreRefused if refused else StoreError)(f"{type(kind).__name__} of the database") from None


def _now(connection: sa.Connection) -> datetime:
    """The clock of leases: that of the server which all nodes share, or of the only process there is."""
    if connection.dialect.name == "postgresql":
        now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)
    return datetime.now(UTC)
