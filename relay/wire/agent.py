"""AssemblyAI Voice Agent API: text to frozen messages and back.

Knows no trio, no clock, no socket and no log; unknown events become `Unrecognised`, never an error.

Shapes from the vendor's schema and from published measurements of the live service (September 2026).
`timestamp` is left out: it may be a number, a string or absent, and nothing here needs the far end's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from relay.outcomes import WireError

# What the decoder raises: bad JSON or another shape, bad UTF-8 inside a string, deep nesting.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Event(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """A server event, told apart by `type`."""


class Format(msgspec.Struct, frozen=True, gc=False):
    """`audio/pcmu` is the only encoding that needs no transcoding towards Twilio."""

    encoding: str | None = None


class Side(msgspec.Struct, frozen=True, gc=False):
    """One direction of the session's echoed configuration."""

    format: Format | None = None
    voice: str | None = None


class SessionConfig(msgspec.Struct, frozen=True, gc=False):
    """The part of the resolved configuration that the relay checks; an absent echo is accepted."""

    input: Side | None = None
    output: Side | None = None


class SessionUpdated(_Event, frozen=True, tag="session.updated"):
    """Our `session.update` was accepted; precedes `session.ready` on the live service."""


class SessionReady(_Event, frozen=True, tag="session.ready"):
    """The session hears and speaks from now on."""

    session_id: str
    resume_token: str | None = None
    config: SessionConfig | None = None

    @property
    def foreign_encoding(self) -> str | None:
        """An echoed encoding other than `audio/pcmu`, which would be noise on the telephone."""
        for side in (self.config and self.config.input, self.config and self.config.output):
            if side and side.format and side.format.encoding not in (None, "audio/pcmu"):
                return side.format.encoding
        return None


class SessionError(_Event, frozen=True, tag="session.error"):
    """Fatal before `session.ready`; afterwards only when the socket is closed behind it."""

    code: str
    message: str = ""
    param: str | None = None


class SessionEnded(_Event, frozen=True, tag="session.ended"):
    """Last event of every clean teardown."""

    session_duration_seconds: float | None = None


class SpeechStarted(_Event, frozen=True, tag="input.speech.started"):
    """The callee speaks; during a reply it comes only when the server decided to barge in."""


class SpeechStopped(_Event, frozen=True, tag="input.speech.stopped"):
    """The callee's turn is committed."""


class CalleePartial(_Event, frozen=True, tag="transcript.user.delta"):
    """The whole transcript of the turn so far."""

    text: str = ""


class CalleeSaid(_Event, frozen=True, tag="transcript.user"):
    """The final transcript of the callee's turn."""

    text: str = ""


class ReplyStarted(_Event, frozen=True, tag="reply.started"):
    """The agent begins a reply."""

    reply_id: str | None = None


class ReplyAudio(_Event, frozen=True, tag="reply.audio"):
    """A chunk of the agent's voice, base64 μ-law; at real-time pace."""

    data: str
    reply_id: str | None = None


class AgentPartial(_Event, frozen=True, tag="transcript.agent.delta"):
    """A word of the reply; `end_ms` is when it is spoken, counted from the reply's first audio."""

    delta: str = ""
    reply_id: str | None = None
    end_ms: float | None = None


class AgentSaid(_Event, frozen=True, tag="transcript.agent"):
    """The text of a reply, cut when interrupted; no proof of what the callee heard."""

    text: str = ""
    interrupted: bool = False
    reply_id: str | None = None


class ReplyDone(_Event, frozen=True, tag="reply.done"):
    """A reply is over. Open enum: only `completed` means spoken to its end."""

    status: str = "completed"
    reply_id: str | None = None

    @property
    def was_completed(self) -> bool:
        """Whether it was spoken to its end."""
        return self.status == "completed"

    @property
    def was_cut(self) -> bool:
        """Whether what the phone still holds of this reply must not be played."""
        return self.status in ("interrupted", "cancelled")


class ReplyError(_Event, frozen=True, tag="reply.error"):
    """A failed turn, not a failed session."""

    code: str = ""
    message: str = ""
    reply_id: str | None = None


class ToolCall(_Event, frozen=True, tag="tool.call"):
    """The agent wants a function run. `arguments` is an object; JSON text and the key `args` also occur."""

    call_id: str
    name: str
    arguments: Any = None
    args: Any = None

    def read_arguments(self) -> dict[str, Any]:
        """The arguments as an object. Raises WireError where they are none."""
        given = self.args if self.arguments is None else self.arguments
        if isinstance(given, str):
            try:
                given = msgspec.json.decode(given or "{}")
            except _UNREADABLE as problem:
                raise WireError(f"arguments of {self.name} are not JSON: {problem}") from None
        if given is None:
            return {}
        if not isinstance(given, dict):
            raise WireError(f"arguments of {self.name} are no object")
        return given


class Unrecognised(msgspec.Struct, frozen=True):
    """An event that this version does not know: counted and ignored."""

    event: str


_Known: TypeAlias = (
    SessionUpdated
    | SessionReady
    | SessionError
    | SessionEnded
    | SpeechStarted
    | SpeechStopped
    | CalleePartial
    | CalleeSaid
    | ReplyStarted
    | ReplyAudio
    | AgentPartial
    | AgentSaid
    | ReplyDone
    | ReplyError
    | ToolCall
)
AgentMessage: TypeAlias = _Known | Unrecognised


class _Envelope(msgspec.Struct):
    type: str | None = None
    code: str | None = None
    message: str = ""
    param: str | None = None


_TYPES = frozenset(kind.__struct_config__.tag for kind in _Known.__args__)
_decoder: msgspec.json.Decoder[_Known] = msgspec.json.Decoder(_Known)
_envelope_decoder = msgspec.json.Decoder(_Envelope)


def decode(text: bytes) -> AgentMessage:
    """Read one text message. Raises WireError where it is not what the protocol says.

    Early builds sent errors without `type`, or with `type: "error"`: both are read as SessionError.
    """
    try:
        return _decoder.decode(text)
    except _UNREADABLE as problem:
        try:
            envelope = _envelope_decoder.decode(text)
        except _UNREADABLE:
            raise WireError(f"not a Voice Agent message: {problem}") from None
        if envelope.type in (None, "error") and envelope.code is not None:
            return SessionError(envelope.code, envelope.message, envelope.param)
        if envelope.type is None or envelope.type in _TYPES:
            raise WireError(f"bad {envelope.type or 'untyped'} message: {problem}") from None
        return Unrecognised(envelope.type)


class _InputAudio(msgspec.Struct, gc=False, tag_field="type", tag="input.audio"):
    audio: str


_encode = msgspec.json.Encoder().encode


def input_audio(payload: str) -> bytes:
    """The callee's audio; note `audio` here against `data` in `reply.audio`."""
    return _encode(_InputAudio(payload))


def session_update(session: Mapping[str, object]) -> bytes:
    """The first frame of a session. A defect in it is fatal; in a later one it is not."""
    return _encode({"type": "session.update", "session": session})


def session_resume(session_id: str) -> bytes:
    """The first frame on a new socket, instead of an update: go on with a session whose socket was lost."""
    return _encode({"type": "session.resume", "session_id": session_id})


def tool_result(call_id: str, result: str, *, is_error: bool = False) -> bytes:
    """What a function returned, normally JSON text; with `is_error` the text is what the model sees."""
    return _encode({"type": "tool.result", "call_id": call_id, "result": result, "is_error": is_error})


def reply_create(instructions: str) -> bytes:
    """Make the agent speak now; never while a reply is active (the collision is undocumented)."""
    return _encode({"type": "reply.create", "instructions": instructions})


def reply_cancel(reply_id: str) -> bytes:
    """Stop a reply; known from the vendor's schema only."""
    return _encode({"type": "reply.cancel", "reply_id": reply_id})


def session_end() -> bytes:
    """Stop the session and its billing; a bare close is billed for 30 s more."""
    return _encode({"type": "session.end"})
