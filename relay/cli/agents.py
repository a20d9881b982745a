"""`relay agents`: the agents that calls may name.

Knows the folder of agents of this machine, and no service.
"""

from __future__ import annotations

from cyclopts import App

from relay.cli.terminal import DONE, FAILED, JSON, USAGE, complain, print_json, print_table
from relay.settings import ConfigurationError, load_settings

agents = App(name="agents", help="Agent profiles.")

_CONTENT_DIGITS = 12  # of the digest of an agent's files, as `git log` shows commits


@agents.command(name="list")
def list_agents(*, json: JSON = False) -> int:
    """The agents that calls may name, with the digest of their files: a call's record has it in `script`."""
    from relay.roster import Roster

    found = Roster(load_settings()).agents
    if json:
        print_json(
            [
                {
                    "name": name,
                    "purpose": agent.profile.purpose,
                    "tools": [tool.name for tool in agent.tools],
                    "files": agent.content,
                }
                for name, agent in found.items()
            ]
        )
        return DONE
    rows = (
        (
            *(name, agent.profile.purpose, ", ".join(tool.name for tool in agent.tools)),
            *(", ".join(agent.profile.variables), agent.content[:_CONTENT_DIGITS]),
        )
        for name, agent in found.items()
    )
    print_table(("agent", "purpose", "tools", "variables", "files"), rows)
    return DONE


@agents.command(name="show")
def show_agent(name: str, *, var: tuple[str, ...] = ()) -> int:
    """Print the exact session.update of an agent as JSON.

    Parameters
    ----------
    var
        A value of the templates as KEY=VALUE; more than once for more of them.
    """
    from relay.outcomes import Refusal
    from relay.placing import no_such_agent
    from relay.roster import Roster, overrides
    from relay.script import compose
    from relay.tools import definitions

    if wrong := [pair for pair in var if "=" not in pair]:
        complain(f"--var {wrong[0]}: must be KEY=VALUE")
        return USAGE
    settings = load_settings()
    agent = Roster(settings).get(name)
    if agent is None:
        complain(no_such_agent(name).message)
        return FAILED
    variables = dict(pair.split("=", 1) for pair in var)
    session = compose(agent.profile, overrides(settings), variables, definitions(agent.tools))
    if isinstance(session, Refusal):
        complain(session.message)
        return FAILED
    print_json({"type": "session.update", "session": session})
    return DONE


@agents.command(name="validate")
def validate_agents(*, json: JSON = False) -> int:
    """Read every agent file, with its tools and sounds, and say what is wrong with it."""
    from relay.roster import Roster

    try:
        found = Roster(load_settings()).agents
    except ConfigurationError as refused:
        if not json:
            raise
        print_json({"agents": [], "problems": refused.problems})
        return USAGE
    if json:
        print_json({"agents": list(found), "problems": []})
    else:
        print(f"{len(found)} agents are fine: {', '.join(found)}")
    return DONE
