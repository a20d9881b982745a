"""The books of agents' tools: appointments, accounts, callbacks.

Knows nothing of the code that uses them: it says what a database looks like after it, whatever comes later.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

Instant = sa.DateTime(timezone=True)
Counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables; nothing that is there is touched."""
    _make_slots()
    _make_accounts()
    _make_callbacks()


def _column(name: str, kind: Any, /, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, **{"nullable": False, **options})


def _make_slots() -> None:
    op.create_table(
        "slots",
        _column("id", Counter, primary_key=True),
        _column("calendar", sa.Text),
        _column("starts_at", Instant),
        _column("offset_minutes", sa.Integer),
        _column("note", sa.Text),
        _column("confirmation", sa.Text, nullable=True, unique=True),
        _column("call_id", sa.Text, nullable=True),
        _column("subject", sa.Text, nullable=True),
        _column("number", sa.Text, nullable=True),
    )
    op.create_index("slots_by_time", "slots", ["calendar", "starts_at"], unique=True)
    op.create_index("slots_by_call", "slots", ["call_id"])
    op.create_index("slots_by_subject", "slots", ["subject"])


def _make_accounts() -> None:
    op.create_table(
        "accounts",
        _column("id", Counter, primary_key=True),
        _column("book", sa.Text),
        _column("account", sa.Text),
        _column("subject", sa.Text),
        _column("number", sa.Text),
        _column("fields", sa.Text),
    )
    op.create_index("accounts_by_name", "accounts", ["book", "account"], unique=True)
    op.create_index("accounts_by_subject", "accounts", ["subject"])


def _make_callbacks() -> None:
    op.create_table(
        "callbacks",
        _column("id", Counter, primary_key=True),
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
    )
    op.create_index("callbacks_by_subject", "callbacks", ["subject"])
