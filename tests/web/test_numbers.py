"""What the operator's API promises about numbers: nothing is lost, and what cannot be used is named.

Must not know which ledger keeps it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.compliance import OWN_LIST
from relay.store import MemoryStore, Store, StoreError
from relay.store.csv_lines import CsvError
from relay.store.ledger import ListEntry, Listing, WishKind
from relay.store.list_csv import Given, read_list, write_list
from relay.store.records import stamp
from relay.web.bodies import IMPORT_LINES
from relay.web.numbers import numbers_routes
from tests.store.conftest import a_call
from tests.web.api import BEARER, KNOWN, NOW, NUMBER, OTHER, ApiClient, ask, client_of, refusal

SUBJECT = "0123456789abcdef" * 4
ESCAPED = NUMBER.replace("+", "%2B")
CONSENT = {
    "number": NUMBER,
    "form": "written",
    "purpose": "telemarketing",
    "seller": "Acme",
    "given_at": "2026-03-01T10:00:00Z",
    "text_shown": "You agree to automated calls.",
    "source": "form 7",
}


@pytest.fixture
def client(store: Store) -> ApiClient:
    return client_of(numbers_routes(store, KNOWN, clock=lambda: NOW))


async def add(client: ApiClient, number: str = NUMBER, **fields: str) -> Any:
    return await ask(client, "POST", "/v1/dnc", 201, json={"number": number, "source": "letter", **fields})


async def load(client: ApiClient, csv: str, status: int = 201, query: str = "") -> Any:
    return await ask(client, "POST", f"/v1/dnc/import{query}", status, data=csv)


# ---- the suppression list ----------------------------------------------------------------------------------


async def test_a_number_that_was_added_is_listed_with_its_instant_and_its_source(
    client: ApiClient,
) -> None:
    added = await add(client, note="the second one", who="ada")
    assert (added["source"], added["who"], added["list"]) == ("letter: the second one", "ada", OWN_LIST)
    found = await ask(client, "GET", f"/v1/dnc?number={ESCAPED}")
    assert found["listed"] is True
    assert (found["since"], found["source"]) == (stamp(NOW), "letter: the second one")
    assert found["lists"] == [OWN_LIST]


async def test_a_number_of_which_nothing_is_known_is_not_listed(client: ApiClient) -> None:
    found = await ask(client, "GET", f"/v1/dnc?number={ESCAPED}")
    assert (found["listed"], found["since"], found["source"], found["history"]) == (False, None, None, [])


async def test_the_gate_sees_what_the_operator_added(client: ApiClient, store: Store) -> None:
    await add(client)
    (suppression,) = (await store.facts(NUMBER, NOW)).suppressions or ()
    assert (suppression.list, suppression.since) == (OWN_LIST, NOW)


async def test_a_live_call_to_a_number_that_is_added_is_told_to_stop(client: ApiClient, store: Store) -> None:
    await store.add(a_call(to=NUMBER, owner="node"))
    await add(client)
    assert [wish.kind for wish in await store.wishes("node")] == [WishKind.STOP]


async def test_a_removal_is_one_more_entry_with_who_and_why(client: ApiClient) -> None:
    await add(client)
    await ask(client, "DELETE", f"/v1/dnc/{NUMBER}?why=a+mistake&who=ada")
    found = await ask(client, "GET", f"/v1/dnc?number={ESCAPED}")
    assert found["listed"] is False
    told = [(entry["listing"], entry["source"], entry["who"]) for entry in found["history"]]
    assert told == [("added", "letter", "operator"), ("removed", "a mistake", "ada")]


async def test_a_number_is_not_removed_without_a_reason(client: ApiClient) -> None:
    await add(client)
    assert "why" in await refusal(client, "DELETE", f"/v1/dnc/{NUMBER}", 422)


async def test_what_is_not_listed_cannot_be_removed(client: ApiClient) -> None:
    told = await refusal(client, "DELETE", f"/v1/dnc/{NUMBER}?why=a+mistake", 404)
    assert told.startswith("not-listed: ")


@pytest.mark.parametrize(
    "number", ["", "2025550143", "+0202555", "+1 202 555 0143", "+12025550143\n", "+1٢٠٢555"]
)
async def test_what_is_no_number_is_refused_by_name(client: ApiClient, number: str) -> None:
    told = await refusal(client, "POST", "/v1/dnc", 422, json={"number": number, "source": "letter"})
    assert told.startswith("bad-value: number: ")


async def test_a_bare_plus_in_a_query_is_explained(client: ApiClient) -> None:
    assert "%2B" in await refusal(client, "GET", f"/v1/dnc?number={NUMBER}", 422)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"number": NUMBER},
        {"number": NUMBER, "source": "a\x00b"},
        {"number": NUMBER, "source": "a", "x": 1},
    ],
)
async def test_a_body_that_cannot_be_used_changes_nothing(
    client: ApiClient, store: Store, body: dict[str, Any]
) -> None:
    assert (await refusal(client, "POST", "/v1/dnc", 422, json=body)).startswith("bad-value: ")
    assert await store.suppressions(0, 10) == []


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer guess"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/dnc"),
        ("POST", "/v1/dnc"),
        ("POST", "/v1/dnc/import"),
        ("DELETE", f"/v1/dnc/{NUMBER}"),
        ("GET", "/v1/consents"),
        ("POST", "/v1/consents"),
        ("POST", "/v1/consents/revoke"),
        ("GET", f"/v1/subjects/{NUMBER}"),
        ("DELETE", f"/v1/subjects/{NUMBER}"),
    ],
)
async def test_without_the_token_nobody_learns_or_changes_anything(
    method: str, path: str, headers: dict[str, str]
) -> None:
    client = client_of(numbers_routes(MemoryStore(), KNOWN, clock=lambda: NOW))
    assert (await client.open(path, method=method, headers=headers, json={})).status_code == 401


async def test_without_a_configured_token_everyone_is_refused() -> None:
    client = client_of(numbers_routes(MemoryStore(), None, clock=lambda: NOW))
    answer = await client.get("/v1/dnc", headers={"Authorization": "Bearer None"})
    assert answer.status_code == 401
    assert "not set" in (await answer.get_json())["error"]["message"]


class DownStore(MemoryStore):
    """A ledger that cannot be reached."""

    async def suppress(self, entries: object) -> None:
        raise StoreError("the database did not answer within 5 s")


async def test_a_store_that_is_down_is_told_as_such() -> None:
    client = client_of(numbers_routes(DownStore(), KNOWN, clock=lambda: NOW))
    told = await refusal(client, "POST", "/v1/dnc", 503, json={"number": NUMBER, "source": "letter"})
    assert told == "no-store: the database did not answer within 5 s"


# ---- export and import -------------------------------------------------------------------------------------


async def test_the_export_comes_in_pages_that_name_the_next_one(client: ApiClient) -> None:
    numbers = [f"+1202555{n:04}" for n in range(5)]
    for number in numbers:
        await add(client, number)
    found: list[str] = []
    after: int | None = 0
    while after is not None:
        page = await ask(client, "GET", f"/v1/dnc?limit=2&after={after}")
        found += [entry["number"] for entry in page["entries"]]
        after = page["next"]
    assert found == numbers


async def test_who_asks_for_csv_gets_pages_that_can_be_joined(client: ApiClient) -> None:
    for number in (NUMBER, OTHER):
        await add(client, number)
    text, path = "", "/v1/dnc?limit=1"
    for _ in range(2):
        answer = await client.get(path, headers={**BEARER, "Accept": "text/csv"})
        assert answer.headers["Content-Type"].startswith("text/csv")
        text += await answer.get_data(as_text=True)
        path = answer.headers["Link"].partition(">")[0].lstrip("<")
    given_nothing = Given("?", "?", NOW + timedelta(days=1))
    read = list(read_list(text.splitlines(), given_nothing))
    assert read == [ListEntry(number, Listing.ADDED, "letter", "operator", NOW) for number in (NUMBER, OTHER)]


async def test_an_import_needs_no_more_than_numbers(client: ApiClient, store: Store) -> None:
    answer = await load(client, f"number\n{NUMBER}\n\n{OTHER}\n", query="?source=old+system&who=ada")
    assert answer == {"added": 2, "removed": 0}
    entries = await store.suppressions(0, 10)
    assert [(e.number, e.list, e.source, e.who, e.at) for e in entries] == [
        (number, OWN_LIST, "old system", "ada", NOW) for number in (NUMBER, OTHER)
    ]


async def test_an_import_keeps_what_each_line_says(client: ApiClient, store: Store) -> None:
    csv = f'number,at,source,listing\r\n{NUMBER},2020-02-03T04:05:06Z,"a letter, signed",removed\r\n'
    assert await load(client, csv) == {"added": 0, "removed": 1}
    (entry,) = await store.suppressions(0, 10)
    assert (entry.listing, entry.source, entry.at.year) == (Listing.REMOVED, "a letter, signed", 2020)


async def test_a_copy_of_an_imported_list_says_as_of_when_it_is_complete(
    client: ApiClient, store: Store
) -> None:
    await load(client, f"number\n{NUMBER}\n", query="?list=US-TX&as_of=2026-03-01T00:00:00Z")
    facts = await store.facts(NUMBER, NOW)
    assert [(each.list, each.as_of) for each in facts.lists or ()] == [
        ("US-TX", datetime.fromisoformat("2026-03-01T00:00:00+00:00"))
    ]
    assert [each.list for each in facts.suppressions or ()] == ["US-TX"]
    assert (await refusal(client, "DELETE", f"/v1/dnc/{NUMBER}?why=mine", 404)).startswith("not-listed")


async def test_our_own_list_is_no_copy_of_anything(client: ApiClient) -> None:
    told = await refusal(client, "POST", "/v1/dnc/import?as_of=2026-03-01T00:00:00Z", 422, data="number\n")
    assert told.startswith("bad-value: as_of")


BAD_CSV = [
    ("", "line 1: the head must name the column number"),
    (f"{NUMBER}\n", "line 1: the head must name the column number"),
    (f"number,phone\n{NUMBER},x\n", "line 1, column 2: there is no column 'phone'"),
    ("number,number\n", "line 1: a column is named twice"),
    (f"number\n{NUMBER}\n202 555 0143\n", "line 3, column number: must be E.164"),
    (f'number,source\n{NUMBER},"two\nlines"\n', "line 3, column source: "),
    (f"number,source\n,letter\n{NUMBER},letter\n", "line 2, column number: must have a value"),
    (f"number,source\n{NUMBER}\n", "line 2: has 1 cells, the head has 2"),
    (f"number,at\n{NUMBER},2026-03-01T00:00:00\n", "line 2, column at: "),
    (f"number,list\n{NUMBER},texas\n", "line 2, column list: "),
    (f"number,listing\n{NUMBER},maybe\n", "line 2, column listing: "),
    (f'number\n"{NUMBER}"x\n', "line 2: not CSV: "),
    ("number\n+1202\xe9\n".encode("latin-1"), "the body must be UTF-8"),
]


@pytest.mark.parametrize(("csv", "told"), BAD_CSV)
async def test_an_import_that_cannot_be_read_names_the_place_and_adds_nothing(
    client: ApiClient, store: Store, csv: str | bytes, told: str
) -> None:
    found = await refusal(client, "POST", "/v1/dnc/import", 422, data=csv)
    assert found.startswith(f"bad-csv: {told}")
    assert await store.suppressions(0, 10) == []


async def test_an_import_is_bounded_in_lines_and_in_bytes(client: ApiClient, store: Store) -> None:
    lines = "number\n" + f"{NUMBER}\n" * (IMPORT_LINES + 1)
    assert "at most 1000 lines" in await refusal(client, "POST", "/v1/dnc/import", 422, data=lines)
    long = await client.post("/v1/dnc/import", headers=BEARER, data="number\n" + "\n" * 70_000)
    assert long.status_code == 413
    assert await store.suppressions(0, 10) == []


words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
entries = st.builds(
    ListEntry,
    number=st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True),
    listing=st.sampled_from(Listing),
    source=words,
    who=words,
    at=st.integers(-(10**11), 10**11).map(lambda thousandths: NOW + timedelta(milliseconds=thousandths)),
    list=st.sampled_from(["own", "US", "US-TX"]),
)


@given(st.lists(entries, max_size=5))
def test_what_is_exported_can_be_imported(written: list[ListEntry]) -> None:
    assert list(read_list(write_list(written).splitlines(), Given("?", "?", NOW))) == written


def test_an_erased_number_goes_along_as_its_subject() -> None:
    erased = ListEntry(None, Listing.ADDED, "erasure", "ada", NOW, subject=SUBJECT)
    assert list(read_list(write_list([erased]).splitlines(), Given("?", "?", NOW))) == [erased]


def test_a_spreadsheet_may_put_a_mark_before_the_head() -> None:
    assert [
        entry.number for entry in read_list(["\ufeffNumber \n", f" {NUMBER}\n"], Given("?", "?", NOW))
    ] == [NUMBER]


def test_a_subject_is_no_second_name_for_a_number() -> None:
    with pytest.raises(CsvError, match="line 2, column number"):
        list(read_list(["number,subject", f"{NUMBER},{SUBJECT}"], Given("?", "?", NOW)))


# ---- consents ----------------------------------------------------------------------------------------------


async def test_a_consent_is_kept_as_it_was_given(client: ApiClient, store: Store) -> None:
    await ask(client, "POST", "/v1/consents", 201, json=CONSENT)
    found = await ask(client, "GET", f"/v1/consents?number={ESCAPED}")
    (kept,) = found["consents"]
    given_back = {**kept, "given_at": kept["given_at"].replace(".000Z", "Z")}
    assert given_back == {**{k: v for k, v in CONSENT.items() if k != "number"}, "expires_at": None}
    assert found["revocations"] == []
    (known,) = (await store.facts(NUMBER, NOW)).consents or ()
    assert (known.seller, known.source) == ("Acme", "form 7")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"form": "oral"}, "form"),
        ({"purpose": "spam"}, "purpose"),
        ({"given_at": "2026-03-01T10:00:00"}, "given_at"),
        ({"given_at": "2027-03-01T10:00:00Z"}, "given_at"),
        ({"expires_at": "2026-02-01T10:00:00Z"}, "expires_at"),
        ({"text_shown": ""}, "text_shown"),
        ({"number": "202"}, "number"),
    ],
)
async def test_a_consent_that_proves_nothing_is_refused(
    client: ApiClient, changes: dict[str, str], named: str
) -> None:
    told = await refusal(client, "POST", "/v1/consents", 422, json={**CONSENT, **changes})
    assert told.startswith(f"bad-value: {named}: ")


async def test_a_revocation_is_of_everything_unless_it_says_of_what(client: ApiClient, store: Store) -> None:
    await store.add(a_call(to=NUMBER, owner="node"))
    scoped = {"number": NUMBER, "purpose": "telemarketing", "seller": "Acme"}
    await ask(client, "POST", "/v1/consents/revoke", 201, json=scoped)
    assert await store.wishes("node") == []
    await ask(client, "POST", "/v1/consents/revoke", 201, json={"number": NUMBER})
    assert [wish.kind for wish in await store.wishes("node")] == [WishKind.STOP]
    found = await ask(client, "GET", f"/v1/consents?number={ESCAPED}")
    assert found["revocations"] == [
        {"at": stamp(NOW), "purpose": "telemarketing", "seller": "Acme"},
        {"at": stamp(NOW), "purpose": None, "seller": None},
    ]


async def test_consent_cannot_be_taken_back_tomorrow(client: ApiClient) -> None:
    body = {"number": NUMBER, "at": "2026-03-03T17:30:00Z"}
    assert (await refusal(client, "POST", "/v1/consents/revoke", 422, json=body)).startswith("bad-value: at")


# ---- subjects ----------------------------------------------------------------------------------------------


async def test_a_person_is_told_everything_and_then_forgotten_but_for_the_list(
    client: ApiClient,
) -> None:
    await add(client)
    assert len((await ask(client, "GET", f"/v1/subjects/{NUMBER}"))["suppressions"]) == 1
    nothing: dict[str, list[str]] = {"erased": [], "deferred": [], "recordings": []}
    assert await ask(client, "DELETE", f"/v1/subjects/{NUMBER}?who=ada") == nothing
    page = await ask(client, "GET", "/v1/dnc")
    assert [entry["number"] for entry in page["entries"]] == [None, None]
    assert (await ask(client, "GET", f"/v1/dnc?number={ESCAPED}"))["listed"] is True


async def test_erasing_waits_for_calls_that_are_not_over(client: ApiClient, store: Store) -> None:
    live = await store.add(a_call(to=NUMBER, owner="node"))
    waiting = {"erased": [], "deferred": [live.id], "recordings": []}
    assert await ask(client, "DELETE", f"/v1/subjects/{NUMBER}", 202) == waiting


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_subject_is_named_by_a_number(client: ApiClient, method: str) -> None:
    assert (await refusal(client, method, "/v1/subjects/ada", 422)).startswith("bad-value: ")


# ---- description -------------------------------------------------------------------------------------------


async def test_the_description_of_the_api_has_every_route_behind_the_token(client: ApiClient) -> None:
    described = await (await client.get("/openapi.json")).get_json()
    routes = [route for path in described["paths"].values() for route in path.values()]
    assert "/v1/subjects/{number}" in described["paths"]
    assert [route for route in routes if route.get("security") != [{"bearer": []}]] == []
