"""A small HTTP/1.1 server over any Trio stream, for the carrier's REST interface.

Knows nothing of calls: it turns bytes into Requests and Responses into bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11
import trio

REQUEST_SECONDS = 15.0  # for a whole request to arrive, idle time between two requests included
SEND_SECONDS = 5.0
HEAD_BYTES = 16 * 1024
BODY_BYTES = 64 * 1024

Form = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower case; query and form keep blank values and repeated names."""

    method: str
    path: str
    query: Form
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> Form:
        """The fields of a url-encoded body."""
        return parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True)

    @property
    def basic_auth(self) -> tuple[str, str] | None:
        """User and password of HTTP Basic authorisation."""
        scheme, _, encoded = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        return user, password


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    content_type: str
    body: bytes

    @classmethod
    def of_json(cls, status: int, content: Any) -> Response:
        """An answer in JSON."""
        return cls(status, "application/json", json.dumps(content).encode())


class _TooLarge(Exception):
    pass


async def serve_http(stream: trio.abc.Stream, answer: Callable[[Request], Response]) -> None:
    """Answer one request after the other, until the client goes away, breaks the protocol or is too slow."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
    try:
        while True:
            with trio.move_on_after(REQUEST_SECONDS):
                response = await _answer_one(connection, stream, answer)
                if response is None:
                    return
                await _send(connection, stream, response)
                if connection.our_state is connection.their_state is h11.DONE:
                    connection.start_next_cycle()
                    continue
            return
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
    finally:
        await trio.aclose_forcefully(stream)


async def _answer_one(
    connection: h11.Connection, stream: trio.abc.Stream, answer: Callable[[Request], Response]
) -> Response | None:
    """The answer to the next request; None where there is nobody to answer."""
    try:
        request = await _read_request(connection, stream)
    except h11.RemoteProtocolError as error:
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return None
        return Response(error.error_status_hint, "text/plain", b"not HTTP")
    except _TooLarge:
        return Response(413, "text/plain", b"too large")
    return None if request is None else answer(request)


async def _read_request(connection: h11.Connection, stream: trio.abc.Stream) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()  # bounded: more than BODY_BYTES is refused
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(64 * 1024)))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES:
                raise _TooLarge
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            target = urlsplit(head.target.decode("ascii"))
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
            query = parse_qsl(target.query, keep_blank_values=True)
            return Request(head.method.decode("ascii"), target.path, query, headers, bytes(body))
        else:
            return None


async def _send(connection: h11.Connection, stream: trio.abc.Stream, response: Response) -> None:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
    ]
    head = connection.send(h11.Response(status_code=response.status, headers=headers))
    body = connection.send(h11.Data(data=response.body))
    end = connection.send(h11.EndOfMessage())
    with trio.move_on_after(SEND_SECONDS) as scope:
        await stream.send_all((head or b"") + (body or b"") + (end or b""))
    if scope.cancelled_caught:
        raise trio.BrokenResourceError("the client does not read its answer")
