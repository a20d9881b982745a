"""The carrier's playout buffer of one phone: a queue of μ-law bytes with marks between them.

Knows neither sockets nor clocks: whoever drains it decides how fast time passes.
"""

from __future__ import annotations

from collections import deque

from relay.simulator.sound import BYTES_PER_SECOND, FRAME_BYTES, SILENCE

# Twilio queues ten minutes of audio and discards what comes beyond that (warning 31931).
CAPACITY_BYTES = 600 * BYTES_PER_SECOND

_SILENT_FRAME = bytes([SILENCE]) * FRAME_BYTES


class Playout:
    """First in, first out; a mark comes back once everything queued before it was played, or was cleared."""

    def __init__(self) -> None:
        self._audio = bytearray()  # bounded by CAPACITY_BYTES: what does not fit is discarded
        self._played = 0
        self._marks: deque[tuple[int, str]] = deque()  # unbounded, as there is no documented cap on marks

    @property
    def queued_bytes(self) -> int:
        """How much audio is waiting to be played."""
        return len(self._audio)

    def queue(self, audio: bytes) -> int:
        """Append audio; the number of bytes for which there was no room."""
        room = CAPACITY_BYTES - len(self._audio)
        self._audio += audio[:room]
        return max(0, len(audio) - room)

    def mark(self, name: str) -> list[str]:
        """Place a mark behind what is queued; the marks that come back at once."""
        self._marks.append((self._played + len(self._audio), name))
        return self._passed_marks()

    def clear(self) -> tuple[int, list[str]]:
        """Forget all audio: the bytes flushed, and every outstanding mark."""
        flushed = len(self._audio)
        self._audio.clear()
        names = [name for _, name in self._marks]
        self._marks.clear()
        return flushed, names

    def play_frame(self) -> tuple[bytes, list[str]]:
        """The next 20 ms, filled up with silence, and the marks that were passed in it."""
        frame = bytes(self._audio[:FRAME_BYTES])
        del self._audio[:FRAME_BYTES]
        self._played += len(frame)
        return frame + _SILENT_FRAME[len(frame) :], self._passed_marks()

    def _passed_marks(self) -> list[str]:
        passed = []
        while self._marks and self._marks[0][0] <= self._played:
            passed.append(self._marks.popleft()[1])
        return passed
