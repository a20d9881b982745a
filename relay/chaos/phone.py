"""The telephone of one simulated stream: Twilio's end of the socket, its play-out, and the callee.

Knows Media Streams from their documentation, not from the relay; hears what the agent said by its marks.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from relay.chaos.agent import send_rubbish
from relay.chaos.links import Link
from relay.chaos.plan import CallPlan
from relay.chaos.sockets import FarSocket, carrier_socket
from relay.chaos.sounds import FRAME_SECONDS, Chunk, callee_frame, read_agent
from relay.chaos.trace import Trace

PATIENCE_SECONDS = 21.0  # of a callee for whom nobody ends the call
CLOSE_SECONDS = 3.0  # from `stop` to the end of the socket, whatever the relay does
_OPT_OUT_KEY = "9"


class Phone:
    """One stream of one call."""

    def __init__(
        self, plan: CallPlan, call_sid: str, stream_sid: str, link: Link, trace: Trace, who: str
    ) -> None:
        self.link = link
        self.socket: FarSocket = carrier_socket(link.far)
        self.stream_sid = stream_sid
        self.is_hanging_up = False
        self.frame = 0  # the next one
        self.first_allowed: int | None = None  # the callee's frame from which on he may be forwarded
        self.chunks_heard = 0
        self.parting: Callable[[], None] = lambda: None
        self._plan = plan
        self._call_sid = call_sid
        self._trace = trace
        self._who = who
        self._sequence = 0
        self._playing_until = 0.0
        self._marks: deque[tuple[float, str]] = deque()
        self._echoes_marks = True
        self._has_media = True
        self._newest: Chunk | None = None
        self._silenced: set[tuple[int, int]] = set()  # replies that were heard before a clear

    # ---- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the socket is over or the callee has hung up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live, nursery.cancel_scope, name="phone script")
            while messages := await self.socket.receive():
                for message in messages:
                    self._take(json.loads(message))
            nursery.cancel_scope.cancel()
        self._trace.saw(self._who, f"closed with {self.socket.close_code}")
        self.link.far.close()

    def start(self, token: str) -> None:
        """The first two messages of a stream."""
        self.socket.send('{"event":"connected","protocol":"Call","version":"1.0.0"}')
        self._say("start", self._start_fields(self.stream_sid, token))

    def _start_fields(self, stream_sid: str, token: str) -> dict[str, Any]:
        return {
            "accountSid": "AC" + "0" * 32,
            "streamSid": stream_sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": token},
        }

    async def _live(self, stream: trio.CancelScope) -> None:
        begun_at = trio.current_time()
        leaves_at = begun_at + (self._plan.finish_at if self._plan.finish == "hang-up" else PATIENCE_SECONDS)
        presses_at = begun_at + self._plan.finish_at if self._plan.finish == "key" else math.inf
        while not self.is_hanging_up:
            await trio.sleep_until(begun_at + self.frame * FRAME_SECONDS)
            now = trio.current_time()
            if self._has_media:
                media = {"track": "inbound", "payload": callee_frame(self.frame)}
                self._say("media", media)
                self._trace.counts["frames of callees"] += 1
            self.frame += 1
            while self._marks and self._marks[0][0] <= now:
                self._echo(self._marks.popleft()[1])
            if now >= presses_at:
                presses_at = math.inf
                self._say("dtmf", {"track": "inbound_track", "digit": _OPT_OUT_KEY})
            if now >= leaves_at:
                self._trace.saw(self._who, "the callee hangs up")
                self.is_hanging_up = True
        self.parting()
        self._say("stop", {"accountSid": "AC" + "0" * 32, "callSid": self._call_sid})
        self.socket.close(1000)
        stream.deadline = trio.current_time() + CLOSE_SECONDS

    def hang_up(self) -> None:
        """The carrier ends the call: `stop` goes out with the next frame."""
        self.is_hanging_up = True

    # ---- what the relay says ---------------------------------------------------------------------

    def _take(self, order: dict[str, Any]) -> None:
        if order["streamSid"] != self.stream_sid:
            self._trace.violates(self._who, f"{order['event']} for another stream")
        match order["event"]:
            case "media":
                self._play(order["media"]["payload"])
            case "mark":
                self._trace.saw(self._who, f"heard mark {order['mark']['name']}")
                self._marks.append((max(self._playing_until, trio.current_time()), order["mark"]["name"]))
            case "clear":
                self._clear()
            case unknown:
                self._trace.violates(self._who, f"does not know {unknown}")

    def _play(self, payload: str) -> None:
        chunk, seconds = read_agent(payload)
        self._trace.saw_frame("frames to phones", repr(chunk).encode())
        self._playing_until = max(self._playing_until, trio.current_time()) + seconds
        if chunk is None:
            return
        self.chunks_heard += 1
        if (chunk.session, chunk.reply) in self._silenced:
            self._trace.violates(self._who, f"{chunk} is played after a clear")
        if self._newest is not None and chunk <= self._newest:
            self._trace.violates(self._who, f"{chunk} is played after {self._newest}")
        self._newest = chunk

    def _clear(self) -> None:
        self._trace.saw(self._who, "heard clear")
        self._playing_until = trio.current_time()
        if self._newest is not None:
            self._silenced.add((self._newest.session, self._newest.reply))
        while self._marks:
            self._echo(self._marks.popleft()[1])

    def _echo(self, name: str) -> None:
        if self._echoes_marks:
            self._say("mark", {"name": name})
            if self.first_allowed is None:
                self.first_allowed = self.frame

    def _say(self, event: str, fields: dict[str, Any], stream_sid: str | None = None) -> None:
        self._sequence += 1
        message = {
            "event": event,
            "sequenceNumber": str(self._sequence),
            event: fields,
            "streamSid": stream_sid or self.stream_sid,
        }
        self.socket.send(json.dumps(message))

    # ---- faults ----------------------------------------------------------------------------------

    def suffer(self, kind: str) -> None:
        """Let a fault of this end happen that is no fault of its link."""
        word, _, rest = kind.partition(":")
        other = "MZ" + "f" * 32
        match word:
            case "close":
                self.socket.close(int(rest))
            case "start-again":
                self._say("start", self._start_fields(self.stream_sid, ""))
            case "foreign-start":
                self._say("start", self._start_fields(other, ""), other)
            case "foreign-media":
                self._say("media", {"track": "inbound", "payload": callee_frame(0)}, other)
            case "strange-mark":
                self._say("mark", {"name": "nobody's"})
            case "lost-marks":
                self._echoes_marks = False
            case "stop":  # and nothing behind it: no close frame, no end of file
                self._say("stop", {"accountSid": "", "callSid": self._call_sid})
                self._has_media = False
            case "no-media":
                self._has_media = False
            case "wrong-shape":
                self._say("media", {"payload": 7})
            case "unknown":
                self._say("chaos", {"anything": [{}]})
            case _:
                send_rubbish(self.socket, kind)
