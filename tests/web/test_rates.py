"""How often is too often: the buckets, the lines of a log, and what the API answers to whom.

Must not know real time: instants are numbers, and for the API the clock stands still.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from relay.store import MemoryStore
from relay.web.bearer import API_RATE, GUESS_RATE
from relay.web.evidence import evidence_routes
from relay.web.rates import Rate, Rates, Tidings
from tests.web.api import BEARER, KNOWN, TOKEN, ApiClient, client_of

TEN_AT_ONCE = Rate(per_second=2, burst=10)
GUESS = {"Authorization": "Bearer guess"}

steps = st.lists(st.floats(0, 3), max_size=100)


def test_a_burst_is_let_through_and_then_as_much_as_the_rate_gives_back() -> None:
    rates = Rates(TEN_AT_ONCE)
    assert [rates.take("a", 7.3) for _ in range(10)] == [0.0] * 10
    assert rates.take("a", 7.3) == pytest.approx(0.5)
    assert rates.take("a", 7.7) == pytest.approx(0.1)
    assert rates.take("a", 7.8) == 0.0
    assert rates.take("a", 7.8) > 0


def test_one_keys_excess_is_not_anothers() -> None:
    rates = Rates(Rate(per_second=1, burst=1))
    assert (rates.take("a", 0), rates.take("b", 0)) == (0.0, 0.0)
    assert rates.take("a", 0) > 0


@given(steps)
def test_never_more_than_the_burst_and_the_rate_together(pauses: list[float]) -> None:
    rates, now, taken = Rates(TEN_AT_ONCE), 0.0, 0
    for pause in pauses:
        now += pause
        taken += rates.take("a", now) == 0
        assert taken <= TEN_AT_ONCE.burst + TEN_AT_ONCE.per_second * now + 1e-3


@given(steps)
def test_who_waits_as_long_as_was_said_is_let_through(pauses: list[float]) -> None:
    rates, now = Rates(Rate(per_second=3, burst=2)), 0.0
    for pause in pauses:
        now += pause
        if wait_seconds := rates.take("a", now):
            now += wait_seconds
            assert rates.take("a", now) == 0


def test_when_every_bucket_is_in_use_newcomers_share_one_and_the_number_of_buckets_is_bounded() -> None:
    rates = Rates(Rate(per_second=1, burst=1), keys=3)
    assert [rates.take(f"first {n}", 0) for n in range(3)] == [0.0] * 3
    assert rates.take("newcomer", 0) == 0
    assert all(rates.take(f"another newcomer {n}", 0.1) > 0 for n in range(100))


def test_buckets_that_are_full_again_make_room() -> None:
    rates = Rates(Rate(per_second=1, burst=1), keys=3)
    for minute in range(5):
        assert [rates.take(f"{minute} {n}", minute * 60) for n in range(3)] == [0.0] * 3


def test_a_flood_is_told_in_one_line_a_second_and_every_one_is_counted() -> None:
    tidings = Tidings(Rate(per_second=1, burst=3))
    told = [tidings.count(tick / 100) for tick in range(1000)]  # a hundred a second for ten seconds
    lines = [count for count in told if count]
    assert lines[:3] == [1, 1, 1]
    assert len(lines) <= 3 + 10
    assert sum(lines) + 100 >= 1000
    assert tidings.count(1000) == 1000 - sum(lines) + 1


@pytest.fixture
def client(mock_clock: MockClock) -> ApiClient:
    return client_of(evidence_routes(MemoryStore(), KNOWN))


async def ask(client: ApiClient, headers: dict[str, str]) -> int:
    return (await client.get("/v1/calls/call_0/evidence", headers=headers)).status_code


async def test_guessing_tokens_is_slowed_down_and_the_answer_says_when_to_come_back(
    client: ApiClient, mock_clock: MockClock
) -> None:
    guesses = [await ask(client, GUESS) for _ in range(GUESS_RATE.burst + 1)]
    assert guesses == [401] * GUESS_RATE.burst + [429]
    answer = await client.get("/v1/calls/call_0/evidence", headers=GUESS)
    assert (await answer.get_json())["error"]["code"] == "too-many-requests"
    assert int(answer.headers["Retry-After"]) >= 1
    mock_clock.jump(float(answer.headers["Retry-After"]))
    assert await ask(client, GUESS) == 401


async def test_guesses_from_an_address_never_lock_out_the_operator_behind_the_same_balancer(
    client: ApiClient,
) -> None:
    assert [await ask(client, GUESS) for _ in range(GUESS_RATE.burst + 5)][-1] == 429
    assert await ask(client, BEARER) == 404


async def test_an_address_that_a_header_claims_counts_for_nothing(client: ApiClient) -> None:
    claims = [
        {**GUESS, "X-Forwarded-For": f"192.0.2.{n}", "Forwarded": f"for=192.0.2.{n}"} for n in range(30)
    ]
    assert [await ask(client, claim) for claim in claims][-1] == 429


async def test_a_client_that_went_wild_is_told_to_slow_down(client: ApiClient, mock_clock: MockClock) -> None:
    answers = [await ask(client, BEARER) for _ in range(API_RATE.burst + 1)]
    assert set(answers[:-1]) == {404}
    assert answers[-1] == 429
    mock_clock.jump(1)
    assert await ask(client, BEARER) == 404


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN} ", f"bearer{TOKEN}", "Bearer \xe9"],
)
async def test_nothing_but_the_whole_token_opens(client: ApiClient, given: str) -> None:
    assert await ask(client, {"Authorization": given} if given else {}) == 401


@pytest.mark.parametrize("api_token", [None, ""])
@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Bearer None"])
async def test_without_a_configured_token_everyone_is_refused(api_token: str | None, given: str) -> None:
    client = client_of(evidence_routes(MemoryStore(), api_token))
    assert await ask(client, {"Authorization": given}) == 401
