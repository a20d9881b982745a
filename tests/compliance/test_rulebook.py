"""Rule files: what an operator may write, and what is said to whoever writes nonsense.

Knows files and messages, no request.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.compliance import Permit, Purpose, Refused, RulebookError, check, load_rulebook, parse_rulebook
from relay.compliance.rulebook import Rulebook

from .cases import ALL_IN_ORDER, NOON, REQUEST, RULEBOOK

RULE = """
[[rule]]
id = "ours"
kind = "cap"
jurisdiction = "US"
purposes = ["informational"]
counts = "attempts"
at_most = 1
within_hours = 24
title = "One attempt a day"
source = "board decision 12"
reviewed_on = 2026-12-01
review_by = 2027-12-01
effective_from = 2026-12-01
"""

OVERRIDE = """
[[override]]
rule = "us-tx-registration"
reason = "Registered with the Secretary of State under no. 1234"
decided_by = "J. Doe, counsel"
decided_on = 2026-12-01
expires_on = 2027-12-01
"""


def with_file(folder: Path, text: str) -> Rulebook:
    (folder / "ours.toml").write_text(text, "utf-8")
    return load_rulebook(folder)


def test_an_operator_adds_rules_to_the_packaged_ones(tmp_path: Path) -> None:
    rulebook = with_file(tmp_path, RULE)
    assert {rule.id for rule in rulebook.rules} == {rule.id for rule in RULEBOOK.rules} | {"ours"}
    once = replace(ALL_IN_ORDER, attempts=(NOON,))
    assert isinstance(check(REQUEST, once, RULEBOOK, NOON), Permit)
    refused = check(REQUEST, once, rulebook, NOON)
    assert isinstance(refused, Refused)
    assert "[ours]" in refused.refusal.message


def test_an_operator_requires_consent_for_information_too(tmp_path: Path) -> None:
    rule = RULE.replace('kind = "cap"', 'kind = "consent"\nform = "express"')
    for line in ('counts = "attempts"', "at_most = 1", "within_hours = 24"):
        rule = rule.replace(f"{line}\n", "")
    rulebook = with_file(tmp_path, rule)
    assert isinstance(check(REQUEST, ALL_IN_ORDER, rulebook, NOON), Permit)
    assert isinstance(check(REQUEST, replace(ALL_IN_ORDER, consents=()), rulebook, NOON), Refused)


@pytest.mark.parametrize(
    ("day", "permitted"), [((2026, 11, 30), False), ((2026, 12, 1), True), ((2027, 5, 20), True)]
)
def test_an_override_counts_from_the_day_it_was_decided(
    tmp_path: Path, day: tuple[int, int, int], permitted: bool
) -> None:
    assert _may_sell_in_texas(with_file(tmp_path, OVERRIDE), day) is permitted


@pytest.mark.parametrize(("day", "permitted"), [((2027, 3, 8), True), ((2027, 3, 9), False)])
def test_an_override_ends_on_the_day_it_expires(
    tmp_path: Path, day: tuple[int, int, int], permitted: bool
) -> None:
    rulebook = with_file(tmp_path, OVERRIDE.replace("2027-12-01", "2027-03-09"))
    assert _may_sell_in_texas(rulebook, day) is permitted


def test_an_override_for_one_state_leaves_the_rule_standing_in_the_others(tmp_path: Path) -> None:
    override = OVERRIDE.replace("us-tx-registration", "strict-telemarketing-hours")
    rulebook = with_file(tmp_path, f'{override}jurisdictions = ["US-NY"]\n')
    evening = datetime(2027, 3, 10, 1, 30, tzinfo=UTC)  # 20:30 in New York and New Jersey
    lists = tuple(replace(copy, as_of=evening) for copy in ALL_IN_ORDER.lists or ())
    sale = replace(REQUEST, declared=Purpose.TELEMARKETING)

    def permitted(to: str, state: str | None = None) -> bool:
        request = replace(sale, to=to, state=state)
        facts = replace(ALL_IN_ORDER, number=to, lists=lists)
        return isinstance(check(request, facts, rulebook, evening), Permit)

    assert permitted("+12125550143")
    assert not permitted("+12015550143")
    # Whoever may be in either state is protected by the stricter one.
    assert not permitted("+12125550143", "US-NJ")


def test_every_file_and_every_byte_counts_for_the_digest(tmp_path: Path) -> None:
    digests = {RULEBOOK.digest, with_file(tmp_path, "").digest, with_file(tmp_path, "# a word").digest}
    assert len(digests) == 3
    assert load_rulebook().digest == RULEBOOK.digest


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rule = ", "not TOML"),
        ("[[rules]]\n", "rules"),
        ("rule = 5", "list"),
        ('[[rule]]\nid = "ours"\n', "kind"),
        (RULE + 'colour = "red"\n', "colour"),
        (RULE.replace("at_most = 1", "at_most = 0"), "at_most"),
        (RULE.replace("within_hours = 24", "within_hours = 169"), "within_hours"),
        (RULE.replace('"informational"', '"spam"'), "purposes"),
        (RULE.replace('["informational"]', "[]"), "purposes"),
        (RULE.replace('"US"', '"Texas"'), "jurisdiction"),
        (RULE.replace('source = "board decision 12"\n', ""), "source"),
        (RULE.replace("review_by = 2027-12-01", "review_by = 2026-12-01"), "review_by"),
        (RULE + "effective_to = 2026-11-01\n", "effective_to"),
        (RULE.replace('"ours"', '"us-tx-hours"'), "us-tx-hours"),
        (RULE + RULE, "ours"),
        (OVERRIDE.replace("us-tx-registration", "us-tx-registry"), "us-tx-registry"),
        (OVERRIDE.replace('decided_by = "J. Doe, counsel"\n', ""), "decided_by"),
        (OVERRIDE.replace('"Registered with the Secretary of State under no. 1234"', '""'), "reason"),
        ('[[place]]\ncode = "GB"\nname = "Britain"\nzones = ["Europe/Londinium"]\n', "Europe/Londinium"),
        ('[[place]]\ncode = "US-XX"\nname = "Nowhere"\nzones = ["UTC"]\narea_codes = ["212"]\n', "212"),
        ('[[holiday]]\nid = "leap-day"\nname = "Leap Day"\nmonth = 2\nday = 29\n', "holiday"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_to_mend(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(RulebookError, match=complaint):
        with_file(tmp_path, text)


def test_a_window_that_crosses_midnight_or_a_holiday_nobody_defined_is_refused() -> None:
    common = RULE.partition("counts")[0]
    rest = RULE.partition("within_hours = 24")[2]
    window = common.replace('"cap"', '"window"') + "spans = [{ opens = 21:00:00, closes = 08:00:00 }]" + rest
    with pytest.raises(RulebookError, match="midnight"):
        parse_rulebook({"ours.toml": window})
    holidays = common.replace('"cap"', '"holidays"') + 'days = ["festivus"]' + rest
    with pytest.raises(RulebookError, match="festivus"):
        parse_rulebook({"ours.toml": holidays})


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RulebookError, match="no such folder"):
        load_rulebook(tmp_path / "rules")


def test_the_operators_manual_names_every_rule_and_its_examples_work(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "compliance.md").read_text("utf-8")
    assert {rule.id for rule in RULEBOOK.rules} == {
        line.split("`")[1] for line in manual.splitlines() if line.startswith("| `") and line.count("|") == 6
    }
    examples = [block.partition("```")[0] for block in manual.split("```toml")[1:]]
    rulebook = with_file(tmp_path, "\n".join(examples))
    assert len(rulebook.rules) == len(RULEBOOK.rules) + 1
    assert len(rulebook.overrides) == 1


def _may_sell_in_texas(rulebook: Rulebook, day: tuple[int, int, int]) -> bool:
    at = datetime(*day, 20, tzinfo=UTC)
    texan = replace(REQUEST, to="+12145550143", declared=Purpose.TELEMARKETING)
    consents = tuple(
        replace(consent, given_at=datetime(2026, 1, 1, tzinfo=UTC)) for consent in ALL_IN_ORDER.consents or ()
    )
    lists = tuple(replace(copy, as_of=at) for copy in ALL_IN_ORDER.lists or ())
    facts = replace(ALL_IN_ORDER, number=texan.to, lists=lists, consents=consents)
    answer = check(texan, facts, rulebook, at)
    assert isinstance(answer, Permit) or answer.refusal.code == "prohibited", answer.refusal
    return isinstance(answer, Permit)
