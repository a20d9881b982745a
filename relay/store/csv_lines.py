"""CSV line by line: what an import may look like, and what is wrong with one, by its line and column.

Knows no HTTP, no store and not what a line means.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from relay.shapes import what_is_wrong

_LONGEST_NAME = 64  # characters of a column's

_Made = TypeVar("_Made")
Explain: TypeAlias = Callable[[str, ErrorDetails], str]


class CsvError(ValueError):
    """A CSV that cannot be imported; the text names line and column."""


def read_lines(
    text: Iterable[str],
    make: Callable[[dict[str, str]], _Made],
    *,
    needed: tuple[str, ...],
    known: tuple[str, ...] | None = None,
    besides: int = 0,
    explain: Explain = lambda _column, problem: what_is_wrong(problem),
) -> Iterator[_Made]:
    """What `make` makes of each line of a CSV whose first line names its columns; empty cells are left out.

    The head must name what is `needed`, and may name others: of `known`, or any where that is None, `besides`
    so many. `explain` says what is wrong with a column, by pydantic's error; what is wrong with a whole line
    is told of the first column that is needed. Raises CsvError at the first line that cannot be used.
    """
    rows = csv.reader(text, strict=True)
    try:
        head = [name.strip().lower().removeprefix("\ufeff") for name in next(rows, [])]
        _check_head(head, needed, known, besides)
        for row in rows:
            if any(cell.strip() for cell in row):
                yield _read_line(rows.line_num, head, row, make, needed[0], explain)
    except csv.Error as problem:
        raise CsvError(f"line {rows.line_num}: not CSV: {problem}") from None


def _check_head(
    head: list[str], needed: tuple[str, ...], known: tuple[str, ...] | None, besides: int
) -> None:
    of_these = "" if known is None else ", ".join(known)
    for name in needed:
        if name not in head:
            others = f", and may name others of {of_these}" if known else ""
            raise CsvError(f"line 1: the head must name the column {name}{others}")
    for place, name in enumerate(head, start=1):
        if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
            raise CsvError(f"line 1, column {place}: a name has {_LONGEST_NAME} characters at most")
        if known is not None and name not in known:
            raise CsvError(f"line 1, column {place}: there is no column {name[:40]!r}, only {of_these}")
    if len(set(head)) != len(head):
        raise CsvError("line 1: a column is named twice")
    if known is None and len(head) > len(needed) + besides:
        raise CsvError(f"line 1: {len(head)} columns, at most {len(needed) + besides} are taken")


def _read_line(
    line: int,
    head: list[str],
    row: list[str],
    make: Callable[[dict[str, str]], _Made],
    foremost: str,
    explain: Explain,
) -> _Made:
    if len(row) != len(head):
        raise CsvError(f"line {line}: has {len(row)} cells, the head has {len(head)}")
    cells = {name: cell.strip() for name, cell in zip(head, row, strict=True) if cell.strip()}
    try:
        return make(cells)
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        column = str(problem["loc"][0]) if problem["loc"] else foremost
        raise CsvError(f"line {line}, column {column}: {explain(column, problem)}") from None
