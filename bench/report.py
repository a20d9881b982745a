"""The findings as tables: what stands between the marks in docs/performance.md.

Knows Markdown; whatever is written around the marks is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers import LABELS
from bench.plot import draw
from bench.summary import Spread, Summary, cpu, p99
from bench.targets import targets
from relay.bench.capacity import RELAY
from relay.bench.rig import Measurement

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PLOTTED_CALLS = 100
TITLES = {
    "plain": "Plain sockets, every 20 ms frame echoed",
    "tls": "TLS to the agent, every 20 ms frame echoed",
    "speech": "Plain sockets, an agent that talks half of the time in chunks of 300 bytes",
}


def write(docs: Path, summary: Summary, findings: Mapping[str, Any]) -> None:
    """Replace the measured part of performance.md, its plot and the raw figures."""
    page = docs / "performance.md"
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{tables(summary, findings)}\n{END}{after}", "utf-8")
    (docs / "performance.svg").write_text(draw(summary, "plain", PLOTTED_CALLS), "utf-8")
    (docs / "performance.json").write_text(json.dumps(findings, indent=1) + "\n", "utf-8")


def tables(summary: Summary, findings: Mapping[str, Any]) -> str:
    """Ratios first, then what they are made of."""
    parts = [
        _where(findings),
        _targets(summary, findings),
        _ratios(findings),
        "![CPU per frame and latency by calls](performance.svg)\n",
    ]
    parts += [_profile(summary, profile) for profile in summary.profiles()]
    parts.append(_capacity(summary))
    parts += [f"Not measured: {name} ({why}).\n" for name, why in findings["missing"].items()]
    parts += [
        f"Failed in at least one round: {name}: {_short(why)}.\n" for name, why in findings["failed"].items()
    ]
    return "\n".join(parts)


def _where(findings: Mapping[str, Any]) -> str:
    machine = findings["machine"]
    lines = [
        f"Measured on {findings['date']}: {machine['processor']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}.",
        "",
        *(f"- {LABELS[name]}: {version}" for name, version in findings["versions"].items()),
    ]
    return "\n".join(lines) + "\n"


def _targets(summary: Summary, findings: Mapping[str, Any]) -> str:
    marks = {True: "✓", False: "✗", None: ""}
    lines = ["## The targets", "", "| | wanted | found | |", "|---|---|---|---|"]
    lines += [
        f"| {each.name} | {each.wanted} | **{each.found}** | {marks[each.is_met]} |"
        for each in targets(summary, findings)
    ]
    return "\n".join(lines) + "\n"


def _ratios(findings: Mapping[str, Any]) -> str:
    lines = [
        "## Relay ÷ peer: CPU per frame",
        "",
        "| load | peer | calls | ratio | range |",
        "|---|---|---|---|---|",
    ]
    for profile, peers in findings["ratios"].items():
        for peer, ratio in peers.items():
            lines.append(
                f"| {profile} | {LABELS[peer]} | {ratio['calls']} | **{ratio['median']:.2f}** "
                f"| {ratio['least']:.2f}–{ratio['most']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def _profile(summary: Summary, profile: str) -> str:
    lines = [
        f"## {TITLES[profile]}",
        "",
        "| calls | relay | CPU µs per frame | core | p50 ms | p95 ms | p99 ms | p99.9 ms | lost | load |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for calls in summary.steps(profile):
        for name in summary.relays(profile):
            rounds = [run.measured for run in summary.all(profile, name, calls)]
            if rounds:
                lines.append(_row(summary, profile, name, calls, rounds))
    return "\n".join(lines) + "\n"


def _row(summary: Summary, profile: str, name: str, calls: int, rounds: list[Measurement]) -> str:
    def middle(figure: str) -> float:
        return float(median(getattr(measured, figure) for measured in rounds))

    load = middle("agent_share") + middle("carriers_share")
    cells = [
        str(calls),
        LABELS[name],
        _spread(summary.spread(profile, name, calls, cpu), 0),
        f"{middle('core_share'):.0%}",
        f"{middle('p50_ms'):.2f}",
        f"{middle('p95_ms'):.2f}",
        _spread(summary.spread(profile, name, calls, p99), 2),
        f"{middle('p999_ms'):.2f}",
        str(sum(measured.lost for measured in rounds)),
        f"{load:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _capacity(summary: Summary) -> str:
    lines = [
        "## One core, plain sockets",
        "",
        "Carried: nothing lost, p99 below 5 ms, the core not full. Memory: of one more call, from the first "
        "step to the last.",
        "",
        "| relay | most calls carried | KiB per call | CPU per frame at the most ÷ at 100 calls |",
        "|---|---|---|---|",
    ]
    profile = summary.profiles()[0]
    for name in summary.relays(profile):
        size = summary.bytes_per_call(profile, name)
        most = max(
            (step for step in summary.steps(profile) if summary.is_unfilled(profile, name, step)), default=0
        )
        at_most, at_100 = (summary.spread(profile, name, calls, cpu) for calls in (most, 100))
        growth = f"{at_most.median / at_100.median:.2f} ({most})" if at_most and at_100 and most > 100 else ""
        memory = "" if size is None else f"{size / 1024:.0f}"
        lines.append(f"| {LABELS[name]} | {summary.capacity(profile, name)} | {memory} | {growth} |")
    if RELAY.name in summary.relays(profile):
        lines += ["", f"Frames that the relay lost while its core was not full: {summary.lost(RELAY.name)}."]
    return "\n".join(lines) + "\n"


def _spread(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return ""
    return f"{spread.median:.{digits}f} ({spread.least:.{digits}f}–{spread.most:.{digits}f})"


def _short(why: str) -> str:
    return " ".join(why.split())[:160]
