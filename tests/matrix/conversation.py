"""One call as both its far sides play it: a greeting, some speech, a tool, a goodbye.

Must not know what may break it. Every frame is unlike every other one, so that a lost one is missed.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio
import trio_websocket

from relay.line import Line
from tests.far_ends import QUEUE
from tests.matrix.far_sides import BreakableStream, FarSide, accept_websocket
from tests.matrix.faults import Moment
from tests.test_call import Far

FRAME_SECONDS = 0.2  # ten times what Twilio sends, so that a call is played in a tenth of the time
READY_AFTER_SECONDS = 0.67
THINKS_SECONDS = 0.07  # both are odd, so that no fault falls into the tick of a frame or a ping: times repeat
GREETING_FRAMES = 18  # almost four seconds, as long as agents greet
REPLY_FRAMES = 6
ECHO_SECONDS = 0.05  # from the end of what is played to the echo of its mark
OPTIONS = {"message_queue_size": QUEUE, "max_message_size": 2**22}

_SERIAL = itertools.count()


def audio_frame() -> str:
    """One frame of sound that nobody has sent before."""
    number = b"%012d" % next(_SERIAL)
    return base64.b64encode(number + b"\x10" * (int(8000 * FRAME_SECONDS) - len(number))).decode()


@dataclass
class Audio:
    """The frames of one direction, each with the moment at which it was sent or came."""

    sent: list[tuple[str, float]] = field(default_factory=list)
    came: list[tuple[str, float]] = field(default_factory=list)

    def lost(self) -> list[str]:
        """What was sent between the first and the last frame that came, and did not come in its turn."""
        sent, came = [payload for payload, _ in self.sent], [payload for payload, _ in self.came]
        if not came:
            return sent
        first = sent.index(came[0])
        return [one for one, other in zip(sent[first:], came, strict=False) if one != other]

    def unheard_at_the_end(self) -> int:
        """How many of the last frames never came."""
        came = {payload for payload, _ in self.came}
        return len(list(itertools.takewhile(lambda frame: frame[0] not in came, reversed(self.sent))))

    def latest_seconds(self) -> float:
        """The longest that a frame took."""
        sent = dict(self.sent)
        return max((at - sent[payload] for payload, at in self.came), default=0.0)


class Conversation:
    """The far sides of one call. `at` is told of each moment in its life, and may break something."""

    def __init__(
        self,
        nursery: trio.Nursery,
        line: Line,
        sid: str,
        stream_sid: str,
        at: Callable[[Moment], Awaitable[None]],
    ) -> None:
        self.line = line
        self.sid = sid
        self.stream_sid = stream_sid
        self.phone: FarSide
        self.agent: FarSide
        self.our_streams: list[Any] = []
        self.to_agent = Audio()
        self.to_phone = Audio()
        self.may_end = trio.Event()  # until then the agent talks on
        self._nursery = nursery
        self._at = at
        self._names = itertools.count()
        self._plays_until = 0.0
        self._sessions = 0

    # ---- the phone ---------------------------------------------------------------------------------------

    async def hold_phone(self) -> None:
        """Send the callee's sound for as long as the stream lives, and listen."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._talk)
            await self._listen_to_agent()
            nursery.cancel_scope.cancel()
        await self.phone.stream.aclose()  # a client that was told goodbye waits for nothing more

    async def _talk(self) -> None:
        while True:
            payload = audio_frame()
            self.to_agent.sent.append((payload, trio.current_time()))
            media = {"payload": payload, "track": "inbound"}
            if not await said(self.phone, event="media", streamSid=self.stream_sid, media=media):
                return
            await trio.sleep(FRAME_SECONDS)

    async def _listen_to_agent(self) -> None:
        while message := await hear(self.phone):
            match message["event"]:
                case "media":
                    payload = message["media"]["payload"]
                    seconds = len(base64.b64decode(payload)) / 8000
                    self._plays_until = max(self._plays_until, trio.current_time()) + seconds
                    if payload.startswith("M"):  # a number in ASCII; our silence and our clips are none
                        self.to_phone.came.append((payload, trio.current_time()))
                case "clear":
                    self._plays_until = trio.current_time()
                case "mark":
                    self._nursery.start_soon(self._echo, message["mark"], self._plays_until)

    async def _echo(self, mark: dict[str, str], played_at: float) -> None:
        await trio.sleep_until(max(played_at, trio.current_time()) + ECHO_SECONDS)
        await said(self.phone, event="mark", streamSid=self.stream_sid, mark=mark)

    # ---- the agent ---------------------------------------------------------------------------------------

    async def be_agent(self, stream: BreakableStream) -> None:
        """Accept one session and hold it to its end."""
        socket = await accept_websocket(self._nursery, stream, **OPTIONS)
        session = Session(FarSide(socket, stream), self, is_first=not self._sessions)
        self._sessions += 1
        self.agent = session.far
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.converse, self._at)
            await session.listen()
            nursery.cancel_scope.cancel()

    def fresh_name(self) -> str:
        """A name for a reply or a tool call."""
        return f"n{next(self._names)}"


class Session:
    """One session of the agent's."""

    def __init__(self, far: FarSide, call: Conversation, *, is_first: bool) -> None:
        self.far = far
        self._call = call
        self._is_first = is_first
        self._session: dict[str, Any] = {}
        self._id = call.fresh_name()
        self._mouth = trio.Lock()  # one reply at a time
        self._configured = trio.Event()
        self._hears = trio.Event()
        self._results: dict[str, trio.Event] = {}

    async def listen(self) -> None:
        """Take what the relay says, and answer what wants an answer at once."""
        async with trio.open_nursery() as nursery:
            while message := await hear(self.far):
                match message["type"]:
                    case "session.update":
                        self._session = message["session"]
                        self._configured.set()
                    case "session.resume":
                        self._id = message["session_id"]
                        self._configured.set()
                    case "input.audio":
                        self._call.to_agent.came.append((message["audio"], trio.current_time()))
                        self._hears.set()
                    case "tool.result":
                        self._results.setdefault(message["call_id"], trio.Event()).set()
                    case "reply.create":
                        nursery.start_soon(self._speak)
                    case "session.end":
                        await said(self.far, type="session.ended")
            nursery.cancel_scope.cancel()

    async def converse(self, at: Callable[[Moment], Awaitable[None]]) -> None:
        """Say everything that is to be said."""
        await self._configured.wait()
        await trio.sleep(READY_AFTER_SECONDS)
        await at(Moment.BEFORE_READY)
        await said(self.far, type="session.ready", session_id=self._id, resume_token=f"token of {self._id}")
        if "greeting" in self._session:
            await trio.sleep(THINKS_SECONDS)
            await self._speak(lambda: at(Moment.OPENING), GREETING_FRAMES)
        await self._hears.wait()
        await trio.sleep(THINKS_SECONDS)
        if self._is_first:
            await self._talk(at)
        await self._use("end_call")
        await self._speak(lambda: at(Moment.FAREWELL))

    async def _talk(self, at: Callable[[Moment], Awaitable[None]]) -> None:
        while not self._call.may_end.is_set():
            await self._speak()
        await self._speak(lambda: at(Moment.MID_SPEECH))
        await self._use("book", lambda: at(Moment.TOOL_RUNNING))
        await self._speak()

    async def _speak(
        self, before_the_end: Callable[[], Awaitable[None]] | None = None, frames: int = REPLY_FRAMES
    ) -> None:
        async with self._mouth:
            name = self._call.fresh_name()
            await said(self.far, type="reply.started", reply_id=name)
            for left in reversed(range(frames)):
                payload = audio_frame()
                self._call.to_phone.sent.append((payload, trio.current_time()))
                await said(self.far, type="reply.audio", data=payload, reply_id=name)
                await trio.sleep(FRAME_SECONDS)
                if left == REPLY_FRAMES // 2 and before_the_end:
                    await before_the_end()
            await said(self.far, type="reply.done", reply_id=name)

    async def _use(self, tool: str, while_it_runs: Callable[[], Awaitable[None]] | None = None) -> None:
        name = self._call.fresh_name()
        result = self._results[name] = trio.Event()
        await said(self.far, type="tool.call", call_id=name, name=tool, arguments={})
        if while_it_runs:
            await trio.sleep(FRAME_SECONDS)
            await while_it_runs()
        await result.wait()


async def said(far: Far, **message: Any) -> bool:
    """Send; False where the connection is gone, which is nothing to a far side."""
    try:
        await far.say(**message)
    except trio_websocket.ConnectionClosed:
        return False
    return True


async def hear(far: Far) -> dict[str, Any] | None:
    """The next message; None when the connection is gone."""
    try:
        return await far.hear()
    except trio_websocket.ConnectionClosed:
        return None
