"""The agents of this node: their files in the package and in the operator's folder, and what is made of them.

Read at start, by the commands that look at agents, and again where a file has changed; opens no connection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import structlog
import trio

from relay.clips import Clips, of_files
from relay.compliance import Purpose, RulebookError, load_rulebook
from relay.compliance.destination import judge_destination
from relay.placing import Agent
from relay.profiles import Profile, ProfileError, TurnDetection, read_profile
from relay.script import Overrides
from relay.settings import ConfigurationError, Settings
from relay.tools.builtin import builtin_tools
from relay.tools.catalogue import tools_of
from relay.tools.web import WebTools

REFRESH_SECONDS = 1.0  # for a look at the files: past that a call is placed with what is known

_Marks = dict[Path, tuple[int, int] | None]  # of each file when it was changed and its size; None: not there

log = structlog.get_logger(subsystem="service")


class Roster:
    """Every agent that a call may name. Close `web` when no call is left."""

    def __init__(self, settings: Settings) -> None:
        secrets = {name: secret.get_secret_value() for name, secret in settings.tool_secrets.items()}
        self.web = WebTools(
            hosts=settings.tool_hosts,
            networks=settings.tool_networks,
            secrets=secrets,
            is_traced=settings.traces_url is not None,
        )
        self._rules_dir = settings.rules_dir
        self._folder = settings.agents_dir
        self._marks: _Marks = {}
        self._threads = trio.CapacityLimiter(1)  # a disk that hangs keeps one thread, not one for each call
        self.agents: Mapping[str, Agent]
        self.agents, problems = self._read({})
        if problems:
            raise ConfigurationError(problems)
        self._marks = self._look(self.agents)

    def get(self, name: str) -> Agent | None:
        """The agent of this name, as it stood when the files were looked at last."""
        return self.agents.get(name)

    async def refresh(self) -> None:
        """Take what has changed. A file that cannot be used is not taken, and the log says why."""
        with trio.move_on_after(REFRESH_SECONDS) as patience:
            found = await trio.to_thread.run_sync(
                self._changed, self.agents, abandon_on_cancel=True, limiter=self._threads
            )
            if found is not None:
                self.agents, self._marks, problems = found
                for problem in problems:
                    log.error("agent not taken", problem=problem)
        if patience.cancelled_caught:
            log.warning("agents not looked at", seconds=REFRESH_SECONDS)

    # ---- on the disk -----------------------------------------------------------------------------

    def _changed(self, known: Mapping[str, Agent]) -> tuple[Mapping[str, Agent], _Marks, list[str]] | None:
        """Everything anew, where a file is not what it was; None where all are."""
        marks = self._look(known)
        if marks == self._marks:
            return None
        agents, problems = self._read(known)
        return agents, self._look(agents) | marks, problems

    def _look(self, agents: Mapping[str, Agent]) -> _Marks:
        files = [*self._own(), *(file for agent in agents.values() for file in self._parts(agent.profile))]
        return {file: _mark(file) for file in files}

    def _read(self, known: Mapping[str, Agent]) -> tuple[dict[str, Agent], list[str]]:
        """All agents, and the problems of those that cannot be used: they stay what they were."""
        agents: dict[str, Agent] = {}
        problems: list[str] = []
        for file in [*_shipped(), *self._own()]:
            name = file.name.removesuffix(".toml")
            before = known.get(name)
            try:
                agents[name] = self._agent(name, file, before)
            except (ProfileError, OSError, UnicodeDecodeError) as problem:
                problems.append(f"{file}: {problem}" if isinstance(problem, UnicodeError) else str(problem))
                if before is not None:
                    agents[name] = before
        return agents, problems

    def _agent(self, name: str, file: Path | Traversable, before: Agent | None) -> Agent:
        content = hashlib.sha256(text := file.read_bytes())
        profile = read_profile(name, text.decode("utf-8"), where=str(file))
        for part in self._parts(profile):
            content.update(part.read_bytes() if part.is_file() else b"")
        if before is not None and before.content == content.hexdigest():
            return before
        tools = tools_of(profile, builtin_tools(profile.transfers), self.web, self._folder)
        if isinstance(file, Path) and file.parent == self._folder:  # those that ship are examples
            self._check_transfers(profile)
        return Agent(profile, tools, self._clips(profile), content.hexdigest())

    def _check_transfers(self, profile: Profile) -> None:
        """A number that nobody may be put through to is a mistake of the file's."""
        if not profile.transfers:
            return
        try:
            rulebook = load_rulebook(self._rules_dir)
        except RulebookError as problem:
            raise ProfileError(f"{profile.name}.toml: transfers: {problem}") from None
        for name, number in profile.transfers.items():
            refusal = judge_destination(number, Purpose(profile.purpose), rulebook, datetime.now(UTC))
            if refusal is not None:
                raise ProfileError(f"{profile.name}.toml: transfers.{name}: {refusal.message}")

    def _clips(self, profile: Profile) -> Clips:
        try:
            return of_files(
                {str(name): (self._folder / file).read_bytes() for name, file in profile.clips.items()}
            )
        except (OSError, ValueError) as problem:
            raise ProfileError(f"{profile.name}.toml: clips: {problem}") from None

    def _own(self) -> list[Path]:
        return sorted(self._folder.glob("*.toml")) if self._folder.is_dir() else []

    def _parts(self, profile: Profile) -> list[Path]:
        """The files that belong to an agent beside the one of its name."""
        names = [*([profile.tools_file] if profile.tools_file else []), *profile.clips.values()]
        return [self._folder / name for name in names]


def _shipped() -> Iterator[Traversable]:
    folder = resources.files("relay").joinpath("agents")
    return (entry for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _mark(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


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
