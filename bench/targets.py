"""The targets, and whether a run has met them.

Knows what issue "As fast as the wire" asks for; what was not measured is neither met nor missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.peers import EPOLL, FASTAPI, NODE
from bench.summary import Summary, cpu, p99
from relay.bench.capacity import RELAY
from relay.bench.endurance import Churn, Interruptions
from relay.bench.rig import LATE_MS, lag_percentile_ms

RATIOS = {("plain", NODE): 0.9, ("tls", NODE): 0.9, ("plain", EPOLL): 2.0, ("plain", FASTAPI): 0.45}
P99_CALLS = 200
GROWTH, GROWTH_CALLS = 1.1, (100, 400)
BUSY = 0.8  # of the core: beyond it, frames wait for each other, and are handled by the dozen
CALL_KIB = 100
LEFT_BEHIND_KIB = 1.0  # by a call that is over: 10,000 of them would be 10 MiB
CLEAR_MS = 10.0
LAG_MS = 20.0


@dataclass(frozen=True, slots=True)
class Target:
    """One line: what is wanted, what was found."""

    name: str
    wanted: str
    found: str
    is_met: bool | None


def targets(summary: Summary, findings: Mapping[str, Any]) -> list[Target]:
    """All of them, in the order of the issue."""
    rows = [_ratio(findings, profile, peer, most) for (profile, peer), most in RATIOS.items()]
    rows += [_p99(summary), _growth(summary), _memory(summary), _left_behind(findings)]
    return [*rows, _clears(findings), _lag(summary)]


def _target(name: str, wanted: str, found: str | None, is_met: bool = False) -> Target:
    return (
        Target(name, wanted, "not measured", None) if found is None else Target(name, wanted, found, is_met)
    )


def _ratio(findings: Mapping[str, Any], profile: str, peer: str, most: float) -> Target:
    ratio = findings["ratios"].get(profile, {}).get(peer)
    name = f"CPU per frame ÷ {peer}, {profile}"
    if ratio is None:
        return _target(name, f"≤ {most}", None)
    found = f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f}, {ratio['calls']} calls)"
    return _target(name, f"≤ {most}", found, ratio["median"] <= most)


def _p99(summary: Summary) -> Target:
    ours, theirs = (summary.spread("plain", name, P99_CALLS, p99) for name in (RELAY.name, NODE))
    name, wanted = f"p99 at {P99_CALLS} calls on one core", f"≤ {NODE}'s, < {LATE_MS:g} ms"
    if ours is None or theirs is None:
        return _target(name, wanted, None)
    found = f"{ours.median:.2f} ms, {NODE} {theirs.median:.2f} ms"
    return _target(name, wanted, found, ours.median <= theirs.median and ours.median < LATE_MS)


def _growth(summary: Summary) -> Target:
    calm = Summary([run for run in summary.runs if run.measured.core_share <= BUSY])
    few, many = (calm.spread("plain", RELAY.name, calls, cpu) for calls in GROWTH_CALLS)
    name = "CPU per frame at {1} ÷ at {0} calls".format(*GROWTH_CALLS)
    if few is None or many is None:
        return _target(name, f"≤ {GROWTH}", None)
    found = many.median / few.median
    rounds, of = (len(each.all("plain", RELAY.name, GROWTH_CALLS[1])) for each in (calm, summary))
    return _target(
        name,
        f"≤ {GROWTH}",
        f"{found:.2f} ({rounds} of {of} rounds left a fifth of the core)",
        found <= GROWTH,
    )


def _memory(summary: Summary) -> Target:
    size = summary.bytes_per_call("plain", RELAY.name)
    found = None if size is None else f"{size / 1024:.0f} KiB"
    return _target(
        "memory of a live call", f"≤ {CALL_KIB} KiB", found, size is not None and size / 1024 <= CALL_KIB
    )


def _left_behind(findings: Mapping[str, Any]) -> Target:
    name, wanted = "memory after thousands of calls", f"flat: ≤ {LEFT_BEHIND_KIB:g} KiB a call"
    if findings.get("churn") is None:
        return _target(name, wanted, None)
    churn = Churn(tuple((calls, size) for calls, size in findings["churn"]["resident_bytes"]))
    (first, least), (last, most) = churn.resident_bytes[0], churn.resident_bytes[-1]
    left = churn.bytes_per_call / 1024
    found = (
        f"{left:.2f} KiB a call ({least / 2**20:.1f} MiB after {first}, {most / 2**20:.1f} MiB after {last})"
    )
    return _target(name, wanted, found, left <= LEFT_BEHIND_KIB)


def _clears(findings: Mapping[str, Any]) -> Target:
    name, wanted = "`clear` after an interruption, p99", f"≤ {CLEAR_MS:g} ms, each, and no audio after it"
    if findings.get("interruptions") is None:
        return _target(name, wanted, None)
    came = Interruptions(**findings["interruptions"])
    found = (
        f"{came.p99_ms:.2f} ms, {came.clears} of {came.interruptions}, {came.late_chunks} chunks after it "
        f"({came.calls} calls)"
    )
    is_whole = came.clears == came.interruptions and came.late_chunks == 0
    return _target(name, wanted, found, is_whole and came.p99_ms <= CLEAR_MS)


def _lag(summary: Summary) -> Target:
    name, wanted = "lag of the loop at full load, p99", f"< {LAG_MS:g} ms"
    steps = [run.measured for run in summary.runs if run.measured.relay == RELAY.name and run.measured.lags]
    if not steps:
        return _target(name, wanted, None)
    calls = max(measured.calls for measured in steps)
    lags = [measured.lags for measured in steps if measured.calls == calls]
    timers, lag = sum(lag[-1][1] for lag in lags), lag_percentile_ms(lags, 0.99)
    return _target(name, wanted, f"{lag:.1f} ms ({timers} timers, {calls} calls)", lag < LAG_MS)
