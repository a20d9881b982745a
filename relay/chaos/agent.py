"""The voice agent of one simulated session: AssemblyAI's end of the socket, played by a plan.

Knows the vendor's messages from their documentation, not from the relay; says only what the plan lets it say.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from relay.chaos.links import Link
from relay.chaos.plan import CallPlan
from relay.chaos.sockets import FarSocket, agent_socket
from relay.chaos.sounds import CHUNK_SECONDS, Chunk, agent_chunk, read_callee, silence
from relay.chaos.trace import Trace

READY_SECONDS = 0.27  # from the first update to session.ready, as on the live service
SLOW_READY_SECONDS = 6.0
REPLY_SECONDS = 1.2
TURN_SECONDS = 0.5  # of the callee's speech; nobody recognises anything here
RESULT_SECONDS = 8.0  # more than a tool of the relay's may take
FLOOD_SECONDS = 90.0  # of sound, all at once
STORM_EVENTS = 40

_HTTP = {
    "refuse:401": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    "refuse:404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "refuse:503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "refuse:200": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
}


class Agent:
    """One session. `knows_callee` says from which frame on the callee may be forwarded, None: not yet."""

    def __init__(
        self,
        plan: CallPlan,
        session: int,
        link: Link,
        trace: Trace,
        who: str,
        *,
        first_allowed: Callable[[], int | None],
        parting: Callable[[], None],
    ) -> None:
        self.link = link
        self.socket: FarSocket = agent_socket(link.far)
        self.was_ended = False  # by session.end
        self._plan = plan
        self._session = session
        self._trace = trace
        self._who = who
        self._first_allowed = first_allowed
        self._parting = parting
        self._update: dict[str, Any] | None = None
        self._updated = trio.Event()
        self._heard = trio.Event()  # the callee's first frame
        self._heard_number = -1
        self._results: set[str] = set()
        self._news = trio.Event()
        self._wanted: deque[float] = deque()  # replies that the relay has asked for
        self._reply = 0
        self._muffled = False  # the agent's own fault: it says nothing any more
        self._last_tool: dict[str, Any] | None = None

    # ---- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the socket is over."""
        opening = self._plan.opening
        if opening in _HTTP:
            await self.link.far.receive_some()
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # a node that was cut
                self.link.far.push(_HTTP[opening])
            self._trace.counts["opening faults"] += 1
            return self.link.far.shut_down()
        if opening == "mute-handshake":
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._play, name="agent script")
            while messages := await self.socket.receive():
                for message in messages:
                    self._take(json.loads(message))
            nursery.cancel_scope.cancel()
        self._trace.saw(self._who, f"closed with {self.socket.close_code}")
        self.link.far.close()
        return None

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "input.audio":
            return self._hear(event["audio"])
        self._trace.saw(self._who, f"heard {kind}")
        match kind:
            case "session.update" if self._update is None:
                self._update = event["session"]
                self._updated.set()
            case "session.resume":
                self._resume(event)
            case "session.end":
                self.was_ended = True
                self._parting()
                self.say("session.ended", session_duration_seconds=1.0)
                self.socket.close(1000)
            case "tool.result":
                if event["call_id"] in self._results:
                    self._trace.violates(self._who, f"{event['call_id']} was answered twice")
                self._results.add(event["call_id"])
                self._news.set()
            case "reply.create":
                self._wanted.append(REPLY_SECONDS)
                self._news.set()
            case "session.update" | "reply.cancel":
                pass
            case _:
                self._trace.violates(self._who, f"does not know {kind}")
        return None

    def _resume(self, event: dict[str, Any]) -> None:
        if not self._plan.resumes:
            return self.fail("session_not_found")
        self._update = {}
        self._updated.set()
        return None

    def _hear(self, payload: str) -> None:
        number = read_callee(payload)
        self._trace.saw_frame("frames to agents", b"%d" % (-1 if number is None else number))
        first = self._first_allowed()
        if number is None:
            return
        if number <= self._heard_number:
            self._trace.violates(self._who, f"frame {number} of the callee came after {self._heard_number}")
        if first is None or number < first:
            self._trace.violates(self._who, f"frame {number} of the callee came before the opening was heard")
        self._heard_number = number
        self._heard.set()

    # ---- speaking --------------------------------------------------------------------------------

    def say(self, kind: str, **fields: Any) -> None:
        """Send one event."""
        if not self._muffled:
            self.socket.send(json.dumps({"type": kind, **fields}))

    def fail(self, code: str) -> None:
        """Report an error that ends the session."""
        self.say("session.error", code=code, message="chaos", session_id=None, param=None)
        self.socket.close(1008)

    async def _play(self) -> None:
        await self._updated.wait()
        assert self._update is not None
        opening = self._plan.opening if self._session == 0 else "spoken"
        if opening != "spoken":
            self._trace.counts["opening faults"] += 1
        await trio.sleep(SLOW_READY_SECONDS if opening == "slow-ready" else READY_SECONDS)
        if opening == "never-ready":
            return None
        if opening.startswith("error:"):
            return self.fail(opening.removeprefix("error:"))
        self._become_ready("audio/pcm" if opening == "wrong-format" else "audio/pcmu")
        if self._update.get("greeting"):
            await self._greet(opening)
        await self._serve_wishes(0.0)
        with trio.move_on_after(RESULT_SECONDS):
            await self._heard.wait()
        for turn in self._plan.turns:
            await self._serve_wishes(0.4)
            await self._take_turn(turn)
        await self._finish()
        await self._serve_wishes(math.inf)
        return None

    def _become_ready(self, encoding: str) -> None:
        spoken = {"format": {"encoding": encoding}}
        self.say("session.updated")
        self.say(
            "session.ready",
            session_id=f"sess_{self._session}",
            resume_token="again",  # noqa: S106 - opens nothing
            config={"input": {"format": {"encoding": "audio/pcmu"}}, "output": spoken},
        )

    async def _greet(self, opening: str) -> None:
        match opening:
            case "silent-opening":
                self.say("reply.started", reply_id="0.0")
                self.say("reply.audio", reply_id="0.0", data=silence(0.3))
                self.say("reply.done", reply_id="0.0", status="completed")
            case "failed-opening":
                self.say("reply.error", reply_id="0.0", code="internal_error", message="chaos")
            case _:
                await self._speak(self._plan.opening_seconds)

    async def _serve_wishes(self, seconds: float) -> None:
        """Speak what the relay asks for, for so long."""
        with trio.move_on_after(seconds):
            while True:
                while self._wanted:
                    await self._speak(self._wanted.popleft())
                self._news = trio.Event()
                await self._news.wait()
        while self._wanted:
            await self._speak(self._wanted.popleft())

    async def _speak(self, seconds: float, *, cut_after: float = math.inf, late: bool = False) -> None:
        """One reply at the pace of speech; with `cut_after` the callee interrupts it."""
        self._reply += 1
        number, reply = self._reply, f"{self._session}.{self._reply}"
        begun_at = trio.current_time()
        self.say("reply.started", reply_id=reply)
        chunks = max(1, round(seconds / CHUNK_SECONDS))
        for chunk in range(chunks):
            await trio.sleep_until(begun_at + chunk * CHUNK_SECONDS)
            if chunk * CHUNK_SECONDS >= cut_after:
                self.say("input.speech.started")
                self.say("reply.done", reply_id=reply, status="interrupted")
                if late:
                    self.say("reply.audio", reply_id=reply, data=self._sound(number, chunk))
                self.say("transcript.agent", reply_id=reply, text="as far as", interrupted=True)
                return
            self.say("reply.audio", reply_id=reply, data=self._sound(number, chunk))
        self.say("transcript.agent", reply_id=reply, text="what was said", interrupted=False)
        self.say("reply.done", reply_id=reply, status="completed")

    def _sound(self, reply: int, chunk: int, seconds: float = CHUNK_SECONDS) -> str:
        return agent_chunk(Chunk(self._session, reply, chunk), seconds)

    # ---- the conversation ------------------------------------------------------------------------

    async def _listen(self, text: str) -> None:
        self.say("input.speech.started")
        await trio.sleep(TURN_SECONDS)
        self.say("input.speech.stopped")
        self.say("transcript.user", text=text)

    async def _take_turn(self, turn: str) -> None:
        await self._listen("what somebody says")
        match turn:
            case "tool" | "slow-tool" | "broken-tool":
                await self._call_tool("look_up", how=turn)
                await self._speak(REPLY_SECONDS)
            case "interrupted" | "late-audio":
                await self._speak(REPLY_SECONDS, cut_after=0.4, late=turn == "late-audio")
            case "tail":  # the callee speaks into what the phone still plays of a reply that is over
                await self._speak(0.5)
                self.say("input.speech.started")
            case _:
                await self._speak(REPLY_SECONDS)

    async def _finish(self) -> None:
        match self._plan.finish:
            case "goodbye":
                await self._listen("that was all")
                await self._call_tool("end_call")
                await self._speak(REPLY_SECONDS)
            case "words":
                await self._listen("Please stop calling me.")
            case "tool-opt-out":
                await self._listen("what somebody says")
                await self._call_tool("mark_do_not_call")

    async def _call_tool(self, name: str, **arguments: Any) -> None:
        call_id = f"{self._session}.{self._reply}.{len(self._results)}.{name}"
        self._last_tool = {"call_id": call_id, "name": name, "arguments": arguments}
        self.say("tool.call", **self._last_tool)
        with trio.move_on_after(RESULT_SECONDS):
            while call_id not in self._results:
                self._news = trio.Event()
                await self._news.wait()

    # ---- faults ----------------------------------------------------------------------------------

    def suffer(self, kind: str) -> None:
        """Let a fault of this end happen that is no fault of its link."""
        word, _, rest = kind.partition(":")
        match word:
            case "close":
                self.socket.close(int(rest))
            case "error":
                self.say("session.error", code=rest, message="chaos", session_id=None, param=None)
                if rest in ("session_expired", "server_error"):
                    self.socket.close(1008)
            case "session-ended":
                self.say("session.ended", session_duration_seconds=1.0)
                self.socket.close(1000)
            case "silence":
                self._muffled = True
            case "flood":
                self._flood()
            case "tool-again" if self._last_tool is not None:
                self.say("tool.call", **self._last_tool)
            case "tool-again" | "unknown-tool":
                self.say(
                    "tool.call", call_id=f"unknown.{trio.current_time()}", name="no_such_tool", arguments={}
                )
            case "reply-error":
                self.say("reply.error", code="internal_error", message="chaos")
            case "storm":
                for _ in range(STORM_EVENTS):
                    self.say("input.speech.started")
            case "wrong-shape":
                self.say("reply.audio", data=7)
            case "unknown":
                self.say("session.chaos", anything=[{}])
            case _:
                send_rubbish(self.socket, kind)

    def _flood(self) -> None:
        self._reply += 1
        reply = f"{self._session}.{self._reply}"
        self.say("reply.started", reply_id=reply)
        for chunk in range(round(FLOOD_SECONDS)):
            self.say("reply.audio", reply_id=reply, data=self._sound(self._reply, chunk, 1.0))
        self.say("reply.done", reply_id=reply, status="completed")


def send_rubbish(socket: FarSocket, kind: str) -> None:
    """What no protocol of either vendor knows."""
    match kind:
        case "garbage":
            socket.send('{"event": "media", ')
        case "garbage-flood":
            for _ in range(12):
                socket.send("]")
        case "binary":
            socket.send_binary(b"\xff" * 160)
        case "oversize":
            socket.send('{"event":"' + "x" * 2_000_000 + '"}')
        case "bad-utf8":
            socket.send_raw_text(b'{"event":"\xff\xfe"}')
        case _:
            raise ValueError(f"{kind!r} is no fault of a far end")
