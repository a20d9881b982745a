"""The gate explains itself rule by rule, and asking changes nothing.

Knows the gate through its findings alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.compliance import DialRequest, Purpose, Rulebook, check, load_rulebook
from relay.placing import Agent, Cast
from relay.profiles import Profile
from relay.store import MemoryStore
from relay.store.ledger import ListEntry, Listing
from relay.web.explain import explain_routes
from tests.web.api import KNOWN, NOW, NUMBER, OTHER, ApiClient, ask, client_of

RULEBOOK = load_rulebook()
CAP = "spend-cap"  # the finding and the refusal
NOON = datetime(2027, 3, 9, 17, 0, tzinfo=UTC)  # a Tuesday in the review period of the packaged rules
NIGHT = NOON.replace(hour=8)  # three in the morning where the number may ring
AGENT = Profile(
    name="default",
    purpose="informational",
    disclosure="Hello, this is the automated assistant of Acme.",
    system_prompt="Be brief.",
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def client_at(
    store: MemoryStore,
    now: datetime,
    rule_time: Callable[[], datetime | None] = lambda: None,
    rulebook: Rulebook = RULEBOOK,
) -> ApiClient:
    routes = explain_routes(
        store,
        rulebook,
        KNOWN,
        agents=Cast({AGENT.name: Agent(AGENT)}),
        from_number=OTHER,
        clock=lambda: now,
        rule_time=rule_time,
    )
    return client_of(routes)


async def explain(client: ApiClient, status: int = 200, **body: str) -> dict[str, Any]:
    found: dict[str, Any] = await ask(client, "POST", "/v1/check", status, json={"to": NUMBER, **body})
    return found


async def test_a_number_that_may_be_dialled_is_explained_with_every_rule(store: MemoryStore) -> None:
    found = await explain(client_at(store, NOON))
    assert (found["allowed"], found["refusal"]) == (True, None)
    assert {rule.id for rule in RULEBOOK.rules} <= {each["rule"] for each in found["verdict"]["findings"]}


async def test_the_refusal_that_speaks_is_the_one_a_dial_would_get(store: MemoryStore) -> None:
    await store.suppress([ListEntry(NUMBER, Listing.ADDED, "letter", "ada", NOW)])
    found = await explain(client_at(store, NOON))
    assert found["allowed"] is False
    assert found["refusal"]["code"] == "dnc-listed"


async def test_the_spend_cap_is_explained_too(store: MemoryStore) -> None:
    def told(found: dict[str, Any]) -> str:
        return next(str(each["explanation"]) for each in found["verdict"]["findings"] if each["rule"] == CAP)

    thrifty = replace(RULEBOOK, dials_per_hour=1)
    client = client_at(store, NOON, rulebook=thrifty)
    found = await explain(client)
    assert found["allowed"] is True
    assert told(found).startswith("There were 0 of at most 1 dials")
    asked = DialRequest("call_1", 1, OTHER, NUMBER, Purpose.INFORMATIONAL, "Acme")
    await store.permit(asked, lambda facts: check(asked, facts, thrifty, NOON))
    found = await explain(client)
    assert found["refusal"]["code"] == CAP
    assert told(found).startswith("There were 1 of at most 1 dials")


async def test_a_stricter_purpose_brings_its_rules(store: MemoryStore) -> None:
    found = await explain(client_at(store, NOON), purpose="telemarketing")
    assert found["refusal"]["code"] == "consent-missing"


async def test_the_clock_of_the_rules_counts_for_the_hours(store: MemoryStore) -> None:
    assert (await explain(client_at(store, NIGHT)))["refusal"]["code"] == "outside-hours"
    assert (await explain(client_at(store, NIGHT, lambda: NOON)))["allowed"] is True


async def test_an_address_that_is_given_counts_besides_the_number(store: MemoryStore) -> None:
    early = NOON.replace(hour=14)  # nine in Washington
    assert (await explain(client_at(store, early)))["allowed"] is True
    found = await explain(client_at(store, early), state="US-WA", zone="America/Los_Angeles")
    assert found["refusal"]["code"] == "outside-hours"
    assert found["verdict"]["places"] == ["US-DC", "US-WA"]


async def test_a_number_without_a_place_is_explained_too(store: MemoryStore) -> None:
    found = await explain(client_at(store, NOON), to="+18005550143")
    assert found["refusal"]["code"] == "number-kind"


async def test_asking_leaves_no_trace(store: MemoryStore) -> None:
    before = await store.export_subject(NUMBER)
    await explain(client_at(store, NOON))
    assert await store.export_subject(NUMBER) == before
    assert await store.dials_since(NOW) == 0


@pytest.mark.parametrize(
    ("body", "code", "remedy"),
    [
        ({"agent": "nobody"}, "unknown-agent", "`relay agents list` shows them"),
        (
            {"to": "202"},
            "bad-value",
            "to: must be E.164: a plus sign, country code and number, as +1",
        ),
        ({"purpose": "x"}, "bad-value", "purpose: must be 'informational', 'collections' or 'telemarketing'"),
        ({"state": "Texas"}, "bad-value", "state: must be an ISO 3166-2 code, as US-TX"),
        (
            {"zone": "Central"},
            "bad-value",
            "zone: 'Central' is not an IANA time zone such as America/",
        ),
        ({"zone": "../../etc/passwd"}, "bad-value", "is not an IANA time zone"),
    ],
)
async def test_what_cannot_be_explained_is_refused_in_words(
    store: MemoryStore, body: dict[str, str], code: str, remedy: str
) -> None:
    refusal = (await explain(client_at(store, NOON), 422, **body))["error"]
    assert refusal["code"] == code
    assert remedy in refusal["message"]


async def test_only_who_has_the_token_may_ask(store: MemoryStore) -> None:
    answer = await client_at(store, NOON).post("/v1/check", json={"to": NUMBER})
    assert answer.status_code == 401
