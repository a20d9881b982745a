"""Where a call stands: who is heard by whom.

Knows no trio, no clock, no socket, no log and not what leads from one stage to the next.
"""

from __future__ import annotations

from enum import Enum, auto


class Stage(Enum):
    """From the first word to the last."""

    CONNECTING = auto()  # there is no session, not yet or not any more
    OPENING = auto()  # what a session begins with is being heard; the callee is not forwarded
    OPEN = auto()
    LISTENING = auto()  # it is no person, or was none so far: it is heard, and the agent is not played
    LEAVING = auto()  # our own last words are said; the agent is neither played nor heard


class Standing:
    """The stage of one call, for all the rules that go by it."""

    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage = Stage.CONNECTING

    @property
    def is_callee_heard(self) -> bool:
        """Whether what the callee says goes to the agent."""
        return self.stage is Stage.OPEN or self.stage is Stage.LISTENING

    @property
    def is_agent_played(self) -> bool:
        """Whether the callee hears what the agent says."""
        return self.stage is Stage.OPENING or self.stage is Stage.OPEN
