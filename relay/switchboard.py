"""All calls of this node: admission, the phases of each, drain, and the border where a bug ends one call.

Knows no HTTP and no Quart; the carrier, the agent and the store are what it was given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import Enum, auto

import structlog
import trio

from relay.call import Call
from relay.legs import Leg
from relay.line import Document, Line
from relay.outcomes import Blame, Ending, Farewell, Reason, Refusal
from relay.placing import CallRequest, House, Office
from relay.profiles import Profile
from relay.store import CallRecord, Status, Store
from relay.store.records import StoreError
from relay.telemetry.capture import Captures
from relay.tools import Tool
from relay.wire.callbacks import AmdCallback, RecordingCallback, StatusCallback, StreamCallback, StreamEvent
from relay.wire.carrier import Carrier, CarrierCall, NotHungUp, Placed, Refused, Unavailable, Uncertain

UNKNOWN_SECONDS = 300.0  # an ambiguous create is waited for so long: a queued call may ring much later
ANSWER_SECONDS = 5.0  # an order that is under way when its call ends: the answer says whom to hang up on
HANG_UP_SECONDS = 6.0  # the dialer's own bound is 5
SPOKEN_FAREWELL_SECONDS = 10.0  # for the document after <Connect> to be spoken, then we hang up ourselves
SAVE_SECONDS = 5.0
NOTICES_SECONDS = 3.0
WIND_UP_SECONDS = 8.0  # for a goodbye by us; with the teardown behind it, 10 s are kept

__all__ = ["CallRequest", "Document", "House", "Phase", "Switchboard"]

log = structlog.get_logger()


class Phase(Enum):
    """What this node still does."""

    OPEN = auto()
    DRAINING = auto()  # no new calls; those placed go on
    CLOSING = auto()  # live calls are being wound up


class Switchboard:
    """Keeps the lines. `calls` is the nursery in which each call has its one task."""

    def __init__(
        self,
        *,
        house: House,
        calls: trio.Nursery,
        carrier: Carrier,
        open_agent: Callable[[], Awaitable[Leg]],
        store: Store,
        profiles: Callable[[str], Profile | None],
        tools: Mapping[str, Tool],
        clock: Callable[[], datetime],
        probe: Callable[[], Awaitable[Refusal | None]],
        captures: Captures,
    ) -> None:
        self.phase = Phase.OPEN
        self._house = house
        self._calls = calls
        self._carrier = carrier
        self._open_agent = open_agent
        self._store = store
        self._office = Office(house, profiles=profiles, tools=tools, clock=clock)
        self._clock = clock
        self._probe = probe
        self._captures = captures
        self._lines: dict[str, Line] = {}  # bounded by House.max_calls
        self._idle = trio.Event()
        self._idle.set()

    # ---- admission -------------------------------------------------------------------------------

    @property
    def lines(self) -> list[Line]:
        """The calls that have not ended, oldest first."""
        return list(self._lines.values())

    def line(self, call_id: str) -> Line | None:
        """One call that has not ended."""
        return self._lines.get(call_id)

    @property
    def refusal(self) -> Refusal | None:
        """Why this node takes no new calls; None when it does."""
        if self.phase is not Phase.OPEN:
            return Refusal("draining", "this node is shutting down; place the call on another one")
        if len(self._lines) >= self._house.max_calls:
            return Refusal(
                "full", f"all {self._house.max_calls} lines are in use (RELAY_MAX_CALLS); try again later"
            )
        return None

    async def wait_idle(self) -> None:
        """Return when there is no call left."""
        while self._lines:
            await self._idle.wait()

    async def place(self, request: CallRequest) -> Line | CallRecord | Refusal:
        """Store the intent and start the call; the record of an earlier call for a known idempotency key."""
        try:
            return await self._place(request)
        except StoreError as problem:
            return Refusal("no-store", f"the intent could not be stored: {problem}")

    async def _place(self, request: CallRequest) -> Line | CallRecord | Refusal:
        if request.idempotency_key is not None:  # a repeated request is no new call, whatever we are doing
            earlier = await self._store.under_key(request.idempotency_key)
            if earlier is not None:
                return _same_call(earlier, request)
        if refusal := await self._probe() or self.refusal:
            return refusal
        line = self._office.prepare(request)
        if isinstance(line, Refusal):
            return line
        self._claim(line)  # nothing was awaited since the last look: there are never more lines than allowed
        record: CallRecord | None = None
        try:
            record = await self._store.add(line.record)
        finally:
            if record is not line.record:
                self._release(line)
        if record is not line.record:  # another request was quicker with the same key
            return _same_call(record, request)
        self._calls.start_soon(self._carry, line, name=record.id)
        return line

    def _claim(self, line: Line) -> None:
        self._lines[line.record.id] = line
        if self._idle.is_set():
            self._idle = trio.Event()

    def _release(self, line: Line) -> None:
        del self._lines[line.record.id]
        if not self._lines:
            self._idle.set()

    # ---- the life of one call --------------------------------------------------------------------

    async def _carry(self, line: Line) -> None:
        structlog.contextvars.bind_contextvars(call_id=line.record.id)
        line.noted("started", {})
        log.info("call started", agent=line.record.agent)
        try:
            try:
                await self._guard(line, self._live)
            finally:
                line.end(Ending(Blame.US, Reason.CUT))  # what stands if nothing else ended it
                with trio.move_on_after(SAVE_SECONDS, shield=True):  # the one shield of the house
                    await self._guard(line, self._save)
            await self._guard(line, self._see_off)
        finally:
            self._release(line)

    async def _guard(self, line: Line, phase: Callable[[Line], Awaitable[None]]) -> None:
        """The border: whatever goes wrong in a phase of this call ends this call and no other."""
        try:
            await phase(line)
        except* Exception as bugs:
            log.error("call crashed", exc_info=bugs)
            line.end(Ending(Blame.US, Reason.CRASHED, _name_of(bugs)))

    async def _live(self, line: Line) -> None:
        await self._wait_stream(line)
        if line.stream is not None:
            await self._bridge(line, *line.stream)
        elif line.ending is None:
            await self._explain_no_stream(line)
        if line.farewell is Farewell.SILENT:
            await self._hang_up(line)
        if line.stream is None or (line.ending and line.ending.blame is Blame.CARRIER):
            await self._read_notices(line)

    async def _wait_stream(self, line: Line) -> None:
        async with trio.open_nursery() as nursery:  # the phone may be answered before the carrier answers us
            nursery.start_soon(self._dial, line, nursery.cancel_scope, name="dial")
            with line.waiting:
                await line.stream_arrived.wait()
            # An order that is under way is not cut off: its answer may be all that tells whom to hang up on.
            is_in_doubt = line.record.status is Status.DIALING and line.record.sid is None
            patience_seconds = ANSWER_SECONDS if is_in_doubt else 0.0
            nursery.cancel_scope.deadline = trio.current_time() + patience_seconds

    async def _dial(self, line: Line, order: trio.CancelScope) -> None:
        def dialing() -> None:
            if line.ending is not None:
                order.cancel()  # ended while it waited: cancelled here, nothing is sent
            line.record.raise_status(Status.DIALING)
            line.noted("dialing", {})

        dialled = await self._carrier.dial(line.order, on_dialing=dialing)
        match dialled:
            case Placed(sid):
                line.learn_sid(sid)
            case Refused(code, _, sentence):
                line.refusal = sentence
                line.noted("refused by the carrier", {"code": code})
                line.end(Ending(Blame.CARRIER, Reason.REFUSED, sentence))
            case Uncertain(detail):
                log.warning("create was ambiguous", detail=detail)
                if line.record.sid is None:
                    line.record.raise_status(Status.UNKNOWN)
                    line.waiting.deadline = trio.current_time() + UNKNOWN_SECONDS
        line.decided.set()

    async def _bridge(self, line: Line, leg: Leg, stream_sid: str) -> None:
        if line.ending is not None:
            return await leg.close()
        assert line.answered_at is not None
        leg.tap = self._captures.tap(line.record.id, "phone")
        structlog.contextvars.bind_contextvars(call_sid=line.record.sid, stream_sid=stream_sid)

        async def open_agent() -> Leg:
            agent = await self._open_agent()
            agent.tap = self._captures.tap(line.record.id, "agent")
            return agent

        async def hang_up(ending: Ending) -> None:
            if ending.farewell is Farewell.SILENT:
                await self._hang_up(line)

        line.call = Call(
            phone=leg,
            stream_sid=stream_sid,
            open_agent=open_agent,
            terms=line.terms,
            tools=line.tools,
            diary=line,
            hang_up=hang_up,
            answered_at=line.answered_at,
        )
        return line.end(await line.call.run())

    async def _explain_no_stream(self, line: Line) -> None:
        """Nobody told us anything for too long: ask the carrier, and end by its answer or without one."""
        if line.answered_at is None and line.record.sid is not None:
            with trio.move_on_after(HANG_UP_SECONDS):
                found = await self._carrier.status_of(line.record.sid)
                if isinstance(found, CarrierCall):
                    line.carrier_said(found.status)
        line.end(line.unheard_of)

    async def _read_notices(self, line: Line) -> None:
        """Put what the carrier noted about a failed call into its record, so that no failure is silent."""
        if line.record.sid is None:
            return
        with trio.move_on_after(NOTICES_SECONDS):
            notices = await self._carrier.notices(line.record.sid)
            if not isinstance(notices, Unavailable):
                line.record.notices = [
                    {"code": notice.code, "message": notice.sentence} for notice in notices
                ]

    async def _hang_up(self, line: Line) -> None:
        if line.record.sid is None or line.confirmed.is_set() or line.told_to_hang_up:
            return
        with trio.move_on_after(HANG_UP_SECONDS):
            outcome = await self._carrier.hang_up(line.record.sid)
            line.told_to_hang_up = True
            line.noted("hung up", {"outcome": type(outcome).__name__})
            if isinstance(outcome, NotHungUp):
                log.error("hang-up failed", detail=outcome.detail)

    async def _save(self, line: Line) -> None:
        record, ending = line.record, line.ending
        assert ending is not None
        if line.stream is not None:
            await line.stream[0].abort()  # closed long ago, unless the call never got as far as its bridge
        record.ending = ending
        record.ended_at = self._clock()
        record.counts = line.call.counts if line.call else {}
        line.noted("ended", ending.as_json())
        line.decided.set()
        record.raise_status(Status.ENDED)
        try:
            await self._store.save(record)
        except StoreError:
            log.exception("record not saved")
        log.info(
            "call ended", **ending.as_json(), duration_seconds=record.duration_seconds, detail=ending.detail
        )

    async def _see_off(self, line: Line) -> None:
        """The carrier's side of the end: let a spoken farewell be heard, then hang up what is still up."""
        if line.farewell is Farewell.SPOKEN:
            with trio.move_on_after(SPOKEN_FAREWELL_SECONDS):
                await line.confirmed.wait()
        await self._hang_up(line)
        await self._captures.write(line.record.id)

    # ---- what the carrier asks and says ----------------------------------------------------------

    def document(self, call_id: str, attempt: int) -> Document:
        """Which document a signed fetch gets."""
        line = self._lines.get(call_id)
        return Document.UNKNOWN if line is None else line.document(attempt)

    async def carrier_called_back(self, call_id: str, callback: StatusCallback) -> None:
        """A status callback for one of our calls."""
        line = self._lines.get(call_id)
        if line is not None:
            line.noted("carrier", {"status": callback.status.value})
            line.carrier_said(callback.status)
        if callback.status.is_terminal:
            try:
                await self._store.confirm(call_id, self._clock())
            except StoreError as problem:
                log.warning("confirmation not stored", call_id=call_id, detail=str(problem))

    def machine_detected(self, call_id: str, callback: AmdCallback) -> None:
        """The verdict of the carrier's answering-machine detection."""
        if (line := self._lines.get(call_id)) and line.ending is None:
            line.record.answered_by = callback.answered_by.value
            line.noted("answered by", {"who": callback.answered_by.value})

    def stream_called_back(self, call_id: str, callback: StreamCallback) -> None:
        """A stream that Twilio gave up may leave its socket half open: its word ends the call."""
        if line := self._lines.get(call_id):
            line.noted("stream", {"what": callback.event.value})
            if callback.event is StreamEvent.ERROR:
                line.end(Ending(Blame.CARRIER, Reason.LOST, callback.error or "stream-error"))

    def recorded(self, call_id: str, callback: RecordingCallback) -> None:
        """A recording is ready; its reference goes into the timeline."""
        if line := self._lines.get(call_id):
            line.noted("recording", {"recording_sid": callback.recording_sid})

    def admit(self, call_id: str, attempt: int, call_sid: str) -> Line | None:
        """The call that a genuine token names, once a token; None when it is spent, over or another's."""
        line = self._lines.get(call_id)
        if (
            line is None
            or line.ending is not None
            or attempt in line.streams_spent
            or line.stream is not None
        ):
            return None
        if not line.learn_sid(call_sid):
            return None
        line.streams_spent.add(attempt)
        return line

    # ---- what the operator says ------------------------------------------------------------------

    def hang_up(self, line: Line, *, goodbye: bool) -> None:
        """End a call because somebody asked for it."""
        ending = Ending(Blame.US, Reason.OPERATOR)
        if goodbye:
            line.wind_up(ending, within_seconds=WIND_UP_SECONDS)
        else:
            line.end(ending)

    def drain(self) -> None:
        """Take no new calls."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.DRAINING

    def wind_up_all(self) -> None:
        """Have every agent say goodbye; calls without one end at once."""
        self.phase = Phase.CLOSING
        for line in self.lines:
            line.wind_up(Ending(Blame.US, Reason.DRAINED), within_seconds=WIND_UP_SECONDS)

    def cut_all(self) -> None:
        """End every call now."""
        self.phase = Phase.CLOSING
        for line in self.lines:
            line.end(Ending(Blame.US, Reason.CUT))


def _same_call(earlier: CallRecord, request: CallRequest) -> CallRecord | Refusal:
    if earlier.request_digest != request.digest:
        return Refusal("key-conflict", "this Idempotency-Key was used for another request")
    return earlier


def _name_of(bug: BaseException) -> str:
    """What kind of bug it was; its own words may hold speech or numbers."""
    while isinstance(bug, BaseExceptionGroup):
        bug = bug.exceptions[0]
    return type(bug).__name__
