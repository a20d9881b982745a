"""What the operator's API promises of the books: all lines or none, and a line that is wrong is named."""

from __future__ import annotations

import pytest

from relay.store import Callback, Store
from relay.web.bodies import IMPORT_LINES
from relay.web.books import book_routes
from tests.web.api import KNOWN, NOW, NUMBER, ApiClient, ask, client_of, refusal

SLOTS = "starts_at,note\n2026-03-10T10:00:00-04:00,Doctor Lee\n2026-03-10T11:00:00-04:00,\n"
ACCOUNTS = f"id,number,name,balance\nA1,{NUMBER},Ada,12.50\n"


@pytest.fixture
def client(store: Store) -> ApiClient:
    return client_of(book_routes(store.books, KNOWN, clock=lambda: NOW))


async def test_times_are_opened_listed_and_released(client: ApiClient, store: Store) -> None:
    added = await ask(client, "POST", "/v1/appointments/import?calendar=lakeside", 201, data=SLOTS)
    assert added == {"added": 2, "known": 0}
    again = await ask(client, "POST", "/v1/appointments/import?calendar=lakeside", 201, data=SLOTS)
    assert again == {"added": 0, "known": 2}
    page = await ask(client, "GET", "/v1/appointments?calendar=lakeside&limit=1")
    (first,) = page["entries"]
    assert (first["starts_at"], first["note"], first["confirmation"]) == (
        "2026-03-10T10:00:00-04:00",
        "Doctor Lee",
        None,
    )
    rest = await ask(client, "GET", f"/v1/appointments?after={page['next']}")
    assert [each["starts_at"] for each in rest["entries"]] == ["2026-03-10T11:00:00-04:00"]
    assert rest["next"] is None
    slot = (await store.books.slots(0, 1))[0]
    booked = await store.books.book("lakeside", slot.starts_at, call_id="c", number=NUMBER, at_most=1)
    assert booked is not None
    freed = await ask(client, "DELETE", f"/v1/appointments/{booked.confirmation}")
    assert (freed["confirmation"], freed["number"]) == (None, None)
    gone = await ask(client, "DELETE", f"/v1/appointments/{booked.confirmation}", 404)
    assert gone["error"]["code"] == "not-booked"


@pytest.mark.parametrize(
    ("csv", "says"),
    [
        ("", "line 1: the head must name the column starts_at"),
        ("starts_at,doctor\n", "line 1, column 2: there is no column 'doctor', only starts_at, note"),
        (
            "starts_at\n2026-03-10T10:00:00Z\n2026-03-10T11:00\n",
            "line 3, column starts_at: must be an instant",
        ),
        ("starts_at,note\n2026-03-10T10:00:00Z\n", "line 2: has 1 cells, the head has 2"),
        ('starts_at\n"2026\n', "line 2: not CSV"),
    ],
)
async def test_a_line_of_times_that_cannot_be_used_is_named_and_nothing_is_kept(
    client: ApiClient, store: Store, csv: str, says: str
) -> None:
    assert says in await refusal(client, "POST", "/v1/appointments/import?calendar=lakeside", 422, data=csv)
    assert await store.books.slots(0, 10) == []


async def test_accounts_are_kept_replaced_listed_and_removed(client: ApiClient) -> None:
    path = "/v1/accounts/import?book=patients"
    assert await ask(client, "POST", path, 201, data=ACCOUNTS) == {"kept": 1}
    await ask(client, "POST", path, 201, data=ACCOUNTS.replace("12.50", ""))
    listed = await ask(client, "GET", "/v1/accounts?book=patients")
    assert listed["entries"] == [
        {"book": "patients", "id": "A1", "number": NUMBER, "fields": {"name": "Ada"}}
    ]
    assert await ask(client, "DELETE", "/v1/accounts?book=patients&id=A1") == {"book": "patients", "id": "A1"}
    assert (await ask(client, "DELETE", "/v1/accounts?book=patients&id=A1", 404))["error"]["code"] == (
        "no-such-account"
    )


@pytest.mark.parametrize(
    ("csv", "says"),
    [
        ("id,name\n", "line 1: the head must name the column number"),
        ("id,number\nA1,2025550143\n", "line 2, column number: must be E.164"),
        (f"id,number\n,{NUMBER}\n", "line 2, column id: must have a value"),
        (f"id,number,name\nA1,{NUMBER},{'x' * 201}\n", "line 2, column name: String should have at most 200"),
        ("id,number,id\n", "line 1: a column is named twice"),
        ("id,number," + ",".join(f"c{n}" for n in range(21)) + "\n", "line 1: 23 columns, at most 22"),
    ],
)
async def test_a_line_of_accounts_that_cannot_be_used_is_named_and_nothing_is_kept(
    client: ApiClient, store: Store, csv: str, says: str
) -> None:
    assert says in await refusal(client, "POST", "/v1/accounts/import?book=patients", 422, data=csv)
    assert await store.books.accounts(0, 10) == []


async def test_an_import_is_bounded(client: ApiClient) -> None:
    csv = "id,number\n" + "".join(f"A{n},{NUMBER}\n" for n in range(IMPORT_LINES + 1))
    assert "at most 1000 lines" in await refusal(
        client, "POST", "/v1/accounts/import?book=patients", 422, data=csv
    )


async def test_a_wish_is_listed_until_somebody_has_seen_to_it(client: ApiClient, store: Store) -> None:
    wish = Callback("callback_1", "call_1", "default", NUMBER, NOW, "the crown", NOW)
    await store.books.wish_callback(wish)
    (listed,) = (await ask(client, "GET", "/v1/callbacks"))["entries"]
    assert (listed["id"], listed["number"], listed["note"]) == ("callback_1", NUMBER, "the crown")
    done = await ask(client, "POST", "/v1/callbacks/callback_1/done?who=ada")
    assert done["done_by"] == "ada"
    assert (await ask(client, "GET", "/v1/callbacks"))["entries"] == []
    assert len((await ask(client, "GET", "/v1/callbacks?all=true"))["entries"]) == 1
    assert (await ask(client, "POST", "/v1/callbacks/lost/done", 404))["error"]["code"] == "no-such-callback"


@pytest.mark.parametrize("path", ["/v1/appointments", "/v1/accounts", "/v1/callbacks"])
async def test_only_who_has_the_token_may_look(client: ApiClient, path: str) -> None:
    assert (await client.get(path)).status_code == 401
