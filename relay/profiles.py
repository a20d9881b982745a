"""What an agent is: the keys of its file, and what is wrong with one that cannot be used.

Knows no trio, no clock, no socket and no log, and not what becomes of an agent in a call.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from relay.compliance import OPT_OUT_KEY
from relay.keys import Keys
from relay.limits import Limits

LONGEST_VALUE = 200  # characters of a variable: a name or a date, not a second prompt
SHORTEST_DISCLOSURE = 20  # characters of its own; no sentence that says who calls and what it is has fewer
DEFAULT_AGENT = "default"  # the one whose texts an operator's settings may replace

PLACE = re.compile(r"\{\{\s*(\w+)\s*\}\}")  # of a variable in a template


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


class Scope(BaseModel):
    """Whose data the relay's own tools may touch. Decided by the profile and the request, never in the talk.

    Each may hold places of variables. Without `calendar` or `accounts` that one has the agent's name; without
    `account` the number that was called says whose account it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calendar: str = ""
    accounts: str = ""
    account: str = ""


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
    limits: Limits = Limits()
    keypad: Keys = Keys()
    opt_out_key: str = Field(default=OPT_OUT_KEY, pattern=r"^[0-9*#]$", validate_default=True)
    scope: Scope = Scope()
    variables: dict[str, str] = {}
    """Defaults of the template variables; one without a default must come with the request."""

    @field_validator("disclosure")
    @classmethod
    def _says_something(cls, disclosure: str) -> str:
        """No value of a variable can empty it when its own words are enough."""
        if len(" ".join(PLACE.sub(" ", disclosure).split())) < SHORTEST_DISCLOSURE:
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
        *("tools", "tools_file", "http_tools", "scope"),
    )
    @classmethod
    def _is_not_the_vendors(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("agent_id"):
            raise ValueError("a stored agent has its own: set it at AssemblyAI and leave it out here")
        return value

    @field_validator("opt_out_key")
    @classmethod
    def _is_no_key_of_a_group(cls, key: str, info: ValidationInfo) -> str:
        """It opts out whenever it is pressed, in the middle of a number too."""
        keys = info.data.get("keypad", Keys())
        if key == keys.ends_with:
            raise ValueError(f"{key} ends a group of keys (keypad.ends_with): choose another one")
        if key.isdecimal() and (keys.digits or 1) > 1:
            raise ValueError(
                f"where people type numbers of several digits {key} may be one of them:"
                f" choose {'*' if keys.ends_with == '#' else '#'}, and say so in the disclosure"
            )
        if key != OPT_OUT_KEY and info.data.get("disclosure_mode") == "carrier":
            raise ValueError(
                f"while the carrier speaks the disclosure the key is {OPT_OUT_KEY}: leave it out"
            )
        return key

    @field_validator("greeting")
    @classmethod
    def _opens_the_talk(cls, greeting: str, info: ValidationInfo) -> str:
        """Nothing of the person's is forwarded before an opening was heard: without one there is no talk."""
        is_ours = info.data.get("disclosure_mode") == "carrier" and not info.data.get("agent_id")
        if is_ours and not any(map(str.isalnum, PLACE.sub("", greeting))):
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
