"""What can be said of this machine and its settings without asking anybody.

Knows no vendor and no network.
"""

from __future__ import annotations

import resource
from typing import Any

from relay.check.findings import FAIL, OK, WARN, Answer, Finding
from relay.opening import OPENING_SECONDS
from relay.outcomes import Refusal
from relay.roster import Roster, overrides
from relay.script import compose
from relay.settings import ConfigurationError, Settings
from relay.tools import definitions
from relay.web.edge import Limits

DESCRIPTORS_PER_CALL = 2  # one for each leg
OTHER_DESCRIPTORS = 64  # the store, the log, listeners, requests to Twilio
CHARACTERS_PER_SECOND = 16  # of speech: how long an opening takes

SESSION = "Mend the agent's file, GREETING or SYSTEM_PROMPT; `relay agents show` prints the session."


def look_around(settings: Settings) -> list[Finding]:
    """What can be said without asking anybody."""
    remedy = "Change it, or leave it so if it is meant."
    doubts = [Finding("settings", WARN, doubt, remedy) for doubt in settings.warnings()]
    return [
        *(doubts or [Finding("settings", OK, "complete")]),
        *_look_at_agents(settings),
        Finding("descriptors", *_look_at_descriptors(settings)),
    ]


def _look_at_agents(settings: Settings) -> list[Finding]:
    try:
        roster = Roster(settings)
    except ConfigurationError as problem:
        return [Finding("agents", FAIL, str(problem), "Mend the file: `relay serve` does not start.")]
    return [Finding(f"agent {name}", *_look_at_agent(name, roster, settings)) for name in roster.agents]


def _look_at_agent(name: str, roster: Roster, settings: Settings) -> Answer:
    session = compose_without_variables(name, roster, settings)
    if isinstance(session, Refusal):
        if session.code == "variable-missing":
            return OK, session.message, ""
        return FAIL, session.message, SESSION
    greeting = session.get("greeting", "")
    seconds = len(greeting) / CHARACTERS_PER_SECOND
    tools = len(roster.agents[name].tools)
    found = f"opening of {len(greeting)} characters, about {seconds:.0f} s; {tools} tools"
    if seconds > OPENING_SECONDS:
        return WARN, found, f"Shorten it: after {OPENING_SECONDS:g} s the person can talk into it."
    return OK, found if greeting else "stored at AssemblyAI; the carrier speaks the disclosure", ""


def compose_without_variables(name: str, roster: Roster, settings: Settings) -> dict[str, Any] | Refusal:
    """The session of a call that brings no variables."""
    agent = roster.agents[name]
    return compose(agent.profile, overrides(settings), {}, definitions(agent.tools))


def _look_at_descriptors(settings: Settings) -> Answer:
    needed = DESCRIPTORS_PER_CALL * settings.max_calls + OTHER_DESCRIPTORS + Limits().connections
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return OK, f"{needed} for {settings.max_calls} calls are allowed here", ""
    remedy = f"Serve behind `ulimit -n {needed}` (systemd: LimitNOFILE={needed}), or lower RELAY_MAX_CALLS."
    return FAIL, f"{allowed} allowed here, {needed} needed for {settings.max_calls} calls", remedy
