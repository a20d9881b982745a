"""The noise of a telephone line: bursts of it, the same bytes in every run.

It must not know calls, turns, sockets or time; its time is the frames that it was asked for.
"""

from __future__ import annotations

import math
import random
from array import array
from functools import cache

from relay.simulator.scenario import Noise
from relay.simulator.sound import BYTES_PER_SECOND, FRAME_BYTES, encode_mulaw, is_loud

_FRAME_SECONDS = FRAME_BYTES / BYTES_PER_SECOND
_FRAMES = 50  # before it repeats itself


@cache
def noise_frames(level_dbfs: float) -> tuple[bytes, ...]:
    """White noise of that level, a second of it in frames of 20 ms."""
    chance = random.Random(1)
    peak = 32768 * 10 ** (level_dbfs / 20) * math.sqrt(3)  # of a uniform distribution with that power
    return tuple(
        encode_mulaw(array("h", (round(chance.uniform(-peak, peak)) for _ in range(FRAME_BYTES))).tobytes())
        for _ in range(_FRAMES)
    )


class Line:
    """What a line adds to what is said into it."""

    def __init__(self, noise: Noise | None) -> None:
        self._noise = noise
        self._frame = 0

    def carry(self, said: bytes) -> bytes:
        """One frame of the callee's, with the noise that is there meanwhile."""
        self._frame += 1
        if self._noise is None or is_loud(said):
            return said
        if self._frame * _FRAME_SECONDS % self._noise.every_seconds >= self._noise.lasts_seconds:
            return said
        frames = noise_frames(self._noise.level_dbfs)
        return frames[self._frame % len(frames)]
