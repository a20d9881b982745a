"""Which calls are this node's: takes them with their streams, gives way, and passes on what it knew.

Knows no carrier, no HTTP and no socket; the ledger decides, by the number that each change of hands raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
import trio

from relay.gatekeeper import Gatekeeper
from relay.line import Document, Line
from relay.outcomes import Ending, Reason, Refusal
from relay.parting import TRANSFER
from relay.placing import Office
from relay.store import (
    LEASE_SECONDS,
    CallRecord,
    Entry,
    Kind,
    Spool,
    Status,
    Store,
    StoreError,
    WishKind,
)
from relay.store.diary import as_fields

ASK_SECONDS = 1.0  # for the ledger to say whose a call is, while somebody waits for a hang-up
TAKE_SECONDS = 3.0  # for the ledger to hand a call over; its stream is refused 5 s after the upgrade

# What somebody wanted of a call that was another node's already.
_PASSED_ON = {Reason.OPERATOR: WishKind.HANG_UP, Reason.NOT_PERMITTED: WishKind.STOP}

log = structlog.get_logger(subsystem="calls")


class Custody:
    """This node's word with the ledger about whose a call is."""

    def __init__(
        self,
        node: str,
        store: Store,
        spool: Spool,
        office: Office,
        gatekeeper: Gatekeeper,
        clock: Callable[[], datetime],
    ) -> None:
        self._node = node
        self._store = store
        self._spool = spool
        self._office = office
        self._gatekeeper = gatekeeper
        self._clock = clock

    async def holds(self, line: Line) -> bool | None:
        """Whether a call of ours is still ours: one that is not gives way. None: the ledger does not say.

        A call that has ended here is ours unless its record was refused.
        """
        record, fences = line.record, dict[str, int]()
        if not _is_settled(line):
            try:
                with trio.fail_after(ASK_SECONDS):
                    # Not by a claim, which raises the fence of a lapsed lease: our save may be under way.
                    fences = await self._store.renew(self._node, [record.id], LEASE_SECONDS)
            except (StoreError, trio.TooSlowError):
                return None
        if _is_settled(line):  # perhaps just now: of an ended call the ledger says that it is nobody's
            return not line.yielded
        if fences.get(record.id) != record.fence:
            line.give_way()
        return not line.yielded

    async def serve(self, record: CallRecord, call_sid: str) -> Document:
        """The newest document of a call that another node holds, who is told; its stream may begin anywhere.

        May raise StoreError.
        """
        line = self._office.resume(record)
        if isinstance(line, Refusal):
            log.error("call cannot be judged here", call_id=record.id, reason=line.message)
            return Document.SAY
        at, known = self._clock().isoformat(), len(record.entries)
        refusal = await self._gatekeeper.recheck(line)
        fetched = {
            "attempt": record.attempt,
            "at": at,
            "sid": record.sid or call_sid,
            "entries": as_fields(record.entries[known:]),  # the gate's word
            "refusal": refusal and [refusal.code, refusal.message],
        }
        is_live = await self._store.wish(record.id, WishKind.FETCHED, fetched)
        return line.next_document if is_live and refusal is None else Document.HANG_UP

    async def take_over(
        self, call_id: str, attempt: int, came_back: Mapping[str, Any] | None = None
    ) -> Line | None:
        """The call as it goes on here, by the carrier's word that its last stream is over.

        `came_back`: or that nobody took it over, which is noted.

        None for a call that has ended, that somebody took for this attempt, or that cannot go on here. May
        raise StoreError.
        """
        fence = await self._store.take_over(call_id, attempt, self._node, LEASE_SECONDS)
        return None if fence is None else await self._resume(call_id, fence, attempt, came_back)

    async def take_stream(self, call_id: str, attempt: int, sid: str, mine: Line | None) -> Line | None:
        """The call whose stream has begun here: `mine`, or another node's that is ours from now on.

        None for a stream that is not to be let in. Without the ledger only `mine` is: nobody else can have
        let the stream in then.
        """
        try:
            with trio.fail_after(TAKE_SECONDS if mine is None else ASK_SECONDS):
                fence = await self._store.take_stream(call_id, attempt, sid, self._node, LEASE_SECONDS)
                if fence is None or (mine is not None and mine.record.fence == fence):
                    return None if fence is None else mine
                return await self._resume(call_id, fence, attempt)
        except (StoreError, trio.TooSlowError) as problem:
            log.warning("stream without the ledger", call_id=call_id, detail=str(problem))
            return mine

    async def _resume(
        self, call_id: str, fence: int, attempt: int, came_back: Mapping[str, Any] | None = None
    ) -> Line | None:
        record = await self._store.get(call_id)
        if record is None:
            return None
        record.owner, record.fence, record.attempt = self._node, fence, attempt
        if came_back is not None:
            record.note(self._clock(), TRANSFER, **came_back)
        line = self._office.resume(record)
        if isinstance(line, Refusal):
            log.error("call cannot go on", call_id=call_id, reason=line.message)
            await self._store.renew(self._node, [call_id], 0)  # let go: whoever looks for orphans ends it
            return None
        return line

    async def wish_of_owner(
        self, call_id: str, call_sid: str, kind: WishKind, fields: Mapping[str, Any]
    ) -> bool:
        """Have the owner of a live call act on what we were told; False when it is about another call.

        May raise StoreError.
        """
        if not await self._store.learn_sid(call_id, call_sid):
            log.warning("callback for another call", call_id=call_id[:64])
            return False
        await self._store.wish(call_id, kind, {**fields, "sid": call_sid})
        return True

    async def report(self, call_id: str, call_sid: str, kind: WishKind, told: Mapping[str, Any]) -> None:
        """The same where nothing else depends on it."""
        try:
            await self.wish_of_owner(call_id, call_sid, kind, told)
        except StoreError as problem:
            log.warning("callback not stored", call_id=call_id, detail=str(problem))

    async def tell(self, call_id: str, call_sid: str, event: str, fields: Mapping[str, Any]) -> None:
        """Into the timeline of a call, whoever has it and whether it has ended or not."""
        try:
            if await self._store.learn_sid(call_id, call_sid):
                entry = Entry(Kind.EVENT, self._clock(), {"event": event, **fields})
                await self._spool.tell(call_id, [entry])
        except StoreError as problem:
            log.warning("callback not stored", call_id=call_id, detail=str(problem))

    async def pass_on(self, line: Line, untold: Sequence[Entry]) -> None:
        """Tell whoever has the call by now our last entries, and what was asked of us."""
        record = line.record
        try:
            if untold:
                await self._spool.tell(record.id, untold)
            if record.answered_at is not None:
                at = {"at": record.answered_at.isoformat()}
                await self._store.wish(record.id, WishKind.ANSWERED, at)
            if record.answered_by is not None:
                verdict = {"who": record.answered_by, "sid": record.sid}
                await self._store.wish(record.id, WishKind.ANSWERED_BY, verdict)
            if kind := _wanted(line.ending):
                await self._store.wish(record.id, kind)
        except StoreError as problem:
            log.warning("not passed on", call_id=record.id, detail=str(problem))


def _is_settled(line: Line) -> bool:
    return line.yielded or line.record.status is Status.ENDED


def _wanted(ending: Ending | None) -> WishKind | None:
    return None if ending is None else _PASSED_ON.get(ending.reason)
