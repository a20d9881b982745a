"""`relay talk`: type as the callee, read the agent.

Knows the keyboard, the terminal and the agents of this machine; the talk is held elsewhere.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

import trio
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from relay.cli.terminal import DONE, FAILED, USAGE, complain
from relay.settings import Settings, load_settings

_STYLES = {"agent": "cyan", "tool": "yellow", "carrier": "magenta"}


def talk(
    agent: str = "default",
    *,
    var: Annotated[tuple[str, ...], Parameter(help="K=V for the agent's templates; may repeat.")] = (),
    time_limit: int | None = None,
    emulated: bool = False,
) -> int:
    """Talk to an agent in this terminal: what you type is said to it, what it says is shown.

    With ASSEMBLYAI_API_KEY it is the real agent, which AssemblyAI bills, and your lines are spoken to it by
    espeak-ng (the extra relay[speech]). Without a key it is the emulated one, which follows a script.
    `/press 9` presses a key; the end of the input (Ctrl-D) hangs up. Lines from a pipe wait for their turn.

    Parameters
    ----------
    agent
        Which agent to talk to.
    time_limit
        Seconds until the talk ends, at most RELAY_MAX_CALL_SECONDS.
    emulated
        The emulated agent, although there is a key.
    """
    from relay.telemetry.logs import open_logs

    variables = dict(pair.split("=", 1) for pair in var if "=" in pair)
    if len(variables) != len(var):
        complain("--var takes NAME=VALUE")
        return USAGE
    settings = load_settings()
    if settings.assemblyai_api_key is not None and not emulated and not _has_speech():
        complain(
            "what you type has to be spoken to the real agent: install relay[speech] (make .venv/.speech),"
            " or talk to the emulated one with --emulated"
        )
        return FAILED
    limit_seconds = min(time_limit or settings.max_call_seconds, settings.max_call_seconds)
    with open_logs("console", "error", sys.stderr, secrets=settings.secrets()):
        return trio.run(_talk, settings, agent, variables, limit_seconds, emulated)


def _has_speech() -> bool:
    return importlib.util.find_spec("espeakng_loader") is not None


async def _talk(
    settings: Settings, agent: str, variables: Mapping[str, str], limit_seconds: int, emulated: bool
) -> int:
    from relay import talk as talks
    from relay.outcomes import Blame, Refusal
    from relay.placing import no_such_agent
    from relay.roster import Roster, overrides
    from relay.script import compose
    from relay.service import agent_opener
    from relay.tools import definitions

    roster = Roster(settings)
    chosen = roster.get(agent)
    if chosen is None:
        complain(no_such_agent(agent).message)
        return FAILED
    is_real = settings.assemblyai_api_key is not None and not emulated
    name, script = talks.script_of(agent)
    if not is_real:
        variables = {**script.call.variables, **variables}
    session = compose(chosen.profile, overrides(settings), variables, definitions(chosen.tools))
    if isinstance(session, Refusal):
        complain(session.message)
        return FAILED
    console, is_typed = Console(highlight=False, soft_wrap=True), sys.stdin.isatty()
    show = partial(_show, console)
    held = partial(
        talks.talk,
        talks.Stage(chosen, session, variables),
        show=show,
        time_limit_seconds=limit_seconds,
        is_typed=is_typed,
        synthesise=is_real,
    )
    leaving = trio.Event()
    async with _read_lines(leaving) as lines:
        if settings.assemblyai_api_key is not None and is_real:
            show("", f"{agent} at {settings.assemblyai_ws_url}; AssemblyAI bills the talk")
            key = settings.assemblyai_api_key.get_secret_value()
            ending = await held(agent_opener(settings, key), lines, leaving)
        else:
            what = f"follows the scenario {name}" if name else "has no script for it"
            show("", f"{agent}, emulated: it {what}. ASSEMBLYAI_API_KEY is for the real one")
            name_there = chosen.profile.agent_id
            stored = {} if name_there is None else {name_there: talks.STORED}
            async with talks.emulate(script, stored) as (emulator, url):
                there = settings.model_copy(update={"assemblyai_ws_url": url})
                opener = agent_opener(there, talks.EMULATED_KEY)
                ending = await held(opener, lines, leaving, learn=emulator.learn)
    await roster.web.aclose()
    show("", f"{ending.reason} (blame: {ending.blame}) {ending.detail}".rstrip())
    return DONE if ending.blame in (Blame.NOBODY, Blame.CALLEE, Blame.US) else FAILED


def _show(console: Console, who: str, text: str) -> None:
    style = _STYLES.get(who, "dim")
    console.print(f"[{style}]{who:>8}[/{style}]  {'' if who else '[dim]'}{escape(text)}")


@asynccontextmanager
async def _read_lines(leaving: trio.Event) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
    """The lines of stdin; Ctrl-C sets `leaving`. The thread that waits for a line is left behind."""
    from relay.talk import LINES

    sender, lines = trio.open_memory_channel[str](LINES)

    async def read() -> None:
        async with sender:
            while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
                await sender.send(line)

    async def watch(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                leaving.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        nursery.start_soon(read)
        yield lines
        nursery.cancel_scope.cancel()
