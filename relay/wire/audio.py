"""What can be said of base64 μ-law without decoding it: how long it plays and whether it is silence.

Knows no trio, no clock, no socket and no log; never touches a sample.
"""

from __future__ import annotations

import base64

BYTES_PER_SECOND = 8000
"""G.711 μ-law as Twilio Media Streams and AssemblyAI's `audio/pcmu` carry it: 8 kHz, one byte a sample."""

_SILENCE_BYTE = b"\xff"


def payload_seconds(payload: str) -> float:
    """How long a base64 payload plays, in seconds."""
    return len(payload.rstrip("=")) * 6 // 8 / BYTES_PER_SECOND


def is_digital_silence(payload: str) -> bool:
    """Whether the payload is nothing but 0xFF bytes (or is empty).

    0xFF is six one-bits in every base64 digit, which is `/`; only the last digit before padding differs.
    AssemblyAI was seen to open each reply with such frames.
    """
    return payload.lstrip("/") in ("", "w==", "8=")


def silence(seconds: float) -> str:
    """A base64 payload of μ-law silence."""
    return base64.b64encode(_SILENCE_BYTE * round(seconds * BYTES_PER_SECOND)).decode("ascii")
