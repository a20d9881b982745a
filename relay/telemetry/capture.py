"""A redacted copy of what both legs said on the wire, a file for each stream (RELAY_CAPTURE_DIR).

Knows JSON but no protocol: what looks like audio, speech or a secret is replaced by its length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
import structlog
import trio

from relay.wire.audio import is_audible

MESSAGES_KEPT = 50_000  # of one stream, some 15 MB: over eight minutes; later ones are counted and left out
_SHOWN_CHARACTERS = 64  # of a string that is not known to be harmless

_SPOKEN = frozenset(
    {"text", "delta", "system_prompt", "greeting", "instructions", "result", "arguments", "args"}
)
_SECRET = frozenset({"token", "resume_token", "payload", "audio", "data", "description", "tools", "digit"})

log = structlog.get_logger(subsystem="calls")

LegName = Literal["phone", "agent"]


class Captures:
    """Keeps messages while a stream lives and writes them when it has ended. Without a folder: nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._messages: dict[str, list[tuple[float, LegName, str, bytes]]] = {}

    def tap(self, stream: str, leg: LegName) -> Callable[[str, bytes], None] | None:
        """What a leg calls with each message, and its direction as seen from the relay."""
        if self._folder is None:
            return None
        messages = self._messages.setdefault(stream, [])

        def keep(direction: str, text: bytes) -> None:
            if len(messages) < MESSAGES_KEPT:
                messages.append((trio.current_time(), leg, direction, text))

        return keep

    async def write(self, stream: str) -> None:
        """Write the file of a stream. A folder that cannot be written costs the capture, never the call."""
        messages = self._messages.pop(stream, [])
        if self._folder is None or not messages:
            return
        try:
            await trio.to_thread.run_sync(partial(_write, self._folder / f"{stream}.jsonl", messages))
        except OSError as problem:
            log.warning("capture not written", problem=str(problem))


def _write(path: Path, messages: list[tuple[float, LegName, str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    began = messages[0][0]
    with path.open("wb") as file:
        for at, leg, direction, text in messages:
            line = {
                "at": round(at - began, 4),
                "leg": leg,
                "direction": direction,
                "message": _redact(_read(text)),
            }
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def _read(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return f"<{len(text)} bytes that are no JSON>"


def _redact(value: Any, key: str = "") -> Any:
    if key == "data" and isinstance(value, str) and not is_audible(value):
        return f"<{len(value)} data, silence>"  # what a replay of the call has to know of its sound
    if key in _SPOKEN or key in _SECRET:
        return f"<{len(value)} {key}>" if isinstance(value, str | list | dict) else value
    if isinstance(value, dict):
        return {name: _redact(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_redact(each) for each in value]
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"<{len(value)} characters>"
    return value
