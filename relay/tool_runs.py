"""The functions that the agent has asked for: which may run, and whose results it still wants.

Knows no trio, no clock, no socket, no log and no function; results come in as text.

A result that an interrupted turn asked for must not leak into the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.actions import Action, Note, RunTool, SendToolResult
from relay.outcomes import WireError
from relay.wire import agent

TOOL_CALLS = 100  # in one call; an agent in a loop is told no from then on
_NAME_CHARACTERS = 64  # of a far end's word in our timeline


class ToolRuns:
    """The tool calls of one conversation, each answered at most once."""

    __slots__ = ("_are_ours", "_held", "_seen", "_wanted")

    def __init__(self, *, are_ours: bool = True) -> None:
        """Not `are_ours`: the vendor runs the functions, and tells us of it only. It is never answered."""
        self._are_ours = are_ours
        self._seen: set[str] = set()
        self._wanted: set[str] = set()
        self._held: list[SendToolResult] = []  # while there is no session; at most TOOL_CALLS

    def called(self, call: agent.ToolCall) -> Sequence[Action]:
        """The agent wants a function to be run."""
        if not self._are_ours:
            return (Note("tool run by the vendor", {"tool": call.name[:_NAME_CHARACTERS]}),)
        if call.call_id in self._seen:
            return (Note("tool call repeated", {"tool": call.name[:_NAME_CHARACTERS]}),)
        self._seen.add(call.call_id)
        if len(self._seen) > TOOL_CALLS:
            return (SendToolResult(call.call_id, "No more functions can be run in this call.", True),)
        try:
            arguments = call.read_arguments()
        except WireError as problem:
            return (SendToolResult(call.call_id, str(problem), True),)
        self._wanted.add(call.call_id)
        return (RunTool(call.call_id, call.name, arguments),)

    def forget(self) -> None:
        """The turn that asked is over: results that are still to come are not wanted any more."""
        self._wanted.clear()
        self._held.clear()

    @property
    def are_awaited(self) -> bool:
        """Whether the agent still waits for a result."""
        return bool(self._wanted)

    def hold(self, result: SendToolResult) -> None:
        """The session that asked is away: keep the result until it is back."""
        self._held.append(result)

    def release(self) -> list[SendToolResult]:
        """The session that asked is back: what it is owed."""
        held, self._held = self._held, []
        return held

    def is_wanted(self, call_id: str) -> bool:
        """Whether the agent still waits for this result; asked once, when it is there."""
        if call_id not in self._wanted:
            return False
        self._wanted.remove(call_id)
        return True
