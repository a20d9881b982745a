"""A request to our own public address, signed as the carrier signs: the proof that its webhooks reach us.

Knows nothing of calls; asks, and answers with a refusal that says what to mend.
"""

from __future__ import annotations

import httpx
import trio

from relay.outcomes import Refusal
from relay.wire import signature, twiml

PROBE_SECONDS = 10.0  # Twilio itself gives up after 15

_FORM = {"CallSid": "CA" + "0" * 32, "CallStatus": "initiated", "CallerName": ""}


class Probe:
    """Asks until the answer was yes once; then remembers it."""

    def __init__(self, public_url: str, auth_token: str) -> None:
        self._url = twiml.status_url(public_url, "probe")
        self._auth_token = auth_token
        self._reached = False
        self._problem: str | None = None
        self._asked = 0  # answers so far
        self._asking = trio.Lock()

    async def __call__(self) -> Refusal | None:
        """None when a signed webhook came through; who waits meanwhile shares the answer."""
        asked = self._asked
        async with self._asking:
            if not self._reached and asked == self._asked:
                self._problem = await self._ask()
                self._reached = self._problem is None
                self._asked += 1
        return None if self._reached or self._problem is None else Refusal("public-url", self._problem)

    async def _ask(self) -> str | None:
        headers = {"X-Twilio-Signature": signature.sign(self._auth_token, self._url, list(_FORM.items()))}
        answer: httpx.Response | None = None
        try:
            with trio.move_on_after(PROBE_SECONDS):
                async with httpx.AsyncClient(timeout=None, trust_env=False) as http:  # noqa: S113 - the scope is ours
                    answer = await http.post(self._url, data=_FORM, headers=headers)
        except httpx.HTTPError as problem:
            return f"PUBLIC_URL cannot be reached ({problem}): is the tunnel or the balancer up?"
        if answer is None:
            return f"PUBLIC_URL did not answer within {PROBE_SECONDS:g} s: is the tunnel or the balancer up?"
        if answer.status_code == 204:
            return None
        if answer.status_code == 403:
            return "PUBLIC_URL answers, but refuses our signature: another service, or another auth token"
        return f"PUBLIC_URL answers a webhook with HTTP {answer.status_code}, not 204: does it lead here?"
