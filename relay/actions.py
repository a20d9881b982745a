"""What the dialogue may ask the call to do: imperatives, one struct each.

Knows no trio, no clock, no socket and no log.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from relay.outcomes import Ending

Role: TypeAlias = Literal["agent", "callee"]
OptOutWay: TypeAlias = Literal["key", "words", "tool", "list"]
"""How it came: by a key, in plain words, understood by the agent, or as an entry on the list meanwhile."""


class ForwardToAgent(msgspec.Struct, frozen=True, gc=False):
    """Give the callee's audio to the agent, base64 untouched."""

    payload: str


class PlayOnPhone(msgspec.Struct, frozen=True, gc=False):
    """Give the agent's audio to the phone, base64 untouched."""

    payload: str


class ClearPhoneAudio(msgspec.Struct, frozen=True, gc=False):
    """Silence the phone at once; never delayed."""


class SendMark(msgspec.Struct, frozen=True, gc=False):
    """Ask the carrier to say when everything sent so far was played."""

    name: str


class RunTool(msgspec.Struct, frozen=True):
    """Run a function for the agent while audio flows."""

    call_id: str
    name: str
    arguments: dict[str, Any]


class SendToolResult(msgspec.Struct, frozen=True):
    """Answer a tool call; each is answered at most once."""

    call_id: str
    result: str
    is_error: bool


class CreateReply(msgspec.Struct, frozen=True):
    """Make the agent speak by an instruction for this one reply."""

    instructions: str


class CancelReply(msgspec.Struct, frozen=True):
    """Stop the active reply."""

    reply_id: str


class KeysOver(msgspec.Struct, frozen=True):
    """Keys that were to sound at the phone have done so; or they could not."""

    heard: bool


class OpenSession(msgspec.Struct, frozen=True):
    """Open another session with the agent; the one before it is given up.

    `resume`: the lost one, with all that it knows; else a fresh one that is told what was said so far.
    `heard`: the opening was, so that a fresh one does not greet. `says`: it is opened to say that, word for
    word, and nothing else.
    """

    resume: bool
    heard: bool
    says: str | None = None


class RetryWithoutVoice(msgspec.Struct, frozen=True):
    """The configured voice was refused: open the session again without one."""

    detail: str


class Transcribe(msgspec.Struct, frozen=True):
    """Add a line to the transcript; one of the agent's has the number of its reply."""

    role: Role
    text: str
    interrupted: bool
    reply: int | None = None


class TurnAnswered(msgspec.Struct, frozen=True):
    """The agent's first audible sound after a turn of the callee's, in seconds.

    `agent_seconds`: from the agent's word that the turn is over. `commit_seconds`: before that, from the end
    of what the callee said; None where it was not found. `queued_seconds`: what the phone plays first.
    """

    agent_seconds: float
    commit_seconds: float | None = None
    queued_seconds: float = 0.0


class OptOut(msgspec.Struct, frozen=True):
    """The callee is never to be called again: to be recorded before anything else is done."""

    how: OptOutWay


class Note(msgspec.Struct, frozen=True):
    """Add a line to the timeline; `fields` hold no speech, no number and no secret."""

    event: str
    fields: dict[str, Any] = {}


class EndCall(msgspec.Struct, frozen=True):
    """The call is over."""

    ending: Ending


Action: TypeAlias = (
    ForwardToAgent
    | PlayOnPhone
    | ClearPhoneAudio
    | SendMark
    | RunTool
    | SendToolResult
    | CreateReply
    | CancelReply
    | KeysOver
    | OpenSession
    | RetryWithoutVoice
    | Transcribe
    | TurnAnswered
    | OptOut
    | Note
    | EndCall
)
