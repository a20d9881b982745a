"""Calls that are handed over to a person: whom the carrier dials, and what follows from what became of it.

Knows no HTTP, no session and no number: the ledger says whose call it is, the profile whose number a name is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from relay.custody import Custody
from relay.line import Document, Line
from relay.outcomes import Blame, Ending, Farewell, Reason
from relay.parting import TRANSFER, being_transferred
from relay.placing import Destination, Office
from relay.store import CallRecord, Store, WishKind
from relay.wire.callbacks import DialCallback


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
        """Whom the carrier is to dial now; None where the profile has nobody of that name any more."""
        record = await self._record(call_id)
        return None if record is None else self._office.destination(record)

    async def over(self, call_id: str, attempt: int, told: DialCallback) -> Document | None:
        """What follows from the carrier's word on a dial; None: the next document of this attempt.

        A transfer that failed comes back to the agent, with a stream and a session of its own, on whatever
        node the word has reached.
        """
        record = await self._record(call_id)
        if record is None or not await self._store.learn_sid(call_id, told.call_sid):
            return Document.UNKNOWN
        if record.attempt >= attempt:
            return None  # it has come back already: the carrier asks again
        news = {"attempt": attempt, "to": being_transferred(record), "outcome": told.outcome.value}
        ending = _ending(told)
        if ending is None:
            if await self._adopt(call_id, attempt, news):
                return None
            ending = Ending(Blame.CARRIER, Reason.TRANSFER_FAILED, told.outcome.value)
        if line := self._line(call_id):
            line.noted(TRANSFER, news)
            line.transfer_over(ending)
        else:
            told_on = {"news": news, "ending": [ending.blame, ending.reason, ending.detail]}
            await self._custody.report(call_id, told.call_sid, WishKind.TRANSFERRED, told_on)
        return Document.SAY if ending.farewell is Farewell.SPOKEN else Document.HANG_UP

    async def _record(self, call_id: str) -> CallRecord | None:
        line = self._line(call_id)
        return line.record if line is not None else await self._store.get(call_id)


def _ending(told: DialCallback) -> Ending | None:
    """How the call ends; None where the person is still there and nobody has taken over."""
    if told.outcome.is_answered:
        return Ending(Blame.NOBODY, Reason.TRANSFERRED)
    if told.is_over:
        return Ending(Blame.CALLEE, Reason.HUNG_UP, "while being put through")
    return None
