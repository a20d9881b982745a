"""A recorded call once more through the dialogue: what it decides at each message, and did it then.

Knows a capture's lines and the pure rules; no clock, no socket. What a capture leaves out it cannot replay:
words and keys are gone, so that an opt-out by them shows as a difference, and so does a wish of ours. On a
stream with which a call goes on (`ID.1.jsonl`) nothing tells what was heard before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from relay.actions import (
    Action,
    CancelReply,
    ClearPhoneAudio,
    CreateReply,
    EndCall,
    ForwardToAgent,
    Note,
    PlayOnPhone,
    RunTool,
    SendMark,
    SendToolResult,
    Transcribe,
)
from relay.dialogue import Dialogue
from relay.goodbye import AfterTool
from relay.outcomes import Ending, Reason, WireError
from relay.terms import Terms
from relay.tools.builtin import end_call, mark_do_not_call
from relay.wire import agent as agent_wire
from relay.wire import phone as phone_wire
from relay.wire.audio import payload_seconds

_LEFT_OUT: Final = re.compile(r"<(\d+) ([a-z_]+)(, silence)?>")
_ODD_BYTES: Final = 20  # audio comes in multiples of so many: what the padding of base64 does not tell
_PATIENCE_SECONDS: Final = 12.0  # after the last message: for a session or an opening, not for a lull
_OURS: Final = frozenset({"session.update", "session.resume", "session.end"})  # said by the call, not decided
_THEN: Final[dict[str, AfterTool]] = {
    end_call.name: Reason.GOODBYE,
    "transfer_call": Reason.TRANSFERRED,
}


class ReplayError(ValueError):
    """The file is no capture; the text says where."""


@dataclass(frozen=True, slots=True)
class Step:
    """One action, and what it answers. `at` counts in seconds from the first message."""

    at: float
    cause: str
    action: Action


@dataclass(slots=True)
class Replay:
    """What came of it. `difference` is the first place where the recording went another way."""

    steps: list[Step] = field(default_factory=list)
    ending: Ending | None = None  # None: a leg was lost, or we ended it; the dialogue did not
    difference: str | None = None


def read_capture(content: bytes) -> list[dict[str, Any]]:
    """The lines of a capture (RELAY_CAPTURE_DIR, or the folder `capture` of a demo). Raises ReplayError."""
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = orjson.loads(text)
            lines.append({name: line[name] for name in ("at", "leg", "direction", "message")})
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ReplayError(
                f"line {number} is no capture's: they are in RELAY_CAPTURE_DIR and a demo's `capture`"
            ) from None
    if not lines:
        raise ReplayError("it is empty")
    return lines


def replay(lines: Sequence[dict[str, Any]], terms: Terms | None = None) -> Replay:
    """Tell the dialogue everything again, each message at its time.

    `terms`: those of the call, where its agent had limits, sounds or keys of its own.
    """
    player = _Player(lines, terms or Terms(session={}, time_limit_seconds=math.inf))
    for line in lines:
        player.feed(line)
    player.wait_on()
    return player.conclude(lines)


class _Player:
    def __init__(self, lines: Sequence[dict[str, Any]], terms: Terms) -> None:
        sids = (line["message"].get("streamSid") for line in lines if isinstance(line["message"], dict))
        self._dialogue = Dialogue(
            next(filter(None, sids), ""),
            terms,
            now=float(lines[0]["at"]),
        )
        self._replay = Replay()
        self._at = 0.0  # of the last message
        self._tools: dict[str, str] = {}  # names, by the id of the run

    def feed(self, line: dict[str, Any]) -> None:
        """One message of the recording, and the alarms that rang before it."""
        at, message = float(line["at"]), line["message"]
        self._at = at
        while self._dialogue.deadline <= at and self._replay.ending is None:
            self._ring()
        if self._replay.ending is not None or not isinstance(message, dict):
            return
        text = orjson.dumps(_restore(message))
        cause = f"{line['leg']} {message.get('type') or message.get('event')}"
        try:
            if line["direction"] == "in" and line["leg"] == "phone":
                self._take(at, cause, self._dialogue.on_phone(phone_wire.decode(text), at))
            elif line["direction"] == "in":
                self._take(at, cause, self._dialogue.on_agent(agent_wire.decode(text), at))
            elif message.get("type") == "tool.result":
                self._return(at, message)
        except WireError:
            pass  # it was counted and dropped then, too

    def _return(self, at: float, message: dict[str, Any]) -> None:
        call_id, is_error = str(message["call_id"]), bool(message.get("is_error"))
        then = _THEN.get(self._tools.get(call_id, ""))
        actions = self._dialogue.errands.result(call_id, "", at, is_error=is_error, then=then)
        self._take(at, f"tool {self._tools.get(call_id, '')}", actions)

    def _ring(self) -> None:
        at = self._dialogue.deadline
        self._take(at, "alarm", self._dialogue.on_time(at))

    def _take(self, at: float, cause: str, actions: Iterable[Action]) -> None:
        for action in actions:
            if self._replay.ending is not None:
                return
            self._replay.steps.append(Step(at, cause, action))
            match action:
                case EndCall(ending):
                    self._replay.ending = self._dialogue.leaving or ending
                case RunTool(call_id, name):
                    self._tools[call_id] = name
                    if name == mark_do_not_call.name:
                        self._take(at, cause, self._dialogue.opt_out("tool", at))

    def wait_on(self) -> None:
        """What the dialogue does when nothing more comes."""
        until = self._at + _PATIENCE_SECONDS
        while self._replay.ending is None and self._dialogue.deadline <= until:
            self._ring()

    def conclude(self, lines: Sequence[dict[str, Any]]) -> Replay:
        """Lay what was decided beside what was said then."""
        decided = [said for step in self._replay.steps if (said := _spoken(step.action))]
        recorded = [
            said for line in lines if line["direction"] == "out" and (said := _recorded(line["message"]))
        ]
        for number, said in enumerate(recorded):
            if number >= len(decided) or decided[number] != said:
                instead = decided[number] if number < len(decided) else "nothing"
                self._replay.difference = f"then it said {said}, now {instead}"
                return self._replay
        if len(decided) > len(recorded):
            self._replay.difference = f"then it said nothing more, now {decided[len(recorded)]}"
        return self._replay


def describe(action: Action) -> str:
    """One action in one line, without what was said."""
    match action:
        case PlayOnPhone(payload):
            return f"PlayOnPhone {payload_seconds(payload):.3f} s"
        case ForwardToAgent():
            return "ForwardToAgent"
        case SendMark(name):
            return f"SendMark {name}"
        case RunTool(_, name):
            return f"RunTool {name}"
        case SendToolResult(_, _, is_error):
            return f"SendToolResult {'error' if is_error else 'ok'}"
        case Transcribe(role):
            return f"Transcribe {role}"
        case Note(event):
            return f"Note {event}"
        case EndCall(ending):
            return f"EndCall {ending.blame}/{ending.reason}"
        case _:
            return type(action).__name__


def _spoken(action: Action) -> str | None:
    """What goes on the wire by it, as `_recorded` names it; frames are left out."""
    match action:
        case ClearPhoneAudio():
            return "clear"
        case SendMark(name):
            return f"mark {name}"
        case SendToolResult(call_id):
            return f"tool.result {call_id}"
        case CreateReply():
            return "reply.create"
        case CancelReply():
            return "reply.cancel"
        case _:
            return None


def _recorded(message: Any) -> str | None:
    if not isinstance(message, dict):
        return None
    match message.get("event") or message.get("type"):
        case "media" | "input.audio":
            return None
        case "mark":
            return f"mark {message['mark']['name']}"
        case "tool.result":
            return f"tool.result {message['call_id']}"
        case kind if kind in _OURS:
            return None
        case kind:
            return str(kind)


def _restore(value: Any, key: str = "") -> Any:
    """Put something of the same length where a capture has left something out."""
    if isinstance(value, dict):
        return {name: _restore(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_restore(each) for each in value]
    if not isinstance(value, str) or (left_out := _LEFT_OUT.fullmatch(value)) is None:
        return value
    size = int(left_out[1])
    if key in ("payload", "data"):
        return _sound(size, silent=left_out[3] is not None)
    return {} if key in ("arguments", "args") else "0" if key == "digit" else "x" * size


def _sound(size: int, *, silent: bool) -> str:
    """Base64 of so many characters: of the lengths that they may stand for, the one that audio has."""
    whole = size * 3 // 4
    padding = next((pad for pad in range(3) if (whole - pad) % _ODD_BYTES == 0), 0)
    return ("/" if silent else "A") * (size - padding) + "=" * padding
