"""Functions that the agent may call: what it is told of them, and one bounded run of each.

Knows nothing of legs or sessions: arguments come in, a sentence for the agent comes out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
import trio

TOOL_SECONDS = 5.0  # the person hears nothing meanwhile
RESULT_CHARACTERS = 8 * 1024  # of a result; more would only slow the agent's next sentence

log = structlog.get_logger()


class ToolRefused(Exception):
    """The tool says no; its text is a sentence that the agent can use."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function: `parameters` is a JSON schema object, `run` answers with JSON-able data.

    With `opts_out` asking for it is the callee's wish for no more calls, whatever becomes of the run.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: Callable[[Mapping[str, Any]], Awaitable[Any]]
    ends_call: bool = False
    opts_out: bool = False

    @property
    def definition(self) -> dict[str, Any]:
        """What `session.update` says of it: flat, not nested."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What the agent is told: JSON text, or a sentence when `is_error`."""

    result: str
    is_error: bool = False
    ends_call: bool = False


class Toolbox:
    """The tools of one agent, by name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """All definitions, for the session."""
        return [tool.definition for tool in self._tools.values()]

    def opts_out(self, name: str) -> bool:
        """Whether asking for this tool says that the person wants no more calls."""
        return name in self._tools and self._tools[name].opts_out

    async def run(self, name: str, arguments: Mapping[str, Any]) -> ToolOutcome:
        """Run one tool within TOOL_SECONDS; whatever goes wrong becomes a sentence for the agent."""
        tool = self._tools.get(name)
        if tool is None:
            return ToolOutcome(f"There is no function called {name[:64]}.", is_error=True)
        missing = [key for key in tool.parameters.get("required", ()) if key not in arguments]
        if missing:
            return ToolOutcome(f"Please ask for: {', '.join(missing)}.", is_error=True)
        answer: str | None = None
        try:
            with trio.move_on_after(TOOL_SECONDS):
                answer = orjson.dumps(await tool.run(arguments)).decode()
        except ToolRefused as refused:
            return ToolOutcome(str(refused), is_error=True)
        except Exception:  # one of the five borders: a tool is user code
            log.exception("tool failed", tool=name)
            return ToolOutcome("That did not work. Say so, and offer another way.", is_error=True)
        if answer is None:
            log.warning("tool too slow", tool=name, seconds=TOOL_SECONDS)
            return ToolOutcome("That takes too long just now. Say so, and offer another way.", is_error=True)
        if len(answer) > RESULT_CHARACTERS:
            answer = answer[:RESULT_CHARACTERS] + " (cut)"
        return ToolOutcome(answer, ends_call=tool.ends_call)
