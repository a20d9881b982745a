"""How the emulated agent hears the callee: voice activity by energy, words by recognising known utterances.

It must not know turns, replies or the wire; its time is the audio that it was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from relay.simulator.sound import BYTES_PER_SECOND, FRAME_BYTES, LOUD_DBFS, frames, is_above, is_loud
from relay.simulator.speech import Voices

UNINTELLIGIBLE = "[unintelligible]"

_FRAME_SECONDS = FRAME_BYTES / BYTES_PER_SECOND
_CLICK_SECONDS = 0.1
"""Sound shorter than this, followed by more silence than that, is a click and no speech."""
_RECOGNISED_SHARE = 0.3
"""An utterance counts as heard from this share of its frames on: half of one is still recognised."""


class VoiceActivity:
    """Tells speech from quiet by the energy of 20 ms frames: whatever is loud enough is speech."""

    def __init__(self) -> None:
        self._loud = 0
        self._elapsed = 0
        self._quiet = 0

    def hear(self, frame: bytes, speech_dbfs: float = LOUD_DBFS) -> None:
        """Take the next frame of the callee's audio; above `speech_dbfs` it is speech."""
        loud = is_above(frame, speech_dbfs)
        if not loud and not self._loud:
            return
        self._elapsed += 1
        self._loud += loud
        self._quiet = 0 if loud else self._quiet + 1
        if self._loud * _FRAME_SECONDS < _CLICK_SECONDS < (self._quiet - 1) * _FRAME_SECONDS:
            self.forget()

    @property
    def speaking(self) -> bool:
        """Whether an utterance has begun that nobody has declared to be over."""
        return self._loud > 0

    @property
    def elapsed_seconds(self) -> float:
        """Since the utterance began."""
        return self._elapsed * _FRAME_SECONDS

    @property
    def silence_seconds(self) -> float:
        """Since the callee was last loud."""
        return self._quiet * _FRAME_SECONDS

    @property
    def speech_seconds(self) -> float:
        """From the utterance's beginning to its last loud frame, pauses included."""
        return (self._elapsed - self._quiet) * _FRAME_SECONDS

    def forget(self) -> None:
        """The utterance is over."""
        self._loud = self._elapsed = self._quiet = 0


class Recogniser:
    """Knows what the callee may say, and recognises it by its very bytes, which a relay must not touch.

    So it does the noise of the line: there are no words in it.
    """

    def __init__(self, utterances: Sequence[str], voices: Voices, noise: Collection[bytes] = ()) -> None:
        self._noise = frozenset(noise)
        self._noisy = self._other = 0  # loud frames since the last call
        self._voices = voices
        self._expected: list[str] = []
        self._size: Counter[str] = Counter()
        self._spoken_in: dict[bytes, list[str]] = {}
        for text in utterances:
            self.learn(text)
        self._votes: Counter[str] = Counter()  # keeps the order in which utterances were first heard
        self._understood: set[str] = set()

    def learn(self, text: str) -> None:
        """One thing more that the callee may say."""
        if text in self._size:
            return
        self._expected.append(text)
        self._size[text] = 0
        for frame in filter(is_loud, frames(self._voices.say("callee", text))):
            self._size[text] += 1
            self._spoken_in.setdefault(frame, []).append(text)

    def hear(self, frame: bytes) -> None:
        """Take the next frame of the callee's audio."""
        self._votes.update(self._spoken_in.get(frame, ()))
        self._noisy += frame in self._noise
        self._other += frame not in self._noise and is_loud(frame)

    def is_noise(self, frame: bytes) -> bool:
        """Whether a frame is the line's and not the callee's."""
        return frame in self._noise

    def text(self) -> str:
        """What was said since the last call; for unknown sounds, the next text that the script expects."""
        heard = [t for t, votes in self._votes.items() if votes >= _RECOGNISED_SHARE * self._size[t]]
        if not heard and self._noisy > self._other:
            heard = [UNINTELLIGIBLE]
        elif not heard:
            heard = [text for text in self._expected if text not in self._understood][:1] or [UNINTELLIGIBLE]
        self._understood.update(heard)
        self.forget()
        return " ".join(heard)

    def forget(self) -> None:
        """What was heard since the last call was not meant for the agent."""
        self._votes.clear()
        self._noisy = self._other = 0
