"""`relay agents`: the agents that calls may name.

Knows the folder of agents of this machine, and no service.
"""

from __future__ import annotations

from cyclopts import App
from rich.console import Console
from rich.table import Table

from relay.cli.terminal import DONE, FAILED, JSON, complain, print_json
from relay.settings import load_settings

agents = App(name="agents", help="Agent profiles.")


@agents.command(name="list")
def list_agents(*, json: JSON = False) -> int:
    """The agents that calls may name."""
    from relay.service import load_profiles

    profiles = load_profiles(load_settings().agents_dir)
    if json:
        print_json(
            [{"name": each.name, "purpose": each.purpose, "tools": each.tools} for each in profiles.values()]
        )
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
        complain(f"there is no agent called {name}; 'relay agents list' shows them")
        return FAILED
    tools = builtin_tools(Appointments())
    toolbox = Toolbox(tools[tool] for tool in profile.tools if tool in tools)
    variables = dict(pair.split("=", 1) for pair in var if "=" in pair)
    session = compose(profile, overrides(settings), variables, toolbox.definitions)
    if isinstance(session, Refusal):
        complain(session.message)
        return FAILED
    print_json({"type": "session.update", "session": session})
    return DONE


@agents.command(name="validate")
def validate_agents() -> int:
    """Read every agent file and say what is wrong with it."""
    from relay.service import load_profiles

    profiles = load_profiles(load_settings().agents_dir)
    print(f"{len(profiles)} agents are fine: {', '.join(profiles)}")
    return DONE
