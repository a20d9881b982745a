"""What an agent is told in one call: its texts with their places filled, and the one `session.update`.

Knows no trio, no clock, no socket and no log; texts come in, a session or a refusal comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from relay.outcomes import Refusal
from relay.profiles import DEFAULT_AGENT, LONGEST_VALUE, PLACE, KeyTerm, Profile, Scope, TurnDetection
from relay.voicemail import FixedTexts

LONGEST_OPENING = 200
"""Characters of disclosure and greeting together: little over the 10 s of an opening, at 15–17 a second."""

LONGEST_MESSAGE = 500
"""Characters of disclosure and message together: half a minute of an answering machine."""

LANGUAGE = "en-US"  # of an agent that names none
LONGEST_PAST = 8000  # characters of the transcript so far that a resumed session is told, the newest

# What a value may not hold: control characters, separators of lines, changes of direction, lone surrogates,
# and braces to build a place with.
_UNSPOKEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff{}]+")


class Overrides(BaseModel):
    """What an operator's settings change in an agent. None leaves the profile's own.

    The greeting and the prompt are those of the default agent alone: another agent has another purpose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    greeting: str | None = None
    system_prompt: str | None = None
    voice: str | None = None
    voice_focus: Literal["near-field", "far-field"] | None = None
    keyterms: tuple[KeyTerm, ...] = Field(default=(), max_length=100)
    turn_detection: TurnDetection = TurnDetection()


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
    whose = _places(profile.scope.calendar) | _places(profile.scope.accounts)
    said_by_whom = _places(profile.disclosure) | whose  # a name that is blank would be another one's
    templates = (greeting, system_prompt, profile.scope.account, profile.voicemail.message)
    wanted = said_by_whom.union(*map(_places, templates))
    blank = {name for name in said_by_whom & values.keys() if not any(map(str.isalnum, values[name]))}
    if missing := sorted((wanted - values.keys()) | blank):
        names = ", ".join(missing)
        sentence = f"agent {profile.name} needs a value for: {names} (`relay call --var NAME=VALUE`)"
        return Refusal("variable-missing", sentence)
    if long := sorted(name for name in wanted if len(values[name]) > LONGEST_VALUE):
        return Refusal("variable-too-long", f"at most {LONGEST_VALUE} characters each: {', '.join(long)}")
    disclosure, greeting = _fill(profile.disclosure, values), _fill(greeting, values)
    if profile.disclosure_mode == "greeting":
        greeting = f"{disclosure} {greeting}".strip()
    message = fixed_texts(profile, variables).message
    if too_long := _too_long(max(len(disclosure), len(greeting)), len(message)):
        return too_long
    if profile.agent_id is not None:
        return {"agent_id": profile.agent_id}
    sound = {"format": {"encoding": "audio/pcmu"}}
    heard: dict[str, Any] = {"type": "audio", **sound}
    if keyterms := overrides.keyterms or profile.keyterms:
        heard["keyterms"] = list(keyterms)
    if profile.transcription_mode:
        heard["transcription_mode"] = profile.transcription_mode
    if profile.language:
        heard["language_codes"] = [profile.language.partition("-")[0]]
    if voice_focus := overrides.voice_focus or profile.voice_focus:
        heard["voice_focus"] = voice_focus
    own, theirs = (part.turn_detection.model_dump(exclude_none=True) for part in (profile, overrides))
    if turn_detection := own | theirs:
        heard["turn_detection"] = turn_detection
    spoken: dict[str, Any] = {"type": "audio", **sound}
    if voice := overrides.voice or profile.voice:
        spoken["voice"] = voice
    if profile.volume is not None:
        spoken["volume"] = profile.volume
    session: dict[str, Any] = {
        "system_prompt": _fill(system_prompt, values),
        "greeting": greeting,
        "input": heard,
        "output": spoken,
    }
    if tools:
        session["tools"] = [dict(tool) for tool in tools]
    return session


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the carrier speaks before it connects the agent."""

    sentence: str
    language: str = LANGUAGE


def announcement(profile: Profile, variables: Mapping[str, str]) -> Announcement | None:
    """The disclosure where the carrier speaks it; None where the greeting has it.

    The variables are those of a session that could be composed: none is missing.
    """
    if profile.disclosure_mode == "greeting":
        return None
    return Announcement(_fill(profile.disclosure, _values(profile, variables)), profile.language or LANGUAGE)


def scope_of(profile: Profile, variables: Mapping[str, str]) -> Scope:
    """Whose data the tools of this call may touch.

    The variables are those of a session that could be composed: none is missing.
    """
    values, scope = _values(profile, variables), profile.scope
    return Scope(
        calendar=_fill(scope.calendar, values) or profile.name,
        accounts=_fill(scope.accounts, values) or profile.name,
        account=_fill(scope.account, values),
    )


def fixed_texts(profile: Profile, variables: Mapping[str, str]) -> FixedTexts:
    """What is spoken word for word to machines. The variables are those of a composed session."""
    values = _values(profile, variables)
    disclosure = _fill(profile.disclosure, values)
    message = _fill(profile.voicemail.message, values)
    return FixedTexts(
        message=f"{disclosure} {message}" if message else "",
        answer=disclosure,
        is_disclosure_apart=profile.disclosure_mode == "carrier",
    )


def recital(session: Mapping[str, Any], text: str) -> dict[str, Any]:
    """A session that says `text`, word for word, and is to say nothing else: a voice and ears without a task.

    A greeting goes straight to speech; no model has it in hand. That of a stored agent is not ours to choose,
    so that this is no session of such an agent: it speaks in the vendor's default voice.
    """
    sound = {"type": "audio", "format": {"encoding": "audio/pcmu"}}
    return {
        "system_prompt": "Somebody else talks with the person. Whatever you hear, say nothing.",
        "greeting": text,
        "input": dict(session.get("input", sound)),
        "output": dict(session.get("output", sound)),
    }


def resume(
    session: Mapping[str, Any], said: Sequence[tuple[str, str]], *, heard: bool, news: str = ""
) -> dict[str, Any]:
    """The session of a call that goes on: what was said so far joins the prompt, and what happened since.

    An opening that was heard to its end is not said again; one that was not is repeated. A stored agent
    cannot be told: its id is all that its first update may hold.
    """
    if "agent_id" in session:
        return dict(session)
    lines = "\n".join(f"{role}: {text}" for role, text in said)[-LONGEST_PAST:]
    past = f"\n\nThe call was interrupted and goes on now. So far:\n{lines}" if lines else ""
    past += f"\n\n{news}" if news else ""
    resumed = {**session, "system_prompt": session["system_prompt"] + past}
    if heard:
        resumed.pop("greeting", None)  # gone already where this is not the first time
    return resumed


def _too_long(opening: int, message: int) -> Refusal | None:
    """Why so many characters cannot be spoken, if they cannot."""
    if opening > LONGEST_OPENING:
        return Refusal(
            "opening-too-long",
            f"the agent or the carrier would say {opening} characters at a stretch, at most {LONGEST_OPENING}"
            " are spoken before the person may answer: shorten the disclosure or the greeting",
        )
    if message > LONGEST_MESSAGE:
        return Refusal(
            "message-too-long",
            f"a machine would be told {message} characters, disclosure and message together; at most"
            f" {LONGEST_MESSAGE}: shorten voicemail.message",
        )
    return None


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
    return set(PLACE.findall(template))


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into their places, each text by itself: no place can reach from one text into the next."""
    return PLACE.sub(lambda place: values[place[1]], template).strip()
