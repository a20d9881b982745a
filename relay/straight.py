"""Audio straight across: of the frames that one side sent, the frames for the other side.

Knows no socket, no clock and no call; which stream and which reply are meant is said by whoever asks.

A chunk of bytes is read for as long as it consists of audio in whole frames; what follows is left to the
codecs that know everything else. `relay._straight` does the same, compiled, and reads and sends itself where
it is given descriptors. It takes only the plainest of these frames, and what it leaves goes the long way.
Where it was not built, what stands here is used, and it is the oracle for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from relay.framing import Chunk, read_text, write_text
from relay.outcomes import WireError
from relay.wire import agent, phone
from relay.wire.audio import payload_octets

NO_DESCRIPTOR = -1
MESSAGE_BYTES = 0xFFFF  # the most that is ever taken: what a length of two bytes can say


Crossed: TypeAlias = tuple[int, int, str, Chunk | None, bytes | None, int]
"""What came of a chunk: `(frames, octets, payload, rest, out, sent)`.

`frames` were made for the other side, with so many `octets` of audio in them, the last from that `payload`.
`rest` is what was left: None is nothing, `b""` the far end's end. `out` are the frames where not all of them
were sent; `sent` are the bytes that were.
"""

Forward: TypeAlias = Callable[[Chunk | int, int, str, int], Crossed]
"""`(source, sink, stream_sid, limit)`: the callee's frames, from behind masks of the carrier's to ours.

`source` is a chunk or, for the compiled one, the descriptor of a socket to be read once; `sink` a descriptor
to send on, or NO_DESCRIPTOR. No message beyond `limit` bytes is taken. Raises OSError, of reading alone.
"""

Play: TypeAlias = Callable[[Chunk | int, int, str, str, int, int], Crossed]
"""`(source, sink, reply_id, stream_sid, room, limit)`: the agent's chunks of that one reply.

No chunk is taken with which there would be more than `room` octets of audio. Raises as Forward does.
"""


def forward_plainly(source: Chunk | int, sink: int, stream_sid: str, limit: int) -> Crossed:
    """The oracle: the callee's frames by the general codecs."""

    def payload_of(text: bytes) -> str | None:
        message = phone.decode(text)
        if not isinstance(message, phone.Media) or message.stream_sid != stream_sid:
            return None
        return message.media.payload if message.media.track == "inbound" else None

    return _across(source, limit, payload_of, agent.input_audio, from_phone=True, room=None)


def play_plainly(
    source: Chunk | int, sink: int, reply_id: str, stream_sid: str, room: int, limit: int
) -> Crossed:
    """The oracle: the agent's chunks by the general codecs."""

    def payload_of(text: bytes) -> str | None:
        message = agent.decode(text)
        if not isinstance(message, agent.ReplyAudio) or message.reply_id != reply_id:
            return None
        return message.data

    def audio(payload: str) -> bytes:
        return phone.media(stream_sid, payload)

    return _across(source, limit, payload_of, audio, from_phone=False, room=room)


def _across(
    source: Chunk | int,
    limit: int,
    payload_of: Callable[[bytes], str | None],
    write: Callable[[str], bytes],
    *,
    from_phone: bool,
    room: int | None,
) -> Crossed:
    assert not isinstance(source, int), "nothing is read here"
    start, octets, last = 0, 0, ""
    out: list[bytes] = []
    while (found := read_text(source, start, masked=from_phone, limit=limit)) is not None:
        text, stop = found
        try:
            payload = payload_of(text)
        except WireError:
            break
        if payload is None:
            break
        frame, more = write_text(write(payload), masked=from_phone), octets + payload_octets(payload)
        if frame is None or (room is not None and more > room):
            break
        out.append(frame)
        octets = more
        start, last = stop, payload
    rest = source[start:] if start else source
    return len(out), octets, last, rest if rest or not start else None, b"".join(out) or None, 0


forward: Forward = forward_plainly
play: Play = play_plainly
try:
    from relay import _straight
except ImportError:  # there was no compiler where the package was built
    IS_COMPILED = False
else:
    IS_COMPILED = True
    forward, play = _straight.forward, _straight.play
