"""A ledger behind the operator's routes, and a client with the token.

Knows no switchboard: what is asked here needs no call to be live.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from quart import Blueprint
from quart.typing import TestClientProtocol

from relay.store import MemoryStore, Store
from relay.store.sql import open_store
from relay.web.app import create_app
from relay.web.bearer import token_digest

TOKEN = "of-the-tests"
KNOWN = token_digest(TOKEN)  # what the service is told of it
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NOW = datetime(2026, 3, 2, 17, 30, tzinfo=UTC)
NUMBER = "+12025550143"
OTHER = "+12025550199"

ApiClient: TypeAlias = TestClientProtocol

LEDGERS = ["memory", "sqlite"]


@asynccontextmanager
async def open_ledger(kind: str, folder: Path) -> AsyncIterator[Store]:
    """An empty ledger of one kind."""
    if kind == "memory":
        yield MemoryStore()
    else:
        async with open_store(f"sqlite:///{folder / 'relay.db'}", b"of the tests") as store:
            yield store


def client_of(*blueprints: Blueprint) -> ApiClient:
    """A client of an application with these routes alone, and production's limits and errors."""
    return create_app(*blueprints).test_client()
