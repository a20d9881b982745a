"""How a stream is left, as the ledger has it: for whichever node is asked what follows.

Knows no line and no carrier; notes in a record come in, and what they say goes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.outcomes import Blame, Ending, Reason
from relay.store import CallRecord
from relay.wire.callbacks import DialOutcome

LEAVING = "leaving"  # the note of how a stream was left, in the ledger before the phone's socket is closed
TRANSFER = "transfer"  # the note of what became of handing the call over

_WHY = {
    DialOutcome.BUSY.value: "the line was busy",
    DialOutcome.NO_ANSWER.value: "nobody answered",
    DialOutcome.FAILED.value: "the call could not be completed",
}


def being_left(record: CallRecord) -> Ending | None:
    """How its node is leaving a call whose final record is not written yet."""
    left = _last(record, LEAVING)
    return None if left is None else Ending(Blame(left["blame"]), Reason(left["reason"]))


def being_transferred(record: CallRecord) -> str:
    """To whom the call is handed over since its newest stream was left: a name of its profile's; or empty."""
    left = _last(record, LEAVING)
    return "" if left is None else str(left.get("to", ""))


def came_back(record: CallRecord) -> str:
    """What the agent has to know first of a transfer that failed; empty where this stream follows none."""
    failed = _last(record, TRANSFER)
    if failed is None:
        return ""
    why = _WHY.get(failed["outcome"], "nobody took the call")
    return f"The person was to be put through to {failed['to']}, and that failed: {why}."


def _last(record: CallRecord, event: str) -> Mapping[str, Any] | None:
    """The newest note of this kind about the newest stream."""
    noted = [each for each in record.events if each["event"] == event and each["attempt"] == record.attempt]
    return noted[-1] if noted else None
