"""The tools of each agent: the relay's own, those of its Python file, and those over HTTP.

Read once, before anything is served: a profile that names what is not there refuses to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relay.profiles import Profile, ProfileError
from relay.tools import Tool
from relay.tools.functions import ToolError, read_tools
from relay.tools.web import WebTools


def tools_of(profile: Profile, builtin: Mapping[str, Tool], web: WebTools, folder: Path) -> tuple[Tool, ...]:
    """The tools of one agent, in the order in which it names them; `folder` is where its files are.

    Raises ProfileError, which names the agent, the key and the remedy.
    """
    where = f"{profile.name}.toml"
    at_hand = dict(builtin)
    if profile.tools_file is not None:
        try:
            at_hand |= read_tools(folder / profile.tools_file)
        except ToolError as problem:
            raise ProfileError(f"{where}: tools_file: {problem}") from None
    if "transfer_call" in profile.tools and not profile.transfers:
        raise ProfileError(
            f"{where}: tools: transfer_call needs somebody: give [transfers] names and numbers"
        )
    if unknown := [name for name in profile.tools if name not in at_hand]:
        known = ", ".join(sorted(at_hand))
        raise ProfileError(f"{where}: tools: there is no {', '.join(unknown)}; there are {known}")
    declared = [web.make(spec, where=where) for spec in profile.http_tools]
    tools = (*(at_hand[name] for name in profile.tools), *declared)
    names = [tool.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ProfileError(f"{where}: named twice: {', '.join(twice)}")
    return tools
