"""Named points in time that pure code waits for.

Knows no trio and no clock: whoever owns a clock sleeps until `earliest` and then asks what is due.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from enum import Enum, auto
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Watch(Enum):
    """What a dialogue waits for, beside the steps of a goodbye."""

    STAGE = auto()  # a session, the opening, the last words: whatever the stage is there for
    RESUME = auto()  # the lost session does not come back
    FILLER = auto()  # the agent owes an answer: the callee is told that they were heard,
    NUDGE = auto()  # the agent that it is its turn,
    DEAD_AIR = auto()  # and the call is given up
    TOOL = auto()  # a function takes long
    LULL = auto()  # nobody speaks
    MONOLOGUE = auto()  # the agent speaks, and nobody answers
    ANSWER = auto()  # whoever has picked up says nothing
    KEYS = auto()  # no other key is pressed


class Alarms(Generic[Name]):
    """At most one alarm a name. `earliest` is kept up to date: reading it on the hot path costs nothing."""

    __slots__ = ("_at", "earliest")

    def __init__(self) -> None:
        self._at: dict[Name, float] = {}
        self.earliest = math.inf

    def set(self, name: Name, at: float) -> None:
        """Ring at `at`, in seconds, instead of whenever it would have rung before."""
        self._at[name] = at
        self.earliest = min(self._at.values())

    def drop(self, name: Name) -> None:
        """Do not ring."""
        if self._at.pop(name, None) is not None:
            self.earliest = min(self._at.values(), default=math.inf)

    def at(self, name: Name) -> float:
        """When it rings; infinite when it does not."""
        return self._at.get(name, math.inf)

    def __contains__(self, name: Name) -> bool:
        return name in self._at

    def due(self, now: float) -> list[Name]:
        """The alarms whose time has come, earliest first; they are dropped."""
        names = [name for name, at in sorted(self._at.items(), key=lambda item: item[1]) if at <= now]
        for name in names:
            self.drop(name)
        return names
