"""`relay dnc`: the list of numbers that are never called.

Knows the answers of the operator's API and what a list looks like as CSV; the service keeps the list.
"""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TextIO
from urllib.parse import quote

import orjson
from cyclopts import App, Parameter

from relay.cli.batches import count_lines, send_lines
from relay.cli.client import Client, ask, open_client
from relay.cli.terminal import DONE, JSON, USAGE, CommandFailed, complain, tell

OWN_LIST = "own"

dnc = App(name="dnc", help="The numbers that are never called.")


@dnc.command(name="add")
def add_number(
    number: str,
    *,
    source: str = "operator",
    note: str | None = None,
    who: str | None = None,
    json: JSON = False,
) -> int:
    """Never call a number again; calls to it that are queued, ringing or live end.

    Parameters
    ----------
    number
        In E.164.
    source
        Where the wish comes from: callee, letter, complaint, …
    note
        Kept behind the source.
    who
        Who adds it.
    """
    entry = ask("POST", "/v1/dnc", json=_given(number=number, source=source, note=note, who=who))
    tell(entry, f"{number}  listed since {entry['at']}", as_json=json)
    return DONE


@dnc.command(name="remove")
def remove_number(number: str, *, why: str, who: str | None = None, json: JSON = False) -> int:
    """Take a number off our own list; the list keeps both entries.

    Parameters
    ----------
    number
        In E.164.
    why
        The reason, which is kept.
    who
        Who removes it.
    """
    entry = ask("DELETE", f"/v1/dnc/{quote(number, safe='+')}", params=_given(why=why, who=who))
    tell(entry, f"{number}  removed", as_json=json)
    return DONE


@dnc.command(name="check")
def check_number(number: str, *, json: JSON = False) -> int:
    """Whether a number is listed, since when and why."""
    found = ask("GET", "/v1/dnc", params={"number": number})
    since = f"listed since {found['since']} ({found['source']}; lists: {', '.join(found['lists'])})"
    tell(found, f"{number}  {since if found['listed'] else 'not listed'}", as_json=json)
    return DONE


@dnc.command(name="import")
def import_list(
    file: Path,
    *,
    of_list: Annotated[str, Parameter(name="--list")] = OWN_LIST,
    as_of: datetime | None = None,
    source: str = "import",
    who: str | None = None,
    json: JSON = False,
) -> int:
    """Add the numbers of a CSV file. Nothing is sent before the whole file was read without a mistake.

    Parameters
    ----------
    file
        CSV whose first line names its columns: number, and perhaps subject, list, listing, source, who, at.
    of_list
        The list of the lines that name none: own, or a copy of an official one (US, US-TX, …).
    as_of
        With an official list: the instant, with its zone, as of which this file is a complete copy of it.
    source
        The source of the lines that name none.
    who
        Who imports.
    """
    if as_of is not None and (as_of.tzinfo is None or of_list == OWN_LIST):
        complain(
            "--as-of takes an instant with its zone, such as 2026-03-01T00:00:00Z, and an official --list"
        )
        return USAGE
    lines = _count(file)
    query = _given(list=of_list, source=source, who=who)
    # The copy is not complete before its last line is there.
    dated = {"as_of": as_of.isoformat()} if as_of is not None else {}
    with open_client() as client:
        counts = send_lines(client, "/v1/dnc/import", file, lines, query, at_last=dated)
    tell(counts, f"{counts['added']} added, {counts['removed']} removed", as_json=json)
    return DONE


def _count(file: Path) -> int:
    """How many entries a file has; CommandFailed at its first mistake."""
    from relay.store.csv_lines import CsvError
    from relay.store.list_csv import Given, read_list

    nobody = Given("", "", datetime.now(UTC))
    return count_lines(file, lambda text: read_list(text, nobody), CsvError)


@dnc.command(name="export")
def export_list(*, output: Path | None = None, json: JSON = False) -> int:
    """Everything that was ever added or removed, in order; as CSV it can be imported again.

    Parameters
    ----------
    output
        The file to write; without it stdout.
    """
    with open_client() as client:
        if output is None:
            _export(client, sys.stdout, as_json=json)
            return DONE
        try:
            with output.open("w", encoding="utf-8", newline="") as out:
                _export(client, out, as_json=json)
        except OSError as problem:
            raise CommandFailed(f"{output} cannot be written ({problem.strerror})") from None
    return DONE


def _export(client: Client, out: TextIO, *, as_json: bool) -> None:
    if as_json:
        entries = [entry for page in client.pages("/v1/dnc") for entry in page]
        out.write(orjson.dumps(entries, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())
        return
    from relay.store.list_csv import COLUMNS

    lines = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    lines.writeheader()
    for page in client.pages("/v1/dnc"):
        lines.writerows(page)


def _given(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}
