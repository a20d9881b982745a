"""The rig: one relay on a core of its own, carriers and an agent on the others, and what was measured.

Knows how to start, pin, ask and stop processes; knows no protocol. Everything stands on loopback.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

START_SECONDS = 30.0
STOP_SECONDS = 1.0  # politely; nothing is left to be saved
POLL_SECONDS = 0.02
LATE_MS = 5.0  # a call that waits longer at the 99th percentile does not count as carried
FULL = 0.95  # of a core: from here on the relay only falls behind

Mode: TypeAlias = Literal["echo", "speech"]


class Unmeasured(Exception):
    """The relay did not come up, or did not carry its calls."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a relay is told: where to listen, and where its far ends are."""

    port: int
    carrier_port: int
    agent_url: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """A relay that can be measured."""

    name: str
    command: Callable[[Addresses], Sequence[str]]
    environment: Callable[[Addresses], dict[str, str]]
    has_admission: bool = False  # operator's order, signatures, token; without, the plain stream is all


@dataclass(frozen=True, slots=True)
class Measurement:
    """One relay under one load for a few seconds."""

    relay: str
    calls: int
    cpu_us_per_frame: (
        float  # user and system, for a frame relayed there and back (echo) or one frame each way's share
    )
    core_share: float  # of the relay's core
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    frames: int
    lost: int
    hung_up: int
    resident_bytes: int
    agent_share: float  # of the load's cores: near 1 the load is the bottleneck
    carriers_share: float
    load_late_p99_ms: float  # how late the load sent its own frames

    @property
    def is_sound(self) -> bool:
        """Whether everything arrived."""
        return self.lost == 0 and self.hung_up == 0

    @property
    def is_full(self) -> bool:
        """Whether the core is used up: more calls would only fall behind."""
        return self.core_share >= FULL

    @property
    def is_carried(self) -> bool:
        """Whether these calls count as carried: everything arrived, and in time."""
        return self.is_sound and self.p99_ms < LATE_MS and not self.is_full


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of all do not exceed; NaN of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def median(values: Sequence[float]) -> float:
    """The middle, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def read_measurement(relay: str, calls: int, figures: dict[str, Any]) -> Measurement:
    """What the carriers counted, as figures of the relay."""
    ways = sorted(figures["ways_us"])
    spent, seconds = figures["cpu_seconds"], figures["seconds"]
    return Measurement(
        relay=relay,
        calls=calls,
        cpu_us_per_frame=spent["relay"] * 1e6 / figures["sent"] if figures["sent"] else math.nan,
        core_share=spent["relay"] / seconds,
        p50_ms=percentile(ways, 0.5) / 1000,
        p95_ms=percentile(ways, 0.95) / 1000,
        p99_ms=percentile(ways, 0.99) / 1000,
        p999_ms=percentile(ways, 0.999) / 1000,
        frames=figures["sent"],
        lost=figures["lost"],
        hung_up=figures["hung_up"],
        resident_bytes=figures["resident_bytes"],
        agent_share=spent["agent"] / seconds,
        carriers_share=spent["carriers"] / seconds,
        load_late_p99_ms=percentile(sorted(figures["late_us"]), 0.99) / 1000,
    )


@dataclass(frozen=True, slots=True)
class Cores:
    """Who may run where."""

    relay: frozenset[int]
    load: frozenset[int]


def share_cores(available: Sequence[int]) -> Cores:
    """The last core for the relay alone, the others for the load; a single core for both."""
    ordered = sorted(available)
    return Cores(frozenset(ordered[-1:]), frozenset(ordered[:-1] or ordered))


@dataclass(eq=False)
class _FarEnd:
    """A process of ours that takes orders."""

    process: subprocess.Popen[str]
    port: int = field(init=False)

    def __post_init__(self) -> None:
        self.port = self.read()["port"]

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """The next answer. Raises Unmeasured when the process is gone."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Unmeasured(f"a far end of the bench ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Rig:
    """A relay between its far ends."""

    def __init__(
        self, candidate: Candidate, relay: subprocess.Popen[bytes], agent: _FarEnd, carriers: _FarEnd
    ) -> None:
        self.name = candidate.name
        self.relay = relay
        self._agent = agent
        self._carriers = carriers
        self.calls = 0

    def ramp(self, calls: int) -> None:
        """Have so many calls in all. Raises Unmeasured."""
        came = self._carriers.ask("ramp", calls=calls)
        if came["live"] < calls:
            raise Unmeasured(
                f"{self.name}: {came['live']} of {calls} calls came up. {came['problem']}".strip()
            )
        self.calls = calls

    def settle(self, seconds: float) -> None:
        """Let what the last calls began come to rest."""
        time.sleep(seconds)

    def measure(self, seconds: float) -> Measurement:
        """Count for a while."""
        gaps = self._agent.ask("report")["gaps"]
        figures = self._carriers.ask(
            "measure", seconds=seconds, relay=self.relay.pid, agent=self._agent.process.pid
        )
        figures["lost"] += self._agent.ask("report")["gaps"] - gaps
        return read_measurement(self.name, self.calls, figures)


@contextmanager
def open_rig(
    candidate: Candidate, folder: Path, *, mode: Mode = "echo", certificate: Path | None = None
) -> Iterator[Rig]:
    """Start a relay and its far ends; all of them are gone at the end. Raises Unmeasured."""
    cores = share_cores(list(os.sched_getaffinity(0)))
    port = _free_port()
    with ExitStack() as stack:
        agent_command = ["-m", "relay.bench.agent", mode, *([str(certificate)] if certificate else [])]
        agent = _FarEnd(stack.enter_context(_running_far_end(agent_command, cores.load)))
        admission = "admission" if candidate.has_admission else "open"
        carriers_command = ["-m", "relay.bench.carriers", str(port), admission]
        carriers = _FarEnd(stack.enter_context(_running_far_end(carriers_command, cores.load)))
        # By name over TLS, as production does: the certificate says `localhost`.
        agent_url = (
            f"wss://localhost:{agent.port}/v1/ws" if certificate else f"ws://127.0.0.1:{agent.port}/v1/ws"
        )
        addresses = Addresses(port, carriers.port, agent_url, folder)
        log_path = folder / f"{candidate.name}.log"
        log = stack.enter_context(log_path.open("ab"))
        environment = {"PATH": os.defpath, **candidate.environment(addresses)}
        if certificate:
            environment |= {"SSL_CERT_FILE": str(certificate), "NODE_EXTRA_CA_CERTS": str(certificate)}
        relay = stack.enter_context(
            _running(
                list(candidate.command(addresses)),
                cores.relay,
                environment=environment,
                folder=folder,
                log=log,
            )
        )
        _wait_until_listening(relay, port, log_path)
        yield Rig(candidate, relay, agent, carriers)


@contextmanager
def _running(
    command: list[str], cores: frozenset[int], *, environment: dict[str, str], folder: Path, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    with _pinned(cores):
        process = subprocess.Popen(  # noqa: S603 - commands of ours
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    with _ended(process):
        yield process


@contextmanager
def _running_far_end(arguments: list[str], cores: frozenset[int]) -> Iterator[subprocess.Popen[str]]:
    environment = {"PATH": os.defpath, "PYTHONPATH": package_folder()}
    with _pinned(cores):
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def _ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _pinned(cores: frozenset[int]) -> Iterator[None]:
    """What is started here runs there: a child inherits its parent's cores."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def package_folder() -> str:
    """Where `import relay` finds this very package."""
    return str(Path(__file__).parent.parent.parent)


def _wait_until_listening(relay: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and relay.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), POLL_SECONDS).close()
        except OSError:
            time.sleep(POLL_SECONDS)
        else:
            return
    raise Unmeasured(f"the relay did not come up: {log.read_text(errors='replace')[-600:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
