"""The emulated agent's reading of `session.update`: what it accepts, refuses and echoes.

It must not know sockets, time or speech.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

VOICES = (
    *("alba", "anna", "charles", "estelle", "eve", "george", "giovanni", "iris", "jane", "jean", "juergen"),
    *("lola", "mary", "michael", "paul", "rafael", "reid", "vera"),
)
DEFAULT_VOICE = "alba"

_IMMUTABLE = (
    "greeting", "input.type", "input.format", "output.type", "output.voice", "output.format",
)  # fmt: skip


KeyTerm = Annotated[str, Field(max_length=50)]

# After these the live service closes with 1008, whenever they come.
FATAL_ERRORS = frozenset(
    {"unauthorized", "forbidden", "at_capacity", "concurrency_exceeded", "agent_init_failed", "agent_timeout"}
    | {"agent_not_found", "session_not_found", "session_expired", "session_forbidden"}
)

CLIENT_EVENTS = frozenset(
    {"session.update", "session.resume", "session.end", "input.audio", "tool.result"}
    | {"reply.create", "reply.cancel", "conversation.message"}
)


class RefusedUpdate(Exception):
    """The update is not accepted: the fields of the `session.error` that answers it."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Format(_Part):
    encoding: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    sample_rate: int | None = None

    @model_validator(mode="after")
    def _has_the_only_rate(self) -> Self:
        if self.sample_rate is not None and (self.encoding, self.sample_rate) != ("audio/pcm", 24000):
            raise ValueError("sample_rate may only be 24000, and only with audio/pcm")
        return self

    def echo(self) -> dict[str, Any]:
        return {"encoding": self.encoding, "sample_rate": 24000 if self.encoding == "audio/pcm" else 8000}


class TurnDetection(_Part):
    vad_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    min_silence: Annotated[int, Field(ge=0)] | None = None
    max_silence: Annotated[int, Field(ge=0)] | None = None
    interrupt_response: bool | None = None
    interruption_delay: Annotated[int, Field(ge=0, le=1000)] | None = None
    type: Literal["server_vad", "semantic_vad"] | None = None
    uninterruptible_turns: list[str] | None = None


class Input(_Part):
    type: Literal["audio"] = "audio"
    format: Format = Format()
    turn_detection: TurnDetection | None = None
    keyterms: Annotated[list[KeyTerm], Field(max_length=100)] | None = None
    transcription_mode: Literal["min_latency", "balanced", "max_accuracy"] | None = None
    continuous_partials: bool | None = None
    transcription_prompt: Annotated[str, Field(max_length=1750)] | None = None
    language_codes: list[str] | None = None
    voice_focus: Literal["near-field", "far-field"] | None = None
    voice_focus_threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class Output(_Part):
    type: Literal["audio"] = "audio"
    voice: str = DEFAULT_VOICE
    format: Format = Format()
    volume: Annotated[int, Field(ge=0, le=100)] | None = None

    @field_validator("voice")
    @classmethod
    def _is_listed(cls, voice: str) -> str:
        if voice not in VOICES:
            raise ValueError(f"Invalid voice '{voice}'. Must be one of: {', '.join(VOICES)}")
        return voice


class Parameters(BaseModel):
    """A JSON Schema, of which only the outline is checked."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    type: Literal["object"] = "object"
    properties: dict[str, Any] = {}


class Tool(_Part):
    type: Literal["function"]
    name: str = Field(min_length=1)
    description: str = ""
    parameters: Parameters = Parameters()
    execution_mode: Literal["interactive", "hold"] = "interactive"
    timeout_seconds: Annotated[int, Field(ge=1, le=300)] = 120
    http: dict[str, Any] | None = None
    """Of a stored agent's tool: the service calls it itself, and its tool.call is never to be answered."""


class Webhook(_Part):
    url: str
    events: list[str]
    secret: str | None = None


class SessionConfig(_Part):
    """A session's configuration. The first update defines it, later ones change the mutable part."""

    system_prompt: str | None = None
    greeting: str | None = None
    input: Input = Input()
    output: Output = Output()
    tools: list[Tool] = []
    pre_connect_requests: list[Any] = []
    webhook: Webhook | None = None

    def tool(self, name: str) -> Tool:
        """The declaration of a tool; of a name that nobody declared, the defaults."""
        declared = (tool for tool in self.tools if tool.name == name)
        return next(declared, Tool(type="function", name=name))

    def echo(self, session_id: str) -> dict[str, Any]:
        """The configuration as `session.updated` and `session.ready` show it, fully resolved."""
        echo = self.model_dump(exclude={"webhook"})
        echo["input"]["format"] = self.input.format.echo()
        echo["output"]["format"] = self.output.format.echo()
        return {"id": session_id, **echo, "llm": []}


def read_first_update(session: object, stored: Mapping[str, Mapping[str, Any]]) -> SessionConfig:
    """Check the update that opens a session, or raise RefusedUpdate. `stored` are sessions by `agent_id`."""
    fields = _object(session)
    if "agent_id" in fields:
        if len(fields) > 1:
            raise RefusedUpdate("invalid_value", "mutually exclusive with every other field", "agent_id")
        if fields["agent_id"] not in stored:
            raise RefusedUpdate("agent_not_found", "Agent not found", "agent_id")
        return _validate(stored[fields["agent_id"]])
    config = _validate(fields)
    if any(tool.http is not None for tool in config.tools):
        raise RefusedUpdate("invalid_value", "HTTP tools are for stored agents only", "tools")
    return config


def read_later_update(session: object, before: SessionConfig) -> SessionConfig:
    """Apply a later update to a running session, or raise RefusedUpdate."""
    fields = _object(session)
    if "agent_id" in fields:
        raise RefusedUpdate("agent_id_not_first", "only allowed in the first session.update", "agent_id")
    for path in _IMMUTABLE:
        if _contains(fields, path):
            message = f"'{path}' cannot be changed after the first session.update"
            raise RefusedUpdate("immutable_field", message, path)
    merged = before.model_dump(exclude_unset=True)
    for name, value in fields.items():
        nested = name in ("input", "output") and isinstance(value, dict)
        merged[name] = {**merged.get(name, {}), **value} if nested else value
    return _validate(merged)


def _object(session: object) -> Mapping[str, Any]:
    if not isinstance(session, dict):
        raise RefusedUpdate("invalid_format", "Invalid message format for type 'session.update'")
    if "greeting" in session and session["greeting"] is None:
        raise RefusedUpdate("invalid_format", "Invalid message format for type 'session.update'")
    return session


def _contains(fields: Mapping[str, Any], path: str) -> bool:
    group, _, name = path.rpartition(".")
    within = fields.get(group) if group else fields
    return isinstance(within, dict) and name in within


def _validate(fields: Mapping[str, Any]) -> SessionConfig:
    try:
        return SessionConfig.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        raise RefusedUpdate("invalid_value", problem["msg"].removeprefix("Value error, "), path[1:]) from None
