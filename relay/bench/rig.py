"""The rig: one relay on a core of its own, carriers and an agent on the others, and what was measured.

Knows how to start, pin, ask and stop processes; knows no protocol. Everything stands on loopback.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

START_SECONDS = 30.0
STOP_SECONDS = 1.0  # politely; nothing is left to be saved
POLL_SECONDS = 0.02
REST_SECONDS = 3.0  # for calls that are over to be saved
HUSH_SECONDS = 1.0  # for replies that had begun to be cut, and for the last clears
LATE_MS = 5.0  # a call that waits longer at the 99th percentile does not count as carried
FULL = 0.95  # of a core: from here on the relay only falls behind

Mode: TypeAlias = Literal["echo", "speech", "interrupt"]
Lags: TypeAlias = tuple[tuple[float, int], ...]
"""How late timers rang: for each bound in seconds, how many were no later; the last bound is infinite."""

_LAG = re.compile(rb'^relay_loop_lag_seconds_bucket\{le="([^"]+)"\} ([0-9.e+]+)$', re.MULTILINE)


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
    lags: Lags = ()  # of this relay's loop, as it says itself

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


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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


def read_lags(metrics: bytes) -> Lags:
    """The histogram of the loop's lag in what `/metrics` says."""
    return tuple((float(bound), int(float(count))) for bound, count in _LAG.findall(metrics))


def lags_between(before: Lags, after: Lags) -> Lags:
    """What was counted in between."""
    counts = dict(before)
    return tuple((bound, count - counts.get(bound, 0)) for bound, count in after)


def lag_percentile_ms(lags: Sequence[Lags], share: float) -> float:
    """The bound that `share` of all timers did not exceed, evenly spread within it; NaN of nothing."""
    sums: dict[float, int] = {}
    for each in lags:
        for bound, count in each:
            sums[bound] = sums.get(bound, 0) + count
    wanted, below, under = share * max(sums.values(), default=0), 0.0, 0
    for bound in sorted(sums) if wanted else ():
        if sums[bound] >= wanted:
            inner = (wanted - under) / (sums[bound] - under)
            return (below + (bound - below) * inner) * 1000 if math.isfinite(bound) else math.inf
        below, under = bound, sums[bound]
    return math.nan


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
        self,
        candidate: Candidate,
        port: int,
        relay: subprocess.Popen[bytes],
        agent: _FarEnd,
        carriers: _FarEnd,
    ) -> None:
        self.name = candidate.name
        self._port = port if candidate.has_admission else None
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
        gaps, lags = self._agent.ask("report")["gaps"], self._lags()
        figures = self._carriers.ask(
            "measure", seconds=seconds, relay=self.relay.pid, agent=self._agent.process.pid
        )
        figures["lost"] += self._agent.ask("report")["gaps"] - gaps
        measured = read_measurement(self.name, self.calls, figures)
        return replace(measured, lags=lags_between(lags, self._lags()))

    def interrupt(self, times: int) -> dict[str, Any]:
        """Let the agent be cut so often: `cuts`, the clears' `ways_us` and `late`, the loop's `lags`."""
        lags = self._lags()
        while self._agent.ask("report")["cuts"] < times:
            time.sleep(POLL_SECONDS)
        self._agent.ask("hush")
        self.settle(HUSH_SECONDS)
        cuts = self._agent.ask("report")["cuts"]
        return {"cuts": cuts, **self._carriers.ask("clears"), "lags": lags_between(lags, self._lags())}

    def churn(self, calls: int) -> int:
        """Have so many calls in all come and go; what the relay's process holds then. Raises Unmeasured."""
        came = self._carriers.ask("churn", calls=calls)
        if came["over"] < calls:
            raise Unmeasured(
                f"{self.name}: {came['over']} of {calls} came and went. {came['problem']}".strip()
            )
        self.settle(REST_SECONDS)
        return resident_bytes(self.relay.pid)

    def _lags(self) -> Lags:
        if self._port is None:
            return ()
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            return read_lags(answer.read())


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
        yield Rig(candidate, port, relay, agent, carriers)


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
