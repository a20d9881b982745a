"""A client of the operator's routes with the token, and what it is told.

Knows no switchboard: what is asked here needs no call to be live.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias

from quart import Blueprint
from quart.typing import TestClientProtocol

from relay.web.app import create_app
from relay.web.bearer import token_digest

TOKEN = "of-the-tests"
KNOWN = token_digest(TOKEN)  # what the service is told of it
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NOW = datetime(2026, 3, 2, 17, 30, tzinfo=UTC)
NUMBER = "+12025550143"
OTHER = "+12025550199"

ApiClient: TypeAlias = TestClientProtocol


def client_of(*blueprints: Blueprint) -> ApiClient:
    """A client of an application with these routes alone, and production's limits and errors."""
    return create_app(*blueprints).test_client()


async def ask(client: ApiClient, method: str, path: str, status: int = 200, **body: Any) -> Any:
    """The JSON of an answer with this status, to somebody with the token."""
    answer = await client.open(path, method=method, headers=BEARER, **body)
    assert answer.status_code == status, await answer.get_data(as_text=True)
    return await answer.get_json()


async def refusal(client: ApiClient, method: str, path: str, status: int, **body: Any) -> str:
    """Code and message of a refusal, which has nothing else."""
    found = await ask(client, method, path, status, **body)
    assert found.keys() == {"error"}
    assert found["error"].keys() == {"code", "message"}
    return f"{found['error']['code']}: {found['error']['message']}"
