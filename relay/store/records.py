"""The record of one call, and the interface of whatever keeps records.

Knows no SQL, no clock and no socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from relay.actions import Role
from relay.outcomes import Ending

TIMELINE_EVENTS = (
    2000  # of one call; past that the timeline says how many were left out, and the call goes on
)
TRANSCRIPT_LINES = 2000  # likewise


class Status(StrEnum):
    """Where a call is. Ranks only rise."""

    QUEUED = "queued"
    DIALING = "dialing"
    UNKNOWN = "unknown"
    RINGING = "ringing"
    LIVE = "live"
    ENDED = "ended"


_RANKS = {status: rank for rank, status in enumerate(Status)}


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """One thing said; `interrupted` when the person spoke over it."""

    role: Role
    text: str
    at: datetime
    interrupted: bool


@dataclass(slots=True)
class CallRecord:
    """Everything that is known of one call. Durations in seconds, instants in UTC."""

    id: str
    to: str
    agent: str
    started_at: datetime
    time_limit_seconds: int
    record: bool = False
    machine_detection: str = "off"
    purpose: str = "informational"
    variables: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    request_digest: str | None = None
    status: Status = Status.QUEUED
    sid: str | None = None
    stream_sid: str | None = None
    session_id: str | None = None
    answered_at: datetime | None = None
    answered_by: str | None = None
    ended_at: datetime | None = None
    carrier_confirmed_at: datetime | None = None
    ending: Ending | None = None
    transcript: list[TranscriptLine] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    latency: list[dict[str, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    notices: list[dict[str, Any]] = field(default_factory=list)
    events_left_out: int = 0

    def raise_status(self, status: Status) -> None:
        """Take a later status; an earlier one changes nothing."""
        if _RANKS[status] > _RANKS[self.status]:
            self.status = status

    def note(self, at: datetime, event: str, /, **fields: Any) -> None:
        """Add a line to the timeline."""
        if len(self.events) < TIMELINE_EVENTS:
            self.events.append({"at": _stamp(at), "event": event, **fields})
        else:
            self.events_left_out += 1

    def transcribe(self, line: TranscriptLine) -> None:
        """Add a line to the transcript."""
        if len(self.transcript) < TRANSCRIPT_LINES:
            self.transcript.append(line)

    def measure(self, agent_seconds: float, relay_seconds: float) -> None:
        """Add the latency of a turn: from its commit to the agent's first sound, and what we added to that."""
        if len(self.latency) < TRANSCRIPT_LINES:
            self.latency.append({"agent_seconds": agent_seconds, "relay_seconds": relay_seconds})

    @property
    def duration_seconds(self) -> float:
        """From the answer to the end; 0 for a call that was never answered."""
        if self.answered_at is None or self.ended_at is None:
            return 0.0
        return round((self.ended_at - self.answered_at).total_seconds(), 3)

    def summary(self) -> dict[str, Any]:
        """What placing a call answers with."""
        return {
            "id": self.id,
            "sid": self.sid,
            "status": self.status.value,
            "to": self.to,
            "agent": self.agent,
        }

    def as_json(self) -> dict[str, Any]:
        """The whole record as the contract shows it."""
        return {
            **self.summary(),
            "purpose": self.purpose,
            "ending": self.ending and self.ending.as_json(),
            "ending_detail": self.ending.detail if self.ending else None,
            "started_at": _stamp(self.started_at),
            "answered_at": self.answered_at and _stamp(self.answered_at),
            "ended_at": self.ended_at and _stamp(self.ended_at),
            "carrier_confirmed_at": self.carrier_confirmed_at and _stamp(self.carrier_confirmed_at),
            "duration_seconds": self.duration_seconds,
            "time_limit": self.time_limit_seconds,
            "answered_by": self.answered_by,
            "stream_sid": self.stream_sid,
            "session_id": self.session_id,
            "transcript": [
                {"role": line.role, "text": line.text, "at": _stamp(line.at), "interrupted": line.interrupted}
                for line in self.transcript
            ],
            "events": self.events,
            "events_left_out": self.events_left_out,
            "latency": self.latency,
            "counts": self.counts,
            "notices": self.notices,
        }


class Store(Protocol):
    """Whatever keeps records. Every method may raise StoreError."""

    async def add(self, record: CallRecord) -> CallRecord:
        """Keep a new call before anything is dialled for it.

        Answers with the call under the same idempotency key where there is one already; nothing is kept then.
        """

    async def save(self, record: CallRecord) -> None:
        """Keep the final record; exactly once a call."""

    async def confirm(self, call_id: str, at: datetime) -> None:
        """The carrier says that the call is over: the one field written after the end."""

    async def get(self, call_id: str) -> CallRecord | None:
        """One call."""

    async def recent(self, limit: int) -> list[CallRecord]:
        """The newest calls, newest first."""


class StoreError(Exception):
    """The store could not do what was asked."""


def _stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
