"""`relay talk`: a conversation with an agent in a terminal, typed instead of spoken.

Knows how to put a call between an agent and a keyboard; the call itself is the one that every telephone gets.

What is typed is spoken into the call by a synthetic voice, and what the agent says is heard out at its pace:
turns, interruptions, tools and the goodbye come about as on the telephone. There is no carrier, no database.
"""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import trio

from relay import placing
from relay.actions import OptOutWay, Role, TurnAnswered
from relay.agent_half import OpenAgent
from relay.call import Call
from relay.handshake import accept_phone_leg
from relay.hearing import ReplyHeard
from relay.outcomes import Ending
from relay.script import announcement, scope_of
from relay.simulator.agent import AgentEmulator, serve_agent
from relay.simulator.callee import Callee as TalkingCallee
from relay.simulator.callee import Notice
from relay.simulator.handset import Handset
from relay.simulator.ledger import Ledger
from relay.simulator.media_stream import StreamWriter
from relay.simulator.scenario import (
    Agent,
    Callee,
    CalleeTurn,
    Order,
    Scenario,
    shipped_names,
    shipped_scenario,
)
from relay.simulator.speech import Voices
from relay.store import Slot
from relay.store.memory_books import MemoryBooks
from relay.tools import CallContext, Desk, Telephone, Toolbox, ToolOutcome

CALLEE = "+12025550100"
SAMPLE_DAYS = 14
STREAM_SID = "MZ" + "0" * 32
EMULATED_KEY = "emulated-agent"
UNSCRIPTED = "I am the emulated agent, and my script says nothing to that."
_SOUND = {"format": {"encoding": "audio/pcmu"}}
STORED = {  # what the real one has is known to AssemblyAI alone
    "greeting": "Hello, I am an emulated stored agent.",
    "input": _SOUND,
    "output": _SOUND,
}
QUIET_SECONDS = 0.6  # after the agent's last word, before the next line of a file is said
LAST_QUIET_SECONDS = 2.0  # before the callee of such a file hangs up: the agent may still want to go on
LINES = 100  # typed ahead; more wait in the terminal

Show = Callable[[str, str], None]
"""Shows a line: who it is from, and what it says."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Who is talked to, and in whose name."""

    agent: placing.Agent
    session: Mapping[str, Any]
    variables: Mapping[str, str]


# ---- the emulated agent ----------------------------------------------------------------------------------


def script_of(agent: str) -> tuple[str, Scenario]:
    """The longest shipped scenario of an agent, whose replies the emulated one gives, and its name."""
    scripts = {name: shipped_scenario(name) for name in shipped_names()}
    names = [name for name, script in scripts.items() if script.call.agent == agent and script.agent.turn]
    if not names:
        return "", Scenario(call=Order(agent=agent), agent=Agent(otherwise=UNSCRIPTED))
    longest = max(names, key=lambda name: len(scripts[name].agent.turn))
    return longest, scripts[longest].model_copy(update={"callee": Callee(), "fault": ()})


@asynccontextmanager
async def emulate(scenario: Scenario, stored: Mapping[str, Any]) -> AsyncIterator[tuple[AgentEmulator, str]]:
    """An agent on this machine that follows a script, and its address."""
    scripted = scenario.model_copy(
        update={"agent": scenario.agent.model_copy(update={"stored": dict(stored)})}
    )
    ledger = Ledger()
    emulator = AgentEmulator(
        EMULATED_KEY,
        lambda _session: scripted,
        lambda _session: ledger,
        Voices(synthesise=False),
        random.Random(),
    )
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_agent, emulator)
        yield emulator, f"ws://127.0.0.1:{port}/v1/ws"
        nursery.cancel_scope.cancel()


# ---- what is seen ----------------------------------------------------------------------------------------


class _Seen:
    """The diary of a talk: the terminal."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._typed: set[str] = set()

    def typed(self, text: str) -> None:
        """What was said needs not be shown again, if it was understood."""
        self._typed.add(text)

    def noted(self, event: str, fields: Mapping[str, Any]) -> None:
        match event:
            case "barge-in":
                self._show("", "the agent is interrupted")
            case "goodbye begun" | "goodbye undone" | "voice refused" | "agent lost" | "filler" | "nudge":
                self._show("", event)

    def said(self, role: Role, text: str, *, interrupted: bool, reply: int | None) -> None:
        if role == "agent":
            self._show("agent", f"{text} (interrupted)" if interrupted else text)
        elif text not in self._typed:
            self._show("", f"understood: {text}")

    def heard(self, reply: ReplyHeard) -> None:
        if reply.text is not None and reply.heard != reply.text:
            self._show("", f"heard of it: {reply.heard or 'nothing'}")

    def turn_answered(self, turn: TurnAnswered, relay_seconds: float) -> None:
        pass

    def ran(self, tool: str, run: str, arguments: Mapping[str, Any], result: str) -> None:
        pass  # seen as it happens

    def opted_out(self, how: OptOutWay) -> None:
        self._show("", f"opted out by {how}; a real number would be on the list now")


class _ShownToolbox(Toolbox):
    """Runs the tools as on the telephone, and lets them be seen."""

    def __init__(self, stage: Stage, show: Show, context: CallContext) -> None:
        super().__init__(stage.agent.tools, context)
        self._show = show

    async def run(
        self, name: str, arguments: Mapping[str, Any], run_id: str, telephone: Telephone | None = None
    ) -> ToolOutcome:
        self._show("tool", f"{name} {dict(arguments)}")
        outcome = await super().run(name, arguments, run_id, telephone)
        self._show("tool", f"→ {'error: ' if outcome.is_error else ''}{outcome.result}")
        return outcome


# ---- the talk --------------------------------------------------------------------------------------------


async def talk(
    stage: Stage,
    open_agent: OpenAgent,
    lines: trio.MemoryReceiveChannel[str],
    leaving: trio.Event,
    show: Show,
    *,
    time_limit_seconds: float,
    is_typed: bool,
    synthesise: bool,
    learn: Callable[[str], None] = lambda _text: None,
) -> Ending:
    """Talk until the agent has said goodbye, `lines` ends, the time is up, or somebody is `leaving`.

    `is_typed`: somebody is at the keyboard, so that each line is said at once, into the agent's words too.
    The lines of a file wait for their turn. `learn` tells an emulated agent what it is about to hear.
    """
    if {"book_appointment", "free_appointments"} & {tool.name for tool in stage.agent.tools}:
        show("", f"the calendar has times of its own: 10:00 and 15:30, UTC, of the next {SAMPLE_DAYS} days")
    if said_first := announcement(stage.agent.profile, stage.variables):
        show("carrier", said_first.sentence)
    desk = await _open_desk(stage)
    ours, theirs = _stream_pair()
    voices = Voices(synthesise=synthesise)
    callee = TalkingCallee(Callee(), lambda text: voices.say("callee", text))
    seen = _Seen(show)

    def notice(noticed: Notice) -> None:
        if noticed.event == "speech-started":
            learn(noticed.fields["text"])
            if not is_typed:  # else it stands on the terminal already
                show("you", noticed.fields["text"])

    handset = Handset(theirs, StreamWriter("AC" + "0" * 32, "CA" + "0" * 32, STREAM_SID, {}), callee, notice)
    call = Call(
        phone=accept_phone_leg(ours),
        stream_sid=STREAM_SID,
        open_agent=open_agent,
        terms=stage.agent.terms(stage.session, time_limit_seconds),
        tools=_ShownToolbox(stage, show, CallContext("call_talk", CALLEE, stage.variables, desk=desk)),
        diary=seen,
        announce=_nothing,
        hang_up=_nothing,
        answered_at=trio.current_time(),
    )

    async def listen() -> None:
        async for line in lines:
            if not line.strip():
                continue
            turn = _turn(line.strip(), is_typed=is_typed)
            if turn.say is not None:
                seen.typed(turn.say)
            callee.add(turn)
        if is_typed:
            callee.leave()
        else:
            callee.add(CalleeTurn(pause_seconds=LAST_QUIET_SECONDS, hang_up=True))

    async def leave() -> None:
        await leaving.wait()
        callee.leave()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(handset.run, name="handset")
        nursery.start_soon(listen, name="keyboard")
        nursery.start_soon(leave, name="leave")
        ending = await call.run()
        nursery.cancel_scope.cancel()
    for violation in handset.violations:
        show("", f"Twilio would not have taken this: {violation}")
    return ending


async def _open_desk(stage: Stage) -> Desk:
    """What the relay's own tools work with: books that are gone with the talk, and an open calendar."""
    books, scope = MemoryBooks(), scope_of(stage.agent.profile, stage.variables)
    today = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    times = [today + timedelta(days=ahead) for ahead in range(1, SAMPLE_DAYS + 1)]
    starts = [day.replace(hour=hour, minute=minute) for day in times for hour, minute in ((10, 0), (15, 30))]
    await books.open_slots([Slot(scope.calendar, starts_at) for starts_at in starts])
    return Desk(
        books=books,
        agent=stage.agent.profile.name,
        calendar=scope.calendar,
        accounts=scope.accounts,
        account=scope.account,
        where=lambda: "UTC",
        now=lambda: datetime.now(UTC),
        judge_hour=lambda _at: None,
    )


def _turn(line: str, *, is_typed: bool) -> CalleeTurn:
    """What a line makes the callee do: `/press 9` is a key, anything else is said."""
    when: dict[str, Any] = {"when": "answered", "pause_seconds": 0}
    if not is_typed:
        when = {"when": "agent-finished", "pause_seconds": QUIET_SECONDS}
    word, _, keys = line.partition(" ")
    if word == "/press" and keys and set(keys) <= set("0123456789*#") and len(keys) <= 32:
        return CalleeTurn(press=keys, **when)
    return CalleeTurn(say=line, **when)


def _stream_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return trio.SocketStream(ours), trio.SocketStream(theirs)


async def _nothing(_ending: Ending) -> None:
    """There is no carrier that would have to be told."""
    await trio.lowlevel.checkpoint()
