"""Every rule in the packaged data, held against a second statement of what it should say.

Knows each rule by its id: a rule without an expectation here fails the first test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.compliance import Consent, ConsentForm, ListCopy, Outcome, Purpose, Revocation, Suppression
from relay.compliance.judgement import judge
from relay.compliance.rules import EVALUATION_ORDER, Cap, ConsentRule, Countries, ListRule, Override, Rule
from relay.compliance.verdict import Finding

from .cases import (
    ALL_IN_ORDER,
    FIRST_INSTANT,
    LAST_INSTANT,
    NOON,
    RULEBOOK,
    SELLER,
    WRITTEN_CONSENT,
    altered,
    case_of,
)

TELEMARKETING = {Purpose.TELEMARKETING}
EVERY_PURPOSE = set(Purpose)

# Hours of Monday to Friday, of Saturday, of Sunday, in decimal hours of local time; None: closed all day.
Hours = tuple[float, float] | None


def daily(opens: float, closes: float) -> tuple[Hours, Hours, Hours]:
    return ((opens, closes), (opens, closes), (opens, closes))


def not_on_sundays(opens: float, closes: float) -> tuple[Hours, Hours, Hours]:
    return ((opens, closes), (opens, closes), None)


WINDOWS: dict[str, tuple[Hours, Hours, Hours]] = {
    "us-solicitation-hours": daily(8, 21),
    "us-collections-hours": daily(8, 21),
    "strict-informational-hours": daily(8, 21),
    "strict-telemarketing-hours": not_on_sundays(10, 20),
    "canada-telemarketing-hours": ((9, 21.5), (10, 18), (10, 18)),
    "us-al-hours": not_on_sundays(8, 20),
    "us-la-hours": not_on_sundays(8, 20),
    "us-ms-hours": not_on_sundays(8, 20),
    "us-ut-hours": not_on_sundays(8, 21),
    "us-ri-hours": ((9, 18), (10, 17), None),
    "us-tx-hours": ((9, 21), (9, 21), (12, 21)),
    "us-ky-hours": daily(10, 21),
    **{f"us-{state}-hours": daily(8, 20) for state in ("fl", "ok", "wa", "md", "ma")},
    **{f"us-{state}-hours": daily(9, 20) for state in ("ct", "nv")},
    **{f"us-{state}-hours": daily(9, 21) for state in ("mi", "mn", "nm", "il")},
}

# Closed days of 2027, as month and day. Those that fall on a weekend bring their stand-in with them, and so
# does the first of January 2028, a Saturday.
_EVERYWHERE = "1-1 1-18 2-15 5-31 7-4 7-5 9-6 11-11 11-25 12-24 12-25 12-31"
_JUNETEENTH = "6-18 6-19"
HOLIDAYS = {
    "strict-federal-holidays": f"{_EVERYWHERE} {_JUNETEENTH} 10-11",
    "us-al-holidays": f"{_EVERYWHERE} {_JUNETEENTH} 2-9 4-26 6-7 10-11 12-1",
    "us-la-holidays": f"{_EVERYWHERE} {_JUNETEENTH} 1-8 2-9 3-26 11-1 11-2 11-26",
    "us-ms-holidays": f"{_EVERYWHERE} 4-26",
    "us-pa-holidays": f"{_EVERYWHERE} {_JUNETEENTH} 3-26 6-14 10-11 11-2",
    "us-ri-holidays": f"{_EVERYWHERE} {_JUNETEENTH} 5-4 8-9 10-11 11-2",
    "us-ut-holidays": f"{_EVERYWHERE} {_JUNETEENTH} 7-23 7-24 10-11",
}

# What is counted, how many at most, in how many hours.
CAPS = {
    "strict-attempts-day": ("attempts", 3, 24),
    "strict-attempts-week": ("attempts", 7, 168),
    "us-collections-attempts": ("attempts", 7, 168),
    "us-collections-hold": ("conversations", 1, 168),
    "us-fl-attempts": ("attempts", 3, 24),
    "us-ok-attempts": ("attempts", 3, 24),
    "us-md-attempts": ("attempts", 3, 24),
    "us-me-attempts": ("attempts", 1, 8),
}

CONSENTS = {"us-telemarketing-consent": ConsentForm.WRITTEN, "canada-consent": ConsentForm.EXPRESS}

_LISTING_STATES = ("co", "fl", "in", "la", "ma", "ms", "mo", "ok", "pa", "tn", "tx", "wy")
LISTS = {
    "us-national-list": ("US", 7),
    "canada-national-list": ("CA", 7),
    **{f"us-{state}-list": (f"US-{state.upper()}", 31) for state in _LISTING_STATES},
}

PROHIBITIONS = {
    "us-ca-announcing-device",
    "us-ok-altered-voice",
    "us-tx-registration",
    "us-fl-registration",
    "us-ri-registration",
    "us-me-reassigned-numbers",
}

COUNTRIES = {"allowed-countries": {"US", "CA"}}

PURPOSES = {
    "allowed-countries": EVERY_PURPOSE,
    "strict-attempts-day": EVERY_PURPOSE,
    "strict-attempts-week": EVERY_PURPOSE,
    "strict-informational-hours": {Purpose.INFORMATIONAL, Purpose.COLLECTIONS},
    "us-collections-hours": {Purpose.COLLECTIONS},
    "us-collections-attempts": {Purpose.COLLECTIONS},
    "us-collections-hold": {Purpose.COLLECTIONS},
}

RULES = {rule.id: rule for rule in RULEBOOK.rules}
US_ZONES = sorted({zone for place in RULEBOOK.places.values() for zone in place.zones})

every_rule = pytest.mark.parametrize("rule", RULEBOOK.rules, ids=lambda rule: rule.id)


def refuses(finding: Finding, code: str) -> bool:
    return finding.outcome is Outcome.REFUSE and finding.code == code


def passes(finding: Finding) -> bool:
    return finding.outcome is Outcome.PASS


def test_every_rule_has_an_expectation_here_and_no_expectation_is_without_its_rule() -> None:
    expected = [*WINDOWS, *HOLIDAYS, *CAPS, *CONSENTS, *LISTS, *PROHIBITIONS, *COUNTRIES]
    assert sorted(expected) == sorted(RULES)


@every_rule
def test_a_rule_names_its_source_and_was_reviewed_for_half_a_year(rule: Rule) -> None:
    assert rule.source
    assert timedelta(0) < rule.review_by - rule.reviewed_on <= timedelta(days=190)


@every_rule
def test_a_rule_concerns_the_purposes_it_should(rule: Rule) -> None:
    assert rule.purposes == PURPOSES.get(rule.id, TELEMARKETING)


@every_rule
def test_a_state_rule_is_named_after_its_state(rule: Rule) -> None:
    state = rule.id.split("-")[1]
    if rule.jurisdiction.startswith("US-"):
        assert rule.jurisdiction == f"US-{state.upper()}"


@every_rule
def test_a_rule_says_nothing_of_a_number_elsewhere(rule: Rule) -> None:
    elsewhere = "US-NY" if rule.jurisdiction not in {"*", "US"} else "CA"
    finding = judge(rule, case_of(rule, place=elsewhere))
    assert finding.outcome is (Outcome.PASS if rule.jurisdiction == "*" else Outcome.NOT_APPLICABLE)


@every_rule
def test_a_rule_says_nothing_of_other_purposes(rule: Rule) -> None:
    for purpose in set(Purpose) - rule.purposes:
        assert judge(rule, case_of(rule, purpose=purpose)).outcome is Outcome.NOT_APPLICABLE


@every_rule
def test_a_rule_counts_from_the_day_it_takes_effect_to_the_day_it_ends(rule: Rule) -> None:
    ended = replace(rule, effective_to=NOON.date())
    assert judge(ended, case_of(rule)).outcome is Outcome.NOT_APPLICABLE
    begins_tomorrow = replace(rule, effective_from=NOON.date() + timedelta(days=1))
    assert judge(begins_tomorrow, case_of(rule)).outcome is Outcome.NOT_APPLICABLE
    begins_today = replace(rule, effective_from=NOON.date(), effective_to=NOON.date() + timedelta(days=1))
    assert judge(begins_today, case_of(rule)).outcome is not Outcome.NOT_APPLICABLE


@every_rule
def test_past_its_review_a_rule_refuses_telemarketing_and_goes_on_judging_the_rest(rule: Rule) -> None:
    overdue = replace(rule, reviewed_on=date(2026, 1, 1), review_by=NOON.date() - timedelta(days=1))
    due_today = replace(overdue, review_by=NOON.date())
    for purpose in rule.purposes:
        case = case_of(rule, purpose=purpose)
        on_its_merits = judge(rule, case)
        assert judge(due_today, case).code == on_its_merits.code
        late = judge(overdue, case)
        if purpose is Purpose.TELEMARKETING:
            assert refuses(late, "rule-stale")
        else:
            assert late == on_its_merits


@every_rule
def test_an_override_sets_a_rule_aside_and_is_recorded(rule: Rule) -> None:
    override = Override(
        rule=rule.id, reason="counsel's letter", decided_by="J. Doe", decided_on=date(2027, 1, 2)
    )
    case = case_of(rule, rulebook=replace(RULEBOOK, overrides=(override,)))
    finding = judge(rule, case)
    assert finding.outcome is Outcome.OVERRIDDEN
    assert finding.decision is not None
    assert finding.decision.reason == "counsel's letter"
    assert finding.as_json()["decided_by"] == "J. Doe"
    assert finding.as_json()["decided_on"] == "2027-01-02"


@pytest.mark.parametrize("rule_id", WINDOWS)
@given(
    # The rules of date and hour hold in any year; the real time stays at noon.
    at=st.datetimes(FIRST_INSTANT, LAST_INSTANT, timezones=st.just(UTC)),
    zones=st.lists(st.sampled_from(US_ZONES), min_size=1, max_size=4, unique=True).map(tuple),
)
def test_a_window_is_open_only_when_it_is_open_in_every_zone(
    rule_id: str, at: datetime, zones: tuple[str, ...]
) -> None:
    finding = judge(RULES[rule_id], case_of(RULES[rule_id], local_now=at, zones=zones))
    if all(_is_open(WINDOWS[rule_id], at, zone) for zone in zones):
        assert passes(finding)
    else:
        assert refuses(finding, "outside-hours")


@pytest.mark.parametrize("rule_id", WINDOWS)
@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Honolulu", "America/St_Johns"])
def test_a_window_opens_on_the_minute_and_is_closed_on_the_minute(rule_id: str, zone: str) -> None:
    rule = RULES[rule_id]
    for day, hours in zip(
        (date(2027, 3, 10), date(2027, 3, 13), date(2027, 3, 7)), WINDOWS[rule_id], strict=True
    ):
        midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
        opens, closes = hours or (0, 0)
        for minute, is_open in (
            (opens * 60 - 1, False),
            (opens * 60, hours is not None),
            (closes * 60 - 1, hours is not None),
            (closes * 60, False),
        ):
            at = (midnight + timedelta(minutes=minute)).astimezone(UTC)
            assert passes(judge(rule, case_of(rule, local_now=at, zones=(zone,)))) == is_open, (day, minute)


@pytest.mark.parametrize("rule_id", HOLIDAYS)
@given(
    minute=st.integers(0, 365 * 24 * 60 - 1),
    zones=st.lists(st.sampled_from(US_ZONES), min_size=1, max_size=3, unique=True).map(tuple),
)
def test_a_holiday_closes_when_it_is_one_in_any_zone(
    rule_id: str, minute: int, zones: tuple[str, ...]
) -> None:
    rule = RULES[rule_id]
    at = datetime(2027, 1, 1, 12, tzinfo=UTC) + timedelta(minutes=minute)
    days = [at.astimezone(ZoneInfo(zone)).date() for zone in zones]
    closed = {tuple(map(int, day.split("-"))) for day in HOLIDAYS[rule_id].split()}
    finding = judge(rule, case_of(rule, local_now=at, zones=zones))
    if any(day.year == 2027 and (day.month, day.day) in closed for day in days):
        assert refuses(finding, "holiday")
    elif all(day.year == 2027 for day in days):
        assert passes(finding)


@pytest.mark.parametrize("rule_id", HOLIDAYS)
def test_the_closed_days_of_a_year_are_these_and_no_others(rule_id: str) -> None:
    rule = RULES[rule_id]
    noons = [datetime(2027, 1, 1, 17, tzinfo=UTC) + timedelta(days=day) for day in range(365)]
    closed = [noon for noon in noons if refuses(judge(rule, case_of(rule, local_now=noon)), "holiday")]
    assert {f"{noon.month}-{noon.day}" for noon in closed} == set(HOLIDAYS[rule_id].split())


@pytest.mark.parametrize("rule_id", CAPS)
@given(ages=st.lists(st.integers(0, 7 * 24 * 60), max_size=10))
def test_a_cap_counts_what_lies_within_its_hours(rule_id: str, ages: list[int]) -> None:
    counts, at_most, within_hours = CAPS[rule_id]
    rule = RULES[rule_id]
    instants = tuple(NOON - timedelta(minutes=age) for age in ages)
    other = "conversations" if counts == "attempts" else "attempts"
    facts = altered(ALL_IN_ORDER, **{counts: instants, other: (NOON,) * 10})
    finding = judge(rule, case_of(rule, facts=facts))
    if sum(age < within_hours * 60 for age in ages) >= at_most:
        assert refuses(finding, "too-many-attempts" if counts == "attempts" else "recent-conversation")
    else:
        assert passes(finding)


_DEFECTS: dict[str, Callable[[Consent], Consent]] = {
    "another seller": lambda consent: replace(consent, seller="Somebody Else"),
    "another purpose": lambda consent: replace(consent, purpose=Purpose.COLLECTIONS),
    "given in the future": lambda consent: replace(consent, given_at=NOON + timedelta(seconds=1)),
    "expired": lambda consent: replace(consent, expires_at=NOON),
    "no text": lambda consent: replace(consent, text_shown=""),
}


@pytest.mark.parametrize("rule_id", CONSENTS)
@given(defects=st.sets(st.sampled_from(sorted(_DEFECTS))))
def test_a_consent_counts_only_when_nothing_is_wrong_with_it(rule_id: str, defects: set[str]) -> None:
    rule = RULES[rule_id]
    consent = replace(WRITTEN_CONSENT, form=CONSENTS[rule_id])
    for defect in sorted(defects):
        consent = _DEFECTS[defect](consent)
    finding = judge(rule, case_of(rule, facts=replace(ALL_IN_ORDER, consents=(consent,))))
    assert refuses(finding, "consent-missing") if defects else passes(finding)


@pytest.mark.parametrize("rule_id", CONSENTS)
@pytest.mark.parametrize("form", ConsentForm)
def test_written_consent_serves_where_express_is_asked_for_and_not_the_other_way(
    rule_id: str, form: ConsentForm
) -> None:
    rule = RULES[rule_id]
    facts = replace(ALL_IN_ORDER, consents=(replace(WRITTEN_CONSENT, form=form),))
    assert passes(judge(rule, case_of(rule, facts=facts))) == (
        form in (CONSENTS[rule_id], ConsentForm.WRITTEN)
    )


@pytest.mark.parametrize("rule_id", CONSENTS)
@given(
    revoked_days_ago=st.integers(0, 60),
    purpose=st.none() | st.sampled_from(Purpose),
    seller=st.sampled_from([None, SELLER, "Somebody Else"]),
)
def test_a_consent_does_not_outlive_its_revocation(
    rule_id: str, revoked_days_ago: int, purpose: Purpose | None, seller: str | None
) -> None:
    rule = RULES[rule_id]
    revocation = Revocation(NOON - timedelta(days=revoked_days_ago), purpose, seller)
    finding = judge(rule, case_of(rule, facts=replace(ALL_IN_ORDER, revocations=(revocation,))))
    given_afterwards = revoked_days_ago > 30
    assert passes(finding) == (given_afterwards or seller == "Somebody Else")


@pytest.mark.parametrize("rule_id", LISTS)
@given(
    age_minutes=st.lists(st.integers(-1000, 50 * 24 * 60), max_size=4),
    listed=st.sets(st.sampled_from(["US", "US-TX", "US-FL", "CA"])),
)
def test_a_list_must_be_fresh_and_without_the_number(
    rule_id: str, age_minutes: list[int], listed: set[str]
) -> None:
    name, max_age_days = LISTS[rule_id]
    rule = RULES[rule_id]
    facts = replace(
        ALL_IN_ORDER,
        lists=(
            ListCopy("US-ZZ", NOON),
            *(ListCopy(name, NOON - timedelta(minutes=age)) for age in age_minutes),
        ),
        suppressions=tuple(Suppression(entry, NOON) for entry in sorted(listed)),
    )
    finding = judge(rule, case_of(rule, facts=facts))
    ages = [age for age in age_minutes if age >= 0]
    if not ages:
        assert refuses(finding, "list-missing")
    elif min(ages) > max_age_days * 24 * 60:
        assert refuses(finding, "list-stale")
    elif name in listed:
        assert refuses(finding, "dnc-listed")
    else:
        assert passes(finding)


@pytest.mark.parametrize("rule_id", sorted(PROHIBITIONS))
def test_a_prohibition_refuses_though_all_else_is_in_order(rule_id: str) -> None:
    rule = RULES[rule_id]
    assert refuses(judge(rule, case_of(rule)), "prohibited")


@pytest.mark.parametrize("rule_id", COUNTRIES)
@pytest.mark.parametrize("place", ["US-NY", "CA", "GB", "PR", "GB-SCT"])
def test_only_the_listed_countries_are_called(rule_id: str, place: str) -> None:
    rule = RULES[rule_id]
    finding = judge(rule, case_of(rule, place=place))
    allowed = place[:2] in COUNTRIES[rule_id]
    assert passes(finding) if allowed else refuses(finding, "country-not-allowed")


@every_rule
def test_a_rule_whose_facts_are_missing_refuses(rule: Rule) -> None:
    facts = replace(
        ALL_IN_ORDER,
        suppressions=None,
        consents=None,
        revocations=None,
        lists=None,
        attempts=None,
        conversations=None,
    )
    finding = judge(rule, case_of(rule, facts=facts))
    if isinstance(rule, ConsentRule | ListRule | Cap):
        assert refuses(finding, "facts-missing")
    else:
        assert finding == judge(rule, case_of(rule))


def test_rules_are_in_the_order_of_evaluation() -> None:
    kinds = [EVALUATION_ORDER.index(type(rule)) for rule in RULEBOOK.rules]
    assert kinds == sorted(kinds)
    assert isinstance(RULEBOOK.rules[0], Countries)


def _is_open(hours: tuple[Hours, Hours, Hours], at: datetime, zone: str) -> bool:
    """Reckoned from the offset in minutes, not by the calendar that the gate uses."""
    offset = ZoneInfo(zone).utcoffset(at.astimezone(ZoneInfo(zone)))
    assert offset is not None
    local_seconds = (at - datetime(1970, 1, 1, tzinfo=UTC) + offset).total_seconds()
    days, second_of_day = divmod(local_seconds, 24 * 3600)
    weekday = (int(days) + 3) % 7  # 1 January 1970 was a Thursday
    span = hours[0 if weekday < 5 else weekday - 4]
    return span is not None and span[0] * 3600 <= second_of_day < span[1] * 3600
