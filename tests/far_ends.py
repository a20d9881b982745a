"""The far ends of both legs for tests: streams in memory, and the other WebSocket implementation on them.

Must not know the relay's own code beyond its legs: what these far ends say comes from the protocols.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
from typing import Any

import trio
import trio_websocket
from trio.lowlevel import ParkingLot
from websockets.uri import parse_uri

from relay.handshake import accept_phone_leg, shake_hands
from relay.legs import Leg
from relay.listening import Listening
from relay.outcomes import LegClosed

AGENT_URL = "ws://agent.test/v1/ws"


class _Pipe:
    """One direction: a bounded buffer, as a kernel has one."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data = bytearray()
        self.ended = False  # the sender said that nothing follows
        self.gone = False  # the receiver closed: what is sent now breaks
        self.reset = False
        self.swallows = False
        self.lot = ParkingLot()

    def put(self, data: bytes | bytearray | memoryview) -> int:
        if self.swallows:
            return len(data)
        if self.gone or self.reset:
            raise trio.BrokenResourceError("the far end is gone")
        taken = min(len(data), self.capacity - len(self.data))
        if taken:
            self.data += data[:taken]
            self.lot.unpark_all()
        return taken


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory; made by `memory_pair`."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in = incoming
        self._out = outgoing
        self.closed = False
        self._sending = False
        self._receiving = False
        self.reads = True  # False: what a peer does that has stopped reading, from its next read on

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, waiting for room."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            rest = memoryview(data)
            while True:
                if self.closed or self._out.ended:
                    raise trio.ClosedResourceError
                rest = rest[self._out.put(rest) :]
                if not rest:
                    return
                await self._out.lot.park()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            while not self.closed and not self._out.gone and len(self._out.data) >= self._out.capacity:
                await self._out.lot.park()
            if self.closed or self._out.ended:
                raise trio.ClosedResourceError
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, or b"" at the end."""
        if not isinstance(max_bytes, int | None):
            raise TypeError("max_bytes must be an integer")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            if not self.reads:
                await trio.sleep_forever()
            while True:
                if self.closed:
                    raise trio.ClosedResourceError
                if self._in.reset:
                    raise trio.BrokenResourceError("reset")
                if self._in.data:
                    chunk = bytes(self._in.data[: max_bytes or 65536])
                    del self._in.data[: len(chunk)]
                    self._in.lot.unpark_all()
                    return chunk
                if self._in.ended:
                    return b""
                await self._in.lot.park()
        finally:
            self._receiving = False

    async def send_eof(self) -> None:
        """Nothing follows."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError
        self._out.ended = True
        self._out.lot.unpark_all()

    async def aclose(self) -> None:
        """Close both directions."""
        self.closed = True
        self._out.ended = True
        self._in.gone = True
        self._out.lot.unpark_all()
        self._in.lot.unpark_all()
        await trio.lowlevel.checkpoint()

    def vanish(self) -> None:
        """What is sent from here on arrives nowhere, and nobody is told."""
        self._out.swallows = True

    def shut_window(self) -> None:
        """Take nothing more: what is sent from here on stays with the other end."""
        self._in.capacity = len(self._in.data)

    def reset(self) -> None:
        """Cut the connection as RST does: both ends lose what was on the way."""
        self.closed = True
        for pipe in (self._in, self._out):
            pipe.reset = True
            pipe.lot.unpark_all()


class NonBlockingMemoryStream(MemoryStream):
    """Takes bytes without waiting, as the raw sockets of the media path do."""

    def send_nowait(self, data: bytes) -> int:
        """How many bytes were taken."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        if self.closed:
            raise trio.ClosedResourceError
        return self._out.put(data)


def memory_pair(capacity: int = 64 * 1024, *, nowait: bool = True) -> tuple[MemoryStream, MemoryStream]:
    """Our end, with `send_nowait` or without, and the far end."""
    there, back = _Pipe(capacity), _Pipe(capacity)
    ours = (NonBlockingMemoryStream if nowait else MemoryStream)(incoming=back, outgoing=there)
    return ours, MemoryStream(incoming=there, outgoing=back)


def connected_sockets() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = socket.create_connection(listening.getsockname())
        there, _ = listening.accept()
    return here, there


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True) -> bytes:
    """One WebSocket frame, by RFC 6455 section 5.2; masked with zeros as a client's must be masked."""
    size = len(payload)
    flag = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", opcode | (0x80 if fin else 0), size | flag)
    elif size < 2**16:
        head = struct.pack("!BBH", opcode | (0x80 if fin else 0), 126 | flag, size)
    else:
        head = struct.pack("!BBQ", opcode | (0x80 if fin else 0), 127 | flag, size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


async def answer_upgrade(stream: trio.abc.Stream, early: bytes = b"") -> None:
    """Answer the far end's upgrade, as the web edge does before it hands the stream over."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += await stream.receive_some(4096)
    fields = dict(line.lower().split(b": ", 1) for line in request.split(b"\r\n")[1:-2])
    key = next(line[19:] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    assert fields[b"upgrade"] == b"websocket"
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n" + early
    )


class FarEnd:
    """One leg as the other side has it: the socket, and trio-websocket on it."""

    def __init__(self, socket: trio_websocket.WebSocketConnection, stream: Any) -> None:
        self.socket = socket
        self.stream = stream

    async def receive(self) -> str | bytes:
        """The next message."""
        message: str | bytes = await self.socket.get_message()
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a message."""
        await self.socket.send_message(message)

    async def wait_closed(self) -> int:
        """Read until the relay has closed; its code, 1006 where there was no close frame."""
        try:
            while True:
                await self.socket.get_message()
        except trio_websocket.ConnectionClosed as closed:
            return 1006 if closed.reason is None else int(closed.reason.code)


QUEUE = 4096  # messages that the far end holds unread; more than any test sends


async def join_phone_leg(
    nursery: trio.Nursery, ours: Any, theirs: Any, listening: Listening | None = None
) -> tuple[Leg, FarEnd]:
    """A phone leg, and the carrier's end of it. The nursery must outlive both."""
    made: list[Leg] = []

    async def accept() -> None:
        await answer_upgrade(ours)
        made.append(accept_phone_leg(ours, listening))

    async with trio.open_nursery() as joining:
        joining.start_soon(accept)
        far = await trio_websocket.wrap_client_stream(
            nursery, theirs, "relay.test", "/twilio-stream", message_queue_size=QUEUE, max_message_size=2**22
        )
    return made[0], FarEnd(far, theirs)


async def join_agent_leg(
    nursery: trio.Nursery, ours: Any, theirs: Any, listening: Listening | None = None
) -> tuple[Leg, FarEnd]:
    """An agent leg, and the agent's end of it. The nursery must outlive both."""
    accepted: list[FarEnd] = []

    async def accept() -> None:
        request = await trio_websocket.wrap_server_stream(
            nursery, theirs, message_queue_size=QUEUE, max_message_size=2**22
        )
        accepted.append(FarEnd(await request.accept(), theirs))

    async with trio.open_nursery() as joining:
        joining.start_soon(accept)
        leg = await shake_hands(ours, parse_uri(AGENT_URL), {"Authorization": "Bearer key"}, listening)
    return leg, accepted[0]


class Writer:
    """Runs a leg's writer, as a call does while it lives."""

    def __init__(self, leg: Leg) -> None:
        self.loss: LegClosed | None = None
        self._leg = leg
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    async def run(self) -> None:
        """Until stopped or until the leg is lost."""
        try:
            with self._scope:
                await self._leg.write()
        except LegClosed as lost:
            self.loss = lost
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """As a call stops its tasks before it says goodbye."""
        self._scope.cancel()
        await self._stopped.wait()
