"""Speech by espeak-ng, through ctypes. Needs the `speech` extra; importing this module fails without it.

It must not know which texts are wanted or where they are kept.

espeak-ng keeps its state in globals and is not thread-safe: use it from one thread of a process.
"""

from __future__ import annotations

import ctypes
import math
from array import array
from functools import cache
from operator import mul

import espeakng_loader

from relay.simulator.sound import BYTES_PER_SECOND, encode_mulaw, normalise, trim

# espeak-ng/speak_lib.h
_OUTPUT_SYNCHRONOUS = 2
_CHARS_UTF8 = 1
_RATE, _PITCH = 1, 3
_POSITION_CHARACTER = 1

_CHARACTERS: dict[str, tuple[bytes, int, int]] = {  # voice, words a minute, pitch 0-100
    "agent": (b"en-us+f3", 165, 55),
    "callee": (b"en+m3", 160, 40),
}

_TAPS = 48
"""Length of the resampling filter: its stop band is some 50 dB down, which μ-law's own noise hides."""
_PASS_HERTZ = 3600

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Engine:
    """The library, initialised once. `samples` collects what it speaks."""

    def __init__(self) -> None:
        self.samples: array[int] = array("h")
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        folder = espeakng_loader.get_data_path().encode()
        self.rate: int = self.library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, folder, 0)
        if self.rate <= 0:
            raise RuntimeError("espeak-ng did not initialise")
        self._callback = _Callback(self._collect)  # kept: the library holds a bare pointer to it
        self.library.espeak_SetSynthCallback(self._callback)

    def _collect(self, wave: ctypes._Pointer[ctypes.c_short], count: int, events: int | None) -> int:
        if count > 0:
            self.samples.frombytes(ctypes.string_at(wave, 2 * count))
        return 0


@cache
def _engine() -> _Engine:
    return _Engine()


def render(voice: str, text: str) -> bytes:
    """One text as trimmed μ-law at 8 kHz; empty when the text has nothing to pronounce."""
    name, rate, pitch = _CHARACTERS[voice]
    engine = _engine()
    if engine.library.espeak_SetVoiceByName(name):
        raise RuntimeError(f"espeak-ng lacks the voice {name.decode()}")
    engine.library.espeak_SetParameter(_RATE, rate, 0)
    engine.library.espeak_SetParameter(_PITCH, pitch, 0)
    engine.samples = array("h")
    spoken = text.encode() + b"\0"
    engine.library.espeak_Synth(
        spoken, ctypes.c_size_t(len(spoken)), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
    )
    return trim(encode_mulaw(normalise(_resample(engine.samples, engine.rate)).tobytes()))


def _resample(samples: array[int], rate: int) -> array[int]:
    """To 8 kHz by a windowed sinc, one precomputed filter for each of the positions between input samples."""
    divisor = math.gcd(rate, BYTES_PER_SECOND)
    step, phases = rate // divisor, BYTES_PER_SECOND // divisor
    filters = [_filter(phase / phases, 2 * _PASS_HERTZ / rate) for phase in range(phases)]
    padded = array("h", [0] * _TAPS) + samples + array("h", [0] * _TAPS)
    resampled = array("h")
    for index in range(len(samples) * phases // step):
        whole, phase = divmod(index * step, phases)
        start = whole + _TAPS - _TAPS // 2 + 1
        value = sum(map(mul, padded[start : start + _TAPS], filters[phase]))
        resampled.append(max(-32768, min(32767, round(value))))
    return resampled


def _filter(offset: float, cutoff: float) -> list[float]:
    """A Blackman-windowed sinc, `offset` samples after the middle; `cutoff` is a share of the input band."""
    taps = []
    for index in range(_TAPS):
        x = index - (_TAPS // 2 - 1) - offset
        sinc = math.sin(math.pi * cutoff * x) / (math.pi * x) if x else cutoff
        angle = 2 * math.pi * (x + _TAPS / 2) / _TAPS
        taps.append(sinc * (0.42 - 0.5 * math.cos(angle) + 0.08 * math.cos(2 * angle)))
    total = sum(taps)
    return [tap / total for tap in taps]
