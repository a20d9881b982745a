"""Functions that the agent may call: what it is told of them, and one bounded run of each.

Knows nothing of legs or sessions: arguments come in, a sentence for the agent comes out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

import orjson
import structlog
import trio
from pydantic import BaseModel, ValidationError

from relay.shapes import all_that_is_wrong
from relay.store import Books

TOOL_SECONDS = 5.0  # for one run: the person hears nothing meanwhile
RESULT_CHARACTERS = 8 * 1024  # of a result; more would only slow the agent's next sentence

log = structlog.get_logger(subsystem="tools")


class ToolRefused(Exception):
    """The tool says no; its text is a sentence that the agent can use."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the relay's own tools work with. Whose data they may touch was decided before the call."""

    books: Books
    agent: str
    calendar: str
    accounts: str  # the book in which accounts are looked up
    account: str  # the id of the one that the call is about; empty where the number says it
    where: Callable[[], str]  # the IANA zone of the callee's wall clock
    now: Callable[[], datetime]
    judge_hour: Callable[[datetime], str | None]  # why the callee may not be called then; None: they may be


class Telephone(Protocol):
    """What a tool may do on the telephone while it runs."""

    def say(self, instructions: str) -> None:
        """Have the agent say something in its own words, once it says nothing else."""

    async def press(self, keys: str) -> bool:
        """Sound keys; whether they were heard to their end."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """The call that a tool runs for: what it must never take from the agent's arguments.

    `run_id` is the agent's id of this one run; with `call_id` it names an effect that must not happen twice.
    """

    call_id: str
    to: str  # the callee's number, E.164
    variables: Mapping[str, str]
    run_id: str = ""
    desk: Desk | None = None
    telephone: Telephone | None = None

    def say(self, instructions: str) -> None:
        """Have the agent say something in its own words, once it says nothing else."""
        if self.telephone is not None:
            self.telephone.say(instructions)

    async def press(self, keys: str) -> bool:
        """Sound keys (0-9, * and #; w is half a second); whether they were heard to their end."""
        return self.telephone is not None and await self.telephone.press(keys)


@dataclass(frozen=True, slots=True)
class Tool:
    """One function: `run` takes the call and the checked `arguments`, and answers with JSON-able data.

    With `opts_out` asking for it is the callee's wish for no more calls, whatever becomes of the run. With
    `transfers` its argument `to` names whom the call is handed over to once the goodbye was heard.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    run: Callable[[CallContext, BaseModel], Awaitable[Any]]
    ends_call: bool = False
    opts_out: bool = False
    transfers: bool = False
    seconds: float = TOOL_SECONDS  # until it is given up

    @property
    def definition(self) -> dict[str, Any]:
        """What `session.update` says of it: flat, not nested."""
        schema = _schema(self.arguments)
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": {
                "type": "object",
                "properties": {name: _untitled(part) for name, part in schema["properties"].items()},
                "required": schema.get("required", []),
            },
        }


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What the agent is told: JSON text, or a sentence when `is_error`; and what follows on the telephone."""

    result: str
    is_error: bool = False
    ends_call: bool = False
    transfer_to: str = ""  # a name of the profile's


class Toolbox:
    """The tools of one call, by name."""

    def __init__(self, tools: Iterable[Tool], call: CallContext) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._call = call

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    def opts_out(self, name: str) -> bool:
        """Whether asking for this tool says that the person wants no more calls."""
        return name in self._tools and self._tools[name].opts_out

    async def run(
        self, name: str, arguments: Mapping[str, Any], run_id: str, telephone: Telephone | None = None
    ) -> ToolOutcome:
        """Run one tool within its time; whatever goes wrong becomes a sentence for the agent."""
        tool = self._tools.get(name)
        if tool is None:
            return ToolOutcome(f"There is no function called {name[:64]}.", is_error=True)
        try:
            checked = tool.arguments.model_validate(dict(arguments))
        except ValidationError as problem:
            return ToolOutcome(_what_to_ask(problem), is_error=True)
        answer: str | None = None
        here = replace(self._call, run_id=run_id, telephone=telephone)
        try:
            with trio.move_on_after(tool.seconds):
                answer = orjson.dumps(await tool.run(here, checked)).decode()
        except ToolRefused as refused:
            return ToolOutcome(str(refused), is_error=True)
        except Exception:  # one of the five borders: a tool is user code
            log.exception("tool failed", tool=name)
            return ToolOutcome("That did not work. Say so, and offer another way.", is_error=True)
        if answer is None:
            log.warning("tool too slow", tool=name, seconds=tool.seconds)
            return ToolOutcome("That takes too long just now. Say so, and offer another way.", is_error=True)
        if len(answer) > RESULT_CHARACTERS:
            answer = answer[:RESULT_CHARACTERS] + " (cut)"
        to = str(checked.model_dump()["to"]) if tool.transfers else ""
        return ToolOutcome(answer, ends_call=tool.ends_call, transfer_to=to)


def definitions(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """What `session.update` says of these tools."""
    return [tool.definition for tool in tools]


@lru_cache(maxsize=256)  # more tools than the agents of a node have
def _schema(arguments: type[BaseModel]) -> Mapping[str, Any]:
    """Slow to make, and asked for with every call."""
    return arguments.model_json_schema()


def _untitled(schema: Any) -> Any:
    """A schema without the titles that pydantic makes up: the agent reads every word of it."""
    return {name: part for name, part in schema.items() if name != "title"}


def _what_to_ask(problem: ValidationError) -> str:
    """What is wrong with the arguments, in a sentence that repeats none of them."""
    return f"Ask the person again, or correct the call. {'; '.join(all_that_is_wrong(problem))}."
