"""The gate: decides, rule by rule, whether a number may be dialled, and why.

Knows no trio, no clock, no socket, no log and no SQL: facts and times are arguments, answers are values.
"""

from relay.compliance.case import (
    OWN_LIST,
    SPENDING,
    Consent,
    ConsentForm,
    DialRequest,
    Facts,
    ListCopy,
    Purpose,
    Revocation,
    Suppression,
)
from relay.compliance.gate import PERMIT_LIFETIME_SECONDS, Permit, Refused, Stage, check, weigh
from relay.compliance.judgement import judge_spending
from relay.compliance.optout import OPT_OUT_KEY, asks_to_stop
from relay.compliance.rulebook import Rulebook, RulebookError, load_rulebook, parse_rulebook
from relay.compliance.verdict import Decision, Finding, Outcome, Verdict

__all__ = [
    "OPT_OUT_KEY",
    "OWN_LIST",
    "PERMIT_LIFETIME_SECONDS",
    "SPENDING",
    "Consent",
    "ConsentForm",
    "Decision",
    "DialRequest",
    "Facts",
    "Finding",
    "ListCopy",
    "Outcome",
    "Permit",
    "Purpose",
    "Refused",
    "Revocation",
    "Rulebook",
    "RulebookError",
    "Stage",
    "Suppression",
    "Verdict",
    "asks_to_stop",
    "check",
    "judge_spending",
    "load_rulebook",
    "parse_rulebook",
    "weigh",
]
