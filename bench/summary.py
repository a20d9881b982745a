"""Many measurements to few figures: medians with their ranges, and ratios.

Knows nothing of processes and files.

A ratio is taken within each round, where both ran within the same minute, and only then is the median taken:
what the machine did meanwhile hits both sides of a fraction alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from relay.bench.rig import Measurement


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement, and when it was taken."""

    profile: str
    round: int
    measured: Measurement


def read_run(figures: Mapping[str, Any]) -> Run:
    """A run as performance.json has it."""
    measured = {name: figure for name, figure in figures.items() if name not in ("profile", "round")}
    lags = tuple((bound, count) for bound, count in figures["lags"])
    return Run(figures["profile"], figures["round"], Measurement(**{**measured, "lags": lags}))


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the range around it."""

    median: float
    least: float
    most: float


Figure = Callable[[Measurement], float]


def cpu(measured: Measurement) -> float:
    """CPU µs per frame."""
    return measured.cpu_us_per_frame


def p99(measured: Measurement) -> float:
    """The 99th percentile in ms."""
    return measured.p99_ms


class Summary:
    """What a set of interleaved runs says."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)

    def profiles(self) -> list[str]:
        """In the order in which they were first measured."""
        return list(dict.fromkeys(run.profile for run in self.runs))

    def relays(self, profile: str) -> list[str]:
        """Who was measured under a profile."""
        return list(dict.fromkeys(run.measured.relay for run in self.runs if run.profile == profile))

    def steps(self, profile: str) -> list[int]:
        """At how many calls, rising."""
        return sorted({run.measured.calls for run in self.runs if run.profile == profile})

    def all(self, profile: str, relay: str, calls: int) -> list[Run]:
        """One measurement a round."""
        return [
            run
            for run in self.runs
            if (run.profile, run.measured.relay, run.measured.calls) == (profile, relay, calls)
        ]

    def spread(self, profile: str, relay: str, calls: int, figure: Figure) -> Spread | None:
        """A figure over the rounds; None where there was no measurement."""
        values = [figure(run.measured) for run in self.all(profile, relay, calls)]
        return Spread(median(values), min(values), max(values)) if values else None

    def is_carried(self, profile: str, relay: str, calls: int) -> bool:
        """Whether most rounds lost nothing, were in time and left some of the core."""
        rounds = self.all(profile, relay, calls)
        return sum(run.measured.is_carried for run in rounds) * 2 > len(rounds)

    def is_unfilled(self, profile: str, relay: str, calls: int) -> bool:
        """Whether no round filled the core: a full one relays less than it is sent, at a price of its own."""
        rounds = self.all(profile, relay, calls)
        return bool(rounds) and not any(run.measured.is_full for run in rounds)

    def ratio(self, profile: str, relay: str, peer: str, calls: int, figure: Figure) -> Spread | None:
        """`relay` ÷ `peer`, paired by round; None where either filled its core or was not measured."""
        if not (self.is_unfilled(profile, relay, calls) and self.is_unfilled(profile, peer, calls)):
            return None
        theirs = {run.round: figure(run.measured) for run in self.all(profile, peer, calls)}
        ratios = [
            figure(run.measured) / theirs[run.round]
            for run in self.all(profile, relay, calls)
            if theirs.get(run.round)
        ]
        return Spread(median(ratios), min(ratios), max(ratios)) if ratios else None

    def capacity(self, profile: str, relay: str) -> int:
        """The most calls that one core carried."""
        carried = [calls for calls in self.steps(profile) if self.is_carried(profile, relay, calls)]
        return max(carried, default=0)

    def bytes_per_call(self, profile: str, relay: str) -> float | None:
        """Memory of one more call, between the fewest and the most calls of a relay."""
        steps = [calls for calls in self.steps(profile) if self.all(profile, relay, calls)]
        if len(steps) < 2:
            return None
        sizes = [
            median([run.measured.resident_bytes for run in self.all(profile, relay, calls)])
            for calls in (steps[0], steps[-1])
        ]
        return (sizes[1] - sizes[0]) / (steps[-1] - steps[0])

    def lost(self, relay: str) -> int:
        """Frames that never arrived although the core was not full."""
        return sum(
            run.measured.lost for run in self.runs if run.measured.relay == relay and not run.measured.is_full
        )
