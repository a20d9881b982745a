"""One phone call: two legs, one nursery, one ending.

Knows no HTTP, no store and no other call; what to do is decided by the dialogue, this module only does it.

The sockets outlive the tasks: `end` cancels the scope of the pumps; when those are gone both legs are still
open and nobody is cancelled, so that goodbyes need no shield.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import NoReturn

import structlog
import trio

from relay.actions import (
    Action,
    CancelReply,
    ClearPhoneAudio,
    CreateReply,
    EndCall,
    ForwardToAgent,
    Note,
    OptOut,
    PlayOnPhone,
    RetryWithoutVoice,
    RunTool,
    SendMark,
    SendToolResult,
    Transcribe,
    TurnAnswered,
)
from relay.dialogue import Dialogue
from relay.legs import HandshakeRefused, Leg
from relay.outcomes import Blame, Ending, LegClosed, Reason, WireError
from relay.terms import Diary, Terms
from relay.tool_runs import TOOL_CALLS
from relay.tools import Toolbox
from relay.wire import agent as agent_wire
from relay.wire import phone as phone_wire

MEDIA_SILENCE_SECONDS = 5.0  # Twilio sends 50 frames a second, also while nobody speaks
WIND_UP_SECONDS = 15.0  # before the cap: time for one sentence and its goodbye
HARD_GRACE_SECONDS = 2.0  # past the cap everything is cancelled, whatever it was doing
SESSION_ENDED_SECONDS = 1.0  # after a goodbye: a bare close is billed for 30 s more
SESSION_END_SECONDS = 0.25  # after a fault the goodbye is sent, not awaited
UNREADABLE_MESSAGES = 10  # in a row; one corrupt message is dropped and counted

log = structlog.get_logger()


class Call:
    """The bridge between a person and an agent, for as long as it lasts."""

    def __init__(
        self,
        *,
        phone: Leg,
        stream_sid: str,
        open_agent: Callable[[], Awaitable[Leg]],
        terms: Terms,
        tools: Toolbox,
        diary: Diary,
        hang_up: Callable[[Ending], Awaitable[None]],
        answered_at: float,
    ) -> None:
        now = trio.current_time()
        self.ending: Ending | None = None
        self.frames_to_agent = 0
        self.frames_to_phone = 0
        self.unreadable = 0
        self._phone = phone
        self._agent: Leg | None = None
        self._stream_sid = stream_sid
        self._open_agent = open_agent
        self._session = dict(terms.session)
        self._tools = tools
        self._diary = diary
        self._hang_up = hang_up
        self._dialogue = Dialogue(
            stream_sid,
            now=now,
            barge_in=terms.barge_in,
            interruptible=terms.interruptible,
            lead_silence_seconds=terms.lead_silence_seconds,
            opt_out_key=terms.opt_out_key,
            opted_out_clip=terms.opted_out_clip,
            language=terms.language,
            heard=terms.heard,
        )
        self._live = trio.CancelScope()
        self._cap_at = answered_at + terms.time_limit_seconds
        self._wind_up_at = self._cap_at - min(WIND_UP_SECONDS, terms.time_limit_seconds / 4)
        self._last_media_at = now
        self._received_at = now  # the agent's message that is being answered
        self._alarm = trio.CancelScope()
        self._alarm_at = now
        # Never full: the dialogue admits no more runs in one call. One read may hold many of them.
        self._tool_calls, self._tool_desk = trio.open_memory_channel[RunTool](TOOL_CALLS)

    @property
    def counts(self) -> dict[str, int]:
        """What was counted, for the record."""
        return {
            "frames_to_agent": self.frames_to_agent,
            "frames_to_phone": self.frames_to_phone,
            "unreadable_messages": self.unreadable,
            **asdict(self._dialogue.tally),
        }

    # ---- life ------------------------------------------------------------------------------------

    def end(self, ending: Ending) -> None:
        """Record why the call is over and stop its tasks. The first cause wins, and an opt-out is one.

        After an opt-out a fault of the agent's ends nothing: our last sentence does not need it.
        """
        left = self._dialogue.opted_out
        if self.ending is None and not (left and ending.blame is Blame.AGENT):
            self.ending = left or ending
            self._live.cancel(reason=self.ending.reason)

    def opt_out(self) -> None:
        """The number was listed while the call is live: tell the callee so and end, within 5 s."""
        if self.ending is None:
            self._attempt(partial(self._dialogue.opt_out, "list"), trio.current_time())

    def wind_up(self, ending: Ending, *, within_seconds: float) -> None:
        """Have the agent say goodbye; the call ends with `ending`, at the latest after `within_seconds`."""
        if self.ending is None:
            self._attempt(
                lambda now: self._dialogue.wind_up(ending, now, within_seconds=within_seconds),
                trio.current_time(),
            )

    async def run(self) -> Ending:
        """Bridge until someone calls `end`, then say goodbye on both legs and close them.

        Expected endings are returned; only bugs raise. Past cap and HARD_GRACE_SECONDS nothing is waited for.
        """
        with trio.CancelScope(deadline=self._cap_at + HARD_GRACE_SECONDS):
            try:
                try:
                    await self._bridge()
                except* (
                    Exception
                ) as bugs:  # the far ends are owed a goodbye even so: a bare close is billed on
                    self.end(Ending(Blame.US, Reason.CRASHED, type(bugs.exceptions[0]).__name__))
                    await self._take_leave(self.ending or _OVERDUE)  # noqa: ASYNC120 - cancelled past the cap
                    raise
                await self._take_leave(self.ending or _OVERDUE)
            finally:
                # Side by side: each one closes, even where we are cancelled.
                async with trio.open_nursery() as nursery:
                    for leg in self._legs():
                        nursery.start_soon(leg.abort, name="abort")
        return self.ending or _OVERDUE

    async def _bridge(self) -> None:
        with self._live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump_phone, name="inbound pump")
                nursery.start_soon(self._tend, self._phone.write, name="phone writer")
                nursery.start_soon(self._tend, self._phone.beat, name="phone heartbeat")
                nursery.start_soon(self._run_agent, name="outbound pump")
                nursery.start_soon(self._watch, name="watchdog")
                nursery.start_soon(self._serve_tools, name="tool desk")

    async def _take_leave(self, ending: Ending) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hang_up, ending, name="hang-up")
            nursery.start_soon(self._phone.close, name="phone goodbye")
            if self._agent is not None:
                nursery.start_soon(self._leave_agent, self._agent, ending, name="agent goodbye")

    async def _leave_agent(self, leg: Leg, ending: Ending) -> None:
        try:
            with trio.move_on_after(SESSION_END_SECONDS):
                await leg.send_last(agent_wire.session_end())
            if self._dialogue.said_goodbye and ending.blame is not Blame.AGENT:
                with trio.move_on_after(SESSION_ENDED_SECONDS):
                    while b'"session.ended"' not in await leg.receive():
                        pass
        except LegClosed:
            pass
        await leg.close()

    # ---- the pumps -------------------------------------------------------------------------------

    async def _pump_phone(self) -> None:
        unreadable = 0
        try:
            while True:
                text = await self._phone.receive()
                now = trio.current_time()
                try:
                    message = phone_wire.decode(text)
                except WireError as problem:
                    unreadable += 1
                    self._unread(Blame.CARRIER, unreadable, problem)
                    continue
                unreadable = 0
                if isinstance(message, phone_wire.Media):
                    self._last_media_at = now
                self._perform(self._dialogue.on_phone(message, now))
        except LegClosed as lost:
            self.end(lost.ending)

    async def _run_agent(self) -> None:
        while True:
            leg = await self._dial_agent()
            if leg is None:
                return
            self._agent = leg
            retry = False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tend, leg.write, name="agent writer")
                nursery.start_soon(self._tend, leg.beat, name="agent heartbeat")
                retry = await self._pump_agent(leg)
                nursery.cancel_scope.cancel()
            if not retry:
                return
            await leg.close()

    async def _dial_agent(self) -> Leg | None:
        """An open leg; None when the call ended instead. The dialogue's READY alarm bounds the dial."""
        try:
            return await self._open_agent()
        except LegClosed as lost:
            self.end(lost.ending)
        except HandshakeRefused as refused:
            reason = Reason.UNAUTHORIZED if refused.status in (401, 403) else Reason.REFUSED
            self.end(Ending(Blame.AGENT, reason, str(refused)))
        return None

    async def _pump_agent(self, leg: Leg) -> bool:
        """Read the agent until the call ends; True when the session is to be reopened without its voice."""
        unreadable = 0
        try:
            leg.send(agent_wire.session_update(self._session))
            while True:
                text = await leg.receive()
                now = trio.current_time()
                try:
                    message = agent_wire.decode(text)
                except WireError as problem:
                    unreadable += 1
                    self._unread(Blame.AGENT, unreadable, problem)
                    continue
                unreadable = 0
                self._received_at = now
                if isinstance(message, agent_wire.SessionReady):
                    self._diary.noted("session", {"session_id": message.session_id})
                actions = self._dialogue.on_agent(message, now)
                if actions and isinstance(actions[0], RetryWithoutVoice):
                    if self._drop_voice(actions[0]):
                        return True
                    continue
                self._perform(actions)
        except LegClosed as lost:
            self.end(lost.ending)
        return False

    def _drop_voice(self, refused: RetryWithoutVoice) -> bool:
        output = dict(self._session["output"])
        if output.pop("voice", None) is None:
            self.end(Ending(Blame.AGENT, Reason.REFUSED, refused.detail))
            return False
        log.warning(
            "voice refused", detail=refused.detail, remedy="choose another AGENT_VOICE or leave it unset"
        )
        self._diary.noted("voice refused", {})
        self._session["output"] = output
        return True

    def _unread(self, blame: Blame, in_a_row: int, problem: WireError) -> None:
        self.unreadable += 1
        if in_a_row == 1:
            self._diary.noted("unreadable message", {"leg": blame.value})
        if in_a_row >= UNREADABLE_MESSAGES:
            self.end(Ending(blame, Reason.PROTOCOL, f"{in_a_row} unreadable messages in a row: {problem}"))

    async def _tend(self, care: Callable[[], Awaitable[NoReturn]]) -> None:
        """Write or ping for a leg until it is lost."""
        try:
            await care()
        except LegClosed as lost:
            self.end(lost.ending)

    # ---- doing what the dialogue says ------------------------------------------------------------

    def _attempt(self, decide: Callable[[float], Sequence[Action]], now: float) -> None:
        try:
            self._perform(decide(now))
        except LegClosed as lost:
            self.end(lost.ending)

    def _perform(self, actions: Sequence[Action]) -> None:
        """Do it now, in order: no await between what was decided and what is sent. Raises LegClosed."""
        for action in actions:
            if isinstance(action, ForwardToAgent):
                self._to_agent(agent_wire.input_audio(action.payload))
                self.frames_to_agent += 1
            elif isinstance(action, PlayOnPhone):
                self._phone.send(phone_wire.media(self._stream_sid, action.payload))
                self.frames_to_phone += 1
            else:
                self._perform_seldom(action)
        if self._dialogue.deadline < self._alarm_at:
            self._alarm.deadline = self._alarm_at = self._dialogue.deadline

    def _perform_seldom(self, action: Action) -> None:
        match action:
            case ClearPhoneAudio():
                self._phone.send(phone_wire.clear(self._stream_sid))
            case SendMark(name):
                self._phone.send(phone_wire.mark(self._stream_sid, name))
            case RunTool():
                self._tool_calls.send_nowait(action)
                if self._tools.opts_out(action.name):  # not after its run: the callee may hang up meanwhile
                    self._perform(self._dialogue.opt_out("tool", trio.current_time()))
            case SendToolResult(call_id, result, is_error):
                self._to_agent(agent_wire.tool_result(call_id, result, is_error=is_error))
            case CreateReply(instructions):
                self._to_agent(agent_wire.reply_create(instructions))
            case CancelReply(reply_id):
                self._to_agent(agent_wire.reply_cancel(reply_id))
            case Transcribe(role, text, interrupted):
                self._diary.said(role, text, interrupted=interrupted)
            case TurnAnswered(agent_seconds):
                self._diary.turn_answered(agent_seconds, trio.current_time() - self._received_at)
            case OptOut(how):
                self._diary.opted_out(how)
            case Note(event, fields):
                self._diary.noted(event, fields)
            case EndCall(ending):
                self.end(ending)

    def _to_agent(self, text: bytes) -> None:
        if self._agent is not None:
            try:
                self._agent.send(text)
            except LegClosed as lost:  # here, so that what is said to the phone is not lost with it
                self.end(lost.ending)

    # ---- tools -----------------------------------------------------------------------------------

    async def _serve_tools(self) -> None:
        async with trio.open_nursery() as nursery:
            async for run in self._tool_desk:
                nursery.start_soon(self._run_tool, run, name=f"tool {run.name[:64]}")

    async def _run_tool(self, run: RunTool) -> None:
        started_at = trio.current_time()
        outcome = await self._tools.run(run.name, run.arguments, run.call_id)
        now = trio.current_time()
        self._diary.noted(
            "tool", {"tool": run.name, "seconds": round(now - started_at, 3), "ok": not outcome.is_error}
        )
        self._attempt(
            lambda now: self._dialogue.on_tool(
                run.call_id, outcome.result, now, is_error=outcome.is_error, ends_call=outcome.ends_call
            ),
            now,
        )

    # ---- time ------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """The one task that waits for the clock: dialogue, media silence, wind-up and cap."""
        wound_up = False
        while True:
            self._alarm_at = min(
                self._dialogue.deadline,
                self._last_media_at + MEDIA_SILENCE_SECONDS,
                self._cap_at if wound_up else self._wind_up_at,
            )
            with trio.CancelScope(deadline=self._alarm_at) as self._alarm:
                await trio.sleep_forever()
            now = trio.current_time()
            if now >= self._cap_at:
                self.end(Ending(Blame.US, Reason.TIME_LIMIT))
            if now >= self._last_media_at + MEDIA_SILENCE_SECONDS:
                self.end(Ending(Blame.CARRIER, Reason.SILENT, f"no media for {MEDIA_SILENCE_SECONDS:g} s"))
            if now >= self._wind_up_at and not wound_up:
                wound_up = True
                self.wind_up(Ending(Blame.US, Reason.TIME_LIMIT), within_seconds=self._cap_at - now)
            self._attempt(self._dialogue.on_time, now)

    def _legs(self) -> list[Leg]:
        return [self._phone] if self._agent is None else [self._phone, self._agent]


_OVERDUE = Ending(Blame.US, Reason.TIME_LIMIT, "overdue")
