"""Spoken texts as μ-law: looked up among the renderings that ship with the product, else made on the spot.

It must not know scenarios or calls; it reads no file but its own renderings.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from relay.simulator.sound import babble

VOICES = ("agent", "callee")

# What the emulated agent says of its own accord; rendered along with the texts of the scenarios.
ONE_MOMENT = "One moment, please."
TOOL_FAILED = "I am sorry, I could not do that."


def key(voice: str, text: str) -> str:
    """The name under which a rendering is kept."""
    return hashlib.sha256(f"{voice}\n{text}".encode()).hexdigest()[:16]


class Voices:
    """Says texts in one of two voices, `agent` and `callee`; the same text always sounds the same in one run.

    A text without a kept rendering is spoken by espeak-ng where the `speech` extra is installed, and babbled
    otherwise. With `synthesise` off it is always babbled, which is the same bytes in every process.
    """

    def __init__(self, *, synthesise: bool = True) -> None:
        self._synthesise = synthesise
        # Holds each text said in a run: a few hundred kilobytes, bounded by the scenarios that run.
        self._said: dict[tuple[str, str], bytes] = {}

    def say(self, voice: str, text: str) -> bytes:
        """The μ-law bytes of a text, quiet at neither end, at about -16 dBFS."""
        if voice not in VOICES:
            raise ValueError(f"no voice {voice!r}; there are {', '.join(VOICES)}")
        if (voice, text) not in self._said:
            self._said[voice, text] = _kept(voice, text) or self._render(voice, text)
        return self._said[voice, text]

    def _render(self, voice: str, text: str) -> bytes:
        if not self._synthesise:
            return babble(text)
        try:
            from relay.simulator.speech import espeak  # noqa: PLC0415  (an extra, needed by own scenarios only)
        except ImportError:
            return babble(text)
        return espeak.render(voice, text) or babble(text)


def _kept(voice: str, text: str) -> bytes:
    rendering = resources.files(__name__).joinpath(f"{key(voice, text)}.ulaw")
    return rendering.read_bytes() if rendering.is_file() else b""
