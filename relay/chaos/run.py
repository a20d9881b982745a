"""One plan lived through and judged, as plain data that can travel between processes.

Knows the world and its judge; a run that raises has broken a promise too.
"""

from __future__ import annotations

import time

import msgspec

from relay.chaos.judge import judge
from relay.chaos.plan import Plan, draw
from relay.chaos.world import run_world
from relay.outcomes import cause_of


class Run(msgspec.Struct, frozen=True):
    """What is kept of a run. `cpu_seconds` is the only thing that another run of the same plan changes."""

    seed: int
    digest: str
    violations: tuple[str, ...]
    calls: int
    answered: int
    counts: dict[str, int]
    cpu_seconds: float
    newest: tuple[str, ...] = ()  # lines of the trace, where a promise was broken


def run_plan(plan: Plan) -> Run:
    """Live through a plan."""
    begun = time.process_time()
    try:
        world, logged = run_world(plan)
    except Exception as bug:  # noqa: BLE001 - nothing may get out of a node
        seconds = time.process_time() - begun
        return Run(plan.seed, "", (f"the node crashed: {cause_of(bug)!r}",), len(plan.calls), 0, {}, seconds)
    violations = tuple(judge(world, logged))
    answered = sum(
        story.record is not None and story.record.answered_at is not None for story in world.stories
    )
    return Run(
        seed=plan.seed,
        digest=world.trace.digest,
        violations=violations,
        calls=len(plan.calls),
        answered=answered,
        counts=dict(world.trace.counts),
        cpu_seconds=time.process_time() - begun,
        newest=tuple(world.trace.lines) if violations else (),
    )


def run_seed(seed: int) -> Run:
    """Live through the plan of a seed."""
    return run_plan(draw(seed))
