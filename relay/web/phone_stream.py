"""Admission of the phone stream: signature before the upgrade, token and CallSid at `start`, then away.

Knows Quart; no media frame ever passes through it.
"""

from __future__ import annotations

import structlog
import trio
from quart import Blueprint, abort, websocket

from relay.handshake import accept_phone_leg
from relay.legs import Leg
from relay.line import Line
from relay.listening import Listening
from relay.outcomes import Blame, Ending, LegClosed, Reason, WireError
from relay.switchboard import Switchboard
from relay.web.edge import DetachRefused
from relay.web.held_stream import HELD_STREAMS, HOLD_HEADER, hold
from relay.web.rates import Tidings
from relay.web.trust import Trust
from relay.wire import phone, signature, twiml

START_SECONDS = 5.0  # from the upgrade to a valid start: Twilio sends it within milliseconds
PENDING_STREAMS = 32  # upgrades without a start at one time; the next one is answered 503
MESSAGES_BEFORE_START = 5  # `connected` comes first; whoever talks on without a start is not Twilio
POLICY_VIOLATION = 1008

log = structlog.get_logger(subsystem="web")


def stream_routes(switchboard: Switchboard, trust: Trust, listening: Listening | None = None) -> Blueprint:
    """`/twilio-stream`."""
    routes = Blueprint("phone_stream", __name__)
    pending, held = trio.CapacityLimiter(PENDING_STREAMS), trio.CapacityLimiter(HELD_STREAMS)
    unsigned = Tidings()

    @routes.websocket(twiml.STREAM_PATH)
    async def stream() -> None:
        """Take Twilio's media stream."""
        urls = signature.upgrade_urls(trust.public_url, twiml.STREAM_PATH)
        given = websocket.headers.get("X-Twilio-Signature")
        matched = signature.check_signature(trust.auth_tokens, urls, (), given)
        if matched is None:
            if count := unsigned.count(trio.current_time()):
                log.warning("stream refused", reason="signature" if given else "no signature", count=count)
            abort(403)
        is_held = HOLD_HEADER in websocket.headers
        seats = held if is_held else pending
        try:
            seats.acquire_on_behalf_of_nowait(seat := object())
        except trio.WouldBlock:
            log.warning("stream refused", reason="too many streams without a start")
            abort(503)
        try:
            await take(matched, is_held=is_held)
        finally:
            seats.release_on_behalf_of(seat)

    async def take(matched: str, *, is_held: bool) -> None:
        connection = websocket.scope["state"]["connection"]
        try:
            await connection.detach()
        except DetachRefused as refused:
            log.warning("stream refused", reason=str(refused))
            abort(400)
        await websocket.accept()
        leg = accept_phone_leg(connection.take(), listening)
        try:
            if is_held:
                await hold(leg)
                return
            with trio.move_on_after(START_SECONDS):
                line, start = await _wait_start(leg, switchboard, trust)
                line.noted("stream admitted", {"signed_form": matched})
                line.connect(leg, start.stream_sid)
                return
            log.warning("stream refused", reason=f"no start within {START_SECONDS:g} s")
        except (LegClosed, WireError) as problem:
            log.warning("stream refused", reason=str(problem))
        except BaseException:
            await leg.abort()  # noqa: ASYNC102 - closes the socket even where we are cancelled
            raise
        await leg.close(POLICY_VIOLATION)

    return routes


async def _wait_start(leg: Leg, switchboard: Switchboard, trust: Trust) -> tuple[Line, phone.StreamStarted]:
    """The admitted call and its start. Raises WireError where what comes is no start of a call of ours."""
    for _ in range(MESSAGES_BEFORE_START):
        message = phone.decode(await leg.receive())
        if isinstance(message, phone.StreamStarted):
            return await _admit(message, switchboard, trust), message
        if not isinstance(message, phone.Connected | phone.Unrecognised):
            raise WireError(f"{type(message).__name__} before start")
    raise WireError("too many messages before start")


async def _admit(message: phone.StreamStarted, switchboard: Switchboard, trust: Trust) -> Line:
    start = message.start
    named = signature.read_stream_token(
        trust.auth_tokens, start.custom_parameters.get(twiml.TOKEN_PARAMETER, "")
    )
    if named is None:
        raise WireError("no genuine token")
    if start.account_sid != trust.account_sid:
        raise WireError("another account")
    line = await switchboard.admit(*named, start.call_sid)
    if line is None:
        raise WireError("the token is spent, the call is over, or the CallSid is another's")
    if not start.media_format.is_mulaw:
        line.end(Ending(Blame.CARRIER, Reason.WRONG_FORMAT, start.media_format.encoding))
        raise WireError("not 8 kHz mu-law")
    return line
