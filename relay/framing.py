"""WebSocket frames: the library's codec, and a short cut past it for what a call consists of.

Knows no socket, no clock and no message of either vendor.

Nearly all that a live call reads and sends are whole text messages in one frame each. The library takes ten
times as long for one as the bytes need, so `take_texts` and `text_frame` do this one case themselves.
Whatever is unusual in any way is refused, and the library's codec takes it: its state is left as it was, and
its answer is the only one that a fault ever gets.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.streams import StreamReader

try:
    from websockets.speedups import apply_mask
except ImportError:  # the library was built without a compiler
    from websockets.utils import apply_mask

_LONE_TEXT = 0x81  # FIN, no extension bit, opcode 1
_MASKED = 0x80
_LENGTH_FOLLOWS = 126  # in two bytes
_SHORT = struct.Struct("!BB").pack
_LONG = struct.Struct("!BBH").pack
_MASKS = 64  # masking keys drawn at once: a system call for each cost as much as the masking


class _Reader(StreamReader):
    """Says whether the codec stands between two frames: all before was read, nothing has come since."""

    between_frames = False

    def at_eof(self) -> Generator[None, None, bool]:
        """The codec asks this before each frame, and waits here when there is none."""
        self.between_frames = True
        is_over = yield from super().at_eof()
        self.between_frames = False
        return is_over


class Framing(Protocol):
    """One side's frames, after the handshake.

    A close frame may come between the fragments of a message; the library takes that for a violation.
    RFC 6455 section 5.4 allows every control frame there, and Autobahn's case 7.1.5 asks for it.
    """

    reader: _Reader
    _reads_masked: int
    _writes_masked: int
    _masks: list[bytes] | None = None  # drawn when the first is needed

    def parse(self) -> Generator[None]:
        """Read through a reader that knows where the codec stands; only the constructor calls this."""
        self.reader = _Reader()
        return super().parse()

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame from the codec."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)

    def take_texts(self, chunk: bytes | bytearray) -> tuple[list[bytes], bytes | bytearray]:
        """The whole ASCII messages in one frame each that a chunk begins with, and what follows them.

        What follows must be given to `receive_data`; it is the whole chunk where the codec does not stand
        between two messages. Layout: RFC 6455 section 5.2. A length that is 64 KiB or more, or written longer
        than it need be, counts as unusual.
        """
        texts: list[bytes] = []
        if not self.reader.between_frames or self.current_size is not None or self.state is not State.OPEN:
            return texts, chunk
        start, end, is_masked, limit = 0, len(chunk), self._reads_masked, self.max_message_size
        while end - start >= 2 and chunk[start] == _LONE_TEXT:
            length, body = chunk[start + 1], start + 2
            if length == is_masked | _LENGTH_FOLLOWS and end - body >= 2:
                length = chunk[body] << 8 | chunk[body + 1]
                body += 2
                if length < _LENGTH_FOLLOWS:
                    break
            else:
                length ^= is_masked
                if length >= _LENGTH_FOLLOWS:
                    break
            if is_masked:
                body += 4
            stop = body + length
            if stop > end or (limit is not None and length > limit):
                break
            text = bytes(chunk[body:stop])
            if is_masked:
                text = apply_mask(text, chunk[body - 4 : body])
            if not text.isascii():
                break
            texts.append(text)
            start = stop
        return texts, chunk[start:] if start else chunk

    def text_frame(self, text: bytes) -> bytes | None:
        """A text message as the one frame that `send_text` would make of it; None from 64 KiB on."""
        size, masked = len(text), self._writes_masked
        if size < _LENGTH_FOLLOWS:
            head = _SHORT(_LONE_TEXT, masked | size)
        elif size < 0x10000:
            head = _LONG(_LONE_TEXT, masked | _LENGTH_FOLLOWS, size)
        else:
            return None
        if not masked:
            return head + text
        if not self._masks:
            self._masks = [key for (key,) in struct.iter_unpack("4s", os.urandom(4 * _MASKS))]
        key = self._masks.pop()  # each is used once
        return head + key + apply_mask(text, key)


class ServerFraming(Framing):
    """Frames as a server speaks them, from behind its 101 on."""

    _reads_masked, _writes_masked = _MASKED, 0

    def __init__(self, max_size: int) -> None:
        super().__init__(Side.SERVER, max_size=max_size)


class ClientFraming(Framing, ClientProtocol):
    """Frames as a client speaks them, its handshake included."""

    _reads_masked, _writes_masked = 0, _MASKED
