"""What an agent is, and the one `session.update` that it becomes.

Knows no trio, no clock, no socket and no log; texts come in, a session or a refusal comes out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from relay.outcomes import Refusal

LONGEST_OPENING = 200
"""Characters of disclosure and greeting together: little over the 10 s of an opening, at 15–17 a second."""

LONGEST_PAST = 8000  # characters of the transcript so far that a resumed session is told, the newest
LONGEST_VALUE = 200  # characters of a variable: a name or a date, not a second prompt
SHORTEST_DISCLOSURE = 20  # characters of its own; no sentence that says who calls and what it is has fewer
DEFAULT_AGENT = "default"  # the one whose texts an operator's settings may replace

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
# What a value may not hold: control characters, separators of lines, changes of direction, lone surrogates,
# and braces to build a place with.
_UNSPOKEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff{}]+")


class ProfileError(ValueError):
    """An agent file that cannot be used; the text names file, key and remedy."""


class TurnDetection(BaseModel):
    """`input.turn_detection`; whatever is None is not sent, and the vendor's adaptive default stays.

    Ranges as AssemblyAI documents them. Setting a silence switches adaptive pacing off for the whole session.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vad_threshold: float | None = Field(default=None, ge=0, le=1)
    min_silence: int | None = Field(default=None, ge=0)
    max_silence: int | None = Field(default=None, ge=0)
    interrupt_response: bool | None = None
    interruption_delay: int | None = Field(default=None, ge=0, le=1000)


class Overrides(BaseModel):
    """What an operator's settings change in an agent. None leaves the profile's own.

    The greeting and the prompt are those of the default agent alone: another agent has another purpose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    greeting: str | None = None
    system_prompt: str | None = None
    voice: str | None = None
    voice_focus: Literal["near-field", "far-field"] | None = None
    keyterms: tuple[str, ...] = Field(default=(), max_length=100)
    turn_detection: TurnDetection = TurnDetection()


class Parameter(BaseModel):
    """One argument of an HTTP tool; without `required` the agent may leave it out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["string", "integer", "number", "boolean"] = "string"
    description: str = Field(min_length=1)
    required: bool = True
    enum: tuple[str, ...] = ()
    pattern: str | None = None
    max_length: int = Field(default=LONGEST_VALUE, ge=1, le=2000)
    minimum: float | None = None
    maximum: float | None = None


class HttpTool(BaseModel):
    """A tool that is somebody's HTTP service; `{name}` in path or query of the URL is an argument.

    The rest of the arguments travels in the query, or as JSON where the method has a body. `${NAME}` in a
    header, and `secret`, which signs the request, name variables of the environment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    description: str = Field(min_length=1)
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: str = Field(pattern=r"^https?://[^{}/?#@]+(/|$)")  # no place in the host, no user
    headers: dict[str, str] = {}
    secret: str | None = None
    timeout_seconds: float = Field(default=5.0, gt=0, le=10)
    parameters: dict[str, Parameter] = {}


class Profile(BaseModel):
    """One agent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    purpose: Literal["informational", "collections", "telemarketing"]
    seller: str = ""  # on whose behalf, as consents name it; empty: the agent's own name
    disclosure: str
    disclosure_mode: Literal["greeting", "carrier"] = "greeting"
    """Who speaks the disclosure: the agent before its greeting, or the carrier before there is an agent."""

    agent_id: str | None = Field(default=None, min_length=1)
    """An agent stored at AssemblyAI: in the first `session.update` its id excludes every other key."""

    greeting: str = Field(default="", validate_default=True)
    system_prompt: str = Field(default="", validate_default=True)
    voice: str | None = None
    voice_focus: Literal["near-field", "far-field"] | None = None
    keyterms: tuple[str, ...] = Field(default=(), max_length=100)
    turn_detection: TurnDetection = TurnDetection()
    tools: tuple[str, ...] = ()
    tools_file: str | None = None
    """A Python file beside this one, whose functions `tools` may name."""
    http_tools: tuple[HttpTool, ...] = ()
    variables: dict[str, str] = {}
    """Defaults of the template variables; one without a default must come with the request."""

    @field_validator("disclosure")
    @classmethod
    def _says_something(cls, disclosure: str) -> str:
        """No value of a variable can empty it when its own words are enough."""
        if len(" ".join(_PLACEHOLDER.sub(" ", disclosure).split())) < SHORTEST_DISCLOSURE:
            raise ValueError(
                f"say who calls, in {SHORTEST_DISCLOSURE} characters or more beside the variables"
            )
        return disclosure

    @field_validator("agent_id")
    @classmethod
    def _leaves_the_disclosure_to_the_carrier(cls, agent_id: str, info: ValidationInfo) -> str:
        if info.data.get("disclosure_mode") == "greeting":
            raise ValueError(
                'a stored agent speaks its own greeting alone: set disclosure_mode = "carrier"'
                " so that the disclosure is spoken before it"
            )
        return agent_id

    @field_validator(
        *("greeting", "voice", "voice_focus", "keyterms", "turn_detection"),
        *("tools", "tools_file", "http_tools"),
    )
    @classmethod
    def _is_not_the_vendors(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("agent_id"):
            raise ValueError("a stored agent has its own: set it at AssemblyAI and leave it out here")
        return value

    @field_validator("greeting")
    @classmethod
    def _opens_the_talk(cls, greeting: str, info: ValidationInfo) -> str:
        """Nothing of the person's is forwarded before an opening was heard: without one there is no talk."""
        is_ours = info.data.get("disclosure_mode") == "carrier" and not info.data.get("agent_id")
        if is_ours and not any(map(str.isalnum, _PLACEHOLDER.sub("", greeting))):
            raise ValueError('with disclosure_mode = "carrier" the agent needs a greeting to begin with')
        return greeting

    @field_validator("system_prompt")
    @classmethod
    def _has_one_prompt(cls, prompt: str, info: ValidationInfo) -> str:
        if bool(prompt) == bool(info.data.get("agent_id")):
            raise ValueError(
                "a stored agent has its own: set it at AssemblyAI and leave it out here"
                if prompt
                else "say what the agent is to do, or name a stored agent by its agent_id"
            )
        return prompt


def read_profile(name: str, text: str, *, where: str) -> Profile:
    """Read `agents/NAME.toml`. Raises ProfileError, which names `where`, the key and what is wrong."""
    try:
        return Profile.model_validate({**tomllib.loads(text), "name": name})
    except tomllib.TOMLDecodeError as problem:
        raise ProfileError(f"{where}: not TOML: {problem}") from None
    except ValidationError as problem:
        lines = (f"{where}: {'.'.join(map(str, error['loc']))}: {error['msg']}" for error in problem.errors())
        raise ProfileError("\n".join(lines)) from None


def compose(
    profile: Profile,
    overrides: Overrides,
    variables: Mapping[str, str],
    tools: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | Refusal:
    """The `session` object of the first `session.update`, or why this call cannot be made so.

    The greeting is the disclosure and then the greeting, or the greeting alone where the carrier speaks the
    disclosure; no setting and no variable replaces or empties the disclosure. What is not configured is
    omitted, never null: null is refused by the live service. A stored agent is named and nothing else.
    """
    greeting, system_prompt = _texts(profile, overrides)
    values = _values(profile, variables)
    said_by_whom = _places(profile.disclosure)
    wanted = said_by_whom | _places(greeting) | _places(system_prompt)
    blank = {name for name in said_by_whom & values.keys() if not any(map(str.isalnum, values[name]))}
    if missing := sorted((wanted - values.keys()) | blank):
        return Refusal("variable-missing", f"agent {profile.name} needs a value for: {', '.join(missing)}")
    if long := sorted(name for name in wanted if len(values[name]) > LONGEST_VALUE):
        return Refusal("variable-too-long", f"at most {LONGEST_VALUE} characters each: {', '.join(long)}")
    disclosure, greeting = _fill(profile.disclosure, values), _fill(greeting, values)
    if profile.disclosure_mode == "greeting":
        greeting = f"{disclosure} {greeting}".strip()
    if (longest := max(len(disclosure), len(greeting))) > LONGEST_OPENING:
        return Refusal(
            "opening-too-long",
            f"the agent or the carrier would say {longest} characters at a stretch, at most {LONGEST_OPENING}"
            " are spoken before the person may answer: shorten the disclosure or the greeting",
        )
    if profile.agent_id is not None:
        return {"agent_id": profile.agent_id}
    sound = {"format": {"encoding": "audio/pcmu"}}
    heard: dict[str, Any] = {"type": "audio", **sound}
    if keyterms := overrides.keyterms or profile.keyterms:
        heard["keyterms"] = list(keyterms)
    if voice_focus := overrides.voice_focus or profile.voice_focus:
        heard["voice_focus"] = voice_focus
    own, theirs = (part.turn_detection.model_dump(exclude_none=True) for part in (profile, overrides))
    if turn_detection := own | theirs:
        heard["turn_detection"] = turn_detection
    spoken: dict[str, Any] = {"type": "audio", **sound}
    if voice := overrides.voice or profile.voice:
        spoken["voice"] = voice
    session: dict[str, Any] = {
        "system_prompt": _fill(system_prompt, values),
        "greeting": greeting,
        "input": heard,
        "output": spoken,
    }
    if tools:
        session["tools"] = [dict(tool) for tool in tools]
    return session


def announcement(profile: Profile, variables: Mapping[str, str]) -> str:
    """The disclosure that the carrier speaks before it connects the agent; empty where the greeting has it.

    The variables are those of a session that could be composed: none is missing.
    """
    if profile.disclosure_mode == "greeting":
        return ""
    return _fill(profile.disclosure, _values(profile, variables))


def resume(session: Mapping[str, Any], said: Sequence[tuple[str, str]], *, heard: bool) -> dict[str, Any]:
    """The session of a call that goes on after its node died: what was said so far joins the prompt.

    An opening that was heard to its end is not said again; one that was not is repeated. A stored agent
    cannot be told: its id is all that its first update may hold.
    """
    if "agent_id" in session:
        return dict(session)
    lines = "\n".join(f"{role}: {text}" for role, text in said)[-LONGEST_PAST:]
    past = f"\n\nThe call was interrupted and goes on now. So far:\n{lines}" if lines else ""
    resumed = {**session, "system_prompt": session["system_prompt"] + past}
    if heard:
        resumed.pop("greeting", None)  # gone already where this is not the first time
    return resumed


def _texts(profile: Profile, overrides: Overrides) -> tuple[str, str]:
    """Greeting and prompt, before the variables are filled in."""
    greeting, system_prompt = profile.greeting, profile.system_prompt
    if profile.name == DEFAULT_AGENT:
        greeting = greeting if overrides.greeting is None else overrides.greeting
        system_prompt = overrides.system_prompt or system_prompt
    return greeting, system_prompt


def _values(profile: Profile, variables: Mapping[str, str]) -> dict[str, str]:
    """What stands in the places of the templates, freed of what cannot be spoken."""
    given = {**profile.variables, **variables}
    return {name: _UNSPOKEN.sub(" ", text).strip() for name, text in given.items()}


def _places(template: str) -> set[str]:
    return set(_PLACEHOLDER.findall(template))


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into their places, each text by itself: no place can reach from one text into the next."""
    return _PLACEHOLDER.sub(lambda place: values[place[1]], template).strip()
