"""What `session.update` may hold, written down from the protocol dossier of the Voice Agent API alone.

Must not know any code of the relay's: it is what the relay's code is held to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

Check: TypeAlias = Callable[[Any, str], Iterator[str]]
"""Says what is wrong with a value that stands at a path."""

# Section 6.4: as the service itself named them on 2026-09-24.
VOICES: Final = frozenset(
    [
        "alba",
        "anna",
        "charles",
        "estelle",
        "eve",
        "george",
        "giovanni",
        "iris",
        "jane",
        "jean",
        "juergen",
        "lola",
        "mary",
        "michael",
        "paul",
        "rafael",
        "reid",
        "vera",
    ]
)


def faults(message: object) -> list[str]:
    """Everything for which the service would refuse a first `session.update`, or not understand it."""
    return list(_message(message, "message"))


# ---- kinds of values -------------------------------------------------------------------------------------


def text(*, least: int = 0, most: int | None = None) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{path}: no string"
        elif not least <= len(value) <= (len(value) if most is None else most):
            yield f"{path}: {len(value)} characters"

    return check


def one_of(*words: str) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if value not in words:
            yield f"{path}: none of {', '.join(words)}"

    return check


def number(low: float, high: float, *, whole: bool = False) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            yield f"{path}: no number from {low:g} to {high:g}"

    return check


def boolean(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{path}: no boolean"


def array(of: Check, *, most: int | None = None) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path}: no array"
            return
        if most is not None and len(value) > most:
            yield f"{path}: {len(value)} of at most {most}"
        for index, each in enumerate(value):
            yield from of(each, f"{path}[{index}]")

    return check


def fields(known: Mapping[str, Check], *, needed: tuple[str, ...] = ()) -> Check:
    """An object; a key that is not known is refused, and so is null, whatever the key (sections 0.1, 4.1)."""

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path}: no object"
            return
        yield from (f"{path}.{name}: missing" for name in needed if name not in value)
        for name, each in value.items():
            if name not in known:
                yield f"{path}.{name}: unknown"
            elif each is None:
                yield f"{path}.{name}: null"
            else:
                yield from known[name](each, f"{path}.{name}")

    return check


# ---- section 6 -------------------------------------------------------------------------------------------

# A telephone's: G.711 of Twilio's kind, whose rate is implied and must be left out (sections 6.1, 6.7).
_FORMAT = fields({"encoding": one_of("audio/pcmu")}, needed=("encoding",))

_TURN_DETECTION = fields(
    {
        "vad_threshold": number(0, 1),
        "min_silence": number(0, 600_000, whole=True),
        "max_silence": number(0, 600_000, whole=True),
        "interrupt_response": boolean,
        "interruption_delay": number(0, 1000, whole=True),
        "type": one_of("server_vad", "semantic_vad"),
        "uninterruptible_turns": array(text(least=1)),
    }
)

_INPUT = fields(
    {
        "type": one_of("audio"),
        "format": _FORMAT,
        "keyterms": array(text(least=1, most=50), most=100),
        "transcription_mode": one_of("min_latency", "balanced", "max_accuracy"),
        "transcription_prompt": text(most=1750),
        "language_codes": array(text(least=2)),
        "voice_focus": one_of("near-field", "far-field"),
        "voice_focus_threshold": number(0, 1),
        "continuous_partials": boolean,
        "turn_detection": _TURN_DETECTION,
    },
    needed=("format",),  # without it the service speaks 24 kHz PCM
)

_OUTPUT = fields(
    {
        "type": one_of("audio"),
        "voice": one_of(*sorted(VOICES)),
        "format": _FORMAT,
        "volume": number(0, 100),
    },
    needed=("format",),
)


def _schema(value: Any, path: str) -> Iterator[str]:
    """A JSON Schema of an object, as far as the service looks at it (section 6.6)."""
    if not isinstance(value, dict) or value.get("type") != "object":
        yield f"{path}: no schema of an object"
        return
    properties, required = value.get("properties", {}), value.get("required", [])
    if not isinstance(properties, dict) or not all(isinstance(each, dict) for each in properties.values()):
        yield f"{path}.properties: no object of schemas"
        return
    if not isinstance(required, list) or not set(required) <= properties.keys():
        yield f"{path}.required: names what there is not"


_TOOL = fields(
    {
        "type": one_of("function"),
        "name": text(least=1, most=64),
        "description": text(least=1),  # "main signal for when to call"
        "parameters": _schema,
        "execution_mode": one_of("interactive", "hold"),
        "timeout_seconds": number(1, 300, whole=True),
    },  # `http` is for stored agents, `response_instructions` for REST
    needed=("type", "name", "description", "parameters"),
)


def _tools(value: Any, path: str) -> Iterator[str]:
    yield from array(_TOOL)(value, path)
    names = [each.get("name") for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    if len(names) != len({str(name) for name in names}):
        yield f"{path}: a name stands twice"


_INLINE = fields(
    {
        "system_prompt": text(least=1),
        "greeting": text(least=1),  # omitted for an agent that listens first, never empty or null
        "input": _INPUT,
        "output": _OUTPUT,
        "tools": _tools,
        # `llm` is refused at run time; `webhook` and `pre_connect_requests` are no business of a call's
    },
    needed=("system_prompt", "input", "output"),
)

_STORED = fields({"agent_id": text(least=1)}, needed=("agent_id",))  # excludes every other key (section 4.1)


def _session(value: Any, path: str) -> Iterator[str]:
    yield from (_STORED if isinstance(value, dict) and "agent_id" in value else _INLINE)(value, path)


def _message(value: Any, path: str) -> Iterator[str]:
    """Section 5.1; every text is one that UTF-8 can carry."""
    yield from fields({"type": one_of("session.update"), "session": _session}, needed=("type", "session"))(
        value, path
    )
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as problem:
        yield f"{path}: cannot be sent: {type(problem).__name__}"
