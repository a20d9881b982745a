"""Requests, facts and moments for the tests of the gate: a call that every rule lets pass, to be altered.

Knows the gate's vocabulary, none of its verdicts.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.compliance import (
    Consent,
    ConsentForm,
    DialRequest,
    Facts,
    ListCopy,
    Purpose,
    Rulebook,
    load_rulebook,
)
from relay.compliance.judgement import Case
from relay.compliance.numbers import Location
from relay.compliance.rules import Rule

RULEBOOK = load_rulebook()
NUMBER = "+12025550143"  # fictional, in the District of Columbia
SELLER = "Example Dental"

# A Tuesday noon in New York, within the review period of the packaged rules and on no holiday.
NOON = datetime(2027, 3, 9, 17, 0, tzinfo=UTC)

WRITTEN_CONSENT = Consent(
    form=ConsentForm.WRITTEN,
    purpose=Purpose.TELEMARKETING,
    seller=SELLER,
    given_at=NOON - timedelta(days=30),
    text_shown="I agree to automated calls from Example Dental.",
    source="web form 7",
)

REQUEST = DialRequest(
    call_id="call_1",
    attempt=1,
    to=NUMBER,
    from_="+12025550100",
    declared=Purpose.INFORMATIONAL,
    seller=SELLER,
)

NOTHING_KNOWN_AGAINST = Facts(
    number=NUMBER,
    suppressions=(),
    consents=(),
    revocations=(),
    lists=(),
    attempts=(),
    conversations=(),
    dials=0,
)

# Everything that telemarketing needs, in every jurisdiction of the rulebook.
ALL_IN_ORDER = replace(
    NOTHING_KNOWN_AGAINST,
    consents=(WRITTEN_CONSENT,),
    lists=tuple(
        ListCopy(rule.list, NOON - timedelta(hours=1)) for rule in RULEBOOK.rules if rule.kind == "list"
    ),
)


def altered(facts: Facts, **changes: Any) -> Facts:
    """The facts with some fields, known by name only while the test runs, replaced."""
    return replace(facts, **changes)


# Of hypothesis: all instants in which today's rules of time zones are known, as naive datetimes.
FIRST_INSTANT = datetime(2020, 1, 1, tzinfo=UTC).replace(tzinfo=None)
LAST_INSTANT = datetime(2037, 1, 1, tzinfo=UTC).replace(tzinfo=None)


def place_in(rule: Rule) -> str:
    """A place that the rule covers."""
    return {"*": "US-NY", "US": "US-NY"}.get(rule.jurisdiction, rule.jurisdiction)


def case_of(
    rule: Rule,
    *,
    facts: Facts = ALL_IN_ORDER,
    purpose: Purpose | None = None,
    now: datetime = NOON,
    local_now: datetime | None = None,
    zones: tuple[str, ...] = ("America/New_York",),
    place: str | None = None,
    rulebook: Rulebook = RULEBOOK,
) -> Case:
    """A case that the rule applies to, in nothing remarkable unless told."""
    request = replace(REQUEST, declared=purpose or max(rule.purposes, key=lambda each: each.strictness))
    location = Location((place or place_in(rule),), zones)
    return Case(request, facts, location, rulebook, now, now if local_now is None else local_now)
