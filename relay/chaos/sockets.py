"""A far end's WebSocket over a link: wsproto, which shares nothing with the relay's own framing.

Knows no vendor's messages. Sends without waiting; whatever breaks the link is an end like any other.
"""

from __future__ import annotations

import struct

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection, ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from relay.chaos.links import End

_TEXT = 0x81  # FIN and opcode 1, RFC 6455 section 5.2
_MASKED = 0x80


class FarSocket:
    """One far end's side of a leg."""

    def __init__(self, end: End, framing: Connection | WSConnection) -> None:
        self.end = end
        self.close_code: int | None = None  # that the relay closed with
        self._framing = framing
        self._text = ""

    # ---- sending ---------------------------------------------------------------------------------

    def send(self, text: str) -> None:
        """Send a text message, if there still is anywhere to send it."""
        self._emit(TextMessage(text))

    def send_binary(self, content: bytes) -> None:
        """Send a binary message."""
        self._emit(BytesMessage(content))

    def send_raw_text(self, content: bytes) -> None:
        """Send a text message of up to 125 bytes that need not be UTF-8."""
        masked = isinstance(self._framing, Connection)  # the carrier is the client
        head = struct.pack("!BB", _TEXT, len(content) | (_MASKED if masked else 0))
        self._push(head + (bytes(4) if masked else b"") + content)

    def close(self, code: int) -> None:
        """Send a close frame."""
        self._emit(CloseConnection(code, "chaos"))

    def _emit(self, event: AcceptConnection | TextMessage | BytesMessage | CloseConnection | Pong) -> None:
        try:
            self._push(self._framing.send(event))
        except LocalProtocolError:
            pass  # closed by either side

    def _push(self, data: bytes) -> None:
        try:
            self.end.push(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reader sees it too

    # ---- receiving -------------------------------------------------------------------------------

    async def receive(self) -> list[str]:
        """Text messages that have come; none at all: the leg is over."""
        while True:
            try:
                chunk = await self.end.receive_some()
                self._framing.receive_data(chunk or None)
                messages = [
                    text for event in self._framing.events() if (text := self._take(event)) is not None
                ]
            except (
                trio.BrokenResourceError,
                trio.ClosedResourceError,
                RemoteProtocolError,
                LocalProtocolError,
            ):
                return []
            if messages or not chunk or self._framing.state is ConnectionState.CLOSED:
                return messages

    def _take(self, event: object) -> str | None:
        match event:
            case Request():
                self._emit(AcceptConnection())
            case TextMessage(data, _, message_finished):
                self._text += data
                if message_finished:
                    text, self._text = self._text, ""
                    return text
            case Ping():
                self._emit(event.response())
            case CloseConnection(code):
                self.close_code = int(code)
                if self._framing.state is ConnectionState.REMOTE_CLOSING:
                    self._emit(event.response())
        return None


def carrier_socket(end: End) -> FarSocket:
    """The carrier's end, from behind the 101 on."""
    return FarSocket(end, Connection(ConnectionType.CLIENT))


def agent_socket(end: End) -> FarSocket:
    """The agent's end, which answers the upgrade by itself."""
    return FarSocket(end, WSConnection(ConnectionType.SERVER))
