"""How long one agent's calls may last, and how long who may keep whom waiting in them.

Knows no trio, no clock, no socket, no log and not what happens when a limit is reached.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LONGEST_CALL_SECONDS = 14_400  # Twilio's own limit of a call


class Limits(BaseModel):
    """The table `[limits]` of a profile, all of it in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    call_seconds: int = Field(default=LONGEST_CALL_SECONDS, ge=60, le=LONGEST_CALL_SECONDS)
    """The longest call of this agent; RELAY_MAX_CALL_SECONDS and the request may only shorten it."""

    filler_seconds: float = Field(default=5.0, ge=1, le=60)
    """The agent owes an answer: the slowest mode gives it in 4.5 s, and people take more for a fault."""

    tool_filler_seconds: float = Field(default=3.0, ge=1, le=60)
    """A function takes long: most answer within one, and the agent announces those that do not."""

    nudge_seconds: float = Field(default=10.0, ge=1, le=60)
    """Twice as long as any answer that was measured: nothing comes by itself any more."""

    dead_air_seconds: float = Field(default=20.0, ge=1, le=120)
    """Nobody waits longer for an answer on the telephone."""

    silence_seconds: float = Field(default=15.0, ge=3, le=600)
    """Nobody speaks: long enough to look into a calendar. Asked about twice, then the call ends."""

    wordless_seconds: float = Field(default=120.0, ge=10, le=600)
    """Sound without a word is music on hold or a room: no person tells a story without one."""

    monologue_seconds: float = Field(default=60.0, ge=10, le=600)
    """The agent speaks and nobody answers: an answering machine, or two machines that were left alone."""

    ahead_seconds: float = Field(default=30.0, ge=1, le=30)
    """Speech that waits at the phone; the service sends it as fast as it is spoken, so that 1 s is much."""

    @model_validator(mode="after")
    def _come_in_order(self) -> Self:
        if not self.filler_seconds < self.nudge_seconds < self.dead_air_seconds:
            raise ValueError("filler_seconds, nudge_seconds and dead_air_seconds must grow in this order")
        return self
