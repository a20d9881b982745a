"""A TCP proxy that does to the bytes of a connection what networks do to them.

Knows sockets and what befalls them; no call, and nothing of who speaks through it.
"""

from __future__ import annotations

import ctypes
import math
import random
import socket
import struct
import sys
from contextlib import suppress
from typing import Final

import trio

# What a connection lives through.
PASSING: Final = ("late", "sliced", "stall")
# What it does not, though nobody may be told. A "blackout" lets go, much later, of all that it held back.
DEADLY: Final = (
    *("reset", "truncate", "half-close", "trickle", "stop-reading", "blackout"),
    *(("half-open",) if sys.platform == "linux" else ()),
)

LATE_SECONDS: Final = 0.15  # and as much again at random, for each chunk, in order
PIECE_BYTES: Final = 7
TRICKLE_SECONDS: Final = 1.0  # for each byte
OPENING_BYTES: Final = 32 * 1024  # kept of what the client said first
LINGER_SECONDS: Final = 5.0  # for the far end to follow a service that has closed
_CHUNK_BYTES: Final = 64 * 1024
_CHUNKS: Final = 64  # on the way; when they are that many the sender waits, as a full window makes it

_SO_ATTACH_FILTER: Final = 26  # Linux, asm-generic/socket.h; the socket module does not name it
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)  # one BPF instruction: return 0, keep nothing


class _Way:
    """One direction of a connection."""

    def __init__(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        self.held_until = -math.inf
        self.late_seconds = 0.0
        self.piece_bytes = 0  # 0: as they came
        self.piece_seconds = 0.0
        self.is_cut = False  # the next chunk is the last one, and half of it arrives
        self.was_reset = False  # the source, behind what it has sent
        self.ended_at: float | None = None  # when the source had closed, or was gone
        self.opening = bytearray()  # what it said first
        self._source = source
        self._sink = sink
        self._reads = trio.Event()
        self._reads.set()
        self._reading = trio.CancelScope()
        self._into, self._out = trio.open_memory_channel[tuple[float, bytes]](_CHUNKS)

    def stop_reading(self) -> None:
        """Leave with the source whatever it sends from now on."""
        self._reads = trio.Event()
        self._reading.cancel()

    async def read(self, rng: random.Random) -> None:
        """Take what comes, to its end or its reset."""
        due, chunk = -math.inf, b"?"
        while chunk:
            await self._reads.wait()
            with trio.CancelScope() as self._reading:
                try:
                    chunk = bytes(await self._source.receive_some(_CHUNK_BYTES))
                except trio.BrokenResourceError:
                    self.was_reset, chunk = True, b""
            if self._reading.cancelled_caught:
                continue
            if len(self.opening) < OPENING_BYTES:
                self.opening += chunk
            due = max(due, trio.current_time() + self.late_seconds * (1 + rng.random()))
            await self._into.send((due, chunk))
        self.ended_at = trio.current_time()

    async def write(self) -> bool:
        """Pass on what is due, to its end; False where the connection breaks off with it."""
        async for due, chunk in self._out:
            while trio.current_time() < max(due, self.held_until):  # noqa: ASYNC110 - both may be put off
                await trio.sleep_until(max(due, self.held_until))
            if self.is_cut:
                await self._sink.send_all(chunk[: len(chunk) // 2])
                return False
            if not chunk:
                if not self.was_reset:
                    await self._sink.send_eof()
                return not self.was_reset
            size = self.piece_bytes or len(chunk)
            for begin in range(0, len(chunk), size):
                await self._sink.send_all(chunk[begin : begin + size])
                await trio.sleep(self.piece_seconds)
        raise AssertionError("nobody closes the channel")


class Passage:
    """One connection through the proxy: the service at one end, the outside world at the other one."""

    def __init__(self, service: trio.SocketStream, outside: trio.SocketStream, *, is_dialled: bool) -> None:
        self.port = int(service.socket.getsockname()[1])  # ours, towards the service
        self._service = service
        self._outside = outside
        self._from_service = _Way(service, outside)
        self._to_service = _Way(outside, service)
        self._client = self._from_service if is_dialled else self._to_service
        self._both = trio.CancelScope()

    @property
    def opening(self) -> bytes:
        """What whoever opened the connection said first."""
        return bytes(self._client.opening)

    @property
    def closed_at(self) -> float | None:
        """When the service had closed its end, as far as that can be seen from here; None before."""
        return self._from_service.ended_at

    def befall(self, kind: str, seconds: float = 0.0) -> None:
        """Let something happen to the connection from now on; what passes does so after `seconds`."""
        ways = (self._from_service, self._to_service)
        match kind:
            case "late":
                for way in ways:
                    way.late_seconds = LATE_SECONDS
            case "sliced":
                for way in ways:
                    way.piece_bytes = PIECE_BYTES
            case "trickle":
                for way in ways:
                    way.piece_bytes, way.piece_seconds = 1, TRICKLE_SECONDS
            case "stall" | "blackout":
                for way in ways:
                    way.held_until = trio.current_time() + seconds
            case "reset":
                self._reset()
            case "truncate":
                self._to_service.is_cut = True
            case "half-close":
                self._to_service.held_until = math.inf
                with suppress(OSError):
                    self._service.socket.shutdown(socket.SHUT_WR)
            case "stop-reading":
                self._from_service.stop_reading()
            case "half-open":
                _drop_what_comes(self._service)
                self._to_service.held_until = math.inf
            case _:
                raise ValueError(f"{kind!r} befalls no connection")

    def _reset(self) -> None:
        for stream in (self._service, self._outside):
            with suppress(OSError):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._both.cancel()

    async def run(self, rng: random.Random) -> None:
        """Until both ends are closed."""
        try:
            with self._both:
                async with trio.open_nursery() as nursery:
                    for way in (self._from_service, self._to_service):
                        nursery.start_soon(self._read, way, rng)
                        nursery.start_soon(self._write, way)
        finally:
            for stream in (self._service, self._outside):
                stream.socket.close()  # both, also where we are cancelled

    async def _read(self, way: _Way, rng: random.Random) -> None:
        await way.read(rng)
        if way is self._from_service:  # it has closed: whoever does not follow is left behind
            self._both.deadline = trio.current_time() + LINGER_SECONDS

    async def _write(self, way: _Way) -> None:
        try:
            is_whole = await way.write()
        except (trio.BrokenResourceError, OSError):
            return  # the reader of that end sees it too
        if way.was_reset:
            self._reset()
        elif not is_whole:
            self._both.cancel()


class Proxy:
    """Stands before one port of this machine. `passages` are all connections so far, the oldest first."""

    def __init__(self, port: int, rng: random.Random, *, is_dialled: bool) -> None:
        self.passages: list[Passage] = []  # bounded by the run
        self._port = port
        self._rng = rng
        self._is_dialled = is_dialled  # by the service; else it is the service that is dialled

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections on loopback until cancelled; reports the port."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(self._pass, listeners)

    async def _pass(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self._port)
        except OSError:
            await trio.aclose_forcefully(client)
            return
        ends = (client, server) if self._is_dialled else (server, client)
        passage = Passage(*ends, is_dialled=self._is_dialled)
        self.passages.append(passage)
        await passage.run(self._rng)


def _drop_what_comes(stream: trio.SocketStream) -> None:
    """Have the kernel drop each packet for this socket: nothing is acknowledged, as if the host were gone."""
    code = ctypes.create_string_buffer(_DROP_ALL)
    program = struct.pack("HL", 1, ctypes.addressof(code))
    stream.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
