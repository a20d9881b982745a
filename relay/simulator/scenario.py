"""A simulated call as data: what the carrier, the callee and the agent will do, read from TOML.

It must not know how any of it is carried out, nor time, sockets or sound.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

_SHIPPED = resources.files(__package__).joinpath("scenarios")

Seconds = Annotated[float, Field(ge=0, le=600)]

_SOCKET_FAULTS = frozenset({"rst", "fin", "garbage", "binary", "oversize", "stop-reading", "mute"})
_PHONE_FAULTS = frozenset({"stop-media", "duplicate-start"})
_OPENING_FAULTS = frozenset({"wrong-format", "never-ready", "ready-without-config"})
_AGENT_FAULTS = frozenset({"late-audio", "silent-reply", "missing-status", "flood"}) | _OPENING_FAULTS
_KNOWN_FAULTS = _SOCKET_FAULTS | _PHONE_FAULTS | _AGENT_FAULTS
_FAULT_WITH_CODE = re.compile(r"(close|refuse):\d{3,4}|error:[a-z_]+")
_MOMENT = re.compile(r"before-ready|opening|mid-speech|tool-running|farewell|seconds:\d+(\.\d+)?")
_SLOT = r"^(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day ([01][0-9]|2[0-3]):[0-5][0-9]$"
_CREATE = re.compile(r"placed|ambiguous|lost|refused:\d+|throttled:\d+")


class ScenarioError(Exception):
    """The scenario cannot be used; the text names the file and every key at fault."""


def _check_fault(kind: str) -> str:
    if kind not in _KNOWN_FAULTS and not _FAULT_WITH_CODE.fullmatch(kind):
        known = ", ".join(sorted(_KNOWN_FAULTS))
        raise ValueError(f"unknown fault {kind!r}; known are {known}, close:CODE, refuse:STATUS, error:CODE")
    return kind


def _check_moment(at: str) -> str:
    if not _MOMENT.fullmatch(at):
        raise ValueError("must be before-ready, opening, mid-speech, tool-running, farewell or seconds:N")
    return at


def _check_create(create: str) -> str:
    if not _CREATE.fullmatch(create):
        raise ValueError("must be placed, ambiguous, lost, refused:CODE or throttled:TIMES")
    return create


FaultKind = Annotated[str, AfterValidator(_check_fault)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Consented(_Part):
    """A consent to telemarketing that is recorded before the call."""

    form: Literal["oral", "written"]
    seller: str
    text_shown: str = Field(min_length=1)


class Order(_Part):
    """What is posted to `/v1/calls`, and what is on record before it.

    A consent, official lists that are fresh and empty, and times that can be booked in the calendar of
    the business (`Tuesday 10:00`, of this week and the next).
    """

    to: str = Field(default="+12025550143", pattern=r"^\+[1-9]\d{6,14}$")
    agent: str = "default"
    variables: dict[str, str] = {}
    time_limit: int | None = Field(default=None, gt=0)
    consent: Consented | None = None
    lists: tuple[str, ...] = ()
    machine_detection: Literal["off", "enable", "detect-message-end"] | None = None
    slots: tuple[Annotated[str, Field(pattern=_SLOT)], ...] = ()


class Network(_Part):
    """How the carrier and the ringing phone behave.

    `create` is the answer of the Calls API: `ambiguous` places the call and answers 500, `lost` answers 500
    and places nothing, `refused:CODE` answers with that error code, `throttled:N` answers 429 N times first.
    `stream` is whether the carrier reaches the service's stream. `answered_by` is what its machine detection
    makes of what picked up, if it was ordered, `verdict_seconds` after the answer; the end of a machine's
    greeting is told when it has come, by its beep or by its silence.
    """

    ring_seconds: Seconds = 0.3
    outcome: Literal["answered", "busy", "no-answer", "failed", "canceled"] = "answered"
    create: Annotated[str, AfterValidator(_check_create)] = "placed"
    stream: Literal["connected", "unreachable"] = "connected"
    answered_by: Literal["human", "machine", "fax", "unknown"] = "human"
    verdict_seconds: Seconds = 2.5


class Other(_Part):
    """Somebody else, whom the call is handed over to. `abandoned`: the callee hangs up while it rings."""

    outcome: Literal["answered", "busy", "no-answer", "failed", "abandoned"] = "answered"
    ring_seconds: Seconds = 0.3
    talk_seconds: Seconds = 0.5


class CalleeTurn(_Part):
    """One thing the callee does, and the moment at which he does it.

    `agent-finished`: `pause_seconds` of quiet after the agent was audible; `agent-speaking`: that long into
    the agent's next utterance; `answered`: that long after answering, or after the turn before;
    `announcement`: that long into the next `<Gather>` of the carrier's, where nobody would hear him speak.
    `press` may be many keys, one after the other. `beep` is what an answering machine does before it records.
    """

    when: Literal["agent-finished", "agent-speaking", "answered", "announcement"] = "agent-finished"
    pause_seconds: Seconds = 0.6
    say: str | None = Field(default=None, min_length=1)
    press: str | None = Field(default=None, pattern=r"^[0-9*#]{1,32}$")
    hang_up: Literal[True] | None = None
    beep: Literal[True] | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        if [self.say, self.press, self.hang_up, self.beep].count(None) != 3:
            raise ValueError("needs exactly one of say, press, hang_up and beep")
        if self.when == "announcement" and (self.say is not None or self.beep):
            raise ValueError("nobody hears what is said during an announcement")
        if self.when == "announcement" and len(self.press or "") > 1:
            raise ValueError("one key ends the announcement")
        return self


class Noise(_Part):
    """What the line carries beside the callee: a burst that lasts so long, every so many seconds.

    It fills his pauses. Where he speaks, louder than it, speech masks it.
    """

    level_dbfs: Annotated[float, Field(ge=-70, le=-18)]
    every_seconds: Annotated[float, Field(gt=0, le=60)]
    lasts_seconds: Annotated[float, Field(gt=0, le=60)]


class Callee(_Part):
    """The person at the phone. Without `leave_after_seconds` he waits for the agent to hang up."""

    leave_after_seconds: Seconds | None = None
    noise: Noise | None = None
    turn: tuple[CalleeTurn, ...] = ()


class ToolCall(_Part):
    """A call that the agent makes of one of the service's tools."""

    name: str = Field(min_length=1)
    arguments: dict[str, Any] = {}


class AgentTurn(_Part):
    """What the agent does about one turn of the callee.

    `tool` is called in a silent reply, and `reply` is spoken once its result has come; `tool_after` is called
    at the end of `reply`, and `follow_up`, if any, is spoken after that result. `fault` strikes in mid-reply.
    """

    tool: ToolCall | None = None
    reply: str = ""
    tool_after: ToolCall | None = None
    follow_up: str = ""
    fault: FaultKind | None = None

    @model_validator(mode="after")
    def _follows_something(self) -> Self:
        if self.follow_up and self.tool_after is None:
            raise ValueError("follow_up needs tool_after")
        if self.tool_after is not None and not self.reply:
            raise ValueError("tool_after needs a reply")
        if self.fault is not None:
            Fault(leg="agent", at="mid-speech", kind=self.fault)
        return self


class ToldTurn(AgentTurn):
    """What the agent does about a `reply.create` whose instructions contain a text."""

    contains: str = Field(min_length=1)


class Agent(_Part):
    """The emulated voice agent: one turn for each turn of the callee that it has heard to its end.

    The silence that ends the callee's turn depends on `mode`; `commit_seconds` overrides it. `stored` has the
    sessions of agents that are stored at the vendor, by their `agent_id`. `resumes`: a lost session
    comes back to its token.
    """

    mode: Literal["min_latency", "balanced", "max_accuracy"] = "balanced"
    commit_seconds: Annotated[float, Field(ge=0.3, le=10)] | None = None
    resumes: bool = True
    turn: tuple[AgentTurn, ...] = ()
    told: tuple[ToldTurn, ...] = ()
    otherwise: str = "Sorry, could you say that again?"
    stored: dict[str, dict[str, Any]] = {}


class Fault(_Part):
    """One thing that goes wrong at a far end. `seconds:N` counts from when that leg is ready for audio.

    `times`: how many sessions of the call it strikes, where the leg is the agent's; a `refuse` and an opening
    that is wrong meet all of them.
    """

    leg: Literal["phone", "agent"]
    at: Annotated[str, AfterValidator(_check_moment)] = "mid-speech"
    kind: FaultKind
    times: int = Field(default=1, ge=1, le=10)

    @model_validator(mode="after")
    def _can_happen(self) -> Self:
        word = self.kind.partition(":")[0]
        if self.leg == "phone" and word in _AGENT_FAULTS | {"refuse", "error"}:
            raise ValueError(f"{self.kind} is a fault of the agent's leg")
        if self.leg == "agent" and word in _PHONE_FAULTS:
            raise ValueError(f"{self.kind} is a fault of the phone's leg")
        if self.at != "before-ready" and word in _OPENING_FAULTS | {"refuse"}:
            raise ValueError(f"{self.kind} can only happen before-ready")
        return self


class Expected(_Part):
    """What has to come of the call, beside what has to hold for every call.

    `said`: words in what the agent spoke to its end. `noted`: events of the record's timeline. `withheld`:
    replies that the agent begins and nobody may hear, at most. `misfires`: whether it takes noise for speech;
    not said, nobody looks. `first`: who speaks first. `heard`: whether the agent ever hears the callee.
    `last_words`: whether the service itself says the last sentence. `refused`: tools that the agent asks for
    in vain.
    """

    ending: tuple[str, str] = ("nobody", "goodbye")
    said: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    withheld: int = Field(default=0, ge=0)
    misfires: bool | None = None
    first: Literal["agent", "callee"] = "agent"
    heard: bool = True
    last_words: bool = False
    refused: tuple[str, ...] = ()


class Scenario(_Part):
    """One simulated call. `greeting_speech` lists further texts for which speech is rendered.

    `other`: those whom it is handed over to, one for each time. `service`: settings that the service is
    started with, by the names of their variables.
    """

    title: str = "Untitled"
    call: Order = Order()
    carrier: Network = Network()
    callee: Callee = Callee()
    agent: Agent = Agent()
    other: tuple[Other, ...] = ()
    fault: tuple[Fault, ...] = ()
    greeting_speech: tuple[str, ...] = ()
    service: dict[Annotated[str, Field(pattern=r"^[A-Z_]+$")], str] = {}
    expect: Expected = Expected()

    def faults(self, leg: Literal["phone", "agent"], at: str) -> list[str]:
        """The kinds of fault that strike a leg at that moment."""
        return [fault.kind for fault in self.fault if (fault.leg, fault.at) == (leg, at)]

    def callee_texts(self) -> list[str]:
        """What the callee may say, in order."""
        return [turn.say for turn in self.callee.turn if turn.say is not None]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Everything that is spoken, as (voice, text)."""
        yield from (("callee", text) for text in self.callee_texts())
        turns = [*self.agent.turn, *self.agent.told]
        replies = [text for turn in turns for text in (turn.reply, turn.follow_up) if text]
        yield from (("agent", text) for text in [*self.greeting_speech, *replies, self.agent.otherwise])


def parse_scenario(text: str, origin: str) -> Scenario:
    """Read a scenario; `origin` is the file name that an error will show."""
    try:
        return Scenario.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{origin}: {error}") from None
    except ValidationError as error:
        problems = (f"{origin}: {_key(problem['loc'])}: {problem['msg']}" for problem in error.errors())
        raise ScenarioError("\n".join(problems)) from None


def read_scenario(path: Path) -> Scenario:
    """Read a scenario from a file of the user's."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from None
    return parse_scenario(text, str(path))


def shipped_names() -> list[str]:
    """The names of the scenarios that come with the product."""
    entries = (entry.name for entry in _SHIPPED.iterdir())
    return sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml"))


def shipped_scenario(name: str) -> Scenario:
    """One of the scenarios that come with the product."""
    if name not in shipped_names():
        raise ScenarioError(f"{name}: no such scenario; there are {', '.join(shipped_names())}")
    return parse_scenario(_SHIPPED.joinpath(f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml")


def _key(location: tuple[int | str, ...]) -> str:
    """`callee.turn[2].say` for ('callee', 'turn', 2, 'say')."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return name.removeprefix(".") or "(top level)"
