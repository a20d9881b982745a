"""The emulated agent's side of the talk: its replies, its tools, and who may speak when.

It must not know sockets or JSON: it is given the callee's audio and emits events by name.
"""

from __future__ import annotations

import random
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import trio

from relay.simulator.listening import UNINTELLIGIBLE, Recogniser, VoiceActivity
from relay.simulator.noise import noise_frames
from relay.simulator.scenario import AgentTurn, Scenario, ToolCall
from relay.simulator.session_config import SessionConfig
from relay.simulator.sound import BYTES_PER_SECOND, FRAME_BYTES, SILENCE
from relay.simulator.speech import ONE_MOMENT, TOOL_FAILED, Voices
from relay.simulator.turn_taking import ONSET_SECONDS, TurnTaking

# All measured on the live service in September 2026, unless another reason is given.
CHUNK_BYTES = 300
CHUNK_SECONDS = CHUNK_BYTES / BYTES_PER_SECOND
LEAD_IN = bytes([SILENCE]) * 2000  # every reply opens with at least 250 ms of digital silence
PREAMBLE_SECONDS = 0.3  # from the start of the silent reply to the tool.call in it; not published
PREAMBLE_HOLD_SECONDS = 2.3
RESULT_TO_REPLY_SECONDS = 0.18
REQUEST_TO_REPLY_SECONDS = 0.18

MID_SPEECH_SECONDS = 0.5  # how far into the audible part of a reply a fault strikes
LATE_CHUNKS = 5
TURN_IN_THE_PAST = "\ncallee: "  # how a prompt tells of a turn of the callee's
FAULTS_OF_TALK = frozenset({"late-audio", "missing-status", "silent-reply", "flood"})  # not the socket's
MOMENTS = ("opening", "mid-speech", "tool-running", "farewell")  # those that belong to a reply


class Emit(Protocol):
    """Sends one event to the service, in order, without waiting."""

    def __call__(self, event: str, **fields: Any) -> None: ...


@dataclass(eq=False, slots=True)
class _Reply:
    reply_id: str
    item_id: str
    moment: str
    text: str
    audio: bytes
    started_at: float
    sent: int = 0

    def spoken_text(self) -> str:
        """The words of which the audio has gone out whole."""
        spoken = max(0, self.sent - len(LEAD_IN)) / max(1, len(self.audio) - len(LEAD_IN))
        return " ".join(self.text.split()[: int(spoken * len(self.text.split()))])


@dataclass(eq=False, slots=True)
class _PendingCall:
    timeout_seconds: float
    holding: bool
    over_http: bool = False
    answered: trio.Event = field(default_factory=trio.Event)
    answered_at: float = float("inf")
    then: str = ""  # what is said about the result
    is_orphan: bool = False  # the turn that waited for the result was lost with its socket


class Conversation:
    """Plays the agent of a scenario. One turn runs at a time; the callee's speech may cut it short.

    `emit` sends an event; `strike` makes the named fault happen on the connection. All methods but `run` are
    synchronous and may be called while it runs.
    """

    def __init__(
        self,
        scenario: Scenario,
        config: SessionConfig,
        voices: Voices,
        rng: random.Random,
        emit: Emit,
        strike: Callable[[str], None],
        faults: dict[str, list[str]],
    ) -> None:
        self.config = config
        self._scenario = scenario
        self._voices = voices
        self._rng = rng
        self._emit = emit
        self._strike = strike
        self._faults = faults
        self._late_audio = False
        self._missing_status = False
        # What a prompt tells of the call so far was said in an earlier session: its turns are over.
        past = (config.system_prompt or "").count(TURN_IN_THE_PAST)
        self._turns = iter(scenario.agent.turn[past:])
        self._has_greeted = False
        # Full only when the service floods us with reply.create: what does not fit is dropped.
        self._asked, self._to_do = trio.open_memory_channel[Callable[[], Awaitable[None]]](16)
        self._turn = trio.CancelScope()
        self._reply: _Reply | None = None
        self._calls: dict[str, _PendingCall] = {}
        self._activity = VoiceActivity()
        noise = scenario.callee.noise
        frames = noise_frames(noise.level_dbfs) if noise else ()
        self._recogniser = Recogniser(scenario.callee_texts(), voices, frames)
        self._announced = False
        self._unframed = b""
        for kind in FAULTS_OF_TALK & set(scenario.faults("agent", "before-ready")):
            self.fail(kind)

    async def run(self) -> None:
        """Greet, then take the turns as they come, until cancelled."""
        if self.config.greeting and not self._has_greeted:
            self._has_greeted = True
            self._ask(partial(self._speak, self.config.greeting, moment="opening"))
        async for turn in self._to_do:
            with trio.CancelScope() as self._turn:
                await turn()

    def move(self, emit: Emit, strike: Callable[[str], None]) -> None:
        """Go on over another socket. What was being said is lost, and so is what is half heard."""
        self._emit, self._strike = emit, strike
        self._reply = None
        self._unframed = b""
        self._forget_callee()
        for call in self._calls.values():
            call.is_orphan = not call.answered.is_set()

    # What the service and the callee do

    def hear(self, mulaw: bytes) -> None:
        """Take the next piece of the callee's audio."""
        self._unframed += mulaw
        while len(self._unframed) >= FRAME_BYTES:
            frame, self._unframed = self._unframed[:FRAME_BYTES], self._unframed[FRAME_BYTES:]
            if any(call.holding for call in self._calls.values()):
                continue  # the agent is deaf while a tool in hold mode runs
            is_noise = self._recogniser.is_noise(frame)
            taking = TurnTaking(self.config, self._scenario.agent)
            self._activity.hear(frame, taking.speech_dbfs(is_noise=is_noise))
            self._recogniser.hear(frame)
            if self._activity.speaking:
                self._follow_callee()

    def learn(self, text: str) -> None:
        """The callee is about to say what no scenario has foreseen."""
        self._recogniser.learn(text)

    def take_result(self, call_id: str) -> str | None:
        """A tool's result has come; returns what is wrong with that, if anything."""
        call = self._calls.get(call_id)
        if call is None:
            return f"tool.result for a call that was never made: {call_id}"
        if call.over_http:
            return f"tool.result for a tool that the vendor runs: {call_id}"
        if call.answered.is_set():
            return f"tool.result given twice: {call_id}"
        call.answered_at = trio.current_time()
        call.holding = False
        call.answered.set()
        if call.is_orphan and call.then:
            self._ask(partial(self._speak, call.then))
        return None

    def speak_as_told(self, instructions: str) -> None:
        """`reply.create`: do what the script has for it, or say what they quote. Replaces the greeting."""
        quoted = re.search(r"[\"“](.+?)[\"”]", instructions)
        turn = next((told for told in self._scenario.agent.told if told.contains in instructions), None)
        if self._reply is not None and self._reply.moment == "opening":
            self._cut_short("interrupted")
        words = partial(self._speak, quoted.group(1) if quoted else ONE_MOMENT)
        self._ask(partial(self._obey, partial(self._answer, turn) if turn else words))

    def cancel_reply(self, reply_id: str) -> None:
        """`reply.cancel`. Whether its status is really called `cancelled` is not confirmed."""
        if self._reply is not None and self._reply.reply_id == reply_id:
            self._cut_short("cancelled")

    # Taking turns

    def _follow_callee(self) -> None:
        activity, taking = self._activity, TurnTaking(self.config, self._scenario.agent)
        replying = self._reply is not None
        if replying and taking.interruptible and activity.speech_seconds >= taking.barge_in_seconds:
            self._announce()
            self._cut_short("interrupted")
        elif not replying and activity.elapsed_seconds >= ONSET_SECONDS:
            self._announce()
        if activity.silence_seconds < taking.commit_seconds:
            return
        if replying and not self._announced:
            self._forget_callee()  # a back-channel such as "uh-huh", of which the service says nothing
        else:
            self._announce()
            self._commit()

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            self._emit("input.speech.started")

    def _commit(self) -> None:
        """The callee's turn is over and the agent's begins."""
        if self._reply is not None:
            self._cut_short("interrupted")
        self._turn.cancel()
        text = self._recogniser.text()
        self._forget_callee()
        item_id = self._new_id("msg_")
        self._emit("transcript.user.delta", item_id=item_id, text=text)
        self._emit("input.speech.stopped")
        self._emit("transcript.user", item_id=item_id, text=text)
        otherwise = AgentTurn(reply=self._scenario.agent.otherwise)
        turn = otherwise if text == UNINTELLIGIBLE else next(self._turns, otherwise)
        self._ask(partial(self._answer, turn))

    def _forget_callee(self) -> None:
        self._activity.forget()
        self._recogniser.forget()
        self._announced = False

    def _ask(self, turn: Callable[[], Awaitable[None]]) -> None:
        with suppress(trio.WouldBlock):
            self._asked.send_nowait(turn)

    # The agent's turns

    async def _obey(self, turn: Callable[[], Awaitable[None]]) -> None:
        await trio.sleep(REQUEST_TO_REPLY_SECONDS)
        await turn()

    async def _answer(self, turn: AgentTurn) -> None:
        moment = "mid-speech"
        if turn.tool is not None:
            if not await self._wait_result(await self._call_silently(turn.tool, turn.reply)):
                return
            moment = _moment_after(turn.tool)
        if turn.reply:
            await self._speak(turn.reply, moment, turn.fault, turn.tool_after)
        if turn.follow_up and turn.tool_after is not None:
            await self._speak(turn.follow_up, _moment_after(turn.tool_after))

    async def _speak(
        self, text: str, moment: str = "", fault: str | None = None, tool: ToolCall | None = None
    ) -> None:
        """Speak one reply to its end; `tool` is called at that end and its result awaited."""
        faults = [*self._faults.pop(moment, ()), *([fault] if fault else ())]
        speech = self._voices.say("agent", text)
        if "silent-reply" in faults:  # seen live when the model failed: completed, without a transcript
            text, speech = "", bytes([SILENCE]) * len(speech)
        reply = self._open_reply(text, LEAD_IN + speech, moment)
        if "flood" in faults:  # all at once, and more of it than anybody listens to
            reply.audio, reply.started_at = reply.audio * 60, 0.0
        while reply.sent < len(reply.audio):
            if reply.sent >= len(LEAD_IN) > reply.sent - CHUNK_BYTES:
                self._emit_deltas(reply)
            if reply.sent - len(LEAD_IN) >= MID_SPEECH_SECONDS * BYTES_PER_SECOND:
                self._fail_all(faults)
            await self._send_chunk_at_pace(reply)
        call = self._place_call(tool) if tool is not None else None
        self._close_reply("completed")
        if call is not None:
            await self._wait_result(call)

    async def _call_silently(self, tool: ToolCall, then: str) -> _PendingCall:
        """The pre-amble: a silent reply with the tool.call in it, open until shortly after the result."""
        reply = self._open_reply("", b"")
        while reply.sent < PREAMBLE_SECONDS * BYTES_PER_SECOND:
            await self._send_chunk_at_pace(reply)
        call = self._place_call(tool, then)
        held_until = trio.current_time() + PREAMBLE_HOLD_SECONDS
        while trio.current_time() < min(held_until, call.answered_at + RESULT_TO_REPLY_SECONDS):
            await self._send_chunk_at_pace(reply)
        self._close_reply("completed")
        return call

    def _place_call(self, tool: ToolCall, then: str = "") -> _PendingCall:
        declared = self.config.tool(tool.name)
        over_http = declared.http is not None
        call = _PendingCall(declared.timeout_seconds, declared.execution_mode == "hold", over_http, then=then)
        if over_http:  # answered at once: whoever answers is under the same roof
            call.answered_at = trio.current_time()
            call.answered.set()
        call_id = f"chatcmpl-tool-{self._rng.getrandbits(64):016x}"
        self._calls[call_id] = call
        self._emit("tool.call", call_id=call_id, name=tool.name, arguments=tool.arguments)
        self._fail_all(self._faults.pop("tool-running", []))
        return call

    async def _wait_result(self, call: _PendingCall) -> bool:
        with trio.move_on_after(call.timeout_seconds):
            await call.answered.wait()
            return True
        call.holding = False
        await self._speak(TOOL_FAILED)
        return False

    # Replies

    def _open_reply(self, text: str, audio: bytes, moment: str = "") -> _Reply:
        self._reply = _Reply(
            self._new_id("resp_"), self._new_id("msg_"), moment, text, audio, trio.current_time()
        )
        self._emit("reply.started", reply_id=self._reply.reply_id, item_id=self._reply.item_id)
        return self._reply

    async def _send_chunk_at_pace(self, reply: _Reply) -> None:
        self._send_chunk(reply)
        await trio.sleep_until(reply.started_at + reply.sent / BYTES_PER_SECOND)
        # The turn may have been cut short in the very tick in which the alarm rang.
        await trio.lowlevel.checkpoint_if_cancelled()

    def _send_chunk(self, reply: _Reply) -> None:
        """The next 37.5 ms; of a reply without audio of its own, silence."""
        chunk = reply.audio[reply.sent : reply.sent + CHUNK_BYTES] or bytes([SILENCE]) * CHUNK_BYTES
        reply.sent += len(chunk)
        self._emit("reply.audio", reply_id=reply.reply_id, data=b64encode(chunk).decode())

    def _emit_deltas(self, reply: _Reply) -> None:
        """One burst with every word of the reply, spread evenly over its sound."""
        words = reply.text.split()
        lead_ms = len(LEAD_IN) * 1000 // BYTES_PER_SECOND
        step_ms = (len(reply.audio) - len(LEAD_IN)) * 1000 / BYTES_PER_SECOND / max(1, len(words))
        for index, word in enumerate(words):
            self._emit(
                "transcript.agent.delta",
                reply_id=reply.reply_id,
                item_id=reply.item_id,
                delta=f"{word} ",
                start_ms=lead_ms + round(index * step_ms),
                end_ms=lead_ms + round((index + 1) * step_ms),
            )

    def _close_reply(self, status: str) -> None:
        reply, self._reply = self._reply, None
        if reply is None:
            return
        if reply.text:
            interrupted = status != "completed"
            text = reply.spoken_text() if interrupted else reply.text
            names = {"reply_id": reply.reply_id, "item_id": reply.item_id}
            self._emit("transcript.agent", **names, text=text, interrupted=interrupted)
        outcome = {} if self._missing_status else {"status": status}
        self._emit("reply.done", reply_id=reply.reply_id, **outcome)

    def _cut_short(self, status: str) -> None:
        """End the reply now; what it asked of a tool no longer matters."""
        reply = self._reply
        self._close_reply(status)
        self._turn.cancel()
        for call in self._calls.values():
            call.holding = False
        if self._late_audio and reply is not None:
            for _ in range(LATE_CHUNKS):
                self._send_chunk(reply)

    # Faults

    def fail(self, kind: str) -> None:
        """Make a fault happen now: those of the talk here, the others on the connection."""
        match kind:
            case "late-audio":
                self._late_audio = True
            case "missing-status":
                self._missing_status = True
            case "silent-reply" | "flood":
                pass  # was seen to when the reply began
            case _:
                self._strike(kind)

    def _fail_all(self, kinds: list[str]) -> None:
        while kinds:
            self.fail(kinds.pop(0))

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}{self._rng.getrandbits(128):032x}"


def _moment_after(tool: ToolCall) -> str:
    return "farewell" if tool.name == "end_call" else "mid-speech"
