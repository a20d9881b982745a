"""Records in memory: gone with the process.

Knows nothing of calls beyond their records.
"""

from __future__ import annotations

import itertools
from datetime import datetime

import trio

from relay.store.records import CallRecord, StoreError

KEPT_CALLS = 10_000  # the oldest ended ones are forgotten past that; some 30 kB a call with its timeline


class MemoryStore:
    """Keeps the records themselves, not copies: a live call is seen as it is."""

    def __init__(self, kept: int = KEPT_CALLS) -> None:
        self._kept = kept
        self._records: dict[str, CallRecord] = {}
        self._keys: dict[str, str] = {}

    async def add(self, record: CallRecord) -> CallRecord:
        """Keep a new call, or answer with the one under its idempotency key. Raises StoreError for a known id."""
        await trio.lowlevel.checkpoint()
        if record.id in self._records:
            raise StoreError(f"there is a call {record.id} already")
        key = record.idempotency_key
        if key is not None and key in self._keys:
            return self._records[self._keys[key]]
        self._forget()
        self._records[record.id] = record
        if key is not None:
            self._keys[key] = record.id
        return record

    def _forget(self) -> None:
        excess = len(self._records) - self._kept + 1
        ended = (record for record in self._records.values() if record.ending is not None)
        for record in list(itertools.islice(ended, max(excess, 0))):
            del self._records[record.id]
            if record.idempotency_key is not None:
                self._keys.pop(record.idempotency_key, None)

    async def save(self, record: CallRecord) -> None:
        """Keep the final record."""
        await trio.lowlevel.checkpoint()
        self._records[record.id] = record

    async def confirm(self, call_id: str, at: datetime) -> None:
        """Write when the carrier confirmed the end."""
        await trio.lowlevel.checkpoint()
        record = self._records.get(call_id)
        if record is not None and record.carrier_confirmed_at is None:
            record.carrier_confirmed_at = at

    async def get(self, call_id: str) -> CallRecord | None:
        """One call."""
        await trio.lowlevel.checkpoint()
        return self._records.get(call_id)

    async def recent(self, limit: int) -> list[CallRecord]:
        """The newest calls, newest first."""
        await trio.lowlevel.checkpoint()
        return list(itertools.islice(reversed(self._records.values()), limit))
