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

import trio

from relay.actions import (
    Action,
    CancelReply,
    ClearPhoneAudio,
    CreateReply,
    EndCall,
    ForwardToAgent,
    KeysOver,
    Note,
    OpenSession,
    OptOut,
    PlayOnPhone,
    RetryWithoutVoice,
    RunTool,
    SendMark,
    SendToolResult,
    Transcribe,
    TurnAnswered,
)
from relay.agent_half import AgentHalf, OpenAgent
from relay.crossing import ToAgent, ToPhone
from relay.dialogue import Dialogue
from relay.goodbye import AfterTool
from relay.legs import Leg
from relay.outcomes import Blame, Ending, LegClosed, Reason, WireError
from relay.terms import Diary, Terms
from relay.tools import Toolbox, ToolOutcome
from relay.voice import Voice
from relay.wire import agent as agent_wire
from relay.wire import phone as phone_wire

MEDIA_SILENCE_SECONDS = 5.0  # Twilio sends 50 frames a second, also while nobody speaks
WIND_UP_SECONDS = 15.0  # before the cap: time for one sentence and its goodbye
HARD_GRACE_SECONDS = 2.0  # past the cap everything is cancelled, whatever it was doing
SESSION_ENDED_SECONDS = 1.0  # after a goodbye: a bare close is billed for 30 s more
_RUN_CHARACTERS = 64  # of the agent's name of a run, in the timeline
UNREADABLE_MESSAGES = 10  # in a row; one corrupt message is dropped and counted


class Call:
    """The bridge between a person and an agent, for as long as it lasts."""

    def __init__(
        self,
        *,
        phone: Leg,
        stream_sid: str,
        open_agent: OpenAgent,
        terms: Terms,
        tools: Toolbox,
        diary: Diary,
        announce: Callable[[Ending], Awaitable[None]],
        hang_up: Callable[[Ending], Awaitable[None]],
        answered_at: float,
    ) -> None:
        now = trio.current_time()
        self.ending: Ending | None = None
        self.unreadable = 0
        self.transfer_to = ""  # whom the agent wanted to hand the call over to last: a name of its profile's
        self._phone = phone
        self._stream_sid = stream_sid
        self._tools = tools
        self._diary = diary
        self._announce = announce  # before the phone is closed, which makes the carrier go on
        self._hang_up = hang_up
        self._dialogue = Dialogue(stream_sid, terms, now=now)
        self._agent = AgentHalf(
            open_agent=open_agent,
            terms=terms,
            dialogue=self._dialogue,
            perform=self._perform,
            unread=self._unread,
            end=self.end,
            diary=diary,
        )
        self._to_agent = ToAgent(self._dialogue, self._agent, stream_sid)
        self._to_phone = self._agent.crossing = ToPhone(self._dialogue, phone, stream_sid)
        self._voice = Voice(self._dialogue.errands, self._attempt)
        self._live = trio.CancelScope()
        self._cap_at = answered_at + terms.time_limit_seconds
        self._wind_up_at = self._cap_at - min(WIND_UP_SECONDS, terms.time_limit_seconds / 4)
        self._alarm = trio.CancelScope()
        self._alarm_at = now

    @property
    def had_session(self) -> bool:
        """Whether the agent was ready at any time."""
        return self._agent.had_session

    @property
    def agent_seconds(self) -> float:
        """How long sockets to the agent were open, once it is over."""
        return self._agent.billed_seconds

    @property
    def counts(self) -> dict[str, int]:
        """What was counted, for the record."""
        return {
            "frames_to_agent": self._to_agent.frames,
            "frames_to_phone": self._to_phone.frames,
            "unreadable_messages": self.unreadable,
            **asdict(self._dialogue.tally),
        }

    # ---- life ------------------------------------------------------------------------------------

    def end(self, ending: Ending) -> None:
        """Record why the call is over and stop its tasks. The first cause wins: our last words have one."""
        if self.ending is None:
            self.ending = self._dialogue.leaving or ending
            self._live.cancel(reason=self.ending.reason)

    def opt_out(self) -> None:
        """The number was listed while the call is live: tell the callee so and end, within 5 s."""
        if self.ending is None:
            self._attempt(partial(self._dialogue.opt_out, "list"), trio.current_time())

    def machine_detected(self, who: str) -> None:
        """The carrier's verdict on whoever has picked up."""
        if self.ending is None:
            self._attempt(partial(self._dialogue.machine_detected, who), trio.current_time())

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
                except* Exception as bugs:  # a goodbye even so: a bare close is billed on
                    self.end(Ending(Blame.US, Reason.CRASHED, type(bugs.exceptions[0]).__name__))
                    await self._take_leave(self.ending or _OVERDUE)  # noqa: ASYNC120 - cancelled past the cap
                    raise
                await self._take_leave(self.ending or _OVERDUE)
            finally:
                # Side by side: each one closes, even where we are cancelled.
                async with trio.open_nursery() as nursery:
                    for half in (self._phone, self._agent):
                        nursery.start_soon(half.abort, name="abort")
        return self.ending or _OVERDUE

    async def _bridge(self) -> None:
        with self._live:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._pump_phone, name="inbound pump")
                self._nursery.start_soon(self._tend, self._phone.write, name="phone writer")
                self._nursery.start_soon(self._tend, self._phone.beat, name="phone heartbeat")
                self._nursery.start_soon(self._agent.run, name="agent")
                await self._watch()

    async def _take_leave(self, ending: Ending) -> None:
        self._dialogue.hearing.over(trio.current_time())
        self._write_heard()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hang_up, ending, name="hang-up")
            nursery.start_soon(self._leave_agent, ending, name="agent goodbye")
            await self._announce(ending)
            await self._phone.close()

    async def _leave_agent(self, ending: Ending) -> None:
        is_awaited = self._dialogue.said_goodbye and ending.blame is not Blame.AGENT
        await self._agent.leave(ended_seconds=SESSION_ENDED_SECONDS if is_awaited else 0.0)

    # ---- the phone -------------------------------------------------------------------------------

    async def _pump_phone(self) -> None:
        leg = self._phone
        try:
            while True:
                text = await leg.receive(self._to_agent)
                now = trio.current_time()
                try:
                    message = phone_wire.decode(text)
                except WireError as problem:
                    if ending := self._unread(leg, problem):
                        self.end(ending)
                    continue
                leg.unreadable = 0
                if isinstance(message, phone_wire.Media):
                    self._to_agent.last_media_at = now
                self._perform(self._dialogue.on_phone(message, now))
        except LegClosed as lost:
            self.end(lost.ending)

    def _unread(self, leg: Leg, problem: WireError) -> Ending | None:
        """Count a message of either far end; too many in a row are a fault of its leg."""
        self.unreadable += 1
        leg.unreadable += 1
        if leg.unreadable == 1:
            self._diary.noted("unreadable message", {"leg": leg.blame.value})
        if leg.unreadable < UNREADABLE_MESSAGES:
            return None
        detail = f"{leg.unreadable} unreadable messages in a row: {problem}"
        return Ending(leg.blame, Reason.PROTOCOL, detail)

    async def _tend(self, care: Callable[[], Awaitable[NoReturn]]) -> None:
        """Write to the phone or ping it until it is lost."""
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
                self._agent.send(agent_wire.input_audio(action.payload))
                self._to_agent.sent(1, action.payload)
            elif isinstance(action, PlayOnPhone):
                self._phone.send(phone_wire.media(self._stream_sid, action.payload))
                self._to_phone.frames += 1
            else:
                self._perform_seldom(action)
        if self._dialogue.hearing.settled:
            self._write_heard()
        if self._dialogue.deadline < self._alarm_at:
            self._alarm.deadline = self._alarm_at = self._dialogue.deadline

    def _perform_seldom(self, action: Action) -> None:
        match action:
            case ClearPhoneAudio():
                self._phone.send(phone_wire.clear(self._stream_sid))
            case SendMark(name):
                self._phone.send(phone_wire.mark(self._stream_sid, name))
            case RunTool():
                # In a call the dialogue admits TOOL_CALLS of them at most.
                self._nursery.start_soon(self._run_tool, action, name=f"tool {action.name[:64]}")
                if self._tools.opts_out(action.name):  # not after its run: the callee may hang up meanwhile
                    self._perform(self._dialogue.opt_out("tool", trio.current_time()))
            case SendToolResult() | CreateReply() | CancelReply():
                self._agent.send(_to_agent(action))
            case KeysOver():
                self._voice.keys_over(action)
            case OpenSession():
                self._agent.reopen(action)
            case RetryWithoutVoice():
                self._agent.drop_voice(action)
            case Transcribe(role, text, interrupted, reply):
                self._agent.remember(role, text)
                self._diary.said(role, text, interrupted=interrupted, reply=reply)
            case TurnAnswered():
                self._diary.turn_answered(action, trio.current_time() - self._agent.received_at)
            case OptOut(how):
                self._diary.opted_out(how)
            case Note(event, fields):
                self._diary.noted(event, fields)
            case EndCall(ending):
                self.end(ending)

    def _write_heard(self) -> None:
        """What is known by now to have been heard of replies; a session that follows is told no more."""
        settled = self._dialogue.hearing.settled
        for reply in settled:
            if reply.text is not None and reply.heard != reply.text:
                self._agent.correct(reply.text, reply.heard or "")
            self._diary.heard(reply)
        settled.clear()

    # ---- tools -----------------------------------------------------------------------------------

    async def _run_tool(self, run: RunTool) -> None:
        started_at = trio.current_time()
        outcome = await self._tools.run(run.name, run.arguments, run.call_id, self._voice)
        now, name_of_run = trio.current_time(), run.call_id[:_RUN_CHARACTERS]
        told = {"seconds": round(now - started_at, 3), "ok": not outcome.is_error}
        self._diary.noted("tool", {"tool": run.name, "run": name_of_run, **told})
        self._diary.ran(run.name, name_of_run, run.arguments, outcome.result)
        self._agent.remember(f"function {run.name}", outcome.result)
        self.transfer_to = outcome.transfer_to or self.transfer_to
        self._attempt(
            lambda now: self._dialogue.errands.result(
                run.call_id, outcome.result, now, is_error=outcome.is_error, then=_then(outcome)
            ),
            now,
        )

    # ---- time ------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """What waits for the clock: dialogue, media silence, wind-up and cap."""
        wound_up = False
        while True:
            self._alarm_at = min(
                self._dialogue.deadline,
                self._to_agent.last_media_at + MEDIA_SILENCE_SECONDS,
                self._cap_at if wound_up else self._wind_up_at,
            )
            with trio.CancelScope(deadline=self._alarm_at) as self._alarm:
                await trio.sleep_forever()
            now = trio.current_time()
            if now >= self._cap_at:
                self.end(Ending(Blame.US, Reason.TIME_LIMIT))
            if now >= self._to_agent.last_media_at + MEDIA_SILENCE_SECONDS:
                self.end(Ending(Blame.CARRIER, Reason.SILENT, f"no media for {MEDIA_SILENCE_SECONDS:g} s"))
            if now >= self._wind_up_at and not wound_up:
                wound_up = True
                self.wind_up(Ending(Blame.US, Reason.TIME_LIMIT), within_seconds=self._cap_at - now)
            self._attempt(self._dialogue.on_time, now)


def _to_agent(action: SendToolResult | CreateReply | CancelReply) -> bytes:
    match action:
        case SendToolResult(call_id, result, is_error):
            return agent_wire.tool_result(call_id, result, is_error=is_error)
        case CreateReply(instructions):
            return agent_wire.reply_create(instructions)
        case CancelReply(reply_id):
            return agent_wire.reply_cancel(reply_id)


def _then(outcome: ToolOutcome) -> AfterTool | None:
    if outcome.transfer_to:
        return Reason.TRANSFERRED
    return Reason.GOODBYE if outcome.ends_call else None


_OVERDUE = Ending(Blame.US, Reason.TIME_LIMIT, "overdue")
