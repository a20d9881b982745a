"""`relay appointments`, `accounts` and `callbacks`: what the tools of agents work with.

Knows the answers of the operator's API and what a book looks like as CSV; the service keeps the books.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclopts import App

from relay.cli.batches import count_lines, send_lines
from relay.cli.client import ask, open_client
from relay.cli.terminal import DONE, JSON, print_json, print_table

PAGE_ENTRIES = 1000  # the most that the service gives in one answer

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
    from relay.store.csv_lines import CsvError

    lines = count_lines(file, lambda text: read_slots(text, calendar), CsvError)
    with open_client() as client:
        counts = send_lines(client, "/v1/appointments/import", file, lines, {"calendar": calendar})
    if json:
        print_json(counts)
    else:
        print(f"{counts['added']} added, {counts['known']} known already")
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
    return _show(
        _pages("/v1/appointments", query), ("calendar", "starts_at", "note", "confirmation", "number"), json
    )


@appointments.command(name="release")
def release_appointment(confirmation: str, *, json: JSON = False) -> int:
    """Free the time of a confirmation number again."""
    slot = ask("DELETE", f"/v1/appointments/{confirmation}")
    if json:
        print_json(slot)
    else:
        print(f"{slot['starts_at']}  free again")
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
    from relay.store.csv_lines import CsvError

    lines = count_lines(file, lambda text: read_accounts(text, book), CsvError)
    with open_client() as client:
        counts = send_lines(client, "/v1/accounts/import", file, lines, {"book": book})
    if json:
        print_json(counts)
    else:
        print(f"{counts['kept']} kept")
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
    return _show(_pages("/v1/accounts", query), ("book", "id", "number", "fields"), json)


@accounts.command(name="remove")
def remove_account(id: str, *, book: str, json: JSON = False) -> int:
    """Take an account out."""
    gone = ask("DELETE", "/v1/accounts", params={"book": book, "id": id})
    if json:
        print_json(gone)
    else:
        print(f"{id}  removed")
    return DONE


@callbacks.command(name="list")
def list_callbacks(*, every: bool = False, json: JSON = False) -> int:
    """Who wants to be called back, and when by their own clock. Nothing is dialled by itself.

    Parameters
    ----------
    every
        Those too that somebody has seen to.
    """
    found = _pages("/v1/callbacks", {"all": "true"} if every else {})
    return _show(found, ("id", "at", "number", "agent", "note", "done_by"), json)


@callbacks.command(name="done")
def settle_callback(id: str, *, who: str | None = None, json: JSON = False) -> int:
    """Somebody has seen to a wish.

    Parameters
    ----------
    who
        Who has.
    """
    wish = ask("POST", f"/v1/callbacks/{id}/done", params={} if who is None else {"who": who})
    if json:
        print_json(wish)
    else:
        print(f"{id}  done by {wish['done_by']}")
    return DONE


def _pages(path: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    after: int | None = 0
    with open_client() as client:
        while after is not None:
            page = client.ask("GET", path, params={**query, "after": str(after), "limit": str(PAGE_ENTRIES)})
            yield from page["entries"]
            after = page["next"]


def _show(entries: Iterator[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> int:
    if as_json:
        print_json(list(entries))
        return DONE
    print_table(columns, ([_said(entry[name]) for name in columns] for entry in entries))
    return DONE


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {word}" for name, word in value.items())
    return "" if value is None else str(value)
