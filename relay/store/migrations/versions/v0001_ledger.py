"""The ledger as it was first released: calls and their diaries, attempts, lists, consents, wishes, nonces.

Knows nothing of the code that uses it: it says what a database looks like after it, whatever comes later.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Instant = sa.DateTime(timezone=True)
Counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Nothing is altered in a diary or a suppression list; erasing takes content and puts nothing in its place.
# table: (what erasing may empty, what must stay)
APPEND_ONLY = {
    "entries": (("body", "salt"), ("call_id", "position", "kind", "at", "seal", "link")),
    "suppressions": (("number",), ("id", "subject", "list", "listing", "source", "who", "at")),
}


def upgrade() -> None:
    """Make the tables, and have the database itself refuse what must not happen to them."""
    _make_calls()
    _make_diaries()
    _make_numbers()
    for table, (emptied, kept) in APPEND_ONLY.items():
        _protect(table, emptied, kept)


def _column(name: str, kind: Any, /, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, **{"nullable": False, **options})


def _make_calls() -> None:
    op.create_table(
        "calls",
        _column("id", sa.Text, primary_key=True),
        _column("sid", sa.Text, nullable=True, unique=True),
        _column("idempotency_key", sa.Text, nullable=True, unique=True),
        _column("request_digest", sa.Text, nullable=True),
        _column("subject", sa.Text, nullable=True),
        _column("number", sa.Text, nullable=True),
        _column("agent", sa.Text),
        _column("purpose", sa.Text),
        _column("intent", sa.Text),
        _column("status", sa.Text),
        _column("rank", sa.Integer),
        _column("started_at", Instant),
        _column("answered_at", Instant, nullable=True),
        _column("conversed_at", Instant, nullable=True),
        _column("ended_at", Instant, nullable=True),
        _column("carrier_confirmed_at", Instant, nullable=True),
        _column("blame", sa.Text, nullable=True),
        _column("reason", sa.Text, nullable=True),
        _column("detail", sa.Text, nullable=True),
        _column("details", sa.Text),
        _column("time_limit_seconds", sa.Integer),
        _column("attempt", sa.Integer),
        _column("owner", sa.Text, nullable=True),
        _column("fence", sa.Integer),
        _column("lease_until", Instant, nullable=True),
        _column("overdue_at", Instant, nullable=True),
        _column("length", sa.Integer),
        _column("head", sa.Text),
        _column("transcript_purged", sa.Boolean),
        _column("erased", sa.Boolean),
    )
    op.create_index(
        "calls_alive",
        "calls",
        ["owner"],
        sqlite_where=sa.text("rank < 5"),
        postgresql_where=sa.text("rank < 5"),
    )
    op.create_index("calls_by_start", "calls", ["started_at"])
    op.create_index("calls_by_subject", "calls", ["subject"])


def _make_diaries() -> None:
    op.create_table(
        "entries",
        _column("call_id", sa.Text, primary_key=True),
        _column("position", sa.Integer, primary_key=True, autoincrement=False),
        _column("kind", sa.Text),
        _column("at", Instant),
        _column("body", sa.Text, nullable=True),
        _column("salt", sa.LargeBinary, nullable=True),
        _column("seal", sa.Text),
        _column("link", sa.Text),
    )
    op.create_table(
        "wishes",
        _column("id", Counter, primary_key=True),
        _column("call_id", sa.Text),
        _column("kind", sa.Text),
        _column("fields", sa.Text),
    )
    op.create_index("wishes_by_call", "wishes", ["call_id"])
    op.create_table(
        "nonces",
        _column("nonce", sa.Text, primary_key=True),
        _column("spent_at", Instant),
    )
    op.create_index("nonces_by_age", "nonces", ["spent_at"])


def _make_numbers() -> None:
    op.create_table(
        "attempts",
        _column("call_id", sa.Text, primary_key=True),
        _column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        _column("subject", sa.Text, nullable=True),
        _column("permitted_at", Instant, nullable=True),
        _column("judged_at", Instant),
        _column("verdict", sa.Text),
    )
    op.create_index("attempts_by_permit", "attempts", ["permitted_at"])
    op.create_index("attempts_by_subject", "attempts", ["subject", "permitted_at"])
    op.create_table(
        "suppressions",
        _column("id", Counter, primary_key=True),
        _column("subject", sa.Text),
        _column("number", sa.Text, nullable=True),
        _column("list", sa.Text),
        _column("listing", sa.Text),
        _column("source", sa.Text),
        _column("who", sa.Text),
        _column("at", Instant),
    )
    op.create_index("suppressions_by_subject", "suppressions", ["subject"])
    op.create_table(
        "list_copies",
        _column("list", sa.Text, primary_key=True),
        _column("as_of", Instant),
    )
    op.create_table(
        "consents",
        _column("id", Counter, primary_key=True),
        _column("subject", sa.Text),
        _column("form", sa.Text),
        _column("purpose", sa.Text),
        _column("seller", sa.Text),
        _column("given_at", Instant),
        _column("text_shown", sa.Text),
        _column("source", sa.Text),
        _column("expires_at", Instant, nullable=True),
    )
    op.create_index("consents_by_subject", "consents", ["subject"])
    op.create_table(
        "revocations",
        _column("id", Counter, primary_key=True),
        _column("subject", sa.Text),
        _column("at", Instant),
        _column("purpose", sa.Text, nullable=True),
        _column("seller", sa.Text, nullable=True),
    )
    op.create_index("revocations_by_subject", "revocations", ["subject"])


def _protect(table: str, emptied: tuple[str, ...], kept: tuple[str, ...]) -> None:
    altered = " OR ".join(
        [*(f"NEW.{name} IS NOT NULL" for name in emptied), *(f"NEW.{name} <> OLD.{name}" for name in kept)]
    )
    refusal = f"{table} are only ever added to"
    if op.get_bind().dialect.name == "sqlite":
        raised = f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
        op.execute(f"CREATE TRIGGER {table}_stay BEFORE DELETE ON {table} {raised}")
        op.execute(f"CREATE TRIGGER {table}_hold BEFORE UPDATE ON {table} WHEN {altered} {raised}")
        return
    op.execute(
        f"CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{refusal}'; END $$"
    )
    refused = f"EXECUTE FUNCTION refuse_{table}()"
    op.execute(f"CREATE TRIGGER {table}_stay BEFORE DELETE ON {table} FOR EACH ROW {refused}")
    op.execute(
        f"CREATE TRIGGER {table}_hold BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({altered}) {refused}"
    )
