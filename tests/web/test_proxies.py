"""What a proxy says of a request: nothing decides by it but our own balancer's word on who asks."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
import trio

from relay.telemetry.metrics import Metrics
from relay.web.app import create_app
from relay.web.client_address import client_address
from relay.web.metrics import metrics_routes
from relay.web.numbers import numbers_routes
from relay.web.trust import Trust
from relay.web.webhooks import webhook_routes
from relay.wire.signature import sign
from tests.test_switchboard import open_desk
from tests.web.api import KNOWN, ApiClient, client_of

OURS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
STRANGER, CLIENT = "198.51.100.9", "192.0.2.66"
PUBLIC_URL, AUTH_TOKEN = "https://relay.test", "auth-token"


# ---- who asks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "claimed", "expected"),
    [
        ("10.0.0.1", [CLIENT], CLIENT),
        ("10.0.0.1", [f"{STRANGER}, {CLIENT}"], CLIENT),  # the client itself claimed to be the stranger
        ("10.0.0.1", [STRANGER, CLIENT], CLIENT),  # in a header of its own, likewise
        ("10.0.0.1", [f"{CLIENT}, 10.0.0.2"], CLIENT),  # two balancers, one behind the other
        ("fd00::1", [CLIENT], CLIENT),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", [f"{CLIENT}, _hidden"], "10.0.0.1"),
        (STRANGER, [CLIENT], STRANGER),
        ("", [CLIENT], ""),
    ],
)
def test_only_our_own_balancers_word_counts(peer: str, claimed: list[str], expected: str) -> None:
    assert client_address(peer, claimed, OURS) == expected


def test_by_default_nobodys_word_counts() -> None:
    assert client_address("127.0.0.1", [CLIENT], ()) == "127.0.0.1"


@pytest.mark.parametrize(("proxies", "is_slowed"), [((), True), (("10.0.0.0/8",), False)])
async def test_guessed_tokens_are_counted_by_the_client_where_the_balancer_is_known(
    proxies: tuple[str, ...], is_slowed: bool, mock_clock: trio.testing.MockClock
) -> None:
    app = create_app(numbers_routes(None, KNOWN, clock=None), proxies=proxies)  # type: ignore[arg-type]
    client, statuses = app.test_client(), set()
    for number in range(30):
        answer = await client.get(
            "/v1/dnc",
            headers={"Authorization": "Bearer guess", "X-Forwarded-For": f"192.0.2.{number}"},
            scope_base={"client": ("10.0.0.1", 4242)},
        )
        statuses.add(answer.status_code)
    assert statuses == ({401, 429} if is_slowed else {401})


# ---- signatures --------------------------------------------------------------------------------------------


async def asked(client: ApiClient, signed_url: str, **headers: str) -> int:
    form = {"CallSid": "CA" + "0" * 32, "CallStatus": "ringing"}
    signature = sign(AUTH_TOKEN, signed_url, form.items())
    answer = await client.post(
        "/twilio/status?call=call_0", form=form, headers={"X-Twilio-Signature": signature, **headers}
    )
    return int(answer.status_code)


CLAIMS: list[dict[str, Any]] = [
    {"Host": "evil.test"},
    {"X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "https"},
    {"Forwarded": "host=evil.test;proto=https"},
    {"X-Original-Url": "https://evil.test/twilio/status?call=call_0"},
]


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
async def test_a_signature_is_held_against_our_public_address_whatever_a_header_claims(
    claim: dict[str, str], autojump_clock: trio.abc.Clock
) -> None:
    async with open_desk() as desk:
        trust = Trust(PUBLIC_URL, "AC" + "0" * 32, (AUTH_TOKEN,), None)
        client = client_of(webhook_routes(desk.board, trust), metrics_routes(Metrics()))
        assert await asked(client, f"{PUBLIC_URL}/twilio/status?call=call_0", **claim) == 204
        assert await asked(client, "https://evil.test/twilio/status?call=call_0", **claim) == 403
        assert await asked(client, "http://evil.test/twilio/status?call=call_0", **claim) == 403
