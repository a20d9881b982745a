"""Keeps the ledger, the carrier and the live calls of this node in agreement.

Knows no HTTP and no session; looks only at calls of our ledger: what else the carrier has is not ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog
import trio

from relay.carrier import AlreadyEnded, Carrier, CarrierCall, HungUp
from relay.outcomes import Blame, Ending, Reason
from relay.store import LEASE_SECONDS, CallRecord, Spool, Status, Store, StoreError
from relay.switchboard import Switchboard

WISH_SECONDS = 0.5  # between two looks at what other nodes wish of our calls
SAVE_SECONDS = 1.0  # between two writings of what live calls have said
RENEW_SECONDS = LEASE_SECONDS / 3  # two renewals may fail before a lease runs out
RECONCILE_SECONDS = 30.0
ORPHANS_AT_ONCE = 20  # the rest is for the next round, or for another node

log = structlog.get_logger()


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
    ) -> None:
        self._node = node
        self._switchboard = switchboard
        self._store = store
        self._spool = spool
        self._carrier = carrier
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled; a ledger that is down is tried again, and calls go on meanwhile."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_every, WISH_SECONDS, self.grant_wishes, name="wishes")
            nursery.start_soon(_every, SAVE_SECONDS, self.save_live, name="live diaries")
            nursery.start_soon(_every, RENEW_SECONDS, self.renew, name="leases")
            nursery.start_soon(_every, RECONCILE_SECONDS, self.reconcile, name="orphans")

    async def grant_wishes(self) -> None:
        """Do what other nodes, or the operator through them, wish of our calls."""
        if self._switchboard.lines:
            for wish in await self._store.wishes(self._node):
                self._switchboard.grant(wish)

    async def save_live(self) -> None:
        """Write what live calls have said since: a crash loses a second of it."""
        for line in self._switchboard.lines:
            record = line.record
            if record.status is not Status.ENDED and record.kept < len(record.entries) and not line.yielded:
                await self._spool.save(record)

    async def renew(self) -> None:
        """Hold our calls; what another node has taken is given up without a word to the carrier."""
        lines = self._switchboard.lines
        if not lines:
            return
        fences = await self._store.renew(self._node, LEASE_SECONDS)
        for line in lines:
            if line.record.status is not Status.ENDED and fences.get(line.record.id) != line.record.fence:
                log.warning("call lost to another node", call_id=line.record.id)
                line.give_way()

    async def reconcile(self) -> None:
        """End the calls that nobody holds any more, and hang up what the carrier still has of them."""
        for record in await self._store.orphans(self._node, LEASE_SECONDS, ORPHANS_AT_ONCE):
            if self._switchboard.line(record.id) is None:
                await self._settle(record)

    async def _settle(self, record: CallRecord) -> None:
        ending = Ending(Blame.CARRIER, Reason.NOT_PLACED)
        if record.sid is not None:
            found = await self._carrier.status_of(record.sid)
            if isinstance(found, CarrierCall) and found.status.is_terminal:
                ending = Ending(Blame.US, Reason.CUT, f"its node died; the carrier says {found.status.value}")
            elif isinstance(await self._carrier.hang_up(record.sid), HungUp | AlreadyEnded):
                ending = Ending(Blame.US, Reason.CUT, "its node died; hung up by another one")
            else:
                return  # still held by our lease: the next round tries again
        record.owner = self._node
        record.note(self._clock(), "reconciled")
        record.ending, record.ended_at = ending, self._clock()
        record.raise_status(Status.ENDED)
        await self._spool.save(record)
        log.info(
            "call ended", call_id=record.id, **ending.as_json(), duration_seconds=record.duration_seconds
        )


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await trio.sleep(seconds)
        try:
            await work()
        except StoreError as problem:
            log.warning("ledger not in reach", task=work.__name__, detail=str(problem))
