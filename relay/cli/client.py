"""Commands as clients of the operator's API of a running service; they never open its database.

Knows HTTP and where the service is, and nothing of what is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson

from relay.cli.terminal import CommandFailed
from relay.settings import load_api_token, load_settings

PAGE_ENTRIES = 1000  # the most that the service gives in one answer
REQUEST_SECONDS = 30.0  # of one request; placing a call waits 10 s for the carrier at most
# What the service cannot know that a person at a terminal may do next; 403 is the gate's.
_REMEDIES = {
    403: "\n`relay check --number` explains it rule by rule, docs/compliance.md says what can be done"
}


class Client:
    """A connection to the service; made by `open_client`. CommandFailed has the service's own reason."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def ask(self, method: str, path: str, **parts: Any) -> Any:
        """The JSON that the service answers with. `parts` are httpx's: json, params, content."""
        return self._read(self.fetch(method, path, **parts))

    def fetch(self, method: str, path: str, **parts: Any) -> bytes:
        """The body that the service answers with, whatever it is."""
        here = self._http.base_url
        try:
            answer = self._http.request(method, path, **parts)
        except httpx.HTTPError as problem:
            raise CommandFailed(
                f"no answer from {here} ({problem}): is 'relay serve' running there? "
                "RELAY_URL names another place"
            ) from None
        if answer.is_success:
            return answer.content
        content = self._read(answer.content, answer.status_code)
        refusal = content.get("error", {}) if isinstance(content, dict) else {}
        code, message = refusal.get("code", answer.status_code), refusal.get("message", "no reason given")
        raise CommandFailed(f"{code}: {message}{_REMEDIES.get(answer.status_code, '')}")

    def pages(self, path: str, **query: str) -> Iterator[list[dict[str, Any]]]:
        """The entries of a list, page by page."""
        after: int | None = 0
        while after is not None:
            page = self.ask("GET", path, params={**query, "after": after, "limit": PAGE_ENTRIES})
            yield page["entries"]
            after = page["next"]

    def _read(self, content: bytes, status: int = 200) -> Any:
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            raise CommandFailed(
                f"{self._http.base_url} answered HTTP {status} and no JSON: RELAY_URL leads to something else"
            ) from None


@contextmanager
def open_client() -> Iterator[Client]:
    """A client of the service at RELAY_URL, with the token of this machine's settings."""
    settings = load_settings()
    headers = {"Authorization": f"Bearer {load_api_token()}"}
    with httpx.Client(base_url=settings.client_url, headers=headers, timeout=REQUEST_SECONDS) as http:
        yield Client(http)


def ask(method: str, path: str, **parts: Any) -> Any:
    """One question on a connection of its own."""
    with open_client() as client:
        return client.ask(method, path, **parts)
