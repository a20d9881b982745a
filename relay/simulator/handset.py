"""A telephone without a network: a Media Stream over any byte stream, whose callee says what he is told to.

Knows nothing of REST, documents or signatures: it speaks from behind the upgrade on.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable

import trio
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from relay.simulator.callee import FRAME_SECONDS, Callee, Notice
from relay.simulator.media_stream import (
    ClearAudio,
    PlaceMark,
    PlayAudio,
    StreamWriter,
    Unreadable,
    read_order,
)
from relay.simulator.playout import Playout

_READ_BYTES = 65536


class Handset:
    """One call's end at the person. `violations` are messages that Twilio would not have taken.

    `said` is what the callee said, `heard` what the telephone played: μ-law on one timeline, equally long.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        writer: StreamWriter,
        callee: Callee,
        on_notice: Callable[[Notice], None],
    ) -> None:
        self.violations: list[str] = []
        self.said = bytearray()
        self.heard = bytearray()
        self._on_notice = on_notice
        self._stream = stream
        self._writer = writer
        self._callee = callee
        self._playout = Playout()
        self._framing = Connection(ConnectionType.CLIENT)
        self._outgoing = deque[bytes]()  # a few frames: emptied 50 times a second
        self._text = ""

    async def run(self) -> None:
        """Until either side hangs up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live, nursery.cancel_scope)
            await self._listen()
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(self._stream)

    async def _live(self, scope: trio.CancelScope) -> None:
        started_at = trio.current_time()
        for number in range(10**9):
            await trio.sleep_until(started_at + number * FRAME_SECONDS)
            frame, marks = self._playout.play_frame()
            moment = self._callee.live_frame(frame)
            self.said += moment.said
            self.heard += frame
            for notice in moment.notices:
                self._on_notice(notice)
            texts = [self._writer.mark(name) for name in marks]
            if moment.pressed is not None:
                texts.append(self._writer.dtmf(moment.pressed))
            timestamp_ms = round(number * FRAME_SECONDS * 1000)
            texts.append(self._writer.media(base64.b64encode(moment.said).decode(), timestamp_ms))
            if moment.hung_up:
                texts.append(self._writer.stop())
            for text in texts:
                self._send(TextMessage(text))
            if moment.hung_up:
                self._send(CloseConnection(1000))
            try:
                while self._outgoing:
                    await self._stream.send_all(self._outgoing.popleft())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                scope.cancel()
            if moment.hung_up:
                return

    def _send(self, event: Event) -> None:
        try:
            self._outgoing.append(self._framing.send(event))
        except LocalProtocolError:
            pass  # closed by the other side: the listener knows

    async def _listen(self) -> None:
        try:
            while True:
                chunk = await self._stream.receive_some(_READ_BYTES)
                self._framing.receive_data(bytes(chunk) or None)
                for event in self._framing.events():
                    if isinstance(event, CloseConnection):
                        self._send(event.response())
                        return
                    self._take(event)
                if not chunk:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
            return

    def _take(self, event: Event) -> None:
        match event:
            case Ping():
                self._send(event.response())
            case BytesMessage():
                self.violations.append("a binary message")
            case TextMessage(data=data, message_finished=finished):
                self._text += data
                if finished:
                    text, self._text = self._text, ""
                    self._obey(text)

    def _obey(self, text: str) -> None:
        try:
            order = read_order(text, self._writer.stream_sid)
        except Unreadable as problem:
            self.violations.append(str(problem))
            return
        marks: list[str] = []
        match order:
            case PlayAudio(_, audio):
                self._playout.queue(audio)
            case PlaceMark(name):
                marks = self._playout.mark(name)
            case ClearAudio():
                _, marks = self._playout.clear()
        for name in marks:
            self._send(TextMessage(self._writer.mark(name)))
