"""When a call is recorded, and by whom: by the carrier, and by this node where it has a folder for it.

Knows no HTTP and no file; what its agent's profile and its order say is done, and noted in the record.

Where a profile says `disclosed`, nothing is recorded before the person has heard who calls: the carrier is
told then, and the own recording begins. With `call` the carrier was told with the order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import structlog
import trio

from relay.carrier import Carrier, Unavailable
from relay.legs import Leg, Tap
from relay.line import RECORDING_STARTED, Line
from relay.recordings import Recordings

log = structlog.get_logger(subsystem="calls")


class Taping:
    """What every call of this node is recorded by."""

    def __init__(self, carrier: Carrier, recordings: Recordings) -> None:
        self._carrier = carrier
        self._recordings = recordings

    @asynccontextmanager
    async def tape(self, line: Line, leg: Leg) -> AsyncIterator[None]:
        """Record a stream while the context lives, if it is to be recorded at all."""
        if line.recording == "off":
            yield
            return
        if line.recording == "call":
            self._begin(line, leg)
        async with trio.open_nursery() as nursery:
            if line.recording == "disclosed":
                nursery.start_soon(self._begin_disclosed, line, leg, name="recording")
            yield
            nursery.cancel_scope.cancel()

    def _begin(self, line: Line, leg: Leg) -> None:
        line.tape = self._recordings.begin(line.record.id, line.record.attempt)
        if line.tape is not None:
            leg.tap = line.tape.tap if leg.tap is None else _both(leg.tap, line.tape.tap)

    async def _begin_disclosed(self, line: Line, leg: Leg) -> None:
        await line.disclosed.wait()
        self._begin(line, leg)
        is_begun = any(event["event"] == RECORDING_STARTED for event in line.record.events)
        if is_begun or line.record.sid is None:
            return
        begun = await self._carrier.record(line.record.sid, line.order.recording_callback)
        if isinstance(begun, Unavailable):
            line.noted("not recorded", {"code": begun.code})
            log.warning("recording not started", detail=begun.sentence)
        else:
            line.noted(RECORDING_STARTED, {"recording_sid": begun})

    async def finish(self, line: Line) -> None:
        """End the own recording of the call's last stream, and note what there is of it."""
        if line.tape is not None:
            line.noted("recorded", await line.tape.finish())


def _both(first: Tap, second: Tap) -> Tap:
    def tap(direction: Literal["in", "out"], text: bytes) -> None:
        first(direction, text)
        second(direction, text)

    return tap
