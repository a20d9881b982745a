"""One call as the ledger in memory keeps it.

Knows no other call and no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.store.chain import SealedEntry
from relay.store.diary import heard_at, seal, seal_fresh, unseal
from relay.store.ledger import PAST_LIMIT_SECONDS
from relay.store.records import ENTRIES_OF_A_CALL, CallRecord, Entry, Kind, Progress, Status

_DAWN = datetime.min.replace(tzinfo=UTC)  # before every lease


@dataclass(slots=True, eq=False)
class KeptCall:
    """A call as the ledger knows it: a copy of the record as it was last written, and the sealed diary."""

    record: CallRecord
    diary: list[SealedEntry] = field(default_factory=list)
    lease_until: datetime = _DAWN
    overdue_at: datetime | None = None
    conversed_at: datetime | None = None
    transcript_purged: bool = False
    erased: bool = False

    @property
    def is_alive(self) -> bool:
        return self.record.status is not Status.ENDED

    @property
    def head(self) -> str:
        return self.diary[-1].link if self.diary else self.record.id

    def seize(self, node: str, until: datetime) -> int:
        self.record.owner, self.lease_until = node, until
        self.record.fence += 1
        return self.record.fence

    def hold(self, node: str, until: datetime) -> int:
        if self.record.owner != node:
            return self.seize(node, until)
        self.lease_until = until
        return self.record.fence

    def given_to(self, node: str, until: datetime) -> CallRecord:
        self.seize(node, until)
        return self.copy()

    def is_bereaved(self, node: str) -> bool:
        """Whether another node has it, and the carrier says that it is over."""
        return self.record.owner not in (None, node) and self.record.carrier_confirmed_at is not None

    def take(self, progress: Progress) -> None:
        record = self.record
        self.diary += seal_fresh(progress, len(self.diary), self.head, record.started_at)
        self.conversed_at = heard_at(progress.entries) or self.conversed_at
        record.answered_at = min(filter(None, (record.answered_at, progress.answered_at)), default=None)
        for name, value in progress.details.items():
            setattr(record, name, value)
        if progress.answered_at is not None and self.overdue_at is None:
            limit = timedelta(seconds=record.time_limit_seconds + PAST_LIMIT_SECONDS)
            self.overdue_at = progress.answered_at + limit
        record.raise_status(progress.status)

    def copy(self) -> CallRecord:
        return replace(self.record, entries=unseal(self.diary), kept=len(self.diary))

    def add_late(self, entries: Sequence[Entry]) -> None:
        if not self.erased and len(self.diary) + len(entries) <= ENTRIES_OF_A_CALL:
            self.diary += seal(entries, len(self.diary), self.head)

    def blank(self, kinds: Collection[Kind] = tuple(Kind)) -> None:
        self.diary = [replace(e, body=None, salt=None) if e.kind in kinds else e for e in self.diary]

    def empty(self) -> None:
        self.blank()
        self.erased = True
        nothing: dict[str, Any] = {"counts": {}, "notices": [], "variables": {}, "to": ""}
        nothing |= {"from_": "", "seller": "", "state": None, "zone": None}
        nothing |= {"idempotency_key": None, "request_digest": None}
        ending = self.record.ending and replace(self.record.ending, detail="")
        self.record = replace(self.record, **nothing, stream_sid=None, session_id=None, ending=ending)
