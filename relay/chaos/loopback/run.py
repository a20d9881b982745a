"""All acts of one run, side by side where they do not disturb each other, and what they came to.

Knows the acts by their names; shows nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from relay.chaos.loopback.namespaces import NotAllowed, enter_own_world
from relay.chaos.loopback.siege import Outcome
from relay.chaos.loopback.trials import (
    Broken,
    OnOutcome,
    fill_disk,
    kill_service,
    pull_cable,
    stop_service,
    strike_connections,
)
from relay.outcomes import cause_of
from relay.rehearsal import Unplayed

CALLS = 27  # by default: each fault on each leg once, and some calls in peace beside them
ACT_SECONDS = 900.0  # for one act, whatever happens; the longest takes three minutes

_Act = Callable[[Path, int, OnOutcome], Awaitable[Broken]]


@dataclass
class Report:
    """What a run came to."""

    seed: int
    folder: Path  # where each act has left what the service logged
    outcomes: list[Outcome] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # of the service, or of an act as a whole
    left_out: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        """Every promise that was broken, as a sentence."""
        of_calls = [
            f"{each.act}: {each.what}: {sentence}" for each in self.outcomes for sentence in each.violations
        ]
        return of_calls + self.broken


async def run_acts(
    report: Report, calls: int, *, own_world: bool, on_outcome: OnOutcome = lambda _outcome: None
) -> None:
    """Play the acts into the report; a disk and a network are only ruined where they are nobody else's."""

    def take(outcome: Outcome) -> None:
        report.outcomes.append(outcome)
        on_outcome(outcome)

    async def strike(folder: Path, seed: int, on_outcome: OnOutcome) -> Broken:
        return await strike_connections(folder, seed, calls, on_outcome)

    acts: dict[str, _Act] = {"connections": strike, "killed": kill_service, "stopped": stop_service}
    if own_world:
        acts["full disk"] = fill_disk
    async with trio.open_nursery() as nursery:
        for name, act in acts.items():
            nursery.start_soon(_play_act, report, name, act, take)
    if own_world:
        await _play_act(report, "no network", pull_cable, take)  # which is everybody's


async def _play_act(report: Report, name: str, act: _Act, take: OnOutcome) -> None:
    found = [f"not over after {ACT_SECONDS:g} s"]
    with trio.move_on_after(ACT_SECONDS):
        try:
            found = await act(report.folder / name.replace(" ", "-"), report.seed, take)
        except* (Unplayed, trio.TooSlowError, OSError) as problems:
            found = [str(cause_of(problems))]
    report.broken += (f"{name}: {sentence}" for sentence in found)


def run_siege(
    seed: int, calls: int, folder: Path, *, on_outcome: OnOutcome = lambda _outcome: None
) -> Report:
    """Play everything, in a world of this process's own where the system gives one: it never comes back."""
    report = Report(seed, folder)
    try:
        enter_own_world()
    except NotAllowed as problem:
        report.left_out.append(f"a full disk and a pulled cable: no namespaces here ({problem})")
    trio.run(partial(run_acts, report, calls, own_world=not report.left_out, on_outcome=on_outcome))
    return report
