"""A Python function as a tool: name, description and schema are read from the function itself.

Knows no profile and no call; whoever writes the functions is trusted, whoever calls them is not.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints, overload

import trio
from pydantic import BaseModel, ConfigDict, create_model

from relay.tools import TOOL_SECONDS, CallContext, Telephone, Tool

THREADS = 16  # plain functions that run at once; a thread that hangs keeps its place until it returns

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")  # what the agent's side accepts as a name
_threads = trio.CapacityLimiter(THREADS)  # not trio's own, which name look-ups and the ledger's waits share


class ToolError(ValueError):
    """A function that cannot be a tool; the text names it, what is wrong, and the remedy."""


@overload
def tool(function: Callable[..., Any]) -> Tool: ...
@overload
def tool(
    *, ends_call: bool = False, opts_out: bool = False, seconds: float = TOOL_SECONDS
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    *,
    ends_call: bool = False,
    opts_out: bool = False,
    seconds: float = TOOL_SECONDS,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function, async or plain, into a tool; a plain one runs in a thread.

    Its docstring is the description, its annotations are the schema (`Annotated[str, Field(...)]` for limits
    and meanings). A parameter annotated with CallContext gets the call. Raises ToolError.
    """
    if function is None:
        return partial(_tool, ends_call=ends_call, opts_out=opts_out, seconds=seconds)
    return _tool(function, ends_call=ends_call, opts_out=opts_out, seconds=seconds)


def read_tools(file: Path) -> dict[str, Tool]:
    """The tools that a Python file defines, by name. Raises ToolError; the file's code is run."""
    spec = importlib.util.spec_from_file_location(f"relay_tools_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ToolError(f"{file}: there is no such Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ToolError:
        raise
    except Exception as problem:
        raise ToolError(f"{file}: cannot be run: {type(problem).__name__}: {problem}") from problem
    found = {each.name: each for each in vars(module).values() if isinstance(each, Tool)}
    if not found:
        raise ToolError(f"{file}: defines no tool; put @tool above a function")
    return found


def _tool(function: Callable[..., Any], *, ends_call: bool, opts_out: bool, seconds: float) -> Tool:
    name, description = function.__name__, inspect.getdoc(function)
    if not _NAME.fullmatch(name):
        raise ToolError(f"{name}: a tool's name has at most 64 letters, digits and underscores")
    if not description:
        raise ToolError(f"{name}: has no docstring; it is what the agent is told of the tool")
    hints = get_type_hints(function, include_extras=True)
    wants_call: list[str] = []
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if hint is None or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ToolError(f"{name}: parameter {parameter.name} needs a name of its own and an annotation")
        if hint is CallContext:
            wants_call.append(parameter.name)
        else:
            has_default = parameter.default is not parameter.empty
            fields[parameter.name] = (hint, parameter.default if has_default else ...)
    try:
        arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        arguments.model_json_schema()
    except Exception as problem:
        raise ToolError(f"{name}: its annotations make no schema: {problem}") from problem
    run = _runner(function, wants_call)
    return Tool(name, " ".join(description.split()), arguments, run, ends_call, opts_out, seconds=seconds)


class _FromThread(Telephone):
    """The telephone as a function in a thread may use it."""

    def __init__(self, telephone: Telephone) -> None:
        self._telephone = telephone

    def say(self, instructions: str) -> None:
        trio.from_thread.run_sync(self._telephone.say, instructions)

    async def press(self, keys: str) -> bool:
        raise ToolError("only an async function can press keys: it waits until they are through")


def _runner(function: Callable[..., Any], wants_call: list[str]) -> Callable[[CallContext, BaseModel], Any]:
    is_async = inspect.iscoroutinefunction(function)

    async def run(call: CallContext, arguments: BaseModel) -> Any:
        given: Mapping[str, Any] = {name: getattr(arguments, name) for name in type(arguments).model_fields}
        if is_async:
            return await function(**given, **dict.fromkeys(wants_call, call))
        here = call if call.telephone is None else replace(call, telephone=_FromThread(call.telephone))
        ready = partial(function, **given, **dict.fromkeys(wants_call, here))
        # The call must not wait for a function that hangs: its thread is left behind, and stays counted.
        return await trio.to_thread.run_sync(ready, limiter=_threads, abandon_on_cancel=True)

    return run
