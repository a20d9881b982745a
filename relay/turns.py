"""How long the callee waits for an answer: from the end of what he said to the first sound of the agent's.

Knows no trio, no clock, no socket and no log; decides nothing.

The agent tells that a turn is over one to three seconds after the callee fell silent, so that moment is
looked for in a few of his frames, once a turn.
"""

from __future__ import annotations

from array import array
from binascii import a2b_base64

from relay.actions import TurnAnswered
from relay.playout import Playout

SAMPLE_EVERY = 4  # frames
SAMPLE_SECONDS = 0.08  # which is how exactly the end of what was said is known
_SAMPLES = 64  # 5 s: the slowest mode commits 3.3 s after the last word
_MASK = bytes(~code & 0x7F for code in range(256))  # of a μ-law byte its magnitude: 16 steps are 6 dB
_FAINT = 24  # quieter than that is no speech on any line: 45 dB below the loudest sound there is
_RANGE = 56  # 21 dB below the loudest of the turn it is noise, or a breath


class Turns:
    """The turn that waits for its answer, if there is one."""

    __slots__ = ("_committed_at", "_playout", "_samples", "_spoken_until")

    def __init__(self, playout: Playout) -> None:
        self._playout = playout
        self._committed_at: float | None = None
        self._spoken_until: float | None = None
        self._samples = array("d")  # moments and levels in turn: 1 KiB a call, as objects it would be 20

    def sampled(self, payload: str, now: float) -> None:
        """One of every SAMPLE_EVERY frames of the callee's, as it arrived."""
        self._samples.extend((now, _level(payload)))
        del self._samples[: -2 * _SAMPLES]

    def commit(self, now: float) -> None:
        """The agent says that the callee's turn is over."""
        self._committed_at = now
        moments, levels = self._samples[::2], self._samples[1::2]
        voiced = max(_FAINT, max(levels, default=0) - _RANGE)
        last = max((at for at, level in zip(moments, levels, strict=True) if level >= voiced), default=None)
        # Somewhere between that sample and the next, but not after the agent knew of it.
        self._spoken_until = None if last is None else min(last + SAMPLE_SECONDS / 2, now)
        del self._samples[:]

    def said(self, now: float) -> None:
        """Its text has come, which commits it where nothing else did."""
        if self._committed_at is None:
            self.commit(now)

    def drop(self) -> None:
        """It will not be answered: its session is lost."""
        self._committed_at = None

    def answered(self, seconds: float, now: float) -> tuple[TurnAnswered, ...]:
        """The first audible chunk was sent, which plays for so long."""
        committed_at, self._committed_at = self._committed_at, None
        if committed_at is None:
            return ()
        ends = self._spoken_until
        return (
            TurnAnswered(
                now - committed_at,
                commit_seconds=None if ends is None else committed_at - ends,
                queued_seconds=max(0.0, self._playout.playing_until - seconds - now),
            ),
        )


def _level(payload: str) -> int:
    """The mean magnitude of a frame, in steps of μ-law; 0 of what cannot be read."""
    try:
        sound = a2b_base64(payload)
    except ValueError:
        return 0
    return sum(sound.translate(_MASK)) // len(sound) if sound else 0
