"""How the carrier reaches its customer, the service that placed a call: webhooks and media streams.

Knows addresses and bytes; signatures, documents and stream messages belong to others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import httpx
import trio

from relay.simulator.http import Form


class Unreachable(Exception):
    """The customer gave no answer at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a webhook answered."""

    status: int
    content_type: str
    body: str


class Customer(Protocol):
    """The carrier's way to the service. Implementations raise Unreachable; deadlines are the carrier's."""

    async def post(self, url: str, form: Form, headers: Mapping[str, str]) -> Answer:
        """Send a form to the public address `url`."""

    async def connect(self, url: str) -> trio.abc.Stream:
        """A byte stream to the host of the public WebSocket address `url`."""


class LoopbackCustomer:
    """Reaches a service on this machine over sockets, under the public address that it believes to have."""

    def __init__(self, public_url: str, base: str, client: httpx.AsyncClient) -> None:
        self._public, self._base = public_url.rstrip("/"), base.rstrip("/")
        self._client = client

    async def post(self, url: str, form: Form, headers: Mapping[str, str]) -> Answer:
        """Send a form to `url`, which must lie under the public address."""
        if not url.startswith(self._public):
            raise Unreachable(f"{url} is not under {self._public}")
        content_type = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            response = await self._client.post(
                self._base + url.removeprefix(self._public),
                content=urlencode(form).encode(),
                headers={**headers, **content_type, "Host": urlsplit(self._public).netloc},
            )
        except httpx.HTTPError as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        return Answer(response.status_code, response.headers.get("content-type", ""), response.text)

    async def connect(self, url: str) -> trio.abc.Stream:
        """A TCP connection to the service, whichever public host `url` names."""
        wanted, public = urlsplit(url), urlsplit(self._public)
        if wanted.netloc != public.netloc:
            raise Unreachable(f"{wanted.netloc} is not {public.netloc}")
        here = urlsplit(self._base)
        try:
            return await trio.open_tcp_stream(here.hostname or "127.0.0.1", here.port or 80)
        except OSError as error:
            raise Unreachable(str(error)) from error


@asynccontextmanager
async def open_loopback_customer(public_url: str, base: str) -> AsyncIterator[LoopbackCustomer]:
    """The customer at `base` (`http://127.0.0.1:8080`), known to the world as `public_url`."""
    # One connection per webhook, as the carrier's many machines would open; deadlines are the carrier's.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as client:  # noqa: S113
        yield LoopbackCustomer(public_url, base, client)
