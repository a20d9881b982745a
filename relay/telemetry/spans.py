"""A call as a trace: a span for the call itself, and one for each part of it that takes time.

Knows no OpenTelemetry, no clock and no socket; made of the finished record, so that no frame and no wait ever
pays for it. Ids follow from the call's own: every node gives a call the same ones, and a tool's service is
told of its span before that span exists. Speech, numbers and arguments are no part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from relay.outcomes import Blame, Ending, Reason
from relay.store.records import CallRecord, Kind

CALL: Final = "call"
TOOL: Final = "tool"
Attribute = str | bool | int | float

# Which lines of the timeline begin a part and which end it; what is open at the end of the call ends there.
PARTS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "dial": (
        frozenset({"dialing"}),
        frozenset({"sid learnt", "refused by the carrier", "ambiguous", "not permitted", "dialing"}),
    ),
    "ring": (frozenset({"sid learnt"}), frozenset({"answered", "ended"})),
    "twiml": (frozenset({"document fetched"}), frozenset({"stream admitted", "document fetched"})),
    "stream": (frozenset({"stream admitted"}), frozenset({"leaving", "taken over", "stream admitted"})),
    "session": (
        frozenset({"stream admitted", "agent lost"}),
        frozenset({"agent lost", "agent gone", "leaving", "taken over", "stream admitted"}),
    ),
    "opening": (frozenset({"opening started"}), frozenset({"opening heard", "agent lost", "leaving"})),
    "farewell": (
        frozenset({"goodbye begun", "winding up", "opted out"}),
        frozenset({"goodbye heard", "goodbye undone", "leaving"}),
    ),
}
_WITHIN: Final = {"session": "stream", "opening": "session", "turn": "session", TOOL: "session"}
_FAILURES: Final = frozenset(
    {"refused by the carrier", "ambiguous", "not permitted", "agent lost", "taken over"}
)
# What begins or ends a part and says no more than that; everything else is shown as a moment of the call.
_TOLD: Final = frozenset().union(*(begins | ends for begins, ends in PARTS.values())) - {"opted out"} | {TOOL}


@dataclass(frozen=True, slots=True)
class Moment:
    """Something of the timeline that takes no time."""

    name: str
    at: datetime
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a call. `key` names it within the call, `parent` is the key of the part that it is within."""

    key: str
    name: str
    began_at: datetime
    ended_at: datetime
    parent: str | None
    attributes: Mapping[str, Attribute]
    failure: str = ""
    moments: tuple[Moment, ...] = ()


def trace_id(call_id: str) -> int:
    """The 128 bits by which all nodes know the trace of a call."""
    return int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:16], "big")


def span_id(call_id: str, key: str) -> int:
    """The 64 bits of one span of it."""
    return int.from_bytes(hashlib.sha256(f"{call_id} {key}".encode()).digest()[:8], "big")


def traceparent(call_id: str, run_id: str) -> str:
    """What a tool's service is told of the run that asks it (W3C Trace Context, level 1, sampled)."""
    return f"00-{trace_id(call_id):032x}-{span_id(call_id, f'{TOOL}/{run_id}'):016x}-01"


def spans_of(record: CallRecord) -> list[Span]:
    """The trace of a call that has ended, the call itself first."""
    ended_at = record.ended_at or record.entries[-1].at
    parts = _Parts(record.started_at)
    for entry in record.entries:
        body = entry.body or {}
        if entry.kind is Kind.TURN:
            seconds = body["agent_seconds"] + body["relay_seconds"]
            parts.add("turn", entry.at, seconds, attributes=_plain(body))
        elif entry.kind is Kind.EVENT and body["event"] == TOOL:
            failure = "" if body["ok"] else "the tool failed"
            parts.add(TOOL, entry.at, body["seconds"], body.get("run"), _plain(body), failure)
        elif entry.kind is Kind.EVENT:
            parts.follow(body, entry.at)
    return [_whole(record, ended_at, tuple(parts.moments)), *parts.close(ended_at)]


def _whole(record: CallRecord, ended_at: datetime, moments: tuple[Moment, ...]) -> Span:
    known: dict[str, Attribute | None] = {
        "call.id": record.id,
        "call.sid": record.sid,
        "call.agent": record.agent,
        "call.purpose": record.purpose,
        "call.attempts": record.attempt + 1,
        "call.duration_seconds": record.duration_seconds,
        "ending.blame": record.ending.blame.value if record.ending else None,
        "ending.reason": record.ending.reason.value if record.ending else None,
    }
    attributes = {name: value for name, value in known.items() if value is not None}
    return Span(CALL, CALL, record.started_at, ended_at, None, attributes, _failure(record.ending), moments)


def _failure(ending: Ending | None) -> str:
    """Why a call counts as failed; one that somebody wanted to end does not."""
    if ending is None or (
        ending.blame not in (Blame.CARRIER, Blame.AGENT) and ending.reason is not Reason.CRASHED
    ):
        return ""
    return f"{ending.blame.value} {ending.reason.value}"


class _Parts:
    """The parts as the timeline is read, those that are still open among them."""

    def __init__(self, began_at: datetime) -> None:
        self.moments: list[Moment] = []
        self._began_at = began_at
        self._open: dict[str, Span] = {}
        self._done: list[Span] = []
        self._begun = 0

    def follow(self, body: Mapping[str, Any], at: datetime) -> None:
        """A line of the timeline ends parts, begins others, or is a moment by itself."""
        event = body["event"]
        for name, (begins, ends) in PARTS.items():
            if event in ends and name in self._open:
                self._end(name, at, event if event in _FAILURES else "")
            if event in begins and name not in self._open:
                self._open[name] = self._span(name, at, at, None, {})
        if event == "session" and (session := self._open.get("session")):
            self._open["session"] = replace(session, attributes={"session.id": body["session_id"]})
        elif event not in _TOLD:
            self.moments.append(Moment(event, at, _plain(body)))

    def add(
        self,
        name: str,
        at: datetime,
        seconds: float,
        key: str | None = None,
        attributes: Mapping[str, Attribute] = {},
        failure: str = "",
    ) -> None:
        """A part that is told when it is over."""
        began_at = max(at - timedelta(seconds=seconds), self._began_at)
        self._done.append(replace(self._span(name, began_at, at, key, attributes), failure=failure))

    def close(self, at: datetime) -> Iterator[Span]:
        """All of them; what is open ends now."""
        for name in list(self._open):
            self._end(name, at, "")
        return iter(self._done)

    def _end(self, name: str, at: datetime, failure: str) -> None:
        self._done.append(replace(self._open.pop(name), ended_at=at, failure=failure))

    def _span(
        self,
        name: str,
        began_at: datetime,
        ended_at: datetime,
        key: str | None,
        known: Mapping[str, Attribute],
    ) -> Span:
        self._begun += 1
        around = self._open.get(_WITHIN.get(name, ""))
        parent = around.key if around else CALL
        return Span(f"{name}/{key or self._begun}", name, began_at, ended_at, parent, known)


def _plain(body: Mapping[str, Any]) -> dict[str, Attribute]:
    """What of a line can be an attribute."""
    return {
        name: value
        for name, value in body.items()
        if name != "event" and isinstance(value, str | bool | int | float)
    }
