"""The agent's half of a call: one session after another, each on a socket of its own.

Knows no phone and no other call; whether there is to be another session is decided by the dialogue.

A loss is only noted where it is found: `run` reports it, once a socket, when that socket's tasks are gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

import structlog
import trio

from relay.actions import Action, OpenSession, RetryWithoutVoice
from relay.dialogue import Dialogue
from relay.handshake import HandshakeRefused
from relay.legs import Crossing, Leg
from relay.outcomes import Blame, Ending, LegClosed, Reason, WireError
from relay.script import recital, resume
from relay.session_faults import Fault, handshake_refused, socket_lost
from relay.terms import Diary, Terms
from relay.wire import agent as agent_wire

REDIAL_SECONDS = 0.25  # after a loss: a server that goes away refuses at first, and says so in no time
SESSION_END_SECONDS = 0.25  # after a fault the goodbye is sent, not awaited
PAST_LINES = 200  # of the conversation, the newest; the prompt of a fresh session takes fewer

OpenAgent = Callable[[str | None], Awaitable[Leg]]
"""Dials the agent, with the account's key or with the resume token that is given."""

log = structlog.get_logger(subsystem="calls")


class AgentHalf:
    """Keeps a session open for as long as the dialogue wants one."""

    def __init__(
        self,
        *,
        open_agent: OpenAgent,
        terms: Terms,
        dialogue: Dialogue,
        perform: Callable[[Sequence[Action]], None],
        unread: Callable[[Leg, WireError], Ending | None],
        end: Callable[[Ending], None],
        diary: Diary,
    ) -> None:
        self.leg: Leg | None = None  # none while there is none to send to
        self.billed_seconds = 0.0  # how long sockets were open that are closed: what AssemblyAI charges for
        self._unclosed: Leg | None = None  # also one that was given up
        self._opened_at = 0.0
        self.received_at = trio.current_time()  # the message that is being answered
        self._open_agent = open_agent
        self._session = dict(terms.session)
        self._dialogue = dialogue
        self._perform = perform
        self.crossing: Crossing | None = None  # for what it says; made when both halves are there
        self._unread = unread
        self._end = end
        self._diary = diary
        self._past: list[tuple[str, str]] = []  # the newest
        self._name: tuple[str, str | None] = ("", None)  # of the last session that was ready, and its token
        self._first = self._opens = OpenSession(resume=False, heard=terms.heard)
        self._next: OpenSession | None = self._first
        self._fault: Fault | None = None
        self._socket = trio.CancelScope()  # around whatever uses it

    @property
    def had_session(self) -> bool:
        """Whether a session was ever ready."""
        return bool(self._name[0])

    # ---- what the call asks for --------------------------------------------------------------------

    def send(self, text: bytes) -> None:
        """Send, if there is anybody to send to. A loss is not raised here: the phone's half goes on."""
        if self.leg is not None:
            try:
                self.leg.send(text)
            except LegClosed as lost:
                self._lose(socket_lost(lost))

    def put(self, leg: Leg, frames: bytes, sent: int) -> None:
        """Send whole frames on its leg, of which so many bytes have left. A loss as with `send`."""
        try:
            leg.put(frames, sent)
        except LegClosed as lost:
            self._lose(socket_lost(lost))

    def remember(self, role: str, text: str) -> None:
        """Something that a fresh session is to know."""
        self._past.append((role, text))
        del self._past[:-PAST_LINES]

    def correct(self, said: str, heard: str) -> None:
        """Of what the agent said last the callee has heard no more than this."""
        for position in range(len(self._past) - 1, -1, -1):
            if self._past[position] == ("agent", said):
                self._past[position] = ("agent", heard)
                return

    def reopen(self, wanted: OpenSession) -> None:
        """Give the session up for another one."""
        self._next = wanted
        self._abandon()

    def drop_voice(self, refused: RetryWithoutVoice) -> None:
        """The configured voice was refused: open the same session without one."""
        output = dict(self._session.get("output", {}))  # none of a stored agent
        if output.pop("voice", None) is None:
            self._lose(Fault(Ending(Blame.AGENT, Reason.REFUSED, refused.detail)))
            return
        log.warning(
            "voice refused", detail=refused.detail, remedy="choose another AGENT_VOICE or leave it unset"
        )
        self._diary.noted("voice refused", {})
        self._session["output"] = output
        self.reopen(self._opens)

    async def leave(self, *, ended_seconds: float) -> None:
        """End the session that is open, wait so long for its last word, and close. Never raises LegClosed."""
        if self.leg is not None:
            await self._close(self.leg, ended_seconds=ended_seconds)
        await self.abort()

    async def abort(self) -> None:
        """Close at once whatever is open still."""
        leg, self._unclosed = self._unclosed, None
        if leg is not None:
            self.billed_seconds += trio.current_time() - self._opened_at
            await leg.abort()

    # ---- one socket after another ------------------------------------------------------------------

    async def run(self) -> None:
        """Until the dialogue wants no other session; what it waits for then has a deadline of its own."""
        while (opens := self._take_next()) is not None:
            self._opens = opens
            with trio.CancelScope() as self._socket:
                await self._use_socket(opens)
            fault, self._fault = self._fault, None
            if fault is not None and self._next is None:
                try:
                    self._perform(self._dialogue.on_agent_lost(fault, trio.current_time()))
                except LegClosed as lost:
                    self._end(lost.ending)
            await self._let_go(fault)
            if fault is not None and self._next is not None:
                await trio.sleep(REDIAL_SECONDS)

    def _take_next(self) -> OpenSession | None:
        taken, self._next = self._next, None
        return taken

    async def _use_socket(self, opens: OpenSession) -> None:
        session_id, token = self._name
        try:
            leg = await self._open_agent(token if opens.resume else None)
        except LegClosed as lost:
            self._lose(socket_lost(lost))
            return
        except HandshakeRefused as refused:
            self._lose(handshake_refused(refused.status))
            return
        self.leg = leg
        self._unclosed, self._opened_at = leg, trio.current_time()
        self.send(
            agent_wire.session_resume(session_id)
            if opens.resume
            else agent_wire.session_update(self._session_for(opens))
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tend, leg.write, name="agent writer")
            nursery.start_soon(self._tend, leg.beat, name="agent heartbeat")
            await self._pump(leg)

    def _session_for(self, opens: OpenSession) -> Mapping[str, Any]:
        if opens is self._first:
            return self._session
        if opens.says is not None:
            return recital(self._session, opens.says)
        return resume(self._session, self._past, heard=opens.heard)

    async def _pump(self, leg: Leg) -> None:
        try:
            while self.leg is leg:  # one read may hold more than what made us give it up
                text = await leg.receive(self.crossing)
                now = trio.current_time()
                try:
                    message = agent_wire.decode(text)
                except WireError as problem:
                    if ending := self._unread(leg, problem):
                        self._lose(Fault(ending))
                    continue
                leg.unreadable = 0
                self.received_at = now
                if isinstance(message, agent_wire.SessionReady):
                    self._name = (message.session_id, message.resume_token)
                    self._diary.noted("session", {"session_id": message.session_id})
                self._perform(self._dialogue.on_agent(message, now))
        except LegClosed as lost:
            self._lost(lost)

    async def _tend(self, care: Callable[[], Awaitable[NoReturn]]) -> None:
        """Write or ping until the socket is lost."""
        try:
            await care()
        except LegClosed as lost:
            self._lost(lost)

    def _lost(self, lost: LegClosed) -> None:
        if lost.leg is Blame.AGENT:
            self._lose(socket_lost(lost))
        else:  # the phone, in the middle of what the dialogue wanted
            self._end(lost.ending)

    def _lose(self, fault: Fault) -> None:
        """The first to notice names the fault; what follows from it is no news."""
        self._fault = self._fault or fault
        self._abandon()

    def _abandon(self) -> None:
        self.leg = None
        self._socket.cancel()

    async def _let_go(self, fault: Fault | None) -> None:
        """Close what was given up. A session that is to be resumed is not ended: it would be gone."""
        leg = self._unclosed
        if leg is None:
            return
        if fault is None or fault.ending.reason not in (Reason.SILENT, Reason.STALLED):
            if self._next is not None and self._next.resume:
                await leg.close()
            else:
                await self._close(leg, ended_seconds=0.0)
        await self.abort()  # all there is to do where nobody would answer a close frame

    async def _close(self, leg: Leg, *, ended_seconds: float) -> None:
        try:
            with trio.move_on_after(SESSION_END_SECONDS):
                await leg.send_last(agent_wire.session_end())
            with trio.move_on_after(ended_seconds):
                while b'"session.ended"' not in await leg.receive():
                    pass
        except LegClosed:
            pass
        await leg.close()
