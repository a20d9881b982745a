"""A tool on a live call: what it wants said is asked of the agent, and its keys sound at the phone."""

from __future__ import annotations

import base64

from pydantic import BaseModel
from trio.testing import MockClock

from relay.tools import CallContext
from tests.test_call import STREAM, open_call, tool
from tests.test_tones import received


async def looks_up(call: CallContext, _arguments: BaseModel) -> str:
    call.say("Say that it takes a minute.")
    return "done" if await call.press("42#") else "not pressed"


async def test_a_tool_has_something_said_and_presses_keys_while_it_runs(
    autojump_clock: MockClock,
) -> None:
    async with open_call(tool("looks_up", looks_up)) as scene:
        agent = await scene.opened()
        await agent.say(type="tool.call", call_id="t1", name="looks_up", arguments={})
        assert (await agent.hear("reply.create"))["instructions"] == "Say that it takes a minute."
        sound = b""
        while (heard := await scene.phone.hear())["event"] != "mark":
            sound += base64.b64decode(heard["media"]["payload"])
        assert "".join(key for key, _ in received(sound) if key) == "42#"
        await scene.phone.say(event="mark", streamSid=STREAM, mark={"name": heard["mark"]["name"]})
        assert (await agent.hear("tool.result"))["result"] == '"done"'
