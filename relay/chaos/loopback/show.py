"""`relay chaos --sockets` on a terminal: a line for each call as it ends, and a table of all in the end.

Knows reports and how to lay them out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import orjson
from rich.console import Console
from rich.table import Table

from relay.chaos.loopback.run import Report, run_siege
from relay.chaos.loopback.siege import Outcome


def run_sockets(seed: int, calls: int, folder: Path, *, as_json: bool = False) -> bool:
    """Play every act and show what came of it; whether all held."""
    console = Console(stderr=True)

    def tell(outcome: Outcome) -> None:
        if not as_json:
            console.print(
                f"{outcome.act}: {outcome.what}: {outcome.ending}", style="dim", highlight=False, markup=False
            )

    report = run_siege(seed, calls, folder, on_outcome=tell)
    if as_json:
        sys.stdout.write(orjson.dumps(_as_json(report), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _show(report)
    return not report.violations


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "seed": report.seed,
        "folder": str(report.folder),
        "calls": [msgspec.to_builtins(outcome) for outcome in report.outcomes],
        "left_out": report.left_out,
        "violations": report.violations,
    }


def _show(report: Report) -> None:
    console = Console()
    table = Table(
        "act", "what befell the call", "calls", "endings", "ended after, s", "other leg closed after, s"
    )
    for row in _rows(report.outcomes):
        table.add_row(*row)
    console.print(table)
    for sentence in report.left_out:
        console.print(f"[yellow]left out[/]  {sentence}", highlight=False)
    for sentence in report.violations:
        console.print(f"[bold red]broken[/]  {sentence}", highlight=False)
    verdict = "" if report.violations else "[green]every promise held[/]; "
    console.print(
        f"{verdict}{len(report.outcomes)} calls, seed {report.seed}; logs in {report.folder}",
        highlight=False,
        soft_wrap=True,
    )


def _rows(outcomes: Iterable[Outcome]) -> Iterator[tuple[str, ...]]:
    def key(outcome: Outcome) -> tuple[str, str]:
        return outcome.act, outcome.what

    for (act, what), group in groupby(sorted(outcomes, key=key), key=key):
        alike = list(group)
        endings = ", ".join(sorted({each.ending for each in alike}))
        noticed = _longest(each.noticed_seconds for each in alike)
        closed = _longest(each.closed_seconds for each in alike)
        yield act, what, str(len(alike)), endings, noticed, closed


def _longest(seconds: Iterable[float | None]) -> str:
    known = [each for each in seconds if each is not None]
    return f"{max(known):.1f}" if known else "–"
