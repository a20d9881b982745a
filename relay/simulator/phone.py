"""One Media Stream as the carrier runs it: the socket to the service, the telephone's sound, the callee.

Knows nothing of REST, webhooks or documents; whoever runs it says where the stream leads.
"""

from __future__ import annotations

import base64
import itertools
import random
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError

from relay.simulator.callee import FRAME_SECONDS, Callee
from relay.simulator.ledger import Ledger
from relay.simulator.media_stream import (
    CONNECTED,
    ClearAudio,
    PlaceMark,
    PlayAudio,
    StreamWriter,
    Unreadable,
    read_order,
)
from relay.simulator.mishaps import Mishaps
from relay.simulator.playout import Playout
from relay.simulator.scenario import Fault

HANDSHAKE_SECONDS = 5.0
SEND_SECONDS = 5.0  # a service that does not read for so long is gone
CLOSE_SECONDS = 1.0
JITTER_SECONDS = 0.004
FIRST_TIMESTAMP_MS = (60, 150)  # seen in captures: 57 to 155
# The queue between the library's reader and ours. When it is full the library stops reading, pongs included:
# it is so only while the scenario says that this end does not read.
UNREAD_MESSAGES = 64
FOREIGN_STREAM = "MZ" + "0" * 32
OVERSIZE_CHARACTERS = 70_000  # the service accepts 64 KiB
GARBAGE_MESSAGES = 12  # the service bears with nine in a row


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How a stream ended: hung up, or by the service; `code` is the carrier's, 0 if nothing was wrong."""

    hung_up: bool
    code: int = 0
    detail: str = ""


class Phone:
    """Carries one stream from the upgrade to its end.

    `said` is what the callee said, `heard` what the telephone played: μ-law on one timeline, equally long.
    """

    def __init__(
        self,
        writer: StreamWriter,
        callee: Callee,
        ledger: Ledger,
        rng: random.Random,
        faults: Iterable[Fault] = (),
        notice: Callable[[str], None] = lambda _event: None,
    ) -> None:
        self.said = bytearray()
        self.heard = bytearray()
        self._writer, self._callee, self._ledger, self._rng = writer, callee, ledger, rng
        self._notice = notice  # told what an observer notices, as the ledger is
        self._playout = Playout()
        self._mishaps = Mishaps(faults, ledger)
        self._hanging_up = False
        self._overflowed = False
        self._deaf = self._mute = self._frozen = False
        self._torn = False  # nothing more may be written: a frame may be half sent, or the socket is gone
        self._reset = False
        self._close_code = 1000

    def hang_up(self) -> None:
        """End the stream within a frame: `stop`, then a close with 1000."""
        self._hanging_up = True

    async def run(
        self,
        stream: trio.abc.Stream,
        host: str,
        path: str,
        signature: str,
        on_started: Callable[[], None] = lambda: None,
    ) -> StreamEnd:
        """Upgrade `stream`, carry the call's sound until someone ends it, and leave nothing open."""
        end = StreamEnd(False, 31901, "no answer to the upgrade")
        try:
            async with trio.open_nursery() as reader:
                ws = await self._upgrade(reader, stream, host, path, signature)
                if ws is not None:
                    on_started()
                    await self._carry(ws)
                    end = self._how_it_ended(ws)
                    await self._close(ws, reader.cancel_scope)
                else:
                    reader.cancel_scope.cancel()
        except* ConnectionRejected as rejections:
            end = StreamEnd(False, 31920, f"the upgrade was refused: {rejections.exceptions[0]!r}")
        except* (LocalProtocolError, ConnectionClosed):
            # The library's reader leaks these: a ping that crosses our close (trio-websocket issue 184), or
            # its answer to a broken frame that finds the socket gone. How it ended is known by then.
            pass
        finally:
            if self._reset and isinstance(stream, trio.SocketStream):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(stream)
        self._ledger.record("phone", "noted", "stream-closed", {"code": end.code, "detail": end.detail})
        return end

    async def _upgrade(
        self, reader: trio.Nursery, stream: trio.abc.Stream, host: str, path: str, signature: str
    ) -> WebSocketConnection | None:
        headers = [(b"X-Twilio-Signature", signature.encode()), (b"User-Agent", b"Twilio.TmeWs/1.0")]
        with trio.move_on_after(HANDSHAKE_SECONDS):
            return await wrap_client_stream(
                reader,
                stream,  # type: ignore[arg-type]  # any Trio stream will do
                host,
                path,
                extra_headers=headers,
                message_queue_size=UNREAD_MESSAGES,
            )
        return None

    async def _carry(self, ws: WebSocketConnection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, ws, nursery.cancel_scope)
            try:
                await self._live(ws)
            except ConnectionClosed:
                pass
            except trio.TooSlowError:
                self._torn = True
            nursery.cancel_scope.cancel()

    def _how_it_ended(self, ws: WebSocketConnection) -> StreamEnd:
        reason = ws.closed
        if self._torn:
            return StreamEnd(False, 31903, "the socket died in mid-stream")
        if reason is None:
            return StreamEnd(hung_up=self._hanging_up, code=0 if self._hanging_up else 31924)
        if reason.code == 1000:
            return StreamEnd(hung_up=self._hanging_up)
        if reason.code == 1002:  # also what the library makes of a frame that it can not parse
            self._ledger.violate("phone", f"the WebSocket protocol was broken: {reason.reason}")
        code = {1002: 31924, 1006: 31903}.get(reason.code, 31921)
        return StreamEnd(False, code, f"the service closed with {reason.code} {reason.reason or ''}".strip())

    async def _close(self, ws: WebSocketConnection, reader: trio.CancelScope) -> None:
        if self._torn:
            reader.cancel()
            return
        reader.deadline = trio.current_time() + CLOSE_SECONDS  # also the reader's wait for the service's FIN
        await ws.aclose(code=self._close_code)

    # ---- what the service sends ------------------------------------------------------------------

    async def _listen(self, ws: WebSocketConnection, stream_scope: trio.CancelScope) -> None:
        try:
            while not self._deaf:
                await self._obey(ws, await ws.get_message())
        except ConnectionClosed:
            stream_scope.cancel()
        except trio.TooSlowError:
            self._torn = True
            stream_scope.cancel()

    async def _obey(self, ws: WebSocketConnection, message: str | bytes) -> None:
        try:
            order = read_order(message, self._writer.stream_sid)
        except Unreadable as error:
            self._ledger.violate("phone", str(error))
            return
        match order:
            case PlayAudio(payload, audio):
                self._ledger.record("phone", "received", "media", {"bytes": len(audio)}, payload)
                if self._playout.queue(audio) and not self._overflowed:
                    self._overflowed = True  # reported once a stream, as the carrier does
                    self._ledger.violate("phone", "more than ten minutes of audio queued (31931)")
            case PlaceMark(name):
                self._ledger.record("phone", "received", "mark", {"name": name})
                await self._echo(ws, self._playout.mark(name))
            case ClearAudio():
                flushed, names = self._playout.clear()
                self._ledger.record("phone", "received", "clear")
                self._ledger.record("phone", "noted", "cleared", {"bytes": flushed})
                await self._echo(ws, names)

    async def _echo(self, ws: WebSocketConnection, names: list[str]) -> None:
        for name in names:
            await self._send(ws, "mark", self._writer.mark(name), {"name": name})

    async def _send(
        self,
        ws: WebSocketConnection,
        event: str,
        message: str,
        fields: Mapping[str, Any] | None = None,
        payload: str | None = None,
    ) -> None:
        if self._mute:
            return
        self._ledger.record("phone", "sent", event, fields, payload)
        with trio.fail_after(SEND_SECONDS):
            await ws.send_message(message)

    # ---- the passing of time ---------------------------------------------------------------------

    async def _live(self, ws: WebSocketConnection) -> None:
        """Twenty milliseconds after twenty milliseconds; frames that are late are caught up in a burst."""
        await self._send(ws, "connected", CONNECTED)
        start = self._writer.start()
        await self._send(ws, "start", start, {"stream_sid": self._writer.stream_sid})
        begun = trio.current_time()
        first_ms = self._rng.randint(*FIRST_TIMESTAMP_MS)
        for frame in itertools.count():
            for kind in self._mishaps.due(trio.current_time()):
                if not await self._suffer(kind, ws):
                    return
            due = begun + first_ms / 1000 + frame * FRAME_SECONDS
            await trio.sleep_until(due + self._rng.uniform(0, JITTER_SECONDS))
            if self._hanging_up:
                await self._send(ws, "stop", self._writer.stop())
                return
            await self._live_frame(ws, first_ms + 20 * frame)

    async def _live_frame(self, ws: WebSocketConnection, timestamp_ms: int) -> None:
        heard, passed_marks = self._playout.play_frame()
        moment = self._callee.live_frame(heard)
        self.heard += heard
        self.said += moment.said
        now = trio.current_time()
        for notice in moment.notices:
            happened_at = now - notice.frames_ago * FRAME_SECONDS
            self._ledger.record("phone", "noted", notice.event, {**notice.fields, "happened_at": happened_at})
            self._notice(notice.event)
        if not self._frozen:
            payload = base64.b64encode(moment.said).decode()
            message = self._writer.media(payload, timestamp_ms)
            await self._send(ws, "media", message, {"timestamp": timestamp_ms}, payload)
        await self._echo(ws, passed_marks)
        if moment.pressed is not None:
            await self._send(ws, "dtmf", self._writer.dtmf(moment.pressed), {"digit": moment.pressed})
        if moment.hung_up:
            self._ledger.record("phone", "noted", "callee-hung-up")
            self.hang_up()

    # ---- mishaps ---------------------------------------------------------------------------------

    async def _suffer(self, kind: str, ws: WebSocketConnection) -> bool:
        """Let a fault of the scenario happen; whether the stream goes on after it."""
        self._ledger.record("phone", "noted", "mishap", {"kind": kind})
        word, _, code = kind.partition(":")
        match word:
            case "rst" | "fin":
                self._torn = True
                self._reset = word == "rst"
                return False
            case "close":
                self._close_code = int(code)
                return False
            case "garbage":
                for _ in range(GARBAGE_MESSAGES):
                    await self._send(ws, "garbage", '{"event": "media", ')
            case "binary":
                with trio.fail_after(SEND_SECONDS):
                    await ws.send_message(b"\xff" * 160)
            case "oversize":
                await self._send(ws, "oversize", '{"event":"' + "x" * OVERSIZE_CHARACTERS + '"}')
            case "duplicate-start":
                await self._send(
                    ws, "start", self._writer.start(FOREIGN_STREAM), {"stream_sid": FOREIGN_STREAM}
                )
            case "stop-reading":
                self._deaf = True
            case "stop-media":
                self._frozen = True
            case "mute":
                self._mute = True
            case _:
                raise ValueError(f"{kind!r} is not a mishap of the phone's leg")
        return True
