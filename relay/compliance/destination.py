"""Numbers that people are put through to: whether the rules about countries and the numbering plan allow one.

Knows no call and no fact about anybody: such a number is an operator's own choice, named before any call.
"""

from __future__ import annotations

from datetime import datetime

import phonenumbers
from phonenumbers import PhoneNumberType

from relay.compliance.case import DialRequest, Facts, Purpose
from relay.compliance.judgement import Case, judge
from relay.compliance.numbers import RINGABLE, Location, parse
from relay.compliance.rulebook import Rulebook
from relay.compliance.rules import Countries
from relay.compliance.verdict import Outcome
from relay.outcomes import Refusal

# Beside what may be rung: whom a call is handed over to often has a number that is free for its callers. One
# that costs them more than a call is refused, and so is what does not say where it rings.
_KINDS = RINGABLE | {PhoneNumberType.TOLL_FREE, PhoneNumberType.UAN}


def judge_destination(number: str, purpose: Purpose, rulebook: Rulebook, now: datetime) -> Refusal | None:
    """Why nobody may be put through to this number; None: they may."""
    parsed = parse(number, _KINDS)
    if isinstance(parsed, Refusal):
        return parsed
    country = phonenumbers.region_code_for_number(parsed) or ""
    request = DialRequest("", 0, number, number, purpose, "")
    case = Case(request, Facts(number), Location((country,), ()), rulebook, now, now)
    findings = [judge(rule, case) for rule in rulebook.rules if isinstance(rule, Countries)]
    if refused := [each for each in findings if each.outcome is Outcome.REFUSE]:
        return Refusal(refused[0].code, refused[0].explanation)
    if not any(each.outcome is Outcome.PASS for each in findings):
        return Refusal(
            "country-not-allowed", "No rule in force says which countries are allowed; so none are."
        )
    return None
