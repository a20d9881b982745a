"""`relay bench`: how many calls this relay carries on this machine, how fast, and at what cost.

Knows the environment of the service and how to lay out a table; the rig does the measuring.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from relay.bench.placing import ACCOUNT_SID, API_TOKEN, AUTH_TOKEN, FROM_NUMBER
from relay.bench.rig import (
    LATE_MS,
    Addresses,
    Candidate,
    Measurement,
    Mode,
    Unmeasured,
    open_rig,
    package_folder,
)

CALLS = (10, 50, 100, 200, 300, 400)
MAX_CALLS = 2000
PATIENCE = "\n[limits]\nsilence_seconds = 600\nwordless_seconds = 600\nmonologue_seconds = 600\n"
SETTLE_SECONDS = 1.0  # after the last call has come up


def _patient_agents(folder: Path) -> str:
    """The default agent, whose conversations may be as one-sided as the bench's are."""
    agents = folder / "agents"
    agents.mkdir()
    default = resources.files("relay").joinpath("agents", "default.toml").read_text("utf-8")
    (agents / "default.toml").write_text(default + PATIENCE, "utf-8")
    return str(agents)


def relay_environment(addresses: Addresses) -> dict[str, str]:
    """The production path with other addresses."""
    return {
        "RELAY_AGENTS_DIR": _patient_agents(addresses.folder),
        "PYTHONPATH": package_folder(),
        "PUBLIC_URL": f"http://127.0.0.1:{addresses.port}",
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "TWILIO_FROM_NUMBER": FROM_NUMBER,
        "TWILIO_API_URL": f"http://127.0.0.1:{addresses.carrier_port}",
        "ASSEMBLYAI_API_KEY": "bench-api-key",
        "ASSEMBLYAI_WS_URL": addresses.agent_url,
        "RELAY_BIND": f"127.0.0.1:{addresses.port}",
        "RELAY_API_TOKEN": API_TOKEN,
        "RELAY_DATABASE_URL": f"sqlite:///{addresses.folder / 'relay.db'}",
        "RELAY_DATA_DIR": str(addresses.folder),
        "RELAY_CLOCK": "2026-03-10T18:00:00Z",  # office hours everywhere in the United States
        "RELAY_DIALS_PER_SECOND": "100",
        "RELAY_CALLS_PER_HOUR": "1000000",
        "RELAY_MAX_CALLS": str(MAX_CALLS),
        "RELAY_MAX_CALL_SECONDS": "3600",
        "RELAY_DRAIN_SECONDS": "0",
        "RELAY_LOG_FORMAT": "json",
    }


RELAY = Candidate(
    "relay",
    command=lambda _: [sys.executable, "-m", "relay", "serve"],
    environment=relay_environment,
    has_admission=True,
)


def ramp(
    candidate: Candidate,
    steps: Sequence[int],
    seconds: float,
    *,
    mode: Mode = "echo",
    certificate: Path | None = None,
    on_measured: Callable[[Measurement], None] | None = None,
) -> list[Measurement]:
    """Measure at every number of calls until the relay can carry no more. Raises Unmeasured."""
    found: list[Measurement] = []
    with (
        TemporaryDirectory(prefix="relay-bench-") as folder,
        open_rig(candidate, Path(folder), mode=mode, certificate=certificate) as rig,
    ):
        for calls in steps:
            rig.ramp(calls)
            rig.settle(SETTLE_SECONDS)
            measured = rig.measure(seconds)
            found.append(measured)
            if on_measured:
                on_measured(measured)
            if measured.is_full or not measured.is_sound:
                break
    return found


def run_bench(
    *,
    steps: Sequence[int] = CALLS,
    seconds: float = 5.0,
    mode: Mode = "echo",
    tls: bool = False,
    as_json: bool = False,
) -> bool:
    """Ramp this relay up and print what it carried; whether nothing was lost. Raises Unmeasured."""
    errors = Console(stderr=True)
    with TemporaryDirectory(prefix="relay-bench-") as folder:
        certificate = make_certificate(Path(folder)) if tls else None
        found = ramp(
            RELAY,
            steps,
            seconds,
            mode=mode,
            certificate=certificate,
            on_measured=lambda measured: errors.print(f"{measured.calls} calls measured", style="dim"),
        )
    findings = {
        "machine": describe_machine(),
        "mode": mode,
        "tls": tls,
        "calls_per_core": max((each.calls for each in found if each.is_carried), default=0),
        "resident_bytes_per_call": bytes_per_call(found),
        "lost": sum(each.lost for each in found),
        "steps": [asdict(each) for each in found],
    }
    if as_json:
        sys.stdout.write(json.dumps(findings) + "\n")
    else:
        _show(findings, found)
    return all(each.is_sound for each in found if not each.is_full)


def _show(findings: dict[str, Any], found: Sequence[Measurement]) -> None:
    table = Table(
        "calls", "CPU µs/frame", "core", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "lost", "load's cores"
    )
    for each in found:
        table.add_row(
            str(each.calls),
            f"{each.cpu_us_per_frame:.0f}",
            f"{each.core_share:.0%}",
            *(f"{way:.2f}" for way in (each.p50_ms, each.p95_ms, each.p99_ms, each.p999_ms)),
            str(each.lost),
            f"{each.agent_share + each.carriers_share:.2f}",
        )
    console = Console()
    console.print(table)
    size = findings["resident_bytes_per_call"]
    memory = "" if size is None else f", {size / 1024:.0f} KiB for each"
    console.print(
        f"One core carries {findings['calls_per_core']} calls with p99 below {LATE_MS:g} ms{memory}."
    )


def bytes_per_call(found: Sequence[Measurement]) -> float | None:
    """Memory that one more call takes, between the least and the most calls; None for a single step."""
    if len(found) < 2:
        return None
    first, last = found[0], found[-1]
    return (last.resident_bytes - first.resident_bytes) / (last.calls - first.calls)


def describe_machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = Path("/proc/cpuinfo").read_text(errors="replace")
    models = [line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def make_certificate(folder: Path) -> Path:
    """A self-made certificate of `localhost` in one file, which also vouches for it. Raises Unmeasured."""
    try:
        import trustme  # noqa: PLC0415 - a tool for development, not installed with the service
    except ImportError:
        raise Unmeasured("TLS needs the package trustme beside relay") from None
    authority = trustme.CA()
    path = folder / "localhost.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    authority.cert_pem.write_to_path(path, append=True)
    return path
