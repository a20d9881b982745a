"""`relay check --number`: the gate's verdict on one number, rule by rule.

Knows the answer of the operator's API, and no rule.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Column, Table

from relay.cli.client import ask
from relay.cli.terminal import DONE, FAILED, complain, print_json

NOT_APPLICABLE = "not-applicable"
_STYLES = {"pass": "green", "refuse": "red", "overridden": "yellow"}


def explain(number: str, given: Mapping[str, str | None], *, as_json: bool) -> int:
    """Print what was weighed of a number and what is `given` besides; the refusal goes to stderr."""
    asked = {"to": number, **given}
    found = ask("POST", "/v1/check", json={name: value for name, value in asked.items() if value is not None})
    if as_json:
        print_json(found)
    else:
        findings = found["verdict"]["findings"]
        applying = [finding for finding in findings if finding["outcome"] != NOT_APPLICABLE]
        Console().print(_table(applying))
        print(f"{len(findings) - len(applying)} other rules do not concern this call; --json has them too")
    if found["allowed"]:
        return DONE
    complain(f"{found['refusal']['code']}: {found['refusal']['message']}")
    return FAILED


def _table(findings: list[dict[str, str]]) -> Table:
    table = Table(Column("rule", no_wrap=True), "outcome", "why", "source")
    for finding in findings:
        why = finding["explanation"]
        if "decided_by" in finding:
            why += f" Set aside by {finding['decided_by']} on {finding['decided_on']}: {finding['reason']}"
        outcome = finding["outcome"]
        table.add_row(finding["rule"], outcome, why, finding["source"], style=_STYLES.get(outcome))
    return table
