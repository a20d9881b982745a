"""The gate: decides, rule by rule, whether a number may be dialled, and why.

Knows no trio, no clock, no socket, no log and no SQL: facts and times are arguments, answers are values.
"""

from relay.compliance.case import (
    OWN_LIST,
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
from relay.compliance.optout import OPT_OUT_KEY, asks_to_stop
from relay.compliance.rulebook import Rulebook, RulebookError, load_rulebook, parse_rulebook
from relay.compliance.verdict import Decision, Finding, Outcome, Verdict

__all__ = [
    "OPT_OUT_KEY",
    "OWN_LIST",
    "PERMIT_LIFETIME_SECONDS",
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
    "load_rulebook",
    "parse_rulebook",
    "weigh",
]
