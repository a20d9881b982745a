"""What a call has used of all that somebody charges for, as its line and its record know it.

Knows no price.
"""

from __future__ import annotations

from datetime import datetime

from relay.costs import Usage
from relay.line import RECORDING_STARTED, Line
from relay.parting import TRANSFER
from relay.store import CallRecord


def usage_of(line: Line) -> Usage:
    """All of it, of a call that has ended."""
    record, call = line.record, line.call
    answered_seconds = record.duration_seconds
    put_through = [
        (line.transfers.get(event["to"], ""), float(event["seconds"]))
        for event in record.events
        if event["event"] == TRANSFER and "seconds" in event
    ]
    without_us_seconds = sum(seconds for _, seconds in put_through)
    return Usage(
        to=record.to,
        answered_seconds=answered_seconds,
        streamed_seconds=max(0.0, answered_seconds - without_us_seconds) if line.stream is not None else 0.0,
        recorded_seconds=answered_seconds if record.record else _recorded_seconds(record),
        agent_seconds=0.0 if call is None else call.agent_seconds,
        is_machine_detected=record.machine_detection != "off",
        put_through=tuple(put_through),
    )


def _recorded_seconds(record: CallRecord) -> float:
    """Since the carrier was told to record, if it was."""
    begun = next((event["at"] for event in record.events if event["event"] == RECORDING_STARTED), None)
    if begun is None or record.ended_at is None:
        return 0.0
    return max(0.0, (record.ended_at - datetime.fromisoformat(begun)).total_seconds())
