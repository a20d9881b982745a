"""One simulated node from its first call to its last, and everything around it.

Knows what surrounds a node and what a plan says; what is to be thought of the outcome is the judge's.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from relay.chaos.agent import Agent
from relay.chaos.carrier import FarCall, FarCarrier
from relay.chaos.chance import seeded
from relay.chaos.ledger import FarLedger
from relay.chaos.links import Link
from relay.chaos.node import build_node
from relay.chaos.phone import Phone
from relay.chaos.plan import LINK_FAULTS, CallPlan, Fault, Plan
from relay.chaos.sockets import carrier_socket
from relay.chaos.steps import OnStep, Steps
from relay.chaos.trace import Trace
from relay.handshake import accept_phone_leg, join_agent_leg
from relay.legs import Leg
from relay.line import Line
from relay.outcomes import Blame, LegClosed, Reason, Refusal, WireError
from relay.store import CallRecord, ListEntry, Listing, Spool, StoreError, open_spool
from relay.switchboard import CallRequest
from relay.wire import phone as phone_wire

EPOCH = datetime(2026, 3, 10, 18, tzinfo=UTC)  # within calling hours anywhere in the United States
AGENT_DIAL_SECONDS = 5.0
START_SECONDS = 5.0
WORLD_SECONDS = 1200.0  # the longest a node can need: a create of which nothing is heard takes 300
SETTLING_SECONDS = 60.0  # from the last call's end until the carrier has ended too and all is written

_AGENT_URL = "ws://agent.test/v1/ws"


@dataclass(slots=True)
class Struck:
    """A fault that found something to strike."""

    fault: Fault
    at: float


@dataclass(slots=True)
class Story:
    """All that is known of one call when the node has come to rest."""

    plan: CallPlan
    who: str
    answer: str = "not asked"  # to the request: placed, or the refusal's code
    call_id: str | None = None
    record: CallRecord | None = None
    finals: int = 0
    orders: int = 0
    far: FarCall | None = None
    struck: list[Struck] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)
    connected: dict[str, trio.Event] = field(
        default_factory=lambda: {"phone": trio.Event(), "agent": trio.Event()}
    )
    parted: trio.Event = field(default_factory=trio.Event)


class World:
    """A node, its far ends, and what strikes them."""

    def __init__(self, plan: Plan, on_step: OnStep | None = None) -> None:
        self.trace = Trace()
        self.stories = [Story(call, f"call {number}") for number, call in enumerate(plan.calls)]
        self.struck: list[Struck] = []  # of the node
        self.came_to_rest = False
        self.left_over: list[str] = []  # tasks, when it did
        self.steps = Steps(min((f.step for f in plan.faults if f.kind == "cancel"), default=0), on_step)
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._numbers = {f"+1202555{100 + n:04}": story for n, story in enumerate(self.stories)}
        self._by_id: dict[str, Story] = {}
        self.carrier: FarCarrier
        self.ledger = FarLedger(self.now)

    def now(self) -> datetime:
        """The clock on the wall."""
        return self.now_at(trio.current_time())

    def now_at(self, seconds: float) -> datetime:
        """What it shows so many seconds after the beginning."""
        return EPOCH + timedelta(seconds=seconds)

    # ---- the node --------------------------------------------------------------------------------

    async def live(self, spool_file: Path) -> None:
        """Until every call is over and everything around it has come to rest."""
        async with (
            open_spool(self.ledger, spool_file) as spool,
            trio.open_nursery() as front,
            trio.open_nursery() as calls,
        ):
            self._front = front
            self.steps.watch(calls)
            self._build(front, calls, spool)
            with trio.CancelScope(shield=True), trio.move_on_after(WORLD_SECONDS):  # a "cancel" is not for us
                await self._play(spool)
                self.came_to_rest = True
            self.left_over = sorted(task.name for task in calls.child_tasks)
            calls.cancel_scope.cancel()
            front.cancel_scope.cancel()

    def _build(self, front: trio.Nursery, calls: trio.Nursery, spool: Spool) -> None:
        plans = {number: (story.who, story.plan) for number, story in self._numbers.items()}
        carrier = FarCarrier(front, plans, self.trace, self._rng, self.now)
        self.switchboard, reconciler = build_node(
            calls, spool, carrier=carrier, ledger=self.ledger, open_agent=self._open_agent, clock=self.now
        )
        carrier.switchboard = self.switchboard
        carrier.open_stream = self._open_stream
        carrier.knock = self._knock
        carrier.parting = lambda call_id: self._by_id[call_id].parted.set()
        self.carrier = carrier
        front.start_soon(reconciler.run, name="reconciler")

    async def _play(self, spool: Spool) -> None:
        for fault in self._plan.faults:
            self._front.start_soon(self._strike_in_time, fault, name=f"fault {fault.kind}")
        for _, (number, story) in sorted(
            enumerate(self._numbers.items()), key=lambda item: item[1][1].plan.begins_at
        ):
            await trio.sleep_until(story.plan.begins_at)
            await self._place(story, number)
        await self.switchboard.wait_idle()
        with trio.move_on_after(SETTLING_SECONDS):
            await spool.wait_written()
            while any(not call.status.is_terminal for call in self.carrier.calls.values()):  # noqa: ASYNC110
                await trio.sleep(1.0)
            await trio.sleep(1.0)  # for the last callbacks; and for what nobody should still do
        for story in self.stories:
            await self._collect(story)

    async def _place(self, story: Story, number: str) -> None:
        placed = await self.switchboard.place(CallRequest(to=number))
        if isinstance(placed, Refusal):
            story.answer = placed.code
        else:
            assert isinstance(placed, Line)
            story.answer, story.call_id = "placed", placed.record.id
            self._by_id[placed.record.id] = story
            if story.plan.finish.startswith("operator") or story.plan.finish == "listed":
                self._front.start_soon(self._interfere, story, placed, name="operator")
        self.trace.saw(story.who, story.answer)

    async def _interfere(self, story: Story, line: Line) -> None:
        """What an operator does to a call, some time after its stream has come."""
        await story.connected["phone"].wait()
        await trio.sleep(story.plan.finish_at)
        if story.plan.finish == "listed":
            entry = ListEntry(line.record.to, Listing.ADDED, "chaos", "somebody else", self.now())
            try:
                await self.ledger.suppress([entry])
            except StoreError:
                line.stop()
        elif line.ending is None:
            line.hang_up(goodbye=story.plan.finish == "operator-goodbye")

    async def _collect(self, story: Story) -> None:
        if story.call_id is None:
            return
        self.ledger.down_until = -math.inf
        story.record = await self.ledger.get(story.call_id)
        story.finals = self.ledger.finals[story.call_id]
        story.orders = self.carrier.orders[story.call_id]
        story.far = self.carrier.calls.get(story.call_id)
        if story.record is not None:
            self.trace.saw(story.who, f"{story.record.ending} {story.record.counts}")
            for event in story.record.events:
                self.trace.saw(story.who, f"event {event['event']} {event['at']}")

    # ---- the legs --------------------------------------------------------------------------------

    async def _open_stream(self, call: FarCall, attempt: int) -> Link:
        story = self._by_id[call.order.call_id]
        link = await self._connect(story, "phone")
        stream_sid = f"MZ{self._rng.getrandbits(128):032x}"
        call.phone = Phone(story.plan, call.sid, stream_sid, link, self.trace, f"{story.who} phone")
        call.phone.parting = story.parted.set
        return link

    async def _connect(self, story: Story, leg: str) -> Link:
        weather = story.plan.phone if leg == "phone" else story.plan.agent
        await trio.sleep(2 * weather.latency_seconds)
        link = Link(weather, random.Random(self._rng.random()))
        story.links.append(link)
        if leg == "phone":
            self._front.start_soon(self._admit, link, name="web edge")
            story.connected["phone"].set()
        return link

    async def _admit(self, link: Link) -> None:
        """What the web edge does behind its 101; a token is a call's id and its attempt, always genuine."""
        leg = accept_phone_leg(link.relay)
        try:
            with trio.move_on_after(START_SECONDS):
                while not isinstance(
                    message := phone_wire.decode(await leg.receive()), phone_wire.StreamStarted
                ):
                    pass
                call_id, attempt = message.start.custom_parameters["token"].split()
                line = await self.switchboard.admit(call_id, int(attempt), message.start.call_sid)
                if line is not None:
                    return line.connect(leg, message.start.stream_sid)
        except (LegClosed, WireError):
            pass
        except BaseException:
            await leg.abort()  # noqa: ASYNC102 - closes the stream even where we are cancelled
            raise
        return await leg.close(1008)

    async def _knock(self, call: FarCall) -> None:
        """A second stream with a token that is spent."""
        story = self._by_id[call.order.call_id]
        link = await self._connect(story, "phone")
        phone = Phone(story.plan, call.sid, "MZ" + "0" * 32, link, self.trace, f"{story.who} intruder")
        phone.start(f"{call.order.call_id} {call.attempt}")
        socket = carrier_socket(link.far)
        while await socket.receive():
            pass
        link.far.close()

    async def _open_agent(self, _resume_token: str | None) -> Leg:
        story = self._by_id[structlog.contextvars.get_contextvars()["call_id"]]
        if story.plan.opening == "unreachable" and not story.agents:
            story.agents.append(self._agent(story, Link(story.plan.agent, self._rng)))
            story.agents[0].link.relay.close()
            self.trace.counts["opening faults"] += 1
            raise LegClosed(Blame.AGENT, Reason.UNREACHABLE, "chaos")
        with trio.move_on_after(AGENT_DIAL_SECONDS):
            link = await self._connect(story, "agent")
            agent = self._agent(story, link)
            story.agents.append(agent)
            self._front.start_soon(agent.run, name="agent")
            story.connected["agent"].set()
            return await join_agent_leg(link.relay, _AGENT_URL, headers={"Authorization": "Bearer key"})
        raise LegClosed(Blame.AGENT, Reason.UNREACHABLE, f"no answer within {AGENT_DIAL_SECONDS:g} s")

    def _agent(self, story: Story, link: Link) -> Agent:
        number = len(story.agents)

        def first_allowed() -> int | None:
            far = self.carrier.calls.get(story.call_id or "")
            return None if far is None else far.first_allowed

        return Agent(
            story.plan,
            number,
            link,
            self.trace,
            f"{story.who} agent {number}",
            first_allowed=first_allowed,
            parting=story.parted.set,
        )

    # ---- what goes wrong -------------------------------------------------------------------------

    async def _strike_in_time(self, fault: Fault) -> None:
        if fault.kind == "cancel":
            await self.steps.reached.wait()
        elif fault.target == "node":
            await trio.sleep(fault.at)
        else:
            story = self.stories[fault.call]
            leg = "agent" if fault.target == "agent" else "phone"
            await (story.parted if fault.moment == "parting" else story.connected[leg]).wait()
            await trio.sleep(fault.at)
        if await self._strike(fault):
            self.trace.counts["faults"] += 1
            self.trace.saw("nemesis", f"{fault.target} of call {fault.call}: {fault.kind}")

    async def _strike(self, fault: Fault) -> bool:
        """Whether there was anything to strike."""
        struck = Struck(fault, trio.current_time())
        if fault.target == "node":
            self._strike_node(fault)
            self.struck.append(struck)
            return True
        story = self.stories[fault.call]
        far = self.carrier.calls.get(story.call_id or "")
        if far is None or far.status.is_terminal or far.phone is None:
            return False
        agent = story.agents[-1] if story.agents else None
        if fault.target != "carrier":
            target = far.phone if fault.target == "phone" else agent
            if target is None or target.link.relay.is_closed or target.link.far.is_closed:
                return False
            story.struck.append(struck)
            if fault.kind in LINK_FAULTS:
                target.link.befall(fault.kind, fault.seconds)
            else:
                target.suffer(fault.kind)
            return True
        story.struck.append(struck)
        if fault.kind == "rest-down":
            self.carrier.down_until = trio.current_time() + fault.seconds
        elif fault.kind == "rest-slow":
            self.carrier.slow_until = trio.current_time() + fault.seconds
        else:
            await far.suffer(fault.kind)
        return True

    def _strike_node(self, fault: Fault) -> None:
        match fault.kind:
            case "ledger-down":
                self.ledger.down_until = trio.current_time() + fault.seconds
            case "drain":
                self.switchboard.drain()
            case "wind-up":
                self.switchboard.wind_up_all()
            case "cut":
                self.switchboard.cut_all()
            case "cancel":  # at the very await point: `steps` has done it
                self.switchboard.drain()


def run_world(plan: Plan, *, on_step: OnStep | None = None) -> tuple[World, list[dict[str, Any]]]:
    """Live through a plan in virtual time; the world as it came to rest, and what was logged.

    `on_step` is told of each step that a task of a call has made, to its next await point.
    """
    with (
        seeded(plan.seed),
        TemporaryDirectory() as folder,  # the spool's file, which exists only while the ledger is down
        capture_logs([structlog.contextvars.merge_contextvars]) as logged,
    ):
        world = World(plan, on_step)
        instruments = [world.steps] if world.steps.target or on_step else []  # they cost a tenth of the time
        clock = MockClock(autojump_threshold=0)
        trio.run(world.live, Path(folder) / "spool", clock=clock, instruments=instruments)
    return world, [dict(line) for line in logged]
