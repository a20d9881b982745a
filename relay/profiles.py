"""What an agent is, and the one `session.update` that it becomes.

Knows no trio, no clock, no socket and no log; texts come in, a session or a refusal comes out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

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
    greeting: str = ""
    system_prompt: str = Field(min_length=1)
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

    The greeting is the disclosure and then the greeting; no setting and no variable replaces or empties the
    disclosure. What is not configured is omitted, never null: null is refused by the live service.
    """
    greeting, system_prompt = _texts(profile, overrides)
    given = {**profile.variables, **variables}
    values = {name: _UNSPOKEN.sub(" ", text).strip() for name, text in given.items()}
    said_by_whom = _places(profile.disclosure)
    wanted = said_by_whom | _places(greeting) | _places(system_prompt)
    blank = {name for name in said_by_whom & values.keys() if not any(map(str.isalnum, values[name]))}
    if missing := sorted((wanted - values.keys()) | blank):
        return Refusal("variable-missing", f"agent {profile.name} needs a value for: {', '.join(missing)}")
    if long := sorted(name for name in wanted if len(values[name]) > LONGEST_VALUE):
        return Refusal("variable-too-long", f"at most {LONGEST_VALUE} characters each: {', '.join(long)}")
    greeting = f"{_fill(profile.disclosure, values)} {_fill(greeting, values)}".strip()
    if len(greeting) > LONGEST_OPENING:
        return Refusal(
            "opening-too-long",
            f"disclosure and greeting have {len(greeting)} characters, at most {LONGEST_OPENING} are spoken"
            " before the person may answer: shorten the greeting",
        )
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


def resume(session: Mapping[str, Any], said: Sequence[tuple[str, str]], *, heard: bool) -> dict[str, Any]:
    """The session of a call that goes on after its node died: what was said so far joins the prompt.

    An opening that was heard to its end is not said again; one that was not is repeated.
    """
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


def _places(template: str) -> set[str]:
    return set(_PLACEHOLDER.findall(template))


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into their places, each text by itself: no place can reach from one text into the next."""
    return _PLACEHOLDER.sub(lambda place: values[place[1]], template).strip()
