"""The tool that presses keys: which it takes, and what it says where they could not be pressed."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from relay.tools import CallContext, Toolbox, ToolOutcome
from relay.tools.functions import tool
from relay.tools.keys import send_digits

CALL = CallContext("call_1", "+12025550143", {})


class Telephone:
    """Where keys are pressed."""

    def __init__(self, *, heard: bool = True) -> None:
        self.pressed: list[str] = []
        self.said: list[str] = []
        self._heard = heard

    def say(self, instructions: str) -> None:
        self.said.append(instructions)

    async def press(self, keys: str) -> bool:
        self.pressed.append(keys)
        return self._heard


async def press(digits: str, telephone: Telephone) -> ToolOutcome:
    return await Toolbox([send_digits], CALL).run("send_digits", {"digits": digits}, "r1", telephone)


async def test_keys_are_pressed_and_not_repeated_to_the_agent() -> None:
    telephone = Telephone()
    assert await press("ww1234#", telephone) == ToolOutcome('{"pressed":7}')
    assert telephone.pressed == ["ww1234#"]


@pytest.mark.parametrize("digits", ["", "12 34", "+12025550143", "A", "1" * 33, "one"])
async def test_what_is_no_key_is_not_pressed(digits: str) -> None:
    telephone = Telephone()
    assert (await press(digits, telephone)).is_error
    assert telephone.pressed == []


async def test_keys_that_were_not_heard_are_an_error_to_the_agent() -> None:
    assert (await press("1", Telephone(heard=False))).is_error


async def test_a_plain_function_may_have_something_said_from_its_thread() -> None:
    @tool
    def look_up(call: CallContext) -> str:
        """Look it up."""
        call.say("Say that it takes a minute.")
        return threading.current_thread().name

    telephone = Telephone()
    outcome = await Toolbox([look_up], CALL).run("look_up", {}, "r1", telephone)
    assert threading.current_thread().name not in outcome.result
    assert telephone.said == ["Say that it takes a minute."]


async def test_without_a_telephone_nothing_is_pressed_or_said() -> None:
    assert (await Toolbox([send_digits], CALL).run("send_digits", {"digits": "1"}, "r1")).is_error
    CALL.say("Nobody hears this.")
    telephone = Telephone()
    replace(CALL, telephone=telephone).say("Say that it takes a minute.")
    assert telephone.said == ["Say that it takes a minute."]
