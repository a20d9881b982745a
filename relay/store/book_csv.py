"""Appointments and accounts as CSV: what an import may look like, and what is wrong with one, by its line.

Knows no HTTP and no store.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from relay.store.books import Account, Slot
from relay.store.list_csv import PRINTED, Number

FIELDS = 20  # columns of an account beside its own two: an agent reads all of it to a person
FIELD_CHARACTERS = 200

Name = Annotated[str, Field(pattern=PRINTED, max_length=100)]
Words = Annotated[str, Field(pattern=PRINTED, max_length=FIELD_CHARACTERS)]

_Made = TypeVar("_Made")


class BookCsvError(ValueError):
    """A CSV that cannot be imported; the text names line and column."""


class _Slot(BaseModel):
    model_config = ConfigDict(extra="forbid")

    starts_at: AwareDatetime
    note: Words = ""

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        return tuple(cls.model_fields)


class _Account(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Words] = Field(init=False)

    id: Annotated[str, Field(pattern=PRINTED, max_length=64)]
    number: Number


def read_slots(text: Iterable[str], calendar: str) -> Iterator[Slot]:
    """The times of a CSV with the columns `starts_at`, with its offset from UTC, and perhaps `note`.

    Raises BookCsvError at the first line that cannot be used.
    """

    def make(cells: dict[str, str]) -> Slot:
        line = _Slot.model_validate(cells)
        return Slot(calendar, datetime.fromisoformat(line.starts_at.isoformat()), line.note)

    yield from _read(text, ("starts_at",), _Slot.columns(), make)


def read_accounts(text: Iterable[str], book: str) -> Iterator[Account]:
    """The accounts of a CSV with the columns `id` and `number`; every other column is what an agent may tell.

    Raises BookCsvError at the first line that cannot be used.
    """

    def make(cells: dict[str, str]) -> Account:
        line = _Account.model_validate(cells)
        return Account(book, line.id, line.number, dict(line.__pydantic_extra__ or {}))

    yield from _read(text, ("id", "number"), None, make)


def _read(
    text: Iterable[str],
    needed: tuple[str, ...],
    known: tuple[str, ...] | None,
    make: Callable[[dict[str, str]], _Made],
) -> Iterator[_Made]:
    rows = csv.reader(text, strict=True)
    try:
        head = [name.strip().lower().removeprefix("\ufeff") for name in next(rows, [])]
        _check_head(head, needed, known)
        for row in rows:
            if any(cell.strip() for cell in row):
                yield _read_line(rows.line_num, head, row, make)
    except csv.Error as problem:
        raise BookCsvError(f"line {rows.line_num}: not CSV: {problem}") from None


def _check_head(head: list[str], needed: tuple[str, ...], known: tuple[str, ...] | None) -> None:
    if missing := [name for name in needed if name not in head]:
        raise BookCsvError(f"line 1: the head must name the column {missing[0]}")
    for place, name in enumerate(head, start=1):
        if not name.isprintable() or not 0 < len(name) <= 64:
            raise BookCsvError(f"line 1, column {place}: a column needs a name, of at most 64 characters")
        if known is not None and name not in known:
            raise BookCsvError(
                f"line 1, column {place}: there is no column {name!r}, only {', '.join(known)}"
            )
    if len(set(head)) != len(head):
        raise BookCsvError("line 1: a column is named twice")
    if len(head) > FIELDS + len(needed):
        raise BookCsvError(f"line 1: {len(head)} columns, at most {FIELDS + len(needed)} are taken")


def _read_line(line: int, head: list[str], row: list[str], make: Callable[[dict[str, str]], _Made]) -> _Made:
    if len(row) != len(head):
        raise BookCsvError(f"line {line}: has {len(row)} cells, the head has {len(head)}")
    cells = {name: cell.strip() for name, cell in zip(head, row, strict=True) if cell.strip()}
    try:
        return make(cells)
    except ValidationError as error:
        problem: Any = error.errors(include_input=False)[0]
        column = str(problem["loc"][0]) if problem["loc"] else head[0]
        raise BookCsvError(f"line {line}, column {column}: {_what_is_wrong(column, problem)}") from None


def _what_is_wrong(column: str, problem: Any) -> str:
    if problem["type"] == "missing":
        return "must have a value"
    if column == "number":
        return "must be E.164: a plus sign, the country code and the number, 7 to 15 digits"
    if column == "starts_at":
        return "must be an instant with its offset, such as 2026-03-10T10:00:00-05:00"
    return str(problem["msg"])
