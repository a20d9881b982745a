"""The operator's hand on the books of agents' tools: appointments, accounts, and wishes to be called back.

Knows Quart and the shape of requests; nothing here dials.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import StringConstraints
from quart import Blueprint, jsonify
from quart.typing import ResponseReturnValue
from quart_schema import security_scheme, validate_querystring

from relay.store import Books
from relay.store.book_csv import Name, read_accounts, read_slots
from relay.store.list_csv import PRINTED
from relay.web.answers import error
from relay.web.bearer import bearer_only
from relay.web.bodies import OPERATOR, Body, Clock, Page, read_csv

Id = Annotated[str, StringConstraints(pattern=PRINTED, max_length=64)]


class SlotsQuery(Page):
    """Which page of the appointments; of one calendar, or of all."""

    calendar: str | None = None


class SlotsImportQuery(Body):
    """The calendar of every line: as a profile's `scope.calendar` names it."""

    calendar: Name


class AccountsQuery(Page):
    """Which page of the accounts; of one book, or of all."""

    book: str | None = None


class AccountsImportQuery(Body):
    """The book of every line: as a profile's `scope.accounts` names it."""

    book: Name


class AccountQuery(Body):
    """One account."""

    book: Name
    id: Id


class CallbacksQuery(Page):
    """Which page of the wishes; those that somebody has seen to only with `all`."""

    all: bool = False


class DoneQuery(Body):
    """Who has seen to it."""

    who: Annotated[str, StringConstraints(pattern=PRINTED, max_length=100)] = OPERATOR


def book_routes(books: Books, api_token: str | None, *, clock: Clock) -> Blueprint:
    """`/v1/appointments`, `/v1/accounts` and `/v1/callbacks`."""
    routes = bearer_only("books", api_token)
    _add_appointment_routes(routes, books)
    _add_account_routes(routes, books)
    _add_callback_routes(routes, books, clock)
    return routes


def _add_appointment_routes(routes: Blueprint, books: Books) -> None:
    @routes.get("/appointments")
    @security_scheme([{"bearer": []}])
    @validate_querystring(SlotsQuery)
    async def slots(query_args: SlotsQuery) -> ResponseReturnValue:
        """The times of a calendar, free and booked, in pages."""
        return _page(await books.slots(query_args.after, query_args.limit, query_args.calendar), query_args)

    @routes.post("/appointments/import")
    @security_scheme([{"bearer": []}])
    @validate_querystring(SlotsImportQuery)
    async def open_slots(query_args: SlotsImportQuery) -> ResponseReturnValue:
        """Add the times of a CSV, all or none; those that are there already stay as they are."""
        wanted = await read_csv(partial(read_slots, calendar=query_args.calendar))
        added = await books.open_slots(wanted)
        return jsonify({"added": added, "known": len(wanted) - added}), 201

    @routes.delete("/appointments/<confirmation>")
    @security_scheme([{"bearer": []}])
    async def release(confirmation: str) -> ResponseReturnValue:
        """Free the time of a confirmation number again."""
        slot = await books.release(confirmation)
        if slot is None:
            return error(404, "not-booked", "there is no booking with this confirmation number")
        return jsonify(slot.as_json())


def _add_account_routes(routes: Blueprint, books: Books) -> None:
    @routes.get("/accounts")
    @security_scheme([{"bearer": []}])
    @validate_querystring(AccountsQuery)
    async def accounts(query_args: AccountsQuery) -> ResponseReturnValue:
        """The accounts of a book, in pages."""
        return _page(await books.accounts(query_args.after, query_args.limit, query_args.book), query_args)

    @routes.post("/accounts/import")
    @security_scheme([{"bearer": []}])
    @validate_querystring(AccountsImportQuery)
    async def keep(query_args: AccountsImportQuery) -> ResponseReturnValue:
        """Add the accounts of a CSV, all or none; one that is there already, by its id, is replaced."""
        wanted = await read_csv(partial(read_accounts, book=query_args.book))
        await books.keep_accounts(wanted)
        return jsonify({"kept": len(wanted)}), 201

    @routes.delete("/accounts")
    @security_scheme([{"bearer": []}])
    @validate_querystring(AccountQuery)
    async def remove(query_args: AccountQuery) -> ResponseReturnValue:
        """Take an account out."""
        if not await books.remove_account(query_args.book, query_args.id):
            return error(404, "no-such-account", "there is no such account in this book")
        return jsonify({"book": query_args.book, "id": query_args.id})


def _add_callback_routes(routes: Blueprint, books: Books, clock: Clock) -> None:
    @routes.get("/callbacks")
    @security_scheme([{"bearer": []}])
    @validate_querystring(CallbacksQuery)
    async def callbacks(query_args: CallbacksQuery) -> ResponseReturnValue:
        """Who wants to be called back and when, in pages."""
        found = await books.callbacks(query_args.after, query_args.limit, open_only=not query_args.all)
        return _page(found, query_args)

    @routes.post("/callbacks/<callback_id>/done")
    @security_scheme([{"bearer": []}])
    @validate_querystring(DoneQuery)
    async def done(callback_id: str, query_args: DoneQuery) -> ResponseReturnValue:
        """Somebody has seen to a wish; the first word counts."""
        wish = await books.settle_callback(callback_id, query_args.who, clock())
        if wish is None:
            return error(404, "no-such-callback", "there is no such wish")
        return jsonify(wish.as_json())


def _page(found: list[Any], query: Page) -> ResponseReturnValue:
    after = found[-1].position if len(found) == query.limit else None
    return jsonify({"entries": [each.as_json() for each in found], "next": after})
