"""The table of docs/reliability.md: what each fault leads to, and the longest times that were measured.

Must not know how a cell is played.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.matrix.faults import Cell, Dies, Moment, Survives, cells
from tests.matrix.measure import measured

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
BEGIN: Final = "<!-- matrix: written by `make matrix` -->"
END: Final = "<!-- /matrix -->"
HEADS: Final = ("fault", "leg", "when", "the call", "over after", "at most", "closed after")


def with_table(page: str) -> str:
    """The page with the table as it is now."""
    table = "\n".join([_line(HEADS), _line("---" for _ in HEADS), *map(_line, _rows())])
    return re.sub(
        rf"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{table}\n{END}", page, flags=re.DOTALL
    )


def _rows() -> Iterator[tuple[str, ...]]:
    for (fault, leg), moments in groupby(cells(), key=lambda cell: (cell.fault, cell.leg)):
        alike: dict[str, list[Cell]] = {}
        for cell in moments:
            alike.setdefault(_fate(cell), []).append(cell)
        for fate, group in alike.items():
            yield (fault.name, leg.value, _when(group), fate, *_times(group))


def _fate(cell: Cell) -> str:
    match cell.verdict:
        case Dies() as dies:
            endings = [(dies.blame, dies.reason), *dies.others]
            fate = f"ends: {' or '.join(f'`{blame.value}` `{reason.value}`' for blame, reason in endings)}"
            return f"{fate}, where no other session is to be had" if cell.after else fate
        case Survives(noted):
            fate = "goes on in another session" if cell.after else "goes on"
            return f"{fate}; noted as “{noted}”"


def _when(group: list[Cell]) -> str:
    struck = [cell.moment for cell in group]
    if group[0].fault.at_handshake:
        return "handshake"
    if len(struck) == len(Moment):
        return "always"
    return ", ".join(moment.value for moment in struck)


def _times(group: list[Cell]) -> tuple[str, ...]:
    deaths = [(cell.verdict, measured(cell)) for cell in group if isinstance(cell.verdict, Dies)]
    if not deaths:
        return ("–", "–", "–")
    longest = (
        max(played.noticed_seconds for _, played in deaths),
        max(dies.within_seconds for dies, _ in deaths),
        max(played.closed_seconds for _, played in deaths),
    )
    return tuple(f"{seconds:.1f} s" for seconds in longest)


def _line(words: Iterable[str]) -> str:
    return f"| {' | '.join(words)} |"
