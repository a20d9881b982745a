"""What the gate answers: one finding for every rule considered, and the verdict they add up to.

Knows no rule and no request: only how an answer is put down so that it can be stored, shown and explained.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from relay.outcomes import Refusal


class Outcome(StrEnum):
    """What one rule said of one case."""

    PASS = "pass"  # noqa: S105 (no password)
    REFUSE = "refuse"
    OVERRIDDEN = "overridden"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True, slots=True)
class Decision:
    """Who set a rule aside, when and why."""

    reason: str
    decided_by: str
    decided_on: date


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's word on one case. `code` is set exactly when the outcome is a refusal."""

    rule: str
    outcome: Outcome
    explanation: str
    source: str = "relay"
    code: str = ""
    decision: Decision | None = None

    def as_json(self) -> dict[str, object]:
        """For the store and for `relay check --json`; what is empty is left out."""
        line: dict[str, object] = {"rule": self.rule, "outcome": self.outcome.value}
        line |= {"explanation": self.explanation, "source": self.source}
        if self.code:
            line["code"] = self.code
        if self.decision:
            line |= {
                "reason": self.decision.reason,
                "decided_by": self.decision.decided_by,
                "decided_on": self.decision.decided_on.isoformat(),
            }
        return line


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that was weighed for one attempt, in the order of evaluation; the first refusal speaks.

    `checked_at` is the real time, `judged_at` the instant that the rules of date and hour were held against;
    `rulebook` names the exact rules by their digest. It holds no phone number: it may be shown and logged.
    """

    call_id: str
    attempt: int
    purpose: str
    checked_at: datetime
    judged_at: datetime
    rulebook: str
    findings: tuple[Finding, ...]
    places: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()

    @property
    def refusal(self) -> Refusal | None:
        """The first refusal among the findings; a verdict that weighed nothing refuses too."""
        if not self.findings:
            return Refusal("gate-error", "The gate weighed no rule at all; nothing is dialled.")
        for finding in self.findings:
            if finding.outcome is Outcome.REFUSE:
                return Refusal(finding.code, f"{finding.explanation} [{finding.rule}]")
        return None

    def as_json(self) -> dict[str, object]:
        """For the store: every finding, the inapplicable ones included."""
        return {
            "call_id": self.call_id,
            "attempt": self.attempt,
            "purpose": self.purpose,
            "checked_at": self.checked_at.isoformat(),
            "judged_at": self.judged_at.isoformat(),
            "rulebook": self.rulebook,
            "places": list(self.places),
            "zones": list(self.zones),
            "findings": [finding.as_json() for finding in self.findings],
        }


def passed(rule: str, explanation: str, source: str = "relay") -> Finding:
    """The rule applies and is kept."""
    return Finding(rule, Outcome.PASS, explanation, source)


def refused(rule: str, code: str, explanation: str, source: str = "relay") -> Finding:
    """The rule applies and would be broken."""
    return Finding(rule, Outcome.REFUSE, explanation, source, code)
