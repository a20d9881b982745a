"""The key under which phone numbers are hashed, for the ledger's lists to outlive the numbers.

Knows no number and no store. Who loses the key can no longer tell which erased numbers must not be called.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from relay.shapes import SHORTEST_KEY
from relay.store.records import StoreError

KEY_FILE = "subject.key"
KEY_BYTES = 32  # of chance, in hexadecimal digits


def load_subject_key(data_dir: Path) -> bytes:
    """The key of this folder; made at the first call, once, however many processes ask.

    It is text: RELAY_SUBJECT_KEY with the content of the file is the same key, on whatever node. Raises
    OSError, and StoreError for a file that is no key: a new one would orphan every hash under the old.
    """
    file = data_dir / KEY_FILE
    if not file.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        _make(file)
    key = file.read_bytes()
    if len(key) < SHORTEST_KEY:
        raise StoreError(f"{file} has {len(key)} bytes and not {SHORTEST_KEY}: bring it back from a copy")
    return key


def _make(file: Path) -> None:
    """Whole or not at all, and never over another one: the first who links it wins."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(secrets.token_hex(KEY_BYTES).encode())
            opened.flush()
            os.fsync(opened.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
    finally:
        draft.unlink()
