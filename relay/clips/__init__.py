"""Sentences of the relay's own, as μ-law that ships with it: they are heard whatever has become of the agent.

Must not know calls, nor who spoke the sentences (`make clips`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType

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
