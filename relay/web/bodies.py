"""What requests of the operator's API have in common: their bodies, the pages of a list, and imports.

Knows Quart and the shape of requests, and nothing of what is asked.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeVar

import trio
from pydantic import BaseModel, ConfigDict, Field
from quart import request

from relay.store.csv_lines import CsvError

OPERATOR = "operator"  # who did it, when nobody is named: whoever holds the token
IMPORT_LINES = 1000  # in one request: one transaction; more are sent as more requests
PAGE_ENTRIES = 1000  # of a list at most: writing one down takes some 5 ms, in which no sound moves

Clock = Callable[[], datetime]
_Read = TypeVar("_Read")


class Body(BaseModel):
    """Fields, and none that nobody knows."""

    model_config = ConfigDict(extra="forbid")


class Page(Body):
    """Which page of a list."""

    after: int = Field(default=0, ge=0, description="the `next` of the page before")
    limit: int = Field(default=PAGE_ENTRIES, ge=1, le=PAGE_ENTRIES)


async def read_csv(read: Callable[[io.StringIO], Iterator[_Read]]) -> list[_Read]:
    """What the lines of the body say. Raises CsvError, which the application answers."""
    body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    try:
        text = io.StringIO(body.decode(), newline="")
    except UnicodeDecodeError:
        raise CsvError("the body must be UTF-8") from None
    # In a thread: a thousand lines take as long as the sound of all calls may wait at most.
    found: list[_Read] = await trio.to_thread.run_sync(list, read(text))
    if len(found) > IMPORT_LINES:
        raise CsvError(f"at most {IMPORT_LINES} lines in one request, here are {len(found)}")
    return found
