"""What the emulated agent sends, in the order in which it was said, and the faults that befall its socket.

It must not know what a session or a conversation is.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from relay.simulator.ledger import Ledger

CLOSE_SECONDS = 1.0
GARBAGE_MESSAGES = 12  # the service bears with nine in a row
OVERSIZE_CHARACTERS = 1_100_000  # the service accepts 1 MiB
UNSENT_EVENTS = 1000
"""Half a minute of audio. Full means that the service has stopped reading: a violation, and the end."""


class Outbox:
    """The one writer of a connection. Only `run` waits: it sends until the socket is gone."""

    def __init__(
        self,
        ws: WebSocketConnection,
        stream: trio.abc.Stream,
        ledger: Ledger,
        wall_clock: Callable[[], float],
    ) -> None:
        self.ledger = ledger
        self.closing = False  # whatever is emitted from now on is not sent
        self.stalled = False  # the fault "stop-reading" has struck
        self._ws = ws
        self._stream = stream
        self._wall_clock = wall_clock
        self._mute = False
        self._put, self._queue = trio.open_memory_channel[dict[str, Any] | str](UNSENT_EVENTS)
        self._scope = trio.CancelScope()

    def emit(self, event: str, **fields: Any) -> None:
        """Queue one event; it carries the wall clock's time."""
        self._enqueue({"type": event, **fields, "timestamp": self._wall_clock()})

    def strike(self, kind: str) -> None:
        """Queue a fault of the socket: it strikes when everything before it has gone out."""
        self._enqueue(kind)

    def close(self, code: int) -> None:
        """Close the socket when everything queued has gone out."""
        self._enqueue(f"close:{code}")
        self.closing = True

    def abandon(self) -> None:
        """Send nothing more, and leave the socket to whoever closes it."""
        self.closing = True
        self._scope.cancel()

    def _enqueue(self, item: dict[str, Any] | str) -> None:
        if self.closing:
            return
        try:
            self._put.send_nowait(item)
        except trio.WouldBlock:
            self.ledger.violate("agent", f"stopped reading: {UNSENT_EVENTS} events unsent")
            self._scope.cancel()

    async def run(self) -> None:
        """Send until the socket is closed, by whomever."""
        with self._scope:
            try:
                async for item in self._queue:
                    if isinstance(item, str):
                        await self._suffer(item)
                    elif not self._mute:
                        await self._send(item)
            except ConnectionClosed:
                return

    async def _send(self, event: dict[str, Any]) -> None:
        fields = {name: value for name, value in event.items() if name not in ("type", "timestamp", "data")}
        self.ledger.record("agent", "sent", event["type"], fields, event.get("data"))
        await self._ws.send_message(json.dumps(event, separators=(",", ":")))

    async def _suffer(self, kind: str) -> None:
        word, _, code = kind.partition(":")
        match word:
            case "close":
                with trio.move_on_after(CLOSE_SECONDS):
                    await self._ws.aclose(int(code))
                self._scope.cancel()
            case "rst":
                if isinstance(self._stream, trio.SocketStream):
                    self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await trio.aclose_forcefully(self._stream)
            case "fin":
                self._mute = True
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                else:
                    await self._stream.aclose()
            case "garbage":
                for _ in range(GARBAGE_MESSAGES):
                    await self._ws.send_message('{"type": "reply.audio", ')
            case "binary":
                await self._ws.send_message(b"\xff" * 160)
            case "oversize":
                await self._ws.send_message('{"type":"' + "x" * OVERSIZE_CHARACTERS + '"}')
            case "stop-reading":
                self.stalled = True
            case "mute":
                self._mute = True
            case _:
                raise ValueError(f"{kind!r} is not a fault of the agent's leg at this moment")
