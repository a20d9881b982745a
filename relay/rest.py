"""Twilio's REST API over httpx on Trio: one request, within our deadline, and what its failure means.

Knows no call, no gate and no parameter; whether a failed request may be sent again is decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio
from twilio.http import AsyncHttpClient
from twilio.http.response import Response

from relay.wire.carrier_errors import explain

REQUEST_SECONDS = 10.0  # one request, from waiting for a connection to the last byte of the answer

LATE = f"Twilio's API did not answer within {REQUEST_SECONDS:.0f} s"

# Asked when the first byte is about to leave. Twilio's package hands nothing of ours on to its transport.
MAY_BE_SENT: ContextVar[Callable[[], bool]] = ContextVar("may_be_sent", default=lambda: True)


class NotSent(Exception):
    """Twilio has not seen the request: trying again is safe."""


class NoAnswer(Exception):
    """The request went out, and what came back, if anything, does not say whether it was carried out."""


class Rejected(Exception):
    """Twilio understood and said no: nothing was carried out."""

    def __init__(self, status: int, code: int | None, sentence: str, retry_after_seconds: float) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.sentence = sentence
        self.retry_after_seconds = retry_after_seconds


class HttpxOnTrio(AsyncHttpClient):  # type: ignore[misc]  # the package is untyped
    """Twilio's transport over httpx, with our deadline; the one place where failures are translated.

    Twilio's own exceptions know neither the headers nor whether a request was sent, so they are not used.
    """

    def __init__(self, http: httpx.AsyncClient, api_url: str) -> None:
        super().__init__(logging.getLogger(__name__), is_async=True)
        self._http = http
        self._api_url = api_url.rstrip("/")

    async def request(
        self,
        method: str,
        uri: str,
        params: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        **_its_deadline_and_redirects: object,
    ) -> Response:
        """Send one request to the configured host, whatever host `uri` names."""
        sent = False

        async def watch(event: str, _details: object) -> None:
            nonlocal sent
            if event == "http11.send_request_headers.started":  # behind the wait for a connection, and TLS
                if not MAY_BE_SENT.get()():
                    raise NotSent("the permit was too old when a connection to Twilio was there")
                sent = True

        wanted = urlsplit(uri)
        url = f"{self._api_url}{wanted.path}" + (f"?{wanted.query}" if wanted.query else "")
        try:
            with trio.fail_after(REQUEST_SECONDS):
                answer = await self._http.request(
                    method,
                    url,
                    params=params,
                    data=data,
                    headers=headers,
                    auth=auth,
                    extensions={"trace": watch},
                )
        except trio.TooSlowError as error:
            raise (NoAnswer if sent else NotSent)(unreached(LATE)) from error
        except httpx.HTTPError as error:
            failure = f"the connection to Twilio's API failed ({type(error).__name__}: {error})"
            raise (NoAnswer if sent else NotSent)(unreached(failure)) from error
        return _accept(answer)


def unreached(failure: str) -> str:
    return f"{failure}; check the network of this machine and TWILIO_API_URL."


def _accept(answer: httpx.Response) -> Response:
    """A 2xx answer with a JSON object in it; everything else is raised."""
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.status_code >= 500:
        raise NoAnswer(f"Twilio answered with HTTP {answer.status_code}")
    if answer.status_code >= 300:
        body = content if isinstance(content, dict) else {}
        code = body.get("code") if isinstance(body.get("code"), int) else None
        silence = f"Twilio answered with HTTP {answer.status_code}; check TWILIO_API_URL."
        said = str(body.get("message") or silence)
        retry_after_seconds = float(whole_number(answer.headers.get("Retry-After")) or 0)
        raise Rejected(answer.status_code, code, explain(code, said), retry_after_seconds)
    if not isinstance(content, dict):
        raise NoAnswer("Twilio's answer is not a JSON object")
    return Response(answer.status_code, answer.text, answer.headers)


def whole_number(text: object) -> int | None:
    """Twilio's numbers come as strings; what is no whole number counts as absent."""
    digits = str(text)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
