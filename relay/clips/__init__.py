"""Sentences of the relay's own, as μ-law that ships with it: they are heard whatever has become of the agent.

Must not know calls, nor who spoke the sentences (`make clips`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from types import MappingProxyType

from relay.wire.audio import BYTES_PER_SECOND

TEXTS = MappingProxyType(
    {
        "opted-out": "You will not be called again. Goodbye.",
        "apology": "I am sorry. Goodbye.",
        "bridge": "Please stay on the line.",
        "filler": "One moment.",
        "still-there": "Are you still there?",
    }
)
"""What each clip says, by the name of its file."""

LONGEST_SENTENCE_SECONDS = 10.0  # of one that was made elsewhere: it is held by every call of its agent
LONGEST_SECONDS = MappingProxyType({"opted-out": 4.0})  # the line is closed 5 s after the wish
CONVERSION = "`ffmpeg -i IN -ar 8000 -ac 1 -f mulaw OUT`"


@dataclass(frozen=True, slots=True)
class Clips:
    """The sentences of one call, 8 kHz μ-law without a header. An empty one is not said."""

    opted_out: bytes = field(default=b"", repr=False)
    apology: bytes = field(default=b"", repr=False)
    bridge: bytes = field(default=b"", repr=False)  # while the agent's session is being restored
    filler: bytes = field(default=b"", repr=False)  # while the agent thinks
    still_there: bytes = field(default=b"", repr=False)


@cache
def shipped() -> Clips:
    """The clips that come with the package."""
    folder = resources.files(__name__)
    sounds = {name.replace("-", "_"): (folder / f"{name}.ulaw").read_bytes() for name in TEXTS}
    return Clips(**sounds)


def of_files(sounds: Mapping[str, bytes]) -> Clips:
    """The shipped clips, some of them replaced by what files hold. Raises ValueError, with the remedy."""
    for name, sound in sounds.items():
        longest = LONGEST_SECONDS.get(name, LONGEST_SENTENCE_SECONDS)
        if sound.startswith(b"RIFF") or not sound:
            raise ValueError(f"{name}: is no μ-law of 8 kHz without a header; {CONVERSION} makes one")
        if len(sound) > longest * BYTES_PER_SECOND:
            raise ValueError(f"{name}: lasts longer than {longest:g} s; say it shorter")
    return replace(shipped(), **{name.replace("-", "_"): sound for name, sound in sounds.items()})
