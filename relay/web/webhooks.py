"""What Twilio asks and tells by HTTP: documents and callbacks, each with a valid signature or refused.

Knows Quart; which document a call gets is the switchboard's decision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import structlog
import trio
from quart import Blueprint, Response, abort, request
from quart.typing import ResponseReturnValue

from relay import clips
from relay.outcomes import WireError
from relay.switchboard import Document, Switchboard
from relay.web.bearer import GUESS_RATE
from relay.web.rates import Rates, Tidings
from relay.web.trust import Trust
from relay.wire import callbacks, signature, twiml

CALL_ID = re.compile(r"call_[0-9A-Za-z]{1,64}")
SORRY_UNKNOWN = "We are sorry, this call cannot be connected. Goodbye."
SORRY_LOST = "We are sorry, there is a technical problem. We will call you again. Goodbye."
SIGNATURE_CHARACTERS = 28  # 20 bytes of HMAC-SHA1 in base64

log = structlog.get_logger(subsystem="web")


def webhook_routes(switchboard: Switchboard, trust: Trust) -> Blueprint:
    """`/twiml` and `/twilio/*`."""
    routes = Blueprint("webhooks", __name__)
    refusals, forgeries = Tidings(), Rates(GUESS_RATE)

    def refuse(reason: str) -> NoReturn:
        """403, whatever else is asked of us; a flood of these fills no log, and costs its sender connections.

        It is refused no sooner: behind a balancer that we do not know, Twilio comes from the same address.
        """
        now = trio.current_time()
        if count := refusals.count(now):
            remedy = "PUBLIC_URL and TWILIO_AUTH_TOKEN must be those that Twilio uses"
            log.warning("webhook refused", path=request.path, reason=reason, count=count, remedy=remedy)
        if forgeries.take(request.remote_addr or "", now):
            abort(Response("", 403, {"Connection": "close"}))
        abort(403)

    async def signed_form() -> list[tuple[str, str]]:
        """The form of a genuine request; 403 for everything else, without a look at what has no signature."""
        given = request.headers.get("X-Twilio-Signature", "")
        if len(given) != SIGNATURE_CHARACTERS:
            refuse("signature" if given else "no signature")
        query = request.query_string.decode("latin-1")
        target = f"{request.path}?{query}" if query else request.path
        body = bytes(await request.body) if request.method == "POST" else b""
        try:
            form = signature.parse_form(body)
        except WireError as problem:
            refuse(str(problem))
        urls = signature.webhook_urls(trust.public_url, target)
        if signature.check_signature(trust.auth_tokens, urls, form, given) is None:
            refuse("signature")
        return form if request.method == "POST" else signature.parse_form(request.query_string)

    async def our_call() -> tuple[str, list[tuple[str, str]]]:
        """The call that a genuine request is about; its SID is learnt where we did not know it."""
        form = await signed_form()
        call_id = request.args.get("call", "")
        if not CALL_ID.fullmatch(call_id):  # a signed request all the same: not ours, and never logged
            return "", form
        line = switchboard.line(call_id)
        if line is not None:
            try:
                sid = callbacks.read_call_sid(form)
            except WireError:
                abort(400)
            if not line.learn_sid(sid):
                log.warning("callback for another call", call_id=call_id)
                return "", form
        return call_id, form

    def connect(call_id: str, attempt: int, announcement: twiml.Announcement | None = None) -> str:
        return twiml.connect_stream(
            stream_url=twiml.stream_url(trust.public_url),
            token=signature.stream_token(trust.auth_tokens[0], call_id, attempt),
            status_callback=twiml.stream_status_url(trust.public_url, call_id, attempt),
            redirect=twiml.twiml_url(trust.public_url, call_id, attempt + 1),
            announcement=announcement,
        )

    async def announce(call_id: str, attempt: int, times_said: int) -> str:
        said = await switchboard.announcement(call_id)
        if said is None:  # never a stream without the disclosure
            log.error("no disclosure to announce", call_id=call_id)
            return twiml.say_and_hangup(SORRY_LOST)
        key_url = twiml.key_url(trust.public_url, call_id, times_said)
        return connect(call_id, attempt, twiml.Announcement(said.sentence, key_url, said.language))

    async def dial(call_id: str, attempt: int, call_sid: str) -> str:
        found = await switchboard.transfers.destination(call_id)
        if found is None:
            log.error("nobody to put through to", call_id=call_id)
            told = callbacks.DialCallback(call_sid, callbacks.DialOutcome.FAILED, is_over=False)
            return await after_transfer(call_id, attempt, told)
        action = twiml.transfer_url(trust.public_url, call_id, attempt)
        return twiml.dial(
            found.number, caller_id=found.caller_id, ring_seconds=found.ring_seconds, action=action
        )

    async def after_transfer(call_id: str, attempt: int, told: callbacks.DialCallback) -> str:
        follows = await switchboard.transfers.over(call_id, attempt, told)
        if follows is None:
            follows = await switchboard.document(call_id, attempt, told.call_sid)
        return await write(follows, call_id, attempt)

    async def write(
        document: Document, call_id: str, attempt: int, *, times_said: int = 0, call_sid: str = ""
    ) -> str:
        match document:
            case Document.CONNECT:
                return connect(call_id, attempt)
            case Document.ANNOUNCE:
                return await announce(call_id, attempt, times_said + 1)
            case Document.OPTED_OUT:
                return twiml.say_and_hangup(clips.TEXTS["opted-out"])
            case Document.DIAL:
                return await dial(call_id, attempt, call_sid)
            case Document.SAY:
                return twiml.say_and_hangup(SORRY_LOST)
            case Document.HANG_UP:
                return twiml.hangup()
            case Document.UNKNOWN:
                log.warning("document of an unknown call", call_id=call_id[:64])
                return twiml.say_and_hangup(SORRY_UNKNOWN)

    @routes.route(twiml.TWIML_PATH, methods=["GET", "POST"])
    async def document() -> ResponseReturnValue:
        """The call's document: connect the stream, or whatever follows it."""
        call_id, form = await our_call()
        number = _number(request.args.get("attempt", ""))
        call_sid = dict(form).get("CallSid", "")
        follows = await switchboard.document(call_id, number, call_sid)
        text = await write(follows, call_id, number, call_sid=call_sid)
        return Response(text, content_type="text/xml; charset=utf-8")

    @routes.post(twiml.KEY_PATH)
    async def key() -> ResponseReturnValue:
        """A key pressed while the carrier speaks the disclosure."""
        call_id, form = await our_call()
        times_said = _number(request.args.get("said", ""))
        try:
            pressed, to = callbacks.read_digits(form), callbacks.read_callee(form)
        except WireError:
            abort(400)
        follows = Document.UNKNOWN
        if call_id:
            follows = await switchboard.key_pressed(call_id, to, pressed, times_said)
        text = await write(follows, call_id, 0, times_said=times_said)
        return Response(text, content_type="text/xml; charset=utf-8")

    @routes.post(twiml.TRANSFER_PATH)
    async def transfer() -> ResponseReturnValue:
        """What became of handing the call over to a person."""
        call_id, form = await our_call()
        attempt = _number(request.args.get("attempt", ""))
        try:
            told = callbacks.read_dial(form)
        except WireError:
            abort(400)
        text = await after_transfer(call_id, attempt, told)
        return Response(text, content_type="text/xml; charset=utf-8")

    @routes.post(twiml.STATUS_PATH)
    async def status() -> ResponseReturnValue:
        """How far the carrier has come; our own probe comes here too, and is about no call."""
        call_id, form = await our_call()
        if not call_id:
            return "", 204
        with _readable():
            await switchboard.carrier_called_back(call_id, callbacks.read_status(form))
        return "", 204

    @routes.post(twiml.STREAM_STATUS_PATH)
    async def stream_status() -> ResponseReturnValue:
        """Start, stop and errors of the media stream."""
        call_id, form = await our_call()
        attempt = _number(request.args.get("attempt", ""))
        with _readable():
            await switchboard.stream_called_back(call_id, callbacks.read_stream(form), attempt)
        return "", 204

    @routes.post(twiml.AMD_PATH)
    async def machine_detection() -> ResponseReturnValue:
        """The verdict on who answered."""
        call_id, form = await our_call()
        with _readable():
            await switchboard.machine_detected(call_id, callbacks.read_amd(form))
        return "", 204

    @routes.post(twiml.RECORDING_PATH)
    async def recording() -> ResponseReturnValue:
        """A recording is ready."""
        call_id, form = await our_call()
        with _readable():
            await switchboard.recorded(call_id, callbacks.read_recording(form))
        return "", 204

    return routes


def _number(text: str) -> int:
    """A small number of our own in a query; 0 where there is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0


@contextmanager
def _readable() -> Iterator[None]:
    """A genuine callback that cannot be read is logged and answered: Twilio could not mend it."""
    try:
        yield
    except WireError as problem:
        log.warning("callback not understood", path=request.path, reason=str(problem))
