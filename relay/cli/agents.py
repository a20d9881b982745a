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
    from relay.roster import load_roster

    roster = load_roster(load_settings())
    tools = {name: [tool.name for tool in found] for name, found in roster.tools.items()}
    if json:
        print_json(
            [
                {"name": each.name, "purpose": each.purpose, "tools": tools[each.name]}
                for each in roster.profiles.values()
            ]
        )
        return DONE
    table = Table("agent", "purpose", "tools", "variables")
    for each in roster.profiles.values():
        table.add_row(each.name, each.purpose, ", ".join(tools[each.name]), ", ".join(each.variables))
    Console().print(table)
    return DONE


@agents.command(name="show")
def show_agent(name: str, *, var: tuple[str, ...] = ()) -> int:
    """Print the exact session.update of an agent as JSON."""
    from relay.outcomes import Refusal
    from relay.roster import load_roster, overrides
    from relay.script import compose
    from relay.tools import definitions

    settings = load_settings()
    roster = load_roster(settings)
    if name not in roster.profiles:
        complain(f"there is no agent called {name}; 'relay agents list' shows them")
        return FAILED
    variables = dict(pair.split("=", 1) for pair in var if "=" in pair)
    session = compose(roster.profiles[name], overrides(settings), variables, definitions(roster.tools[name]))
    if isinstance(session, Refusal):
        complain(session.message)
        return FAILED
    print_json({"type": "session.update", "session": session})
    return DONE


@agents.command(name="validate")
def validate_agents() -> int:
    """Read every agent file, with its tools, and say what is wrong with it."""
    from relay.roster import load_roster

    profiles = load_roster(load_settings()).profiles
    print(f"{len(profiles)} agents are fine: {', '.join(profiles)}")
    return DONE
