"""What a relay must keep up for long: ten thousand interruptions, and ten thousand calls that come and go.

Knows the rig and what is wanted of it; the figures are this relay's own, since no peer has the like.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from relay.bench.rig import Candidate, Lags, open_rig, percentile

INTERRUPTED_CALLS = 200  # at once, each interrupted three times a second
INTERRUPTIONS = 10_000
CHURN_STEPS = (2_000, 10_000)


@dataclass(frozen=True, slots=True)
class Interruptions:
    """From the moment the agent sent the interruption until the `clear` was at the carrier."""

    calls: int
    interruptions: int
    clears: int
    late_chunks: int  # of an interrupted reply, that came to the phone after all
    p50_ms: float
    p99_ms: float
    most_ms: float
    lags: Lags  # of the loop meanwhile


@dataclass(frozen=True, slots=True)
class Churn:
    """Memory of the process after so many calls, none of them live."""

    resident_bytes: tuple[tuple[int, int], ...]

    @property
    def bytes_per_call(self) -> float:
        """What each call left behind after the first step, which has filled caches and pools."""
        (first, least), (last, most) = self.resident_bytes[0], self.resident_bytes[-1]
        return (most - least) / (last - first)


def interrupt(
    candidate: Candidate, *, calls: int = INTERRUPTED_CALLS, times: int = INTERRUPTIONS
) -> Interruptions:
    """Interrupt replies. Raises Unmeasured."""
    with (
        TemporaryDirectory(prefix="relay-bench-") as folder,
        open_rig(candidate, Path(folder), mode="interrupt") as rig,
    ):
        rig.ramp(calls)
        came = rig.interrupt(times)
    ways = sorted(came["ways_us"])
    return Interruptions(
        calls=calls,
        interruptions=came["cuts"],
        clears=len(ways),
        late_chunks=came["late"],
        p50_ms=percentile(ways, 0.5) / 1000,
        p99_ms=percentile(ways, 0.99) / 1000,
        most_ms=percentile(ways, 1.0) / 1000,
        lags=came["lags"],
    )


def churn(candidate: Candidate, steps: tuple[int, ...] = CHURN_STEPS) -> Churn:
    """Let calls come and go, so many in all at each step. Raises Unmeasured."""
    with TemporaryDirectory(prefix="relay-bench-") as folder, open_rig(candidate, Path(folder)) as rig:
        return Churn(tuple((calls, rig.churn(calls)) for calls in steps))
