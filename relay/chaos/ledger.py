"""The ledger of a simulation: the one in memory, which can be out of reach and counts final records.

Knows trio's clock; what a ledger does it leaves to the other one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

import trio

from relay.compliance import DialRequest, Facts, Permit, Refused
from relay.store import CallRecord, ListEntry, MemoryStore, StoreError, Wish, WishKind, Written
from relay.store.ledger import Judge
from relay.store.records import Progress

ANSWER_SECONDS = 0.002


class FarLedger(MemoryStore):
    """Answers after a moment, as a database does; not at all while it is down."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(clock=clock)
        self.down_until = -math.inf
        self.finals: Counter[str] = Counter()  # final records that were kept, by call

    async def _reach(self) -> None:
        await trio.sleep(ANSWER_SECONDS)
        if trio.current_time() < self.down_until:
            raise StoreError("the ledger is down")

    async def add(self, record: CallRecord) -> CallRecord:
        await self._reach()
        return await super().add(record)

    async def write(self, progress: Progress) -> Written:
        await self._reach()
        written = await super().write(progress)
        if progress.ending is not None and written is Written.KEPT:
            self.finals[progress.call_id] += 1
        return written

    async def get(self, call_id: str) -> CallRecord | None:
        await self._reach()
        return await super().get(call_id)

    async def confirm(self, call_id: str, at: datetime) -> None:
        await self._reach()
        await super().confirm(call_id, at)

    async def learn_sid(self, call_id: str, sid: str) -> bool:
        await self._reach()
        return await super().learn_sid(call_id, sid)

    async def claim(self, call_id: str, node: str, lease_seconds: float) -> int | None:
        await self._reach()
        return await super().claim(call_id, node, lease_seconds)

    async def renew(self, node: str, call_ids: Collection[str], lease_seconds: float) -> dict[str, int]:
        await self._reach()
        return await super().renew(node, call_ids, lease_seconds)

    async def take_over(self, call_id: str, attempt: int, node: str, lease_seconds: float) -> int | None:
        await self._reach()
        return await super().take_over(call_id, attempt, node, lease_seconds)

    async def orphans(self, node: str, lease_seconds: float, limit: int) -> list[CallRecord]:
        await self._reach()
        return await super().orphans(node, lease_seconds, limit)

    async def unread(self, node: str) -> set[int]:
        await self._reach()
        return await super().unread(node)

    async def bereaved(
        self, unread: Collection[int], node: str, lease_seconds: float, limit: int
    ) -> list[CallRecord]:
        await self._reach()
        return await super().bereaved(unread, node, lease_seconds, limit)

    async def wish(self, call_id: str, kind: WishKind, fields: dict[str, Any] | None = None) -> bool:
        await self._reach()
        return await super().wish(call_id, kind, fields)

    async def wishes(self, node: str) -> list[Wish]:
        await self._reach()
        return await super().wishes(node)

    async def facts(self, number: str, now: datetime, besides: str = "") -> Facts:
        await self._reach()
        return await super().facts(number, now, besides)

    async def permit(self, request: DialRequest, judge: Judge) -> Permit | Refused:
        await self._reach()
        return await super().permit(request, judge)

    async def suppress(self, entries: Sequence[ListEntry]) -> None:
        await self._reach()
        await super().suppress(entries)
