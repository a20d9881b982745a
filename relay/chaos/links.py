"""The network of a simulation: byte streams in memory, with latency, bounded buffers and what goes wrong.

Knows trio's clock and one source of chance; no protocol, and nothing of who sends through it.
"""

from __future__ import annotations

import math
import random
from collections import deque

import msgspec
import trio
from trio.lowlevel import ParkingLot

_READ_BYTES = 64 * 1024


class Weather(msgspec.Struct, frozen=True):
    """What a connection is like, in both directions."""

    latency_seconds: float = 0.02
    jitter_seconds: float = 0.0  # at most so much more, for each piece; never out of order
    piece_bytes: int = 0  # larger writes arrive in pieces of at most so many bytes; 0: as they were written
    buffer_bytes: int = 64 * 1024  # on the way and not read yet; a sender waits when it is full


class _Way:
    """One direction of a link."""

    def __init__(self, weather: Weather, rng: random.Random) -> None:
        self.moved = ParkingLot()  # whoever waits for bytes or for room
        self.is_broken = False
        self.clogged_until = -math.inf
        self._weather = weather
        self._rng = rng
        self._gap_seconds = 0.0
        self._pieces: deque[tuple[float, bytes]] = deque()  # with the moment at which each arrives
        self._held_bytes = 0
        self._last_at = -math.inf
        self._ended_at = math.inf  # when the sender's end of file arrives
        self._refused_at = math.inf

    def put(self, data: bytes | memoryview, *, bounded: bool = True) -> int:
        """Send what there is room for. Raises trio.BrokenResourceError."""
        now = trio.current_time()
        if self.is_broken or self.refused_at <= now:
            raise trio.BrokenResourceError("the far end is gone")
        room = self._weather.buffer_bytes - self._held_bytes if bounded else len(data)
        taken = bytes(data[: max(room, 0)])
        for piece in self._cut(taken):
            self._last_at = max(self._last_at + self._gap_seconds, now + self._delay_seconds())
            self._pieces.append((self._last_at, piece))
        if taken:
            self._held_bytes += len(taken)
            self.moved.unpark_all()
        return len(taken)

    def _cut(self, data: bytes) -> list[bytes]:
        size = self._weather.piece_bytes
        if not size:
            return [data] if data else []
        return [data[at : at + size] for at in range(0, len(data), size)]

    def _delay_seconds(self) -> float:
        weather = self._weather
        return weather.latency_seconds + weather.jitter_seconds * self._rng.random()

    @property
    def ready_at(self) -> float:
        """When there is something to be read: bytes, the end, or that the link is broken."""
        if self._pieces:
            return max(self._pieces[0][0], self.clogged_until)
        return -math.inf if self.is_broken else max(self._ended_at, self.clogged_until)

    def take(self, max_bytes: int) -> bytes:
        """What has arrived, b"" at the end; for when `ready_at` has come. Raises trio.BrokenResourceError."""
        if not self._pieces:
            if self.is_broken:
                raise trio.BrokenResourceError("reset")
            return b""
        now = trio.current_time()
        taken = bytearray()
        while self._pieces and self._pieces[0][0] <= now and len(taken) < max_bytes:
            at, piece = self._pieces.popleft()
            room = max_bytes - len(taken)
            taken += piece[:room]
            if piece[room:]:
                self._pieces.appendleft((at, piece[room:]))
            if self._weather.piece_bytes:
                break
        self._held_bytes -= len(taken)
        self.moved.unpark_all()
        return bytes(taken)

    @property
    def refused_at(self) -> float:
        """When the sender learns that nobody reads any more."""
        return max(self._refused_at, self.clogged_until)

    @property
    def is_full(self) -> bool:
        """Whether a sender has to wait: not where waiting would be in vain."""
        is_dead = self.is_broken or self.refused_at <= trio.current_time()
        return self._held_bytes >= self._weather.buffer_bytes and not is_dead

    def finish(self) -> None:
        """The sender closes: its end of file arrives behind what it has sent."""
        self._ended_at = min(
            self._ended_at, max(self._last_at, trio.current_time() + self._weather.latency_seconds)
        )
        self.moved.unpark_all()

    def refuse(self) -> None:
        """The receiver closes: the sender learns of it one latency later."""
        self._refused_at = min(self._refused_at, trio.current_time() + self._weather.latency_seconds)
        self.moved.unpark_all()

    def clog(self, until: float) -> None:
        """Hold everything back, the end and the news of a refusal too."""
        self.clogged_until = max(self.clogged_until, until)
        self.moved.unpark_all()

    def trickle(self) -> None:
        """From now on one byte a second."""
        self._weather = msgspec.structs.replace(self._weather, piece_bytes=1)
        self._gap_seconds = 1.0
        self._last_at = max(self._last_at, trio.current_time())

    def shatter(self) -> None:
        """RST: what is on the way is lost, what has arrived can still be read."""
        now = trio.current_time()
        self._pieces = deque(piece for piece in self._pieces if piece[0] <= now)
        self.is_broken = True
        self.clogged_until = -math.inf
        self.moved.unpark_all()


class End(trio.abc.HalfCloseableStream):
    """One end of a link: what both sides of a call read and write. Takes bytes without waiting, too."""

    def __init__(self, incoming: _Way, outgoing: _Way) -> None:
        self.is_closed = False
        self._in = incoming
        self._out = outgoing
        self._finished = False
        self._sending = False
        self._receiving = False

    def send_nowait(self, data: bytes) -> int:
        """How many bytes were taken; 0 when sending would block."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._check_open()
        return self._out.put(data)

    def push(self, data: bytes) -> None:
        """Send everything at once, whatever the buffer: a far end has memory, and is not what is tried."""
        self._check_open()
        self._out.put(data, bounded=False)

    def _check_open(self) -> None:
        if self.is_closed or self._finished:
            raise trio.ClosedResourceError("this end was closed")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, waiting for room."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._check_open()
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            rest = memoryview(data)
            while rest:
                self._check_open()
                rest = rest[self._out.put(rest) :]
                if rest:
                    await self._wait_room()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._check_open()
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            while self._out.is_full and not self.is_closed:
                await self._wait_room()
            self._check_open()
        finally:
            self._sending = False

    async def _wait_room(self) -> None:
        with trio.CancelScope(deadline=self._out.refused_at):
            await self._out.moved.park()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived, or b"" at the end."""
        if not isinstance(max_bytes, int | None):
            raise TypeError("max_bytes must be an integer")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await self._wait_ready()
            return self._in.take(max_bytes or _READ_BYTES)
        finally:
            self._receiving = False

    async def _wait_ready(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError("this end was closed")
        if self._in.ready_at <= trio.current_time():
            return await trio.lowlevel.checkpoint()
        while (ready_at := self._in.ready_at) > trio.current_time():
            if ready_at == math.inf:
                await self._in.moved.park()
            else:
                with trio.CancelScope(deadline=ready_at):
                    await self._in.moved.park()
            if self.is_closed:
                raise trio.ClosedResourceError("this end was closed")
        return None

    async def send_eof(self) -> None:
        """Nothing follows."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        if self.is_closed:
            raise trio.ClosedResourceError("this end was closed")
        self.shut_down()
        await trio.lowlevel.checkpoint()

    def shut_down(self) -> None:
        """Nothing follows, and reading goes on."""
        self._finished = True
        self._out.finish()

    async def aclose(self) -> None:
        """Close both directions."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close both directions, without waiting."""
        if not self.is_closed:
            self.is_closed = True
            self._out.finish()
            self._in.refuse()
            self._in.moved.unpark_all()
            self._out.moved.unpark_all()


class Link:
    """A connection between the relay's end and a far one, and all that can befall it."""

    def __init__(self, weather: Weather, rng: random.Random) -> None:
        self._up, self._down = _Way(weather, rng), _Way(weather, rng)
        self.relay = End(self._down, self._up)
        self.far = End(self._up, self._down)

    def befall(self, kind: str, seconds: float) -> None:
        """Let a fault happen to the bytes; `seconds` is how long a clogging lasts."""
        now = trio.current_time()
        match kind:
            case "clog":
                self._up.clog(now + seconds)
                self._down.clog(now + seconds)
            case "black-hole":  # half-open: neither end is told anything, ever
                self._up.clog(math.inf)
                self._down.clog(math.inf)
            case "stop-reading":  # a window that stays closed
                self._up.clog(math.inf)
            case "mute":
                self._down.clog(math.inf)
            case "trickle":
                self._down.trickle()
            case "reset":
                self._up.shatter()
                self._down.shatter()
            case "fin":
                self.far.close()
            case "half-close":
                self.far.shut_down()
            case _:
                raise ValueError(f"{kind!r} does not befall a link")
