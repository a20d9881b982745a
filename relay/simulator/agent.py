"""The emulated voice agent: AssemblyAI's end of the socket, as measured on the live service.

It must not know the service that connects to it, nor the telephone: it sees one WebSocket.
"""

from __future__ import annotations

import json
import random
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from relay.simulator.conversation import FAULTS_OF_TALK, MOMENTS, Conversation
from relay.simulator.ledger import Ledger
from relay.simulator.outbox import Outbox
from relay.simulator.scenario import Scenario
from relay.simulator.session_config import (
    CLIENT_EVENTS,
    FATAL_ERRORS,
    RefusedUpdate,
    SessionConfig,
    read_first_update,
    read_later_update,
)
from relay.simulator.speech import Voices

PATH = "/v1/ws"
HANDSHAKE_SECONDS = 5.0
UPDATE_SECONDS = 0.25  # from our reading of the first update to session.updated
READY_SECONDS = 0.017  # from there to session.ready
SESSION_SECONDS = 3595  # what `expires_at` promises on the live service
GRACE_SECONDS = 30.0  # documented: for so long a session outlives its socket, and is billed
STALL_SECONDS = 15.0  # how long "stop-reading" lasts; then this end reads again and sees what became of it
# The queue between the library's reader and ours. When it is full the library stops reading, pongs included:
# it is so only while the scenario says that this end does not read.
UNREAD_MESSAGES = 64

POLICY_VIOLATION = 1008
# How the session opens: faults that are no event of the connection but a change in what is sent.
_OPENING_FAULTS = frozenset({"wrong-format", "never-ready", "ready-without-config"})

Session = Mapping[str, Any]


class AgentEmulator:
    """Serves any number of sessions at once.

    `script_for` and `ledger_for` choose by the `session` object of the first update; they are asked with an
    empty one at the upgrade, when nothing is known yet.
    """

    def __init__(
        self,
        api_key: str,
        script_for: Callable[[Session], Scenario],
        ledger_for: Callable[[Session], Ledger],
        voices: Voices,
        rng: random.Random,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.script_for = script_for
        self.ledger_for = ledger_for
        self.voices = voices
        self.rng = rng
        self.wall_clock = wall_clock
        self._api_key = api_key
        self._sessions: dict[str, _Connection] = {}  # that can be resumed, by their id

    def keep(self, session_id: str, connection: _Connection) -> None:
        """A session is ready on this connection; those whose grace is over are forgotten."""
        self._sessions = {id_: kept for id_, kept in self._sessions.items() if kept.is_resumable}
        self._sessions[session_id] = connection

    def take(self, session_id: str, token: str) -> _Connection | None:
        """Give a session away to whoever has its token; nobody can take it twice from one connection."""
        kept = self._sessions.get(session_id)
        if kept is None or not kept.is_resumable or kept.resume_token != token:
            return None
        return self._sessions.pop(session_id)

    def learn(self, text: str) -> None:
        """The callee is about to say this, which no scenario has foreseen."""
        for kept in self._sessions.values():
            if kept._conversation is not None:
                kept._conversation.learn(text)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end, over any stream, and leave nothing open."""
        try:
            async with trio.open_nursery() as reader:
                request = await self._upgrade(reader, stream)
                if request is not None:
                    ws = await request.accept()  # waits for nothing but room in the socket's empty buffer
                    credential = self._credential(request)
                    await _Connection(self, stream, ws, credential).run(self._authorises(credential))
                reader.cancel_scope.cancel()
        except* (ConnectionClosed, LocalProtocolError):
            # trio-websocket's reader leaks these when a peer vanishes while it answers a frame.
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _upgrade(self, reader: trio.Nursery, stream: trio.abc.Stream) -> WebSocketRequest | None:
        """Wait for the request. Every one is accepted, whatever its key, unless the scenario refuses it."""
        with trio.move_on_after(HANDSHAKE_SECONDS):
            request = await wrap_server_stream(reader, stream, message_queue_size=UNREAD_MESSAGES)
            refusals = [f.kind for f in self.script_for({}).fault if f.kind.startswith("refuse:")]
            if not refusals:
                return request
            self.ledger_for({}).record("agent", "sent", "refusal", {"status": refusals[0]})
            await request.reject(int(refusals[0].removeprefix("refuse:")))
        return None

    def _credential(self, request: WebSocketRequest) -> str:
        """The live service takes the bare key as well as the documented `Bearer` form."""
        headers = {name.lower(): value.decode("latin-1") for name, value in request.headers}
        path = request.path.partition("?")[0]
        if path != PATH:
            self.ledger_for({}).violate("agent", f"the path of the upgrade is {path}, not {PATH}")
        return headers.get(b"authorization", "").removeprefix("Bearer ")

    def _authorises(self, credential: str) -> bool:
        """The account's key opens any session, a resume token its own one."""
        tokens = (kept.resume_token for kept in self._sessions.values() if kept.is_resumable)
        return credential == self._api_key or credential in tokens


async def serve_agent(
    emulator: AgentEmulator, port: int = 0, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve on a loopback port until cancelled; reports the port."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    task_status.started(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(emulator.serve, listeners)


class _Connection:
    """One session on one socket."""

    def __init__(
        self, emulator: AgentEmulator, stream: trio.abc.Stream, ws: WebSocketConnection, credential: str
    ) -> None:
        self.resume_token = ""
        self._credential = credential
        self._lost_at: float | None = None
        self._is_over = False  # ended, refused or expired: never to be resumed
        self._emulator = emulator
        self._ws = ws
        self._scenario = emulator.script_for({})
        self._ledger = emulator.ledger_for({})
        self._outbox = Outbox(ws, stream, self._ledger, emulator.wall_clock)
        self._session_id = f"sess_{emulator.rng.getrandbits(128):032x}"
        self._config: SessionConfig | None = None
        self._conversation: Conversation | None = None
        self._opened_at = trio.current_time()

    async def run(self, authorised: bool) -> None:
        """Until the socket is closed, by either side."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._converse, nursery, authorised)
                await self._outbox.run()
                nursery.cancel_scope.cancel()
        finally:
            self._lost_at = trio.current_time()
        closed = self._ws.closed
        self._ledger.record("agent", "noted", "closed", {"code": closed.code if closed else None})

    @property
    def is_resumable(self) -> bool:
        """Whether the session outlives its socket: it is not over, nor is its grace."""
        is_late = self._lost_at is not None and trio.current_time() > self._lost_at + GRACE_SECONDS
        return not (self._is_over or is_late)

    # What comes in

    async def _converse(self, nursery: trio.Nursery, authorised: bool) -> None:
        if not authorised:
            self._report("unauthorized", "Authentication failed", session_id=None)
        with trio.move_on_after(SESSION_SECONDS) as session:
            await self._listen(nursery)
        if session.cancelled_caught:
            self._report("session_expired", "Session has expired")
        else:
            nursery.cancel_scope.cancel()

    async def _listen(self, nursery: trio.Nursery) -> None:
        try:
            while True:
                if self._outbox.stalled:
                    await trio.sleep(STALL_SECONDS)
                    self._outbox.stalled = False
                message = await self._ws.get_message()
                if not self._outbox.closing:
                    self._take(message, nursery)
        except ConnectionClosed:
            return

    def _take(self, message: str | bytes, nursery: trio.Nursery) -> None:
        try:
            event = json.loads(message) if isinstance(message, str) else None
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self._reject("invalid_format", "Invalid JSON format.")
            return
        kind = str(event.get("type"))
        opening = self._config is None and kind == "session.update"
        if opening and isinstance(event.get("session"), dict):
            self._scenario = self._emulator.script_for(event["session"])
            self._ledger = self._outbox.ledger = self._emulator.ledger_for(event["session"])
        fields = {name: value for name, value in event.items() if name not in ("type", "audio")}
        self._ledger.record("agent", "received", kind, fields, event.get("audio"))
        if opening:
            self._take_first_update(event.get("session"), nursery)
        elif not self._obey(kind, event, nursery):
            known = f"Invalid message format for type '{kind}'"
            unknown = f"Unknown message type: {kind}"
            self._reject("invalid_format", known if kind in CLIENT_EVENTS else unknown)

    def _obey(self, kind: str, event: dict[str, Any], nursery: trio.Nursery) -> bool:
        """Act on a message after the first update; whether it had a form that is known."""
        if kind == "session.end":
            self._end()
        elif self._config is None:
            return self._resume(event, nursery)
        elif kind == "session.update":
            self._take_later_update(event.get("session"), self._config)
        elif self._conversation is not None:
            return self._talk(event, self._conversation)
        else:
            self._ledger.violate("agent", f"{kind} before session.ready")
        return True

    def _talk(self, event: dict[str, Any], conversation: Conversation) -> bool:
        match event:
            case {"type": "input.audio", "audio": str(audio)}:
                self._hear(audio, conversation)
            case {"type": "tool.result", "call_id": str(call_id), "result": str()}:
                wrong = conversation.take_result(call_id)
                if wrong is not None:
                    self._ledger.violate("agent", wrong)
            case {"type": "reply.create", "instructions": str(instructions)}:
                conversation.speak_as_told(instructions)
            case {"type": "reply.create"} if "instructions" not in event:
                conversation.speak_as_told("")
            case {"type": "reply.cancel", "reply_id": str(reply_id)}:
                conversation.cancel_reply(reply_id)
            case {"type": "conversation.message", "role": "user" | "system", "content": str()}:
                pass  # accepted by the live service, without any effect
            case _:
                return False
        return True

    def _hear(self, audio: str, conversation: Conversation) -> None:
        try:
            conversation.hear(b64decode(audio, validate=True))
        except ValueError:
            self._reject("invalid_audio", "Invalid audio data")

    def _resume(self, event: dict[str, Any], nursery: trio.Nursery) -> bool:
        """Take a lost session up again: nothing is replayed, and what was being said is gone.

        Tried eight times on the live service without the token, it never worked, and this was the answer.
        """
        if event.get("type") != "session.resume" or not isinstance(event.get("session_id"), str):
            return False
        lost = self._emulator.take(event["session_id"], self._credential)
        if lost is not None:
            self._scenario, self._ledger = lost._scenario, lost._ledger
            self._outbox.ledger = lost._ledger
        if lost is None or lost._conversation is None or not self._scenario.agent.resumes:
            self._report("session_not_found", "Session not found or grace window has expired")
            return True
        lost._outbox.abandon()  # it may not know yet that its socket is lost
        self._session_id, self._config = lost._session_id, lost._config
        self._conversation = lost._conversation
        self._conversation.move(self._outbox.emit, self._strike)
        nursery.start_soon(self._go_on, self._conversation)
        return True

    async def _go_on(self, conversation: Conversation) -> None:
        await trio.sleep(READY_SECONDS)
        self._outbox.emit("session.ready", **self._ready_fields(conversation.config, []))
        await conversation.run()

    def _take_first_update(self, session: object, nursery: trio.Nursery) -> None:
        try:
            self._config = read_first_update(session, self._scenario.agent.stored)
        except RefusedUpdate as refusal:
            if refusal.param != "output.voice":  # the list of voices changes without notice: not our fault
                self._ledger.violate("agent", f"session.update refused: {refusal.param}: {refusal.message}")
            fatal = refusal.code != "invalid_format"
            self._report(refusal.code, refusal.message, fatal, param=refusal.param)
        else:
            nursery.start_soon(self._open, self._config)

    def _take_later_update(self, session: object, before: SessionConfig) -> None:
        try:
            self._config = read_later_update(session, before)
        except RefusedUpdate as refusal:
            self._reject(refusal.code, refusal.message, param=refusal.param)
            return
        if self._conversation is not None:
            self._conversation.config = self._config
        self._outbox.emit("session.updated", config=self._config.echo(self._session_id))

    # The session

    async def _open(self, config: SessionConfig) -> None:
        faults = self._scenario.faults("agent", "before-ready")
        for kind in self._unspent("before-ready"):
            if kind not in _OPENING_FAULTS | FAULTS_OF_TALK and not kind.startswith("refuse:"):
                self._strike(kind)
        await trio.sleep(UPDATE_SECONDS)
        self._outbox.emit("session.updated", config=config.echo(self._session_id))
        await trio.sleep(READY_SECONDS)
        if "never-ready" in faults:
            return
        self._outbox.emit("session.ready", **self._ready_fields(config, faults))
        self._conversation = Conversation(
            self._scenario,
            config,
            self._emulator.voices,
            self._emulator.rng,
            self._outbox.emit,
            self._strike,
            {at: self._unspent(at) for at in MOMENTS},
        )
        async with trio.open_nursery() as nursery:
            for at in {fault.at for fault in self._scenario.fault if fault.at.startswith("seconds:")}:
                for kind in self._unspent(at):
                    after_seconds = float(at.removeprefix("seconds:"))
                    nursery.start_soon(self._strike_later, self._conversation, after_seconds, kind)
            await self._conversation.run()

    def _unspent(self, at: str) -> list[str]:
        """What strikes this session at that moment: each fault strikes a call as often as it says."""
        struck = Counter(str(e.fields["kind"]) for e in self._ledger.select("agent", "noted", "mishap"))
        unspent = []
        for fault in (fault for fault in self._scenario.fault if fault.leg == "agent"):
            if fault.at == at and struck[fault.kind] < fault.times:
                unspent.append(fault.kind)
            struck[fault.kind] -= fault.times
        return unspent

    async def _strike_later(self, conversation: Conversation, after_seconds: float, kind: str) -> None:
        await trio.sleep(after_seconds)
        conversation.fail(kind)

    def _ready_fields(self, config: SessionConfig, faults: list[str]) -> dict[str, Any]:
        self.resume_token = f"{self._emulator.rng.getrandbits(128):032x}"
        self._emulator.keep(self._session_id, self)
        fields: dict[str, Any] = {
            "session_id": self._session_id,
            "expires_at": int(self._emulator.wall_clock()) + SESSION_SECONDS,
            "resume_token": self.resume_token,
        }
        if "ready-without-config" not in faults:
            fields["config"] = config.echo(self._session_id)
        if "wrong-format" in faults:
            fields["config"]["output"]["format"] = {"encoding": "audio/pcm", "sample_rate": 24000}
        return fields

    def _end(self) -> None:
        seconds = trio.current_time() - self._opened_at
        self._outbox.emit("session.ended", session_duration_seconds=seconds, audio_duration_seconds=None)
        self._is_over = True
        self._outbox.close(1000)

    def _reject(self, code: str, message: str, param: str | None = None) -> None:
        """What the service did is against the protocol, but does not end the session."""
        self._ledger.violate("agent", f"{code}: {message}")
        self._report(code, message, fatal=False, param=param)

    def _report(self, code: str, message: str, fatal: bool = True, **fields: Any) -> None:
        """Send a session.error; `session_id` and `param` are null where they do not apply."""
        nullable = {"session_id": self._session_id, "param": None, **fields}
        self._outbox.emit("session.error", code=code, message=message, **nullable)
        if fatal:
            self._is_over = True
            self._outbox.close(POLICY_VIOLATION)

    def _strike(self, kind: str) -> None:
        self._ledger.record("agent", "noted", "mishap", {"kind": kind})
        if kind.startswith("error:"):
            code = kind.removeprefix("error:")
            self._report(code, "Injected", fatal=code in FATAL_ERRORS or self._conversation is None)
        else:
            self._outbox.strike(kind)
