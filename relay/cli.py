"""The words that a person types.

Knows how to say things on a terminal; every command is a few lines over something that does the work.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import orjson
import structlog
import trio
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from relay import __version__
from relay.settings import ConfigurationError, Settings, load_settings

DONE, FAILED, USAGE = 0, 1, 2
REQUEST_SECONDS = 30.0  # of a client command; placing a call waits 10 s for the carrier at most

app = App(name="relay", help="Telephone calls by an AI agent.", version=f"relay {__version__}")
agents = App(name="agents", help="Agent profiles.")
calls = App(name="calls", help="Calls of a running service.")
app.command(agents)
app.command(calls)

JSON = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for scripts.")]


@app.command
def serve() -> int:
    """Serve webhooks, streams and the operator's API until a signal has drained every call."""
    from relay import service
    from relay.telemetry.logs import open_logs

    settings = load_settings()
    settings.require_serving()
    status = DONE
    try:
        with open_logs(settings.log_format, settings.log_level, sys.stdout, secrets=settings.secrets()):
            for warning in settings.warnings():
                structlog.get_logger().warning("setting", warning=warning)
            trio.run(service.serve, settings)
    except* ConfigurationError as problems:
        status = USAGE
        for problem in problems.exceptions:
            _complain(f"configuration\n{problem}")
    return status


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
        _complain(str(problem))
        return USAGE
    try:
        return DONE if run_demo(chosen, Path("relay-data"), as_json=json) else FAILED
    except (Unplayed, OSError) as problem:
        _complain(str(problem))
        return FAILED


@app.command
def check(*, json: JSON = False) -> int:
    """Say whether everything is ready to dial, and how to mend what is not.

    Asks Twilio, AssemblyAI and, through PUBLIC_URL, a running `relay serve`. Nothing is dialled; one agent session
    of a second or two is opened, which AssemblyAI bills.
    """
    from relay.check import run_check

    return DONE if run_check(as_json=json) else FAILED


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
        _complain(str(problem))
        return FAILED
    return DONE if sound else FAILED


@app.command
def call(
    to: str,
    *,
    agent: str = "default",
    var: Annotated[tuple[str, ...], Parameter(help="K=V for the agent's templates; may repeat.")] = (),
    record: bool = False,
    machine_detection: Literal["off", "enable", "detect-message-end"] = "off",
    time_limit: int | None = None,
    purpose: Literal["informational", "collections", "telemarketing"] | None = None,
    json: JSON = False,
) -> int:
    """Place a call through the service at RELAY_URL.

    Parameters
    ----------
    to
        The number to call, in E.164.
    agent
        Which agent speaks.
    record
        Have the carrier record the call.
    machine_detection
        Have the carrier tell people from machines.
    time_limit
        Seconds until the call ends, at most RELAY_MAX_CALL_SECONDS.
    purpose
        The agent's own, or a stricter one.
    """
    variables = dict(pair.split("=", 1) for pair in var if "=" in pair)
    if len(variables) != len(var):
        _complain("--var takes NAME=VALUE")
        return USAGE
    body: dict[str, Any] = {
        "to": to,
        "agent": agent,
        "variables": variables,
        "record": record,
        "machine_detection": machine_detection,
    }
    body |= {"time_limit": time_limit} if time_limit is not None else {}
    body |= {"purpose": purpose} if purpose is not None else {}
    placed = _ask("POST", "/v1/calls", body)
    if placed is None:
        return FAILED
    if json:
        _print_json(placed)
    else:
        print(f"{placed['id']}  {placed['status']}  {placed['sid'] or '-'}")
    return DONE


@calls.command(name="list")
def list_calls(*, limit: int = 20, json: JSON = False) -> int:
    """The newest calls."""
    found = _ask("GET", f"/v1/calls?limit={limit}")
    if found is None:
        return FAILED
    if json:
        _print_json(found)
        return DONE
    table = Table("id", "to", "agent", "status", "ending", "seconds")
    for each in found["calls"]:
        ending = f"{each['ending']['blame']} {each['ending']['reason']}" if each["ending"] else ""
        table.add_row(each["id"], each["to"], each["agent"], each["status"], ending, f"{each['duration_seconds']:.1f}")
    Console().print(table)
    return DONE


@calls.command(name="show")
def show_call(call_id: str, *, json: JSON = False) -> int:
    """One call with its transcript and timeline."""
    found = _ask("GET", f"/v1/calls/{call_id}")
    if found is None:
        return FAILED
    if json:
        _print_json(found)
        return DONE
    ending = found["ending"]
    print(f"{found['id']}  {found['status']}  {found['to']}  {found['duration_seconds']:.1f} s")
    if ending:
        print(f"ended by {ending['blame']}: {ending['reason']}  {found['ending_detail'] or ''}".rstrip())
    for line in found["transcript"]:
        print(f"  {line['role']:>7}: {line['text']}{' —' if line['interrupted'] else ''}")
    for notice in found["notices"]:
        print(f"  carrier {notice['code']}: {notice['message']}")
    return DONE


@agents.command(name="list")
def list_agents(*, json: JSON = False) -> int:
    """The agents that calls may name."""
    from relay.service import load_profiles

    profiles = load_profiles(load_settings().agents_dir)
    if json:
        _print_json([{"name": each.name, "purpose": each.purpose, "tools": each.tools} for each in profiles.values()])
        return DONE
    table = Table("agent", "purpose", "tools", "variables")
    for each in profiles.values():
        table.add_row(each.name, each.purpose, ", ".join(each.tools), ", ".join(each.variables))
    Console().print(table)
    return DONE


@agents.command(name="show")
def show_agent(name: str, *, var: tuple[str, ...] = ()) -> int:
    """Print the exact session.update of an agent as JSON."""
    from relay.outcomes import Refusal
    from relay.profiles import compose
    from relay.service import load_profiles, overrides
    from relay.tools import Toolbox
    from relay.tools.builtin import Appointments, builtin_tools

    settings = load_settings()
    profile = load_profiles(settings.agents_dir).get(name)
    if profile is None:
        _complain(f"there is no agent called {name}; 'relay agents list' shows them")
        return FAILED
    tools = builtin_tools(Appointments())
    toolbox = Toolbox(tools[tool] for tool in profile.tools if tool in tools)
    variables = dict(pair.split("=", 1) for pair in var if "=" in pair)
    session = compose(profile, overrides(settings), variables, toolbox.definitions)
    if isinstance(session, Refusal):
        _complain(session.message)
        return FAILED
    _print_json({"type": "session.update", "session": session})
    return DONE


@agents.command(name="validate")
def validate_agents() -> int:
    """Read every agent file and say what is wrong with it."""
    from relay.service import load_profiles

    profiles = load_profiles(load_settings().agents_dir)
    print(f"{len(profiles)} agents are fine: {', '.join(profiles)}")
    return DONE


def _ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the service; None after a complaint on stderr."""
    settings = load_settings()
    base = _service_url(settings)
    token = settings.api_token.get_secret_value() if settings.api_token else ""
    headers = {"Authorization": f"Bearer {token}"}
    try:
        answer = httpx.request(method, base + path, json=body, headers=headers, timeout=REQUEST_SECONDS)
    except httpx.HTTPError as problem:
        _complain(f"no answer from {base} ({problem}): is 'relay serve' running there? RELAY_URL names another place")
        return None
    try:
        content = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        _complain(f"{base} answered HTTP {answer.status_code} and no JSON: RELAY_URL leads to something else")
        return None
    if answer.is_success:
        return content
    problem_text = content.get("error", {}) if isinstance(content, dict) else {}
    _complain(f"{problem_text.get('code', answer.status_code)}: {problem_text.get('message', 'no reason given')}")
    return None


def _service_url(settings: Settings) -> str:
    return settings.client_url


def _print_json(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(f"relay: {text}\n")


def main() -> None:
    """Run one command; the exit status is 0 done, 1 failed or refused, 2 usage or configuration."""
    try:
        status = app(result_action="return_value")
    except ConfigurationError as problem:
        _complain(f"configuration\n{problem}")
        status = USAGE
    sys.exit(status if isinstance(status, int) else DONE)
