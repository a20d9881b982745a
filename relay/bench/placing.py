"""How a call gets to its stream: the carrier's REST, signed webhooks, the signed upgrade.

Knows the service's contract and the carrier's side of it; blocking, before anything is measured.

A peer that admits everybody is simply connected to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import os
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from relay.bench.loop import read_head

ACCOUNT_SID = "AC" + "b" * 32
AUTH_TOKEN = "bench-auth-token"  # noqa: S105 - opens nothing but this bench
API_TOKEN = "bench-api-token"  # noqa: S105
FROM_NUMBER = "+12025550100"
ANSWER_SECONDS = 20.0

_STREAM = re.compile(r'<Stream[^>]* url="([^"]+)"')
_TOKEN = re.compile(r'<Parameter[^>]* name="token"[^>]* value="([^"]+)"')


class Unplaced(Exception):
    """A call did not come as far as its stream."""


@dataclass(frozen=True, slots=True)
class Stream:
    """An open media stream, before its first message."""

    socket: socket.socket
    call_sid: str
    parameters: dict[str, str]


def sign(url: str, form: dict[str, str]) -> str:
    """X-Twilio-Signature."""
    text = url + "".join(name + form[name] for name in sorted(form))
    return base64.b64encode(hmac.new(AUTH_TOKEN.encode(), text.encode(), hashlib.sha1).digest()).decode()


def connect(host: str, port: int, *, path: str = "/twilio-stream", signature: str = "") -> socket.socket:
    """A WebSocket to a relay. Raises OSError or Unplaced."""
    sock = socket.create_connection((host, port), ANSWER_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    signed = f"X-Twilio-Signature: {signature}\r\n" if signature else ""
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{signed}\r\n".encode()
    )
    status = read_head(sock).split(b"\r\n", 1)[0]
    if b" 101 " not in status:
        sock.close()
        raise Unplaced(f"the upgrade was answered with {status.decode()}")
    return sock


class Desk:
    """The carrier's REST API: every order is accepted, every hang-up confirmed."""

    def __init__(self) -> None:
        orders: dict[str, str] = {}
        numbers = itertools.count(1)

        class Clerk(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with suppress(ConnectionError):  # of a relay that is ended
                    super().handle()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
                if not self.path.endswith("/Calls.json"):
                    sid = self.path.rpartition("/")[2].partition(".")[0]
                    return self._answer(200, _resource(sid, "completed"))
                sid = f"CA{next(numbers):032x}"
                orders[sid] = form["Url"]
                return self._answer(201, _resource(sid, "queued"))

            def do_GET(self) -> None:
                self._answer(200, {"calls": [], "notifications": [], "page": 0, "page_size": 50})

            def _answer(self, status: int, body: dict[str, object]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._orders = orders
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Clerk)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="carrier REST", daemon=True).start()

    def place(self, relay_port: int, number: int) -> Stream:
        """One call of the real service, from the order to the open stream. Raises Unplaced, OSError."""
        caller = http.client.HTTPConnection("127.0.0.1", relay_port, timeout=ANSWER_SECONDS)
        operator = {"Authorization": f"Bearer {API_TOKEN}", "Content-Type": "application/json"}
        body = json.dumps(
            {"to": f"+1202555{number % 10_000:04d}", "variables": {"business": f"Office {number}"}}
        )
        placed = json.loads(_ask(caller, "/v1/calls", body, operator))
        sid = placed.get("sid")
        if sid is None:
            raise Unplaced(f"the call was not dialled: {placed}")
        form = {
            "CallSid": sid,
            "AccountSid": ACCOUNT_SID,
            "CallStatus": "in-progress",
            "Direction": "outbound-api",
        }
        url = self._orders[sid]
        where = urlsplit(url)
        carrier = {
            "X-Twilio-Signature": sign(url, form),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        document = _ask(caller, f"{where.path}?{where.query}", urlencode(form), carrier).decode()
        caller.close()
        stream, token = _STREAM.search(document), _TOKEN.search(document)
        if stream is None or token is None:
            raise Unplaced(f"no stream in the document: {document[:200]}")
        address = stream[1]
        sock = connect("127.0.0.1", relay_port, path=urlsplit(address).path, signature=sign(address, {}))
        return Stream(sock, sid, {"token": token[1]})


def _ask(caller: http.client.HTTPConnection, path: str, body: str, headers: dict[str, str]) -> bytes:
    caller.request("POST", path, body, headers)
    answer = caller.getresponse()
    content = answer.read()
    if answer.status not in (200, 201):
        raise Unplaced(f"{path.partition('?')[0]} was answered with {answer.status}: {content[:300]!r}")
    return content


def _resource(sid: str, status: str) -> dict[str, object]:
    return {"sid": sid, "account_sid": ACCOUNT_SID, "status": status, "direction": "outbound-api"}
