"""Many seeds on all cores, until a promise is broken or all are lived through.

Knows runs and processes; shows nothing.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from relay.chaos.plan import CALLS, Plan, draw
from relay.chaos.run import Run, run_plan, run_seed
from relay.chaos.shrink import shrink

TWICE = 10  # every tenth seed is run a second time, in another process
# Below these a campaign has tried nothing, whatever it found. One call in ten is never answered by plan.
LEAST_ANSWERED = 0.6  # of the calls
LEAST_FRAMES = 60  # relayed for each answered call, both directions together
LEAST_FAULTS = 0.8  # for each plan
LEAST_PLANS = 10  # that the above says anything about


@dataclass(slots=True)
class Findings:
    """What a campaign came to."""

    calls: int = 0
    answered: int = 0
    plans: int = 0
    repeated: int = 0
    cpu_seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    failed: Plan | None = None  # the plan that broke a promise, shrunk
    newest: tuple[str, ...] = ()  # the end of its trace

    @property
    def calls_per_core_hour(self) -> float:
        """How many calls one core lives through in an hour."""
        return self.calls / self.cpu_seconds * 3600 if self.cpu_seconds else 0.0

    def add(self, run: Run) -> None:
        """Count one run in."""
        self.calls += run.calls
        self.answered += run.answered
        self.plans += 1
        self.cpu_seconds += run.cpu_seconds
        self.counts.update(run.counts)

    def quiet(self) -> Iterator[str]:
        """Why a campaign without violations proves nothing."""
        if self.plans < LEAST_PLANS:
            return
        frames = self.counts["frames to agents"] + self.counts["frames to phones"]
        if self.answered < LEAST_ANSWERED * self.calls:
            yield f"too quiet: {self.answered} of {self.calls} calls were answered"
        if frames < LEAST_FRAMES * self.answered:
            yield f"too quiet: {frames} frames were relayed in {self.answered} calls"
        if self.counts["faults"] < LEAST_FAULTS * self.plans:
            yield f"too quiet: {self.counts['faults']} faults struck in {self.plans} plans"


def seeds_of(seed: int, calls: int) -> range:
    """The seeds whose plans have at least so many calls together."""
    return range(seed, seed + max(1, -(-calls // CALLS)))


def seeds_again(seeds: range) -> list[int]:
    """Those of them that are run twice."""
    return [seed for seed in seeds if seed % TWICE == 0]


def run_campaign(
    seed: int, calls: int, *, workers: int | None = None, on_run: Callable[[Run], None] = lambda _run: None
) -> Findings:
    """Run the plans of as many seeds as it takes; stops at the first violation, and shrinks its plan."""
    findings = Findings()
    digests: dict[int, str] = {}
    seeds = seeds_of(seed, calls)
    for batch in (seeds, seeds_again(seeds)):
        for run in _run_all(batch, workers):
            on_run(run)
            _take(run, findings, digests)
            if findings.failed is not None:
                break
        if findings.failed is not None:
            break
    if findings.failed is None:
        findings.violations = list(findings.quiet())
    elif not findings.violations:
        findings.failed = shrink(findings.failed, lambda plan: bool(run_plan(plan).violations))
        last = run_plan(findings.failed)
        findings.violations, findings.newest = list(last.violations), last.newest
    return findings


def _run_all(seeds: Sequence[int], workers: int | None) -> Iterator[Run]:
    """In new processes, each with its own order of hashes: who runs a seed again did not run it before."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
        futures = [pool.submit(run_seed, seed) for seed in seeds]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _take(run: Run, findings: Findings, digests: dict[int, str]) -> None:
    if run.seed not in digests:
        digests[run.seed] = run.digest
        findings.add(run)
        if run.violations:
            findings.failed = draw(run.seed)
        return
    findings.repeated += 1
    findings.cpu_seconds += run.cpu_seconds
    if digests[run.seed] != run.digest:
        findings.violations = [f"seed {run.seed} went two ways: {digests[run.seed]}, {run.digest}"]
        findings.failed = draw(run.seed)
