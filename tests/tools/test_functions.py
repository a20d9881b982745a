"""Functions as tools: what the agent is told of them, and what comes of a run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import pytest
import trio
from pydantic import Field
from trio.testing import MockClock

from relay.tools import CallContext, Tool, Toolbox, ToolOutcome, ToolRefused
from relay.tools.functions import ToolError, read_tools, tool

CALL = CallContext("call_1", "+12025550143", {"business": "Acme"})


async def ask(made: Tool, run_id: str = "r1", /, **arguments: Any) -> ToolOutcome:
    return await Toolbox([made], CALL).run(made.name, arguments, run_id)


@tool
async def move(
    day: Annotated[str, Field(description="the new day", max_length=20)],
    hour: Annotated[int, Field(ge=8, le=17)],
    reason: Literal["ill", "late"] = "late",
) -> dict[str, Any]:
    """Move the appointment."""
    await trio.lowlevel.checkpoint()
    return {"day": day, "hour": hour, "reason": reason}


def test_the_agent_is_told_what_the_function_says_of_itself() -> None:
    assert move.definition == {
        "type": "function",
        "name": "move",
        "description": "Move the appointment.",
        "parameters": {
            "type": "object",
            "properties": {
                "day": {"type": "string", "description": "the new day", "maxLength": 20},
                "hour": {"type": "integer", "minimum": 8, "maximum": 17},
                "reason": {"type": "string", "enum": ["ill", "late"], "default": "late"},
            },
            "required": ["day", "hour"],
        },
    }


async def test_arguments_reach_the_function_checked_and_converted() -> None:
    assert await ask(move, day="Tuesday", hour="9") == ToolOutcome(
        '{"day":"Tuesday","hour":9,"reason":"late"}'
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"hour": 9}, "day"),
        ({"day": "Tuesday", "hour": 23}, "hour"),
        ({"day": "Tuesday", "hour": 9, "reason": "bored"}, "reason"),
        ({"day": "Tuesday", "hour": 9, "tenant": "another"}, "tenant"),
        ({"day": ["Tuesday"], "hour": 9}, "day"),
    ],
)
async def test_a_bad_argument_is_named_and_not_repeated(arguments: dict[str, Any], names: str) -> None:
    outcome = await ask(move, **arguments)
    assert outcome.is_error
    assert names in outcome.result
    assert not any(str(value) in outcome.result for value in ("bored", "another", "23"))


async def test_a_function_may_ask_for_the_call_and_the_agent_cannot_give_it() -> None:
    @tool
    async def whoami(call: CallContext) -> dict[str, str]:
        """Who is on the phone."""
        await trio.lowlevel.checkpoint()
        return {"to": call.to, "business": call.variables["business"], "run": f"{call.call_id}:{call.run_id}"}

    assert whoami.definition["parameters"] == {"type": "object", "properties": {}, "required": []}
    assert (await ask(whoami)).result == '{"to":"+12025550143","business":"Acme","run":"call_1:r1"}'
    assert (await ask(whoami, call={"to": "+13105550199"})).is_error


async def test_a_plain_function_runs_beside_the_loop() -> None:
    loop = threading.get_ident()

    @tool
    def where() -> bool:
        """Where it runs."""
        return threading.get_ident() == loop

    assert (await ask(where)).result == "false"


async def test_a_plain_function_that_hangs_is_left_behind() -> None:
    never = threading.Event()

    @tool
    def hang() -> None:
        """Hang."""
        never.wait(30)

    quick = Tool(hang.name, hang.description, hang.arguments, hang.run, seconds=0.1)
    try:
        with trio.fail_after(5):
            outcome = await ask(quick)
    finally:
        never.set()
    assert outcome.is_error
    assert "too long" in outcome.result


async def test_an_async_function_that_hangs_is_given_up_in_time(autojump_clock: MockClock) -> None:
    @tool
    async def hang() -> None:
        """Hang."""
        await trio.sleep_forever()

    began = trio.current_time()
    assert (await ask(hang)).is_error
    assert trio.current_time() - began == pytest.approx(5.0)


async def test_a_function_may_be_written_for_anyio(autojump_clock: MockClock) -> None:
    @tool
    async def rest() -> str:
        """Rest."""
        await anyio.sleep(1)
        return "rested"

    assert (await ask(rest)).result == '"rested"'


async def test_a_refusal_is_the_sentence_of_the_function() -> None:
    @tool
    def refuse() -> None:
        """Refuse."""
        raise ToolRefused("Not before Monday.")

    assert await ask(refuse) == ToolOutcome("Not before Monday.", is_error=True)


def undocumented(day: str) -> str:
    return day


def bare(day) -> str:  # type: ignore[no-untyped-def]
    """Bare."""
    return str(day)


def many(*days: str) -> str:
    """Many."""
    return "".join(days)


def odd(thing: threading.Thread) -> str:
    """Odd."""
    return str(thing)


@pytest.mark.parametrize(
    ("function", "says"),
    [(undocumented, "docstring"), (bare, "day"), (many, "days"), (odd, "schema")],
)
def test_a_function_that_is_no_tool_is_named_with_the_remedy(function: Any, says: str) -> None:
    with pytest.raises(ToolError, match=f"^{function.__name__}: .*{says}"):
        tool(function)


FILE = '''
from typing import Annotated
from pydantic import Field
from relay.tools import CallContext
from relay.tools.functions import tool

@tool
def opening_hours(day: Annotated[str, Field(description="day of the week")]) -> str:
    """When the shop is open."""
    return "nine to five" if day != "Sunday" else "closed"

def helper() -> None: ...
'''


async def test_a_file_of_tools_is_read(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FILE)
    tools = read_tools(tmp_path / "shop.py")
    assert list(tools) == ["opening_hours"]
    assert (await ask(tools["opening_hours"], day="Sunday")).result == '"closed"'


@pytest.mark.parametrize(
    ("code", "says"),
    [(None, "no such"), ("x = 1", "defines no tool"), ("import nothing_like_this", "nothing_like_this")],
)
def test_a_file_that_holds_no_tools_is_named(tmp_path: Path, code: str | None, says: str) -> None:
    file = tmp_path / "shop.py"
    if code is not None:
        file.write_text(code)
    with pytest.raises(ToolError, match=f"shop.py: .*{says}"):
        read_tools(file)
