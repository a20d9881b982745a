"""When the mishaps of a scenario strike a phone's stream, read from the ledger of the call.

Knows nothing of how a mishap is carried out.
"""

from __future__ import annotations

from collections.abc import Iterable

from relay.simulator.ledger import Entry, Ledger
from relay.simulator.scenario import Fault

# So long the agent is heard before "in the middle of its speech" is true.
INTO_SPEECH_SECONDS = 0.3


class Mishaps:
    """Watches one call and names each fault of its phone leg once, when its moment has come."""

    def __init__(self, faults: Iterable[Fault], ledger: Ledger) -> None:
        self._pending = [fault for fault in faults if fault.leg == "phone"]
        self._ledger = ledger
        self._read = len(ledger.entries)
        self._started_at: float | None = None
        self._audible_at: float | None = None
        self._callee_spoke = self._tool_called = self._end_called = False

    def due(self, now: float) -> list[str]:
        """The kinds of the faults whose moment has come since the last question."""
        if not self._pending:
            return []
        for entry in self._ledger.entries[self._read :]:
            self._follow(entry)
        self._read = len(self._ledger.entries)
        due = [fault for fault in self._pending if self._has_come(fault.at, now)]
        self._pending = [fault for fault in self._pending if fault not in due]
        return [fault.kind for fault in due]

    def _follow(self, entry: Entry) -> None:
        match entry.side, entry.event:
            case "phone", "start":
                self._started_at = entry.at
            case "phone", "agent-audible":
                self._audible_at = entry.at
            case "phone", "agent-silent":
                self._audible_at = None
            case "phone", "speech-ended":
                self._callee_spoke = True
            case "agent", "tool.call" if entry.fields.get("name") == "end_call":
                self._end_called = True
            case "agent", "tool.call":
                self._tool_called = True

    def _has_come(self, at: str, now: float) -> bool:
        if self._started_at is None:
            return False
        in_speech = self._audible_at is not None and now - self._audible_at >= INTO_SPEECH_SECONDS
        match at:
            case "before-ready":
                return True
            case "opening":
                return in_speech and not self._callee_spoke
            case "mid-speech":
                return in_speech and self._callee_spoke
            case "tool-running":
                return self._tool_called
            case "farewell":
                return in_speech and self._end_called
        return now - self._started_at >= float(at.removeprefix("seconds:"))
