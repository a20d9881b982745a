"""One WebSocket leg for both sides of a call, over any Trio stream.

Knows framing and deadlines; knows no message of either vendor and nothing of calls.

Three rules hold here. *Always read*: a send never waits, so that whoever reads one leg is never held up by
the other; what the socket does not take at once goes into a bounded outbox, which `write` empties. *Own every
deadline*: a frame that has not left within SEND_SECONDS ends the leg. *Torn*: once a frame may be half on the
wire, nothing may follow it, so the leg is closed forcefully and never with a close frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NoReturn, Protocol, TypeAlias

import trio
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from relay import straight
from relay.framing import Chunk, Framing
from relay.listening import Ear, Listening
from relay.outcomes import Blame, LegClosed, Reason
from relay.streams import RECEIVE_BYTES, SocketStream, TLSStream, translated

SEND_SECONDS = 2.0  # for one frame to leave; a telephone that takes longer hears nothing anyway
CLOSE_SECONDS = 1.0  # for the whole close handshake
PING_SECONDS = 5.0
PONG_SECONDS = 3.0  # with PING_SECONDS: a half-open peer is noticed within 8 s
# More than 30 s of audio, from which on the agent floods (relay/limits.py): full only when the far end has
# stopped reading; the leg ends then.
OUTBOX_BYTES = 512 * 1024
_PING = b"relay"  # what a pong must bring back: an unsolicited one proves nothing about our pings

Direction: TypeAlias = Literal["in", "out"]
Tap: TypeAlias = Callable[[Direction, bytes], None]


class Crossing(Protocol):
    """A way for messages to another leg that the reader need not see."""

    def cross(self, source: Chunk | int, limit: int) -> tuple[int, Chunk | None] | None:
        """Send on the messages that `source` begins with: how many, and what is left; None is nothing.

        `source` is what was read or, from a leg with a descriptor, that descriptor, to be read once. None
        instead of both where there is no such way now: then nothing was read. No message beyond `limit`
        bytes is taken.
        """


class Leg:
    """A WebSocket after its handshake. One task reads, one writes, one pings; anyone sends."""

    def __init__(
        self,
        blame: Blame,
        stream: trio.abc.Stream,
        framing: Framing,
        *,
        binary_allowed: bool = False,
        outbox_bytes: int = OUTBOX_BYTES,
        tap: Tap | None = None,
        listening: Listening | None = None,
    ) -> None:
        """`listening` needs a stream of `relay.streams`."""
        self._crossing: Crossing | None = None  # of the reader that is waiting
        self.unreadable = 0  # messages in a row that the reader could make nothing of; the reader counts
        self._has_spoken = trio.Event()  # the far end
        self._answers_pings = False
        self._ping_is_out = False
        self.tap = tap
        self.blame = blame
        self._stream = stream
        self._framing = framing
        self._binary_allowed = binary_allowed
        self._message_bytes = framing.max_message_size or straight.MESSAGE_BYTES
        self._outbox_limit = outbox_bytes
        self._send_nowait: Callable[[bytes], int] | None = getattr(stream, "send_nowait", None)
        self._ear: Ear | None = None
        if listening is not None:
            assert isinstance(stream, SocketStream | TLSStream)
            self._ear = Ear(listening, stream, self._take_in, self._read)
        # Lists, since an empty deque takes 0.7 KiB, four times in a call.
        self._inbox: list[bytes] = []  # the messages of one read, so at most RECEIVE_BYTES
        self._fragments: bytearray | None = None  # of an unfinished message; the framing bounds it
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._outbox_filled = trio.Event()
        self._torn = False
        self._failed = False
        self.last_opcode = Opcode.TEXT
        is_heard = straight.IS_COMPILED and listening is not None
        self._raw = stream.socket if is_heard and isinstance(stream, SocketStream) else None

    # ---- reading ---------------------------------------------------------------------------------

    async def receive(self, crossing: Crossing | None = None) -> bytes:
        """The next text message, checked to be UTF-8. Raises LegClosed when there will be no more.

        What takes the `crossing` is not seen here, and nobody is woken for it. What that raises is raised
        here.
        """
        self._crossing = crossing
        while not self._inbox:
            if self._is_over:
                raise self._loss()
            try:
                if self._ear is not None:
                    await self._ear.wait()
                elif (chunk := self._cross(await self._stream.receive_some(RECEIVE_BYTES))) is not None:
                    self._read(chunk)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as lost:
                raise self._lost(Reason.LOST, f"{lost.__cause__ or lost!r}") from lost
        return self._inbox.pop(0)

    def _take_in(self, stream: SocketStream | TLSStream) -> Chunk | None:
        """What came and did not go across; None is nothing."""
        if self._raw is not None and (crossing := self._way()) is not None:
            try:
                crossed = crossing.cross(self._raw.fileno(), self._message_bytes)
            except OSError as error:
                raise translated(error) from error
            if crossed is not None:
                frames, rest = crossed
                if frames:
                    self.unreadable = 0
                return rest
        chunk = stream.receive_nowait(RECEIVE_BYTES)
        return None if chunk is None else self._cross(chunk)

    def _cross(self, chunk: Chunk) -> Chunk | None:
        """Send straight on what may be; the rest is left."""
        crossing = self._way() if chunk else None
        crossed = None if crossing is None else crossing.cross(chunk, self._message_bytes)
        if crossed is None:
            return chunk
        frames, rest = crossed
        if frames:
            self.unreadable = 0
        return rest

    def _way(self) -> Crossing | None:
        """Across, unless a message waits that is not to be overtaken, or they are captured."""
        if self._inbox or self.tap or not self._framing.is_between_messages():
            return None
        return self._crossing

    def _read(self, chunk: Chunk) -> bool:
        """Take in what came; whether nothing of it is left for the reader to be woken for."""
        texts, rest = self._framing.take_texts(chunk)
        for text in texts:
            self.last_opcode = Opcode.TEXT
            self._hear(text)
        if texts and not rest:
            return False
        if rest:
            self._framing.receive_data(rest)
        else:
            self._framing.receive_eof()
        self.digest()
        return not self._inbox and not self._is_over

    def _hear(self, text: bytes) -> None:
        if self.tap:
            self.tap("in", text)
        self._inbox.append(text)
        self._has_spoken.set()

    def digest(self) -> None:
        """Take what the framing has read, and answer the far end's pings and its close frame."""
        for event in self._framing.events_received():
            if isinstance(event, Frame) and not self._failed:
                self._take(event)
        try:
            self._emit()
        except LegClosed:
            if not self._inbox:  # what was said before the leg broke still counts: a `stop`, say
                raise

    @property
    def _is_over(self) -> bool:
        framing = self._framing
        return self._failed or framing.state is State.CLOSED or bool(framing.close_rcvd or framing.parser_exc)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.CONT or frame.opcode is Opcode.BINARY:
            if frame.opcode is Opcode.BINARY and not self._binary_allowed:
                return self._fail(CloseCode.UNSUPPORTED_DATA, "text only")
            if frame.opcode is not Opcode.CONT:
                self.last_opcode = frame.opcode
            text = bytes(frame.data)
            if not frame.fin or self._fragments is not None:
                if self._fragments is None:
                    self._fragments = bytearray()
                self._fragments += text
                if not frame.fin:
                    return None
                text, self._fragments = bytes(self._fragments), None
            if self.last_opcode is Opcode.TEXT and not text.isascii() and not _is_utf8(text):
                return self._fail(CloseCode.INVALID_DATA, "not UTF-8")
            self._hear(text)
        elif frame.opcode is Opcode.PONG and frame.data == _PING:
            self._answers_pings = True
            self._ping_is_out = False
        return None

    def _fail(self, code: CloseCode, why: str) -> None:
        self._failed = True
        self._framing.fail(code, why)

    def _loss(self) -> LegClosed:
        received = self._framing.close_rcvd
        if received is not None:
            return self._lost(Reason.LOST, f"closed with {received}", code=received.code)
        sent = self._framing.close_sent
        if sent is not None and sent.code not in (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY):
            return self._lost(Reason.PROTOCOL, f"{sent}")
        if self._framing.parser_exc is not None and not isinstance(self._framing.parser_exc, EOFError):
            return self._lost(Reason.PROTOCOL, str(self._framing.parser_exc))
        return self._lost(Reason.LOST, "end of file without a close frame")

    def _lost(self, kind: Reason, detail: str, *, code: int | None = None) -> LegClosed:
        return LegClosed(self.blame, kind, detail, code=code)

    # ---- writing ---------------------------------------------------------------------------------

    def takes_at_once(self) -> bool:
        """Whether `put` may be used now: nothing waits, nothing is captured, and the connection is open."""
        return not self._outbox and not self.tap and self._framing.state is State.OPEN

    def descriptor(self) -> int:
        """Of the socket, where a frame may be sent by a system call alone; else `straight.NO_DESCRIPTOR`."""
        return straight.NO_DESCRIPTOR if self._raw is None else self._raw.fileno()  # -1 too: it is closed

    def put(self, frames: bytes, sent: int = 0) -> None:
        """Send whole frames, of which so many bytes have left already. Raises LegClosed."""
        if sent:
            self._keep(frames[sent:], is_torn=True)
        else:
            self._put(frames)

    def send(self, text: bytes) -> None:
        """Send a text message, now or as soon as the socket takes it; never waits. Raises LegClosed.

        Not while there is something to be read before the end of the leg: a `stop`, say, explains it better.
        """
        if self._framing.state is not State.OPEN:
            if self._inbox:
                return
            raise self._loss()
        frame = self._framing.text_frame(text)
        if frame is not None:
            self._put(frame)
        else:
            self._framing.send_text(text)
            self._emit()
        if self.tap:
            self.tap("out", text)

    def send_binary(self, message: bytes) -> None:
        """Send a binary message; neither vendor wants any, the conformance suite does."""
        self._framing.send_binary(message)
        self._emit()

    def _emit(self) -> None:
        for frame in self._framing.data_to_send():
            if frame:  # empty: the framing wants a half-close, which closing the stream does as well
                self._put(frame)

    def _put(self, frame: bytes) -> None:
        if not self._outbox and self._send_nowait is not None:
            try:
                sent = self._send_nowait(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as lost:
                self._torn = True
                if self._inbox:
                    return  # whoever reads on will see it
                raise self._lost(Reason.LOST, f"{lost.__cause__ or lost!r}") from lost
            if sent < len(frame):
                self._keep(frame[sent:], is_torn=sent > 0)
        else:
            self._keep(frame, is_torn=False)

    def _keep(self, frame: bytes, *, is_torn: bool) -> None:
        """Have `write` send it; torn until all of it has left."""
        self._torn = self._torn or is_torn
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        if self._outbox_bytes > self._outbox_limit:
            self._torn = True
            raise self._lost(Reason.STALLED, f"{self._outbox_bytes} bytes wait to be read")
        self._outbox_filled.set()

    async def write(self) -> NoReturn:
        """Empty the outbox for as long as the leg lives. Raises LegClosed."""
        while True:
            await self._flush()
            self._outbox_filled = trio.Event()
            await self._outbox_filled.wait()

    async def beat(self) -> NoReturn:
        """Ping for as long as the leg lives. Raises LegClosed: SILENT when a pong is missing.

        Nobody has seen either vendor answer, so a far end that never did in this call is not held to it: the
        first ping follows its first word, so that there is hardly a time in which that is unknown.
        """
        with trio.move_on_after(PING_SECONDS - PONG_SECONDS):
            await self._has_spoken.wait()
        while True:
            if self._framing.state is State.OPEN:
                self._ping_is_out = True
                self._framing.send_ping(_PING)
                self._emit()
            await trio.sleep(PONG_SECONDS)
            if self._ping_is_out and self._answers_pings:
                raise self._lost(Reason.SILENT, f"no pong within {PONG_SECONDS:g} s")
            await trio.sleep(PING_SECONDS - PONG_SECONDS)

    async def _flush(self) -> None:
        while self._outbox:
            await trio.lowlevel.checkpoint_if_cancelled()  # cancelled here, nothing has left
            self._torn = True
            with trio.move_on_after(SEND_SECONDS) as patience:
                try:
                    await self._stream.send_all(self._outbox[0])
                except (trio.BrokenResourceError, trio.ClosedResourceError) as lost:
                    raise self._lost(Reason.LOST, f"{lost.__cause__ or lost!r}") from lost
            if patience.cancelled_caught:
                raise self._lost(Reason.STALLED, f"a frame did not leave within {SEND_SECONDS:g} s")
            self._outbox_bytes -= len(self._outbox.pop(0))
            self._torn = False

    # ---- closing ---------------------------------------------------------------------------------

    async def send_last(self, text: bytes) -> None:
        """Send a text message and wait until it has left; for goodbyes, when `write` no longer runs."""
        if self._torn:
            raise self._lost(Reason.STALLED, "torn")
        self.send(text)
        await self._flush()

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE) -> None:
        """Close with a handshake of at most CLOSE_SECONDS; a torn leg at once. Never raises."""
        with trio.move_on_after(CLOSE_SECONDS):
            try:
                if not self._torn:
                    if self._framing.state is State.OPEN:
                        self._framing.send_close(code)
                        self._emit()
                    await self._flush()
                    if self._framing.eof_sent and isinstance(self._stream, trio.abc.HalfCloseableStream):
                        await self._stream.send_eof()  # a client that was refused waits for the server's end
                    await self._drain()
            except (LegClosed, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await self.abort()

    async def abort(self) -> None:
        """Close the socket at once; nothing happens where it is closed already."""
        if self._ear is not None:
            self._ear.close()
        await trio.aclose_forcefully(self._stream)

    async def _drain(self) -> None:
        """Read until the far end has said goodbye too: closing on unread bytes would lose our close frame."""
        while self._framing.close_rcvd is None:
            chunk = await self._stream.receive_some(RECEIVE_BYTES)
            if not chunk:
                return
            self._framing.receive_data(chunk)
            self._framing.events_received()
            self._framing.data_to_send()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
