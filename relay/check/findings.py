"""What was found, a line for each question, for a terminal and for scripts.

Knows no question and asks nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import orjson
from rich.table import Table
from rich.text import Text


class Result(StrEnum):
    """What a question came to. A warning does not keep a call from being placed."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


OK, WARN, FAIL = Result


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `remedy` is empty where there is nothing to mend."""

    what: str
    result: Result
    found: str
    remedy: str = ""


Answer = tuple[Result, str, str]  # a Finding that does not know yet which question it answers


def is_ready(findings: list[Finding]) -> bool:
    """Whether calls may be placed."""
    return all(finding.result is not FAIL for finding in findings)


def to_json(findings: list[Finding]) -> bytes:
    """The report for scripts."""
    report = {"ready": is_ready(findings), "findings": findings}
    return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_table(findings: list[Finding]) -> Table:
    """The report for a terminal."""
    styles = {OK: "green", WARN: "yellow", FAIL: "bold red"}
    table = Table("", "what", "found", "remedy", box=None, pad_edge=False)
    for each in findings:
        result = Text(each.result, styles[each.result])
        table.add_row(result, Text(each.what), Text(each.found), Text(each.remedy))
    return table
