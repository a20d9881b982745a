"""Whether our public address leads here, passes what calls need, and for how long.

Knows the way in from outside, and nothing of the vendors behind it.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import httpx
import trio

from relay.check.findings import FAIL, OK, WARN, Answer
from relay.check.http import open_http
from relay.handshake import HandshakeRefused, open_agent_leg
from relay.legs import Leg
from relay.outcomes import LegClosed
from relay.probe import Probe
from relay.settings import Settings
from relay.shapes import is_loopback
from relay.web.held_stream import HOLD_HEADER
from relay.wire import signature, twiml

NO_START = b'"relay check"'  # no message of a media stream: the service closes with 1008 and logs a warning
NORMAL_CLOSURE, POLICY_VIOLATION = 1000, 1008

SERVE = "Start `relay serve` with these settings, and the tunnel or balancer from PUBLIC_URL to it."
NOT_READY = "Do what it says; `relay serve` logs more."
TIME_OUTS = "Raise the balancer's time-outs above RELAY_MAX_CALL_SECONDS; docs/deploying.md lists them."
UPGRADES = "Have the tunnel or balancer pass WebSockets (HTTP/1.1, Upgrade kept), or try another one."


async def ask_signed_webhook(settings: Settings) -> Answer:
    """Whether a webhook signed as Twilio signs comes through PUBLIC_URL to a service that believes it."""
    accounts = settings.require_serving()
    carrier_is_real = not is_loopback(urlsplit(settings.twilio_api_url).hostname)
    if carrier_is_real and is_loopback(urlsplit(accounts.public_url).hostname):
        return FAIL, "Twilio cannot reach a PUBLIC_URL on loopback", "Set the tunnel's https address."
    refusal = await Probe(accounts.public_url, accounts.twilio_auth_token.get_secret_value())()
    if refusal is not None:
        return FAIL, refusal.message, SERVE
    return OK, "accepted, sent from here through PUBLIC_URL", ""


async def ask_unsigned_webhook(settings: Settings) -> Answer:
    """Whether a stranger's webhook is refused."""
    url = twiml.status_url(settings.require_serving().public_url, "probe")
    try:
        async with open_http() as http:
            answer = await http.post(url, data={"CallStatus": "initiated"})
    except httpx.HTTPError as problem:
        return FAIL, f"PUBLIC_URL cannot be reached ({problem})", SERVE
    if answer.status_code == httpx.codes.FORBIDDEN:
        return OK, "refused with 403", ""
    return FAIL, f"answered with {answer.status_code}, not 403", SERVE


async def ask_stream(settings: Settings) -> Answer:
    """Whether the balancer passes a WebSocket upgrade, and the messages behind it, in both directions."""
    try:
        leg = await _open_stream(settings)
    except HandshakeRefused as refused:
        if refused.status == httpx.codes.FORBIDDEN:
            return FAIL, "the signed upgrade was refused with 403", "Give `relay serve` the same settings."
        return FAIL, f"the upgrade was answered with {refused.status}, not 101", UPGRADES
    except LegClosed as lost:
        return FAIL, f"the upgrade got no answer ({lost.detail})", SERVE
    code = await _close_code(leg)
    if code == POLICY_VIOLATION:
        return OK, "upgraded with 101, and closed with 1008 for want of a start", ""
    return FAIL, f"upgraded, then closed with {code or 'no close frame'}, not 1008", UPGRADES


async def ask_readiness(settings: Settings) -> Answer:
    """Whether the service takes new calls: its ledger, agent key and lines allow it; it does not drain."""
    url = f"{settings.require_serving().public_url}/readyz"
    try:
        async with open_http() as http:
            answer = await http.get(url)
        told = answer.json()
        if answer.status_code == httpx.codes.OK:
            return OK, f"taken, the ledger is up, calls now: {told['calls']}", ""
        return FAIL, f"not taken: {told['message']}", NOT_READY
    except httpx.HTTPError as problem:
        return FAIL, f"PUBLIC_URL cannot be reached ({problem})", SERVE
    except (ValueError, LookupError, TypeError):
        return WARN, "PUBLIC_URL/readyz does not lead to `relay serve`", "Pass it on, or ask a node itself."


async def ask_long_stream(settings: Settings, *, seconds: float) -> Answer:
    """Whether what stands between leaves an idle WebSocket open for so long, and passes messages then."""
    try:
        leg = await _open_stream(settings, **{HOLD_HEADER: "1"})
    except (HandshakeRefused, LegClosed) as problem:
        return FAIL, f"not opened ({problem})", UPGRADES
    began = trio.current_time()
    try:
        with trio.move_on_after(seconds):
            await leg.receive()
    except LegClosed:
        pass
    lasted = trio.current_time() - began
    if lasted < seconds:
        await leg.abort()
        return FAIL, f"an idle stream was cut after {lasted:.0f} s", TIME_OUTS
    if await _close_code(leg) != NORMAL_CLOSURE:
        return FAIL, f"an idle stream was dead after {seconds:g} s, and nobody said so", TIME_OUTS
    return OK, f"{seconds:g} s without a message; `relay check --hold 700` tries the length of a call", ""


async def _open_stream(settings: Settings, **headers: str) -> Leg:
    """A stream of nobody's, signed as Twilio signs. Raises what `open_agent_leg` raises."""
    accounts = settings.require_serving()
    url = twiml.stream_url(accounts.public_url)
    signed = {"X-Twilio-Signature": signature.sign(accounts.twilio_auth_token.get_secret_value(), url)}
    return await open_agent_leg(url, headers=signed | headers, tls=ssl.create_default_context())


async def _close_code(leg: Leg) -> int | None:
    """What the far end closes with when it is told nonsense."""
    try:
        await leg.send_last(NO_START)
        while True:
            await leg.receive()
    except LegClosed as closed:
        return closed.code
    finally:
        await leg.abort()  # noqa: ASYNC102 - closes the socket even where we are cancelled
