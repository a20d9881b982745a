"""The chain over a call's diary: an altered or missing entry shows, an erased one is known as erased.

Knows no SQL and no clock. Each entry has a salted seal of its content, and a link over the link before it,
its place, its kind, its instant and the seal. Erasing takes content and salt: the seal then gives nothing
away, and the links still hold.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

SALT_BYTES = 16  # as many as a guess at a short content would have to try


class Integrity(StrEnum):
    """What the chain says of a call."""

    INTACT = "intact"
    ERASED = "erased"  # whole, but for content that was taken out on purpose
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Verification:
    """The word of the chain; `where` says in which entry it is broken, and how."""

    integrity: Integrity
    where: str = ""


@dataclass(frozen=True, slots=True)
class SealedEntry:
    """One entry as it is kept. `body` (canonical JSON) and `salt` are None once erased."""

    position: int
    kind: str
    at: datetime
    body: str | None
    salt: bytes | None
    seal: str
    link: str


def canonical(body: Mapping[str, Any]) -> str:
    """The one spelling of a content: ASCII, so that every database keeps it, and no character is refused."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)


def seal_entry(previous: str, position: int, kind: str, at: datetime, body: str, salt: bytes) -> SealedEntry:
    """The next entry of a chain; `previous` is the link before it, the call's id for the first one."""
    seal = _seal(salt, body)
    return SealedEntry(position, kind, at, body, salt, seal, _link(previous, position, kind, at, seal))


def verify(call_id: str, entries: Sequence[SealedEntry], length: int, head: str) -> Verification:
    """Whether these are all the entries that were written; `length` and `head` are the call's own."""
    previous, erased = call_id, False
    for position, entry in enumerate(entries):
        if entry.position != position:
            return _broken(position, "is missing")
        if _link(previous, position, entry.kind, entry.at, entry.seal) != entry.link:
            return _broken(position, "is not the one that was written")
        if entry.body is None or entry.salt is None:
            if entry.body is not None or entry.salt is not None:
                return _broken(position, "lost half of itself")
            erased = True
        elif not hmac.compare_digest(_seal(entry.salt, entry.body), entry.seal):
            return _broken(position, "has another content than was sealed")
        previous = entry.link
    if len(entries) != length or previous != head:
        return _broken(len(entries), "is missing" if len(entries) < length else "was added")
    return Verification(Integrity.ERASED if erased else Integrity.INTACT)


def _broken(position: int, how: str) -> Verification:
    return Verification(Integrity.BROKEN, f"entry {position} {how}")


def _seal(salt: bytes, body: str) -> str:
    return hmac.new(salt, body.encode(), hashlib.sha256).hexdigest()


def _link(previous: str, position: int, kind: str, at: datetime, seal: str) -> str:
    instant = at.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256("\n".join((previous, str(position), kind, instant, seal)).encode()).hexdigest()
