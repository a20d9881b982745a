"""Asks the gate with what the ledger knows: before each dial, and again when somebody has picked up.

Knows no carrier and no socket; decides nothing itself, and whatever goes wrong here refuses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import structlog

from relay.compliance import (
    SPENDING,
    DialRequest,
    Facts,
    Permit,
    Purpose,
    Refused,
    Rulebook,
    Stage,
    Verdict,
    check,
    judge_spending,
    weigh,
)
from relay.compliance.destination import judge_destination
from relay.compliance.numbers import Location, locate
from relay.line import Line
from relay.outcomes import Refusal
from relay.store import LEASE_SECONDS, Store, StoreError

# With the ledger down, a call that was permitted so shortly ago is connected all the same when it is
# answered: somebody is on the phone. A call that rang for longer, or was queued by the carrier, is not.
FRESH_SECONDS = 90.0

_OF_THE_HOUR = ("outside-hours", "holiday")  # what the rules of date and hour refuse with

log = structlog.get_logger(subsystem="calls")


class Gatekeeper:
    """The gate with its facts, its rules and its two clocks.

    `rule_time` feeds the rules of date and hour and nothing else (RELAY_CLOCK); None: the real time.
    """

    def __init__(
        self,
        store: Store,
        rulebook: Rulebook,
        *,
        clock: Callable[[], datetime],
        rule_time: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._store = store
        self._rulebook = rulebook
        self._clock = clock
        self._rule_time = rule_time

    async def spent(self) -> Refusal | None:
        """Why a call need not even be taken now. What counts is what the permit's own step finds."""
        dials = await self._store.dials_since(self._clock() - SPENDING)
        finding = judge_spending(dials, self._rulebook.dials_per_hour)
        return Refusal(finding.code, finding.explanation) if finding.code else None

    async def permit(self, line: Line) -> Permit | Refused:
        """Leave for the next attempt of this call, or why not; the verdict is stored either way."""
        request, record = line.next_plea(), line.record

        def judge(facts: Facts) -> Permit | Refused:
            return check(request, facts, self._rulebook, self._clock(), self._rule_time())

        def unheard(refusal: Refusal) -> Refused:
            unknown = judge(Facts(request.to))
            assert isinstance(unknown, Refused)
            return replace(unknown, refusal=refusal)

        try:
            answer = await self._store.permit(request, judge)
            # We may have been stopped for so long that another node has ended this call for us. Asked behind
            # the permit, whose age the dialer looks at: being stopped from here on makes it void.
            fence = await self._store.claim(record.id, record.owner or "", LEASE_SECONDS)
        except StoreError as problem:
            log.warning("gate has no facts", detail=str(problem))
            return unheard(Refusal("no-store", f"the ledger cannot be asked: {problem}"))
        if fence is None:
            return unheard(Refusal("not-ours", "another node has ended this call, or has it by now"))
        record.fence = fence
        refusal = answer.refusal if isinstance(answer, Refused) else None
        code = refusal.code if refusal else None
        record.judged(self._clock(), request.attempt, _digest(answer.verdict), code)
        return answer

    def where(self, plea: DialRequest) -> str:
        """The zone that is taken for the callee's: the first of those that cannot be excluded."""
        found = locate(plea.to, plea.state, plea.zone, self._rulebook.places)
        return found.zones[0] if isinstance(found, Location) else "UTC"

    def judge_hour(self, plea: DialRequest, at: datetime) -> str | None:
        """Why the callee may not be called at that hour, whatever else is known then; None: they may be."""
        verdict = weigh(Stage.ANSWERED, plea, Facts(plea.to), self._rulebook, self._clock(), at)
        return next((each.explanation for each in verdict.findings if each.code in _OF_THE_HOUR), None)

    def judge_destination(self, number: str, purpose: Purpose) -> Refusal | None:
        """Why nobody may be put through to this number; None: they may."""
        return judge_destination(number, purpose, self._rulebook, self._clock())

    async def recheck(self, line: Line) -> Refusal | None:
        """Whether the call that was permitted may still be connected: it may have rung for long.

        A call that goes on with another stream began in time: only what the callee may have done counts.
        """
        now = self._clock()
        try:
            facts = await self._store.facts(line.record.to, now, besides=line.record.id)
        except StoreError:
            is_fresh = now - line.record.started_at < timedelta(seconds=FRESH_SECONDS)
            line.noted("not weighed again", {"connected": is_fresh})
            return None if is_fresh else Refusal("no-store", "the ledger cannot be asked")
        stage = Stage.LIVE if line.record.attempt else Stage.ANSWERED
        verdict = weigh(stage, line.plea, facts, self._rulebook, now, self._rule_time())
        refusal = verdict.refusal
        code = refusal.code if refusal else None
        line.record.judged(now, line.plea.attempt, _digest(verdict), code, verdict=verdict.as_json())
        return refusal


def rule_time_from(start: datetime | None) -> Callable[[], datetime | None]:
    """A clock that shows `start` now and goes on from there; always None without one."""
    if start is None:
        return lambda: None
    ahead = start - datetime.now(UTC)
    return lambda: datetime.now(UTC) + ahead


def _digest(verdict: Verdict) -> str:
    return hashlib.sha256(orjson.dumps(verdict.as_json(), option=orjson.OPT_SORT_KEYS)).hexdigest()
