"""What both far ends write and read: WebSocket frames, and the two vendors' messages as templates.

Knows no socket and no clock; shares nothing with the relay's own codecs, which are what is being measured.

Nobody decodes the audio, so a payload may say when it was sent: 28 decimal digits are valid base64. The load
must be light, so this reads only what the bench needs to read: no fragments, no escapes in payloads.
"""

from __future__ import annotations

import json

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

STAMP_DIGITS = 20  # of the sender's monotonic clock in nanoseconds
NUMBER_DIGITS = 8  # of the frame's place in its stream
HEAD = STAMP_DIGITS + NUMBER_DIGITS
LATE = 10**NUMBER_DIGITS - 1  # the number of what is sent of a reply after its interruption

CALLEE_CHARACTERS = 216  # base64 of 20 ms of μ-law
AGENT_CHARACTERS = 400  # base64 of the agent's chunks of 300 bytes, 37.5 ms
GREETING = b"Z" * CALLEE_CHARACTERS  # no stamp, and no silence

_CALLEE_FILL = b"q" * (CALLEE_CHARACTERS - HEAD - 2) + b"=="
_AGENT_FILL = b"q" * (AGENT_CHARACTERS - HEAD)


def callee_payload(now_ns: int, number: int) -> bytes:
    """20 ms of the callee, stamped."""
    return b"%020d%08d%b" % (now_ns, number, _CALLEE_FILL)


def agent_payload(now_ns: int, number: int) -> bytes:
    """37.5 ms of the agent, stamped."""
    return b"%020d%08d%b" % (now_ns, number, _AGENT_FILL)


def read_stamp(payload: bytes) -> tuple[int, int] | None:
    """When a payload was sent and its number; None for the greeting."""
    head = payload[:HEAD]
    return (int(head[:STAMP_DIGITS]), int(head[STAMP_DIGITS:])) if head.isdigit() else None


def value_of(key: bytes, text: bytes) -> bytes | None:
    """The string behind a key (with its quotes), wherever it stands; None where the key is absent."""
    at = text.find(key)
    if at < 0:
        return None
    start = text.index(b'"', at + len(key)) + 1
    return text[start : text.index(b'"', start)]


# ---- frames ------------------------------------------------------------------------------------------


def masked(data: bytes, key: bytes) -> bytes:
    """XOR with the repeated key; its own inverse."""
    size = len(data)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


def server_frame(text: bytes, opcode: int = TEXT) -> bytes:
    """A whole message as a server sends it."""
    return _head(opcode, len(text), 0) + text


def client_frame(text: bytes, key: bytes, opcode: int = TEXT) -> bytes:
    """A whole message as a client sends it."""
    return _head(opcode, len(text), 0x80) + key + masked(text, key)


def _head(opcode: int, size: int, mask: int) -> bytes:
    if size < 126:
        return bytes((0x80 | opcode, mask | size))
    if size < 1 << 16:
        return bytes((0x80 | opcode, mask | 126)) + size.to_bytes(2, "big")
    return bytes((0x80 | opcode, mask | 127)) + size.to_bytes(8, "big")


class FrameReader:
    """Bytes to frames, whatever the pieces they come in."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[tuple[int, bytes]]:
        """The opcode and the content of each frame that is complete now."""
        bytes_ = self._rest + piece if self._rest else piece
        found: list[tuple[int, bytes]] = []
        at, end = 0, len(bytes_)
        while end - at >= 10 or (end - at >= 2 and bytes_[at + 1] & 0x7F < 126):
            size, body = bytes_[at + 1] & 0x7F, at + 2
            if size >= 126:
                body += 2 if size == 126 else 8
                size = int.from_bytes(bytes_[at + 2 : body], "big")
            is_masked = bytes_[at + 1] & 0x80
            body += 4 if is_masked else 0
            if body + size > end:
                break
            content = bytes_[body : body + size]
            found.append(
                (bytes_[at] & 0x0F, masked(content, bytes_[body - 4 : body]) if is_masked else content)
            )
            at = body + size
        self._rest = bytes_[at:]
        return found


# ---- the carrier's messages --------------------------------------------------------------------------

CONNECTED = b'{"event":"connected","protocol":"Call","version":"1.0.0"}'


def start(account_sid: str, call_sid: str, stream_sid: str, parameters: dict[str, str]) -> bytes:
    """The second message of a stream."""
    body = {
        "accountSid": account_sid,
        "streamSid": stream_sid,
        "callSid": call_sid,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": parameters,
    }
    message = {"event": "start", "sequenceNumber": "1", "start": body, "streamSid": stream_sid}
    return json.dumps(message, separators=(",", ":")).encode()


def media(stream_sid: bytes, number: int, payload: bytes) -> bytes:
    """20 ms of the callee."""
    return (
        b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d",'
        b'"payload":"%b"},"streamSid":"%b"}' % (number + 1, number, number * 20, payload, stream_sid)
    )


def mark(stream_sid: bytes, name: bytes) -> bytes:
    """The echo of a mark."""
    return b'{"event":"mark","sequenceNumber":"1","streamSid":"%b","mark":{"name":"%b"}}' % (stream_sid, name)


STOP = b'{"event":"stop","sequenceNumber":"9","streamSid":"%b","stop":{}}'

# ---- the agent's messages ----------------------------------------------------------------------------

SESSION_READY = (
    b'{"type":"session.updated","config":{}}',
    b'{"type":"session.ready","session_id":"sess_bench","expires_at":1,"resume_token":"r","config":{}}',
)
SESSION_ENDED = b'{"type":"session.ended","session_duration_seconds":1.0,"timestamp":1.5}'


def reply_started(reply_id: bytes) -> bytes:
    """The agent begins to speak."""
    return b'{"type":"reply.started","reply_id":"%b","item_id":"msg_1","timestamp":1.5}' % reply_id


def reply_audio(reply_id: bytes, payload: bytes) -> bytes:
    """A chunk of the agent's voice."""
    return b'{"type":"reply.audio","reply_id":"%b","data":"%b","timestamp":1.5}' % (reply_id, payload)


def reply_done(reply_id: bytes, status: bytes = b"completed") -> bytes:
    """The agent has spoken to the end, or was `interrupted`."""
    return b'{"type":"reply.done","reply_id":"%b","status":"%b","timestamp":1.5}' % (reply_id, status)
