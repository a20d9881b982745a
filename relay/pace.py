"""Turns at most so often, first come first served.

Knows no call and no carrier: whoever waits here decides what its turn is for.
"""

from __future__ import annotations

import math

import trio


class Pace:
    """At most so many turns a second, first come first served.

    Those who wait are the tasks of calls that were admitted, so their number bounds the queue.
    """

    def __init__(self, turns_per_second: float) -> None:
        self._interval_seconds = 1 / turns_per_second
        self._next_turn_at = -math.inf
        self._line = trio.StrictFIFOLock()

    async def wait_turn(self) -> None:
        """Return when it is our turn; who is cancelled while waiting takes nobody's."""
        async with self._line:
            await trio.sleep_until(self._next_turn_at)
            self._next_turn_at = trio.current_time() + self._interval_seconds
