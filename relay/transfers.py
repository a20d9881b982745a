"""Calls that are handed over to a person: whom the carrier dials, and what follows from what became of it.

Knows no HTTP, no session and no number: the ledger says whose call it is, the profile whose number a name is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from relay.custody import Custody
from relay.line import Document, Line
from relay.outcomes import Blame, Ending, Farewell, Reason
from relay.parting import TRANSFER, being_transferred
from relay.placing import Destination, Office
from relay.store import CallRecord, Store, StoreError, WishKind
from relay.wire.callbacks import DialCallback

log = structlog.get_logger(subsystem="calls")


class Transfers:
    """The transfers of one node. `adopt` goes on with a call that came back; `line` is a live one of ours."""

    def __init__(
        self,
        office: Office,
        custody: Custody,
        store: Store,
        line: Callable[[str], Line | None],
        adopt: Callable[[str, int, Mapping[str, Any]], Awaitable[Line | None]],
    ) -> None:
        self._office = office
        self._custody = custody
        self._store = store
        self._line = line
        self._adopt = adopt

    async def destination(self, call_id: str) -> Destination | None:
        """Whom the carrier is to dial now; None where that is nobody, or cannot be known."""
        try:
            record = await self._record(call_id)
        except StoreError as problem:
            log.warning("no transfer without the ledger", call_id=call_id, detail=str(problem))
            return None
        return None if record is None else self._office.destination(record)

    async def over(self, call_id: str, attempt: int, told: DialCallback) -> Document | None:
        """What follows from the carrier's word on a dial; None: the next document of this attempt.

        A transfer that failed comes back to the agent, with a stream and a session of its own, on whatever
        node the word has reached. Without the ledger it does not: whose the call is cannot be changed.
        """
        ending = _ending(told)
        try:
            record = await self._record(call_id)
            if record is None or not await self._is_about(call_id, told):
                return Document.UNKNOWN
            if record.attempt >= attempt:
                return None  # it has come back already: the carrier asks again
            news = {"attempt": attempt, "to": being_transferred(record), "outcome": told.outcome.value}
            news |= {"seconds": told.talked_seconds} if told.talked_seconds else {}
            if ending is None and await self._adopt(call_id, attempt, news):
                return None
            ending = ending or _failed(told)
            await self._tell(call_id, told, news, ending)
        except StoreError as problem:
            log.warning("no transfer without the ledger", call_id=call_id, detail=str(problem))
            ending = ending or _failed(told)
            if line := self._line(call_id):
                line.transfer_over(ending)
        return Document.SAY if ending.farewell is Farewell.SPOKEN else Document.HANG_UP

    async def _is_about(self, call_id: str, told: DialCallback) -> bool:
        """A live call of ours has been asked for its name already."""
        return self._line(call_id) is not None or await self._store.learn_sid(call_id, told.call_sid)

    async def _tell(self, call_id: str, told: DialCallback, news: Mapping[str, Any], ending: Ending) -> None:
        if line := self._line(call_id):
            line.noted(TRANSFER, news)
            line.transfer_over(ending)
        else:
            told_on = {"news": news, "ending": [ending.blame, ending.reason, ending.detail]}
            await self._custody.report(call_id, told.call_sid, WishKind.TRANSFERRED, told_on)

    async def _record(self, call_id: str) -> CallRecord | None:
        line = self._line(call_id)
        return line.record if line is not None else await self._store.get(call_id)


def _failed(told: DialCallback) -> Ending:
    return Ending(Blame.CARRIER, Reason.TRANSFER_FAILED, told.outcome.value)


def _ending(told: DialCallback) -> Ending | None:
    """How the call ends; None where the person is still there and nobody has taken over."""
    if told.outcome.is_answered:
        return Ending(Blame.NOBODY, Reason.TRANSFERRED)
    if told.is_over:
        return Ending(Blame.CALLEE, Reason.HUNG_UP, "while being put through")
    return None
