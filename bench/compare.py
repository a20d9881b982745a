"""`make bench` and `make bench-quick`: every relay in turn, round after round.

Knows the plan of the runs; prints one JSON object on standard output, and on standard error what it does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import peers, report
from bench.summary import Run, Summary, cpu, p99, read_run
from relay.bench import endurance
from relay.bench.capacity import RELAY, describe_machine, make_certificate, ramp
from relay.bench.rig import Candidate, Measurement, Mode, Unmeasured

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True, slots=True)
class Profile:
    """A load: what the agent does, how it is reached, and how many calls there are."""

    name: str
    steps: tuple[int, ...]
    seconds: float
    mode: Mode = "echo"
    tls: bool = False
    rounds: int = 3


PLAN = (
    Profile("plain", steps=(10, 50, 100, 200, 400), seconds=2.0),
    Profile("tls", steps=(60, 200), seconds=2.0, tls=True, rounds=2),
    Profile("speech", steps=(60,), seconds=2.0, mode="speech", rounds=1),  # no target hangs on it
)
SLOW = frozenset(
    {peers.BY_THE_BOOK, peers.PIPECAT}
)  # measured once: nothing hangs on how slow they are exactly
ALONE: dict[str, Callable[[Candidate], Any]] = {
    "interruptions": endurance.interrupt,
    "churn": endurance.churn,
}  # only this relay is asked
QUICK = Profile("plain", steps=(100,), seconds=2.0)


def main() -> int:
    """Run the plan; 0 done, 1 when frames were lost, a ratio is too high or the relay was not measured."""
    arguments = _arguments()
    if arguments.again:
        findings = json.loads((DOCS / "performance.json").read_text("utf-8"))
        report.write(DOCS, Summary([read_run(each) for each in findings["runs"]]), findings)
        return 0
    tools = arguments.tools.absolute()  # the relays run elsewhere
    candidates, missing = peers.find_peers(tools, (peers.NODE,) if arguments.quick else peers.ALL)
    for name, why in missing.items():
        _say(f"left out: {name}: {why}")
    if arguments.quick:
        return _quick(candidates, missing, arguments.at_most)
    plan = [_shortened(profile, arguments) for profile in PLAN if profile.name in arguments.profiles]
    runs, failed = measure(candidates, plan)
    alone = {name: _alone(name, failed) for name in ALONE if name in arguments.profiles}
    summary = Summary(runs)
    findings = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": peers.versions(tools),
        "missing": missing,
        "failed": failed,
        **ratios(summary),
        **alone,
        "runs": [{"profile": run.profile, "round": run.round, **asdict(run.measured)} for run in runs],
    }
    sys.stdout.write(json.dumps(findings) + "\n")
    if arguments.write:
        report.write(DOCS, summary, findings)
    return 0 if any(run.measured.relay == RELAY.name for run in runs) and not summary.lost(RELAY.name) else 1


def measure(candidates: Mapping[str, Candidate], plan: Sequence[Profile]) -> tuple[list[Run], dict[str, str]]:
    """All runs, interleaved: every relay once a round, forwards and backwards; and what went wrong."""
    runs: list[Run] = []
    failed: dict[str, str] = {}
    with TemporaryDirectory(prefix="relay-bench-") as folder:
        certificate = make_certificate(Path(folder))
        for profile in plan:
            for round_ in range(profile.rounds):
                order = list(candidates.values())[:: -1 if round_ % 2 else 1]
                for candidate in order:
                    if profile.tls and candidate.name in peers.WITHOUT_TLS:
                        continue
                    if round_ and candidate.name in SLOW:
                        continue
                    try:
                        found = _ramp(candidate, profile, certificate)
                    except Unmeasured as problem:
                        failed[f"{candidate.name}, {profile.name}"] = str(problem)
                        _say(f"failed: {problem}")
                        continue
                    runs += [Run(profile.name, round_, measured) for measured in found]
    return runs, failed


def _alone(name: str, failed: dict[str, str]) -> dict[str, Any] | None:
    _say(f"{name} …")
    try:
        return asdict(ALONE[name](RELAY))
    except Unmeasured as problem:
        failed[f"{RELAY.name}, {name}"] = str(problem)
        _say(f"failed: {problem}")
        return None


def ratios(summary: Summary) -> dict[str, Any]:
    """The relay ÷ each peer, at the most calls that left both of them some of their core; by profile."""
    found: dict[str, Any] = {}
    for profile in summary.profiles():
        for peer in summary.relays(profile):
            for calls in reversed(summary.steps(profile)):
                ratio = summary.ratio(profile, RELAY.name, peer, calls, cpu)
                if peer != RELAY.name and ratio is not None:
                    found.setdefault(profile, {})[peer] = {"calls": calls, **asdict(ratio)}
                    break
    return {"ratios": found}


def _quick(candidates: Mapping[str, Candidate], missing: Mapping[str, str], at_most: float | None) -> int:
    began = time.monotonic()
    both = {name: candidates[name] for name in (RELAY.name, peers.NODE) if name in candidates}
    runs, failed = measure(both, (QUICK,))
    summary = Summary(runs)
    calls = QUICK.steps[0]
    ratio = summary.ratio(QUICK.name, RELAY.name, peers.NODE, calls, cpu)
    slower = summary.ratio(QUICK.name, RELAY.name, peers.NODE, calls, p99)
    own = summary.spread(QUICK.name, RELAY.name, calls, cpu)
    node = summary.spread(QUICK.name, peers.NODE, calls, cpu)
    lost = summary.lost(RELAY.name)
    findings = {
        "node_ratio": ratio and round(ratio.median, 3),
        "node_ratio_range": ratio and [round(ratio.least, 3), round(ratio.most, 3)],
        "p99_ratio": slower and round(slower.median, 3),
        "relay_cpu_us_per_frame": own and round(own.median, 1),
        "node_cpu_us_per_frame": node and round(node.median, 1),
        "calls": calls,
        "lost": lost,
        "missing": {name: why for name, why in missing.items() if name == peers.NODE},
        "failed": failed,
        "seconds": round(time.monotonic() - began, 1),
    }
    sys.stdout.write(json.dumps(findings) + "\n")
    is_slow = ratio is not None and at_most is not None and ratio.median > at_most
    return 1 if ratio is None or lost or is_slow else 0


def _ramp(candidate: Candidate, profile: Profile, certificate: Path) -> list[Measurement]:
    def said(measured: Measurement) -> None:
        _say(
            f"{profile.name:7} {candidate.name:12} {measured.calls:4} calls"
            f"  {measured.cpu_us_per_frame:6.1f} µs  p99 {measured.p99_ms:7.2f} ms"
            f"  core {measured.core_share:4.0%}  lost {measured.lost}"
        )

    return ramp(
        candidate,
        profile.steps,
        profile.seconds,
        mode=profile.mode,
        certificate=certificate if profile.tls else None,
        on_measured=said,
    )


def _shortened(profile: Profile, arguments: argparse.Namespace) -> Profile:
    return replace(
        profile,
        steps=tuple(calls for calls in profile.steps if calls <= arguments.calls),
        seconds=arguments.seconds or profile.seconds,
        rounds=min(profile.rounds, arguments.rounds or profile.rounds),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument(
        "--tools", type=Path, default=Path(".venv/peers"), help="where the peers' packages were installed"
    )
    parser.add_argument("--quick", action="store_true", help="Node and the relay only, within a minute")
    parser.add_argument("--at-most", type=float, help="with --quick: fail above this ratio")
    parser.add_argument("--rounds", type=int, help="of each profile at most")
    parser.add_argument("--seconds", type=float, help="of one measurement")
    parser.add_argument("--calls", type=int, default=max(PLAN[0].steps), help="leave out higher steps")
    parser.add_argument("--profiles", nargs="+", default=[*(profile.name for profile in PLAN), *ALONE])
    parser.add_argument("--write", action="store_true", help="put the findings into docs/performance.*")
    parser.add_argument(
        "--again", action="store_true", help="lay out what docs/performance.json has, no more"
    )
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
