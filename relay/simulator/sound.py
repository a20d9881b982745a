"""The facts of telephone sound: 8 kHz mono G.711 μ-law, its levels, its WAV file and its babble.

It must not know calls, scenarios, sockets or time.
"""

from __future__ import annotations

import math
import struct
from array import array
from functools import cache
from pathlib import Path
from zlib import crc32

BYTES_PER_SECOND = 8000
FRAME_BYTES = 160
"""One 20 ms frame, the unit in which a carrier sends and plays."""
SILENCE = 0xFF
"""The μ-law byte of amplitude zero: digital silence."""

LOUD_DBFS = -45.0
"""Above it a frame counts as audible: room noise lies below, quiet speech above."""
SPEECH_DBFS = -16.0
"""The level that renderings are brought to: a telephone voice with room for its peaks."""

_FULL_SCALE = 32768
_BIAS = 132
_CLIP = 32635

BEEP_HZ = 1000
"""What answering machines commonly beep with; no standard says so."""

_BABBLE_BYTES_PER_CHARACTER = 480
"""60 ms: spoken English runs at about sixteen characters a second."""


def _expand(code: int) -> int:
    """G.711 table 2a: the 16-bit amplitude of one μ-law byte."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS << (code >> 4 & 0x07)) - _BIAS
    return -magnitude if code & 0x80 else magnitude


_AMPLITUDES = tuple(_expand(code) for code in range(256))
_POWERS = tuple(amplitude * amplitude for amplitude in _AMPLITUDES)
_LOUD_POWER = _FULL_SCALE**2 * 10 ** (LOUD_DBFS / 10)


@cache
def _compression() -> bytes:
    """The μ-law byte of every 16-bit sample, indexed by the sample's upper 14 bits (G.711 has no more)."""
    return bytes(_compress(index - 8192 << 2) for index in range(16384))


def _compress(sample: int) -> int:
    magnitude = min(abs(sample), _CLIP) + _BIAS
    segment = magnitude.bit_length() - 8
    code = segment << 4 | magnitude >> segment + 3 & 0x0F
    return ~(code | 0x80 if sample < 0 else code) & 0xFF


def encode_mulaw(pcm16: bytes) -> bytes:
    """Compress 16-bit samples in this machine's byte order."""
    samples = array("h")
    samples.frombytes(pcm16)
    table = _compression()
    return bytes(table[(sample >> 2) + 8192] for sample in samples)


def decode_mulaw(mulaw: bytes) -> array[int]:
    """Expand to 16-bit samples."""
    return array("h", map(_AMPLITUDES.__getitem__, mulaw))


def _mean_power(mulaw: bytes) -> float:
    return sum(map(_POWERS.__getitem__, mulaw)) / len(mulaw)


def level_dbfs(mulaw: bytes) -> float:
    """Root mean square level against full scale; minus infinity for silence and for nothing."""
    power = _mean_power(mulaw) if mulaw else 0.0
    return 10 * math.log10(power / _FULL_SCALE**2) if power else -math.inf


def is_loud(frame: bytes) -> bool:
    """Whether a listener would hear something in this frame."""
    return bool(frame) and _mean_power(frame) > _LOUD_POWER


def is_above(frame: bytes, level: float) -> bool:
    """Whether a frame is louder than that level, in dBFS."""
    return is_loud(frame) if level == LOUD_DBFS else level_dbfs(frame) > level


def frames(mulaw: bytes) -> list[bytes]:
    """Whole frames; the last one is filled up with silence."""
    return [
        mulaw[start : start + FRAME_BYTES].ljust(FRAME_BYTES, bytes([SILENCE]))
        for start in range(0, len(mulaw), FRAME_BYTES)
    ]


def trim(mulaw: bytes) -> bytes:
    """Without the quiet frames at both ends."""
    loud = [index for index, frame in enumerate(frames(mulaw)) if is_loud(frame)]
    if not loud:
        return b""
    return mulaw[loud[0] * FRAME_BYTES : (loud[-1] + 1) * FRAME_BYTES]


def normalise(pcm16: array[int]) -> array[int]:
    """Scale to SPEECH_DBFS; the few peaks that would pass full scale are clipped."""
    power = sum(sample * sample for sample in pcm16) / max(len(pcm16), 1)
    if not power:
        return pcm16
    gain = _FULL_SCALE * 10 ** (SPEECH_DBFS / 20) / math.sqrt(power)
    return array("h", (max(-_FULL_SCALE, min(_FULL_SCALE - 1, round(sample * gain))) for sample in pcm16))


def babble(text: str) -> bytes:
    """Tones with the rhythm of speech, 60 ms a character: the same text always gives the same bytes.

    Each text has a pitch of its own, so that no two texts share a frame by accident.
    """
    samples = array("h")
    pitch_hz = 120 + crc32(text.encode()) % 60_000 / 1000
    phase = 0.0
    for character in text:
        voiced = character.isalnum()
        overtone = 3 + ord(character) % 13
        for index in range(_BABBLE_BYTES_PER_CHARACTER):
            phase += 2 * math.pi * pitch_hz / BYTES_PER_SECOND
            envelope = math.sin(math.pi * (index + 0.5) / _BABBLE_BYTES_PER_CHARACTER) if voiced else 0.0
            samples.append(round(9000 * envelope * (math.sin(phase) + 0.6 * math.sin(overtone * phase))))
    return trim(encode_mulaw(normalise(samples).tobytes()))


@cache
def beep(length: int) -> bytes:
    """The tone of an answering machine before it records."""
    turn = 2 * math.pi * BEEP_HZ / BYTES_PER_SECOND
    samples = array("h", (round(8000 * math.sin(turn * index)) for index in range(length)))
    return encode_mulaw(normalise(samples).tobytes())


def write_stereo_wav(path: Path, left: bytes, right: bytes) -> None:
    """Write two μ-law tracks as one WAV (format 7, 8 kHz, 8 bits); the shorter track is filled with silence.

    A compressed WAV needs the 18-byte format chunk with its `cbSize`, and a fact chunk with the sample count.
    """
    length = max(len(left), len(right))
    body = bytearray(2 * length)
    body[0::2] = left.ljust(length, bytes([SILENCE]))
    body[1::2] = right.ljust(length, bytes([SILENCE]))
    layout = struct.pack("<HHIIHHH", 7, 2, BYTES_PER_SECOND, 2 * BYTES_PER_SECOND, 2, 8, 0)
    fact = _chunk(b"fact", struct.pack("<I", length))
    path.write_bytes(_chunk(b"RIFF", b"WAVE" + _chunk(b"fmt ", layout) + fact + _chunk(b"data", bytes(body))))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
