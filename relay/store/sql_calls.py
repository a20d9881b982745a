"""The statements about calls and their diaries.

Knows no thread, no deadline and no engine: every function is work within a transaction that it is given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from relay.outcomes import Blame, Ending, Reason
from relay.store.chain import SealedEntry, Verification, canonical, verify
from relay.store.diary import as_fields, from_fields, heard_at, seal, seal_fresh, unseal
from relay.store.ledger import LEASE_SECONDS, PAST_LIMIT_SECONDS, WishKind, Written
from relay.store.records import (
    ENTRIES_OF_A_CALL,
    CallRecord,
    Entry,
    Kind,
    Progress,
    Status,
    StoreRefused,
)
from relay.store.tables import attempts, calls, entries, wishes

_SEALED = tuple(SealedEntry.__dataclass_fields__)  # the columns of an entry, besides the call's id
_CHUNK = 1000  # rows in one INSERT: far below what either database allows in parameters


def add(
    connection: sa.Connection, record: CallRecord, progress: Progress, subject: str, now: datetime
) -> CallRecord | None:
    """Insert a new call; the earlier one under the same idempotency key instead, where there is one."""
    if record.idempotency_key is not None and (earlier := under_key(connection, record.idempotency_key)):
        return earlier
    if connection.scalar(sa.select(calls.c.id).where(calls.c.id == record.id)) is not None:
        raise StoreRefused(f"there is a call {record.id} already")
    intent = record.intent()
    columns = {name: intent.pop(name) for name in ("agent", "purpose")}
    connection.execute(
        calls.insert().values(
            id=record.id,
            idempotency_key=record.idempotency_key,
            request_digest=record.request_digest,
            subject=subject,
            number=intent.pop("to"),
            **columns,
            intent=canonical(intent),
            status=Status.QUEUED.value,
            rank=Status.QUEUED.rank,
            started_at=record.started_at,
            details="{}",
            time_limit_seconds=record.time_limit_seconds,
            attempt=0,
            owner=record.owner,
            fence=record.fence,
            lease_until=now + timedelta(seconds=LEASE_SECONDS) if record.owner else None,
            length=0,
            head=record.id,
            transcript_purged=False,
            erased=False,
        )
    )
    _advance(connection, _row(connection, record.id), progress)
    return None


def write(connection: sa.Connection, progress: Progress) -> Written:
    """Append what is new and raise what rises, if the writer still owns the call and it has not ended."""
    row = _row(connection, progress.call_id)
    if row is None:
        return Written.UNKNOWN
    if row.fence != progress.fence:
        return Written.STALE
    if row.rank >= Status.ENDED.rank:
        return Written.SETTLED
    _advance(connection, row, progress)
    if progress.ending is not None:
        _append_told(connection, progress.call_id)
    return Written.KEPT


def _row(connection: sa.Connection, call_id: str) -> Any:
    return connection.execute(sa.select(calls).where(calls.c.id == call_id).with_for_update()).one_or_none()


def _advance(connection: sa.Connection, row: Any, progress: Progress) -> None:
    here = calls.c.id == progress.call_id
    fresh = seal_fresh(progress, row.length, row.head, row.started_at)
    values: dict[str, Any] = {
        **_append(connection, row, fresh),
        "conversed_at": heard_at(progress.entries) or row.conversed_at,
        "answered_at": min(filter(None, (row.answered_at, progress.answered_at)), default=None),
        "details": canonical(progress.details),
    }
    if progress.answered_at is not None and row.overdue_at is None:
        seconds = row.time_limit_seconds + PAST_LIMIT_SECONDS
        values["overdue_at"] = progress.answered_at + timedelta(seconds=seconds)
    if progress.ending is not None:
        ending = progress.ending
        values |= {
            "blame": ending.blame.value,
            "reason": ending.reason.value,
            "detail": _plain(ending.detail),
        }
        values["ended_at"] = progress.ended_at
    connection.execute(calls.update().where(here).values(values))
    status = progress.status if progress.ending is None else Status.ENDED
    connection.execute(
        calls.update().where(here, calls.c.rank < status.rank).values(status=status.value, rank=status.rank)
    )
    if progress.sid is not None and row.sid is None:
        learn_sid(connection, progress.call_id, progress.sid)


def _append(connection: sa.Connection, row: Any, fresh: Sequence[SealedEntry]) -> dict[str, Any]:
    """Add these entries, and answer with what that makes of the call."""
    rows = [{"call_id": row.id} | {name: getattr(entry, name) for name in _SEALED} for entry in fresh]
    for start in range(0, len(rows), _CHUNK):
        connection.execute(entries.insert(), rows[start : start + _CHUNK])
    return {"length": row.length + len(fresh), "head": fresh[-1].link if fresh else row.head}


def tell(connection: sa.Connection, call_id: str, told: Sequence[Entry]) -> None:
    """Leave these entries for the owner, or put them behind the end."""
    row = _row(connection, call_id)
    if row is None:
        return
    if row.rank >= Status.ENDED.rank:
        _append_late(connection, row, told)
    else:
        fields = canonical({"entries": as_fields(told)})
        connection.execute(wishes.insert().values(call_id=call_id, kind=WishKind.NOTED.value, fields=fields))


def _append_told(connection: sa.Connection, call_id: str) -> None:
    """The owner did not come to write these down before the end."""
    noted = (wishes.c.call_id == call_id) & (wishes.c.kind == WishKind.NOTED.value)
    found = connection.execute(sa.select(wishes.c.fields).where(noted).order_by(wishes.c.id)).scalars()
    told = [entry for fields in found for entry in from_fields(json.loads(fields)["entries"])]
    connection.execute(wishes.delete().where(noted))
    _append_late(connection, _row(connection, call_id), told)


def _append_late(connection: sa.Connection, row: Any, told: Sequence[Entry]) -> None:
    if told and not row.erased and row.length + len(told) <= ENTRIES_OF_A_CALL:
        values = _append(connection, row, seal(told, row.length, row.head))
        connection.execute(calls.update().where(calls.c.id == row.id).values(values))


def learn_sid(connection: sa.Connection, call_id: str, sid: str) -> bool:
    """Take the sid where neither it nor the call has another partner."""
    holder = connection.execute(sa.select(calls.c.id).where(calls.c.sid == sid)).scalar()
    if holder is None:
        connection.execute(calls.update().where(calls.c.id == call_id, calls.c.sid.is_(None)).values(sid=sid))
        holder = connection.execute(sa.select(calls.c.id).where(calls.c.sid == sid)).scalar()
    return holder == call_id


def confirm(connection: sa.Connection, call_id: str, at: datetime) -> None:
    """Write the confirmation, the first time."""
    unconfirmed = (calls.c.id == call_id) & calls.c.carrier_confirmed_at.is_(None)
    connection.execute(calls.update().where(unconfirmed).values(carrier_confirmed_at=at))


# ---- reading ---------------------------------------------------------------------------------------------


def get(connection: sa.Connection, call_id: str) -> CallRecord | None:
    """One call with its diary."""
    row = connection.execute(sa.select(calls).where(calls.c.id == call_id)).one_or_none()
    if row is None:
        return None
    return _record(row, unseal(sealed(connection, call_id)))


def find(connection: sa.Connection, sid: str) -> CallRecord | None:
    """The call with this sid."""
    call_id = connection.execute(sa.select(calls.c.id).where(calls.c.sid == sid)).scalar()
    return None if call_id is None else get(connection, str(call_id))


def under_key(connection: sa.Connection, key: str) -> CallRecord | None:
    """The call with this idempotency key."""
    call_id = connection.execute(sa.select(calls.c.id).where(calls.c.idempotency_key == key)).scalar()
    return None if call_id is None else get(connection, str(call_id))


def recent(connection: sa.Connection, limit: int) -> list[CallRecord]:
    """The newest calls, without their diaries."""
    newest = sa.select(calls).order_by(calls.c.started_at.desc(), calls.c.id.desc()).limit(limit)
    return listed(connection, newest)


def listed(connection: sa.Connection, wanted: sa.Select[Any]) -> list[CallRecord]:
    """Calls without their diaries."""
    return [_record(row, []) for row in connection.execute(wanted)]


def dials_since(connection: sa.Connection, at: datetime) -> int:
    """Permitted attempts since then."""
    found = connection.execute(sa.select(sa.func.count()).where(attempts.c.permitted_at > at)).scalar()
    return int(found or 0)


def _record(row: Any, diary: list[Entry]) -> CallRecord:
    """A row as a record."""
    intent = json.loads(row.intent)
    return CallRecord(
        id=row.id,
        to=row.number or "",
        agent=row.agent,
        started_at=row.started_at,
        time_limit_seconds=row.time_limit_seconds,
        record=intent.get("record", False),
        machine_detection=intent.get("machine_detection", "off"),
        purpose=row.purpose,
        variables=intent.get("variables", {}),
        from_=intent.get("from", ""),
        seller=intent.get("seller", ""),
        state=intent.get("state"),
        zone=intent.get("zone"),
        idempotency_key=row.idempotency_key,
        request_digest=row.request_digest,
        owner=row.owner,
        fence=row.fence,
        attempt=row.attempt,
        status=Status(row.status),
        sid=row.sid,
        answered_at=row.answered_at,
        ended_at=row.ended_at,
        carrier_confirmed_at=row.carrier_confirmed_at,
        ending=row.blame and Ending(Blame(row.blame), Reason(row.reason), row.detail or ""),
        entries=diary,
        kept=row.length,
        **json.loads(row.details),
    )


# ---- proof -----------------------------------------------------------------------------------------------


def sealed(connection: sa.Connection, call_id: str) -> list[SealedEntry]:
    """The diary as it is kept."""
    columns = [entries.c[name] for name in _SEALED]
    diary = sa.select(*columns).where(entries.c.call_id == call_id).order_by(entries.c.position)
    return [SealedEntry(*row) for row in connection.execute(diary)]


def check(connection: sa.Connection, call_id: str) -> Verification | None:
    """What the chain says of a call."""
    row = connection.execute(sa.select(calls).where(calls.c.id == call_id)).one_or_none()
    if row is None:
        return None
    return verify(call_id, sealed(connection, call_id), row.length, row.head)


def blank(connection: sa.Connection, call_ids: Sequence[str], kinds: Sequence[Kind] | None = None) -> int:
    """Take content and salt out of the entries of these calls; how many."""
    doomed = entries.c.call_id.in_(call_ids) & entries.c.body.is_not(None)
    if kinds is not None:
        doomed &= entries.c.kind.in_([kind.value for kind in kinds])
    return connection.execute(entries.update().where(doomed).values(body=None, salt=None)).rowcount


def _plain(text: str) -> str:
    """Without what PostgreSQL cannot keep in a text: NUL, and halves of characters."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
