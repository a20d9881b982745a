"""What became of an order whose answer was lost: what the carrier's list of calls can tell of it.

Knows no live call, no clock and no way to hang up. A list shows numbers and times, never whose call it is: it
can say that there is no call of ours, never that this one is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from relay.carrier import Carrier, Unavailable
from relay.outcomes import Blame, Ending, Reason
from relay.store import CallRecord, Store, StoreError

LOOK_SECONDS = 30.0  # between two looks at the list
# An order that was carried out shows in the list by then. Nothing published says how soon it does: a guess,
# kept far above a request's own deadline.
LISTED_SECONDS = 120.0
UNKNOWN_SECONDS = 300.0  # an ambiguous create is waited for so long: a queued call may ring much later
CLOCKS_APART = timedelta(seconds=60)  # between the carrier's clock and ours; more only makes us wait longer

LISTED = "listed by the carrier"  # the note of what was found, for the operator


@dataclass(frozen=True, slots=True)
class Trace:
    """What the list has of calls that may be this one.

    `sid` is set where the ledger knows one of them to be this call: a signed request has told another node.
    `candidates` are those that nobody has claimed, by SID, with their statuses: perhaps ours, perhaps not.
    """

    sid: str | None
    candidates: dict[str, str]


async def look(record: CallRecord, carrier: Carrier, store: Store) -> Trace | Unavailable:
    """Ask the carrier for the calls to that number since the intent; without our other calls."""
    found = await carrier.calls_since(record.to, record.started_at - CLOCKS_APART)
    if isinstance(found, Unavailable):
        return found
    candidates: dict[str, str] = {}
    try:
        for call in found:
            known = await store.find(call.sid)
            if known is None:
                candidates[call.sid] = call.status.value
            elif known.id == record.id:
                return Trace(call.sid, {})
    except StoreError as problem:
        return Unavailable(None, None, f"the ledger cannot be asked: {problem}")
    return Trace(None, candidates)


def is_news(record: CallRecord, trace: Trace) -> bool:
    """Whether the timeline does not have this yet."""
    told = [event["candidates"] for event in record.events if event["event"] == LISTED]
    return not told or told[-1] != trace.candidates


def conclude(found: Trace | Unavailable, age_seconds: float) -> Ending | None:
    """How the call ends by what was found so long after its order; None: go on waiting."""
    patience_seconds = UNKNOWN_SECONDS
    if isinstance(found, Trace) and found.sid is not None:
        return None  # heard of, and to be asked after by its name
    if isinstance(found, Unavailable):
        why = f"nothing was heard of it, and the carrier's list cannot be read: {found.sentence}"
    elif found.candidates:
        why = (
            f"nothing was heard of it; the carrier lists what may be this call: {', '.join(found.candidates)}"
        )
    else:
        why = "the carrier lists no such call"
        patience_seconds = LISTED_SECONDS
    return Ending(Blame.CARRIER, Reason.NOT_PLACED, why) if age_seconds >= patience_seconds else None
