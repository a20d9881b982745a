"""Packets that no well-meaning client sends, and what each is answered.

Must not know how the edge defends itself: bytes in, a status (or silence) out.
"""

from dataclasses import dataclass
from enum import Enum, auto

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Ending(Enum):
    """What the attacker does after its last byte."""

    LISTENS = auto()  # reads until the server has closed
    RESETS = auto()  # cuts the connection with a TCP reset
    STALLS = auto()  # keeps the connection and reads nothing


@dataclass(frozen=True, slots=True)
class Packet:
    """One attack: its pieces are sent one after the other, each as a segment of its own."""

    name: str
    pieces: tuple[bytes, ...]
    statuses: frozenset[int] = frozenset()  # the answers allowed; none: closed without a word
    ending: Ending = Ending.LISTENS


def upgrade(path: str = "/stream", **changes: str | bytes | None) -> bytes:
    """An opening handshake of RFC 6455, with headers changed, added or (None) left out."""
    headers: dict[str, str | bytes | None] = {
        "Host": "edge",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"GET {path} HTTP/1.1".encode()]
    for name, value in headers.items():
        if value is not None:
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: edge", *headers, "", ""]).encode()


def post(*headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join(["POST /body HTTP/1.1", "Host: edge", *headers, "", ""]).encode() + body


def refused(name: str, *pieces: bytes, statuses: tuple[int, ...] = (400,)) -> Packet:
    return Packet(name, pieces, frozenset(statuses))


def cut_off(name: str, *pieces: bytes) -> Packet:
    return Packet(name, pieces)


def left(name: str, *pieces: bytes) -> Packet:
    return Packet(f"{name}, then a reset", pieces, ending=Ending.RESETS)


_BEGUN = get("/hello").removesuffix(b"\r\n")
_FRAME = b"\x81\x85\x00\x00\x00\x00hello"
_H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(99)
_CHUNKED = "Transfer-Encoding: chunked"

PACKETS = [
    # Upgrades that bring more than a request
    refused("one byte behind an upgrade", upgrade() + b"x"),
    refused("a frame behind an upgrade", upgrade() + _FRAME),
    refused("two upgrades in one segment", upgrade() * 2),
    refused("an upgrade with a body", upgrade(Content_Length="5") + b"hello"),
    refused("an upgrade with a body to come", upgrade(Content_Length="5")),
    refused("an upgrade with chunks", upgrade(Transfer_Encoding="chunked") + b"0\r\n\r\n"),
    left("a frame soon after an upgrade", upgrade(), _FRAME),
    # Bytes that are not ASCII where Hypercorn decodes ASCII
    refused("Connection not ASCII", upgrade(Connection=b"Upgrade, \xff")),
    refused("Upgrade not ASCII", upgrade(Upgrade=b"websocket\xff")),
    refused("subprotocol not ASCII", upgrade(Sec_WebSocket_Protocol=b"\xe4")),
    refused("extension not ASCII", upgrade(Sec_WebSocket_Extensions=b"\xe4")),
    refused("key not ASCII", upgrade(Sec_WebSocket_Key=b"\xff" * 24)),
    refused("version not ASCII", upgrade(Sec_WebSocket_Version=b"\xb9")),
    refused("host not ASCII", upgrade(Host=b"\xe4")),
    # Handshakes that are not handshakes
    refused("no key", upgrade(Sec_WebSocket_Key=None)),
    refused("short key", upgrade(Sec_WebSocket_Key="YWJj")),
    refused("bad version", upgrade(Sec_WebSocket_Version="12")),
    refused("no version", upgrade(Sec_WebSocket_Version=None)),
    refused("upgrade that Connection does not name", upgrade(Connection="close")),
    refused("upgrade without Connection", upgrade(Connection=None)),
    refused("upgrade by POST", upgrade().replace(b"GET", b"POST")),
    refused("upgrade over HTTP/1.0", upgrade().replace(b"HTTP/1.1", b"HTTP/1.0")),
    refused("upgrade to something else", upgrade(Upgrade="teleport")),
    refused("upgrade of a page that has none", upgrade("/hello"), statuses=(400, 404)),
    # HTTP/2, which is not spoken
    refused("h2c upgrade", upgrade(Upgrade="h2c", HTTP2_Settings="AAMAAABk")),
    refused("h2c upgrade with bad settings", upgrade(Upgrade="h2c", HTTP2_Settings=b"\xff!")),
    refused("HTTP/2 with prior knowledge", _H2_PREFACE, statuses=(400, 505)),
    refused("HTTP/2 with prior knowledge and garbage", _H2_PREFACE + b"\xff" * 99, statuses=(400, 505)),
    # Requests that two readers would read differently
    refused("both lengths", post("Content-Length: 4", _CHUNKED, body=b"0\r\n\r\nGET /bug HTTP/1.1\r\n")),
    refused("two lengths", post("Content-Length: 4", "Content-Length: 5", body=b"hello")),
    refused("negative length", post("Content-Length: -1")),
    refused("length that is no number", post("Content-Length: 1e3")),
    refused("transfer encoding unknown", post("Transfer-Encoding: rot13"), statuses=(400, 501)),
    refused("chunk size that is none", post(_CHUNKED, body=b"zz\r\n")),
    refused("chunk size too long", post(_CHUNKED, body=b"f" * 99 + b"\r\n")),
    refused("chunk longer than it says", post(_CHUNKED, body=b"1\r\nhello\r\n0\r\n\r\n")),
    refused("space before the colon", get("/hello", "X : a")),
    # Heads that are none
    refused("NUL bytes", bytes(100) + b"\r\n\r\n"),
    refused("NUL in a header", get("/hello", "X: a\x00b")),
    refused("TLS on a plain port", _TLS_HELLO),
    refused("huge header", get("/hello", "X: " + "x" * 100_000), statuses=(431,)),
    refused("many headers", get("/hello", *["X: x"] * 20_000), statuses=(431,)),
    refused("endless request line", b"GET /" + b"x" * 100_000, statuses=(414, 431)),
    refused("no host", b"GET /hello HTTP/1.1\r\n\r\n"),
    refused("two hosts", get("/hello", "Host: other")),
    refused("target without a path", get("?x")),
    refused("target of a proxy", get("http://")),
    refused("target of a tunnel", b"CONNECT edge:1 HTTP/1.1\r\nHost: edge\r\n\r\n"),
    refused("unknown HTTP version", get("/hello").replace(b"1.1", b"9.9"), statuses=(400, 505)),
    # Peers that leave in the middle, or never say anything
    cut_off("nothing at all"),
    cut_off("half a head", _BEGUN),
    cut_off("half a body", post("Content-Length: 100", body=b"half")),
    cut_off("a request sent ahead of an answer that never comes", get("/hang") * 2),
    left("connect"),
    left("half a head", _BEGUN),
    left("half a body", post("Content-Length: 100", body=b"half")),
    left("an upgrade", upgrade()),
    left("a request", get("/hello")),
    left("a request that is never answered", get("/hang")),
    left("many requests at once", get("/hello") * 500),
    left("many requests at once of which the first is never answered", get("/hang") * 500),
    Packet("an endless answer that nobody reads", (get("/endless"),), ending=Ending.STALLS),
    # Applications that fail, as seen from outside
    refused("a request that hits a bug", get("/bug", "Connection: close"), statuses=(500,)),
    refused("a WebSocket that the route does not detach", upgrade("/plain"), statuses=(403,)),
]
