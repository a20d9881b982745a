"""Suppression lists as CSV: what an export looks like, and what an import may look like.

Knows no HTTP and no store; what is exported can be imported, here or elsewhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from relay.compliance.case import OWN_LIST
from relay.shapes import PhoneNumber
from relay.store.csv_lines import read_lines
from relay.store.ledger import ListEntry, Listing
from relay.store.records import stamp

COLUMNS = ("number", "subject", "list", "listing", "source", "who", "at")

Number = Annotated[PhoneNumber, Field(description="E.164: a plus sign, then 7 to 15 digits")]
ListName = Annotated[
    str, Field(pattern=r"^(own|[A-Z]{2}(-[A-Z0-9]{1,3})?)$", description="own, US, US-TX, …")
]
PRINTED = r"^[^\x00-\x1f\x7f]+$"  # neither empty nor with control characters, which PostgreSQL may refuse
Words = Annotated[str, Field(pattern=PRINTED, max_length=500)]


@dataclass(frozen=True, slots=True)
class Given:
    """What holds for every line that does not say it itself."""

    source: str
    who: str
    at: datetime
    list: str = OWN_LIST


class _Line(BaseModel):
    """One line; an empty cell is one that is not there."""

    model_config = ConfigDict(extra="forbid")

    number: Number | None = None
    subject: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    list: ListName | None = None
    listing: Listing = Listing.ADDED
    source: Words | None = None
    who: Words | None = None
    at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if (self.number is None) == (self.subject is None):
            raise ValueError("must have a value; only the line of an erased number has a subject instead")
        return self

    def entry(self, given: Given) -> ListEntry:
        return ListEntry(
            number=self.number,
            listing=self.listing,
            source=self.source or given.source,
            who=self.who or given.who,
            at=self.at or given.at,
            list=self.list or given.list,
            subject=self.subject or "",
        )


def read_list(text: Iterable[str], given: Given) -> Iterator[ListEntry]:
    """The entries of a CSV whose first line names its columns; of those only `number` is needed.

    Raises CsvError at the first line that cannot be used.
    """
    return read_lines(
        text,
        lambda cells: _Line.model_validate(cells).entry(given),
        needed=("number",),
        known=COLUMNS,
    )


def write_list(entries: Iterable[ListEntry], *, head: bool = True) -> str:
    """The same entries as CSV. An erased number has an empty cell, and its subject instead."""
    text = io.StringIO()
    lines = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if head:
        lines.writeheader()
    lines.writerows(map(entry_as_json, entries))
    return text.getvalue()


def entry_as_json(entry: ListEntry) -> dict[str, Any]:
    """One entry as it is exported."""
    return {
        "number": entry.number,
        "subject": entry.subject if entry.number is None else None,
        "list": entry.list,
        "listing": entry.listing.value,
        "source": entry.source,
        "who": entry.who,
        "at": stamp(entry.at),
    }
