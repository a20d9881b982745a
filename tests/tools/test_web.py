"""HTTP tools: the request that is sent, what may be reached, and what becomes of a bad answer."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import h11
import httpx
import pytest
import trio

from relay.profiles import HttpTool, ProfileError
from relay.tools import CallContext, Toolbox, ToolOutcome
from relay.tools.web import SIGNATURE_HEADER, GuardedTransport, WebTools, is_public

CALL = CallContext("call_1", "+12025550143", {})
SECRETS = {"RELAY_TOOL_SECRET_KEY": "s3cret", "RELAY_TOOL_SECRET_TOKEN": "t0ken"}
LOOPBACK = ("127.0.0.0/8",)


class Service:
    """Somebody's HTTP service on loopback, which remembers what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[tuple[h11.Request, bytes]] = []
        self.status = 200
        self.headers: list[tuple[str, str]] = []
        self.body = b'{"state":"sent"}'

    async def serve(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        request, body = None, b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        assert request is not None
        self.asked.append((request, body))
        headers = [("Content-Length", str(len(self.body))), *self.headers]
        try:
            await stream.send_all(http.send(h11.Response(status_code=self.status, headers=headers)) or b"")
            await stream.send_all(http.send(h11.Data(data=self.body)) or b"")
        except trio.BrokenResourceError:
            pass  # an answer that is too long is not read to its end


@asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    service = Service()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, service.serve, 0)
        service.port = listeners[0].socket.getsockname()[1]
        yield service
        nursery.cancel_scope.cancel()


def spec(service: Service, **changes: Any) -> HttpTool:
    return HttpTool.model_validate(
        {
            "name": "order_state",
            "description": "How far an order is.",
            "url": f"http://127.0.0.1:{service.port}/orders/{{order}}",
            "parameters": {
                "order": {"description": "its number", "pattern": "^[^ ]+$"},
                "note": {"description": "a note", "required": False},
            },
        }
        | changes
    )


def web(networks: tuple[str, ...] = LOOPBACK, now: Callable[[], float] = lambda: 1_700_000_000.9) -> WebTools:
    return WebTools(hosts=["127.0.0.1", "crm.example"], networks=networks, secrets=SECRETS, now=now)


async def ask(declared: HttpTool, tools: WebTools | None = None, **arguments: Any) -> ToolOutcome:
    tools = tools or web()
    made = tools.make(declared, where="shop.toml")
    try:
        return await Toolbox([made], CALL).run(made.name, arguments, "run_7")
    finally:
        await tools.aclose()


async def test_a_get_puts_arguments_into_path_and_query() -> None:
    async with open_service() as service:
        outcome = await ask(spec(service), order="12/../34", note="a&b=c")
    assert outcome == ToolOutcome('{"state":"sent"}')
    request, body = service.asked[0]
    assert (request.method, request.target, body) == (b"GET", b"/orders/12%2F..%2F34?note=a%26b%3Dc", b"")
    assert dict(request.headers)[b"idempotency-key"] == b"call_1:run_7"


async def test_a_post_sends_json_signed_with_the_time() -> None:
    async with open_service() as service:
        declared = spec(
            service,
            method="POST",
            secret="RELAY_TOOL_SECRET_KEY",
            headers={"Authorization": "Bearer ${RELAY_TOOL_SECRET_TOKEN}"},
        )
        await ask(declared, order="7", note="hello")
    request, body = service.asked[0]
    headers = dict(request.headers)
    assert json.loads(body) == {"note": "hello"}
    assert headers[b"authorization"] == b"Bearer t0ken"
    signed = b"1700000000\nPOST\n/orders/7\n" + body
    digest = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert headers[SIGNATURE_HEADER.lower().encode()] == f"t=1700000000,v1={digest}".encode()


@pytest.mark.parametrize("value", ["..", ".", ""])
async def test_a_step_to_another_folder_is_refused(value: str) -> None:
    async with open_service() as service:
        declared = spec(service, parameters={"order": {"description": "its number"}})
        outcome = await ask(declared, order=value)
    assert outcome.is_error
    assert service.asked == []


async def test_an_argument_that_was_not_declared_is_refused() -> None:
    async with open_service() as service:
        outcome = await ask(spec(service), order="7", url="http://127.0.0.1/admin")
    assert outcome.is_error
    assert service.asked == []


async def test_a_redirect_is_not_followed() -> None:
    async with open_service() as service, open_service() as elsewhere:
        service.status, service.headers = 302, [("Location", f"http://127.0.0.1:{elsewhere.port}/")]
        outcome = await ask(spec(service), order="7")
    assert outcome.is_error
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    ("status", "headers", "body", "says"),
    [
        (500, [], b"Traceback: s3cret", "status 500"),
        (200, [], b"<html>", "cannot be reached"),
        (200, [], b'"' + b"x" * 70_000 + b'"', "cannot be reached"),
        (200, [("Content-Encoding", "gzip")], b"\x1f\x8b", "cannot be reached"),
    ],
)
async def test_a_bad_answer_becomes_a_sentence(
    status: int, headers: list[tuple[str, str]], body: bytes, says: str
) -> None:
    async with open_service() as service:
        service.status, service.headers, service.body = status, headers, body
        outcome = await ask(spec(service), order="7")
    assert outcome.is_error
    assert says in outcome.result
    assert "s3cret" not in outcome.result


async def test_an_empty_answer_is_a_yes() -> None:
    async with open_service() as service:
        service.status, service.body = 200, b""
        assert (await ask(spec(service), order="7")).result == '{"done":true}'


async def test_a_service_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        service = Service()
        service.port = silent.getsockname()[1]
        with trio.fail_after(5):
            outcome = await ask(spec(service, timeout_seconds=0.2), order="7")
    assert "too long" in outcome.result


# ---- what may be reached -----------------------------------------------------------------------------------


async def test_a_private_address_is_refused_unless_the_operator_names_its_network() -> None:
    async with open_service() as service:
        outcome = await ask(spec(service), web(networks=()), order="7")
    assert outcome.is_error
    assert service.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1",
        "64:ff9b::a00:1", "2002:a00:1::", "64:ff9b:1::a00:1", "fec0::1", "::7f00:1", "::ffff:0:7f00:1",
        "2001:0:0:0:0:0:f5ff:fffe",
    ],
)  # fmt: skip
def test_an_address_that_is_not_of_the_open_internet(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_an_address_of_the_open_internet(address: str) -> None:
    assert is_public(ip_address(address))


async def test_a_name_is_resolved_once_and_every_answer_must_be_public() -> None:
    sent: list[httpx.Request] = []
    answers = [["93.184.216.34"], ["127.0.0.1"]]

    class Inner(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await trio.lowlevel.checkpoint()
            sent.append(request)
            return httpx.Response(200)

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return [(0, 0, 0, "", (address, port)) for address in answers.pop(0)]

    async with httpx.AsyncClient(transport=GuardedTransport(Inner(), (), resolve)) as http:
        await http.get("https://crm.example/a")
        with pytest.raises(httpx.ConnectError, match="not public"):
            await http.get("https://crm.example/a")
        answers.append(["93.184.216.34", "10.0.0.1"])
        with pytest.raises(httpx.ConnectError, match="not public"):
            await http.get("https://crm.example/a")
        answers.append(["93.184.216.34"])
        with pytest.raises(httpx.ConnectError, match="cleartext"):
            await http.get("http://crm.example/a")
    only = sent[0]
    assert (only.url.host, only.headers["Host"]) == ("93.184.216.34", "crm.example")
    assert only.extensions["sni_hostname"] == "crm.example"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"url": "https://evil.example/a"}, "RELAY_TOOL_HOSTS"),
        ({"headers": {"Authorization": "${TWILIO_AUTH_TOKEN}"}}, "TWILIO_AUTH_TOKEN"),
        ({"secret": "RELAY_TOOL_SECRET_LOST"}, "RELAY_TOOL_SECRET_LOST"),
        ({"url": "https://crm.example/{customer}"}, "customer"),
    ],
)
def test_a_declaration_that_cannot_be_used_names_key_and_remedy(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ProfileError, match=rf"shop.toml: http_tools.order_state.*{says}"):
        web().make(spec(Service(), **changes), where="shop.toml")


@pytest.mark.parametrize(
    "url", ["https://{host}/a", "https://user@crm.example/", "ftp://crm.example/", "https://"]
)
def test_a_place_in_the_host_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        spec(Service(), url=url)
