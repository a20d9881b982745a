"""The words that a person types.

Knows how to say things on a terminal; every command is a few lines over something that does the work.
"""

from __future__ import annotations

import gc
import math
import secrets
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import trio
from cyclopts import App, Parameter

from relay import full_version
from relay.cli.agents import agents
from relay.cli.books import accounts, appointments, callbacks
from relay.cli.calls import Purpose, call, calls
from relay.cli.dnc import dnc
from relay.cli.talks import talk
from relay.cli.terminal import DONE, FAILED, JSON, USAGE, CommandFailed, complain
from relay.settings import ConfigurationError, load_settings

if TYPE_CHECKING:
    from relay.terms import Terms

SWITCH_SECONDS = 0.0005  # a frame waits so long for a thread that saves a record; 5 ms if nothing is said

app = App(name="relay", help="Telephone calls by an AI agent.", version=f"relay {full_version()}")
app.command(call)
app.command(agents)
app.command(calls)
app.command(dnc)
app.command(talk)
app.command(appointments)
app.command(accounts)
app.command(callbacks)


@app.command
def serve() -> int:
    """Serve webhooks, streams and the operator's API until a signal has drained every call."""
    from relay import service
    from relay.telemetry.logs import open_logs

    settings = load_settings()
    settings.require_serving()
    status = DONE
    try:
        with open_logs(
            settings.log_format, settings.log_level, sys.stdout, secrets=settings.secrets()
        ) as lines_dropped:
            for warning in settings.warnings():
                structlog.get_logger(subsystem="service").warning("setting", warning=warning)
            sys.setswitchinterval(SWITCH_SECONDS)
            gc.freeze()  # else a full collection goes through all that was imported: 0.1 s without a frame
            trio.run(partial(service.serve, settings, log_lines_dropped=lines_dropped))
    except* ConfigurationError as problems:
        status = USAGE
        for problem in _leaves(problems):
            complain(f"configuration\n{problem}")
    return status


def _leaves(problem: BaseException) -> list[BaseException]:
    """What went wrong, without the nurseries that it came through."""
    if isinstance(problem, BaseExceptionGroup):
        return [leaf for each in problem.exceptions for leaf in _leaves(each)]
    return [problem]


@app.command
def demo(*, scenario: str = "appointment", json: JSON = False) -> int:
    """Play one whole call on this machine alone, with an emulated carrier and agent.

    Parameters
    ----------
    scenario
        The name of a shipped scenario, or a TOML file of your own.
    """
    from relay.demo import run_demo
    from relay.rehearsal import Unplayed
    from relay.simulator.scenario import ScenarioError, read_scenario, shipped_scenario

    try:
        chosen = read_scenario(Path(scenario)) if scenario.endswith(".toml") else shipped_scenario(scenario)
    except ScenarioError as problem:
        complain(str(problem))
        return USAGE
    try:
        return DONE if run_demo(chosen, Path("relay-data"), as_json=json) else FAILED
    except (Unplayed, OSError) as problem:
        complain(str(problem))
        return FAILED


@app.command
def check(
    *,
    number: str | None = None,
    agent: str | None = None,
    purpose: Purpose | None = None,
    state: str | None = None,
    zone: str | None = None,
    hold: float = 10.0,
    json: JSON = False,
) -> int:
    """Say whether everything is ready to dial, and how to mend what is not; or whether one number may be.

    Asks Twilio, AssemblyAI and, through PUBLIC_URL, a running `relay serve`. Nothing is dialled; one agent
    session of a second or two is opened, which AssemblyAI bills. With --number only the service is asked.

    Parameters
    ----------
    number
        Explain, rule by rule, whether this number (E.164) may be dialled now.
    agent
        With --number: which agent would speak.
    purpose
        With --number: the agent's own, or a stricter one.
    state
        With --number: where the callee is known to be (US-TX).
    zone
        With --number: the callee's time zone (America/Chicago).
    hold
        For so many seconds an idle WebSocket is held open through PUBLIC_URL, to find what would cut calls;
        as long as a call is the proof. 0 leaves it out.
    """
    given = {"agent": agent, "purpose": purpose, "state": state, "zone": zone}
    if number is not None:
        from relay.cli.explain import explain

        return explain(number, given, as_json=json)
    if useless := [f"--{name}" for name, value in given.items() if value]:
        complain(f"{' and '.join(useless)}: only with --number, whose verdict it may change")
        return USAGE
    from relay.check import run_check

    return DONE if run_check(hold_seconds=hold, as_json=json) else FAILED


@app.command
def bench(
    *,
    calls: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (10, 50, 100, 200, 300, 400),
    seconds: float = 5.0,
    speech: bool = False,
    tls: bool = False,
    json: JSON = False,
) -> int:
    """Measure how many calls one core of this machine carries, and what each costs. Linux only.

    Parameters
    ----------
    calls
        At how many calls to measure; stops early where the core is full.
    seconds
        How long to measure at each.
    speech
        An agent that talks half of the time, instead of one that echoes every frame.
    tls
        Reach the agent over TLS.
    """
    from relay.bench.capacity import run_bench
    from relay.bench.rig import Unmeasured

    try:
        sound = run_bench(
            steps=sorted(calls), seconds=seconds, mode="speech" if speech else "echo", tls=tls, as_json=json
        )
    except Unmeasured as problem:
        complain(str(problem))
        return FAILED
    return DONE if sound else FAILED


@app.command
def chaos(
    *,
    calls: int | None = None,
    seed: int | None = None,
    schedule: Path | None = None,
    soak: float | None = None,
    sockets: bool = False,
    json: JSON = False,
) -> int:
    """Live through calls in virtual time while everything around them fails: does each end as it must?

    One node and its far ends run in memory; all that goes wrong follows from the seed. Stops at the first
    broken promise, and prints the seed and the smallest schedule of faults that still breaks it.

    With --sockets the service is a process of its own, and what fails is real: connections through a proxy,
    the process stopped and killed, its disk full, its network gone. Two minutes, on this machine alone, which
    must be a Linux.

    Parameters
    ----------
    calls
        How many calls, on all cores, four for each seed: 200. With --sockets: 27, and some more.
    seed
        The first seed; drawn where none is given, and printed.
    schedule
        Run this one schedule again, as it was printed.
    soak
        For so many minutes, in one process, and show what it holds on to.
    sockets
        Real processes and sockets, and the real clock.
    """
    from relay.chaos.show import run_chaos, run_long, run_schedule

    first = secrets.randbelow(1_000_000) if seed is None else seed
    if sockets:
        return DONE if _besiege(first, calls, as_json=json) else FAILED
    if schedule is None:
        held = (
            run_chaos(first, calls or 200, as_json=json)
            if soak is None
            else run_long(first, soak, as_json=json)
        )
        return DONE if held else FAILED
    try:
        return DONE if run_schedule(schedule.read_bytes(), as_json=json) else FAILED
    except (OSError, ValueError) as problem:
        complain(f"{schedule}: {problem}")
        return USAGE


def _besiege(seed: int, calls: int | None, *, as_json: bool) -> bool:
    from relay.chaos.loopback.run import CALLS
    from relay.chaos.loopback.show import run_sockets

    if sys.platform != "linux":
        raise CommandFailed("--sockets needs Linux: only there a process's sockets can be seen from outside")
    folder = Path(tempfile.mkdtemp(prefix="relay-chaos-"))  # kept: the logs say why
    return run_sockets(seed, CALLS if calls is None else calls, folder, as_json=as_json)


@app.command
def replay(file: Path, *, agent: str | None = None, json: JSON = False) -> int:
    """Tell the dialogue a recorded call once more, and show what it decides; fails where that has changed.

    Parameters
    ----------
    file
        A capture: of RELAY_CAPTURE_DIR, or of the folder `capture` of a demo. Words and keys are not in it.
    agent
        Whose call it was, where that agent has limits, sounds or an opt-out key of its own.
    """
    from relay.cli.replays import show_replay
    from relay.replay import ReplayError, read_capture
    from relay.replay import replay as play

    try:
        played = play(read_capture(file.read_bytes()), None if agent is None else _terms_of(agent))
    except (OSError, ReplayError) as problem:
        complain(f"{file}: {problem}")
        return USAGE
    show_replay(played, as_json=json)
    return DONE if played.difference is None else FAILED


def _terms_of(name: str) -> Terms:
    """What a call of this agent is told, without its session and without an end."""
    from relay.placing import no_such_agent
    from relay.roster import Roster
    from relay.terms import BargeIn

    settings = load_settings()
    agent = Roster(settings).get(name)
    if agent is None:
        raise CommandFailed(no_such_agent(name).message)
    return replace(agent.terms({}, math.inf), barge_in=BargeIn(settings.barge_in))


def run(words: Sequence[str] | None = None) -> int:
    """Run one command, of these words or of those typed.

    0 done, 1 failed or refused, 2 usage or configuration.
    """
    try:
        status = app(words, result_action="return_value")
    except CommandFailed as problem:
        complain(str(problem))
        return FAILED
    except ConfigurationError as problem:
        complain(f"configuration\n{problem}")
        return USAGE
    return status if isinstance(status, int) else DONE


def main() -> None:
    """Run the command that was typed."""
    sys.exit(run())
