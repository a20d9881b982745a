"""The statements about who owns a call, and what is wished of its owner.

Knows no thread, no deadline and no engine. Every change of hands raises the fence, so that whoever held the
call before can write nothing any more, however late it wakes up.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from relay.compliance.case import Purpose, Revocation
from relay.store import sql_calls
from relay.store.chain import canonical
from relay.store.ledger import Wish, WishKind, stream_nonce
from relay.store.records import CallRecord, Status
from relay.store.tables import calls, nonces, wishes

_ALIVE = calls.c.rank < Status.ENDED.rank
_TOLD = wishes.c.kind == WishKind.CALLBACK.value


def claim(
    connection: sa.Connection, call_id: str, node: str, lease_seconds: float, now: datetime
) -> int | None:
    """Take a call that is free, or hold on to one's own."""
    until = now + timedelta(seconds=lease_seconds)
    mine = (calls.c.owner == node) & (calls.c.lease_until > now)
    kept = calls.update().where(calls.c.id == call_id, _ALIVE, mine).values(lease_until=until)
    fence = connection.execute(kept.returning(calls.c.fence)).scalar()
    if fence is None:
        fence = connection.execute(
            _seize(node, until).where(calls.c.id == call_id, _ALIVE, _free(now))
        ).scalar()
    return fence


def renew(
    connection: sa.Connection, node: str, call_ids: Collection[str], lease_seconds: float, now: datetime
) -> dict[str, int]:
    """Hold on to what of these is still one's own."""
    until = now + timedelta(seconds=lease_seconds)
    mine = calls.c.id.in_(call_ids) & (calls.c.owner == node) & _ALIVE
    held = calls.update().where(mine).values(lease_until=until)
    return {row.id: row.fence for row in connection.execute(held.returning(calls.c.id, calls.c.fence))}


def lost(connection: sa.Connection, node: str, call_ids: Collection[str]) -> set[str]:
    """What of these is another's."""
    anothers = sa.select(calls.c.id).where(calls.c.id.in_(call_ids), calls.c.owner != node)
    return set(connection.execute(anothers).scalars())


def take_over(
    connection: sa.Connection, call_id: str, attempt: int, node: str, lease_seconds: float, now: datetime
) -> int | None:
    """Take a call whose earlier stream is over, whoever holds it."""
    until = now + timedelta(seconds=lease_seconds)
    taken = _seize(node, until).where(calls.c.id == call_id, _ALIVE, calls.c.attempt < attempt)
    return connection.execute(taken.values(attempt=attempt)).scalar()


def take_stream(
    connection: sa.Connection,
    call_id: str,
    attempt: int,
    sid: str,
    node: str,
    lease_seconds: float,
    now: datetime,
) -> int | None:
    """Take a call with its stream. The row stays locked: of two at once the later one finds the nonce."""
    here = calls.c.id == call_id
    current = sa.select(calls.c.owner).where(here, _ALIVE, calls.c.attempt == attempt).with_for_update()
    found = connection.execute(current).one_or_none()
    if found is None or not sql_calls.learn_sid(connection, call_id, sid):
        return None
    if not spend(connection, stream_nonce(call_id, attempt), now):
        return None
    until = now + timedelta(seconds=lease_seconds)
    if found.owner == node:
        kept = calls.update().where(here).values(lease_until=until)
        return connection.execute(kept.returning(calls.c.fence)).scalar()
    return connection.execute(_seize(node, until).where(here)).scalar()


def orphans(
    connection: sa.Connection, node: str, lease_seconds: float, limit: int, now: datetime
) -> list[CallRecord]:
    """Claim what nobody holds or what is past its limit; rows that another node is claiming are passed by."""
    overdue = calls.c.overdue_at <= now
    due = sa.select(calls.c.id).where(_ALIVE, _free(now) | overdue).order_by(calls.c.started_at).limit(limit)
    found = list(connection.execute(due.with_for_update(skip_locked=True)).scalars())
    until = now + timedelta(seconds=lease_seconds)
    # An overdue call is the claimer's for one lease, lest the next one take it while it is being hung up.
    ceded = sa.case((overdue, until), else_=calls.c.overdue_at)
    connection.execute(_seize(node, until).where(calls.c.id.in_(found)).values(overdue_at=ceded))
    return _records(connection, found)


def unread(connection: sa.Connection, node: str) -> set[int]:
    """What owners have not read of the ends of their calls. Mostly there is nothing; no row is locked."""
    left = sa.select(wishes.c.id).join(calls, calls.c.id == wishes.c.call_id)
    return set(connection.execute(left.where(_TOLD, *_over(node))).scalars())


def bereaved(
    connection: sa.Connection,
    unread: Collection[int],
    node: str,
    lease_seconds: float,
    limit: int,
    now: datetime,
) -> list[CallRecord]:
    """Claim calls together with their wishes: of two nodes at once the later one finds none left."""
    left = sa.select(calls.c.id).join(wishes, calls.c.id == wishes.c.call_id).distinct()
    due = left.where(wishes.c.id.in_(unread), *_over(node)).order_by(calls.c.id).limit(limit)
    some = list(connection.execute(due).scalars())
    read = wishes.delete().where(wishes.c.id.in_(unread), wishes.c.call_id.in_(some))
    taken = set(connection.execute(read.returning(wishes.c.call_id)).scalars())
    connection.execute(wishes.delete().where(_TOLD, wishes.c.call_id.in_(taken)))
    seized = _seize(node, now + timedelta(seconds=lease_seconds)).where(calls.c.id.in_(taken), *_over(node))
    return _records(connection, [row.id for row in connection.execute(seized.returning(calls.c.id))])


def _over(node: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _ALIVE, calls.c.owner != node, calls.c.carrier_confirmed_at.is_not(None)


def _records(connection: sa.Connection, call_ids: Collection[str]) -> list[CallRecord]:
    found = (sql_calls.get(connection, call_id) for call_id in call_ids)
    return [record for record in found if record is not None]


def unconfirmed(
    connection: sa.Connection, since: datetime, lease_seconds: float, limit: int, now: datetime
) -> list[CallRecord]:
    """Ended calls of which the carrier has not said so; rows that another node looks at are passed by."""
    silent = (calls.c.started_at > since) & ~_ALIVE & calls.c.sid.is_not(None)
    silent &= calls.c.carrier_confirmed_at.is_(None) & _free(now)
    due = sa.select(calls.c.id).where(silent).order_by(calls.c.started_at).limit(limit)
    found = list(connection.execute(due.with_for_update(skip_locked=True)).scalars())
    until = now + timedelta(seconds=lease_seconds)
    connection.execute(calls.update().where(calls.c.id.in_(found)).values(lease_until=until))
    return sql_calls.listed(connection, sa.select(calls).where(calls.c.id.in_(found)))


def _free(now: datetime) -> sa.ColumnElement[bool]:
    return calls.c.lease_until.is_(None) | (calls.c.lease_until <= now)


def _seize(node: str, until: datetime) -> Any:
    seized = calls.update().values(owner=node, lease_until=until, fence=calls.c.fence + 1)
    return seized.returning(calls.c.fence)


# ---- wishes ----------------------------------------------------------------------------------------------


def wish(connection: sa.Connection, call_id: str, kind: WishKind, fields: dict[str, Any]) -> bool:
    """Leave a wish at a live call."""
    alive = connection.execute(sa.select(calls.c.id).where(calls.c.id == call_id, _ALIVE)).scalar()
    if alive is not None:
        connection.execute(wishes.insert().values(call_id=call_id, kind=kind.value, fields=canonical(fields)))
    return alive is not None


def stop_subjects(connection: sa.Connection, subjects: Collection[str], taken: Revocation) -> None:
    """Leave a STOP wish at the live calls to these which this concerns."""
    found = sa.select(calls.c.id, calls.c.purpose, calls.c.intent).where(
        calls.c.subject.in_(subjects), _ALIVE
    )
    stops = [
        {"call_id": row.id, "kind": WishKind.STOP.value, "fields": "{}"}
        for row in connection.execute(found)
        if taken.concerns(Purpose(row.purpose), json.loads(row.intent).get("seller", ""))
    ]
    if stops:
        connection.execute(wishes.insert(), stops)


def told_wishes(connection: sa.Connection, node: str) -> list[Wish]:
    """Hand out the wishes of the calls that a node owns, and forget them."""
    mine = (
        sa.select(wishes)
        .join(calls, calls.c.id == wishes.c.call_id)
        .where(calls.c.owner == node, _ALIVE)
        .order_by(wishes.c.id)
    )
    found = connection.execute(mine).all()
    if found:
        connection.execute(wishes.delete().where(wishes.c.id.in_([row.id for row in found])))
    return [Wish(row.call_id, WishKind(row.kind), json.loads(row.fields)) for row in found]


# ---- nonces ----------------------------------------------------------------------------------------------


def spend(connection: sa.Connection, nonce: str, now: datetime) -> bool:
    """Remember a nonce; False when it was known. Of two at once, the loser's transaction is tried again."""
    known = connection.execute(sa.select(nonces.c.nonce).where(nonces.c.nonce == nonce)).scalar()
    if known is None:
        connection.execute(nonces.insert().values(nonce=nonce, spent_at=now))
    return known is None
