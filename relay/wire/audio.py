"""What is to be known of base64 μ-law: how long it plays, and whether a person hears any of it.

Knows no trio, no clock, no socket and no log; decodes nothing but where it says so.
"""

from __future__ import annotations

import base64

BYTES_PER_SECOND = 8000
"""G.711 μ-law as Twilio Media Streams and AssemblyAI's `audio/pcmu` carry it: 8 kHz, one byte a sample."""

_SILENCE_BYTE = b"\xff"
_QUIET = bytes([*range(0x70, 0x80), *range(0xF0, 0x100)])
"""The segment around zero (ITU-T G.711): 48 dB or more below full scale, which no telephone lets one hear."""


def payload_octets(payload: str) -> int:
    """How many samples a base64 payload holds, one byte each."""
    return len(payload.rstrip("=")) * 6 // 8


def payload_seconds(payload: str) -> float:
    """How long a base64 payload plays, in seconds."""
    return payload_octets(payload) / BYTES_PER_SECOND


def is_digital_silence(payload: str) -> bool:
    """Whether the payload is nothing but 0xFF bytes (or is empty).

    0xFF is six one-bits in every base64 digit, which is `/`; only the last digit before padding differs.
    AssemblyAI was seen to open each reply with such frames.
    """
    return payload.lstrip("/") in ("", "w==", "8=")


def is_audible(payload: str) -> bool:
    """Whether a person hears any of the payload. Decodes what is not digital silence: for the few chunks
    at the beginning of a reply, until one is.

    What is no base64 counts as sound: whoever plays it will have to say what it is.
    """
    if is_digital_silence(payload):
        return False
    try:
        return bool(base64.b64decode(payload).translate(None, _QUIET))
    except ValueError:
        return True


def silence(seconds: float) -> str:
    """A base64 payload of μ-law silence."""
    return base64.b64encode(_SILENCE_BYTE * round(seconds * BYTES_PER_SECOND)).decode("ascii")
