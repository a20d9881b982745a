"""The gate: nothing is dialled without its permit, and whatever goes wrong inside it refuses.

Knows no store, no clock and no carrier: the facts and both times are arguments, the answer is a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from relay.compliance.case import DialRequest, Facts
from relay.compliance.judgement import (
    Case,
    judge,
    judge_own_list,
    judge_purpose,
    judge_revocation,
    judge_spending,
)
from relay.compliance.numbers import Location, is_e164, locate
from relay.compliance.rulebook import Rulebook
from relay.compliance.rules import EVALUATION_ORDER, ConsentRule, Countries, HolidayRule, Rule, Window, covers
from relay.compliance.verdict import Finding, Outcome, Verdict, passed, refused
from relay.outcomes import Refusal

# Long enough for one POST to be sent after the decision, too short for anything to change in between.
PERMIT_LIFETIME_SECONDS = 1.0

_NUMBERING_PLAN = "numbering plan (phonenumbers)"


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one POST of one attempt; made here alone. The dialer checks `covers` and spends it once."""

    call_id: str
    attempt: int
    to: str
    issued_at: datetime
    verdict: Verdict

    def covers(self, call_id: str, attempt: int, to: str, now: datetime) -> bool:
        """Whether it is for this very attempt and in time; a clock that was set back makes it void too."""
        age_seconds = (now - self.issued_at).total_seconds()
        return (call_id, attempt, to) == (self.call_id, self.attempt, self.to) and (
            0 <= age_seconds <= PERMIT_LIFETIME_SECONDS
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """No dial: the refusal that speaks for it, and everything that was weighed."""

    refusal: Refusal
    verdict: Verdict


class Stage(StrEnum):
    """When a call is weighed."""

    DIAL = "dial"
    ANSWERED = "answered"  # the carrier fetches TwiML; it may have queued the call past the end of a window
    LIVE = "live"  # while ringing and talking: only what the called party may have done meanwhile


_RULES_AT: dict[Stage, tuple[type[Rule], ...]] = {
    Stage.DIAL: EVALUATION_ORDER,
    Stage.ANSWERED: (ConsentRule, Window, HolidayRule),
    Stage.LIVE: (),
}

# Where no rule in force says what is allowed of these, nothing is: setting a rule aside opens no hole.
_NEVER_UNRULED: tuple[tuple[type[Rule], str, str], ...] = (
    (Countries, "countries", "country-not-allowed"),
    (Window, "hours", "outside-hours"),
)


def check(
    request: DialRequest, facts: Facts, rules: Rulebook, now: datetime, clock: datetime | None = None
) -> Permit | Refused:
    """Whether this attempt may be dialled now; never raises.

    `now` is the real time; `clock`, when given, stands for it in the rules of date and hour (windows,
    holidays) and nowhere else. Both are aware.
    """
    verdict = weigh(Stage.DIAL, request, facts, rules, now, clock)
    if verdict.refusal is not None:
        return Refused(verdict.refusal, verdict)
    return Permit(request.call_id, request.attempt, request.to, now, verdict)


def weigh(
    stage: Stage,
    request: DialRequest,
    facts: Facts,
    rules: Rulebook,
    now: datetime,
    clock: datetime | None = None,
) -> Verdict:
    """What the gate says, rule by rule, without leave to dial; its `refusal` is None if all is well.

    Once a call was dialled, only suppressions, consents and revocations are read from the facts. This is the
    border of the gate: an error inside refuses with `gate-error` and is never raised.
    """
    try:
        return _weigh(stage, request, facts, rules, now, clock)
    except Exception as error:  # noqa: BLE001 (the gate fails closed, whatever the cause)
        # The type alone: the text of an error may quote a phone number.
        why = f"The gate itself failed ({type(error).__name__}); nothing is dialled."
        call_id, attempt = getattr(request, "call_id", ""), getattr(request, "attempt", 0)
        return Verdict(call_id, attempt, "", now, now, "", (refused("gate", "gate-error", why),))


def _weigh(
    stage: Stage,
    request: DialRequest,
    facts: Facts,
    rulebook: Rulebook,
    now: datetime,
    clock: datetime | None,
) -> Verdict:
    local_now = now if clock is None else clock
    if now.tzinfo is None or local_now.tzinfo is None:
        raise ValueError("the gate takes aware datetimes only")
    found = locate(request.to, request.state, request.zone, rulebook.places)
    # Without a place no rule applies; the number is refused then, and the fixed questions are still answered.
    location = found if isinstance(found, Location) else Location((), ())
    findings = [
        judge_purpose(request),
        _judge_number(found),
        _judge_caller_id(request),
        _judge_completeness(stage, request, facts),
        judge_own_list(facts),
        judge_revocation(request, facts, now),
    ]
    if location.places:
        findings += _judge_rules(stage, Case(request, facts, location, rulebook, now, local_now))
    if stage is Stage.DIAL:  # the last of all: what will not pass by waiting speaks before it
        findings.append(judge_spending(facts.dials, rulebook.dials_per_hour))
    return Verdict(
        call_id=request.call_id,
        attempt=request.attempt,
        purpose=request.purpose.value,
        checked_at=now,
        judged_at=local_now,
        rulebook=rulebook.digest,
        findings=tuple(findings),
        places=location.places,
        zones=location.zones,
    )


def _judge_rules(stage: Stage, case: Case) -> list[Finding]:
    kinds = _RULES_AT[stage]
    rules = [rule for rule in case.rulebook.rules if isinstance(rule, kinds)]
    findings = [judge(rule, case) for rule in rules]
    in_force = [
        rule
        for rule, finding in zip(rules, findings, strict=True)
        if finding.outcome in (Outcome.PASS, Outcome.REFUSE)
    ]
    for kind, what, code in _NEVER_UNRULED:
        if kind in kinds:
            ruled = [rule.jurisdiction for rule in in_force if isinstance(rule, kind)]
            findings += _judge_coverage(what, code, ruled, case.location.places)
    return findings


def _judge_coverage(what: str, code: str, ruled: list[str], places: tuple[str, ...]) -> list[Finding]:
    unruled = [place for place in places if not any(covers(jurisdiction, place) for jurisdiction in ruled)]
    if not unruled:
        return []
    why = f"No rule in force says which {what} are allowed for {', '.join(unruled)}; so none are."
    return [refused(f"some-{what}", code, why)]


def _judge_number(found: Location | Refusal) -> Finding:
    match found:
        case Refusal(code, message):
            return refused("number", code, message, _NUMBERING_PLAN)
        case Location(places, zones):
            where = f"It may ring in {', '.join(places)}, where {', '.join(zones)} is the time."
            return passed("number", where, _NUMBERING_PLAN)


def _judge_caller_id(request: DialRequest) -> Finding:
    """That the caller id is ours to show is the carrier's to check; here it must at least be a number."""
    if not is_e164(request.from_):
        return refused("caller-id", "caller-id-invalid", "The caller id is not in E.164 form.")
    return passed("caller-id", "The caller id is a full number.")


def _judge_completeness(stage: Stage, request: DialRequest, facts: Facts) -> Finding:
    """Before a dial everything must be known, also what no rule in force happens to ask for."""
    known: dict[str, object] = {
        "suppressions": facts.suppressions,
        "consents": facts.consents,
        "revocations": facts.revocations,
    }
    if stage is Stage.DIAL:
        known |= {"lists": facts.lists, "attempts": facts.attempts, "conversations": facts.conversations}
        known |= {"dials": facts.dials}
    missing = [name for name, value in known.items() if value is None]
    if facts.number != request.to:
        return refused("facts", "facts-missing", "The facts at hand are about another number.")
    if missing:
        return refused("facts", "facts-missing", f"It could not be learnt: {', '.join(missing)}.")
    return passed("facts", "All that the rules ask for is known.")
