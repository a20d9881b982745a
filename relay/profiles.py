"""What an agent is, and the one `session.update` that it becomes.

Knows no trio, no clock, no socket and no log; texts come in, a session or a refusal comes out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relay.outcomes import Refusal

LONGEST_OPENING = 200
"""Characters of disclosure and greeting together: a little over the 10 s that an opening may take at 15–17 a second."""

LONGEST_VALUE = 200  # characters of a variable: a name or a date, not a second prompt

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f{}]+")


class ProfileError(ValueError):
    """An agent file that cannot be used; the text names file, key and remedy."""


class TurnDetection(BaseModel):
    """`input.turn_detection`; whatever is None is not sent, and the vendor's adaptive default stays.

    Ranges from AssemblyAI dossier 6.3. Setting a silence switches adaptive pacing off for the whole session.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vad_threshold: float | None = Field(default=None, ge=0, le=1)
    min_silence: int | None = Field(default=None, ge=0)
    max_silence: int | None = Field(default=None, ge=0)
    interrupt_response: bool | None = None
    interruption_delay: int | None = Field(default=None, ge=0, le=1000)


class Overrides(BaseModel):
    """What an operator's settings change in the default agent. None leaves the profile's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    greeting: str | None = None
    system_prompt: str | None = None
    voice: str | None = None
    voice_focus: Literal["near-field", "far-field"] | None = None
    keyterms: tuple[str, ...] = ()
    turn_detection: TurnDetection = TurnDetection()


class Profile(BaseModel):
    """One agent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    purpose: Literal["informational", "collections", "telemarketing"]
    disclosure: str = Field(min_length=20)
    greeting: str = ""
    system_prompt: str = Field(min_length=1)
    voice: str | None = None
    voice_focus: Literal["near-field", "far-field"] | None = None
    keyterms: tuple[str, ...] = Field(default=(), max_length=100)
    turn_detection: TurnDetection = TurnDetection()
    tools: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    """Defaults of the template variables; one without a default must come with the request."""


def read_profile(name: str, text: str, *, where: str) -> Profile:
    """Read `agents/NAME.toml`. Raises ProfileError, which names `where`, the key and what is wrong with it."""
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
    """The `session` object of the first `session.update`, or why this call cannot be made with these variables.

    The greeting is the disclosure and then the greeting; no setting replaces or empties the disclosure. Greeting and
    voice are omitted when there are none, never null: null is refused by the live service.
    """
    values = {**profile.variables, **variables}
    wanted = set(_PLACEHOLDER.findall(_templates(profile, overrides)))
    if missing := sorted(wanted - values.keys()):
        return Refusal("variable-missing", f"agent {profile.name} needs a value for: {', '.join(missing)}")
    if long := sorted(name for name in wanted if len(values[name]) > LONGEST_VALUE):
        return Refusal("variable-too-long", f"at most {LONGEST_VALUE} characters each: {', '.join(long)}")
    greeting = fill(f"{profile.disclosure} {_first(overrides.greeting, profile.greeting)}", values)
    if len(greeting) > LONGEST_OPENING:
        return Refusal(
            "opening-too-long",
            f"disclosure and greeting together have {len(greeting)} characters, at most {LONGEST_OPENING} are spoken"
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
        "system_prompt": fill(_first(overrides.system_prompt, profile.system_prompt).strip(), values),
        "greeting": greeting,
        "input": heard,
        "output": spoken,
    }
    if tools:
        session["tools"] = [dict(tool) for tool in tools]
    return session


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into their places. A value cannot break out: control characters and braces become spaces."""
    filled = _PLACEHOLDER.sub(lambda place: _CONTROL.sub(" ", values[place[1]]).strip(), template)
    return filled.strip()


def _first(override: str | None, own: str) -> str:
    return own if override is None else override


def _templates(profile: Profile, overrides: Overrides) -> str:
    return "\n".join(
        (
            profile.disclosure,
            _first(overrides.greeting, profile.greeting),
            _first(overrides.system_prompt, profile.system_prompt),
        )
    )
