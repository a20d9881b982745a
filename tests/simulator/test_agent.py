"""The emulated agent against its specification: what the live service does, and when. In virtual time."""

from __future__ import annotations

import json
import random
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)

from relay.simulator.agent import AgentEmulator, serve_agent
from relay.simulator.ledger import Ledger
from relay.simulator.scenario import Scenario
from relay.simulator.session_config import VOICES
from relay.simulator.sound import SILENCE, frames, is_loud
from relay.simulator.speech import ONE_MOMENT, TOOL_FAILED, Voices

KEY = "key-of-the-account"
GREETING = "Hello there."
PCMU = {"format": {"encoding": "audio/pcmu"}}
SESSION = {"system_prompt": "Be brief.", "greeting": GREETING, "input": PCMU, "output": PCMU}
QUIET_SESSION = {"system_prompt": "Be brief.", "input": PCMU, "output": PCMU}
SILENT_FRAME = bytes([SILENCE]) * 160
LONG = "Your check-up is on Monday at three in the afternoon, with Doctor Lee."
VOICES_OF_TESTS = Voices(synthesise=False)

Event = dict[str, Any]


def scenario(**fields: Any) -> Scenario:
    return Scenario.model_validate(fields)


def replies(*texts: str, say: list[str] | None = None, agent_resumes: bool = True, **fields: Any) -> Scenario:
    """An agent that answers every turn with the next text, and a callee who may say what is listed."""
    turns = [{"reply": text} for text in texts]
    agent = {"commit_seconds": 0.7, "resumes": agent_resumes, "turn": turns}
    return scenario(agent=agent, callee={"turn": [{"say": text} for text in say or []]}, **fields)


class Service:
    """A client written for these tests: sends what it is told and notes what comes, and when."""

    def __init__(self, ws: WebSocketConnection, ledger: Ledger) -> None:
        self.ws = ws
        self.ledger = ledger
        self.events: list[tuple[float, Event]] = []
        self.unreadable: list[str | bytes] = []
        self.closed_at: float | None = None
        self.ready = trio.Event()
        self._came = trio.Event()
        self._line: deque[bytes] = deque()

    async def receive(self) -> None:
        try:
            while True:
                message = await self.ws.get_message()
                try:
                    assert isinstance(message, str)
                    event = json.loads(message)
                except (AssertionError, ValueError):
                    self.unreadable.append(message)
                    continue
                self.events.append((trio.current_time(), event))
                if event["type"] == "session.ready":
                    self.ready.set()
                self._notify()
        except ConnectionClosed:
            self.closed_at = trio.current_time()
            self._notify()

    def _notify(self) -> None:
        self._came.set()
        self._came = trio.Event()

    async def carry_line(self) -> None:
        """The callee's audio: 20 ms after 20 ms, silence where nobody speaks."""
        await self.ready.wait()
        started = trio.current_time()
        try:
            for tick in range(100_000):
                await self.send_audio(self._line.popleft() if self._line else SILENT_FRAME)
                await trio.sleep_until(started + (tick + 1) * 0.02)
        except ConnectionClosed:
            return

    def say(self, text: str, *, seconds: float | None = None) -> float:
        """The callee speaks, from the start or for some seconds of it; returns for how long."""
        spoken = frames(VOICES_OF_TESTS.say("callee", text))
        spoken = spoken if seconds is None else spoken[: round(seconds / 0.02)]
        self._line.extend(spoken)
        return len(spoken) * 0.02

    async def send(self, event_type: str, **fields: Any) -> None:
        await self.ws.send_message(json.dumps({"type": event_type, **fields}))

    async def send_audio(self, mulaw: bytes) -> None:
        await self.send("input.audio", audio=b64encode(mulaw).decode())

    async def configure(self, session: object = None) -> None:
        await self.send("session.update", session=SESSION if session is None else session)

    async def wait(self, kind: str, count: int = 1, **fields: Any) -> tuple[float, Event]:
        """The count-th event of this kind with these fields."""
        with trio.fail_after(60):
            while True:
                found = self.all(kind, **fields)
                if len(found) >= count:
                    return found[count - 1]
                assert self.closed_at is None, f"closed before {kind}"
                await self._came.wait()

    async def wait_closed(self) -> int:
        with trio.fail_after(30):
            while self.closed_at is None:
                await self._came.wait()
        assert self.ws.closed is not None
        return int(self.ws.closed.code)

    def all(self, kind: str, **fields: Any) -> list[tuple[float, Event]]:
        return [(at, e) for at, e in self.events if e["type"] == kind and fields.items() <= e.items()]

    def kinds(self) -> list[str]:
        """The events in order, without the audio and the deltas between them."""
        kinds = [event["type"] for _, event in self.events]
        return [kind for kind in kinds if kind != "reply.audio" and not kind.endswith(".delta")]

    def audio_of(self, reply_id: str) -> list[tuple[float, bytes]]:
        return [(at, b64decode(e["data"])) for at, e in self.all("reply.audio", reply_id=reply_id)]


@asynccontextmanager
async def open_service(
    script: Scenario | None = None,
    *,
    key: str = f"Bearer {KEY}",
    line: bool = True,
    emulator: AgentEmulator | None = None,
    ledger: Ledger | None = None,
) -> AsyncIterator[Service]:
    """A client connected to an emulator over memory; `line` keeps the callee's audio flowing."""
    ledger = ledger or Ledger()
    emulator = emulator or emulator_of(script or scenario(), ledger)
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(emulator.serve, far)  # noqa: ASYNC113 - it answers whenever it comes to run
        service = Service(await connect(nursery, near, key), ledger)
        nursery.start_soon(service.receive)
        if line:
            nursery.start_soon(service.carry_line)
        yield service
        nursery.cancel_scope.cancel()


async def connect(
    nursery: trio.Nursery, stream: trio.abc.Stream, key: str = f"Bearer {KEY}"
) -> WebSocketConnection:
    return await wrap_client_stream(
        nursery,
        stream,  # type: ignore[arg-type]  # any Trio stream will do
        "agents.example",
        "/v1/ws",
        extra_headers=[(b"Authorization", key.encode())],
    )


def emulator_of(script: Scenario, ledger: Ledger) -> AgentEmulator:
    return AgentEmulator(
        KEY, lambda _: script, lambda _: ledger, VOICES_OF_TESTS, random.Random(7), lambda: 1790211860.5
    )


def fault(kind: str, at: str) -> dict[str, Any]:
    return {"fault": [{"leg": "agent", "kind": kind, "at": at}]}


# ---- opening -----------------------------------------------------------------------------------------------


async def test_a_bad_key_is_upgraded_then_told_so_and_closed_with_1008(autojump_clock: object) -> None:
    async with open_service(key="Bearer wrong") as service:
        _, error = await service.wait("session.error")
        assert (error["code"], error["message"]) == ("unauthorized", "Authentication failed")
        assert error["session_id"] is error["param"] is None
        assert await service.wait_closed() == 1008


async def test_the_bare_key_is_accepted_as_well(autojump_clock: object) -> None:
    async with open_service(key=KEY) as service:
        await service.configure()
        await service.wait("session.ready")


async def test_it_is_silent_until_the_first_frame(autojump_clock: object) -> None:
    async with open_service() as service:
        await trio.sleep(60)
        assert service.events == []


async def test_updated_comes_before_ready_and_both_echo_the_resolved_configuration(
    autojump_clock: object,
) -> None:
    async with open_service() as service:
        sent_at = trio.current_time()
        await service.configure()
        updated_at, updated = await service.wait("session.updated")
        ready_at, ready = await service.wait("session.ready")
        assert 0.2 < updated_at - sent_at < 0.5
        assert ready_at - updated_at == pytest.approx(0.017, abs=0.002)
        assert updated["config"] == ready["config"]
        config = ready["config"]
        assert config["id"] == ready["session_id"]
        assert config["input"]["format"] == config["output"]["format"]
        assert config["output"] == {
            "type": "audio",
            "voice": "alba",
            "format": {"encoding": "audio/pcmu", "sample_rate": 8000},
            "volume": None,
        }
        assert config["input"]["turn_detection"] is config["input"]["keyterms"] is None
        assert (config["tools"], config["llm"], config["pre_connect_requests"]) == ([], [], [])
        assert ready["expires_at"] == 1790211860 + 3595
        assert service.ledger.violations == []


async def test_every_event_carries_the_time_as_a_float(autojump_clock: object) -> None:
    async with open_service() as service:
        await service.configure()
        await service.wait("reply.done")
        assert {event["timestamp"] for _, event in service.events} == {1790211860.5}


TOOL = {"type": "function", "name": "end_call", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"llm": []}, "invalid_value", "llm"),
        ({"colour": "blue"}, "invalid_value", "colour"),
        ({"agent_id": "agent_1", "greeting": "Hi"}, "invalid_value", "agent_id"),
        ({"agent_id": "agent_1"}, "agent_not_found", "agent_id"),
        ({"output": {"voice": "ivy"}}, "invalid_value", "output.voice"),
        ({"output": {"volume": 101}}, "invalid_value", "output.volume"),
        ({"output": {"speed": 1}}, "invalid_value", "output.speed"),
        ({"input": {"format": {"encoding": "audio/mp3"}}}, "invalid_value", "input.format.encoding"),
        (
            {"input": {"format": {"encoding": "audio/pcmu", "sample_rate": 8000}}},
            "invalid_value",
            "input.format",
        ),
        ({"input": {"turn_detection": {"vad_threshold": 1.5}}}, "invalid_value", "vad_threshold"),
        ({"input": {"turn_detection": {"interruption_delay": 1001}}}, "invalid_value", "interruption_delay"),
        ({"input": {"keyterms": ["x"] * 101}}, "invalid_value", "input.keyterms"),
        ({"input": {"transcription_mode": "fast"}}, "invalid_value", "input.transcription_mode"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "invalid_value", "tools[0]"),
        ({"tools": [{**TOOL, "parameters": {"properties": []}}]}, "invalid_value", "parameters.properties"),
        ({"tools": [{**TOOL, "timeout_seconds": 301}]}, "invalid_value", "tools[0].timeout_seconds"),
        ({"tools": [{**TOOL, "http": {"url": "https://shop.example"}}]}, "invalid_value", "tools"),
    ],
)
async def test_a_defective_first_update_names_the_field_and_is_fatal(
    autojump_clock: object, session: dict[str, Any], code: str, param: str
) -> None:
    async with open_service() as service:
        await service.configure(session)
        _, error = await service.wait("session.error")
        assert error["code"] == code
        assert param in error["param"]
        assert await service.wait_closed() == 1008
        assert service.all("session.ready") == []


async def test_a_refused_voice_lists_the_voices_and_is_no_violation(autojump_clock: object) -> None:
    async with open_service() as service:
        await service.configure({"output": {"voice": "ivy"}})
        _, error = await service.wait("session.error")
        assert all(voice in error["message"] for voice in VOICES)
        assert service.ledger.violations == []


async def test_a_null_greeting_is_refused_but_leaves_the_socket_open_without_ready(
    autojump_clock: object,
) -> None:
    async with open_service() as service:
        await service.configure({"greeting": None})
        _, error = await service.wait("session.error")
        assert error["code"] == "invalid_format"
        await trio.sleep(30)
        assert service.closed_at is None
        assert service.all("session.ready") == []


@pytest.mark.parametrize("how", ["no such session", "key", "late", "ended", "unwilling"])
async def test_a_session_comes_back_to_nobody_but_its_token_and_in_time(
    autojump_clock: object, how: str
) -> None:
    ledger = Ledger()
    emulator = emulator_of(replies("Yes.", agent_resumes=how != "unwilling"), ledger)
    async with open_service(emulator=emulator, ledger=ledger) as first:
        await first.configure(QUIET_SESSION)
        _, ready = await first.wait("session.ready")
        if how == "ended":
            await first.send("session.end")
            await first.wait_closed()
    if how == "late":
        await trio.sleep(30.5)
    key = KEY if how == "key" else ready["resume_token"]
    async with open_service(emulator=emulator, ledger=ledger, key=f"Bearer {key}") as second:
        name = "sess_1" if how == "no such session" else ready["session_id"]
        await second.send("session.resume", session_id=name)
        _, error = await second.wait("session.error")
        # A token that is worth nothing any more is no key either.
        assert error["code"] == ("unauthorized" if how in ("late", "ended") else "session_not_found")
        assert await second.wait_closed() == 1008


@pytest.mark.parametrize("is_closed", [True, False])
async def test_a_session_that_comes_back_has_its_id_and_its_turns_and_replays_nothing(
    autojump_clock: object, is_closed: bool
) -> None:
    ledger = Ledger()
    emulator = emulator_of(replies(LONG, "Of course.", say=["Well?", "Thanks."]), ledger)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_service(emulator=emulator, ledger=ledger))
        await first.configure(QUIET_SESSION)
        _, ready = await first.wait("session.ready")
        first.say("Well?")
        _, begun = await first.wait("reply.started")
        if is_closed:
            await stack.aclose()
        await trio.sleep(2.0)
        token = f"Bearer {ready['resume_token']}"
        async with open_service(emulator=emulator, ledger=ledger, key=token) as second:
            await second.send("session.resume", session_id=ready["session_id"])
            _, again = await second.wait("session.ready")
            assert again["session_id"] == ready["session_id"]
            assert again["config"] == ready["config"]
            assert again["resume_token"] != ready["resume_token"]
            await trio.sleep(3.0)
            assert second.kinds() == ["session.ready"]
            second.say("Thanks.")
            await second.wait("transcript.agent", text="Of course.")
            assert second.all("reply.audio", reply_id=begun["reply_id"]) == []
            assert ledger.violations == []


async def test_a_result_that_its_lost_turn_waited_for_is_answered_after_all(autojump_clock: object) -> None:
    turn = {"tool": {"name": "end_call"}, "reply": "It is done."}
    ledger = Ledger()
    emulator = emulator_of(
        scenario(agent={"commit_seconds": 0.7, "turn": [turn]}, callee={"turn": [{"say": "Well?"}]}), ledger
    )
    async with open_service(emulator=emulator, ledger=ledger) as first:
        await first.configure({**QUIET_SESSION, "tools": [TOOL]})
        _, ready = await first.wait("session.ready")
        first.say("Well?")
        _, called = await first.wait("tool.call")
    key = f"Bearer {ready['resume_token']}"
    async with open_service(emulator=emulator, ledger=ledger, key=key) as second:
        await second.send("session.resume", session_id=ready["session_id"])
        await second.wait("session.ready")
        await second.send("tool.result", call_id=called["call_id"], result="{}")
        await second.wait("transcript.agent", text="It is done.")


async def test_a_fresh_session_goes_on_behind_the_turns_that_its_prompt_tells_of(
    autojump_clock: object,
) -> None:
    past = "Be brief.\n\nSo far:\nagent: Hello.\ncallee: Well?\nagent: Yes."
    async with open_service(replies("One.", "Two.", say=["Thanks."])) as service:
        await service.configure({**QUIET_SESSION, "system_prompt": past})
        await service.wait("session.ready")
        service.say("Thanks.")
        await service.wait("transcript.agent", text="Two.")


@pytest.mark.parametrize("times", [1, 2])
async def test_a_fault_strikes_as_many_sessions_of_a_call_as_it_says(
    autojump_clock: object, times: int
) -> None:
    ledger = Ledger()
    fault = {"leg": "agent", "at": "opening", "kind": "close:1011", "times": times}
    emulator = emulator_of(scenario(fault=[fault]), ledger)
    for _ in range(times):
        async with open_service(emulator=emulator, ledger=ledger) as struck:
            await struck.configure()
            assert await struck.wait_closed() == 1011
    async with open_service(emulator=emulator, ledger=ledger) as spared:
        await spared.configure()
        await spared.wait("reply.done", status="completed")


# ---- replies -----------------------------------------------------------------------------------------------


async def test_the_greeting_is_spoken_verbatim_at_real_time_after_a_silent_lead_in(
    autojump_clock: object,
) -> None:
    async with open_service() as service:
        await service.configure()
        started_at, started = await service.wait("reply.started")
        done_at, done = await service.wait("reply.done")
        audio = service.audio_of(started["reply_id"])
        sound = b"".join(chunk for _, chunk in audio)
        assert sound == bytes([SILENCE]) * 2000 + VOICES_OF_TESTS.say("agent", GREETING)
        assert {len(chunk) for _, chunk in audio[:-1]} == {300}
        assert audio[0][0] - started_at < 0.01
        for index, (at, _) in enumerate(audio):
            assert at - started_at == pytest.approx(index * 0.0375, abs=0.005)
        assert done_at - started_at == pytest.approx(len(sound) / 8000, abs=0.01)
        assert done["status"] == "completed"
        _, transcript = await service.wait("transcript.agent")
        assert (transcript["text"], transcript["interrupted"]) == (GREETING, False)
        assert service.kinds()[-3:] == ["reply.started", "transcript.agent", "reply.done"]


async def test_the_words_of_a_reply_come_in_one_burst_with_their_places(autojump_clock: object) -> None:
    async with open_service() as service:
        await service.configure()
        await service.wait("reply.done")
        deltas = service.all("transcript.agent.delta")
        assert "".join(event["delta"] for _, event in deltas).strip() == GREETING
        assert deltas[0][0] == deltas[-1][0]
        assert deltas[0][1]["start_ms"] == 250
        assert all(a["end_ms"] == b["start_ms"] for (_, a), (_, b) in pairwise(deltas))


async def test_without_a_greeting_it_listens_first(autojump_clock: object) -> None:
    async with open_service() as service:
        await service.configure(QUIET_SESSION)
        await service.wait("session.ready")
        await trio.sleep(10)
        assert service.all("reply.started") == []


async def test_reply_create_says_the_quoted_sentence_shortly_after(autojump_clock: object) -> None:
    async with open_service() as service:
        await service.configure(QUIET_SESSION)
        await service.wait("session.ready")
        asked_at = trio.current_time()
        await service.send("reply.create", instructions='Say exactly: "We have to stop here." Nothing else.')
        started_at, _ = await service.wait("reply.started")
        assert started_at - asked_at == pytest.approx(0.18, abs=0.02)
        await service.wait("transcript.agent", text="We have to stop here.")
        await service.send("reply.create")
        await service.wait("transcript.agent", text=ONE_MOMENT)
        assert service.ledger.violations == []


async def test_reply_create_replaces_the_greeting(autojump_clock: object) -> None:
    async with open_service() as service:
        await service.configure()
        await service.wait("reply.audio", count=10)
        await service.send("reply.create", instructions='"Instead."')
        await service.wait("reply.done", status="interrupted")
        await service.wait("transcript.agent", text="Instead.", interrupted=False)


async def test_reply_cancel_ends_the_named_reply_and_no_other(autojump_clock: object) -> None:
    async with open_service() as service:
        await service.configure()
        _, started = await service.wait("reply.started")
        await service.send("reply.cancel", reply_id="resp_other")
        await service.wait("reply.audio", count=12)
        await service.send("reply.cancel", reply_id=started["reply_id"])
        _, done = await service.wait("reply.done")
        assert done["status"] == "cancelled"
        heard = len(service.audio_of(started["reply_id"]))
        await trio.sleep(2)
        assert len(service.audio_of(started["reply_id"])) == heard


# ---- the callee's turns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "seconds"), [("min_latency", 1.3), ("balanced", 1.9), ("max_accuracy", 3.2)]
)
async def test_a_turn_is_announced_after_its_onset_and_committed_after_the_silence_of_the_mode(
    autojump_clock: object, mode: str, seconds: float
) -> None:
    script = scenario(
        agent={"mode": mode, "turn": [{"reply": "Good."}]},
        callee={"turn": [{"say": "Yes, speaking, who is it?"}]},
    )
    async with open_service(script) as service:
        await service.configure(QUIET_SESSION)
        await service.ready.wait()
        await trio.sleep(1.01)
        began = trio.current_time()
        lasts = service.say("Yes, speaking, who is it?")
        announced_at, _ = await service.wait("input.speech.started")
        stopped_at, _ = await service.wait("input.speech.stopped")
        assert announced_at - began == pytest.approx(0.6, abs=0.05)
        assert stopped_at - began == pytest.approx(lasts + seconds, abs=0.05)
        _, transcript = await service.wait("transcript.user")
        assert transcript["text"] == "Yes, speaking, who is it?"
        first_audio_at, audio = await service.wait("reply.audio")
        assert first_audio_at - stopped_at < 0.01
        assert set(b64decode(audio["data"])) == {SILENCE}
        await service.wait("transcript.agent", text="Good.")
        assert service.kinds()[2:7] == [
            "input.speech.started",
            "input.speech.stopped",
            "transcript.user",
            "reply.started",
            "transcript.agent",
        ]


async def test_the_mode_and_the_silence_of_the_session_are_obeyed(autojump_clock: object) -> None:
    script = scenario(callee={"turn": [{"say": "Yes, speaking, who is it?"}]})
    session = {**QUIET_SESSION, "input": {**PCMU, "turn_detection": {"min_silence": 900}}}
    async with open_service(script) as service:
        await service.configure(session)
        await service.ready.wait()
        began = trio.current_time()
        lasts = service.say("Yes, speaking, who is it?")
        stopped_at, _ = await service.wait("input.speech.stopped")
        assert stopped_at - began == pytest.approx(lasts + 0.9, abs=0.05)


async def test_a_click_and_a_murmur_are_no_speech(autojump_clock: object) -> None:
    async with open_service(replies("Good.", say=["Hm"])) as service:
        await service.configure(QUIET_SESSION)
        await service.ready.wait()
        service.say("Hm", seconds=0.06)
        await trio.sleep(5)
        assert service.all("input.speech.started") == []


async def test_turns_are_answered_in_the_order_of_the_script_and_then_with_a_stock_sentence(
    autojump_clock: object,
) -> None:
    said = ["Yes, this is she speaking.", "Is it on Monday?", "What else is there?"]
    async with open_service(replies("First.", "Second.", say=said)) as service:
        await service.configure(QUIET_SESSION)
        await service.ready.wait()
        for count, text in enumerate(said, 1):
            service.say(text)
            await service.wait("reply.done", count=count)
        assert [e["text"] for _, e in service.all("transcript.user")] == said
        spoken = [e["text"] for _, e in service.all("transcript.agent")]
        assert spoken == ["First.", "Second.", "Sorry, could you say that again?"]


async def test_speech_that_nobody_knows_is_taken_for_the_next_text_of_the_script(
    autojump_clock: object,
) -> None:
    async with open_service(replies("A.", "B.", say=["The expected words."])) as service:
        await service.configure(QUIET_SESSION)
        await service.ready.wait()
        for count, expected in enumerate(["The expected words.", "[unintelligible]"], 1):
            service.say("Altogether other words, never announced")
            _, transcript = await service.wait("transcript.user", count=count)
            assert transcript["text"] == expected
            await service.wait("reply.done", count=count)


# ---- barge-in ----------------------------------------------------------------------------------------------

INTERRUPTION = "Wait, wait, which doctor is it that you mean?"


async def speak_into_reply(service: Service, session: dict[str, Any] = QUIET_SESSION, **say: Any) -> float:
    """Have the agent in mid-reply and the callee begin to speak; returns when he began."""
    await service.configure(session)
    await service.ready.wait()
    service.say("Yes, this is she speaking.")
    await service.wait("reply.audio", count=30)
    began = trio.current_time()
    service.say(INTERRUPTION, **say)
    return began


async def test_a_barge_in_ends_the_reply_with_three_events_at_once_and_no_more_audio(
    autojump_clock: object,
) -> None:
    script = replies(LONG, "It is Doctor Lee.", say=["Yes, this is she speaking.", INTERRUPTION])
    async with open_service(script) as service:
        began = await speak_into_reply(service)
        done_at, done = await service.wait("reply.done")
        assert done["status"] == "interrupted"
        assert done_at - began == pytest.approx(1.1, abs=0.06)
        await service.wait("transcript.agent", text="It is Doctor Lee.")
        kinds = service.kinds()
        cut = kinds.index("reply.done")
        assert kinds[cut - 2 : cut + 1] == ["input.speech.started", "transcript.agent", "reply.done"]
        started_at, _ = service.all("input.speech.started")[1]
        assert done_at - started_at < 0.002
        assert service.audio_of(done["reply_id"])[-1][0] <= done_at
        _, cut_off = await service.wait("transcript.agent", interrupted=True)
        assert LONG.startswith(cut_off["text"])
        assert 0 < len(cut_off["text"]) < len(LONG)
        assert service.all("transcript.user")[1][1]["text"] == INTERRUPTION


@pytest.mark.parametrize(
    ("settings", "seconds"), [({"interruption_delay": 0}, 0.6), ({"interruption_delay": 1000}, 1.6)]
)
async def test_the_session_says_how_long_the_callee_must_speak_to_interrupt(
    autojump_clock: object, settings: dict[str, Any], seconds: float
) -> None:
    script = replies(LONG, say=["Yes, this is she speaking.", INTERRUPTION])
    session = {**QUIET_SESSION, "input": {**PCMU, "turn_detection": settings}}
    async with open_service(script) as service:
        began = await speak_into_reply(service, session)
        done_at, _ = await service.wait("reply.done", status="interrupted")
        assert done_at - began == pytest.approx(seconds, abs=0.1)


async def test_a_back_channel_during_a_reply_gives_no_event(autojump_clock: object) -> None:
    script = replies(LONG, say=["Yes, this is she speaking.", INTERRUPTION])
    async with open_service(script) as service:
        await speak_into_reply(service, seconds=0.8)
        _, done = await service.wait("reply.done")
        assert done["status"] == "completed"
        await trio.sleep(3)
        assert len(service.all("input.speech.started")) == len(service.all("transcript.user")) == 1


async def test_a_session_without_interruption_speaks_to_the_end(autojump_clock: object) -> None:
    script = replies(LONG, say=["Yes, this is she speaking.", INTERRUPTION])
    session = {**QUIET_SESSION, "input": {**PCMU, "turn_detection": {"interrupt_response": False}}}
    async with open_service(script) as service:
        await speak_into_reply(service, session)
        _, done = await service.wait("reply.done")
        assert done["status"] == "completed"


async def test_late_audio_follows_an_interruption_where_the_scenario_says_so(autojump_clock: object) -> None:
    script = replies(
        LONG, say=["Yes, this is she speaking.", INTERRUPTION], **fault("late-audio", "before-ready")
    )
    async with open_service(script) as service:
        await speak_into_reply(service)
        _, done = await service.wait("reply.done")
        await trio.sleep(1)
        place = [event for _, event in service.events].index(done)
        late = [e for _, e in service.events[place:] if e["type"] == "reply.audio"]
        assert [e["reply_id"] for e in late] == [done["reply_id"]] * 5


# ---- tools -------------------------------------------------------------------------------------------------

BOOK = {"name": "book_appointment", "arguments": {"day": "Tuesday"}}


def with_turn(**turn: Any) -> Scenario:
    return scenario(
        agent={"commit_seconds": 0.7, "turn": [turn]}, callee={"turn": [{"say": "Tuesday, please."}]}
    )


async def ask_for_tool(service: Service, session: dict[str, Any] = QUIET_SESSION) -> tuple[float, Event]:
    await service.configure(session)
    await service.ready.wait()
    service.say("Tuesday, please.")
    return await service.wait("tool.call")


async def test_a_tool_is_called_in_a_silent_reply_which_an_early_result_closes(
    autojump_clock: object,
) -> None:
    async with open_service(with_turn(tool=BOOK, reply="Booked.")) as service:
        _, call = await ask_for_tool(service)
        assert (call["name"], call["arguments"]) == ("book_appointment", {"day": "Tuesday"})
        answered_at = trio.current_time()
        await service.send("tool.result", call_id=call["call_id"], result='{"ok":true}')
        done_at, done = await service.wait("reply.done")
        assert 0.18 <= done_at - answered_at < 0.25
        assert {byte for _, chunk in service.audio_of(done["reply_id"]) for byte in chunk} == {SILENCE}
        started_at, _ = await service.wait("reply.started", count=2)
        assert started_at - done_at < 0.01
        _, transcript = await service.wait("transcript.agent")
        assert transcript["text"] == "Booked."
        assert service.ledger.violations == []


async def test_the_silent_reply_waits_no_longer_than_the_service_does(autojump_clock: object) -> None:
    async with open_service(with_turn(tool=BOOK, reply="Booked.")) as service:
        called_at, call = await ask_for_tool(service)
        done_at, _ = await service.wait("reply.done")
        assert done_at - called_at == pytest.approx(2.3, abs=0.05)
        await trio.sleep(1)
        assert len(service.all("reply.started")) == 1
        await service.send("tool.result", call_id=call["call_id"], result="booked")
        await service.wait("transcript.agent", text="Booked.")


async def test_a_tool_that_never_answers_is_apologised_for(autojump_clock: object) -> None:
    session = {**QUIET_SESSION, "tools": [{**TOOL, "name": "book_appointment", "timeout_seconds": 5}]}
    async with open_service(with_turn(tool=BOOK, reply="Booked.")) as service:
        await ask_for_tool(service, session)
        await service.wait("transcript.agent", text=TOOL_FAILED)
        assert service.all("transcript.agent", text="Booked.") == []


async def test_a_tool_after_a_reply_is_called_before_that_reply_is_done(autojump_clock: object) -> None:
    turn = with_turn(reply="Goodbye then.", tool_after={"name": "end_call"}, follow_up="Bye.")
    async with open_service(turn) as service:
        _, call = await ask_for_tool(service)
        await service.wait("reply.done")
        assert service.kinds()[-4:] == ["reply.started", "tool.call", "transcript.agent", "reply.done"]
        await service.send("tool.result", call_id=call["call_id"], result="{}")
        await service.wait("transcript.agent", text="Bye.")


async def test_the_callee_may_speak_while_a_tool_runs_and_its_late_result_is_dropped(
    autojump_clock: object,
) -> None:
    script = scenario(
        agent={"commit_seconds": 0.7, "turn": [{"tool": BOOK, "reply": "Booked."}, {"reply": "Still here."}]},
        callee={"turn": [{"say": "Tuesday, please."}, {"say": "Hello? Are you still there?"}]},
    )
    async with open_service(script) as service:
        _, call = await ask_for_tool(service)
        service.say("Hello? Are you still there?")
        await service.wait("reply.done", status="interrupted")
        await service.wait("transcript.agent", text="Still here.")
        await service.send("tool.result", call_id=call["call_id"], result="{}")
        await trio.sleep(5)
        assert service.all("transcript.agent", text="Booked.") == []
        assert service.ledger.violations == []


async def test_a_tool_in_hold_mode_keeps_the_callee_waiting(autojump_clock: object) -> None:
    session = {**QUIET_SESSION, "tools": [{**TOOL, "name": "book_appointment", "execution_mode": "hold"}]}
    script = scenario(
        agent={"commit_seconds": 0.7, "turn": [{"tool": BOOK, "reply": LONG}]},
        callee={"turn": [{"say": "Tuesday, please."}, {"say": "Hello? Are you still there?"}]},
    )
    async with open_service(script) as service:
        _, call = await ask_for_tool(service, session)
        service.say("Hello? Are you still there?")
        await trio.sleep(4)
        assert len(service.all("input.speech.started")) == 1
        await service.send("tool.result", call_id=call["call_id"], result="{}")
        await service.wait("transcript.agent", text=LONG)


# ---- what the service must not do --------------------------------------------------------------------------


async def configured(service: Service) -> None:
    await service.configure(QUIET_SESSION)
    await service.ready.wait()


async def test_audio_before_ready_is_a_violation(autojump_clock: object) -> None:
    async with open_service() as service:
        await service.configure()
        await service.send_audio(SILENT_FRAME)
        await service.wait("session.ready")
        assert service.ledger.violations == ["agent: input.audio before session.ready"]


async def test_a_first_frame_that_is_no_update_is_refused_and_leaves_the_socket_open(
    autojump_clock: object,
) -> None:
    async with open_service() as service:
        await service.send("reply.create")
        _, error = await service.wait("session.error")
        assert error["code"] == "invalid_format"
        await configured(service)
        assert len(service.ledger.violations) == 1


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_format"),
        ("[]", "invalid_format"),
        (b"\xff", "invalid_format"),
        ('{"type":"dance"}', "invalid_format"),
        ('{"type":"input.audio","data":"/w=="}', "invalid_format"),
        ('{"type":"input.audio","audio":"?"}', "invalid_audio"),
        ('{"type":"tool.result","call_id":"x","result":{}}', "invalid_format"),
        ('{"type":"reply.cancel"}', "invalid_format"),
        ('{"type":"conversation.message","role":"agent","content":"x"}', "invalid_format"),
        ('{"type":"session.update","session":{"greeting":"Hi"}}', "immutable_field"),
        ('{"type":"session.update","session":{"output":{"voice":"eve"}}}', "immutable_field"),
        ('{"type":"session.update","session":{"input":{"format":{}}}}', "immutable_field"),
        ('{"type":"session.update","session":{"agent_id":"agent_1"}}', "agent_id_not_first"),
        ('{"type":"session.update","session":{"input":{"keyterms":1}}}', "invalid_value"),
    ],
)
async def test_a_bad_message_is_answered_counted_and_survived(
    autojump_clock: object, message: str | bytes, code: str
) -> None:
    async with open_service() as service:
        await configured(service)
        await service.ws.send_message(message)
        _, error = await service.wait("session.error")
        assert error["code"] == code
        assert len(service.ledger.violations) == 1
        await trio.sleep(5)
        assert service.closed_at is None


async def test_a_stored_agent_brings_its_session_and_runs_its_http_tools_itself(
    autojump_clock: object,
) -> None:
    tools = [{"type": "function", "name": BOOK["name"], "http": {"url": "https://shop.example"}}]
    stored = {"agent_1": {**QUIET_SESSION, "tools": tools}}
    turn = {"tool": BOOK, "reply": "Booked."}
    script = scenario(
        agent={"commit_seconds": 0.7, "turn": [turn], "stored": stored},
        callee={"turn": [{"say": "Tuesday, please."}]},
    )
    async with open_service(script) as service:
        _, call = await ask_for_tool(service, {"agent_id": "agent_1"})
        await service.wait("transcript.agent", text="Booked.")
        assert service.ledger.violations == []
        _, ready = await service.wait("session.ready")
        assert [tool["http"] is not None for tool in ready["config"]["tools"]] == [True]
        await service.send("tool.result", call_id=call["call_id"], result="{}")
        await trio.sleep(1)
        assert [violation.split(":")[1] for violation in service.ledger.violations] == [
            " tool.result for a tool that the vendor runs"
        ]


async def test_a_result_for_no_call_and_a_second_result_are_violations(autojump_clock: object) -> None:
    async with open_service(with_turn(tool=BOOK, reply="Booked.")) as service:
        _, call = await ask_for_tool(service)
        for call_id in (call["call_id"], call["call_id"], "call_unknown"):
            await service.send("tool.result", call_id=call_id, result="{}")
        await service.wait("transcript.agent")
        assert [violation.split(":")[1] for violation in service.ledger.violations] == [
            " tool.result given twice",
            " tool.result for a call that was never made",
        ]


async def test_a_later_update_changes_what_may_change(autojump_clock: object) -> None:
    async with open_service() as service:
        await configured(service)
        await service.send(
            "session.update", session={"system_prompt": "New.", "input": {"keyterms": ["Acme"]}}
        )
        _, updated = await service.wait("session.updated", count=2)
        assert updated["config"]["system_prompt"] == "New."
        assert updated["config"]["input"]["keyterms"] == ["Acme"]
        assert updated["config"]["input"]["format"]["encoding"] == "audio/pcmu"
        assert service.ledger.violations == []


# ---- endings and faults ------------------------------------------------------------------------------------


async def test_session_end_is_confirmed_and_the_socket_closed(autojump_clock: object) -> None:
    async with open_service() as service:
        await configured(service)
        await trio.sleep(3)
        await service.send("session.end")
        _, ended = await service.wait("session.ended")
        assert ended["session_duration_seconds"] == pytest.approx(3.27, abs=0.1)
        assert ended["audio_duration_seconds"] is None
        assert await service.wait_closed() == 1000
        assert service.kinds()[-1] == "session.ended"


async def test_a_session_expires(autojump_clock: object) -> None:
    async with open_service(line=False) as service:
        await configured(service)
        await trio.sleep(3600)
        assert service.all("session.error")[0][1]["code"] == "session_expired"
        assert await service.wait_closed() == 1008


async def test_the_ledger_keeps_every_payload_as_it_crossed_the_wire(autojump_clock: object) -> None:
    async with open_service() as service:
        await service.configure()
        await service.wait("reply.done")
        sent = [entry.payload for entry in service.ledger.select("agent", "sent", "reply.audio")]
        assert sent == [event["data"] for _, event in service.all("reply.audio")]
        heard = service.ledger.select("agent", "received", "input.audio")
        assert {entry.payload for entry in heard} == {b64encode(SILENT_FRAME).decode()}


@pytest.mark.parametrize("at", ["before-ready", "opening", "seconds:0.5"])
@pytest.mark.parametrize(
    ("kind", "code"), [("close:1011", 1011), ("rst", 1006), ("fin", 1006), ("error:at_capacity", 1008)]
)
async def test_a_fault_closes_the_socket_in_its_own_way(
    autojump_clock: object, kind: str, code: int, at: str
) -> None:
    async with open_service(scenario(**fault(kind, at))) as service:
        await service.configure({**SESSION, "greeting": LONG})
        assert await service.wait_closed() == code
        ready_came = bool(service.all("session.ready"))
        assert ready_came == (at != "before-ready")


@pytest.mark.parametrize("at", ["mid-speech", "tool-running", "farewell"])
async def test_a_fault_strikes_at_its_moment(autojump_clock: object, at: str) -> None:
    end_call = {"tool": {"name": "end_call"}, "reply": "Thank you very much, and goodbye!"}
    script = scenario(
        agent={"commit_seconds": 0.7, "turn": [{"reply": LONG}, end_call]},
        callee={"turn": [{"say": "Tuesday, please."}]},
        **fault("close:1011", at),
    )
    async with open_service(script) as service:
        await configured(service)
        service.say("Tuesday, please.")
        if at != "mid-speech":
            await service.wait("reply.done")
            service.say("Tuesday, please.")
        if at == "farewell":
            _, call = await service.wait("tool.call")
            await service.send("tool.result", call_id=call["call_id"], result="{}")
        assert await service.wait_closed() == 1011
        last_reply = service.all("reply.started")[-1][1]["reply_id"]
        audible = [is_loud(chunk) for _, chunk in service.audio_of(last_reply)]
        assert any(audible) == (at != "tool-running")


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("garbage", lambda service: len(service.unreadable) == 12),
        ("binary", lambda service: isinstance(service.unreadable[0], bytes)),
        ("error:server_error", lambda service: service.all("session.error", code="server_error")),
        ("mute", lambda service: not service.all("reply.done")),
        ("missing-status", lambda service: "status" not in service.all("reply.done")[0][1]),
    ],
)
async def test_a_fault_in_mid_greeting_is_seen(
    autojump_clock: object, kind: str, check: Callable[[Service], object]
) -> None:
    async with open_service(scenario(**fault(kind, "opening"))) as service:
        await service.configure({**SESSION, "greeting": LONG})
        await trio.sleep(10)
        assert check(service)
        assert service.closed_at is None


async def test_it_can_cease_to_read_for_a_while(autojump_clock: object) -> None:
    async with open_service(scenario(**fault("stop-reading", "seconds:1"))) as service:
        await configured(service)
        await trio.sleep(5)
        heard = len(service.ledger.select("agent", "received", "input.audio"))
        assert heard == pytest.approx(50, abs=3)
        await trio.sleep(10)
        assert len(service.ledger.select("agent", "received", "input.audio")) == heard
        await trio.sleep(5)
        assert len(service.ledger.select("agent", "received", "input.audio")) > heard


async def test_an_oversized_message_is_more_than_a_client_accepts(autojump_clock: object) -> None:
    async with open_service(scenario(**fault("oversize", "opening"))) as service:
        await service.configure({**SESSION, "greeting": LONG})
        await service.wait_closed()


async def test_a_silent_reply_completes_without_sound_or_words(autojump_clock: object) -> None:
    async with open_service(scenario(**fault("silent-reply", "opening"))) as service:
        await service.configure()
        _, done = await service.wait("reply.done", status="completed")
        assert {byte for _, chunk in service.audio_of(done["reply_id"]) for byte in chunk} == {SILENCE}
        assert service.all("transcript.agent") == []


async def test_a_fault_of_one_turn_strikes_in_its_reply(autojump_clock: object) -> None:
    script = scenario(
        agent={"commit_seconds": 0.7, "turn": [{"reply": "First."}, {"reply": LONG, "fault": "close:1011"}]},
        callee={"turn": [{"say": "Tuesday, please."}]},
    )
    async with open_service(script) as service:
        await configured(service)
        for _ in range(2):
            service.say("Tuesday, please.")
            await service.wait("transcript.user", count=1)
            await trio.sleep(5)
        assert await service.wait_closed() == 1011
        assert len(service.all("reply.started")) == 2


@pytest.mark.parametrize("kind", ["never-ready", "wrong-format", "ready-without-config"])
async def test_a_session_can_open_badly(autojump_clock: object, kind: str) -> None:
    async with open_service(scenario(**fault(kind, "before-ready")), line=False) as service:
        await service.configure()
        await trio.sleep(10)
        ready = [event for _, event in service.all("session.ready")]
        if kind == "never-ready":
            assert ready == []
        elif kind == "wrong-format":
            assert ready[0]["config"]["output"]["format"]["encoding"] == "audio/pcm"
        else:
            assert "config" not in ready[0]


async def test_an_upgrade_can_be_refused(autojump_clock: object) -> None:
    emulator = emulator_of(scenario(**fault("refuse:401", "before-ready")), Ledger())
    near, far = trio.testing.memory_stream_pair()
    with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(emulator.serve, far)
            await connect(nursery, near)
    assert "401" in repr(caught.value.exceptions[0])


async def test_a_client_that_reads_nothing_is_given_up(autojump_clock: object) -> None:
    ledger = Ledger()
    emulator = emulator_of(scenario(), ledger)
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        served = trio.Event()

        async def serve() -> None:
            await emulator.serve(far)
            served.set()

        nursery.start_soon(serve)
        ws = await connect(nursery, near)
        await ws.send_message(
            json.dumps({"type": "session.update", "session": {**SESSION, "greeting": LONG * 9}})
        )
        with trio.fail_after(120):
            await served.wait()
        assert any("stopped reading" in violation for violation in ledger.violations)
        nursery.cancel_scope.cancel()


# ---- sockets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "code"), [("rst", 1006), ("fin", 1006), ("close:1011", 1011)])
async def test_over_a_socket_it_serves_several_sessions_and_its_faults_are_those_of_a_socket(
    kind: str, code: int
) -> None:
    emulator = emulator_of(scenario(**fault(kind, "seconds:0.1")), Ledger())
    closes: list[int] = []

    async def use(port: int) -> None:
        async with trio.open_nursery() as nursery:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            service = Service(await connect(nursery, stream), Ledger())
            nursery.start_soon(service.receive)
            await service.configure()
            await service.wait("session.ready")
            closes.append(await service.wait_closed())
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_agent, emulator)
        async with trio.open_nursery() as users:
            for _ in range(3):
                users.start_soon(use, port)
        nursery.cancel_scope.cancel()
    assert closes == [code] * 3
