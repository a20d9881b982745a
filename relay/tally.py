"""What is counted in one conversation.

Must not know what any of it leads to: whoever counts decides.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """What was counted in one call."""

    early_frames: int = 0  # of the callee's, before the opening was heard
    late_frames: int = 0  # of the agent's, after its interruption or an opt-out; and before session.ready
    foreign_messages: int = 0
    unknown_events: int = 0
    clears: int = 0
    barge_ins: int = 0
    people_taken_for_machines: int = 0
