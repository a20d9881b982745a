"""One call bridges two legs, ends once, for the right reason, and leaves nothing open.

Must not know HTTP, the switchboard or real time: both far ends are in memory and the clock jumps.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from pydantic import BaseModel, create_model
from trio.testing import MockClock

from relay.actions import OptOutWay, Role, TurnAnswered
from relay.call import Call
from relay.clips import shipped
from relay.compliance import OPT_OUT_KEY
from relay.handshake import HandshakeRefused
from relay.hearing import ReplyHeard
from relay.legs import Leg
from relay.outcomes import Blame, Ending, LegClosed, Reason
from relay.playout import MARK_GRACE_SECONDS
from relay.sessions import RESUME
from relay.terms import Terms
from relay.tools import CallContext, Tool, Toolbox, ToolRefused
from relay.tools.builtin import mark_do_not_call
from relay.voicemail import FixedTexts, Voicemail
from tests.far_ends import CLOSE, FarEnd, MemoryStream, frame, join_agent_leg, join_phone_leg, memory_pair
from tests.test_dialogue import PATIENT

STREAM = "MZ" + "0" * 32
LOUD = base64.b64encode(bytes([0x10]) * 160).decode()
SILENCE = base64.b64encode(b"\xff" * 160).decode()
SESSION = {
    "system_prompt": "Be kind.",
    "greeting": "This is an automated call.",
    "input": {"type": "audio", "format": {"encoding": "audio/pcmu"}},
    "output": {"type": "audio", "format": {"encoding": "audio/pcmu"}, "voice": "ivy"},
}

APOLOGY_SECONDS = len(shipped().apology) / 8000 + MARK_GRACE_SECONDS  # nobody echoes its mark here


class Notebook:
    """A diary that remembers."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, Mapping[str, Any]]] = []
        self.transcript: list[tuple[Role, str, bool]] = []
        self.turns: list[tuple[TurnAnswered, float]] = []
        self.replies: list[ReplyHeard] = []
        self.opt_outs: list[OptOutWay] = []
        self.runs: list[tuple[str, str, Mapping[str, Any], str]] = []

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.notes]

    def noted(self, event: str, fields: Mapping[str, Any]) -> None:
        self.notes.append((event, fields))

    def said(self, role: Role, text: str, *, interrupted: bool, reply: int | None) -> None:
        self.transcript.append((role, text, interrupted))

    def heard(self, reply: ReplyHeard) -> None:
        self.replies.append(reply)

    def turn_answered(self, turn: TurnAnswered, relay_seconds: float) -> None:
        self.turns.append((turn, relay_seconds))

    def ran(self, tool: str, run: str, arguments: Mapping[str, Any], result: str) -> None:
        self.runs.append((tool, run, arguments, result))

    def opted_out(self, how: OptOutWay) -> None:
        self.opt_outs.append(how)


class Far(FarEnd):
    """A far end that speaks JSON."""

    async def say(self, **message: Any) -> None:
        """Send one message."""
        await self.send(json.dumps(message))

    async def hear(self, kind: str | None = None) -> dict[str, Any]:
        """The next message, or the next of one kind."""
        while True:
            message: dict[str, Any] = json.loads(await self.receive())
            if kind in (None, message.get("event"), message.get("type")):
                return message


class Scene:
    """A call under test, and everything around it."""

    def __init__(self, nursery: trio.Nursery, *, nowait: bool) -> None:
        self.nursery = nursery
        self.nowait = nowait
        self.call: Call
        self.phone: Far
        self.ending: Ending | None = None
        self.over = trio.Event()
        self.over_at = 0.0
        self.diary = Notebook()
        self.hang_ups: list[Ending] = []
        self.announced: list[tuple[Ending, bool]] = []  # and whether the phone was closed by then
        self.refuse: BaseException | None = None
        self.tokens: list[str | None] = []  # that were dialled with
        self.our_streams: list[MemoryStream] = []
        self._agents_in, self._agents_out = trio.open_memory_channel[Far](4)

    async def open_agent(self, resume_token: str | None) -> Leg:
        """What the call dials with."""
        self.tokens.append(resume_token)
        await trio.lowlevel.checkpoint()
        if self.refuse is not None:
            raise self.refuse
        ours, theirs = memory_pair(nowait=self.nowait)
        self.our_streams.append(ours)
        leg, far = await join_agent_leg(self.nursery, ours, theirs)
        await self._agents_in.send(Far(far.socket, far.stream))
        return leg

    async def agent(self) -> Far:
        """The agent's far end, as soon as it was dialled."""
        return await self._agents_out.receive()

    async def hang_up(self, ending: Ending) -> None:
        """What the call tells the carrier with."""
        await trio.lowlevel.checkpoint()
        self.hang_ups.append(ending)

    async def announce(self, ending: Ending) -> None:
        """What the call does before the phone is closed."""
        await trio.lowlevel.checkpoint()
        self.announced.append((ending, self.our_streams[0].closed))

    async def ready(self) -> Far:
        """The agent, once it was told of its session and is ready."""
        agent = await self.agent()
        await agent.hear("session.update")
        await agent.say(type="session.ready", session_id="s1")
        return agent

    async def speak(self, agent: Far, reply_id: str, frames: int = 5) -> None:
        """One whole reply of the agent's."""
        await agent.say(type="reply.started", reply_id=reply_id)
        for _ in range(frames):
            await agent.say(type="reply.audio", data=LOUD, reply_id=reply_id)
        await agent.say(type="reply.done", reply_id=reply_id)

    async def echo_mark(self) -> str:
        """Twilio's echo of the next mark."""
        name: str = (await self.phone.hear("mark"))["mark"]["name"]
        await self.phone.say(event="mark", streamSid=STREAM, mark={"name": name})
        return name

    async def opened(self) -> Far:
        """The agent, once the opening was heard and the callee is forwarded."""
        agent = await self.ready()
        await self.speak(agent, "r0")
        assert (await self.echo_mark()).startswith("opening")
        await trio.testing.wait_all_tasks_blocked()
        return agent

    async def media(self, payload: str = LOUD) -> None:
        """One frame of the callee's."""
        await self.phone.say(event="media", streamSid=STREAM, media={"payload": payload, "track": "inbound"})

    async def stay_on_the_line(self) -> None:
        """The callee says nothing, and Twilio goes on sending frames."""
        try:
            while True:
                await self.media(SILENCE)
                await trio.sleep(0.5)
        except trio_websocket.ConnectionClosed:
            pass

    async def ended(self, blame: Blame, reason: Reason, *, within_seconds: float = 2.5) -> None:
        """The call ends so, and within the bound everything is closed and told."""
        began = trio.current_time()
        with trio.fail_after(60):
            await self.over.wait()
        assert self.ending is not None
        if self.ending.apologised:
            within_seconds += APOLOGY_SECONDS
        assert (self.ending.blame, self.ending.reason) == (blame, reason), self.ending
        assert self.over_at - began <= within_seconds
        assert self.ending == self.call.ending
        assert self.hang_ups == [self.ending]
        assert all(stream.closed for stream in self.our_streams)


CALL = CallContext("call_1", "+12025550143", {})


def tool(name: str, run: Any, *, ends_call: bool = False) -> Tool:
    return Tool(name, "a tool", create_model(name), run, ends_call)


async def done(_call: CallContext, _arguments: BaseModel) -> str:
    await trio.lowlevel.checkpoint()
    return "done"


@asynccontextmanager
async def open_call(
    *tools: Tool,
    limit_seconds: float = 600,
    nowait: bool = True,
    talks: bool = True,
    capacity: int = 65536,
    **terms: Any,
) -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        scene = Scene(nursery, nowait=nowait)
        ours, theirs = memory_pair(capacity, nowait=nowait)
        scene.our_streams.append(ours)
        leg, far = await join_phone_leg(nursery, ours, theirs)
        scene.phone = Far(far.socket, far.stream)
        scene.call = Call(
            phone=leg,
            stream_sid=STREAM,
            open_agent=scene.open_agent,
            terms=Terms(SESSION, limit_seconds, **{"limits": PATIENT, **terms}),
            tools=Toolbox([tool("end_call", done, ends_call=True), *tools], CALL),
            diary=scene.diary,
            announce=scene.announce,
            hang_up=scene.hang_up,
            answered_at=trio.current_time(),
        )

        async def run() -> None:
            scene.ending = await scene.call.run()
            scene.over_at = trio.current_time()
            scene.over.set()

        nursery.start_soon(run)
        if talks:
            nursery.start_soon(scene.stay_on_the_line)
        yield scene
        nursery.cancel_scope.cancel()


# ---- the whole life -------------------------------------------------------------------------------


@pytest.mark.parametrize("nowait", [True, False])
async def test_a_call_lives_from_start_to_goodbye(autojump_clock: MockClock, nowait: bool) -> None:
    async with open_call(nowait=nowait) as scene:
        agent = await scene.agent()
        update = await agent.hear()
        assert update == {"type": "session.update", "session": SESSION}
        await agent.say(type="session.updated")
        await agent.say(type="session.ready", session_id="s1")
        await scene.speak(agent, "r0")
        await scene.media("early===")
        assert (await scene.phone.hear("media"))["media"]["payload"] != LOUD  # silence first
        assert (await scene.phone.hear("media"))["media"]["payload"] == LOUD
        await scene.echo_mark()
        await trio.testing.wait_all_tasks_blocked()
        await scene.media("cGF5bG9hZA==")
        while (heard := await agent.hear("input.audio"))["audio"] == SILENCE:
            pass
        assert heard == {"type": "input.audio", "audio": "cGF5bG9hZA=="}
        await agent.say(type="input.speech.started")
        await agent.say(type="input.speech.stopped")
        await agent.say(type="transcript.user", text="Tuesday, please.")
        await trio.sleep(0.3)
        await scene.speak(agent, "r1")
        await agent.say(type="transcript.agent", text="Tuesday it is.", reply_id="r1")
        await scene.echo_mark()
        await agent.say(type="tool.call", call_id="t1", name="end_call", arguments={})
        result = await agent.hear("tool.result")
        assert (result["call_id"], result["result"], result["is_error"]) == ("t1", '"done"', False)
        await scene.speak(agent, "r2")
        assert not scene.over.is_set()
        assert (await scene.echo_mark()).startswith("goodbye")
        await agent.hear("session.end")
        await agent.say(type="session.ended")
        assert await agent.wait_closed() == 1000
        assert await scene.phone.wait_closed() == 1000
        await scene.ended(Blame.NOBODY, Reason.GOODBYE)
        assert scene.diary.transcript == [
            ("callee", "Tuesday, please.", False),
            ("agent", "Tuesday it is.", False),
        ]
        assert [round(turn.agent_seconds, 1) for turn, _ in scene.diary.turns] == [0.3]
        assert scene.call.counts["frames_to_phone"] == 16  # 3 replies of 5, and the silence before them
        assert scene.call.counts["early_frames"] >= 1


async def test_a_goodbye_waits_a_second_for_session_ended_and_no_longer(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        agent = await scene.opened()
        await agent.say(type="tool.call", call_id="t1", name="end_call", arguments={})
        await agent.hear("tool.result")
        await scene.speak(agent, "r2")
        await scene.echo_mark()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await agent.hear("session.end")
        assert await agent.wait_closed() == 1000
        assert trio.current_time() - began == pytest.approx(1.0, abs=0.1)
        await scene.ended(Blame.NOBODY, Reason.GOODBYE)


async def test_after_a_fault_the_session_end_is_sent_and_not_awaited(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        agent = await scene.opened()
        began = trio.current_time()
        await scene.phone.say(event="stop", streamSid=STREAM)
        await agent.hear("session.end")
        assert await agent.wait_closed() == 1000
        assert trio.current_time() - began < 0.25
        await scene.ended(Blame.CALLEE, Reason.HUNG_UP)


# ---- the agent's session --------------------------------------------------------------------------


VOICE_REFUSED = {
    "type": "session.error",
    "code": "invalid_value",
    "message": "no such voice",
    "param": "output.voice",
}


async def test_a_refused_voice_opens_the_session_once_more_without_it(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        first = await scene.agent()
        assert (await first.hear())["session"]["output"]["voice"] == "ivy"
        await first.say(**VOICE_REFUSED)
        await first.wait_closed()
        second = await scene.agent()
        assert "voice" not in (await second.hear())["session"]["output"]
        await second.say(type="session.ready", session_id="s2")
        assert "voice refused" in scene.diary.events
        await scene.speak(second, "r0")
        await scene.echo_mark()
        await scene.phone.say(event="stop", streamSid=STREAM)
        await scene.ended(Blame.CALLEE, Reason.HUNG_UP)


async def test_a_voice_refused_where_none_was_asked_for_ends_the_call(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        first = await scene.agent()
        await first.say(**VOICE_REFUSED)
        await first.wait_closed()
        second = await scene.agent()
        await second.say(**VOICE_REFUSED)
        await scene.ended(Blame.AGENT, Reason.REFUSED)


async def test_an_agent_that_is_never_ready_is_given_up_after_eight_seconds(
    autojump_clock: MockClock,
) -> None:
    async with open_call() as scene:
        began = trio.current_time()
        await scene.agent()
        await scene.over.wait()
        assert scene.over_at - began - APOLOGY_SECONDS == pytest.approx(8.0, abs=0.3)
        await scene.ended(Blame.AGENT, Reason.NOT_READY)


async def test_a_session_in_another_format_ends_the_call(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        agent = await scene.agent()
        pcm = {"format": {"encoding": "audio/pcm"}}
        await agent.say(type="session.ready", session_id="s1", config={"input": pcm, "output": pcm})
        await scene.ended(Blame.AGENT, Reason.WRONG_FORMAT)


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (HandshakeRefused(401), Reason.UNAUTHORIZED),
        (HandshakeRefused(403), Reason.UNAUTHORIZED),
        (HandshakeRefused(503), Reason.REFUSED),
        (HandshakeRefused(200), Reason.REFUSED),
        (LegClosed(Blame.AGENT, Reason.UNREACHABLE, "no route"), Reason.UNREACHABLE),
    ],
)
async def test_a_dial_that_fails_ends_the_call(
    autojump_clock: MockClock, refusal: Exception, reason: Reason
) -> None:
    async with open_call(talks=False) as scene:
        scene.refuse = refusal
        await scene.ended(Blame.AGENT, reason)
        assert await scene.phone.wait_closed() == 1000


# ---- either leg goes, in each phase ---------------------------------------------------------------


async def connecting(scene: Scene) -> Far:
    agent = await scene.agent()
    await agent.hear("session.update")
    return agent


async def opening(scene: Scene) -> Far:
    agent = await scene.ready()
    await agent.say(type="reply.started", reply_id="r0")
    await agent.say(type="reply.audio", data=LOUD, reply_id="r0")
    await scene.phone.hear("media")
    return agent


async def mid_speech(scene: Scene) -> Far:
    agent = await scene.opened()
    await agent.say(type="reply.started", reply_id="r1")
    await agent.say(type="reply.audio", data=LOUD, reply_id="r1")
    await scene.phone.hear("media")
    return agent


async def tool_running(scene: Scene) -> Far:
    agent = await scene.opened()
    await agent.say(type="tool.call", call_id="t1", name="hangs", arguments={})
    await trio.testing.wait_all_tasks_blocked()
    return agent


async def farewell(scene: Scene) -> Far:
    agent = await scene.opened()
    await agent.say(type="tool.call", call_id="t1", name="end_call", arguments={})
    await agent.hear("tool.result")
    await agent.say(type="reply.started", reply_id="r2")
    await agent.say(type="reply.audio", data=LOUD, reply_id="r2")
    await trio.testing.wait_all_tasks_blocked()
    return agent


async def hangs(_call: CallContext, _arguments: BaseModel) -> None:
    await trio.sleep_forever()


PHASES = [connecting, opening, mid_speech, tool_running, farewell]


def cut(far: Far) -> None:
    stream: MemoryStream = far.stream
    stream.reset()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("nowait", [True, False])
@pytest.mark.parametrize("how", [1000, 1008, 4000])
async def test_the_agent_leaves_on_purpose(
    autojump_clock: MockClock, phase: Any, how: int | str, nowait: bool
) -> None:
    async with open_call(tool("hangs", hangs), nowait=nowait) as scene:
        agent = await phase(scene)
        await leave(scene, agent, how)
        await scene.ended(Blame.AGENT, Reason.LOST)
        assert await scene.phone.wait_closed() == 1000


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("nowait", [True, False])
@pytest.mark.parametrize("how", [1000, 1011, "eof", "reset", "stop"])
async def test_the_phone_goes(autojump_clock: MockClock, phase: Any, how: int | str, nowait: bool) -> None:
    async with open_call(tool("hangs", hangs), nowait=nowait) as scene:
        agent = await phase(scene)
        await leave(scene, scene.phone, how)
        if how == "stop":
            await scene.ended(Blame.CALLEE, Reason.HUNG_UP)
        else:
            await scene.ended(Blame.CARRIER, Reason.LOST)
        await agent.hear("session.end")
        assert await agent.wait_closed() == 1000


async def leave(scene: Scene, far: Far, how: int | str) -> None:
    match how:
        case "eof":
            await trio.aclose_forcefully(far.stream)
        case "reset":
            cut(far)
        case "stop":
            await far.say(event="stop", streamSid=STREAM)
        case int(code):
            scene.nursery.start_soon(partial(far.socket.aclose, code))


@pytest.mark.parametrize("phase", PHASES)
async def test_both_go_in_the_same_tick(autojump_clock: MockClock, phase: Any) -> None:
    async with open_call(tool("hangs", hangs)) as scene:
        agent = await phase(scene)
        cut(agent)
        cut(scene.phone)
        await scene.over.wait()
        assert scene.ending is not None
        assert scene.ending.reason is Reason.LOST
        assert scene.hang_ups == [scene.ending]
        assert all(stream.closed for stream in scene.our_streams)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancelled_call_leaves_no_stream_open(autojump_clock: MockClock, phase: Any) -> None:
    async with open_call(tool("hangs", hangs)) as scene:
        await phase(scene)
        streams = scene.our_streams
        scene.nursery.cancel_scope.cancel()
    assert all(stream.closed for stream in streams)


@pytest.mark.parametrize("phase", PHASES)
async def test_someone_ends_the_call(autojump_clock: MockClock, phase: Any) -> None:
    async with open_call(tool("hangs", hangs)) as scene:
        await phase(scene)
        scene.call.end(Ending(Blame.US, Reason.OPERATOR))
        scene.call.end(Ending(Blame.US, Reason.CUT))
        await scene.ended(Blame.US, Reason.OPERATOR)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_wind_up_ends_within_its_bound(autojump_clock: MockClock, phase: Any) -> None:
    async with open_call(tool("hangs", hangs)) as scene:
        await phase(scene)
        scene.call.wind_up(Ending(Blame.US, Reason.DRAINED), within_seconds=8)
        await scene.over.wait()
        assert scene.ending is not None
        assert scene.ending.blame in (Blame.US, Blame.NOBODY)
        await scene.ended(scene.ending.blame, scene.ending.reason)


# ---- time -----------------------------------------------------------------------------------------


async def test_five_seconds_without_media_end_the_call(autojump_clock: MockClock) -> None:
    async with open_call(talks=False) as scene:
        await scene.ready()
        await scene.media()
        began = trio.current_time()
        await scene.over.wait()
        assert scene.over_at - began == pytest.approx(5.0, abs=1.1)
        await scene.ended(Blame.CARRIER, Reason.SILENT)


async def test_the_time_limit_winds_up_fifteen_seconds_before_the_cap(autojump_clock: MockClock) -> None:
    async with open_call(limit_seconds=100) as scene:
        agent = await scene.opened()
        began = trio.current_time()
        await agent.hear("reply.create")
        assert trio.current_time() - began == pytest.approx(85, abs=0.5)
        await scene.speak(agent, "bye")
        await scene.echo_mark()
        await scene.ended(Blame.US, Reason.TIME_LIMIT)


async def test_an_agent_that_will_not_say_goodbye_is_cut_at_the_cap(autojump_clock: MockClock) -> None:
    async with open_call(limit_seconds=100) as scene:
        agent = await scene.opened()
        began = trio.current_time()

        async def babble() -> None:
            number = 0
            while not scene.over.is_set():
                number += 1
                await agent.say(type="reply.started", reply_id=f"b{number}")
                await agent.say(type="reply.audio", data=LOUD, reply_id=f"b{number}")
                await agent.say(type="reply.done", reply_id=f"b{number}", status="interrupted")
                await trio.sleep(0.2)

        async def babble_until_closed() -> None:
            try:
                await babble()
            except trio_websocket.ConnectionClosed:
                pass

        scene.nursery.start_soon(babble_until_closed)
        await scene.over.wait()
        assert 84 <= scene.over_at - began <= 102
        await scene.ended(Blame.US, Reason.TIME_LIMIT)


async def test_a_call_whose_time_was_up_before_it_began_is_over(autojump_clock: MockClock) -> None:
    ours, theirs = memory_pair()
    async with trio.open_nursery() as nursery:
        leg, _ = await join_phone_leg(nursery, ours, theirs)
        scene = Scene(nursery, nowait=True)
        call = Call(
            phone=leg,
            stream_sid=STREAM,
            open_agent=scene.open_agent,
            terms=Terms(session=SESSION, time_limit_seconds=10),
            tools=Toolbox([], CALL),
            diary=scene.diary,
            announce=scene.announce,
            hang_up=scene.hang_up,
            answered_at=trio.current_time() - 13,
        )
        ending = await call.run()
        assert (ending.blame, ending.reason) == (Blame.US, Reason.TIME_LIMIT)
        assert ours.closed
        nursery.cancel_scope.cancel()


async def test_a_hang_up_that_hangs_is_left_at_the_hard_deadline(autojump_clock: MockClock) -> None:
    async with open_call(limit_seconds=20) as scene:

        async def never(_ending: Ending) -> None:
            await trio.sleep_forever()

        scene.call._hang_up = never
        began = trio.current_time()
        await scene.over.wait()
        assert scene.over_at - began <= 22.1
        assert all(stream.closed for stream in scene.our_streams)


async def test_a_phone_that_stops_reading_while_the_agent_speaks_ends_the_call(
    autojump_clock: MockClock,
) -> None:
    async with open_call(capacity=4096) as scene:
        agent = await scene.opened()
        scene.phone.stream.reads = False
        began = trio.current_time()

        async def speak() -> None:
            try:
                await agent.say(type="reply.started", reply_id="r1")
                while True:
                    await agent.say(type="reply.audio", data=LOUD, reply_id="r1")
                    await trio.sleep(0.02)
            except trio_websocket.ConnectionClosed:
                pass

        scene.nursery.start_soon(speak)
        await scene.over.wait()
        assert scene.over_at - began <= 5
        await scene.ended(Blame.CARRIER, Reason.STALLED)


# ---- tools ----------------------------------------------------------------------------------------


async def test_audio_flows_while_a_tool_hangs_and_the_agent_is_told_in_time(
    autojump_clock: MockClock,
) -> None:
    async with open_call(tool("hangs", hangs)) as scene:
        agent = await scene.opened()
        await agent.say(type="tool.call", call_id="t1", name="hangs", arguments={})
        began = trio.current_time()
        for number in range(20):
            payload = base64.b64encode(number.to_bytes() * 160).decode()
            await scene.media(payload)
            while (await agent.hear("input.audio"))["audio"] != payload:
                pass
            await agent.say(type="reply.audio", data=payload, reply_id="r1")
            while (await scene.phone.hear("media"))["media"]["payload"] != payload:
                pass
        assert trio.current_time() == began
        result = await agent.hear("tool.result")
        assert result["is_error"] is True
        assert trio.current_time() - began == pytest.approx(5)


async def explodes(_call: CallContext, _arguments: BaseModel) -> None:
    raise RuntimeError("a bug")


async def explodes_in_a_nursery(_call: CallContext, _arguments: BaseModel) -> None:
    async with trio.open_nursery() as nursery:

        async def fail_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise RuntimeError("a bug in the cleanup")

        nursery.start_soon(fail_when_cancelled)


async def says_no(_call: CallContext, _arguments: BaseModel) -> None:
    raise ToolRefused("Closed on Sundays.")


async def returns_nonsense(_call: CallContext, _arguments: BaseModel) -> object:
    return object()


async def returns_too_much(_call: CallContext, _arguments: BaseModel) -> str:
    return "x" * 100_000


@pytest.mark.parametrize(
    ("run", "is_error", "result"),
    [
        (explodes, True, "That did not work"),
        (explodes_in_a_nursery, True, "That did not work"),
        (says_no, True, "Closed on Sundays."),
        (returns_nonsense, True, "That did not work"),
        (returns_too_much, False, '"xxx'),
    ],
)
async def test_whatever_a_tool_does_becomes_a_result(
    autojump_clock: MockClock, run: Any, is_error: bool, result: str
) -> None:
    async with open_call(tool("odd", run)) as scene:
        agent = await scene.opened()
        await agent.say(type="tool.call", call_id="t1", name="odd", arguments="{}")
        told = await agent.hear("tool.result")
        assert (told["is_error"], told["result"][: len(result)]) == (is_error, result)
        assert len(told["result"]) < 10_000
        assert not scene.over.is_set()


async def test_an_unknown_tool_becomes_an_error_for_the_agent(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        agent = await scene.opened()
        await agent.say(type="tool.call", call_id="t1", name="fly", arguments={})
        assert (await agent.hear("tool.result"))["is_error"] is True


async def test_a_hundred_tool_calls_in_one_read_are_all_answered(autojump_clock: MockClock) -> None:
    async with open_call(tool("quick", done)) as scene:
        agent = await scene.opened()
        calls = [
            json.dumps({"type": "tool.call", "call_id": f"t{number}", "name": "quick", "arguments": {}})
            for number in range(120)
        ]
        await agent.stream.send_all(b"".join(frame(1, call.encode(), masked=False) for call in calls))
        results = [await agent.hear("tool.result") for _ in calls]
        assert {result["call_id"] for result in results} == {f"t{number}" for number in range(120)}
        assert sum(result["is_error"] for result in results) == 20
        assert not scene.over.is_set()


# ---- what cannot be read --------------------------------------------------------------------------


async def test_one_unreadable_message_is_dropped_and_counted(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        agent = await scene.opened()
        await agent.send("not json")
        await scene.phone.send("{}")
        await scene.media("c3RpbGwgaGVyZQ==")
        while (await agent.hear("input.audio"))["audio"] != "c3RpbGwgaGVyZQ==":
            pass
        assert scene.call.counts["unreadable_messages"] == 2
        assert not scene.over.is_set()


@pytest.mark.parametrize("side", ["phone", "agent"])
async def test_ten_unreadable_messages_in_a_row_end_the_call(autojump_clock: MockClock, side: str) -> None:
    async with open_call(talks=False) as scene:
        agent = await scene.opened()
        far = scene.phone if side == "phone" else agent
        for _ in range(9):
            await far.send("rubbish")
        await (scene.media() if side == "phone" else agent.say(type="session.updated"))
        for _ in range(9):
            await far.send("rubbish")
        await trio.testing.wait_all_tasks_blocked()
        assert not scene.over.is_set()
        await far.send("rubbish")
        await scene.ended(Blame.CARRIER if side == "phone" else Blame.AGENT, Reason.PROTOCOL)


@pytest.mark.parametrize(
    "bytes_sent", [frame(2, b"\0"), frame(1, b"\xff"), frame(1, b"x" * 70_000), frame(3), frame(CLOSE, b"x")]
)
async def test_broken_framing_on_the_phone_leg_ends_the_call(
    autojump_clock: MockClock, bytes_sent: bytes
) -> None:
    async with open_call(talks=False) as scene:
        await scene.opened()
        await scene.phone.stream.send_all(bytes_sent)
        await scene.ended(Blame.CARRIER, Reason.PROTOCOL)


# ---- opting out, and taking up again ---------------------------------------------------------------


async def press(scene: Scene, digit: str = OPT_OUT_KEY) -> None:
    await scene.phone.say(event="dtmf", streamSid=STREAM, dtmf={"track": "inbound_track", "digit": digit})


async def hear_last_sentence(scene: Scene) -> str:
    """What is played up to the opt-out's mark, whose name is the answer, is the clip and nothing else."""
    heard = b""
    while (message := await scene.phone.hear())["event"] != "mark":
        if message["event"] == "media":
            heard += base64.b64decode(message["media"]["payload"])
        else:
            heard = b""  # a clear
    assert heard == shipped().opted_out
    name: str = message["mark"]["name"]
    return name


async def test_the_opt_out_key_works_while_the_agent_is_dead(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        await scene.agent()
        await press(scene)
        name = await hear_last_sentence(scene)
        assert scene.diary.opt_outs == ["key"]
        assert not scene.over.is_set()
        await scene.phone.say(event="mark", streamSid=STREAM, mark={"name": name})
        await scene.ended(Blame.CALLEE, Reason.OPTED_OUT)


async def test_plain_words_end_the_call_within_five_seconds(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        agent = await scene.opened()
        await agent.say(type="reply.started", reply_id="r1")
        await agent.say(type="reply.audio", data=LOUD, reply_id="r1")
        await scene.phone.hear("media")
        began = trio.current_time()
        await agent.say(type="transcript.user", text="Take me off your list.")
        await scene.phone.hear("clear")
        assert trio.current_time() - began <= 0.1
        await hear_last_sentence(scene)
        assert (await agent.hear("reply.cancel"))["reply_id"] == "r1"
        await scene.over.wait()
        assert 4.0 <= scene.over_at - began <= 5.0
        assert scene.diary.opt_outs == ["words"]
        assert scene.diary.transcript == [("callee", "Take me off your list.", False)]
        await scene.ended(Blame.CALLEE, Reason.OPTED_OUT)


async def test_an_agent_that_is_gone_does_not_cut_off_the_last_sentence(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        agent = await scene.opened()
        await press(scene)
        name = await hear_last_sentence(scene)
        await agent.stream.aclose()
        await trio.sleep(2.0)
        assert not scene.over.is_set()
        await scene.phone.say(event="mark", streamSid=STREAM, mark={"name": name})
        await scene.ended(Blame.CALLEE, Reason.OPTED_OUT)


async def test_an_agent_that_takes_nothing_any_more_does_not_stop_the_phone_from_being_read(
    autojump_clock: MockClock,
) -> None:
    async with open_call(talks=False) as scene:
        agent = await scene.opened()
        await agent.say(type="reply.started", reply_id="r1")
        await agent.say(type="reply.audio", data=LOUD, reply_id="r1")
        await scene.phone.hear("media")
        agent.stream._in.gone = True  # there is a reply to cancel, and nobody to tell
        await press(scene)
        name = await hear_last_sentence(scene)
        await scene.phone.say(event="mark", streamSid=STREAM, mark={"name": name})
        await scene.ended(Blame.CALLEE, Reason.OPTED_OUT, within_seconds=2.5)


@pytest.mark.parametrize("how", ["key", "words"])
async def test_the_terms_say_which_key_and_which_words_are_a_wish(
    autojump_clock: MockClock, how: OptOutWay
) -> None:
    async with open_call(opt_out_key="5", language="es") as scene:
        agent = await scene.opened()
        await press(scene, OPT_OUT_KEY)
        await trio.testing.wait_all_tasks_blocked()
        assert scene.diary.opt_outs == []
        if how == "key":
            await press(scene, "5")
        else:
            await agent.say(type="transcript.user", text="Deja de llamarme.")
        await hear_last_sentence(scene)
        assert scene.diary.opt_outs == [how]


async def test_an_agent_that_understands_the_wish_opts_the_callee_out(autojump_clock: MockClock) -> None:
    async with open_call(mark_do_not_call) as scene:
        agent = await scene.opened()
        await agent.say(type="tool.call", call_id="t9", name="mark_do_not_call", arguments={})
        name = await hear_last_sentence(scene)
        assert scene.diary.opt_outs == ["tool"]
        await scene.phone.say(event="mark", streamSid=STREAM, mark={"name": name})
        await scene.ended(Blame.CALLEE, Reason.OPTED_OUT, within_seconds=2.5)
        assert scene.ending == Ending(Blame.CALLEE, Reason.OPTED_OUT, "tool")


async def test_the_wish_counts_before_its_tool_has_run_and_though_it_fails(
    autojump_clock: MockClock,
) -> None:
    async def fails(_call: CallContext, _arguments: BaseModel) -> str:
        await trio.sleep(1)
        raise ZeroDivisionError

    async with open_call(replace(tool("tell_office", fails), opts_out=True)) as scene:
        agent = await scene.opened()
        await agent.say(type="tool.call", call_id="t9", name="tell_office", arguments={})
        await hear_last_sentence(scene)
        assert scene.diary.opt_outs == ["tool"]
        assert "tool" not in scene.diary.events
        await trio.sleep(1.5)
        ran = next(fields for event, fields in scene.diary.notes if event == "tool")
        assert ran == {"tool": "tell_office", "run": ran["run"], "seconds": 1.0, "ok": False}
        await scene.phone.say(event="stop", streamSid=STREAM)
        await scene.ended(Blame.CALLEE, Reason.OPTED_OUT)


async def test_whoever_hangs_up_on_the_last_sentence_has_opted_out(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        await scene.opened()
        await press(scene)
        await hear_last_sentence(scene)
        await scene.phone.say(event="stop", streamSid=STREAM)
        await scene.ended(Blame.CALLEE, Reason.OPTED_OUT)


async def test_a_number_listed_during_its_call_is_told_so_once(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        await scene.opened()
        scene.call.opt_out()
        scene.call.opt_out()
        await hear_last_sentence(scene)
        assert scene.diary.opt_outs == ["list"]
        scene.call.wind_up(Ending(Blame.US, Reason.DRAINED), within_seconds=1.0)
        await trio.sleep(2.0)
        assert not scene.over.is_set()
        await scene.ended(Blame.US, Reason.OPTED_OUT, within_seconds=3.0)


async def test_a_call_taken_up_again_goes_on_without_an_opening(autojump_clock: MockClock) -> None:
    async with open_call(heard=True) as scene:
        agent = await scene.ready()
        assert (await agent.hear("reply.create"))["instructions"] == RESUME
        await scene.media("cGF5bG9hZA==")
        while (await agent.hear("input.audio"))["audio"] == SILENCE:
            pass
        await scene.phone.say(event="stop", streamSid=STREAM)
        await scene.ended(Blame.CALLEE, Reason.HUNG_UP)


async def test_a_bug_raises_says_goodbye_to_the_agent_and_closes_both_legs(autojump_clock: MockClock) -> None:
    class Torn(Notebook):
        def noted(self, event: str, fields: Mapping[str, Any]) -> None:
            if event == "session ready":
                raise ZeroDivisionError

    ours, theirs = memory_pair()
    streams = [ours]
    last_words: list[str] = []
    with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError), flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            leg, _ = await join_phone_leg(nursery, ours, theirs)
            scene = Scene(nursery, nowait=True)
            scene.our_streams = streams

            async def listen() -> None:
                agent = await scene.ready()
                last_words.append((await agent.hear("session.end"))["type"])

            nursery.start_soon(listen)
            await Call(
                phone=leg,
                stream_sid=STREAM,
                open_agent=scene.open_agent,
                terms=Terms(session=SESSION, time_limit_seconds=60),
                tools=Toolbox([], CALL),
                diary=Torn(),
                announce=scene.announce,
                hang_up=scene.hang_up,
                answered_at=trio.current_time(),
            ).run()
    assert len(streams) == 2
    assert all(stream.closed for stream in streams)
    assert last_words == ["session.end"]  # a bare close would be billed for half a minute more


# ---- who has picked up ----------------------------------------------------------------------------


async def test_a_message_is_left_by_a_session_of_its_own_and_heard_to_its_end(
    autojump_clock: MockClock,
) -> None:
    policy = Voicemail(policy="leave-message", message="Please call us back.")
    texts = FixedTexts(message="This is Acme. Please call us back.")
    async with open_call(voicemail=policy, texts=texts) as scene:
        first = await scene.opened()
        scene.call.machine_detected("machine_end_beep")
        await first.hear("session.end")
        second = await scene.agent()
        session = (await second.hear("session.update"))["session"]
        assert session["greeting"] == texts.message
        assert session["input"] == SESSION["input"]
        assert session["output"] == SESSION["output"]
        assert "tools" not in session
        await second.say(type="session.ready", session_id="s2")
        await scene.speak(second, "m")
        await scene.media()
        await scene.echo_mark()
        await scene.ended(Blame.NOBODY, Reason.MESSAGE_LEFT)
        assert "message heard" in scene.diary.events


async def test_a_beep_ends_a_call_that_leaves_no_message(autojump_clock: MockClock) -> None:
    async with open_call() as scene:
        await scene.opened()
        scene.call.machine_detected("machine_end_beep")
        await scene.ended(Blame.CALLEE, Reason.MACHINE)
