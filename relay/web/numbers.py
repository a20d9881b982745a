"""The operator's hand on what is on record about phone numbers: the suppression list, consents, subjects.

Knows Quart and the shape of requests; what a number may be rung for is the gate's to say.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Any

import orjson
from pydantic import AwareDatetime, Field, StringConstraints
from quart import Blueprint, Response, jsonify, request
from quart.typing import ResponseReturnValue
from quart_schema import security_scheme, validate_querystring, validate_request

from relay.compliance import OWN_LIST, Consent, ConsentForm, Purpose, Revocation
from relay.compliance.numbers import is_e164
from relay.recordings import NO_RECORDINGS, Recordings
from relay.store import Store
from relay.store.ledger import ListEntry, Listing
from relay.store.list_csv import (
    PRINTED,
    Given,
    ListName,
    Number,
    Words,
    entry_as_json,
    read_list,
    write_list,
)
from relay.store.subjects import consents_as_json, listings_as_json
from relay.web.answers import error
from relay.web.bearer import bearer_only
from relay.web.bodies import OPERATOR, Body, Clock, Page, read_csv

CLOCK_SKEW = timedelta(minutes=5)  # how far ahead of ours the clock of whoever reports an event may be

Who = Annotated[str, StringConstraints(pattern=PRINTED, max_length=100)]


class ListBody(Body):
    """What `POST /v1/dnc` takes."""

    number: Number
    source: Who = Field(description="where the wish comes from: callee, letter, complaint, …")
    note: Words | None = Field(default=None, description="kept behind the source")
    who: Who = OPERATOR


class PageQuery(Page):
    """Which page of the export; or one number, and then not a page but its standing."""

    number: str | None = None


class RemoveQuery(Body):
    """Who takes a number off the list, and why: both are kept."""

    why: Words
    who: Who = OPERATOR


class ImportQuery(Body):
    """What holds for every line that does not say it itself.

    `as_of` says that with these lines our copy of an imported list is complete as of then.
    """

    list: ListName = OWN_LIST
    source: Who = "import"
    who: Who = OPERATOR
    as_of: AwareDatetime | None = None


class NumberQuery(Body):
    """Which number."""

    number: str


class ConsentBody(Body):
    """What `POST /v1/consents` takes: what was agreed to, when, and how it can be shown."""

    number: Number
    form: ConsentForm
    purpose: Purpose
    seller: Who
    given_at: AwareDatetime
    text_shown: Annotated[str, StringConstraints(pattern=r"^[^\x00]+$", max_length=5000)]
    source: Words
    expires_at: AwareDatetime | None = None


class RevocationBody(Body):
    """What `POST /v1/consents/revoke` takes; without purpose and seller all consent is gone."""

    number: Number
    purpose: Purpose | None = None
    seller: Who | None = None
    at: AwareDatetime | None = None


class EraseQuery(Body):
    """Who erases."""

    who: Who = OPERATOR


def numbers_routes(
    store: Store, api_token: str | None, *, clock: Clock, recordings: Recordings = NO_RECORDINGS
) -> Blueprint:
    """`/v1/dnc`, `/v1/consents` and `/v1/subjects`; `recordings` are those of this node."""
    routes = bearer_only("numbers", api_token)
    _add_list_routes(routes, store, clock)
    _add_consent_routes(routes, store, clock)
    _add_subject_routes(routes, store, recordings, clock)
    return routes


# ---- the suppression list ----------------------------------------------------------------------------------


def _add_list_routes(routes: Blueprint, store: Store, clock: Clock) -> None:
    @routes.get("/dnc")
    @security_scheme([{"bearer": []}])
    @validate_querystring(PageQuery)
    async def export(query_args: PageQuery) -> ResponseReturnValue:
        """Whether one number is listed; or all that was ever listed, in pages of JSON or CSV (Accept)."""
        if query_args.number is not None:
            if not is_e164(query_args.number):
                return _not_e164("number")
            return jsonify(await _standing(store, query_args.number))
        page = await store.suppressions(query_args.after, query_args.limit)
        after = page[-1].position if len(page) == query_args.limit else None
        if request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv":
            answer = Response(
                write_list(page, head=query_args.after == 0), content_type="text/csv; charset=utf-8"
            )
        else:
            content = {"entries": [entry_as_json(entry) for entry in page], "next": after}
            answer = Response(orjson.dumps(content), content_type="application/json")
        if after is not None:
            answer.headers["Link"] = f'</v1/dnc?after={after}&limit={query_args.limit}>; rel="next"'
        return answer

    @routes.post("/dnc")
    @security_scheme([{"bearer": []}])
    @validate_request(ListBody)
    async def add(data: ListBody) -> ResponseReturnValue:
        """Put a number on our own list; its calls that are queued, ringing or live end."""
        source = f"{data.source}: {data.note}" if data.note else data.source
        entry = ListEntry(data.number, Listing.ADDED, source, data.who, clock())
        await store.suppress([entry])
        return jsonify(entry_as_json(entry)), 201

    @routes.delete("/dnc/<number>")
    @security_scheme([{"bearer": []}])
    @validate_querystring(RemoveQuery)
    async def remove(number: str, query_args: RemoveQuery) -> ResponseReturnValue:
        """Take a number off our own list; the list keeps both entries."""
        if not is_e164(number):
            return _not_e164("the number in the path")
        standing = await _standing(store, number)
        if OWN_LIST not in standing["lists"]:
            return error(404, "not-listed", "the number is not on our own list")
        entry = ListEntry(number, Listing.REMOVED, query_args.why, query_args.who, clock())
        await store.suppress([entry])
        return jsonify(entry_as_json(entry))

    @routes.post("/dnc/import")
    @security_scheme([{"bearer": []}])
    @validate_querystring(ImportQuery)
    async def add_all(query_args: ImportQuery) -> ResponseReturnValue:
        """Add the lines of a CSV, all or none."""
        if query_args.as_of is not None and query_args.list == OWN_LIST:
            return error(
                422, "bad-value", "as_of: our own list is no copy; name an imported one with list=US-TX"
            )
        given = Given(query_args.source, query_args.who, clock(), query_args.list)
        entries = await read_csv(partial(read_list, given=given))
        await store.suppress(entries)
        if query_args.as_of is not None:
            await store.renew_list(query_args.list, query_args.as_of)
        added = sum(entry.listing is Listing.ADDED for entry in entries)
        return jsonify({"added": added, "removed": len(entries) - added}), 201


async def _standing(store: Store, number: str) -> dict[str, Any]:
    """Whether a number is listed now, and everything that was ever said about that."""
    history = listings_as_json(await store.listings(number))
    newest = {entry["list"]: entry for entry in history}
    lists = {name: entry for name, entry in newest.items() if entry["listing"] == Listing.ADDED}
    first = lists.get(OWN_LIST) or next(iter(lists.values()), None)
    return {
        "number": number,
        "listed": bool(lists),
        "since": first and first["at"],
        "source": first and first["source"],
        "lists": list(lists),
        "history": history,
    }


# ---- consents ----------------------------------------------------------------------------------------------


def _add_consent_routes(routes: Blueprint, store: Store, clock: Clock) -> None:
    @routes.get("/consents")
    @security_scheme([{"bearer": []}])
    @validate_querystring(NumberQuery)
    async def consents(query_args: NumberQuery) -> ResponseReturnValue:
        """What a number has agreed to, and what of it was taken back."""
        if not is_e164(query_args.number):
            return _not_e164("number")
        known = await store.facts(query_args.number, clock())
        agreed = consents_as_json(known.consents or (), known.revocations or ())
        return jsonify({"number": query_args.number, **agreed})

    @routes.post("/consents")
    @security_scheme([{"bearer": []}])
    @validate_request(ConsentBody)
    async def consent(data: ConsentBody) -> ResponseReturnValue:
        """Record a consent."""
        if data.given_at > clock() + CLOCK_SKEW:
            return error(422, "bad-value", "given_at: lies in the future")
        if data.expires_at is not None and data.expires_at <= data.given_at:
            return error(422, "bad-value", "expires_at: is not after given_at")
        fields = data.model_dump(exclude={"number"})
        await store.consent(data.number, Consent(**fields))
        return jsonify(data.model_dump(mode="json")), 201

    @routes.post("/consents/revoke")
    @security_scheme([{"bearer": []}])
    @validate_request(RevocationBody)
    async def revoke(data: RevocationBody) -> ResponseReturnValue:
        """Record that consent was taken back; if all of it, calls that are queued, ringing or live end."""
        now = clock()
        if data.at is not None and data.at > now + CLOCK_SKEW:
            return error(422, "bad-value", "at: lies in the future")
        revocation = Revocation(data.at or now, data.purpose, data.seller)
        await store.revoke(data.number, revocation)
        return jsonify(data.model_copy(update={"at": revocation.at}).model_dump(mode="json")), 201


# ---- subjects ----------------------------------------------------------------------------------------------


def _add_subject_routes(routes: Blueprint, store: Store, recordings: Recordings, clock: Clock) -> None:
    @routes.get("/subjects/<number>")
    @security_scheme([{"bearer": []}])
    async def subject(number: str) -> ResponseReturnValue:
        """Everything that is on record about a number."""
        if not is_e164(number):
            return _not_e164("the number in the path")
        return jsonify(await store.export_subject(number))

    @routes.delete("/subjects/<number>")
    @security_scheme([{"bearer": []}])
    @validate_querystring(EraseQuery)
    async def erase(number: str, query_args: EraseQuery) -> ResponseReturnValue:
        """Take out what is known of a person, who is never called again; 202 while calls must end first.

        `recordings` are at the carrier, and are to be deleted there: this answer is the last that names them.
        """
        if not is_e164(number):
            return _not_e164("the number in the path")
        erasure = await store.erase(number, query_args.who, clock())
        await recordings.erase(erasure.erased)  # those of other nodes go with their next round
        answer = {"erased": list(erasure.erased), "deferred": list(erasure.deferred)}
        answer["recordings"] = list(erasure.recordings)
        return jsonify(answer), 202 if erasure.deferred else 200


def _not_e164(where: str) -> ResponseReturnValue:
    remedy = " (in a query the plus sign is written %2B)" if where == "number" else ""
    return error(422, "bad-value", f"{where}: must be E.164, a plus sign and 7 to 15 digits{remedy}")
