"""`relay appointments`, `accounts` and `callbacks`: what the tools of agents work with.

Knows the answers of the operator's API and what a book looks like as CSV; the service keeps the books.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from cyclopts import App

from relay.cli.batches import count_lines, send_lines
from relay.cli.client import ask, open_client
from relay.cli.terminal import DONE, JSON, print_json, print_table, tell

appointments = App(name="appointments", help="The times that agents may book.")
accounts = App(name="accounts", help="What agents may tell people of their accounts.")
callbacks = App(name="callbacks", help="Who wants to be called back.")


@appointments.command(name="import")
def import_appointments(file: Path, *, calendar: str, json: JSON = False) -> int:
    """Add times that can be booked; one that is there already stays as it is, booked or not.

    Parameters
    ----------
    file
        CSV whose first line names its columns: starts_at, with its offset from UTC, and perhaps note.
    calendar
        As a profile's scope names it; without a scope it has the agent's name.
    """
    from relay.store.book_csv import read_slots

    counts = _import(
        "/v1/appointments/import", file, partial(read_slots, calendar=calendar), calendar=calendar
    )
    tell(counts, f"{counts['added']} added, {counts['known']} known already", as_json=json)
    return DONE


@appointments.command(name="list")
def list_appointments(*, calendar: str | None = None, json: JSON = False) -> int:
    """The times of a calendar, free and booked.

    Parameters
    ----------
    calendar
        Without it those of all.
    """
    query = {} if calendar is None else {"calendar": calendar}
    columns = ("calendar", "starts_at", "note", "confirmation", "number")
    return _show("/v1/appointments", query, columns, as_json=json)


@appointments.command(name="release")
def release_appointment(confirmation: str, *, json: JSON = False) -> int:
    """Free the time of a confirmation number again."""
    slot = ask("DELETE", f"/v1/appointments/{confirmation}")
    tell(slot, f"{slot['starts_at']}  free again", as_json=json)
    return DONE


@accounts.command(name="import")
def import_accounts(file: Path, *, book: str, json: JSON = False) -> int:
    """Add accounts; one that is there already, by its id, is replaced.

    Parameters
    ----------
    file
        CSV whose first line names its columns: id, number (E.164), and whatever an agent may tell.
    book
        As a profile's scope names it; without a scope it has the agent's name.
    """
    from relay.store.book_csv import read_accounts

    counts = _import("/v1/accounts/import", file, partial(read_accounts, book=book), book=book)
    tell(counts, f"{counts['kept']} kept", as_json=json)
    return DONE


@accounts.command(name="list")
def list_accounts(*, book: str | None = None, json: JSON = False) -> int:
    """The accounts of a book.

    Parameters
    ----------
    book
        Without it those of all.
    """
    query = {} if book is None else {"book": book}
    return _show("/v1/accounts", query, ("book", "id", "number", "fields"), as_json=json)


@accounts.command(name="remove")
def remove_account(id: str, *, book: str, json: JSON = False) -> int:
    """Take an account out."""
    gone = ask("DELETE", "/v1/accounts", params={"book": book, "id": id})
    tell(gone, f"{id}  removed", as_json=json)
    return DONE


@callbacks.command(name="list")
def list_callbacks(*, every: bool = False, json: JSON = False) -> int:
    """Who wants to be called back, and when by their own clock. Nothing is dialled by itself.

    Parameters
    ----------
    every
        Those too that somebody has seen to.
    """
    query = {"all": "true"} if every else {}
    return _show("/v1/callbacks", query, ("id", "at", "number", "agent", "note", "done_by"), as_json=json)


@callbacks.command(name="done")
def settle_callback(id: str, *, who: str | None = None, json: JSON = False) -> int:
    """Somebody has seen to a wish.

    Parameters
    ----------
    who
        Who has.
    """
    wish = ask("POST", f"/v1/callbacks/{id}/done", params={} if who is None else {"who": who})
    tell(wish, f"{id}  done by {wish['done_by']}", as_json=json)
    return DONE


def _import(
    path: str, file: Path, read: Callable[[TextIO], Iterator[object]], **query: str
) -> dict[str, int]:
    from relay.store.csv_lines import CsvError

    lines = count_lines(file, read, CsvError)
    with open_client() as client:
        return send_lines(client, path, file, lines, query)


def _show(path: str, query: dict[str, str], columns: tuple[str, ...], *, as_json: bool) -> int:
    with open_client() as client:
        entries = [entry for page in client.pages(path, **query) for entry in page]
    if as_json:
        print_json(entries)
        return DONE
    print_table(columns, ([_said(entry[name]) for name in columns] for entry in entries))
    return DONE


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {word}" for name, word in value.items())
    return "" if value is None else str(value)
