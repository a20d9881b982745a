"""How often is too often: a rate for each key, and how rarely a log repeats itself.

Must not know HTTP, the clock or the log: what is counted, when it happened and what follows are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second for as long as one likes, and a burst of so many at once."""

    per_second: float
    burst: int


class Rates:
    """One token bucket for each key.

    A bucket is kept as the instant at which it will be full again, and forgotten some time after that. While
    `keys` of them are in use, newcomers share one more, so that many names gain nobody anything.
    """

    def __init__(self, rate: Rate, *, keys: int = 1024) -> None:
        self._interval_seconds = 1 / rate.per_second
        self._depth_seconds = rate.burst / rate.per_second
        self._keys = keys
        self._full_at: dict[str | None, float] = {}  # None: the bucket of the newcomers

    def take(self, key: str, now: float) -> float:
        """Take one from the key's bucket: 0, or how many seconds to wait where it is empty."""
        bucket = self._bucket(key, now)
        full_at = max(self._full_at.get(bucket, now), now) + self._interval_seconds
        # A rounding error of the clock must not cost the last one of a burst.
        wait_seconds = full_at - now - self._depth_seconds
        if wait_seconds > self._interval_seconds * 1e-6:
            return wait_seconds
        self._full_at[bucket] = full_at
        return 0.0

    def _bucket(self, key: str, now: float) -> str | None:
        if key not in self._full_at and len(self._full_at) >= self._keys:
            self._full_at = {each: at for each, at in self._full_at.items() if at > now}
            if len(self._full_at) >= self._keys:
                return None
        return key


class Tidings:
    """Word of what may happen very often: some lines at once, then one a second, which bears a count.

    What comes after the last line is counted in the next one, whenever that is.
    """

    def __init__(self, rate: Rate = Rate(per_second=1, burst=10)) -> None:
        self._lines = Rates(rate, keys=1)
        self._untold = 0

    def count(self, now: float) -> int:
        """One more: how many a line written now stands for, or 0 where none is to be written yet."""
        self._untold += 1
        if self._lines.take("", now):
            return 0
        told, self._untold = self._untold, 0
        return told
