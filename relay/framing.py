"""WebSocket frames: the library's codec, and a short cut past it for what a call consists of.

Knows no socket, no clock and no message of either vendor.

Nearly all that a live call reads and sends are whole text messages in one frame each. The library takes ten
times as long for one as the bytes need, so `read_text` and `write_text` do this one case themselves.
Whatever is unusual in any way is refused, and the library's codec takes it: its state is left as it was, and
its answer is the only one that a fault ever gets.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator
from typing import TypeAlias

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
_masks: list[bytes] = []  # those drawn and not used yet

Chunk: TypeAlias = bytes | bytearray


def read_text(chunk: Chunk, start: int, *, masked: bool, limit: int | None) -> tuple[bytes, int] | None:
    """The whole ASCII message in one frame that begins at `start`, and where it ends; None for all others.

    Layout: RFC 6455 section 5.2. A length that is 64 KiB or more, or written longer than it need be, counts
    as unusual.
    """
    end, body, mask = len(chunk), start + 2, _MASKED if masked else 0
    if end < body or chunk[start] != _LONE_TEXT:
        return None
    length = chunk[start + 1] ^ mask
    if length == _LENGTH_FOLLOWS:
        body += 2
        if end < body:
            return None
        length = chunk[start + 2] << 8 | chunk[start + 3]
        if length < _LENGTH_FOLLOWS:
            return None
    elif length > _LENGTH_FOLLOWS:
        return None
    if masked:
        body += 4
    stop = body + length
    if stop > end or (limit is not None and length > limit):
        return None
    text = bytes(chunk[body:stop])
    if masked:
        text = apply_mask(text, chunk[body - 4 : body])
    return (text, stop) if text.isascii() else None


def write_text(text: bytes, *, masked: bool) -> bytes | None:
    """A text message as the one frame that the library would make of it; None from 64 KiB on."""
    size, mask = len(text), _MASKED if masked else 0
    if size < _LENGTH_FOLLOWS:
        head = _SHORT(_LONE_TEXT, mask | size)
    elif size < 0x10000:
        head = _LONG(_LONE_TEXT, mask | _LENGTH_FOLLOWS, size)
    else:
        return None
    if not masked:
        return head + text
    if not _masks:
        _masks.extend(key for (key,) in struct.iter_unpack("4s", os.urandom(4 * _MASKS)))
    key = _masks.pop()  # each is used once
    return head + key + apply_mask(text, key)


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
    reads_masked: bool  # a client masks what it sends, a server does not

    def parse(self) -> Generator[None]:
        """Read through a reader that knows where the codec stands; only the constructor calls this."""
        self.reader = _Reader()
        return super().parse()

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame from the codec."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)

    def is_between_messages(self) -> bool:
        """Whether what comes next is the first frame of a message, and the connection is open."""
        return self.reader.between_frames and self.current_size is None and self.state is State.OPEN

    def take_texts(self, chunk: Chunk) -> tuple[list[bytes], Chunk]:
        """The whole ASCII messages in one frame each that a chunk begins with, and what follows them.

        What follows must be given to `receive_data`; it is the whole chunk where the codec does not stand
        between two messages.
        """
        texts: list[bytes] = []
        if not self.is_between_messages():
            return texts, chunk
        start, masked, limit = 0, self.reads_masked, self.max_message_size
        while (found := read_text(chunk, start, masked=masked, limit=limit)) is not None:
            text, start = found
            texts.append(text)
        return texts, chunk[start:] if start else chunk

    def text_frame(self, text: bytes) -> bytes | None:
        """A text message as the one frame that `send_text` would make of it; None from 64 KiB on."""
        return write_text(text, masked=not self.reads_masked)


class ServerFraming(Framing):
    """Frames as a server speaks them, from behind its 101 on."""

    reads_masked = True

    def __init__(self, max_size: int) -> None:
        super().__init__(Side.SERVER, max_size=max_size)


class ClientFraming(Framing, ClientProtocol):
    """Frames as a client speaks them, its handshake included."""

    reads_masked = False
