"""Judges one rule, or one of the gate's fixed questions, over one case, and says why in a sentence.

Knows no permit and no order of evaluation; a fact that is missing refuses here, like everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from relay.compliance.case import OWN_LIST, Consent, ConsentForm, DialRequest, Facts, Purpose
from relay.compliance.hours import holiday_on, is_open
from relay.compliance.numbers import Location
from relay.compliance.rulebook import Rulebook
from relay.compliance.rules import (
    Cap,
    ConsentRule,
    Counted,
    Countries,
    HolidayRule,
    ListRule,
    Prohibition,
    Rule,
    Window,
    covers,
)
from relay.compliance.verdict import Decision, Finding, Outcome, passed, refused


@dataclass(frozen=True, slots=True)
class Case:
    """One request with all that is known about it.

    `now` is the real time; `local_now` is the instant for the rules of date and hour, and for those alone.
    """

    request: DialRequest
    facts: Facts
    location: Location
    rulebook: Rulebook
    now: datetime
    local_now: datetime

    @property
    def today(self) -> date:
        """The date by which rules come into force, fall due for review and are set aside."""
        return self.now.date()


def judge(rule: Rule, case: Case) -> Finding:
    """One rule over one case: inapplicable, set aside, past its review, or decided on its merits."""
    purpose = case.request.purpose
    if not any(covers(rule.jurisdiction, place) for place in case.location.places):
        return _not_applicable(rule, f"The number does not lie in {rule.jurisdiction}.")
    if purpose not in rule.purposes:
        return _not_applicable(rule, f"It does not concern {purpose.value} calls.")
    if case.today < rule.effective_from or (
        rule.effective_to is not None and case.today >= rule.effective_to
    ):
        return _not_applicable(rule, f"It is not in force on {case.today}.")
    if override := case.rulebook.override_of(rule, case.location.places, case.today):
        decision = Decision(override.reason, override.decided_by, override.decided_on)
        return Finding(
            rule.id, Outcome.OVERRIDDEN, f"Set aside: {rule.title}", rule.source, decision=decision
        )
    if purpose is Purpose.TELEMARKETING and case.today > rule.review_by:
        why = (
            f"The rule was due for review by {rule.review_by}; until then no telemarketing where it applies."
        )
        return refused(rule.id, "rule-stale", why, rule.source)
    return _on_its_merits(rule, case)


def _on_its_merits(rule: Rule, case: Case) -> Finding:
    match rule:
        case Countries():
            return _judge_countries(rule, case)
        case ConsentRule():
            return _judge_consent(rule, case)
        case ListRule():
            return _judge_list(rule, case)
        case Prohibition():
            return refused(
                rule.id, "prohibited", f"{rule.title}; only a recorded override allows it.", rule.source
            )
        case Window():
            return _judge_window(rule, case)
        case HolidayRule():
            return _judge_holidays(rule, case)
        case Cap():
            return _judge_cap(rule, case)
        case _:
            assert_never(rule)


def judge_purpose(request: DialRequest) -> Finding:
    """A request may repeat its profile's purpose or name a stricter one."""
    if request.purpose.strictness < request.declared.strictness:
        why = f"The agent's profile declares {request.declared.value}; a request may only be stricter."
        return refused("purpose", "purpose-weaker", why)
    return passed("purpose", f"The call is judged as {request.purpose.value}.")


def judge_own_list(facts: Facts) -> Finding:
    """Nobody on our own list is rung, for any purpose; nothing sets this aside."""
    if facts.suppressions is None:
        return _unknown("own-list", "whether the number is on our own do-not-call list")
    if any(entry.list == OWN_LIST for entry in facts.suppressions):
        return refused("own-list", "dnc-listed", "The number is on our own do-not-call list.")
    return passed("own-list", "The number is not on our own do-not-call list.")


def judge_revocation(request: DialRequest, facts: Facts, now: datetime) -> Finding:
    """Whoever revoked consent to calls like this one is not rung, unless they consented anew afterwards."""
    if facts.revocations is None or facts.consents is None:
        return _unknown("revocation", "whether consent was revoked")
    ours = [entry for entry in facts.revocations if entry.concerns(request.purpose, request.seller)]
    if not ours:
        return passed("revocation", "Nobody revoked consent to calls like this one.")
    latest = max(entry.at for entry in ours)
    if any(_holds(entry, request, now) and entry.given_at > latest for entry in facts.consents):
        return passed("revocation", "Consent was revoked once and given anew since.")
    return refused(
        "revocation", "consent-revoked", "The called party revoked consent to calls like this one."
    )


def judge_spending(dials: int | None, dials_per_hour: int) -> Finding:
    """No more dials in an hour than the house pays for; nothing sets this aside."""
    if dials is None:
        return _unknown("spend-cap", "how many dials there were in the last hour")
    tally = f"{dials} of at most {dials_per_hour} dials in an hour (RELAY_CALLS_PER_HOUR)"
    if dials >= dials_per_hour:
        return refused("spend-cap", "spend-cap", f"There were {tally}; try again later.")
    return passed("spend-cap", f"There were {tally}.")


def _judge_countries(rule: Countries, case: Case) -> Finding:
    foreign = sorted({place[:2] for place in case.location.places} - rule.allow)
    if foreign:
        why = f"{', '.join(foreign)} is not among the countries allowed ({', '.join(sorted(rule.allow))})."
        return refused(rule.id, "country-not-allowed", why, rule.source)
    return passed(rule.id, "The country may be called.", rule.source)


def _judge_consent(rule: ConsentRule, case: Case) -> Finding:
    request, facts = case.request, case.facts
    if facts.consents is None or facts.revocations is None:
        return _unknown(rule.id, "whether consent is on record", rule.source)
    revoked = [entry.at for entry in facts.revocations if entry.concerns(request.purpose, request.seller)]
    for entry in facts.consents:
        in_form = entry.form in (rule.form, ConsentForm.WRITTEN)
        if in_form and _holds(entry, request, case.now) and all(at < entry.given_at for at in revoked):
            return passed(rule.id, f"{entry.form.value.capitalize()} consent is on record.", rule.source)
    why = f"No {rule.form.value} consent to {request.purpose.value} calls by this seller is on record."
    return refused(rule.id, "consent-missing", why, rule.source)


def _judge_list(rule: ListRule, case: Case) -> Finding:
    facts = case.facts
    if facts.lists is None or facts.suppressions is None:
        return _unknown(rule.id, f"the state of the list {rule.list}", rule.source)
    # A copy dated after now is no proof of anything: its date is wrong.
    copies = [copy.as_of for copy in facts.lists if copy.list == rule.list and copy.as_of <= case.now]
    if not copies:
        return refused(
            rule.id, "list-missing", f"The do-not-call list {rule.list} was never imported.", rule.source
        )
    if case.now - max(copies) > timedelta(days=rule.max_age_days):
        why = f"The do-not-call list {rule.list} is more than {rule.max_age_days} days old; import it anew."
        return refused(rule.id, "list-stale", why, rule.source)
    if any(entry.list == rule.list for entry in facts.suppressions):
        return refused(
            rule.id, "dnc-listed", f"The number is on the do-not-call list {rule.list}.", rule.source
        )
    return passed(
        rule.id, f"The number is not on the do-not-call list {rule.list}, which is fresh.", rule.source
    )


def _judge_window(rule: Window, case: Case) -> Finding:
    for zone in case.location.zones:
        if not is_open(rule.spans, case.local_now, zone):
            local = f"{case.local_now.astimezone(ZoneInfo(zone)):%A %H:%M}"
            return refused(rule.id, "outside-hours", f"It is {local} in {zone}. {rule.title}", rule.source)
    return passed(rule.id, f"Open in {', '.join(case.location.zones)}.", rule.source)


def _judge_holidays(rule: HolidayRule, case: Case) -> Finding:
    holidays = [case.rulebook.holidays[name] for name in rule.days]
    for zone in case.location.zones:
        day = case.local_now.astimezone(ZoneInfo(zone)).date()
        if holiday := holiday_on(holidays, day, observed=rule.observed):
            return refused(rule.id, "holiday", f"{day} is {holiday.name} or stands in for it.", rule.source)
    return passed(rule.id, "No holiday.", rule.source)


def _judge_cap(rule: Cap, case: Case) -> Finding:
    instants = case.facts.attempts if rule.counts is Counted.ATTEMPTS else case.facts.conversations
    if instants is None:
        return _unknown(rule.id, f"the latest {rule.counts.value}", rule.source)
    since = case.now - timedelta(hours=rule.within_hours)
    count = sum(at > since for at in instants)
    tally = f"{count} of at most {rule.at_most} {rule.counts.value} in {rule.within_hours} hours"
    if count >= rule.at_most:
        code = "too-many-attempts" if rule.counts is Counted.ATTEMPTS else "recent-conversation"
        return refused(rule.id, code, f"There were {tally}; wait.", rule.source)
    return passed(rule.id, f"There were {tally}.", rule.source)


def _holds(entry: Consent, request: DialRequest, now: datetime) -> bool:
    """Whether this consent, if not revoked, covers the request: its seller, its purpose or a stricter one."""
    return (
        entry.seller == request.seller != ""
        and entry.purpose.strictness >= request.purpose.strictness
        and entry.given_at <= now
        and (entry.expires_at is None or now < entry.expires_at)
        and entry.text_shown != ""
    )


def _not_applicable(rule: Rule, why: str) -> Finding:
    return Finding(rule.id, Outcome.NOT_APPLICABLE, why, rule.source)


def _unknown(rule: str, what: str, source: str = "relay") -> Finding:
    return refused(rule, "facts-missing", f"It could not be learnt {what}; nothing is dialled.", source)
