"""The tables of the ledger, as SQLAlchemy Core sees them.

Knows no query. What the databases enforce besides (nothing is altered in or deleted from a diary or a
suppression list) is in the migrations, which make these tables and are never edited after a release.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

metadata = sa.MetaData()


class Instant(sa.TypeDecorator[datetime]):
    """An aware UTC instant; SQLite keeps it without saying so."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the store takes aware instants only")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite counts up by itself only in a column that is an INTEGER and nothing else.
_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _column(name: str, kind: Any, /, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, **{"nullable": False, **options})


# `subject` is everywhere the keyed hash of a phone number; None once its person was erased.
calls = sa.Table(
    "calls",
    metadata,
    _column("id", sa.Text, primary_key=True),
    _column("sid", sa.Text, nullable=True, unique=True),
    _column("idempotency_key", sa.Text, nullable=True, unique=True),
    _column("request_digest", sa.Text, nullable=True),
    _column("subject", sa.Text, nullable=True),
    _column("number", sa.Text, nullable=True),
    _column("agent", sa.Text),
    _column("purpose", sa.Text),
    _column("intent", sa.Text),  # JSON: what else was asked for
    _column("status", sa.Text),
    _column("rank", sa.Integer),  # of the status: only rises
    _column("started_at", Instant),
    _column("answered_at", Instant, nullable=True),
    _column("conversed_at", Instant, nullable=True),  # when the person last said something
    _column("ended_at", Instant, nullable=True),
    _column("carrier_confirmed_at", Instant, nullable=True),
    _column("blame", sa.Text, nullable=True),
    _column("reason", sa.Text, nullable=True),
    _column("detail", sa.Text, nullable=True),
    _column("details", sa.Text),  # JSON: what nothing is looked up by
    _column("time_limit_seconds", sa.Integer),
    _column("attempt", sa.Integer),  # the newest stream
    _column("owner", sa.Text, nullable=True),
    _column("fence", sa.Integer),
    _column("lease_until", Instant, nullable=True),
    _column("overdue_at", Instant, nullable=True),  # from then on anybody may hang it up
    _column("length", sa.Integer),  # of the diary
    _column("head", sa.Text),  # the newest link of its chain
    _column("transcript_purged", sa.Boolean),
    _column("erased", sa.Boolean),
    sa.Index("calls_by_start", "started_at"),
    sa.Index("calls_by_subject", "subject"),
    sa.Index("calls_alive", "owner", sqlite_where=sa.text("rank < 5"), postgresql_where=sa.text("rank < 5")),
)

entries = sa.Table(
    "entries",
    metadata,
    _column("call_id", sa.Text, primary_key=True),
    _column("position", sa.Integer, primary_key=True, autoincrement=False),
    _column("kind", sa.Text),
    _column("at", Instant),
    _column("body", sa.Text, nullable=True),
    _column("salt", sa.LargeBinary, nullable=True),
    _column("seal", sa.Text),
    _column("link", sa.Text),
)

attempts = sa.Table(
    "attempts",
    metadata,
    _column("call_id", sa.Text, primary_key=True),
    _column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    _column("subject", sa.Text, nullable=True),
    _column("permitted_at", Instant, nullable=True),
    _column("judged_at", Instant),
    _column("verdict", sa.Text),  # JSON: it holds no number
    sa.Index("attempts_by_subject", "subject", "permitted_at"),
    sa.Index("attempts_by_permit", "permitted_at"),
)

wishes = sa.Table(
    "wishes",
    metadata,
    _column("id", _COUNTER, primary_key=True),
    _column("call_id", sa.Text),
    _column("kind", sa.Text),
    _column("fields", sa.Text),
    sa.Index("wishes_by_call", "call_id"),
)

suppressions = sa.Table(
    "suppressions",
    metadata,
    _column("id", _COUNTER, primary_key=True),
    _column("subject", sa.Text),
    _column("number", sa.Text, nullable=True),
    _column("list", sa.Text),
    _column("listing", sa.Text),
    _column("source", sa.Text),
    _column("who", sa.Text),
    _column("at", Instant),
    sa.Index("suppressions_by_subject", "subject"),
)

list_copies = sa.Table(
    "list_copies",
    metadata,
    _column("list", sa.Text, primary_key=True),
    _column("as_of", Instant),
)

consents = sa.Table(
    "consents",
    metadata,
    _column("id", _COUNTER, primary_key=True),
    _column("subject", sa.Text),
    _column("form", sa.Text),
    _column("purpose", sa.Text),
    _column("seller", sa.Text),
    _column("given_at", Instant),
    _column("text_shown", sa.Text),
    _column("source", sa.Text),
    _column("expires_at", Instant, nullable=True),
    sa.Index("consents_by_subject", "subject"),
)

revocations = sa.Table(
    "revocations",
    metadata,
    _column("id", _COUNTER, primary_key=True),
    _column("subject", sa.Text),
    _column("at", Instant),
    _column("purpose", sa.Text, nullable=True),
    _column("seller", sa.Text, nullable=True),
    sa.Index("revocations_by_subject", "subject"),
)

nonces = sa.Table(
    "nonces",
    metadata,
    _column("nonce", sa.Text, primary_key=True),
    _column("spent_at", Instant),
    sa.Index("nonces_by_age", "spent_at"),
)

# An instant with the offset of the wall clock that it was given in.
slots = sa.Table(
    "slots",
    metadata,
    _column("id", _COUNTER, primary_key=True),
    _column("calendar", sa.Text),
    _column("starts_at", Instant),
    _column("offset_minutes", sa.Integer),
    _column("note", sa.Text),
    _column("confirmation", sa.Text, nullable=True, unique=True),
    _column("call_id", sa.Text, nullable=True),
    _column("subject", sa.Text, nullable=True),
    _column("number", sa.Text, nullable=True),
    sa.Index("slots_by_time", "calendar", "starts_at", unique=True),
    sa.Index("slots_by_call", "call_id"),
    sa.Index("slots_by_subject", "subject"),
)

accounts = sa.Table(
    "accounts",
    metadata,
    _column("id", _COUNTER, primary_key=True),
    _column("book", sa.Text),
    _column("account", sa.Text),
    _column("subject", sa.Text),
    _column("number", sa.Text),
    _column("fields", sa.Text),  # JSON
    sa.Index("accounts_by_name", "book", "account", unique=True),
    sa.Index("accounts_by_subject", "subject"),
)

callbacks = sa.Table(
    "callbacks",
    metadata,
    _column("id", _COUNTER, primary_key=True),
    _column("callback", sa.Text, unique=True),
    _column("call_id", sa.Text, unique=True),
    _column("agent", sa.Text),
    _column("subject", sa.Text),
    _column("number", sa.Text),
    _column("at", Instant),
    _column("offset_minutes", sa.Integer),
    _column("note", sa.Text),
    _column("wished_at", Instant),
    _column("done_at", Instant, nullable=True),
    _column("done_by", sa.Text, nullable=True),
    sa.Index("callbacks_by_subject", "subject"),
)
