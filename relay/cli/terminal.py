"""What all commands have in common: exit statuses, and how things are said on a terminal.

Knows no command and no service.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.table import Column, Table

DONE, FAILED, USAGE = 0, 1, 2

JSON = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for scripts.")]


class CommandFailed(Exception):
    """The thing asked for failed or was refused; the text says why, to a person."""


def print_json(value: Any) -> None:
    """For scripts, on stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, whole: int = 1) -> None:
    """For a person. Nothing is cut, and the first columns stay whole: they are what is typed next."""
    columns = (Column(head, no_wrap=at < whole, overflow="fold") for at, head in enumerate(heads))
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def tell(answer: Any, text: str, *, as_json: bool) -> None:
    """What the service answered: all of it for a script, in a sentence for a person."""
    if as_json:
        print_json(answer)
    else:
        print(text)


def complain(text: str) -> None:
    """Why a command did not do what was asked, on stderr."""
    sys.stderr.write(f"relay: {text}\n")
