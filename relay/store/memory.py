"""The ledger in memory: gone with the process, and the plainest statement of what a ledger does.

Knows no database and no thread; nothing in it waits, so that every method is one step.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import trio

from relay.compliance.case import (
    OWN_LIST,
    SPENDING,
    Consent,
    DialRequest,
    Facts,
    ListCopy,
    Purpose,
    Revocation,
)
from relay.compliance.gate import Permit, Refused
from relay.store.chain import SealedEntry, Verification, verify
from relay.store.diary import as_fields, from_fields
from relay.store.ledger import (
    LEASE_SECONDS,
    Erasure,
    Judge,
    ListEntry,
    Listing,
    Purge,
    Retention,
    Store,
    Wish,
    WishKind,
    Written,
    stream_nonce,
)
from relay.store.memory_books import MemoryBooks
from relay.store.memory_call import KeptCall
from relay.store.memory_permits import Permits
from relay.store.memory_wishes import Wishes
from relay.store.records import CallRecord, Entry, Kind, Progress, Status, StoreRefused
from relay.store.subjects import REMEMBERED, recordings_in, standing, subject_as_json

KEPT_CALLS = 10_000  # the oldest ended ones are forgotten past that; some 30 kB a call with its timeline


class MemoryStore(Store):
    """A ledger for one process: simulations, demonstrations and tests."""

    def __init__(
        self, kept: int = KEPT_CALLS, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.books = MemoryBooks()
        self._kept = kept
        self._clock = clock
        self._calls: dict[str, KeptCall] = {}  # in the order in which they were added
        self._keys: dict[str, str] = {}
        self._sids: dict[str, str] = {}
        self._wishes = Wishes()  # of live calls alone
        self._nonces: dict[str, datetime] = {}
        self._calls_to: defaultdict[str, list[KeptCall]] = defaultdict(list)  # by number, until it is erased
        self._permits = Permits()
        self._listed: list[ListEntry] = []
        self._copies: dict[str, datetime] = {}
        self._consents: list[tuple[str, Consent]] = []
        self._revocations: list[tuple[str, Revocation]] = []

    # ---- calls --------------------------------------------------------------------------------------------

    async def add(self, record: CallRecord) -> CallRecord:
        await trio.lowlevel.checkpoint()
        if record.id in self._calls:
            raise StoreRefused(f"there is a call {record.id} already")
        if record.idempotency_key is not None:
            if record.idempotency_key in self._keys:
                return self._calls[self._keys[record.idempotency_key]].copy()
            self._keys[record.idempotency_key] = record.id
        self._forget()
        kept = self._calls[record.id] = KeptCall(replace(record, sid=None, status=Status.QUEUED, attempt=0))
        if record.owner is not None:
            kept.lease_until = self._later(LEASE_SECONDS)
        self._calls_to[record.to].append(kept)
        progress = record.progress()
        self._advance(kept, progress)
        record.kept = len(progress.entries)
        return record

    def _forget(self) -> None:
        excess = len(self._calls) - self._kept + 1
        ended = (kept for kept in self._calls.values() if not kept.is_alive)
        for kept in list(itertools.islice(ended, max(excess, 0))):
            del self._calls[kept.record.id]
            self._sids.pop(kept.record.sid or "", None)
            self._detach(kept)

    def _detach(self, kept: KeptCall) -> None:
        self._keys.pop(kept.record.idempotency_key or "", None)
        others = [other for other in self._calls_to.pop(kept.record.to, []) if other is not kept]
        if others:
            self._calls_to[kept.record.to] = others

    async def write(self, progress: Progress) -> Written:
        await trio.lowlevel.checkpoint()
        kept = self._calls.get(progress.call_id)
        if kept is None:
            return Written.UNKNOWN
        if kept.record.fence != progress.fence:
            return Written.STALE
        if not kept.is_alive:
            return Written.SETTLED
        self._advance(kept, progress)
        return Written.KEPT

    def _advance(self, kept: KeptCall, progress: Progress) -> None:
        record = kept.record
        kept.take(progress)
        if progress.ending is not None:
            record.ending, record.ended_at, record.status = progress.ending, progress.ended_at, Status.ENDED
            for wish in self._wishes.take(lambda wish: wish.call_id == record.id):
                if wish.kind is WishKind.NOTED:
                    kept.add_late(from_fields(wish.fields["entries"]))
        if progress.sid is not None:
            self._learn(record, progress.sid)

    def _learn(self, record: CallRecord, sid: str) -> bool:
        if record.sid is None and sid not in self._sids:
            record.sid, self._sids[sid] = sid, record.id
        return record.sid == sid

    async def learn_sid(self, call_id: str, sid: str) -> bool:
        await trio.lowlevel.checkpoint()
        kept = self._calls.get(call_id)
        return kept is not None and self._learn(kept.record, sid)

    async def confirm(self, call_id: str, at: datetime) -> None:
        await trio.lowlevel.checkpoint()
        kept = self._calls.get(call_id)
        if kept is not None and kept.record.carrier_confirmed_at is None:
            kept.record.carrier_confirmed_at = at

    async def tell(self, call_id: str, entries: Sequence[Entry]) -> None:
        await trio.lowlevel.checkpoint()
        kept = self._calls.get(call_id)
        if kept is not None and kept.is_alive:
            self._wishes.leave(call_id, WishKind.NOTED, {"entries": as_fields(entries)})
        elif kept is not None:
            kept.add_late(entries)

    async def unconfirmed(self, since: datetime, lease_seconds: float, limit: int) -> list[CallRecord]:
        await trio.lowlevel.checkpoint()
        now, found = self._clock(), list[CallRecord]()
        for kept in self._calls.values():
            record = kept.record
            silent = not kept.is_alive and record.sid is not None and record.carrier_confirmed_at is None
            if silent and record.started_at > since and kept.lease_until <= now and len(found) < limit:
                kept.lease_until = self._later(lease_seconds)
                found.append(replace(record, kept=len(kept.diary)))
        return found

    async def get(self, call_id: str) -> CallRecord | None:
        await trio.lowlevel.checkpoint()
        kept = self._calls.get(call_id)
        return None if kept is None else kept.copy()

    async def find(self, sid: str) -> CallRecord | None:
        return await self.get(self._sids.get(sid, ""))

    async def under_key(self, key: str) -> CallRecord | None:
        return await self.get(self._keys.get(key, ""))

    async def recent(self, limit: int) -> list[CallRecord]:
        await trio.lowlevel.checkpoint()
        calls = sorted(self._calls.values(), key=lambda kept: (kept.record.started_at, kept.record.id))
        return [replace(kept.record, kept=len(kept.diary)) for kept in calls[::-1][:limit]]

    async def dials_since(self, at: datetime) -> int:
        await trio.lowlevel.checkpoint()
        return self._permits.count_since(at)

    # ---- who owns a call ----------------------------------------------------------------------------------

    def _later(self, seconds: float) -> datetime:
        return self._clock() + timedelta(seconds=seconds)

    def _alive(self) -> Iterator[KeptCall]:
        return (kept for kept in self._calls.values() if kept.is_alive)

    async def claim(self, call_id: str, node: str, lease_seconds: float) -> int | None:
        await trio.lowlevel.checkpoint()
        kept, until = self._calls.get(call_id), self._later(lease_seconds)
        if kept is None or not kept.is_alive:
            return None
        if kept.lease_until <= self._clock():
            return kept.seize(node, until)
        return kept.hold(node, until) if kept.record.owner == node else None

    async def renew(self, node: str, call_ids: Collection[str], lease_seconds: float) -> dict[str, int]:
        await trio.lowlevel.checkpoint()
        named = (self._calls[call_id] for call_id in call_ids if call_id in self._calls)
        mine = [kept for kept in named if kept.is_alive and kept.record.owner == node]
        for kept in mine:
            kept.lease_until = self._later(lease_seconds)
        return {kept.record.id: kept.record.fence for kept in mine}

    async def lost(self, node: str, call_ids: Collection[str]) -> set[str]:
        await trio.lowlevel.checkpoint()
        known = {call_id: self._calls[call_id].record for call_id in call_ids if call_id in self._calls}
        return {call_id for call_id, record in known.items() if record.owner not in (None, node)}

    async def take_over(self, call_id: str, attempt: int, node: str, lease_seconds: float) -> int | None:
        await trio.lowlevel.checkpoint()
        kept = self._calls.get(call_id)
        if kept is None or not kept.is_alive or kept.record.attempt >= attempt:
            return None
        kept.record.attempt = attempt
        return kept.seize(node, self._later(lease_seconds))

    async def take_stream(
        self, call_id: str, attempt: int, sid: str, node: str, lease_seconds: float
    ) -> int | None:
        await trio.lowlevel.checkpoint()
        kept, nonce = self._calls.get(call_id), stream_nonce(call_id, attempt)
        if kept is None or not kept.is_alive or kept.record.attempt != attempt:
            return None
        if not self._learn(kept.record, sid) or nonce in self._nonces:
            return None
        self._nonces[nonce] = self._clock()
        return kept.hold(node, self._later(lease_seconds))

    async def orphans(self, node: str, lease_seconds: float, limit: int) -> list[CallRecord]:
        await trio.lowlevel.checkpoint()
        now, until = self._clock(), self._later(lease_seconds)
        claimed: list[CallRecord] = []
        for kept in sorted(self._alive(), key=lambda kept: kept.record.started_at):
            overdue = kept.overdue_at is not None and kept.overdue_at <= now
            if len(claimed) < limit and (overdue or kept.lease_until <= now):
                kept.overdue_at = until if overdue else kept.overdue_at
                claimed.append(kept.given_to(node, until))
        return claimed

    async def unread(self, node: str) -> set[int]:
        await trio.lowlevel.checkpoint()
        told = ((n, wish) for n, wish in self._wishes.left.items() if wish.kind is WishKind.CALLBACK)
        return {n for n, wish in told if self._calls[wish.call_id].is_bereaved(node)}

    async def bereaved(
        self, unread: Collection[int], node: str, lease_seconds: float, limit: int
    ) -> list[CallRecord]:
        still = await MemoryStore.unread(self, node) & set(unread)
        due, until = sorted({self._wishes.left[n].call_id for n in still})[:limit], self._later(lease_seconds)
        self._wishes.take(lambda wish: wish.call_id in due and wish.kind is WishKind.CALLBACK)
        return [self._calls[call_id].given_to(node, until) for call_id in due]

    async def wish(self, call_id: str, kind: WishKind, fields: dict[str, Any] | None = None) -> bool:
        await trio.lowlevel.checkpoint()
        kept = self._calls.get(call_id)
        if kept is None or not kept.is_alive:
            return False
        self._wishes.leave(call_id, kind, fields)
        return True

    def _stop(self, numbers: Collection[str | None], taken: Revocation) -> None:
        live = (kept.record for kept in self._alive() if kept.record.to in numbers)
        for record in (r for r in live if taken.concerns(Purpose(r.purpose), r.seller)):
            self._wishes.leave(record.id, WishKind.STOP)

    async def wishes(self, node: str) -> list[Wish]:
        await trio.lowlevel.checkpoint()
        return self._wishes.take(lambda wish: self._calls[wish.call_id].record.owner == node)

    async def spend(self, nonce: str) -> bool:
        await trio.lowlevel.checkpoint()
        return self._nonces.setdefault(nonce, now := self._clock()) is now

    # ---- numbers ------------------------------------------------------------------------------------------

    async def facts(self, number: str, now: datetime, besides: str = "") -> Facts:
        await trio.lowlevel.checkpoint()
        return self._facts(number, now, besides)

    def _facts(self, number: str, now: datetime, besides: str) -> Facts:
        since = now - REMEMBERED
        conversations = (k.conversed_at for k in self._calls_to.get(number, ()) if k.record.id != besides)
        return Facts(
            number=number,
            suppressions=standing(e for e in self._listed if number in (e.number, e.subject)),
            consents=tuple(consent for whose, consent in self._consents if whose == number),
            revocations=tuple(revocation for whose, revocation in self._revocations if whose == number),
            lists=tuple(ListCopy(name, as_of) for name, as_of in self._copies.items()),
            attempts=tuple(sorted(at for at in self._permits.attempts(number, besides) if at > since)),
            conversations=tuple(sorted(at for at in conversations if at is not None and at > since)),
            dials=self._permits.count_since(now - SPENDING),
        )

    async def permit(self, request: DialRequest, judge: Judge) -> Permit | Refused:
        await trio.lowlevel.checkpoint()
        answer = judge(self._facts(request.to, self._clock(), request.call_id))
        self._permits.keep(request, answer)
        return answer

    async def verdicts(self, call_id: str) -> list[dict[str, Any]]:
        await trio.lowlevel.checkpoint()
        return self._permits.verdicts(call_id)

    async def suppress(self, entries: Sequence[ListEntry]) -> None:
        await trio.lowlevel.checkpoint()
        for position, entry in enumerate(entries, len(self._listed) + 1):
            # No database to protect: the number stands for its own hash.
            self._listed.append(replace(entry, subject=entry.number or entry.subject, position=position))
        added = {e.number for e in entries if e.listing is Listing.ADDED and e.list == OWN_LIST}
        self._stop(added, Revocation(self._clock()))

    async def listings(self, number: str) -> list[ListEntry]:
        await trio.lowlevel.checkpoint()
        return [entry for entry in self._listed if entry.subject == number]

    async def suppressions(self, after: int, limit: int) -> list[ListEntry]:
        await trio.lowlevel.checkpoint()
        return self._listed[after : after + limit]

    async def renew_list(self, name: str, as_of: datetime) -> None:
        await trio.lowlevel.checkpoint()
        self._copies[name] = as_of

    async def consent(self, number: str, consent: Consent) -> None:
        await trio.lowlevel.checkpoint()
        self._consents.append((number, consent))

    async def revoke(self, number: str, revocation: Revocation) -> None:
        await trio.lowlevel.checkpoint()
        self._revocations.append((number, revocation))
        self._stop({number}, revocation)

    # ---- proof and privacy --------------------------------------------------------------------------------

    async def sealed(self, call_id: str) -> list[SealedEntry]:
        await trio.lowlevel.checkpoint()
        kept = self._calls.get(call_id)
        return [] if kept is None else list(kept.diary)

    async def verify(self, call_id: str) -> Verification | None:
        await trio.lowlevel.checkpoint()
        kept = self._calls.get(call_id)
        return None if kept is None else verify(call_id, kept.diary, len(kept.diary), kept.head)

    async def export_subject(self, number: str) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        of_calls = [kept.copy().as_json() for kept in self._calls_to.get(number, [])]
        facts = self._facts(number, self._clock(), "")
        verdicts, listed = self._permits.verdicts_on(number), await self.listings(number)
        consented = (facts.consents or (), facts.revocations or ())
        return subject_as_json(number, of_calls, verdicts, listed, *consented) | self.books.about(number)

    async def erase(self, number: str, who: str, at: datetime) -> Erasure:
        await trio.lowlevel.checkpoint()
        of_number = self._calls_to.get(number, [])
        ended = [kept for kept in of_number if not kept.is_alive]
        deferred = tuple(kept.record.id for kept in of_number if kept.is_alive)
        recordings = recordings_in(event for kept in ended for event in kept.copy().events)
        for kept in ended:
            self._detach(kept)
            kept.empty()
        self._permits.detach(number, besides=deferred)
        self.books.forget(number)
        if not deferred:
            self._listed = [replace(e, number=None) if e.number == number else e for e in self._listed]
            await self.suppress([ListEntry(None, Listing.ADDED, "erasure", who, at, subject=number)])
        return Erasure(tuple(kept.record.id for kept in ended), deferred, recordings)

    async def erased(self, call_ids: Collection[str]) -> set[str]:
        await trio.lowlevel.checkpoint()
        return {call_id for call_id in call_ids if call_id in self._calls and self._calls[call_id].erased}

    async def purge(self, retention: Retention, now: datetime) -> Purge:
        await trio.lowlevel.checkpoint()

        def past(seconds: float) -> list[KeptCall]:
            ends = ((kept, kept.record.ended_at) for kept in self._calls.values() if not kept.is_alive)
            return [kept for kept, end in ends if end and end <= now - timedelta(seconds=seconds)]

        spoken = [kept for kept in past(retention.transcript_seconds) if not kept.transcript_purged]
        for kept in spoken:
            kept.blank({Kind.LINE, Kind.TOOL})
            kept.transcript_purged = True
        whole = [kept for kept in past(retention.evidence_seconds) if not kept.erased]
        for kept in whole:
            self._detach(kept)
            kept.empty()
        self.books.forget_calls({kept.record.id for kept in whole})
        old = now - timedelta(seconds=retention.nonce_seconds)
        unspent = {nonce: at for nonce, at in self._nonces.items() if at > old}
        spent, self._nonces = len(self._nonces) - len(unspent), unspent
        return Purge(len(spoken), len(whole), spent)
