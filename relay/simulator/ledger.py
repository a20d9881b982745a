"""What both far ends sent, received and noticed during a run, in order, with the time of each.

Knows nothing of either protocol: events are words and fields, audio stays base64 text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

Side = Literal["phone", "agent"]
# noted: nothing crossed a wire, e.g. the callee began to speak
Direction = Literal["sent", "received", "noted"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event at a far end. `at` is `trio.current_time()`; `payload` is base64 as it crossed the wire."""

    at: float
    side: Side
    direction: Direction
    event: str
    fields: Mapping[str, Any]
    payload: str | None = None


@dataclass(eq=False, slots=True)
class Ledger:
    """An append-only account of a run, whose length bounds it: some 40 kB for a second of call.

    `violations` lists what the service did against a protocol: a run with violations is a failed run.
    """

    on_entry: Callable[[Entry], None] | None = None
    entries: list[Entry] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def record(
        self,
        side: Side,
        direction: Direction,
        event: str,
        fields: Mapping[str, Any] | None = None,
        payload: str | None = None,
    ) -> None:
        """Append one entry at the present moment and show it to the observer."""
        entry = Entry(trio.current_time(), side, direction, event, fields or {}, payload)
        self.entries.append(entry)
        if self.on_entry is not None:
            self.on_entry(entry)

    def violate(self, side: Side, sentence: str) -> None:
        """Note that the service broke the protocol of that side."""
        self.violations.append(f"{side}: {sentence}")
        self.record(side, "noted", "violation", {"detail": sentence})

    def select(self, side: Side, direction: Direction, event: str) -> list[Entry]:
        """All entries of one kind, in order."""
        return [e for e in self.entries if (e.side, e.direction, e.event) == (side, direction, event)]
