"""All calls of this node: who is let in, what the carrier and the operator say of them, and the drain.

Knows no HTTP and no Quart; the carrier, the agent and the store are what it was given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import Context  # a task keeps the one it is started in, and with it the request
from datetime import datetime
from enum import Enum, auto
from functools import partial
from typing import Any

import structlog
import trio

from relay.agent_half import OpenAgent
from relay.carrier import Carrier
from relay.course import Course
from relay.custody import Custody
from relay.gatekeeper import Gatekeeper
from relay.line import WIND_UP_SECONDS, Document, Line, document_after_key
from relay.meter import Meter
from relay.outcomes import Blame, Ending, Farewell, Reason, Refusal
from relay.parting import being_left, being_transferred
from relay.placing import Agents, CallRequest, House, Office, same_call
from relay.recordings import Recordings
from relay.script import Announcement
from relay.store import (
    CallRecord,
    ListEntry,
    Listing,
    Spool,
    Status,
    Store,
    StoreError,
    Wish,
    WishKind,
)
from relay.telemetry.capture import Captures
from relay.telemetry.traces import Traces
from relay.transfers import Transfers
from relay.wire.callbacks import AmdCallback, RecordingCallback, StatusCallback, StreamCallback
from relay.wishes import follow_stream, grant

RETURNS = 2  # times that it goes on besides, because nobody took it over
REATTACHMENTS = 2  # times that a call goes on after its node died; a third death is no accident

__all__ = ["CallRequest", "Document", "House", "Phase", "Switchboard"]

log = structlog.get_logger(subsystem="calls")


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
        open_agent: OpenAgent,
        store: Store,
        spool: Spool,
        gatekeeper: Gatekeeper,
        agents: Agents,
        clock: Callable[[], datetime],
        probe: Callable[[], Awaitable[Refusal | None]],
        captures: Captures,
        recordings: Recordings,
        traces: Traces,
        meter: Meter,
    ) -> None:
        self.phase = Phase.OPEN
        self._house = house
        self._calls = calls
        self._office = Office(house, agents, clock, store.books, gatekeeper)
        self._custody = Custody(house.node, store, spool, self._office, gatekeeper, clock)
        self._course = Course(
            carrier=carrier,
            open_agent=open_agent,
            gatekeeper=gatekeeper,
            store=store,
            spool=spool,
            custody=self._custody,
            captures=captures,
            recordings=recordings,
            traces=traces,
            prices=house.prices,
            clock=clock,
        )
        self.agent_key = self._course.agent_key
        self.transfers = Transfers(self._office, self._custody, store, self.line, self.adopt)
        self._store = store
        self._spool = spool  # what live calls write, also while the store is down
        self._gatekeeper = gatekeeper
        self._clock = clock
        self._meter = meter
        self._probe = probe
        # Bounded by House.max_calls, and by what the others lose to us: somebody is on the phone then.
        self._lines: dict[str, Line] = {}
        self._idle = trio.Event()
        self._idle.set()

    # ---- admission -------------------------------------------------------------------------------

    @property
    def lines(self) -> list[Line]:
        """The calls that have not ended, oldest first."""
        return list(self._lines.values())

    def line(self, call_id: str) -> Line | None:
        """One call that has not ended; None for one that another node has by now."""
        line = self._lines.get(call_id)
        return None if line is None or line.yielded else line

    async def holds(self, line: Line) -> bool | None:
        """Whether a call is still this node's; None where the ledger does not say."""
        return await self._custody.holds(line)

    async def newest(self, line: Line) -> CallRecord:
        """What is known of a call that was placed here: it may be live on another node already."""
        if line.record.sid is None or line.yielded:
            with suppress(StoreError):
                kept = await self._store.get(line.record.id)
                if kept is not None and kept.sid is not None:
                    return kept
        return line.record

    @property
    def refusal(self) -> Refusal | None:
        """Why this node takes no new calls; None when it does."""
        if self.phase is not Phase.OPEN:
            return Refusal("draining", "this node is shutting down; place the call on another one")
        if self._spool.problem is not None:
            return Refusal("no-store", f"the ledger is down: {self._spool.problem}")
        if len(self._lines) >= self._house.max_calls:
            return Refusal(
                "full", f"all {self._house.max_calls} lines are in use (RELAY_MAX_CALLS); try again later"
            )
        return self.agent_key.refusal

    async def wait_idle(self) -> None:
        """Return when there is no call left."""
        while self._lines:
            await self._idle.wait()

    async def place(self, request: CallRequest) -> Line | CallRecord | Refusal:
        """Store the intent and start the call; the record of an earlier call for a known idempotency key."""
        try:
            placed = await self._place(request)
        except StoreError as problem:
            self._spool.doubt(problem)
            placed = Refusal("no-store", f"the intent could not be stored: {problem}")
        if isinstance(placed, Refusal):
            self._meter.refused(placed.code)
        return placed

    async def _place(self, request: CallRequest) -> Line | CallRecord | Refusal:
        if request.idempotency_key is not None:  # a repeated request is no new call, whatever we are doing
            earlier = await self._store.under_key(request.idempotency_key)
            if earlier is not None:
                return same_call(earlier, request)
        await self._office.refresh()
        if refusal := await self._probe() or await self._gatekeeper.spent() or self.refusal:
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
            return same_call(record, request)
        Context().run(partial(self._calls.start_soon, self._carry, line, name=record.id))
        return line

    async def adopt(
        self, call_id: str, attempt: int, came_back: Mapping[str, Any] | None = None
    ) -> Line | None:
        """Go on with a call of whatever node had it, by Twilio's word that its last stream is over.

        `came_back`: or that nobody took it over. None for a call that has ended, that somebody took for this
        attempt, or that went on too often.
        """
        if attempt > REATTACHMENTS + RETURNS * bool(came_back) or self.phase is Phase.CLOSING:
            return None
        line = await self._custody.take_over(call_id, attempt, came_back)
        if line is not None:
            self._start(line, "came back" if came_back else "taken over")
        return line

    def _start(self, line: Line, how: str) -> None:
        if earlier := self._lines.get(line.record.id):  # from before another node had the call
            earlier.give_way()
        self._claim(line)
        log.info("call taken", call_id=line.record.id, attempt=line.record.attempt, how=how)
        line.noted(how, {"attempt": line.record.attempt})
        line.resume()
        Context().run(partial(self._calls.start_soon, self._carry, line, name=line.record.id))

    def _claim(self, line: Line) -> None:
        line.on_opt_out = partial(self._suppress, line)
        line.on_note = partial(self._meter.noted, line)
        line.on_turn = self._meter.turn_answered
        self._lines[line.record.id] = line
        if self._idle.is_set():
            self._idle = trio.Event()

    def _release(self, line: Line) -> None:
        if self._lines.get(line.record.id) is line:  # else the call has come back to this node meanwhile
            del self._lines[line.record.id]
        self._meter.gone(line)
        if not self._lines:
            self._idle.set()

    async def _carry(self, line: Line) -> None:
        try:
            await self._course.run(line)
        finally:
            self._release(line)

    # ---- what the carrier asks and says ----------------------------------------------------------

    async def document(self, call_id: str, attempt: int, call_sid: str = "") -> Document:
        """Which document a signed fetch gets, whichever node has the call."""
        line = self.line(call_id)
        if line is not None and attempt != line.record.attempt and await self.holds(line) is False:
            line = None  # the stream that is over was another node's
        try:
            return await (self._decide(line, attempt) if line else self._look_up(call_id, attempt, call_sid))
        except StoreError as problem:
            log.warning("no document without the ledger", call_id=call_id, detail=str(problem))
            return Document.SAY

    async def _decide(self, line: Line, attempt: int) -> Document:
        if attempt < line.record.attempt:
            return Document.SAY  # overtaken; the call goes on with its newest stream
        line.answered()
        is_next = line.ending is None and line.stream is None and attempt == line.record.attempt
        if is_next and (refusal := await self._gatekeeper.recheck(line)):
            line.noted("not permitted", {"code": refusal.code})
            line.forbid(refusal)
        return line.document(attempt)

    async def _look_up(self, call_id: str, attempt: int, call_sid: str) -> Document:
        record = await self._store.get(call_id)
        if record is None or (call_sid and not await self._store.learn_sid(call_id, call_sid)):
            return Document.UNKNOWN
        if record.ending is None and attempt == record.attempt + 1 and being_transferred(record):
            return Document.DIAL
        ending = record.ending or being_left(record)
        if ending is None and attempt > record.attempt:
            if line := await self.adopt(call_id, attempt):
                return await self._decide(line, attempt)
            record = await self._store.get(call_id) or record  # another node may have been quicker
        if ending is None:
            serve = attempt == record.attempt
            return await self._custody.serve(record, call_sid) if serve else Document.SAY
        is_owed = record.answered_at is not None and ending.farewell is Farewell.SPOKEN
        return Document.SAY if is_owed else Document.HANG_UP

    async def announcement(self, call_id: str) -> Announcement | None:
        """What the carrier is to say in Document.ANNOUNCE, on whichever node the call is."""
        if line := self.line(call_id):
            return line.announcement
        try:
            record = await self._store.get(call_id)
        except StoreError as problem:
            log.warning("no disclosure without the ledger", call_id=call_id, detail=str(problem))
            return None
        return None if record is None else self._office.announcement(record)

    async def key_pressed(self, call_id: str, to: str, digit: str, times_said: int) -> Document:
        """A key while the carrier speaks the disclosure to `to`: an opt-out counts on whatever node it is."""
        follows = document_after_key(digit, times_said)
        if line := self.line(call_id):
            return line.key_pressed(follows)
        is_opt_out = follows is Document.OPTED_OUT
        if follows is not Document.ANNOUNCE:  # first: the list has the call's owner end it without a word
            try:
                await self._store.wish(call_id, WishKind.KEY, {"is_opt_out": is_opt_out})
            except StoreError as problem:
                log.warning("key not passed on", call_id=call_id, detail=str(problem))
        if is_opt_out:
            await self._guard_suppression(ListEntry(to, Listing.ADDED, "call:key", call_id, self._clock()))
        return follows

    async def carrier_called_back(self, call_id: str, callback: StatusCallback) -> None:
        """A status callback for one of our calls, whichever node has it."""
        line, status = self.line(call_id), callback.status
        if line is not None:
            line.noted("carrier", {"status": status.value})
            line.carrier_said(status)
        try:
            if line is None:
                said = {"status": status.value, "at": self._clock().isoformat()}
                if not await self._custody.wish_of_owner(call_id, callback.call_sid, WishKind.CALLBACK, said):
                    return
            if status.is_terminal:
                await self._spool.confirm(call_id, self._clock())
        except StoreError as problem:
            log.warning("callback not stored", call_id=call_id, detail=str(problem))

    async def machine_detected(self, call_id: str, callback: AmdCallback) -> None:
        """The verdict of the carrier's answering-machine detection."""
        who = callback.answered_by.value
        if (line := self.line(call_id)) is not None:
            line.machine_detected(who)
        else:
            await self._custody.report(call_id, callback.call_sid, WishKind.ANSWERED_BY, {"who": who})

    async def stream_called_back(self, call_id: str, callback: StreamCallback, attempt: int = 0) -> None:
        """A stream that Twilio gave up may leave its socket half open: its word ends the call."""
        told = {"what": callback.event.value, "attempt": attempt, "error": callback.error}
        if (line := self.line(call_id)) is not None:
            follow_stream(line, told)
        else:
            await self._custody.report(call_id, callback.call_sid, WishKind.STREAM, told)

    async def recorded(self, call_id: str, callback: RecordingCallback) -> None:
        """A recording is ready: its reference goes into the timeline, mostly behind the end of the call."""
        if (line := self.line(call_id)) is not None and line.record.status is not Status.ENDED:
            line.noted("recording", callback.fields)
        else:
            await self._custody.tell(call_id, callback.call_sid, "recording", callback.fields)

    async def admit(self, call_id: str, attempt: int, call_sid: str) -> Line | None:
        """The call that a genuine token names, once a token; None when it is spent, over or another's.

        A call of another node's is ours from then on: it lives where its stream is.
        """
        mine = self.line(call_id)
        if mine is not None and mine.record.attempt != attempt:
            mine = None  # from before another node had the call, or a stream that was overtaken
        if mine is not None:
            if mine.ending is not None or attempt in mine.streams_spent or not mine.learn_sid(call_sid):
                return None
            mine.streams_spent.add(attempt)
        elif self.phase is Phase.CLOSING:
            return None
        line = await self._custody.take_stream(call_id, attempt, call_sid, mine)
        if line is not None and line is not mine:
            self._start(line, "moved")
        return None if line is None or line.ending is not None else line

    # ---- what the operator says ------------------------------------------------------------------

    async def hang_up_elsewhere(self, call_id: str, *, goodbye: bool) -> bool:
        """End a call of another node's; False when it has ended or never was."""
        return await self._store.wish(call_id, WishKind.GOODBYE if goodbye else WishKind.HANG_UP)

    def grant(self, wish: Wish) -> bool:
        """Do what somebody left in the ledger for the node that has the call; False where that is not us."""
        if (line := self.line(wish.call_id)) is not None:
            grant(line, wish)
        return line is not None

    def _suppress(self, line: Line, how: str) -> None:
        """Put the number on our list, at once and for good; the spool keeps it if the ledger is down."""
        entry = ListEntry(line.record.to, Listing.ADDED, f"call:{how}", line.record.id, self._clock())
        self._calls.start_soon(self._guard_suppression, entry, name="opt-out")

    async def _guard_suppression(self, entry: ListEntry) -> None:
        try:
            await self._spool.suppress([entry])
        except StoreError:
            log.exception("opt-out not stored")

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
