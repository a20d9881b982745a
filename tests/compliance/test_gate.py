"""The gate as a whole: when it permits, what its refusals are called, and that it fails closed.

Knows the gate through `check` and `weigh` alone.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import relay
from relay.compliance import (
    OWN_LIST,
    DialRequest,
    Facts,
    Outcome,
    Permit,
    Purpose,
    Refused,
    Revocation,
    Rulebook,
    Stage,
    Suppression,
    check,
    weigh,
)
from relay.compliance.rules import Override

from .cases import (
    ALL_IN_ORDER,
    NOON,
    NOTHING_KNOWN_AGAINST,
    NUMBER,
    REQUEST,
    RULEBOOK,
    SELLER,
    WRITTEN_CONSENT,
    altered,
)

NIGHT = datetime(2027, 3, 9, 8, 0, tzinfo=UTC)  # three in the morning in the District of Columbia
SALE = replace(REQUEST, declared=Purpose.TELEMARKETING)

FACT_NAMES = [field.name for field in fields(Facts) if field.name != "number"]


def refusal_code(
    request: DialRequest = REQUEST,
    facts: Facts = NOTHING_KNOWN_AGAINST,
    rules: Rulebook = RULEBOOK,
    now: datetime = NOON,
    clock: datetime | None = None,
) -> str:
    """The code of the refusal, or nothing when the gate permits."""
    answer = check(request, facts, rules, now, clock)
    return answer.refusal.code if isinstance(answer, Refused) else ""


def permit_of(request: DialRequest = REQUEST, facts: Facts = NOTHING_KNOWN_AGAINST) -> Permit:
    answer = check(request, facts, RULEBOOK, NOON)
    assert isinstance(answer, Permit), answer
    return answer


def test_a_call_that_keeps_every_rule_is_permitted() -> None:
    permit = permit_of()
    assert (permit.call_id, permit.attempt, permit.to, permit.issued_at) == ("call_1", 1, NUMBER, NOON)
    assert permit.verdict.refusal is None


def test_telemarketing_is_permitted_when_consent_and_lists_are_in_order() -> None:
    permit_of(SALE, ALL_IN_ORDER)


@pytest.mark.parametrize(
    ("call_id", "attempt", "to", "age_seconds", "covered"),
    [
        ("call_1", 1, NUMBER, 0.0, True),
        ("call_1", 1, NUMBER, 1.0, True),
        ("call_1", 1, NUMBER, 1.001, False),
        ("call_1", 1, NUMBER, -0.001, False),
        ("call_1", 2, NUMBER, 0.0, False),
        ("call_2", 1, NUMBER, 0.0, False),
        ("call_1", 1, "+12025550144", 0.0, False),
    ],
)
def test_a_permit_is_for_one_attempt_to_one_number_within_one_second(
    call_id: str, attempt: int, to: str, age_seconds: float, covered: bool
) -> None:
    assert permit_of().covers(call_id, attempt, to, NOON + timedelta(seconds=age_seconds)) is covered


def test_only_the_gate_makes_permits() -> None:
    house = Path(relay.__file__).parent
    makers = [path for path in house.rglob("*.py") if " Permit(" in path.read_text("utf-8")]
    assert makers == [house / "compliance" / "gate.py"]


@pytest.mark.parametrize("declared", Purpose)
@pytest.mark.parametrize("asked", [None, *Purpose])
def test_a_request_may_be_stricter_than_its_profile_and_never_weaker(
    declared: Purpose, asked: Purpose | None
) -> None:
    code = refusal_code(replace(REQUEST, declared=declared, asked=asked), ALL_IN_ORDER)
    order = [Purpose.INFORMATIONAL, Purpose.COLLECTIONS, Purpose.TELEMARKETING]
    weaker = asked is not None and order.index(asked) < order.index(declared)
    assert code == ("purpose-weaker" if weaker else "")


def test_asking_for_a_stricter_purpose_brings_its_rules() -> None:
    assert refusal_code(replace(REQUEST, asked=Purpose.TELEMARKETING)) == "consent-missing"


@pytest.mark.parametrize("purpose", Purpose)
def test_our_own_list_refuses_every_purpose_whatever_else_holds(purpose: Purpose) -> None:
    facts = replace(ALL_IN_ORDER, suppressions=(Suppression(OWN_LIST, NOON + timedelta(days=1)),))
    assert refusal_code(replace(REQUEST, declared=purpose), facts) == "dnc-listed"


@pytest.mark.parametrize("purpose", Purpose)
def test_a_foreign_list_concerns_only_the_purposes_its_rule_names(purpose: Purpose) -> None:
    facts = replace(ALL_IN_ORDER, suppressions=(Suppression("US", NOON),))
    code = refusal_code(replace(REQUEST, declared=purpose), facts)
    assert code == ("dnc-listed" if purpose is Purpose.TELEMARKETING else "")


@pytest.mark.parametrize("called_for", Purpose)
@pytest.mark.parametrize("revoked", [None, *Purpose])
@pytest.mark.parametrize("seller", [None, SELLER, "Somebody Else"])
def test_a_revocation_reaches_its_purpose_and_the_stricter_ones_of_its_seller(
    called_for: Purpose, revoked: Purpose | None, seller: str | None
) -> None:
    facts = replace(ALL_IN_ORDER, consents=(), revocations=(Revocation(NOON, revoked, seller),))
    code = refusal_code(replace(REQUEST, declared=called_for), facts)
    reached = revoked is None or called_for.strictness >= revoked.strictness
    if reached and seller != "Somebody Else":
        assert code == "consent-revoked"
    else:
        assert code == ("consent-missing" if called_for is Purpose.TELEMARKETING else "")


@pytest.mark.parametrize("purpose", Purpose)
def test_consent_given_after_a_revocation_counts_anew(purpose: Purpose) -> None:
    earlier = Revocation(WRITTEN_CONSENT.given_at - timedelta(days=1))
    assert (
        refusal_code(replace(REQUEST, declared=purpose), replace(ALL_IN_ORDER, revocations=(earlier,))) == ""
    )


def test_the_emulated_clock_feeds_the_rules_of_date_and_hour() -> None:
    assert refusal_code() == ""
    assert refusal_code(clock=NIGHT) == "outside-hours"
    assert refusal_code(now=NIGHT) == "outside-hours"
    assert refusal_code(now=NIGHT, clock=NOON) == ""
    christmas = datetime(2026, 12, 25, 17, tzinfo=UTC)
    assert refusal_code(SALE, ALL_IN_ORDER, clock=christmas) == "holiday"


def test_the_emulated_clock_feeds_nothing_else() -> None:
    next_year = NOON + timedelta(days=364)
    long_ago = NOON - timedelta(days=364)
    three_attempts = replace(ALL_IN_ORDER, attempts=(NOON - timedelta(hours=1),) * 3)
    for clock in (next_year, long_ago):
        # Neither lists, consents and reviews grow old nor attempts lapse.
        assert refusal_code(SALE, ALL_IN_ORDER, clock=clock) == ""
        assert refusal_code(SALE, three_attempts, clock=clock) == "too-many-attempts"
    answer = check(REQUEST, NOTHING_KNOWN_AGAINST, RULEBOOK, NOON, next_year)
    assert isinstance(answer, Permit)
    assert answer.issued_at == answer.verdict.checked_at == NOON
    assert answer.verdict.judged_at == next_year


def test_past_the_review_date_telemarketing_stops_and_information_goes_on() -> None:
    late = datetime(2027, 11, 9, 17, tzinfo=UTC)
    lists = tuple(replace(copy, as_of=late) for copy in ALL_IN_ORDER.lists or ())
    assert refusal_code(SALE, replace(ALL_IN_ORDER, lists=lists), now=late) == "rule-stale"
    assert refusal_code(now=late) == ""


@pytest.mark.parametrize("missing", FACT_NAMES)
@pytest.mark.parametrize("purpose", Purpose)
def test_a_fact_that_could_not_be_learnt_refuses(missing: str, purpose: Purpose) -> None:
    facts = altered(ALL_IN_ORDER, **{missing: None})
    assert refusal_code(replace(REQUEST, declared=purpose), facts) == "facts-missing"


def test_facts_about_another_number_refuse() -> None:
    assert refusal_code(facts=replace(NOTHING_KNOWN_AGAINST, number="+12025550144")) == "facts-missing"


@pytest.mark.parametrize("from_", ["", "Example Dental", "2025550100", "+1 202 555 0100"])
def test_a_caller_id_that_is_no_number_refuses(from_: str) -> None:
    assert refusal_code(replace(REQUEST, from_=from_)) == "caller-id-invalid"


def test_an_address_in_a_stricter_place_binds_though_the_number_lies_elsewhere() -> None:
    assert refusal_code(replace(SALE, state="US-CA"), ALL_IN_ORDER) == "prohibited"
    early = datetime(2027, 3, 9, 15, tzinfo=UTC)  # 10:00 in New York, 7:00 in Los Angeles
    assert refusal_code(now=early) == ""
    assert refusal_code(replace(REQUEST, zone="America/Los_Angeles"), now=early) == "outside-hours"


@pytest.mark.parametrize(("dials", "code"), [(0, ""), (9, ""), (10, "spend-cap"), (11, "spend-cap")])
def test_no_more_is_dialled_in_an_hour_than_the_house_pays_for(dials: int, code: str) -> None:
    book = replace(RULEBOOK, dials_per_hour=10)
    assert refusal_code(facts=replace(NOTHING_KNOWN_AGAINST, dials=dials), rules=book) == code
    # A reason that waiting does not mend is told first.
    listed = (Suppression(OWN_LIST, NOON),)
    facts = replace(NOTHING_KNOWN_AGAINST, dials=dials, suppressions=listed)
    assert refusal_code(facts=facts, rules=book) == "dnc-listed"


def test_setting_every_rule_aside_opens_no_hole() -> None:
    overrides = tuple(
        Override(rule=rule.id, reason="all of them", decided_by="J. Doe", decided_on=NOON.date())
        for rule in RULEBOOK.rules
    )
    lawless = replace(RULEBOOK, overrides=overrides)
    assert refusal_code(rules=lawless) == "country-not-allowed"
    without_windows = replace(
        RULEBOOK, overrides=tuple(entry for entry in overrides if entry.rule.endswith("-hours"))
    )
    assert refusal_code(rules=without_windows) == "outside-hours"
    assert refusal_code(rules=replace(RULEBOOK, rules=())) == "country-not-allowed"


def test_no_override_reaches_the_number_our_own_list_or_a_revocation() -> None:
    overridable = {rule.id for rule in RULEBOOK.rules}
    findings = permit_of().verdict.findings
    fixed = {finding.rule for finding in findings} - overridable
    assert fixed == {"purpose", "number", "caller-id", "facts", "own-list", "revocation", "spend-cap"}


@pytest.mark.parametrize(
    ("request_", "facts", "rules", "now"),
    [
        (None, NOTHING_KNOWN_AGAINST, RULEBOOK, NOON),
        (REQUEST, None, RULEBOOK, NOON),
        (REQUEST, NOTHING_KNOWN_AGAINST, None, NOON),
        (REQUEST, NOTHING_KNOWN_AGAINST, RULEBOOK, None),
        (REQUEST, NOTHING_KNOWN_AGAINST, RULEBOOK, datetime(2027, 3, 9, 17)),  # noqa: DTZ001 (naive on purpose)
        (REQUEST, replace(NOTHING_KNOWN_AGAINST, attempts=(datetime(2027, 3, 9),)), RULEBOOK, NOON),  # noqa: DTZ001
        (replace(REQUEST, to=cast("str", 12025550143)), NOTHING_KNOWN_AGAINST, RULEBOOK, NOON),
        (replace(REQUEST, declared=cast("Purpose", "surprise")), NOTHING_KNOWN_AGAINST, RULEBOOK, NOON),
    ],
)
def test_whatever_goes_wrong_inside_refuses(
    request_: DialRequest, facts: Facts, rules: Rulebook, now: datetime
) -> None:
    answer = check(request_, facts, rules, now)
    assert isinstance(answer, Refused)
    assert answer.refusal.code == "gate-error"
    assert weigh(Stage.LIVE, cast("DialRequest", None), facts, rules, now).refusal is not None


def test_when_twilio_asks_for_the_document_the_hour_and_the_consent_are_weighed_again() -> None:
    def code(facts: Facts, now: datetime = NOON, request: DialRequest = SALE) -> str:
        refusal = weigh(Stage.ANSWERED, request, facts, RULEBOOK, now).refusal
        return refusal.code if refusal else ""

    facts = replace(ALL_IN_ORDER, lists=None, attempts=None, conversations=None, dials=None)
    assert code(facts) == ""
    assert code(facts, NIGHT) == "outside-hours"
    assert code(replace(facts, consents=())) == "consent-missing"
    assert code(replace(facts, revocations=(Revocation(NOON),))) == "consent-revoked"
    assert code(replace(facts, suppressions=(Suppression(OWN_LIST, NOON),))) == "dnc-listed"
    assert code(replace(facts, suppressions=None)) == "facts-missing"


def test_a_live_call_ends_for_what_the_callee_did_and_not_for_the_hour() -> None:
    def code(facts: Facts) -> str:
        refusal = weigh(Stage.LIVE, SALE, facts, RULEBOOK, NIGHT).refusal
        return refusal.code if refusal else ""

    facts = replace(ALL_IN_ORDER, lists=None, attempts=None, conversations=None)
    assert code(facts) == ""
    assert code(replace(facts, revocations=(Revocation(NIGHT),))) == "consent-revoked"
    assert code(replace(facts, suppressions=(Suppression(OWN_LIST, NIGHT),))) == "dnc-listed"


def test_the_verdict_explains_every_rule_with_its_source_and_names_no_number() -> None:
    answer = check(SALE, NOTHING_KNOWN_AGAINST, RULEBOOK, NOON)
    assert isinstance(answer, Refused)
    explained = {finding.rule for finding in answer.verdict.findings}
    assert {rule.id for rule in RULEBOOK.rules} <= explained
    assert all(finding.explanation and finding.source for finding in answer.verdict.findings)
    stored = json.dumps(answer.verdict.as_json())
    assert NUMBER.lstrip("+") not in stored
    assert json.loads(stored)["rulebook"] == RULEBOOK.digest
    assert "[us-telemarketing-consent]" in answer.refusal.message


@given(
    to=st.sampled_from([NUMBER, "+18085550143", "+14165550143", "+442071838750", "+18005551212", "nonsense"]),
    declared=st.sampled_from(Purpose),
    state=st.sampled_from([None, "US-TX", "US-HI", "CA-ON", "GB-SCT"]),
    at=st.integers(0, 219 * 24 * 60).map(
        lambda minute: datetime(2026, 11, 23, tzinfo=UTC) + timedelta(minutes=minute)
    ),
    attempts=st.integers(0, 4),
    listed=st.sets(st.sampled_from([OWN_LIST, "US", "CA", "US-TX"])),
    missing=st.none() | st.sampled_from(FACT_NAMES),
)
def test_a_permit_is_given_exactly_when_no_finding_refuses(
    to: str,
    declared: Purpose,
    state: str | None,
    at: datetime,
    attempts: int,
    listed: set[str],
    missing: str | None,
) -> None:
    facts = replace(
        ALL_IN_ORDER,
        number=to,
        attempts=(at,) * attempts,
        suppressions=tuple(Suppression(name, at) for name in sorted(listed)),
        lists=tuple(replace(copy, as_of=at) for copy in ALL_IN_ORDER.lists or ()),
        consents=(replace(WRITTEN_CONSENT, given_at=at - timedelta(days=1)),),
    )
    if missing:
        facts = altered(facts, **{missing: None})
    answer = check(replace(REQUEST, to=to, declared=declared, state=state), facts, RULEBOOK, at)
    refusing = [finding for finding in answer.verdict.findings if finding.outcome is Outcome.REFUSE]
    assert isinstance(answer, Permit) == (not refusing)
    assert all(finding.code for finding in refusing)
    assert "gate-error" not in {finding.code for finding in refusing}
    if isinstance(answer, Permit):
        assert not missing
        assert OWN_LIST not in listed
        assert attempts < 3
        assert to in {NUMBER, "+18085550143", "+14165550143"}
