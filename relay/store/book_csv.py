"""Appointments and accounts as CSV: what an import may look like, and what is wrong with one, by its line.

Knows no HTTP and no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails

from relay.shapes import what_is_wrong
from relay.store.books import Account, Slot
from relay.store.csv_lines import read_lines
from relay.store.list_csv import PRINTED, Number

FIELDS = 20  # columns of an account beside its own two: an agent reads all of it to a person
FIELD_CHARACTERS = 200

Name = Annotated[str, Field(pattern=PRINTED, max_length=100)]
Words = Annotated[str, Field(pattern=PRINTED, max_length=FIELD_CHARACTERS)]


class _Slot(BaseModel):
    model_config = ConfigDict(extra="forbid")

    starts_at: AwareDatetime
    note: Words = ""


class _Account(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Words] = Field(init=False)

    id: Annotated[str, Field(pattern=PRINTED, max_length=64)]
    number: Number


def read_slots(text: Iterable[str], calendar: str) -> Iterator[Slot]:
    """The times of a CSV with the columns `starts_at`, with its offset from UTC, and perhaps `note`.

    Raises CsvError at the first line that cannot be used.
    """

    def make(cells: dict[str, str]) -> Slot:
        line = _Slot.model_validate(cells)
        return Slot(calendar, datetime.fromisoformat(line.starts_at.isoformat()), line.note)

    columns = tuple(_Slot.model_fields)
    return read_lines(text, make, needed=("starts_at",), known=columns, explain=_what_is_wrong)


def read_accounts(text: Iterable[str], book: str) -> Iterator[Account]:
    """The accounts of a CSV with the columns `id` and `number`; every other column is what an agent may tell.

    Raises CsvError at the first line that cannot be used.
    """

    def make(cells: dict[str, str]) -> Account:
        line = _Account.model_validate(cells)
        return Account(book, line.id, line.number, dict(line.__pydantic_extra__ or {}))

    return read_lines(text, make, needed=("id", "number"), besides=FIELDS, explain=_what_is_wrong)


def _what_is_wrong(column: str, problem: ErrorDetails) -> str:
    if problem["type"] == "missing":
        return "must have a value"
    if column == "starts_at":
        return "must be an instant with its offset, such as 2026-03-10T10:00:00-05:00"
    return what_is_wrong(problem)
