"""Who may use the operator's API, and how often: the one place where a bearer token is looked at.

Knows Quart and the token's digest, and nothing of what is asked.
"""

from __future__ import annotations

import hashlib
import hmac
import math

import trio
from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from relay.web.answers import error
from relay.web.rates import Rate, Rates

# Of the token's owners, on each part of the API. Room for a console that looks at every call twice a second;
# a client that went wild leaves the live calls their share of the loop.
API_RATE = Rate(per_second=500, burst=1000)
# Of wrong tokens from one address. The right one is never counted here: all may come from one balancer.
GUESS_RATE = Rate(per_second=2, burst=20)


def bearer_only(name: str, api_token: str | None) -> Blueprint:
    """An empty blueprint under `/v1`. Of its token the digest is given; without one everyone is refused."""
    routes = Blueprint(name, __name__, url_prefix="/v1")
    known = api_token or None
    uses, guesses = Rates(API_RATE, keys=1), Rates(GUESS_RATE)

    @routes.before_request
    async def authorise() -> ResponseReturnValue | None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Digests are of one length, so the comparison tells nothing of the token, not even how long it is.
        is_right = known is not None and hmac.compare_digest(token_digest(given), known)
        is_operator = scheme == "Bearer" and is_right
        rates, key = (uses, name) if is_operator else (guesses, request.remote_addr or "")
        if wait_seconds := rates.take(key, trio.current_time()):
            seconds = math.ceil(wait_seconds)
            return error(429, "too-many-requests", f"try again in {seconds} s", Retry_After=str(seconds))
        if is_operator:
            return None
        remedy = "send the RELAY_API_TOKEN of the service as a bearer token"
        return error(401, "unauthorized", remedy if known else "RELAY_API_TOKEN is not set on the service")

    return routes


def token_digest(token: str) -> str:
    """What the service is told of its token, as the settings have it."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"
