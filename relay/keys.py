"""How an agent takes keys that the callee presses; each may be set in its profile.

Knows no trio, no clock, no socket, no log and no key that was pressed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LONGEST_GROUP = 64  # keys; somebody who leans on the telephone gets no longer instruction out of it


class Keys(BaseModel):
    """How an agent takes keys: what ends a group of them, beside `pause_seconds` without another one.

    `digits`: how many keys make a group, for example 1 in a menu.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ends_with: Literal["#", "*"] = "#"
    pause_seconds: float = Field(default=3.0, ge=0.5, le=10)
    digits: int | None = Field(default=None, ge=1, le=LONGEST_GROUP)
