"""`relay chaos` on a terminal: a bar while it runs, and what it came to.

Knows findings and how to lay them out; runs nothing itself but what it is told to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from relay.chaos.campaign import Findings, run_campaign, seeds_again, seeds_of
from relay.chaos.plan import CALLS, Plan
from relay.chaos.run import Run, run_plan
from relay.chaos.soak import Sample, run_soak

_LINES_SHOWN = 25  # of the trace, before a violation


def run_chaos(seed: int, calls: int, *, as_json: bool = False) -> bool:
    """Run as many plans as it takes for so many calls, and show what came of it; whether all held."""
    seeds = seeds_of(seed, calls)
    total = (len(seeds) + len(seeds_again(seeds))) * CALLS
    with _bar(total, "calls", hidden=as_json) as (bar, task):

        def count(run: Run) -> None:
            bar.update(task, advance=run.calls)

        findings = run_campaign(seed, calls, on_run=count)
    if as_json:
        _print_json(_as_json(seed, findings))
    else:
        _tell(seed, findings)
    return not findings.violations


def run_schedule(text: bytes, *, as_json: bool = False) -> bool:
    """Run one plan that was written down. Raises msgspec.ValidationError or DecodeError where it is none."""
    plan = msgspec.json.decode(text, type=Plan)
    run = run_plan(plan)
    if as_json:
        _print_json({"violations": run.violations, "digest": run.digest, "newest": run.newest})
    else:
        _tell_failed(Console(), plan, run.violations, run.newest)
    return not run.violations


def run_long(seed: int, minutes: float, *, as_json: bool = False) -> bool:
    """Run plans in this process for so long, and show what it holds; whether it grew no more than it may."""
    with _bar(None, "calls", hidden=as_json) as (bar, task):

        def count(sample: Sample) -> None:
            bar.update(task, completed=sample.calls)

        samples, violations = run_soak(seed, seconds=minutes * 60, on_sample=count)
    if as_json:
        _print_json({"samples": [msgspec.to_builtins(each) for each in samples], "violations": violations})
        return not violations
    table = Table(
        "calls", "memory, KiB", "held, KiB", "files", "threads", "tasks left", "calls held", "objects"
    )
    for each in samples:
        table.add_row(*map(str, msgspec.structs.astuple(each)))
    console = Console()
    console.print(table)
    for sentence in violations:
        console.print(f"[bold red]broken[/]  {sentence}", highlight=False)
    return not violations


@contextmanager
def _bar(total: int | None, unit: str, *, hidden: bool) -> Iterator[tuple[Progress, Any]]:
    console = Console(stderr=True)
    columns = (TextColumn("[dim]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, disable=hidden or not console.is_terminal, transient=True
    ) as bar:
        yield bar, bar.add_task(unit, total=total)


def _as_json(seed: int, findings: Findings) -> dict[str, Any]:
    failed = findings.failed
    return {
        "seed": seed,
        "calls": findings.calls,
        "answered": findings.answered,
        "plans": findings.plans,
        "repeated": findings.repeated,
        "counts": dict(sorted(findings.counts.items())),
        "cpu_seconds": round(findings.cpu_seconds, 1),
        "calls_per_core_hour": round(findings.calls_per_core_hour),
        "violations": findings.violations,
        "failed": None if failed is None else {"seed": failed.seed, "schedule": msgspec.to_builtins(failed)},
        "newest": findings.newest,
    }


def _tell(seed: int, findings: Findings) -> None:
    console = Console()
    counts = findings.counts
    frames = counts["frames to agents"] + counts["frames to phones"]
    console.print(
        f"{findings.calls} calls from seed {seed} on, {findings.answered} of them answered; {frames} frames"
        f" relayed, {counts['faults'] + counts['opening faults']} faults struck;"
        f" {findings.repeated} plans went the same way twice;"
        f" {findings.calls_per_core_hour:.0f} calls per core-hour",
        highlight=False,
        soft_wrap=True,
    )
    if findings.failed is not None:
        _tell_failed(console, findings.failed, findings.violations, findings.newest)
    else:
        _tell_violations(console, findings.violations)


def _tell_failed(console: Console, plan: Plan, violations: Any, newest: Any) -> None:
    for line in list(newest)[-_LINES_SHOWN:]:
        console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
    _tell_violations(console, violations)
    if violations:
        console.print(f"seed {plan.seed}; its schedule, shrunk (relay chaos --schedule FILE runs it again):")
        sys.stdout.write(msgspec.json.encode(plan).decode() + "\n")


def _tell_violations(console: Console, violations: Any) -> None:
    for sentence in violations:
        console.print(f"[bold red]broken[/]  {sentence}", highlight=False)
    if not violations:
        console.print("[green]every promise held[/]")


def _print_json(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
