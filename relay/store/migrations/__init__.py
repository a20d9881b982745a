"""Bring a database up to date: all of it, or nothing.

Knows no query of the ledger. A migration is never edited after a release; the next one is added behind it.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError

from relay.store.records import StoreError

_LOCK = 0x72656C6179  # any number, the same on every node
_PATIENCE_MILLISECONDS = 60_000  # a node that starts beside us may be in the middle of it


def upgrade(connection: sa.Connection) -> None:
    """Apply what is missing, in the transaction of this connection; nodes that start together take turns."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {_PATIENCE_MILLISECONDS}")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as problem:
        raise StoreError(
            "the database was made by a newer version of this program: install that"
        ) from problem
