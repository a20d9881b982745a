"""Sentences of the relay's own, as μ-law that ships with it: they are heard whatever has become of the agent.

Must not know calls, nor who spoke the sentences (`make clips`).
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from types import MappingProxyType

TEXTS = MappingProxyType({"opted-out": "You will not be called again. Goodbye."})
"""What each clip says, by the name of its file."""


def opted_out() -> bytes:
    """The last sentence to somebody who does not want to be called."""
    return _clip("opted-out")


@cache
def _clip(name: str) -> bytes:
    return (resources.files(__name__) / f"{name}.ulaw").read_bytes()
