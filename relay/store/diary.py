"""How a diary is sealed as it grows, and read back.

Knows no database; salts are the one thing here that is random.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from relay.store.chain import SALT_BYTES, SealedEntry, canonical, seal_entry
from relay.store.records import Entry, Kind, Progress


def seal_fresh(progress: Progress, length: int, head: str, started_at: datetime) -> list[SealedEntry]:
    """What of this progress is not in a diary of that length yet, sealed behind its head."""
    missing = progress.first - length
    # What was torn out of a spool leaves a gap. It is said, so that all else keeps its position.
    lost = [Entry(Kind.EVENT, started_at, {"event": "entry lost"})] * max(missing, 0)
    return seal([*lost, *progress.entries[max(-missing, 0) :]], length, head)


def seal(entries: Iterable[Entry], length: int, head: str) -> list[SealedEntry]:
    """These entries as they go behind the head of a diary of that length."""
    fresh = []
    for position, entry in enumerate(entries, length):
        body, salt = canonical(entry.body or {}), secrets.token_bytes(SALT_BYTES)
        fresh.append(seal_entry(head, position, entry.kind.value, entry.at, body, salt))
        head = fresh[-1].link
    return fresh


def unseal(diary: Iterable[SealedEntry]) -> list[Entry]:
    """The entries as a record has them."""
    return [Entry(Kind(e.kind), e.at, None if e.body is None else json.loads(e.body)) for e in diary]


def as_fields(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Entries as a wish carries them."""
    return [{"kind": e.kind.value, "at": e.at.isoformat(), "body": e.body} for e in entries]


def from_fields(fields: Iterable[dict[str, Any]]) -> list[Entry]:
    """Entries as a wish brought them."""
    return [Entry(Kind(e["kind"]), datetime.fromisoformat(e["at"]), e["body"]) for e in fields]


def heard_at(entries: Sequence[Entry]) -> datetime | None:
    """When the person last said something."""
    lines = (entry for entry in entries if entry.kind is Kind.LINE and entry.body is not None)
    return max((line.at for line in lines if line.body and line.body["role"] == "callee"), default=None)
