"""The record of one call: what it is, and the diary that only ever grows.

Knows no SQL, no clock and no socket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from relay.actions import Role
from relay.carrier import MachineDetection
from relay.costs import OF_A_NODE, totals
from relay.outcomes import Ending


class StoreError(Exception):
    """The store could not do what was asked."""


class StoreRefused(StoreError):
    """The store is up and will not take this: trying again would change nothing."""


class Status(StrEnum):
    """Where a call is. Ranks only rise."""

    QUEUED = "queued"
    DIALING = "dialing"
    UNKNOWN = "unknown"
    RINGING = "ringing"
    LIVE = "live"
    ENDED = "ended"

    @property
    def rank(self) -> int:
        """Position in the order above."""
        return _RANKS[self]


_RANKS = {status: rank for rank, status in enumerate(Status)}


class Kind(StrEnum):
    """What an entry of the diary tells."""

    INTENT = "intent"  # what was asked for: the first entry of every diary
    EVENT = "event"
    LINE = "line"  # something said
    HEARD = "heard"  # what the person heard of something said, known a moment later
    TURN = "turn"  # how long the person waited for an answer
    TOOL = "tool"
    COST = "cost"
    VERDICT = "verdict"  # the gate's word: by its digest before a dial, whole when it is asked again
    ENDING = "ending"  # the final record: behind it stands only what came late


# Of one call and each kind. Past that `events_left_out` says how many are missing, and the call goes on.
ENTRIES_OF_A_KIND = 2000
ENTRIES_OF_AN_EVENT = 500  # of one name: what is said again and again leaves room for what proves something
ENTRIES_OF_A_CALL = ENTRIES_OF_A_KIND * len(Kind)  # what comes after the end is dropped past that
ENDED = "ended"  # the note of whoever writes the final record


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a diary; `body` is None once it was erased."""

    kind: Kind
    at: datetime
    body: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """One thing said, as far as it was heard; `interrupted` when the person spoke over it.

    `unheard` is the rest of what the agent meant to say.
    """

    role: Role
    text: str
    at: datetime
    interrupted: bool
    unheard: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """What is to be written of a call: its entries from position `first` on, and where it stands.

    Writing it twice is writing it once. `fence` is the number under which the writer owns the call.
    """

    call_id: str
    fence: int
    first: int
    entries: tuple[Entry, ...]
    status: Status
    sid: str | None
    answered_at: datetime | None
    ended_at: datetime | None
    ending: Ending | None
    details: dict[str, Any]


DETAILS = (
    "stream_sid",
    "session_id",
    "answered_by",
    "counts",
    "notices",
    "events_left_out",
)  # the fields of a record that nothing is looked up by


@dataclass(slots=True)
class CallRecord:
    """Everything that is known of one call. Durations in seconds, instants in UTC.

    `from_` is the caller id, `seller` whom we call for; `state` and `zone` are what the request said of the
    address (ISO 3166-2, IANA). `owner` is the node that holds it, `fence` the number under which it does,
    `attempt` the newest stream, `kept` how many entries the store has. `to` is empty once it was erased.
    """

    id: str
    to: str
    agent: str
    started_at: datetime
    time_limit_seconds: int
    record: bool = False
    machine_detection: MachineDetection = "off"
    purpose: str = "informational"
    variables: dict[str, str] = field(default_factory=dict)
    from_: str = ""
    seller: str = ""
    state: str | None = None
    zone: str | None = None
    idempotency_key: str | None = None
    request_digest: str | None = None
    owner: str | None = None
    fence: int = 0
    attempt: int = 0
    status: Status = Status.QUEUED
    sid: str | None = None
    stream_sid: str | None = None
    session_id: str | None = None
    answered_at: datetime | None = None
    answered_by: str | None = None
    ended_at: datetime | None = None
    carrier_confirmed_at: datetime | None = None
    ending: Ending | None = None
    counts: dict[str, int] = field(default_factory=dict)
    notices: list[dict[str, Any]] = field(default_factory=list)
    events_left_out: int = 0
    entries: list[Entry] = field(default_factory=list)
    kept: int = 0
    _room: Counter[tuple[Kind, str]] = field(init=False, default_factory=Counter, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.entries:
            self.entries.append(Entry(Kind.INTENT, self.started_at, self.intent()))
        for entry in self.entries:
            self._room.update(_bounds_of(entry).keys())

    def intent(self) -> dict[str, Any]:
        """What was asked for, as the first entry keeps it."""
        return {
            "to": self.to,
            "agent": self.agent,
            "purpose": self.purpose,
            "variables": self.variables,
            "time_limit": self.time_limit_seconds,
            "record": self.record,
            "machine_detection": self.machine_detection,
            "from": self.from_,
            "seller": self.seller,
            "state": self.state,
            "zone": self.zone,
        }

    # ---- what happens -------------------------------------------------------------------------------------

    def raise_status(self, status: Status) -> None:
        """Take a later status; an earlier one changes nothing."""
        if status.rank > self.status.rank:
            self.status = status

    def note(self, at: datetime, event: str, /, **fields: Any) -> None:
        """Add a line to the timeline."""
        self._add(Kind.EVENT, at, {"event": event, **fields})

    def transcribe(self, line: TranscriptLine, reply: str | None = None) -> None:
        """Add a line to the transcript; one of the agent's names the reply in which it was said."""
        said = {"role": line.role, "text": line.text, "interrupted": line.interrupted}
        self._add(Kind.LINE, line.at, {**said, "reply": reply} if reply else said)

    def heard(self, at: datetime, reply: str, **fields: Any) -> None:
        """Add what came of a reply at the phone, and how many `characters` of its line were heard."""
        self._add(Kind.HEARD, at, {"reply": reply, **fields})

    def measure(self, at: datetime, **seconds: float | None) -> None:
        """Add the latency of a turn: all of it, the agent's share and ours."""
        self._add(Kind.TURN, at, dict(seconds))

    def ran(self, at: datetime, tool: str, *, run: str, arguments: Mapping[str, Any], result: str) -> None:
        """Add a tool run; arguments and result may be as private as speech."""
        self._add(Kind.TOOL, at, {"tool": tool, "run": run, "arguments": dict(arguments), "result": result})

    def charge(
        self, at: datetime, item: str, amount: str | None, currency: str | None, **of_what: Any
    ) -> None:
        """Add a cost: a decimal number in words, never a float; None where nobody knows the price."""
        self._add(Kind.COST, at, {"item": item, "amount": amount, "currency": currency, **of_what})

    def judged(self, at: datetime, attempt: int, digest: str, code: str | None, **whole: Any) -> None:
        """Add the gate's word on one attempt: the digest of its verdict, and the refusal if it was one.

        A verdict that the ledger does not have beside the attempt comes with it, as `verdict`.
        """
        self._add(Kind.VERDICT, at, {"attempt": attempt, "digest": digest, "refusal": code, **whole})

    def take_in(self, entries: Iterable[Entry]) -> None:
        """Add what another node had to say of this call."""
        for entry in entries:
            self._add(entry.kind, entry.at, entry.body or {})

    def _add(self, kind: Kind, at: datetime, body: dict[str, Any]) -> None:
        entry = Entry(kind, at, body)
        bounds = _bounds_of(entry)
        if any(self._room[what] >= most for what, most in bounds.items()):
            self.events_left_out += 1
        else:
            self._room.update(bounds.keys())
            self.entries.append(entry)

    def progress(self) -> Progress:
        """What the store does not have yet. The first one after the ending closes the diary."""
        closed = next((n for n, entry in enumerate(self.entries, 1) if entry.kind is Kind.ENDING), None)
        if closed is None and self.ending is not None:
            at = self.ended_at or self.entries[-1].at
            self.entries.append(Entry(Kind.ENDING, at, self._final()))
        return Progress(
            call_id=self.id,
            fence=self.fence,
            first=self.kept,
            entries=tuple(self.entries[self.kept : closed]),
            status=self.status,
            sid=self.sid,
            answered_at=self.answered_at,
            ended_at=self.ended_at,
            ending=self.ending,
            details={name: getattr(self, name) for name in DETAILS},
        )

    def _final(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in DETAILS},
            "sid": self.sid,
            "answered_at": self.answered_at and stamp(self.answered_at),
            "ended_at": self.ended_at and stamp(self.ended_at),
            **(self.ending.as_json() if self.ending else {}),
            "detail": self.ending.detail if self.ending else "",
        }

    # ---- what is shown ------------------------------------------------------------------------------------

    def _bodies(self, kind: Kind) -> list[tuple[datetime, Mapping[str, Any]]]:
        return [
            (entry.at, entry.body) for entry in self.entries if entry.kind is kind and entry.body is not None
        ]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The timeline."""
        return [{"at": stamp(at), **body} for at, body in self._bodies(Kind.EVENT)]

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """The gate's words that stand in the diary alone: those after the dial."""
        return [body["verdict"] for _, body in self._bodies(Kind.VERDICT) if "verdict" in body]

    @property
    def transcript(self) -> list[TranscriptLine]:
        """What was said; of the agent's, what was heard."""
        heard = {reply["reply"]: reply.get("characters") for reply in self.replies}
        lines = []
        for at, body in self._bodies(Kind.LINE):
            text, characters = body["text"], heard.get(body.get("reply"))
            unheard = "" if characters is None else text[characters:].strip()
            text = text if characters is None else text[:characters]
            lines.append(TranscriptLine(body["role"], text, at, body["interrupted"], unheard))
        return lines

    @property
    def past(self) -> list[tuple[str, str]]:
        """What a session is to know that goes on with this call: what was said, and what tools answered."""
        past = [(line.at, str(line.role), line.text) for line in self.transcript]
        past += [(at, f"function {body['tool']}", body["result"]) for at, body in self._bodies(Kind.TOOL)]
        return [(who, text) for _, who, text in sorted(past, key=lambda each: each[0])]

    @property
    def replies(self) -> list[dict[str, Any]]:
        """What came of each reply at the phone. One whose text came late was told twice."""
        told = {body["reply"]: {"at": stamp(at), **body} for at, body in self._bodies(Kind.HEARD)}
        return list(told.values())

    @property
    def first_audio_seconds(self) -> float | None:
        """From the answer to the agent's first sound at the phone."""
        for at, body in self._bodies(Kind.EVENT):
            if body["event"] == "opening started" and self.answered_at is not None:
                queued_seconds = float(body.get("queued_seconds", 0.0))
                return round((at - self.answered_at).total_seconds() + queued_seconds, 3)
        return None

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
            "from": self.from_,
            "seller": self.seller,
            "purpose": self.purpose,
            "state": self.state,
            "zone": self.zone,
            "ending": self.ending and self.ending.as_json(),
            "ending_detail": self.ending.detail if self.ending else None,
            "started_at": stamp(self.started_at),
            "answered_at": self.answered_at and stamp(self.answered_at),
            "ended_at": self.ended_at and stamp(self.ended_at),
            "carrier_confirmed_at": self.carrier_confirmed_at and stamp(self.carrier_confirmed_at),
            "duration_seconds": self.duration_seconds,
            "time_limit": self.time_limit_seconds,
            "answered_by": self.answered_by,
            "stream_sid": self.stream_sid,
            "session_id": self.session_id,
            "transcript": [
                {
                    "role": line.role,
                    "text": line.text,
                    "at": stamp(line.at),
                    "interrupted": line.interrupted,
                    **({"unheard": line.unheard} if line.unheard else {}),
                }
                for line in self.transcript
            ],
            "replies": self.replies,
            "events": self.events,
            "events_left_out": self.events_left_out,
            "first_audio_seconds": self.first_audio_seconds,
            "latency": [dict(body) for _, body in self._bodies(Kind.TURN)],
            "tools": [{"at": stamp(at), **body} for at, body in self._bodies(Kind.TOOL)],
            "cost": totals([body for _, body in self._bodies(Kind.COST)]),
            "costs": [{"at": stamp(at), **body} for at, body in self._bodies(Kind.COST)],
            "counts": self.counts,
            "notices": self.notices,
        }


def left_to_tell(entries: Iterable[Entry]) -> list[Entry]:
    """What a node still has to say of a call that it has lost: how it ends and what it costs is another's."""
    return [entry for entry in entries if not _is_the_owners(entry.kind, entry.body or {})]


def _is_the_owners(kind: Kind, body: Mapping[str, Any]) -> bool:
    is_end = kind is Kind.ENDING or (kind is Kind.EVENT and body.get("event") == ENDED)
    return is_end or (kind is Kind.COST and body.get("item") not in OF_A_NODE)


def stamp(at: datetime) -> str:
    """An instant as the contract writes it: ISO 8601, UTC, milliseconds."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _bounds_of(entry: Entry) -> dict[tuple[Kind, str], int]:
    """Of what an entry is one, and how many of that a diary holds at most."""
    event = (entry.body or {}).get("event") if entry.kind is Kind.EVENT else None
    bounds = {(entry.kind, ""): ENTRIES_OF_A_KIND}
    return bounds if event is None else {**bounds, (entry.kind, event): ENTRIES_OF_AN_EVENT}
