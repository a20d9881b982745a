"""What a call that has ended is charged for: what it has used, as its record knows it, by a table of prices.

Knows no line and no other call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from relay.costs import Prices, Usage, charges
from relay.line import RECORDING_STARTED
from relay.parting import TRANSFER
from relay.store import CallRecord


def charge(
    record: CallRecord, prices: Prices, transfers: Mapping[str, str] = {}, *, agent_seconds: float = 0.0
) -> None:
    """Put the cost into the record; `transfers` are the numbers of those whom the call may have gone to.

    `agent_seconds` are those of this node's own sockets; what another one had open died with it, or is told.
    """
    assert record.ended_at is not None
    for each in charges(_usage(record, transfers, agent_seconds), prices):
        record.charge(record.ended_at, **asdict(each))


def _usage(record: CallRecord, transfers: Mapping[str, str], agent_seconds: float) -> Usage:
    answered_seconds = record.duration_seconds
    put_through = [
        (transfers.get(event["to"], ""), float(event["seconds"]))
        for event in record.events
        if event["event"] == TRANSFER and "seconds" in event
    ]
    without_us_seconds = sum(seconds for _, seconds in put_through)
    return Usage(
        to=record.to,
        answered_seconds=answered_seconds,
        streamed_seconds=max(0.0, answered_seconds - without_us_seconds) if record.stream_sid else 0.0,
        recorded_seconds=answered_seconds if record.record else _recorded_seconds(record),
        agent_seconds=agent_seconds,
        is_machine_detected=record.machine_detection != "off",
        put_through=tuple(put_through),
    )


def _recorded_seconds(record: CallRecord) -> float:
    """Since the carrier was told to record, if it was."""
    begun = next((event["at"] for event in record.events if event["event"] == RECORDING_STARTED), None)
    if begun is None or record.ended_at is None:
        return 0.0
    return max(0.0, (record.ended_at - datetime.fromisoformat(begun)).total_seconds())
