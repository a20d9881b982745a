"""The course of one call, from its dial to the carrier's last word: the border where a bug ends one call.

Knows no other call and no HTTP; the carrier, the agent and the ledger are what it was given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

import structlog
import trio

from relay import doubt
from relay.agent_half import OpenAgent
from relay.agent_key import AgentKey
from relay.call import Call
from relay.carrier import (
    Carrier,
    CarrierCall,
    NotHungUp,
    NotPermitted,
    Placed,
    Refused,
    Unavailable,
    Uncertain,
)
from relay.costs import Prices
from relay.custody import Custody
from relay.gatekeeper import Gatekeeper
from relay.legs import Leg
from relay.line import DIAL_WORD_SECONDS, Line
from relay.outcomes import Blame, Ending, Farewell, Reason, cause_of
from relay.parting import LEAVING
from relay.recordings import Recordings
from relay.store import Spool, Status, Store, StoreError, Written
from relay.store.records import ENDED, left_to_tell
from relay.taping import Taping
from relay.telemetry.capture import Captures
from relay.telemetry.traces import Traces
from relay.usage import charge

ANSWER_SECONDS = 5.0  # an order that is under way when its call ends: the answer says whom to hang up on
HANG_UP_SECONDS = 6.0  # the dialer's own bound is 5
ANNOUNCE_SECONDS = 1.0  # for the ledger to learn that a call is being left; then it is left all the same
SPOKEN_FAREWELL_SECONDS = 10.0  # for the document after <Connect> to be spoken, then we hang up ourselves
SAVE_SECONDS = 7.0  # longer than one operation of the ledger may take: then the spool still gets its turn
NOTICES_SECONDS = 3.0
TRANSFER_GRACE_SECONDS = 30.0  # past the limit at which the carrier ends a call that somebody else has taken

log = structlog.get_logger(subsystem="calls")


class Course:
    """What every call of this node goes through."""

    def __init__(
        self,
        *,
        carrier: Carrier,
        open_agent: OpenAgent,
        gatekeeper: Gatekeeper,
        store: Store,
        spool: Spool,
        custody: Custody,
        captures: Captures,
        traces: Traces,
        recordings: Recordings,
        prices: Prices,
        clock: Callable[[], datetime],
    ) -> None:
        self.agent_key = AgentKey(open_agent)
        self._carrier = carrier
        self._open_agent = open_agent
        self._gatekeeper = gatekeeper
        self._store = store
        self._spool = spool
        self._custody = custody
        self._captures = captures
        self._traces = traces
        self._taping = Taping(carrier, recordings)
        self._prices = prices
        self._clock = clock

    async def run(self, line: Line) -> None:
        """Live through a call to its end. Raises only when it is cancelled; the record is saved even then."""
        structlog.contextvars.bind_contextvars(call_id=line.record.id)
        if not line.is_resumed:
            line.noted("started", {})
            log.info("call started", agent=line.record.agent)
        try:
            await self._guard(line, self._live)
        finally:
            line.end(Ending(Blame.US, Reason.CUT))  # what stands if nothing else ended it
            with trio.move_on_after(SAVE_SECONDS, shield=True):  # the one shield of the house
                await self._guard(line, self._save)
        await self._guard(line, self._see_off)

    async def _guard(self, line: Line, phase: Callable[[Line], Awaitable[None]]) -> None:
        """The border: whatever goes wrong in a phase of this call ends this call and no other."""
        try:
            await phase(line)
        except* Exception as bugs:
            log.error("call crashed", exc_info=bugs)
            kind = type(cause_of(bugs)).__name__  # its own words may hold speech or numbers
            line.end(Ending(Blame.US, Reason.CRASHED, kind))

    async def _live(self, line: Line) -> None:
        await self._wait_stream(line)
        if line.stream is not None:
            await self._bridge(line, *line.stream)
        elif line.ending is None:
            await self._explain_no_stream(line)
        if line.farewell is Farewell.SILENT:
            await self._hang_up(line)
        if line.leave_by is not None:
            return  # the line is to be closed in time, and the carrier has nothing to explain
        if line.stream is None or (line.ending and line.ending.blame is Blame.CARRIER):
            await self._read_notices(line)

    async def _wait_stream(self, line: Line) -> None:
        async with trio.open_nursery() as nursery:  # the phone may be answered before the carrier answers us
            if not line.is_resumed:
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
                return
            line.record.raise_status(Status.DIALING)
            line.noted("dialing", {})

        permission = partial(self._gatekeeper.permit, line)
        dialled = await self._carrier.dial(line.order, permission, on_dialing=dialing)
        match dialled:
            case Placed(sid):
                line.learn_sid(sid)
            case Refused(code, _, sentence):
                line.refusal = sentence
                line.noted("refused by the carrier", {"code": code})
                line.end(Ending(Blame.CARRIER, Reason.REFUSED, sentence))
            case NotPermitted(refusal):
                line.noted("not permitted", {"code": refusal.code})
                line.forbid(refusal)
            case Uncertain(detail):
                log.warning("create was ambiguous", detail=detail)
                line.noted("ambiguous", {})
                if line.record.sid is None:
                    line.record.raise_status(Status.UNKNOWN)
                    line.decided.set()
                    await self._resolve(line)
        line.decided.set()

    async def _resolve(self, line: Line) -> None:
        """The answer is lost: until a signed request names the call, look whether the carrier has one at all.

        Bounded: each look is, and past its patience every answer concludes.
        """
        ordered_at = trio.current_time()
        while True:
            await trio.sleep(doubt.LOOK_SECONDS)
            found = await doubt.look(line.record, self._carrier, self._store)
            if isinstance(found, doubt.Trace) and found.sid is not None:
                line.learn_sid(found.sid)
            if line.record.sid is not None:
                return
            if isinstance(found, doubt.Trace) and doubt.is_news(line.record, found):
                line.noted(doubt.LISTED, {"candidates": found.candidates})
            if ending := doubt.conclude(found, trio.current_time() - ordered_at):
                line.end(ending)
                return

    async def _bridge(self, line: Line, leg: Leg, stream_sid: str) -> None:
        if line.ending is not None:
            await self._announce(line, line.ending)
            await leg.close()
            return
        assert line.answered_at is not None
        leg.tap = self._captures.tap(_stream_of(line), "phone")
        structlog.contextvars.bind_contextvars(call_sid=line.record.sid, stream_sid=stream_sid)

        async def open_agent(resume_token: str | None) -> Leg:
            agent = await self._open_agent(resume_token)
            agent.tap = self._captures.tap(_stream_of(line), "agent")
            return agent

        async def announce(ending: Ending) -> None:
            await self._announce(line, ending)

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
            announce=announce,
            hang_up=hang_up,
            answered_at=line.answered_at,
        )
        if line.record.answered_by is not None:  # before the stream was there, or on another node
            line.call.machine_detected(line.record.answered_by)
        async with self._taping.tape(line, leg):
            ending = await line.call.run()
        self.agent_key.judge(ending, had_session=line.call.had_session)
        if line.is_transferring:
            await self._put_through(line, line.answered_at)
        else:
            line.end(ending)

    async def _put_through(self, line: Line, answered_at: float) -> None:
        """Somebody else is dialled: the call goes on without us until the carrier says what became of it."""
        limit_at = answered_at + line.record.time_limit_seconds + TRANSFER_GRACE_SECONDS
        word_at = trio.current_time() + DIAL_WORD_SECONDS if line.confirmed.is_set() else limit_at
        with trio.CancelScope(deadline=min(limit_at, word_at)) as line.waiting:
            if line.ending is None:
                await trio.sleep_forever()
        if line.ending is None and not line.confirmed.is_set():
            await self._ask_whether_over(line)
        if line.confirmed.is_set():
            line.end(Ending(Blame.CALLEE, Reason.HUNG_UP, "while being put through"))
        unknown = "the carrier never said what became of the transfer"
        line.end(Ending(Blame.CARRIER, Reason.TRANSFER_FAILED, unknown))

    async def _announce(self, line: Line, ending: Ending) -> None:
        """Write down how a call is being left before the carrier asks any node what follows."""
        if line.yielded:
            return
        to = {"to": line.call.transfer_to} if line.call and ending.reason is Reason.TRANSFERRED else {}
        line.noted(LEAVING, {"attempt": line.record.attempt, **ending.as_json(), **to})
        with trio.move_on_after(ANNOUNCE_SECONDS):
            try:
                await self._spool.save(line.record)
            except StoreError as problem:
                log.warning("leaving not announced", detail=str(problem))

    async def _explain_no_stream(self, line: Line) -> None:
        """Nobody told us anything for too long: ask the carrier, and end by its answer or without one."""
        if line.answered_at is None:
            await self._ask_whether_over(line)
        line.end(line.unheard_of)

    async def _ask_whether_over(self, line: Line) -> None:
        if line.record.sid is not None:
            with trio.move_on_after(HANG_UP_SECONDS):
                found = await self._carrier.status_of(line.record.sid)
                if isinstance(found, CarrierCall):
                    line.carrier_said(found.status)

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
        is_ours = await self._custody.holds(line)
        if is_ours is None or line.is_spooled:
            # Nobody can say whose it is. What somebody wants ended is ended, and what streamed here; a call
            # that only seems to have no stream may have it on another node.
            is_ours = line.stream is not None or (line.ending is not None and line.ending.blame is Blame.US)
        if not is_ours:
            return
        with trio.move_on_after(HANG_UP_SECONDS):
            outcome = await self._carrier.hang_up(line.record.sid)
            line.told_to_hang_up = not isinstance(outcome, NotHungUp)
            line.noted("hung up", {"outcome": type(outcome).__name__})
            if isinstance(outcome, NotHungUp):
                log.error("hang-up failed", detail=outcome.detail)

    async def _save(self, line: Line) -> None:
        record, ending = line.record, line.ending
        assert ending is not None
        if line.stream is not None:
            await line.stream[0].abort()  # closed long ago, unless the call never got as far as its bridge
        await self._taping.finish(line)
        record.ending = ending
        record.ended_at = self._clock()
        record.counts = line.call.counts if line.call else {}
        agent_seconds = line.call.agent_seconds if line.call else 0.0
        charge(record, self._prices, line.transfers, agent_seconds=agent_seconds)
        line.noted(ENDED, ending.as_json())
        line.decided.set()
        record.raise_status(Status.ENDED)
        sids = {"call_sid": record.sid, "stream_sid": record.stream_sid, "session_id": record.session_id}
        structlog.contextvars.bind_contextvars(**{name: sid for name, sid in sids.items() if sid})
        try:
            written = Written.STALE if line.yielded else await self._spool.save(record)
        except StoreError:
            log.exception("record not saved")
            return
        line.is_spooled = written is Written.SPOOLED
        if written not in (Written.KEPT, Written.SPOOLED):
            line.yielded = True
            log.info("call is another node's", fence=record.fence, written=written.value)
            await self._custody.pass_on(line, left_to_tell(record.entries[record.kept :]))
            return
        log.info(
            "call ended", **ending.as_json(), duration_seconds=record.duration_seconds, detail=ending.detail
        )
        self._traces.take(record)

    async def _see_off(self, line: Line) -> None:
        """The carrier's side of the end: let a spoken farewell be heard, then hang up what is still up."""
        await self._captures.write(_stream_of(line))
        if line.farewell is not Farewell.SILENT:
            patience_until = line.leave_by or trio.current_time() + SPOKEN_FAREWELL_SECONDS
            with trio.move_on_at(patience_until):
                await line.confirmed.wait()
        await self._hang_up(line)


def _stream_of(line: Line) -> str:
    """What this stream's capture is called: a call that came back, or lost its node, has one for each."""
    record = line.record
    return f"{record.id}.{record.attempt}" if record.attempt else record.id
