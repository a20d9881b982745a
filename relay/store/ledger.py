"""What a store promises: calls and who owns them, numbers and what they asked of us, and proof of both.

Knows no database; `MemoryStore` and `SqlStore` keep these promises, and one suite holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from relay.compliance.case import OWN_LIST, Consent, DialRequest, Facts, Revocation
from relay.compliance.gate import Permit, Refused
from relay.store.books import Books
from relay.store.chain import SealedEntry, Verification
from relay.store.records import CallRecord, Entry, Progress

LEASE_SECONDS = 30.0  # a node that was silent for so long has lost its calls
PAST_LIMIT_SECONDS = 30.0  # past its own time limit a call is anybody's to hang up, whoever holds it

Judge = Callable[[Facts], Permit | Refused]


def stream_nonce(call_id: str, attempt: int) -> str:
    """What is spent when a stream begins; nonces are kept for longer than any call lasts."""
    return f"stream:{call_id}:{attempt}"


class Written(StrEnum):
    """What became of a write. Only the first two kept anything."""

    KEPT = "kept"
    SPOOLED = "spooled"  # the store is down: kept on this machine until it is back
    STALE = "stale"  # the call is another node's by now, or was when it ended
    SETTLED = "settled"  # it has its final record already, by the same hand, and keeps it
    UNKNOWN = "unknown"  # there is no such call


class WishKind(StrEnum):
    """What somebody wants of the node that owns a call."""

    GOODBYE = "goodbye"
    HANG_UP = "hang-up"
    STOP = "stop"  # the number was put on the suppression list, or took its consent back
    CALLBACK = "callback"  # the carrier told another node how far it has come
    KEY = "key"  # a key pressed during the disclosure, posted to another node
    ANSWERED = "answered"  # somebody has picked up, earlier than the owner may know
    FETCHED = "fetched"  # another node has served the document, or refused to
    ANSWERED_BY = "answered-by"  # the verdict of the carrier's answering-machine detection
    STREAM = "stream"  # the carrier's word on a stream
    TRANSFERRED = "transferred"  # the carrier's word on a transfer, told to another node
    NOTED = "noted"  # lines for the diary, from somebody who may not write them


@dataclass(frozen=True, slots=True)
class Wish:
    """A wish as its owner finds it."""

    call_id: str
    kind: WishKind
    fields: dict[str, Any] = field(default_factory=dict)


class Listing(StrEnum):
    """Which way an entry of a suppression list goes."""

    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One line of a suppression list, which is only ever added to; the newest about a number counts.

    `number` is None where it was erased: `subject`, its keyed hash, still stops a call. `position` is the
    store's.
    """

    number: str | None
    listing: Listing
    source: str
    who: str
    at: datetime
    list: str = OWN_LIST
    subject: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class Erasure:
    """The calls whose content is gone, and those that must end first: ask again then.

    `recordings` are the carrier's, by SID: nothing here reaches those, and nothing here names them any more.
    """

    erased: tuple[str, ...]
    deferred: tuple[str, ...]
    recordings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each class is kept after its call ended; suppressions and consents are kept for ever."""

    transcript_seconds: float = 30 * 86_400.0  # what was said, and what tools were told and answered
    evidence_seconds: float = 6 * 365 * 86_400.0  # everything else: five years are the law's, one is a margin
    nonce_seconds: float = 86_400.0
    audio_seconds: float = 30 * 86_400.0  # the relay's own recordings, which are no part of the ledger


@dataclass(frozen=True, slots=True)
class Purge:
    """How much a run of the retention job took out."""

    transcripts: int
    evidence: int
    nonces: int


class Writes(Protocol):
    """Whatever takes what is new of calls."""

    async def write(self, progress: Progress) -> Written:
        """Write what is new of a call; with an ending that is its final record, exactly once."""

    async def save(self, record: CallRecord) -> Written:
        """Write what is new of this record, and remember that it is written."""
        progress = record.progress()
        written = await self.write(progress)
        if written in (Written.KEPT, Written.SPOOLED):
            record.kept = max(record.kept, progress.first + len(progress.entries))
        return written


class Store(Writes, Protocol):
    """Whatever keeps the ledger. Every method may raise StoreError; nothing else goes wrong by exception.

    Nodes are named by whoever starts them; a name must not outlive its process. `books` are what the tools
    of agents work with.
    """

    books: Books

    # ---- calls --------------------------------------------------------------------------------------------

    async def add(self, record: CallRecord) -> CallRecord:
        """Keep a new call, for good, before anything is dialled for it. Raises StoreError for a known id.

        Answers with the call under the same idempotency key where there is one already; nothing is kept then.
        With `record.owner` that node holds it for LEASE_SECONDS.
        """

    async def learn_sid(self, call_id: str, sid: str) -> bool:
        """Take the carrier's name of a call, on any node; False when either is otherwise engaged."""

    async def confirm(self, call_id: str, at: datetime) -> None:
        """The carrier says that the call is over: the one field written after the end."""

    async def tell(self, call_id: str, entries: Sequence[Entry]) -> None:
        """Add to a diary from any node: through the owner while the call lives, behind its end afterwards.

        What the owner has not written down by the end goes behind it too. An erased call takes nothing.
        """

    async def unconfirmed(self, since: datetime, lease_seconds: float, limit: int) -> list[CallRecord]:
        """Calls begun since then that have ended while the carrier has not said so; without their diaries.

        Each is given to one node for the time of a lease, and to none while the lease of its call lasts.
        """

    async def get(self, call_id: str) -> CallRecord | None:
        """One call, with its whole diary."""

    async def find(self, sid: str) -> CallRecord | None:
        """The call of ours that the carrier knows by this name."""

    async def under_key(self, key: str) -> CallRecord | None:
        """The call under this idempotency key."""

    async def recent(self, limit: int) -> list[CallRecord]:
        """The newest calls, newest first; their diaries may be left out."""

    async def dials_since(self, at: datetime) -> int:
        """How many attempts were permitted since then, on all nodes: what the spend cap counts."""

    # ---- who owns a call ----------------------------------------------------------------------------------

    async def claim(self, call_id: str, node: str, lease_seconds: float) -> int | None:
        """The fence under which the node owns a live call that nobody else holds; None if it may not."""

    async def renew(self, node: str, call_ids: Collection[str], lease_seconds: float) -> dict[str, int]:
        """Hold these calls for longer; the fences of those that are this node's. No seconds: let them go."""

    async def lost(self, node: str, call_ids: Collection[str]) -> set[str]:
        """Which of these calls another node has by now."""

    async def take_over(self, call_id: str, attempt: int, node: str, lease_seconds: float) -> int | None:
        """The fence under which the node owns the call from this stream on, whoever held it before.

        None when the call has ended, or when somebody took it over for this attempt already.
        """

    async def take_stream(
        self, call_id: str, attempt: int, sid: str, node: str, lease_seconds: float
    ) -> int | None:
        """The fence under which the node owns the call whose stream has begun there, whoever held it before.

        Who held it already keeps its fence. None when the call has ended, is at another attempt, is known to
        the carrier by another name, or when this stream has begun before, on whatever node.
        """

    async def orphans(self, node: str, lease_seconds: float, limit: int) -> list[CallRecord]:
        """Claim live calls that nobody holds any more, or that are past their limit. No two nodes get one."""

    async def unread(self, node: str) -> set[int]:
        """The CALLBACK wishes, by their numbers, at live calls of others that the carrier has ended."""

    async def bereaved(
        self, unread: Collection[int], node: str, lease_seconds: float, limit: int
    ) -> list[CallRecord]:
        """Claim the calls at which these wishes still lie: the lease of their owner may last, it does not.

        No two nodes get one, for with the call its CALLBACK wishes are taken.
        """

    async def wish(self, call_id: str, kind: WishKind, fields: dict[str, Any] | None = None) -> bool:
        """Leave a wish for the owner; False when the call has ended or never was."""

    async def wishes(self, node: str) -> list[Wish]:
        """What is wished of the calls of this node, each told once, oldest first."""

    async def spend(self, nonce: str) -> bool:
        """True for the first one who asks, on whatever node."""

    # ---- numbers ------------------------------------------------------------------------------------------

    async def facts(self, number: str, now: datetime, besides: str = "") -> Facts:
        """All that is on record about a number, of seven days before `now`, without the call `besides`.

        A call counts as one attempt, however many permits it took: it rings once at most.
        """

    async def permit(self, request: DialRequest, judge: Judge) -> Permit | Refused:
        """Judge by the facts and store the verdict as one step: no other permit comes between, on any node.

        Only a permit counts as an attempt; one that was permitted stays counted. `judge` must be pure and
        quick, and read its clock when it is called: the step may have waited for another one.
        """

    async def verdicts(self, call_id: str) -> list[dict[str, Any]]:
        """The newest verdict of each attempt, as JSON."""

    async def suppress(self, entries: Sequence[ListEntry]) -> None:
        """Add to the suppression lists, for good; owners of live calls to what is added find STOP wishes."""

    async def listings(self, number: str) -> list[ListEntry]:
        """All that the lists ever said of a number, in order."""

    async def suppressions(self, after: int, limit: int) -> list[ListEntry]:
        """The entries behind position `after`, in order: pages of an export."""

    async def renew_list(self, name: str, as_of: datetime) -> None:
        """Our copy of an imported list is now true as of then."""

    async def consent(self, number: str, consent: Consent) -> None:
        """Record a consent."""

    async def revoke(self, number: str, revocation: Revocation) -> None:
        """Record that consent was taken back; owners of the live calls that it concerns find STOP wishes."""

    # ---- proof and privacy --------------------------------------------------------------------------------

    async def sealed(self, call_id: str) -> list[SealedEntry]:
        """The diary as it is kept, seals and links included: for an evidence pack."""

    async def verify(self, call_id: str) -> Verification | None:
        """Whether the call's diary is what was written; None for a call that is not here."""

    async def export_subject(self, number: str) -> dict[str, Any]:
        """Everything on record about a number, as JSON."""

    async def erase(self, number: str, who: str, at: datetime) -> Erasure:
        """Take out what is known of a person; digests stay, and a keyed hash on the suppression list."""

    async def erased(self, call_ids: Collection[str]) -> set[str]:
        """Those of these calls whose person was erased, or whose period is over."""

    async def purge(self, retention: Retention, now: datetime) -> Purge:
        """Take out what is past its period."""
