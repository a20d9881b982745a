"""Keeps the ledger, the carrier and the live calls of this node in agreement.

Knows no HTTP and no session; looks only at calls of our ledger: what else the carrier has is not ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

import structlog
import trio

from relay import doubt
from relay.carrier import AlreadyEnded, Carrier, CarrierCall, HungUp
from relay.compliance import Outcome
from relay.costs import Prices
from relay.line import UNCONNECTED, Line
from relay.meter import Meter
from relay.outcomes import Blame, Ending, Reason
from relay.parting import being_transferred
from relay.recordings import Recordings
from relay.store import (
    LEASE_SECONDS,
    PAST_LIMIT_SECONDS,
    CallRecord,
    Retention,
    Spool,
    Status,
    Store,
    StoreError,
    Wish,
    Written,
)
from relay.switchboard import Switchboard
from relay.telemetry.traces import Traces
from relay.usage import charge

WISH_SECONDS = 0.5  # between two looks at what other nodes wish of our calls
SAVE_SECONDS = 1.0  # between two writings of what live calls have said
RENEW_SECONDS = LEASE_SECONDS / 3  # two renewals may fail before a lease runs out
RECONCILE_SECONDS = 30.0
BEREAVED_SECONDS = 1.0  # between two looks for calls that ended as their node died; they wait for no lease
# So many in a row find the carrier's word unread where the owner, who looks twice as often, is no more. Looks
# are counted, for time says nothing of it: a clock may be wrong, and the ledger may have stood still.
BEREAVED_LOOKS = 4
PURGE_SECONDS = 3600.0  # the periods are days
ENDS_AT_ONCE = 20  # looked after in one round: a question and perhaps a hang-up each
UNCONFIRMED = timedelta(hours=4)  # Twilio ends a call by itself then, whatever became of our hang-ups
ASKED_AT_ONCE = 500  # calls in one question to the ledger
ORPHANS_AT_ONCE = 20  # claimed in one transaction; other nodes claim the next ones meanwhile

log = structlog.get_logger(subsystem="calls")


class Reconciler:
    """The tasks that look after a node's calls from outside."""

    def __init__(
        self,
        node: str,
        switchboard: Switchboard,
        store: Store,
        spool: Spool,
        carrier: Carrier,
        clock: Callable[[], datetime],
        retention: Retention,
        meter: Meter,
        traces: Traces,
        recordings: Recordings,
        prices: Prices,
    ) -> None:
        self._node = node
        self._switchboard = switchboard
        self._store = store
        self._spool = spool
        self._carrier = carrier
        self._clock = clock
        self._retention = retention
        self._meter = meter
        self._traces = traces
        self._recordings = recordings
        self._prices = prices
        self._leases_count_from = 0.0  # on trio's clock
        # Told by the ledger and not yet done; as many as the callbacks and requests of half a second.
        self._wishes: deque[Wish] = deque()
        self._unmet: deque[Wish] = deque()  # of them: what is for another node by now
        self._unread: dict[int, int] = {}  # wishes that others have not read, and in how many looks

    async def run(self) -> None:
        """Until cancelled; a ledger that is down is tried again, and calls go on meanwhile."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._every, WISH_SECONDS, self.grant_wishes, name="wishes")
            nursery.start_soon(self._every, SAVE_SECONDS, self.save_live, name="live diaries")
            nursery.start_soon(self._every, RENEW_SECONDS, self.renew, name="leases")
            nursery.start_soon(self._every, RECONCILE_SECONDS, self.reconcile, name="orphans")
            nursery.start_soon(self._every, BEREAVED_SECONDS, self.settle_bereaved, name="bereaved")
            nursery.start_soon(self._every, RECONCILE_SECONDS, self.confirm_ends, name="ends")
            nursery.start_soon(self._every, PURGE_SECONDS, self.purge, name="retention")

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await trio.sleep(seconds)
            await self._guarded(work.__name__, work)

    async def _guarded(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        """One of the five borders: a bug in a round, or with one orphan, stops nothing but that."""
        try:
            await work()
        except StoreError as problem:
            log.warning("ledger not in reach", task=task, detail=str(problem))
            self._spool.doubt(problem)
            self._let_others_renew()
        except Exception:
            log.exception("round failed", task=task)

    async def grant_wishes(self) -> None:
        """Give up what is another node's by now; do what others, or the operator, wish of the rest."""
        lines = {line.record.id: line for line in self._held()}
        if lines:
            for call_id in await self._store.lost(self._node, lines):
                self._lost(lines[call_id])
        if self._switchboard.lines:
            self._wishes += await self._store.wishes(self._node)  # told once: lost here, they are lost
        while self._wishes:
            wish = self._wishes.popleft()  # before it is granted: what a bug meets it does not meet for ever
            if not self._switchboard.grant(wish):
                self._unmet.append(wish)
        while self._unmet:  # those calls have left while the ledger answered
            wish = self._unmet[0]
            await self._store.wish(wish.call_id, wish.kind, wish.fields)
            self._unmet.popleft()

    def _held(self) -> list[Line]:
        """Our calls as far as the ledger knows of them; one that has ended needs to be held no longer."""
        return [
            line
            for line in self._switchboard.lines
            if line.record.kept and not line.yielded and line.record.status is not Status.ENDED
        ]

    async def save_live(self) -> None:
        """Write what live calls have said since: a crash loses a second of it."""
        for line in self._switchboard.lines:
            record = line.record
            is_news = record.status is not Status.ENDED and record.kept < len(record.entries)
            if is_news and not line.yielded and await self._spool.save(record) is Written.STALE:
                self._lost(line)

    async def renew(self) -> None:
        """Hold our calls; what another node has taken is given up without a word to the carrier."""
        lines = self._held()
        if not lines:
            return
        fences = await self._store.renew(self._node, [line.record.id for line in lines], LEASE_SECONDS)
        for line in lines:
            if line.record.status is not Status.ENDED and fences.get(line.record.id) != line.record.fence:
                self._lost(line)

    def _lost(self, line: Line) -> None:
        log.info("call lost to another node", call_id=line.record.id)
        line.give_way()
        if line.stream is not None:  # else it only lives where its stream has begun
            self._meter.found("lost")

    async def reconcile(self) -> None:
        """End the calls that nobody holds any more, and hang up what the carrier still has of them.

        After an outage of the ledger all nodes have the time to renew, and we to write what was spooled.
        """
        if self._spool.problem is not None:
            self._let_others_renew()
        await self._settle_all(self._store.orphans)

    async def settle_bereaved(self) -> None:
        """End the calls that ended at the carrier just when their node died: nobody asks for a document of
        theirs any more, and their leases may last for half a minute.
        """
        unread = await self._store.unread(self._node)
        self._unread = {wish: self._unread.get(wish, 0) + 1 for wish in unread}
        missed = [wish for wish, looks in self._unread.items() if looks >= BEREAVED_LOOKS]
        if missed:
            await self._settle_all(partial(self._store.bereaved, missed))

    async def _settle_all(self, claim: Callable[[str, float, int], Awaitable[list[CallRecord]]]) -> None:
        orphans: list[CallRecord] | None = None
        if trio.current_time() < self._leases_count_from:
            return
        while orphans is None or len(orphans) == ORPHANS_AT_ONCE:
            orphans = await claim(self._node, LEASE_SECONDS, ORPHANS_AT_ONCE)
            async with trio.open_nursery() as nursery:  # a slow carrier must not let their leases lapse
                for record in orphans:
                    if line := self._switchboard.line(record.id):
                        self._recover(line, record)
                    else:
                        settle = partial(self._settle, record)
                        nursery.start_soon(self._guarded, record.id, settle, name=record.id)

    def _recover(self, line: Line, record: CallRecord) -> None:
        """Ours all along: it was not renewed in time, or is past its limit though it has a watchdog."""
        line.record.fence = record.fence
        self._meter.found("overdue")
        limit = timedelta(seconds=record.time_limit_seconds + PAST_LIMIT_SECONDS)
        if record.answered_at is not None and record.answered_at + limit <= self._clock():
            line.end(Ending(Blame.US, Reason.TIME_LIMIT, "past its limit, and still up"))

    async def confirm_ends(self) -> None:
        """Look after calls that have ended while the carrier has not said so, and hang up what is still up.

        A hang-up may have failed, and a callback may be lost. The lease that a call had at its end passes
        first, which is longer than a farewell takes.
        """
        since = self._clock() - UNCONFIRMED
        for record in await self._store.unconfirmed(since, LEASE_SECONDS, ENDS_AT_ONCE):
            if record.sid is not None:
                await self._guarded(record.id, partial(self._see_to_end, record.id, record.sid))

    async def _see_to_end(self, call_id: str, sid: str) -> None:
        if await self._is_over(sid):
            await self._spool.confirm(call_id, self._clock())

    async def _is_over(self, sid: str) -> bool:
        found = await self._carrier.status_of(sid)
        if found is None or (isinstance(found, CarrierCall) and found.status.is_terminal):
            return True
        return isinstance(await self._carrier.hang_up(sid), AlreadyEnded)

    async def purge(self) -> None:
        """Forget what is past its period, some calls at a time: what live calls write goes in between."""
        while True:
            gone = await self._store.purge(self._retention, self._clock())
            if not gone.transcripts and not gone.evidence:
                break
            log.info("records purged", transcripts=gone.transcripts, evidence=gone.evidence)
        removed = await self._recordings.purge(self._retention.audio_seconds) + await self.erase_recordings()
        if removed:
            log.info("recordings removed", files=removed)

    async def erase_recordings(self) -> int:
        """Remove this node's recordings of people who were erased, on whatever node that was asked for."""
        here, removed = await self._recordings.call_ids(), 0
        for first in range(0, len(here), ASKED_AT_ONCE):
            erased = await self._store.erased(here[first : first + ASKED_AT_ONCE])
            removed += await self._recordings.erase(erased) if erased else 0
        return removed

    def _let_others_renew(self) -> None:
        """The ledger may come back just before the next round: that one is left out too."""
        self._leases_count_from = trio.current_time() + RECONCILE_SECONDS + RENEW_SECONDS

    async def _settle(self, record: CallRecord) -> None:
        """Give an orphan its final record; where that cannot be done yet, a later round tries again.

        Its stream may begin, here or elsewhere, while the carrier answers: then it is left alone.
        """
        sid = record.sid
        ending = await (self._resolve(record) if sid is None else self._ask_carrier(record, sid))
        if ending is None:
            self._meter.found("waiting")
            return
        if self._switchboard.line(record.id) is not None:
            return
        now = self._clock()
        record.note(now, "reconciled")
        record.ending, record.ended_at = ending, now
        charge(record, self._prices)
        record.raise_status(Status.ENDED)
        if await self._spool.save(record) in (Written.KEPT, Written.SPOOLED):
            self._meter.found("settled", ending)
            log.info(
                "call ended", call_id=record.id, **ending.as_json(), duration_seconds=record.duration_seconds
            )
            self._traces.take(record)

    async def _is_taken(self, record: CallRecord) -> bool:
        """Whether somebody has the call by now, on another node or on this one."""
        fence = await self._store.claim(record.id, self._node, LEASE_SECONDS)
        return fence != record.fence or self._switchboard.line(record.id) is not None

    async def _resolve(self, record: CallRecord) -> Ending | None:
        """A call without a SID: never dialled, or the carrier's answer died with its node.

        If it was placed, a signed request will tell us its SID; if not, the carrier's list tells.
        """
        permitted = [
            datetime.fromisoformat(verdict["checked_at"])
            for verdict in await self._store.verdicts(record.id)
            if all(finding["outcome"] != Outcome.REFUSE for finding in verdict["findings"])
        ]
        if not permitted:  # and nothing is sent without a permit that is stored before
            return Ending(Blame.US, Reason.CUT, "its node died before it was dialled")
        found = await doubt.look(record, self._carrier, self._store)
        if isinstance(found, doubt.Trace) and found.sid is None and doubt.is_news(record, found):
            record.note(self._clock(), doubt.LISTED, candidates=found.candidates)
            await self._spool.save(record)
        return doubt.conclude(found, (self._clock() - max(permitted)).total_seconds())

    async def _ask_carrier(self, record: CallRecord, sid: str) -> Ending | None:
        found = await self._carrier.status_of(sid)
        if isinstance(found, CarrierCall) and found.status.is_terminal:
            await self._spool.confirm(record.id, self._clock())
            cut = Ending(Blame.US, Reason.CUT, f"its node died; the carrier says {found.status.value}")
            if being_transferred(record):  # it has not come back: then somebody took it, or the person left
                cut = Ending(Blame.NOBODY, Reason.TRANSFERRED, "its node died meanwhile")
            return UNCONNECTED.get(found.status, cut)
        if await self._is_taken(record) or self._is_with_somebody(record):
            return None
        outcome = await self._carrier.hang_up(sid)
        if isinstance(outcome, AlreadyEnded):
            await self._spool.confirm(record.id, self._clock())
        if isinstance(outcome, HungUp | AlreadyEnded):
            return Ending(Blame.US, Reason.CUT, "its node died; hung up by another one")
        return None

    def _is_with_somebody(self, record: CallRecord) -> bool:
        """Whether a call that was handed over still has the time to be talked through without us."""
        if record.answered_at is None or not being_transferred(record):
            return False
        limit = timedelta(seconds=record.time_limit_seconds + PAST_LIMIT_SECONDS)
        return self._clock() < record.answered_at + limit
