"""What an agent is: the keys of its file, and what is wrong with one that cannot be used.

Knows no trio, no clock, no socket and no log, and not what becomes of an agent in a call.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from relay.compliance import OPT_OUT_KEY
from relay.keys import Keys
from relay.limits import Limits
from relay.shapes import what_is_wrong
from relay.voicemail import Voicemail

LONGEST_VALUE = 200  # characters of a variable: a name or a date, not a second prompt
SHORTEST_DISCLOSURE = 20  # characters of its own; no sentence that says who calls and what it is has fewer
LONGEST_PHRASE = 100  # characters of what somebody says to be left alone
DEFAULT_AGENT = "default"  # the one whose texts an operator's settings may replace

PLACE = re.compile(r"\{\{\s*(\w+)\s*\}\}")  # of a variable in a template


def _a_language(tag: str) -> str:
    if not re.fullmatch("[a-z]{2}-[A-Z]{2}", tag):
        raise ValueError("must be a language and a country, as en-US or de-DE")
    return tag


def _some_words(phrase: str) -> str:
    if not any(map(str.isalnum, phrase)) or len(phrase) > LONGEST_PHRASE:
        raise ValueError(f"must be words that people say, {LONGEST_PHRASE} characters at most")
    return phrase


Language = Annotated[str, AfterValidator(_a_language)]
Phrase = Annotated[str, AfterValidator(_some_words)]
KeyTerm = Annotated[str, Field(min_length=1, max_length=50)]  # characters, by AssemblyAI's limit
ClipName = Literal["opted-out", "apology", "bridge", "filler", "still-there"]
PersonName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9 _-]{0,39}$")]  # as an agent says it
PersonNumber = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$")]


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

    name: str  # of the file, without `.toml`
    purpose: Literal["informational", "collections", "telemarketing"] = Field(
        description="What the call is for: the gate has rules of its own for each."
    )
    seller: str = Field(default="", description="On whose behalf, as in consents; empty: the agent's name.")
    disclosure: str = Field(description="Spoken first: who calls, that it is a machine, why, how to stop it.")
    disclosure_mode: Literal["greeting", "carrier"] = Field(
        default="greeting",
        description="Who speaks it: the agent before its greeting, or Twilio before that.",
    )
    agent_id: str | None = Field(
        default=None,
        min_length=1,
        description="An agent stored at AssemblyAI: most of the rest is set there.",
    )
    greeting: str = Field(
        default="", validate_default=True, description="The agent's first words, spoken exactly so."
    )
    system_prompt: str = Field(
        default="", validate_default=True, description="What the agent is to do; needed without `agent_id`."
    )
    voice: str | None = Field(default=None, description="Its voice, as AssemblyAI calls it; unset: any.")
    volume: int | None = Field(default=None, ge=0, le=100, description="How loud it speaks, 0 to 100.")
    language: Language | None = Field(
        default=None, description="What is spoken, as de-DE; unset: en-US, and whatever the agent recognises."
    )
    voice_focus: Literal["near-field", "far-field"] | None = Field(
        default=None, description="Noise suppression, near-field for a handset; unset: none."
    )
    keyterms: tuple[KeyTerm, ...] = Field(
        default=(), max_length=100, description="Names and words to listen for, of 50 characters each."
    )
    transcription_mode: Literal["min_latency", "balanced", "max_accuracy"] | None = Field(
        default=None, description="How long is listened before an answer; unset: balanced."
    )
    turn_detection: TurnDetection = Field(
        default=TurnDetection(), description="When the person has finished, and what interrupts the agent."
    )
    voicemail: Voicemail = Field(
        default=Voicemail(), description="What is done where a machine answers, and how it is detected."
    )
    keypad: Keys = Field(default=Keys(), description="What becomes of the keys that the person presses.")
    opt_out_key: str = Field(
        default=OPT_OUT_KEY,
        pattern=r"^[0-9*#]$",
        validate_default=True,
        description="The key by which the person is never called again; it always works.",
    )
    opt_out_words: tuple[Phrase, ...] = Field(
        default=(), max_length=50, description="Phrases that mean *do not call again*, beside the usual ones."
    )
    tools: tuple[str, ...] = Field(
        default=(), description="What it may use of relay's tools and of `tools_file`."
    )
    tools_file: str | None = Field(default=None, description="A Python file beside this one, with tools.")
    http_tools: tuple[HttpTool, ...] = Field(default=(), description="Tools that are HTTP services.")
    tool_results: Literal["immediate", "reply-done"] = Field(
        default="immediate",
        description="When a tool's result goes to the agent: at once, or when it is silent.",
    )
    clips: dict[ClipName, str] = Field(
        default={}, description="Sound files beside this one, instead of relay's own sentences."
    )
    limits: Limits = Field(
        default=Limits(), description="How long a call lasts, and who may keep whom waiting."
    )
    scope: Scope = Field(default=Scope(), description="Whose data the relay's own tools may touch.")
    transfers: dict[PersonName, PersonNumber] = Field(
        default={}, description="Whom `transfer_call` may hand a call over to: names, and their numbers."
    )
    recording: Literal["off", "disclosed", "call"] = Field(
        default="off",
        description="What is recorded: nothing, what follows the disclosure, or all of the call.",
    )
    variables: dict[str, str] = Field(
        default={}, description="Defaults of the variables; one without must come with the call."
    )

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
        *("greeting", "voice", "volume", "voice_focus", "keyterms", "transcription_mode", "turn_detection"),
        *("tools", "tools_file", "http_tools", "scope", "transfers"),
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
        lines = (f"{where}: {_key(error['loc'])}: {_complaint(error)}" for error in problem.errors())
        raise ProfileError("\n".join(lines)) from None


def _key(location: tuple[int | str, ...]) -> str:
    """`http_tools[0].url`; without the marks that a pattern of a mapping's key leaves."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return name.removeprefix(".").replace(".[key]", "")


def _complaint(error: ErrorDetails) -> str:
    """What is wrong with a key, and how to mend it."""
    match error["type"]:
        case "extra_forbidden":
            return f"there is no such key; {_known(error['loc'])}"
        case "missing":
            meaning = Profile.model_fields.get(str(error["loc"][-1]))
            return f"is missing. {(meaning and meaning.description) or 'Add it.'}"
        case "tuple_type":
            return "must be a list: put it between [ and ]"
        case "string_type":
            return "must be text: put it between quotation marks"
        case _:
            return what_is_wrong(error)


def _known(location: tuple[int | str, ...]) -> str:
    """The keys that could stand in place of an unknown one."""
    fields = _MODELS.get(str(location[0]), Profile) if len(location) > 1 else Profile
    names = [name for name in fields.model_fields if name != "name" or fields is not Profile]
    if close := get_close_matches(str(location[-1]), names, n=1):
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(names)}"


_MODELS: Mapping[str, type[BaseModel]] = {
    "turn_detection": TurnDetection,
    "http_tools": HttpTool,
    "keypad": Keys,
    "limits": Limits,
    "scope": Scope,
}
