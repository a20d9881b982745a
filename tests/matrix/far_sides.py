"""The far sides of a call in the kill matrix: streams that can be broken, in memory or on real sockets.

Must not know the relay: what is sent over them, and when they break, is said elsewhere.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import trio
import trio_websocket

from relay.streams import SocketStream, harden
from tests.far_ends import MemoryStream, connected_sockets, memory_pair
from tests.test_call import Far

SMALL_BUFFER_BYTES = 4096  # of the far side's socket: shut after half a second of audio


class BreakableStream(trio.abc.HalfCloseableStream):
    """A stream with the vices of a far end that dies. What it is on (`inner`) works on beneath it."""

    def __init__(self, inner: MemoryStream | trio.SocketStream) -> None:
        self.inner = inner
        self._is_mute = False
        self._turn = trio.Lock()  # a fault may fall into the middle of what is being sent
        self._reads = True
        self._reading = trio.CancelScope()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything; what is sent after `fall_mute` arrives nowhere."""
        if self._is_mute:
            await trio.lowlevel.checkpoint()
        else:
            await self.send_through(data)

    async def send_through(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, mute or not."""
        async with self._turn:
            await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What has come; nothing ever again after `shut_window`."""
        if self._reads:
            with trio.CancelScope() as self._reading:
                return await self.inner.receive_some(max_bytes)
        await trio.sleep_forever()
        raise AssertionError

    async def send_eof(self) -> None:
        """Half of a close: this side goes on reading."""
        async with self._turn:
            await self.inner.send_eof()

    async def aclose(self) -> None:
        """FIN, without a word before it; after `fall_mute` not even that."""
        if self._is_mute:
            await trio.lowlevel.checkpoint()
        else:
            await self.inner.aclose()

    def fall_mute(self) -> None:
        """Write nothing more, no pong and no close frame either."""
        self._is_mute = True

    def shut_window(self) -> None:
        """Read nothing more: what the other side sends stays with it."""
        self._reads = False
        self._reading.cancel()
        if isinstance(self.inner, MemoryStream):
            self.inner.shut_window()

    def reset(self) -> None:
        """RST: both sides lose what was on the way."""
        if isinstance(self.inner, MemoryStream):
            self.inner.reset()
        else:
            self.inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.inner.socket.close()


class FarSide(Far):
    """One leg as its far side has it."""

    stream: BreakableStream

    def __init__(
        self, websocket: Any, stream: BreakableStream, *, stream_sid: str = "", is_client: bool = False
    ) -> None:
        super().__init__(websocket, stream)
        self.stream_sid = stream_sid  # the phone's
        self.is_client = is_client  # the phone is; who is a client masks its frames


async def connect_websocket(nursery: trio.Nursery, stream: Any, **options: Any) -> Any:
    """The carrier's half of the handshake."""
    return await trio_websocket.wrap_client_stream(nursery, stream, "relay.test", "/twilio-stream", **options)


async def accept_websocket(nursery: trio.Nursery, stream: BreakableStream, **options: Any) -> Any:
    """The agent's half of the handshake."""
    request = await trio_websocket.wrap_server_stream(nursery, stream, **options)
    return await request.accept()


Wire: TypeAlias = Callable[[], tuple[Any, BreakableStream]]
"""Makes one connection: our end and the far one."""


def memory_wire() -> tuple[Any, BreakableStream]:
    """In memory, where the clock may jump."""
    ours, theirs = memory_pair()
    return ours, BreakableStream(theirs)


def socket_wire(buffer_bytes: int | None = None) -> tuple[Any, BreakableStream]:
    """Over loopback, where the far side's socket may be given so small a buffer."""
    here, there = connected_sockets()
    if buffer_bytes is not None:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    harden(here)
    there.setblocking(False)
    return SocketStream(here), BreakableStream(trio.SocketStream(trio.socket.from_stdlib_socket(there)))


def narrow_wire() -> tuple[Any, BreakableStream]:
    """The same; what the far side does not read soon shuts its window.

    For that alone: of what comes at once into so small a buffer the kernel drops a part, and has it sent
    again after seconds.
    """
    return socket_wire(SMALL_BUFFER_BYTES)
