"""The carrier of a simulation: its REST interface as functions, and the life of every call it has taken.

Knows what a carrier is asked and tells the switchboard what webhooks would; no HTTP on either side.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime

import trio

from relay.carrier import (
    AlreadyEnded,
    CarrierCall,
    Dialled,
    DialOrder,
    HangUp,
    HungUp,
    NotHungUp,
    Notice,
    NotPermitted,
    Permission,
    Placed,
    Refused,
    Unavailable,
    Uncertain,
)
from relay.chaos.links import Link
from relay.chaos.phone import Phone
from relay.chaos.plan import CallPlan
from relay.chaos.trace import Trace
from relay.compliance import Permit
from relay.switchboard import Document, Switchboard
from relay.wire.callbacks import (
    AmdCallback,
    AnsweredBy,
    CarrierStatus,
    StatusCallback,
    StreamCallback,
    StreamEvent,
)

REST_SECONDS = 0.08
SLOW_SECONDS = 3.0
GIVEN_UP_SECONDS = 4.5  # of a REST call of which nothing comes; the dialer gives up after 5
WEBHOOK_SECONDS = 0.03
LATE_SECONDS = 4.0
SAY_SECONDS = 2.0
STOP_SECONDS = 3.0  # past the time limit, for a stream that cannot be told
MAX_DOCUMENTS = 5

OpenStream = Callable[["FarCall", int], Awaitable[Link]]


class FarCall:
    """One call as the carrier has it."""

    def __init__(self, order: DialOrder, sid: str, plan: CallPlan, who: str, carrier: FarCarrier) -> None:
        self.order = order
        self.sid = sid
        self.plan = plan
        self.who = who
        self.status = CarrierStatus.QUEUED
        self.ended_by = ""  # rest, callee, document, network or time-limit
        self.answered_at: float | None = None
        self.phone: Phone | None = None  # of the newest stream
        self.attempt = 0
        self._carrier = carrier
        self._course = trio.CancelScope()
        self._is_streaming = False

    @property
    def first_allowed(self) -> int | None:
        """From which frame on the callee may be forwarded; None: the opening was not heard."""
        return None if self.phone is None else self.phone.first_allowed

    def end(self, by: str) -> None:
        """Take the call down; a stream is told first."""
        if not self.ended_by:
            self.ended_by = by
            if self._is_streaming and self.phone is not None:
                self.phone.hang_up()
                self._course.deadline = trio.current_time() + STOP_SECONDS
            else:
                self._course.cancel()

    async def run(self) -> None:
        """From the order to the last callback."""
        async with trio.open_nursery() as nursery:
            teller, told = trio.open_memory_channel[CarrierStatus](10)  # a call has four or five
            nursery.start_soon(self._tell, told, name="callbacks")
            with teller:
                with self._course:
                    await self._live(teller)
                self._enter(teller, self._last_status)

    @property
    def _last_status(self) -> CarrierStatus:
        if self.ended_by == "network":
            return CarrierStatus(self.plan.outcome)
        return CarrierStatus.CANCELED if self.answered_at is None else CarrierStatus.COMPLETED

    async def _live(self, teller: trio.MemorySendChannel[CarrierStatus]) -> None:
        await trio.sleep(self.plan.ring_seconds / 2)
        self._enter(teller, CarrierStatus.RINGING)
        await trio.sleep(self.plan.ring_seconds)
        if self.plan.outcome != "answered":
            self.ended_by = "network"
            return
        self.answered_at = trio.current_time()
        self._enter(teller, CarrierStatus.IN_PROGRESS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._enforce_limit, name="time limit")
            await self._follow_documents()
            nursery.cancel_scope.cancel()

    async def _enforce_limit(self) -> None:
        await trio.sleep(self.order.limit_seconds)
        self.end("time-limit")

    async def _follow_documents(self) -> None:
        for self.attempt in range(MAX_DOCUMENTS):
            document = await self._carrier.fetch(self, self.attempt)
            if document is not Document.CONNECT:
                if document is Document.SAY:
                    await trio.sleep(SAY_SECONDS)
                self.ended_by = self.ended_by or "document"
                return
            await self._stream()
            if self.ended_by:
                return

    async def _stream(self) -> None:
        link = await self._carrier.open_stream(self, self.attempt)
        assert self.phone is not None
        self.phone.start(f"{self.order.call_id} {self.attempt}")
        self._is_streaming = True
        try:
            await self.phone.run()
        finally:
            self._is_streaming = False
            link.far.close()
        if self.phone.is_hanging_up:
            self.ended_by = self.ended_by or "callee"

    # ---- what it tells us ------------------------------------------------------------------------

    def _enter(self, teller: trio.MemorySendChannel[CarrierStatus], status: CarrierStatus) -> None:
        self.status = status
        self._carrier.trace.saw(self.who, f"carrier: {status} {self.ended_by}")
        teller.send_nowait(status)

    async def _tell(self, told: trio.MemoryReceiveChannel[CarrierStatus]) -> None:
        held: list[CarrierStatus] = []
        async for status in told:
            match self.plan.callbacks:
                case "lost":
                    continue
                case "late":
                    await trio.sleep(LATE_SECONDS)
                case "reversed":
                    held.insert(0, status)
                    continue
                case "doubled":
                    await self._call_back(status)
            await self._call_back(status)
        for status in held:
            await self._call_back(status)

    async def _call_back(self, status: CarrierStatus) -> None:
        await trio.sleep(WEBHOOK_SECONDS)
        switchboard, call_id = self._carrier.switchboard, self.order.call_id
        await switchboard.carrier_called_back(call_id, StatusCallback(self.sid, status))

    # ---- faults ----------------------------------------------------------------------------------

    async def suffer(self, kind: str) -> None:
        """Let a fault of the carrier's happen to this call."""
        switchboard, call_id = self._carrier.switchboard, self.order.call_id
        match kind:
            case "document-again":
                await switchboard.document(call_id, self.attempt)
            case "stream-again":
                await self._carrier.knock(self)
            case "stream-error":
                error = StreamCallback(self.sid, StreamEvent.ERROR, error="31921 chaos")
                await switchboard.stream_called_back(call_id, error)
            case "amd":
                await switchboard.machine_detected(call_id, AmdCallback(self.sid, AnsweredBy.MACHINE_START))
            case _:
                raise ValueError(f"{kind!r} is no fault of the carrier's")


class FarCarrier:
    """What a call needs of the carrier, answered by functions; `plans` by the number that is dialled."""

    def __init__(
        self,
        nursery: trio.Nursery,
        plans: dict[str, tuple[str, CallPlan]],
        trace: Trace,
        rng: random.Random,
        clock: Callable[[], datetime],
    ) -> None:
        self.switchboard: Switchboard
        self.open_stream: OpenStream
        self.knock: Callable[[FarCall], Awaitable[None]]
        self.parting: Callable[[str], None] = lambda _call_id: None
        self.trace = trace
        self.calls: dict[str, FarCall] = {}  # by the relay's name for them
        self.orders: Counter[str] = Counter()
        self.down_until = -math.inf
        self.slow_until = -math.inf
        self._nursery = nursery
        self._plans = plans
        self._rng = rng
        self._clock = clock

    async def fetch(self, call: FarCall, attempt: int) -> Document:
        """What the relay answers to the fetch of a document."""
        await trio.sleep(WEBHOOK_SECONDS)
        document = await self.switchboard.document(call.order.call_id, attempt)
        self.trace.saw(call.who, f"document {attempt}: {document.name}")
        return document

    # ---- REST ------------------------------------------------------------------------------------

    async def _reach(self) -> bool:
        """Wait for as long as an answer takes; False when none comes."""
        now = trio.current_time()
        if now < self.down_until:
            await trio.sleep(GIVEN_UP_SECONDS)
            return False
        await trio.sleep(SLOW_SECONDS if now < self.slow_until else REST_SECONDS)
        return True

    async def dial(
        self, order: DialOrder, permission: Permission, *, on_dialing: Callable[[], None] = lambda: None
    ) -> Dialled:
        """Place a call, if the gate permits it. An order that was sent is placed whoever still listens."""
        permit = await permission()
        if not isinstance(permit, Permit):
            return NotPermitted(permit.refusal)
        if not permit.covers(order.call_id, permit.attempt, order.to, self._clock()):
            self.trace.violates(order.call_id, "dialled without a permit of its own")
        on_dialing()
        await trio.lowlevel.checkpoint()
        self.orders[order.call_id] += 1
        who, plan = self._plans[order.to]
        self.trace.saw(who, f"carrier: ordered, {plan.create}")
        if trio.current_time() < self.down_until or plan.create == "lost":
            await trio.sleep(GIVEN_UP_SECONDS)
            return Uncertain("no answer")
        if plan.create == "refused":
            await self._reach()
            return Refused(21211, 400, "not a number")
        call = FarCall(order, f"CA{self._rng.getrandbits(128):032x}", plan, who, self)
        self.calls[order.call_id] = call
        self._nursery.start_soon(call.run, name=who)
        if plan.create == "ambiguous":
            await trio.sleep(GIVEN_UP_SECONDS)
            return Uncertain("no answer")
        if plan.create == "slow":
            await trio.sleep(SLOW_SECONDS)
        await self._reach()
        return Placed(call.sid)

    async def hang_up(self, sid: str) -> HangUp:
        """End a call."""
        call = self._by_sid(sid)
        if call is not None:
            self.trace.saw(call.who, "carrier: asked to hang up")
            self.parting(call.order.call_id)
        if not await self._reach():
            return NotHungUp("no answer")
        if call is None or call.status.is_terminal:
            return AlreadyEnded()
        call.end("rest")
        return HungUp()

    async def status_of(self, sid: str) -> CarrierCall | Unavailable | None:
        """A call as the carrier has it."""
        if not await self._reach():
            return Unavailable(None, None, "no answer")
        call = self._by_sid(sid)
        return None if call is None else CarrierCall(sid, call.status, call.order.to)

    async def calls_since(self, to: str, since: datetime) -> list[CarrierCall] | Unavailable:
        """The calls to a number."""
        if not await self._reach():
            return Unavailable(None, None, "no answer")
        found = [call for call in self.calls.values() if call.order.to == to]
        return [CarrierCall(call.sid, call.status, to) for call in found]

    async def record(self, sid: str, callback: str) -> str | Unavailable:
        """Nobody orders that here."""
        await self._reach()
        return Unavailable(None, None, "not recorded")

    async def notices(self, sid: str) -> list[Notice] | Unavailable:
        """Nothing is ever noted down."""
        await self._reach()
        return []

    def _by_sid(self, sid: str) -> FarCall | None:
        return next((call for call in self.calls.values() if call.sid == sid), None)
