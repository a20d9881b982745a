"""Keys as a telephone sounds them: dual tones in μ-law, by ITU-T Q.23, at levels and times of Q.24.

Knows no trio, no clock, no socket, no log and no call.
"""

from __future__ import annotations

import math

from relay.wire.audio import BYTES_PER_SECOND

KEYS = {
    key: (low, high)
    for low, row in zip((697, 770, 852, 941), ("123A", "456B", "789C", "*0#D"), strict=True)
    for high, key in zip((1209, 1336, 1477, 1633), row, strict=True)
}
"""Both frequencies of each key in Hz (Q.23, table 1)."""

# Q.24: every administration's receiver takes tones and gaps of 40 to 50 ms; networks that wake up late, and
# voice menus that are busy speaking, want more.
TONE_SECONDS = 0.1
GAP_SECONDS = 0.1
PAUSE = "w"  # as Twilio's SendDigits has it
PAUSE_SECONDS = 0.5

# Against the 3.17 dBm0 of a full-scale sine (G.711). Q.24: from -3 to -24 dBm at the exchange, and 5 dB
# between both; lines take more of the high one, so that it is sent a little louder.
_LOW_DBM0 = -8.0
_HIGH_DBM0 = -6.0
_FULL_SCALE_DBM0 = 3.17
_FULL_SCALE = 32124
_BIAS, _CLIP = 132, 32635  # G.711 μ-law, on a scale of 16 bits
_SILENCE = b"\xff"


def tones(keys: str) -> bytes:
    """These keys as μ-law, a gap behind each; `w` is half a second of silence. Raises KeyError for no key."""
    return b"".join(_pause(PAUSE_SECONDS) if key == PAUSE else _tone(*KEYS[key]) for key in keys)


def _tone(low: int, high: int) -> bytes:
    samples = round(TONE_SECONDS * BYTES_PER_SECOND)
    parts = [(low, _amplitude(_LOW_DBM0)), (high, _amplitude(_HIGH_DBM0))]
    sound = (
        sum(peak * math.sin(2 * math.pi * hertz * at / BYTES_PER_SECOND) for hertz, peak in parts)
        for at in range(samples)
    )
    return bytes(_compress(round(sample)) for sample in sound) + _pause(GAP_SECONDS)


def _pause(seconds: float) -> bytes:
    return _SILENCE * round(seconds * BYTES_PER_SECOND)


def _amplitude(dbm0: float) -> float:
    return _FULL_SCALE * 10 ** ((dbm0 - _FULL_SCALE_DBM0) / 20)


def _compress(sample: int) -> int:
    """One sample of 16 bits as its byte of μ-law (G.711)."""
    magnitude = min(abs(sample), _CLIP) + _BIAS
    segment = magnitude.bit_length() - 8
    code = segment << 4 | magnitude >> segment + 3 & 0x0F
    return ~(code | 0x80 if sample < 0 else code) & 0xFF
