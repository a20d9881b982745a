"""The agents of this node: their profiles, from the package and from the operator's folder, and their tools.

Read once at start and by the commands that look at agents; opens no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from relay.profiles import Profile, ProfileError, TurnDetection, read_profile
from relay.script import Overrides
from relay.settings import ConfigurationError, Settings
from relay.tools import Tool
from relay.tools.builtin import builtin_tools
from relay.tools.catalogue import tools_of
from relay.tools.web import WebTools


@dataclass(frozen=True, slots=True)
class Roster:
    """Every agent that a call may name. Close `web` when no call is left."""

    profiles: Mapping[str, Profile]
    tools: Mapping[str, tuple[Tool, ...]]  # by the agent's name
    web: WebTools


def load_roster(settings: Settings) -> Roster:
    """All agents with their tools. Raises ConfigurationError, which names file, key and remedy."""
    profiles = load_profiles(settings.agents_dir)
    secrets = {name: secret.get_secret_value() for name, secret in settings.tool_secrets.items()}
    web = WebTools(
        hosts=settings.tool_hosts,
        networks=settings.tool_networks,
        secrets=secrets,
        is_traced=settings.traces_url is not None,
    )
    builtin = builtin_tools()
    try:
        tools = {
            name: tools_of(profile, builtin, web, settings.agents_dir) for name, profile in profiles.items()
        }
    except ProfileError as problem:
        raise ConfigurationError([str(problem)]) from None
    return Roster(profiles, tools, web)


def load_profiles(agents_dir: Path) -> dict[str, Profile]:
    """The agents that ship with the package, and those of the folder over them. Raises ConfigurationError."""
    shipped = [
        entry
        for entry in resources.files("relay").joinpath("agents").iterdir()
        if entry.name.endswith(".toml")
    ]
    own = sorted(agents_dir.glob("*.toml")) if agents_dir.is_dir() else []
    profiles: dict[str, Profile] = {}
    for file in [*shipped, *own]:
        name = file.name.removesuffix(".toml")
        try:
            profiles[name] = read_profile(name, file.read_text("utf-8"), where=str(file))
        except (ProfileError, OSError, UnicodeDecodeError) as problem:
            raise ConfigurationError([str(problem)]) from None
    return profiles


def overrides(settings: Settings) -> Overrides:
    """What the settings change in every agent."""
    return Overrides(
        greeting=settings.greeting,
        system_prompt=settings.system_prompt,
        voice=settings.agent_voice,
        voice_focus=settings.agent_voice_focus,
        keyterms=settings.agent_keyterms,
        turn_detection=TurnDetection(
            vad_threshold=settings.vad_threshold,
            min_silence=settings.min_silence_ms,
            max_silence=settings.max_silence_ms,
            interrupt_response=settings.interrupt_response,
            interruption_delay=settings.interruption_delay_ms,
        ),
    )
