"""What was found in other telephone bridges, tried on this one: the advisories that SECURITY.md answers.

Must not know how the routes defend themselves: bytes and forms go in, answers and the fate of calls come out.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import orjson
import pytest
import trio
import trio_websocket
from quart_trio import QuartTrio
from structlog.testing import capture_logs

from relay.line import Line
from relay.placing import Cast
from relay.simulator.signing import sign
from relay.store import Status
from relay.web import phone_stream
from relay.web.app import BODY_BYTES, create_app
from relay.web.bearer import GUESS_RATE
from relay.web.books import book_routes
from relay.web.edge import Limits, serve
from relay.web.evidence import evidence_routes
from relay.web.explain import explain_routes
from relay.web.health import health_routes
from relay.web.metrics import metrics_routes
from relay.web.numbers import numbers_routes
from relay.web.operator import operator_routes
from relay.web.phone_stream import stream_routes
from relay.web.trust import Trust
from relay.web.webhooks import webhook_routes
from tests.test_switchboard import RULEBOOK, SID, STREAM, Desk, open_desk, virtual_now
from tests.web.api import BEARER, KNOWN
from tests.web.hostile import upgrade

PUBLIC: Final = "https://relay.test"
SECRET: Final = "auth-token-of-the-tests"
ACCOUNT: Final = "AC" + "0" * 32
TRUST: Final = Trust(PUBLIC, ACCOUNT, (SECRET,), KNOWN)
STREAM_ADDRESS: Final = "wss://relay.test/twilio-stream"
PRODUCTION: Final = Limits()
OPEN: Final = {"/livez", "/readyz", "/openapi.json", "/metrics"}  # to whoever reaches the port
REFERENCE: Final = Path(__file__).parents[2] / "docs" / "http.md"  # of all routes that a running service has
POLICY_VIOLATION: Final = 1008
PATIENCE_SECONDS: Final = 5  # for what should take no time


class Site:
    """The whole application on a port of this machine, and Twilio's half of what is said to it."""

    def __init__(self, desk: Desk, app: QuartTrio, port: int, http: httpx.AsyncClient) -> None:
        self.desk = desk
        self.app = app
        self.port = port
        self.http = http
        self.opened: list[trio.SocketStream] = []  # of streams; closed with the site

    async def connect(self) -> trio.SocketStream:
        """A bare connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def post(
        self, target: str, form: dict[str, str], signature: str | None = "", secret: str = SECRET
    ) -> httpx.Response:
        """A form as Twilio sends it; signed by `secret` where no other signature (None: none) is given."""
        signature = sign(secret, PUBLIC + target, form.items()) if signature == "" else signature
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if signature is not None:
            headers["X-Twilio-Signature"] = signature
        return await self.http.post(target, content=urlencode(form).encode(), headers=headers)

    async def token(self, line: Line, attempt: int = 0) -> str:
        """The stream token in the document of a call."""
        again = f"&attempt={attempt}" if attempt else ""
        answer = await self.post(f"/twiml?call={line.record.id}{again}", {"CallSid": SID})
        found = re.search(r'name="token" value="([^"]+)"', answer.text)
        assert found is not None, answer.text
        return found[1]

    async def stream(self, token: str, **changes: Any) -> trio_websocket.WebSocketConnection:
        """A stream that has said its start."""
        socket = await self.upgrade()
        body = {
            "accountSid": ACCOUNT,
            "streamSid": STREAM,
            "callSid": SID,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": token},
        }
        start = {"event": "start", "sequenceNumber": "1", "streamSid": STREAM, "start": body | changes}
        await socket.send_message('{"event":"connected","protocol":"Call","version":"1.0.0"}')
        await socket.send_message(orjson.dumps(start).decode())
        return socket

    async def upgrade(self) -> trio_websocket.WebSocketConnection:
        """A stream's socket, signed, that has said nothing yet."""
        headers = [(b"X-Twilio-Signature", sign(SECRET, STREAM_ADDRESS).encode())]
        self.opened.append(await self.connect())
        return await trio_websocket.wrap_client_stream(
            self.desk.nursery, self.opened[-1], "relay.test", "/twilio-stream", extra_headers=headers
        )


@asynccontextmanager
async def open_site(trust: Trust = TRUST, limits: Limits = PRODUCTION) -> AsyncIterator[Site]:
    """Everything that the service serves, around a switchboard whose carrier dials nobody."""
    with trio.fail_after(60):
        async with open_desk() as desk:
            board, store, key = desk.board, desk.store, trust.api_token
            app = create_app(
                webhook_routes(board, trust),
                stream_routes(board, trust),
                health_routes(board),
                metrics_routes(desk.metrics),
                operator_routes(board, store, key, max_call_seconds=600),
                numbers_routes(store, key, clock=virtual_now),
                book_routes(store.books, key, clock=virtual_now),
                evidence_routes(store, key),
                explain_routes(
                    store,
                    RULEBOOK,
                    key,
                    agents=Cast(),
                    from_number="+12025550100",
                    clock=virtual_now,
                ),
            )
            serving = partial(serve, app, "127.0.0.1:0", stop=trio.Event(), limits=limits)
            _, port = await desk.nursery.start(serving)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
                site = Site(desk, app, port, http)
                try:
                    yield site
                finally:
                    board.cut_all()
                    for stream in site.opened:
                        await trio.aclose_forcefully(stream)


async def closed_with(socket: trio_websocket.WebSocketConnection) -> int:
    """The code with which the service closes a stream that it does not want."""
    with trio.fail_after(PATIENCE_SECONDS):
        try:
            while True:
                await socket.get_message()
        except trio_websocket.ConnectionClosed as closed:
            return int(closed.reason.code) if closed.reason else 1006


async def status_of(stream: trio.SocketStream) -> int:
    """The status line of an answer."""
    with trio.fail_after(PATIENCE_SECONDS):
        answer = await stream.receive_some(4096)
    return int(answer.split(b" ", 2)[1])


async def wait_until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110 - a line has no event for everything
            await trio.sleep(0.01)


# ---- HTTP verified, WebSocket not; comments that claim what no code does -----------------------------------


async def test_every_route_there_is_refuses_who_has_neither_signature_nor_token() -> None:
    async with open_site() as site:
        answers: dict[str, int] = {}
        documented = set(re.findall(r"^### [A-Z]+ (/\S+)", REFERENCE.read_text("utf-8"), re.MULTILINE))
        there = {re.sub(r"<(\w+)>", r"{\1}", rule.rule) for rule in site.app.url_map.iter_rules()}
        assert documented <= there
        for rule in site.app.url_map.iter_rules():
            path = re.sub(r"<[^>]+>", "x", rule.rule)
            if rule.websocket:
                async with await site.connect() as stream:
                    await stream.send_all(upgrade(path))
                    answers[path] = await status_of(stream)
                continue
            for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
                answers[f"{method} {path}"] = (await site.http.request(method, path)).status_code
        refused = {name: status for name, status in answers.items() if status in (401, 403)}
        assert {name for name in answers if "/v1/" in name} == {n for n, s in refused.items() if s == 401}
        assert {name for name in answers if "/tw" in name} == {n for n, s in refused.items() if s == 403}
        unguarded = {name.removeprefix("GET ") for name in answers.keys() - refused.keys()}
        assert unguarded - OPEN <= {"/static/x"}
        assert answers.get("GET /static/x", 404) == 404  # the framework's own; there is no such folder
        assert len(refused) > 15


@pytest.mark.parametrize("signature", [None, "nonsense", "A" * 28, sign("another", STREAM_ADDRESS)])
async def test_an_upgrade_without_a_valid_signature_is_never_accepted(signature: str | None) -> None:
    async with open_site() as site, await site.connect() as stream:
        await stream.send_all(upgrade("/twilio-stream", X_Twilio_Signature=signature))
        assert await status_of(stream) == 403


# ---- a missing secret is a refusal -------------------------------------------------------------------------


@pytest.mark.parametrize("secrets", [(), ("",), ("", "")])
async def test_without_a_configured_secret_no_signature_and_no_token_is_valid(
    secrets: tuple[str, ...],
) -> None:
    async with open_site(Trust(PUBLIC, ACCOUNT, secrets, None)) as site:
        line = await site.desk.placed()
        target = f"/twiml?call={line.record.id}"
        assert (await site.post(target, {"CallSid": SID}, secret="")).status_code == 403
        assert (await site.http.get("/v1/calls", headers=BEARER)).status_code == 401
        async with await site.connect() as stream:
            await stream.send_all(upgrade("/twilio-stream", X_Twilio_Signature=sign("", STREAM_ADDRESS)))
            assert await status_of(stream) == 403


# ---- the upgrade is accepted before anything is proven: idle sockets ---------------------------------------


async def test_a_genuine_stream_that_never_starts_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone_stream, "START_SECONDS", 0.2)
    async with open_site() as site:
        assert await closed_with(await site.upgrade()) == POLICY_VIOLATION


async def test_streams_without_a_start_are_few_and_their_places_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(phone_stream, "PENDING_STREAMS", 2)
    async with open_site() as site:
        line = await site.desk.placed()
        token = await site.token(line)
        idle = [await site.upgrade() for _ in range(2)]
        async with await site.connect() as one_more:
            signature = sign(SECRET, STREAM_ADDRESS)
            await one_more.send_all(upgrade("/twilio-stream", X_Twilio_Signature=signature))
            assert await status_of(one_more) == 503
        for each in idle:
            await each.send_message('{"event":"stop","streamSid":"MZ"}')
            assert await closed_with(each) == POLICY_VIOLATION
        await site.stream(token)
        await wait_until(line.stream_arrived.is_set)


# ---- replays -----------------------------------------------------------------------------------------------


async def test_a_replayed_document_request_mints_no_second_token_and_a_spent_one_opens_nothing() -> None:
    async with open_site() as site:
        line = await site.desk.placed()
        token = await site.token(line)
        assert await site.token(line) == token
        await site.stream(token)
        await wait_until(line.stream_arrived.is_set)
        assert await site.token(line) == token
        assert await closed_with(await site.stream(token)) == POLICY_VIOLATION
        assert line.ending is None  # and the live call goes on


async def test_a_replayed_callback_changes_nothing_that_is_settled() -> None:
    async with open_site() as site:
        line = await site.desk.placed()
        target = f"/twilio/status?call={line.record.id}"
        for status in ("ringing", "busy", "in-progress", "ringing", "completed", "busy"):
            answer = await site.post(target, {"CallSid": SID, "CallStatus": status})
            assert answer.status_code == 204
        await site.desk.board.wait_idle()
        record = await site.desk.store.get(line.record.id)
        assert record is not None
        assert record.ending is not None
        assert (record.status, record.ending.reason) == (Status.ENDED, "busy")
        assert record.answered_at is None


@pytest.mark.parametrize(
    "respell",
    [
        lambda signature: signature.translate(str.maketrans("+/", "-_")),
        lambda signature: signature.rstrip("="),
        lambda signature: signature.replace("=", "%3D"),
        lambda signature: signature + "=",
        str.swapcase,
    ],
)
async def test_a_signature_has_one_spelling(respell: Callable[[str], str]) -> None:
    async with open_site() as site:
        for n in range(20):  # some of them with + or /
            form = {"CallSid": SID, "CallStatus": "ringing", "n": str(n)}
            target = "/twilio/status?call=call_x"
            signature = sign(SECRET, PUBLIC + target, form.items())
            if respell(signature) != signature:
                assert (await site.post(target, form, respell(signature))).status_code == 403


@pytest.mark.parametrize("respell", ["{}=", "{}A", " {}", "{}.", "x{}"])
async def test_a_token_has_one_spelling(respell: str) -> None:
    async with open_site() as site:
        line = await site.desk.placed()
        token = respell.format(await site.token(line))
        assert await closed_with(await site.stream(token)) == POLICY_VIOLATION
        assert line.stream is None


# ---- suffixes and blanks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["callSid", "accountSid"])
@pytest.mark.parametrize("value", ["", "1", "CA" + "9" * 32, "AC" + "9" * 32, "x" + SID, "x" + ACCOUNT])
async def test_a_token_opens_the_stream_of_its_own_call_and_account_alone(field: str, value: str) -> None:
    async with open_site() as site:
        line = await site.desk.placed()
        token = await site.token(line)
        assert await closed_with(await site.stream(token, **{field: value})) == POLICY_VIOLATION
        assert line.stream is None
        assert line.ending is None


@pytest.mark.parametrize("sid", ["", SID[2:], "CA" + "9" * 32])
async def test_a_callback_with_another_calls_sid_changes_nothing(sid: str) -> None:
    async with open_site() as site:
        line = await site.desk.placed()
        await site.post(f"/twilio/status?call={line.record.id}", {"CallSid": sid, "CallStatus": "completed"})
        assert line.ending is None


@pytest.mark.parametrize("to", ["", "5550143", "2025550143", "12025550143", "+", "anonymous"])
async def test_a_part_of_a_number_is_no_number(to: str) -> None:
    async with open_site() as site:
        answer = await site.http.post("/v1/calls", headers=BEARER, json={"to": to})
        assert answer.status_code == 422
        assert site.desk.carrier.dialled == []


async def test_the_suppression_list_holds_whole_numbers() -> None:
    async with open_site() as site:
        await site.http.post("/v1/dnc", headers=BEARER, json={"number": "+12025550143", "source": "letter"})
        listed = await site.http.post("/v1/calls", headers=BEARER, json={"to": "+12025550143"})
        assert (listed.status_code, listed.json()["error"]["code"]) == (403, "dnc-listed")
        same_ending = await site.http.post("/v1/calls", headers=BEARER, json={"to": "+13125550143"})
        assert same_ending.status_code == 201


# ---- the body is buffered before the signature is looked at ------------------------------------------------


async def test_a_request_without_a_signature_is_refused_before_its_body_has_come() -> None:
    async with open_site() as site, await site.connect() as stream:
        await stream.send_all(b"POST /twiml HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\nCallSid=")
        assert await status_of(stream) == 403


async def test_a_body_beyond_the_cap_is_not_read() -> None:
    async with open_site() as site:
        form = {"CallSid": SID, "x": "x" * BODY_BYTES}
        assert (await site.post("/twiml?call=call_x", form)).status_code == 413


async def test_a_body_that_dribbles_in_is_cut_off() -> None:
    async with open_site(limits=Limits(body_seconds=0.3, linger_seconds=0.1)) as site:
        async with await site.connect() as stream:
            head = f"X-Twilio-Signature: {'A' * 28}\r\nContent-Length: 60000\r\n\r\n".encode()
            await stream.send_all(b"POST /twiml HTTP/1.1\r\nHost: x\r\n" + head)
            with trio.fail_after(PATIENCE_SECONDS):
                try:
                    while await stream.receive_some(4096) != b"":
                        pass
                except trio.BrokenResourceError:
                    pass
        assert (await site.http.get("/livez")).status_code == 200


# ---- one call per restart ----------------------------------------------------------------------------------


async def test_the_next_call_gets_its_stream_after_one_was_torn() -> None:
    async with open_site() as site:
        for sid in ("CA" + "3" * 32, "CA" + "4" * 32):
            line = await site.desk.place()
            line.learn_sid(sid)
            answer = await site.post(f"/twiml?call={line.record.id}", {"CallSid": sid})
            found = re.search(r'name="token" value="([^"]+)"', answer.text)
            assert found is not None
            socket = await site.stream(found[1], callSid=sid)
            await wait_until(line.stream_arrived.is_set)
            await socket.aclose()
            await site.desk.board.wait_idle()


# ---- floods ------------------------------------------------------------------------------------------------


async def test_a_flood_of_forged_requests_fills_no_log_and_stops_no_genuine_one() -> None:
    async with open_site() as site:
        line = await site.desk.placed()
        cut: list[bool] = []
        with capture_logs() as lines:
            began = trio.current_time()
            for n in range(100):
                forged = await site.post("/twiml?call=call_x", {"CallSid": SID}, None if n % 2 else "A" * 28)
                assert forged.status_code == 403
                cut.append(forged.headers.get("Connection") == "close")
            assert await site.token(line)
            seconds = trio.current_time() - began
        told = [each["count"] for each in lines if each["event"] == "webhook refused"]
        assert 10 <= len(told) <= 10 + seconds + 1
        assert sum(told) <= 100
        kept = GUESS_RATE.burst + seconds * GUESS_RATE.per_second
        assert not any(cut[: GUESS_RATE.burst])
        assert cut.count(False) <= kept + 1  # beyond that each one costs a connection
