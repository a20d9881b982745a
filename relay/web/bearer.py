"""Who may use the operator's API: the one place where a bearer token is looked at.

Knows Quart and the token, and nothing of what is asked.
"""

from __future__ import annotations

import hmac

from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from relay.web.answers import error


def bearer_only(name: str, api_token: str | None) -> Blueprint:
    """An empty blueprint under `/v1`; without a configured token everyone is refused."""
    routes = Blueprint(name, __name__, url_prefix="/v1")

    @routes.before_request
    async def authorise() -> ResponseReturnValue | None:
        given = request.headers.get("Authorization", "").encode()
        if api_token and hmac.compare_digest(given, f"Bearer {api_token}".encode()):
            return None
        remedy = "send the RELAY_API_TOKEN of the service as a bearer token"
        return error(
            401, "unauthorized", remedy if api_token else "RELAY_API_TOKEN is not set on the service"
        )

    return routes
