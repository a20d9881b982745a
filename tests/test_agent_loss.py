"""Agent loss is not call loss: another session takes over, and the callee hears why there is a pause.

Must not know HTTP, the switchboard or real time: both far ends are in memory and the clock jumps.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
import trio
import trio.testing
from pydantic import BaseModel
from trio.testing import MockClock

from relay.clips import TEXTS, shipped
from relay.goodbye import WIND_UP
from relay.handshake import HandshakeRefused
from relay.outcomes import Blame, Ending, LegClosed, Reason
from relay.sessions import LOSSES, READY_SECONDS, RESUME, RESUME_SECONDS
from relay.simulator.sound import SPEECH_DBFS, level_dbfs
from relay.tools import CallContext
from tests.test_call import (
    LOUD,
    PHASES,
    SESSION,
    SILENCE,
    STREAM,
    Far,
    Scene,
    hangs,
    leave,
    mid_speech,
    open_call,
    opening,
    press,
    tool,
)

BRIDGE, APOLOGY = shipped().bridge, shipped().apology
LOST = LegClosed(Blame.AGENT, Reason.UNREACHABLE, "no route")


async def next_clip(scene: Scene) -> tuple[bytes, str]:
    """What the phone plays up to the next mark of a clip, without the agent's sound; and that mark."""
    heard = b""
    while True:
        message = await scene.phone.hear()
        if message["event"] == "media" and message["media"]["payload"] != LOUD:
            heard += base64.b64decode(message["media"]["payload"])
        elif message["event"] == "mark" and message["mark"]["name"].startswith(("clip", "last-words")):
            return heard.removeprefix(b"\xff" * 2000), message["mark"]["name"]


async def echo(scene: Scene, name: str) -> None:
    await scene.phone.say(event="mark", streamSid=STREAM, mark={"name": name})


async def hear_apology(scene: Scene) -> None:
    """The apology, and nothing between it and the hang-up."""
    heard, name = await next_clip(scene)
    assert heard == APOLOGY
    assert name.startswith("last-words")
    assert not scene.over.is_set()
    await echo(scene, name)


async def is_forwarded(scene: Scene, agent: Far) -> None:
    """The callee's next frame reaches this agent."""
    await trio.testing.wait_all_tasks_blocked()
    await scene.media("bm93")
    while (await agent.hear("input.audio"))["audio"] == SILENCE:
        pass


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("nowait", [True, False])
@pytest.mark.parametrize("how", [1001, 1011, 1012, 1013, "eof", "reset"])
async def test_a_session_that_was_lost_is_replaced_in_every_phase(
    autojump_clock: MockClock, phase: Any, how: int | str, nowait: bool
) -> None:
    async with open_call(tool("hangs", hangs), nowait=nowait) as scene:
        first = await phase(scene)
        await leave(scene, first, how)
        began = trio.current_time()
        second = await scene.agent()
        assert trio.current_time() - began < 1.5
        update = await second.hear()
        await second.say(type="session.ready", session_id="s2")
        greets = phase.__name__ in ("connecting", "opening")
        assert ("greeting" in update["session"]) == greets
        if phase.__name__ != "connecting":
            assert (await next_clip(scene))[0] == BRIDGE
        if greets:
            await scene.speak(second, "again")
            assert (await scene.echo_mark()).startswith("opening")
            await is_forwarded(scene, second)
        else:
            ending = phase.__name__ == "farewell"
            assert (await second.hear("reply.create"))["instructions"] == (WIND_UP if ending else RESUME)
        await scene.phone.say(event="stop", streamSid=STREAM)
        await scene.ended(Blame.CALLEE, Reason.HUNG_UP)
        assert scene.tokens == [None, None]


async def ready_to_resume(scene: Scene) -> Far:
    """Past the opening, in a session with a resume token."""
    agent = await scene.agent()
    await agent.hear("session.update")
    await agent.say(type="session.ready", session_id="s1", resume_token="again")
    await scene.speak(agent, "r0")
    await scene.echo_mark()
    await trio.testing.wait_all_tasks_blocked()
    return agent


async def test_a_lost_session_is_resumed_with_its_token_and_goes_on(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        first = await ready_to_resume(scene)
        await leave(scene, first, "reset")
        second = await scene.agent()
        assert await second.hear() == {"type": "session.resume", "session_id": "s1"}
        assert scene.tokens == [None, "again"]
        assert (await next_clip(scene))[0] == BRIDGE
        await second.say(type="session.ready", session_id="s1", resume_token="once more")
        assert (await second.hear())["instructions"] == RESUME
        await is_forwarded(scene, second)
        await scene.speak(second, "r5")
        assert (await scene.echo_mark()).startswith("reply")
        await scene.phone.say(event="stop", streamSid=STREAM)
        await scene.ended(Blame.CALLEE, Reason.HUNG_UP)


@pytest.mark.parametrize("how", ["error", "unauthorized", "another", "silence", "close", "refused"])
async def test_a_session_that_does_not_come_back_is_replaced_and_told_what_was_said(
    autojump_clock: MockClock, how: str
) -> None:
    async def book(_call: CallContext, _arguments: BaseModel) -> str:
        return "booked for Tuesday"  # noqa: ASYNC910

    async with open_call(tool("book", book)) as scene:
        first = await ready_to_resume(scene)
        await first.say(type="transcript.agent", text="Hello there.", reply_id="r0")
        await first.say(type="transcript.user", text="Tuesday, please.")
        await first.say(type="tool.call", call_id="t1", name="book", arguments={})
        await first.hear("tool.result")
        await leave(scene, first, 1011)
        began = trio.current_time()
        scene.refuse = HandshakeRefused(401) if how == "refused" else None
        if how == "refused":
            await trio.sleep(0.3)
            scene.refuse = None
        second = first if how == "refused" else await scene.agent()
        if how != "refused":
            await second.hear("session.resume")
        match how:
            case "error":
                await second.say(type="session.error", code="session_not_found", message="no")
            case "unauthorized":
                await second.say(type="session.error", code="unauthorized", message="no")
            case "another":
                await second.say(type="session.ready", session_id="s9", resume_token="x")
            case "close":
                await leave(scene, second, 1008)
        third = await scene.agent()
        waited = RESUME_SECONDS if how == "silence" else 0.3
        assert trio.current_time() - began == pytest.approx(waited, abs=1.3)
        update = await third.hear()
        assert "greeting" not in update["session"]
        past = update["session"]["system_prompt"].removeprefix(SESSION["system_prompt"])
        assert "agent: Hello there.\ncallee: Tuesday, please.\nfunction book: " in past
        assert "booked for Tuesday" in past
        assert scene.tokens == [None, "again", None]
        await third.say(type="session.ready", session_id="s3")
        assert (await third.hear("reply.create"))["instructions"] == RESUME
        await scene.phone.say(event="stop", streamSid=STREAM)
        await scene.ended(Blame.CALLEE, Reason.HUNG_UP)


async def test_when_nothing_helps_the_callee_hears_an_apology_and_the_first_loss_is_the_cause(
    autojump_clock: MockClock,
) -> None:
    async with open_call() as scene:
        agent = await ready_to_resume(scene)
        scene.refuse = LOST
        await leave(scene, agent, 1012)
        assert (await next_clip(scene))[0] == BRIDGE
        await hear_apology(scene)
        await scene.ended(Blame.AGENT, Reason.LOST)
        assert scene.ending is not None
        assert "1012" in scene.ending.detail
        assert "no route" in scene.ending.detail
        assert scene.tokens == [None, "again", None]


async def test_the_search_for_a_session_is_over_after_eight_seconds(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        first = await ready_to_resume(scene)
        began = trio.current_time()
        await leave(scene, first, "eof")
        for _ in range(2):
            await scene.agent()
        assert (await next_clip(scene))[0] == BRIDGE
        await hear_apology(scene)
        assert trio.current_time() - began == pytest.approx(READY_SECONDS, abs=0.2)
        await scene.ended(Blame.AGENT, Reason.LOST)


@pytest.mark.parametrize("code", ["at_capacity", "INTERNAL_ERROR", "server_error"])
@pytest.mark.parametrize("is_ready", [False, True])
async def test_an_error_that_may_pass_is_followed_by_another_session(
    autojump_clock: MockClock, code: str, is_ready: bool
) -> None:
    async with open_call() as scene:
        first = await scene.opened() if is_ready else await scene.agent()
        await first.say(type="session.error", code=code, message="")
        second = await scene.agent()
        assert ("greeting" in (await second.hear())["session"]) == (not is_ready)
        await second.say(type="session.error", code=code, message="")
        if is_ready:
            assert (await next_clip(scene))[0] == BRIDGE
        await hear_apology(scene)
        await scene.ended(Blame.AGENT, Reason.ERROR if is_ready else Reason.REFUSED)


@pytest.mark.parametrize(
    ("refusal", "reason", "dials"),
    [
        (HandshakeRefused(503), Reason.REFUSED, 2),
        (HandshakeRefused(429), Reason.REFUSED, 2),
        (HandshakeRefused(404), Reason.REFUSED, 1),
        (HandshakeRefused(401), Reason.UNAUTHORIZED, 1),
        (LOST, Reason.UNREACHABLE, 2),
    ],
)
async def test_a_first_dial_that_fails_is_tried_once_more_where_that_may_help(
    autojump_clock: MockClock, refusal: Exception, reason: Reason, dials: int
) -> None:
    async with open_call() as scene:
        scene.refuse = refusal
        await hear_apology(scene)
        assert trio.current_time() < 1.0
        await scene.ended(Blame.AGENT, reason)
        assert scene.tokens == [None] * dials


async def test_a_call_gets_over_three_losses_and_no_more(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        agent = await scene.opened()
        for number in range(LOSSES):
            await leave(scene, agent, "reset")
            agent = await scene.agent()
            await agent.hear("session.update")
            await agent.say(type="session.ready", session_id=f"s{number}")
            await agent.hear("reply.create")
            await trio.sleep(2.0)  # the bridge was heard
        await leave(scene, agent, "reset")
        await scene.ended(Blame.AGENT, Reason.LOST)
        assert scene.tokens == [None] * (1 + LOSSES)


@pytest.mark.parametrize("seconds", [0, 12])
async def test_an_agent_that_no_longer_answers_pings_is_replaced(
    autojump_clock: MockClock, seconds: float
) -> None:
    async with open_call() as scene:
        agent = await scene.opened()
        await trio.sleep(seconds)  # trio-websocket answers pings by itself, from the first word on
        agent.stream.vanish()
        began = trio.current_time()
        await scene.agent()
        assert trio.current_time() - began <= 8.0 + 0.5
        assert not scene.over.is_set()


async def test_a_result_that_comes_meanwhile_is_given_to_the_session_that_comes_back(
    autojump_clock: MockClock,
) -> None:
    async def slow(_call: CallContext, _arguments: BaseModel) -> str:
        await trio.sleep(1.0)
        return "done"

    async with open_call(tool("slow", slow)) as scene:
        first = await ready_to_resume(scene)
        await first.say(type="tool.call", call_id="t1", name="slow", arguments={})
        await trio.testing.wait_all_tasks_blocked()
        await leave(scene, first, "reset")
        second = await scene.agent()
        await trio.sleep(2.0)
        await second.hear("session.resume")
        await second.say(type="session.ready", session_id="s1")
        answer = await second.hear()  # which starts a reply: nothing else is asked for
        assert answer["call_id"] == "t1"


async def test_a_session_that_is_resumed_while_a_tool_runs_waits_for_the_result(
    autojump_clock: MockClock,
) -> None:
    async def slow(_call: CallContext, _arguments: BaseModel) -> str:
        await trio.sleep(3.0)
        return "done"

    async with open_call(tool("slow", slow), talks=False) as scene:
        first = await ready_to_resume(scene)
        await first.say(type="tool.call", call_id="t1", name="slow", arguments={})
        await trio.testing.wait_all_tasks_blocked()
        await leave(scene, first, "reset")
        second = await scene.agent()
        await second.hear("session.resume")
        await second.say(type="session.ready", session_id="s1")
        assert (await second.hear())["type"] == "tool.result"


async def test_a_result_for_a_session_that_is_gone_is_dropped(autojump_clock: MockClock) -> None:
    async def slow(_call: CallContext, _arguments: BaseModel) -> str:
        await trio.sleep(2.0)
        return "done"

    async with open_call(tool("slow", slow)) as scene:
        first = await scene.opened()
        await first.say(type="tool.call", call_id="t1", name="slow", arguments={})
        await trio.testing.wait_all_tasks_blocked()
        await leave(scene, first, "reset")
        second = await scene.agent()
        await second.hear("session.update")
        await second.say(type="session.ready", session_id="s2")
        await second.hear("reply.create")
        await trio.sleep(2.5)
        assert "tool result dropped" in scene.diary.events


async def test_a_goodbye_that_was_said_needs_no_agent(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        agent = await scene.opened()
        await agent.say(type="tool.call", call_id="t1", name="end_call", arguments={})
        await agent.hear("tool.result")
        await scene.speak(agent, "r2")
        while not (name := (await scene.phone.hear("mark"))["mark"]["name"]).startswith("goodbye"):
            pass
        await leave(scene, agent, "reset")
        await trio.sleep(1.0)
        await echo(scene, name)
        await scene.ended(Blame.NOBODY, Reason.GOODBYE)
        assert scene.tokens == [None]


async def test_an_opening_that_was_heard_while_the_session_was_lost_still_counts(
    autojump_clock: MockClock,
) -> None:
    async with open_call() as scene:
        first = await scene.ready()
        await scene.speak(first, "r0")
        name = (await scene.phone.hear("mark"))["mark"]["name"]
        await leave(scene, first, "reset")
        await trio.testing.wait_all_tasks_blocked()
        await echo(scene, name)
        await trio.testing.wait_all_tasks_blocked()
        assert "opening heard" in scene.diary.events
        second = await scene.agent()  # was asked to greet before the echo came: it says it all again
        assert "greeting" in (await second.hear())["session"]
        await second.say(type="session.ready", session_id="s2")
        assert (await next_clip(scene))[0] == BRIDGE
        await scene.speak(second, "again")
        assert (await scene.echo_mark()).startswith("opening")
        await is_forwarded(scene, second)


async def test_nothing_of_the_callees_is_forwarded_to_a_session_that_is_not_ready(
    autojump_clock: MockClock,
) -> None:
    async with open_call(talks=False) as scene:
        first = await ready_to_resume(scene)
        await leave(scene, first, "reset")
        second = await scene.agent()
        await second.hear("session.resume")
        await scene.media()
        await trio.testing.wait_all_tasks_blocked()
        await second.say(type="session.ready", session_id="s1")
        assert (await second.hear())["type"] == "reply.create"


@pytest.mark.parametrize("phase", [opening, mid_speech])
async def test_the_callee_can_opt_out_while_there_is_no_agent(autojump_clock: MockClock, phase: Any) -> None:
    async with open_call() as scene:
        agent = await phase(scene)
        scene.refuse = LOST
        await leave(scene, agent, "reset")
        await trio.testing.wait_all_tasks_blocked()
        await press(scene)
        await trio.testing.wait_all_tasks_blocked()
        assert scene.diary.opt_outs == ["key"]
        await scene.ended(Blame.CALLEE, Reason.OPTED_OUT, within_seconds=5.0)


async def test_an_opt_out_overrides_the_apology(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        scene.refuse = HandshakeRefused(401)
        await trio.sleep(0.5)
        await press(scene)
        await scene.phone.hear("clear")
        assert (await next_clip(scene))[0] == shipped().opted_out
        await scene.ended(Blame.CALLEE, Reason.OPTED_OUT, within_seconds=5.0)


async def test_whoever_hangs_up_on_the_apology_did_not_end_the_call(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        scene.refuse = HandshakeRefused(401)
        await trio.sleep(0.5)
        await scene.phone.say(event="stop", streamSid=STREAM)
        await scene.ended(Blame.AGENT, Reason.UNAUTHORIZED, within_seconds=0.5)


@pytest.mark.parametrize("within_seconds", [0.5, 8.0])
async def test_a_wind_up_does_not_prolong_the_apology(
    autojump_clock: MockClock, within_seconds: float
) -> None:
    async with open_call() as scene:
        scene.refuse = HandshakeRefused(401)
        await trio.sleep(0.1)
        scene.call.wind_up(Ending(Blame.US, Reason.DRAINED), within_seconds=within_seconds)
        began = trio.current_time()
        await scene.over.wait()
        assert trio.current_time() - began < min(within_seconds, 4.0) + 0.1
        await scene.ended(Blame.AGENT, Reason.UNAUTHORIZED)


def test_the_clips_that_ship_are_small_loud_and_all_there() -> None:
    sounds = {name: getattr(shipped(), name.replace("-", "_")) for name in TEXTS}
    assert sum(map(len, sounds.values())) <= 60_000
    for sound in sounds.values():
        assert level_dbfs(sound) == pytest.approx(SPEECH_DBFS, abs=1.0)
