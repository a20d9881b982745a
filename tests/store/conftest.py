"""The three ledgers that keep one contract, and what the tests say to them.

Must not know how any of them keeps it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TypeAlias

import pytest

from relay.store import CallRecord, MemoryStore, Store
from relay.store.sql import open_store
from tests.postgres import fresh_database, postgres_control, postgres_server, postgres_url

__all__ = ["postgres_control", "postgres_server", "postgres_url"]

KEY = b"of the tests"
NOW = datetime(2026, 3, 2, 17, 30, tzinfo=UTC)
NUMBER = "+12025550143"

OpenStore: TypeAlias = Callable[[], AbstractAsyncContextManager[Store]]

LEDGERS = ["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgres)]


@pytest.fixture(params=LEDGERS)
def open_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens an empty ledger of each kind."""
    if request.param == "memory":
        return open_memory
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite:///{tmp_path / 'relay.db'}", KEY)
    url = fresh_database(request.getfixturevalue("postgres_server"))
    return lambda: open_store(url, KEY)


@asynccontextmanager
async def open_memory() -> AsyncIterator[Store]:
    yield MemoryStore()


@pytest.fixture
async def store(open_ledger: OpenStore) -> AsyncIterator[Store]:
    """An empty ledger."""
    async with open_ledger() as store:
        yield store


def _ids() -> Iterator[str]:
    return (f"call_{number:024x}" for number in count(1))


_fresh = _ids()


def a_call(**fields: object) -> CallRecord:
    """A call that nobody placed yet."""
    wanted = {
        "id": next(_fresh),
        "to": NUMBER,
        "agent": "default",
        "started_at": NOW,
        "time_limit_seconds": 600,
    }
    return CallRecord(**{**wanted, **fields})  # type: ignore[arg-type]
