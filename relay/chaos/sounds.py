"""Frames of sound that say where they come from, so that a far end can tell what it hears.

Knows base64 and nothing else. No frame is digital silence, and none is speech.
"""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from typing import Final, NamedTuple

FRAME_SECONDS: Final = 0.02  # of the carrier's: 160 bytes
CHUNK_SECONDS: Final = 0.04  # of the agent's
_BYTES_PER_SECOND: Final = 8000

_CALLEE: Final = b"callee"
_AGENT: Final = b"agent:"
_FILL: Final = b"\x2a" * 400


class Chunk(NamedTuple):
    """Where a chunk of the agent's stands: which session of the call, which reply of it, which chunk."""

    session: int
    reply: int
    number: int


def callee_frame(number: int) -> str:
    """The callee's frame with this number."""
    return _sound(_CALLEE + struct.pack("!I", number), FRAME_SECONDS)


def read_callee(payload: str) -> int | None:
    """The number of a callee's frame; None for anything else."""
    sound = b64decode(payload)
    return int(struct.unpack_from("!I", sound, 6)[0]) if sound.startswith(_CALLEE) else None


def agent_chunk(chunk: Chunk, seconds: float = CHUNK_SECONDS) -> str:
    """The agent's sound at this place."""
    return _sound(_AGENT + struct.pack("!BHH", *chunk), seconds)


def read_agent(payload: str) -> tuple[Chunk | None, float]:
    """Where a chunk comes from, None where it is not the agent's; and how long it plays."""
    sound = b64decode(payload)
    seconds = len(sound) / _BYTES_PER_SECOND
    return (Chunk(*struct.unpack_from("!BHH", sound, 6)) if sound.startswith(_AGENT) else None), seconds


def silence(seconds: float) -> str:
    """Digital silence."""
    return b64encode(b"\xff" * round(seconds * _BYTES_PER_SECOND)).decode()


def _sound(head: bytes, seconds: float) -> str:
    size = round(seconds * _BYTES_PER_SECOND)
    fill = _FILL if size <= len(_FILL) else _FILL * (size // len(_FILL) + 1)
    return b64encode((head + fill)[:size]).decode()
