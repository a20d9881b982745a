"""What the operator's routes stand upon: a ledger of either kind that needs no server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.store import MemoryStore, Store
from relay.store.sql import open_store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty ledger."""
    if request.param == "memory":
        yield MemoryStore()
    else:
        async with open_store(f"sqlite:///{tmp_path / 'relay.db'}", b"of the tests") as store:
            yield store
