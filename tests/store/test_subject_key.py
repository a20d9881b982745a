"""The key of the hashes is made once, and is nobody else's to read."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from relay.settings import load_settings
from relay.store import StoreError
from relay.store.subject_key import KEY_BYTES, KEY_FILE, load_subject_key


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "too"
    key = load_subject_key(folder)
    assert len(bytes.fromhex(key.decode())) == KEY_BYTES
    assert load_subject_key(folder) == key


def test_what_the_file_says_can_be_given_to_all_nodes(tmp_path: Path) -> None:
    key = load_subject_key(tmp_path)
    told = load_settings({"RELAY_SUBJECT_KEY": (tmp_path / KEY_FILE).read_text("ascii")}).subject_key
    assert told is not None
    assert told.get_secret_value().encode() == key


def test_nobody_else_may_read_it_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    load_subject_key(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [KEY_FILE]
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_two_folders_have_two_keys(tmp_path: Path) -> None:
    assert load_subject_key(tmp_path / "a") != load_subject_key(tmp_path / "b")


def test_all_who_start_together_have_the_same_key(tmp_path: Path) -> None:
    together = threading.Barrier(8)
    keys: list[bytes] = []

    def start() -> None:
        together.wait()
        keys.append(load_subject_key(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_a_folder_that_cannot_be_written_is_an_error_and_not_another_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        load_subject_key(tmp_path / "file")


def test_half_a_key_is_an_error_and_not_a_new_one(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"half")
    with pytest.raises(StoreError, match="has 4 bytes"):
        load_subject_key(tmp_path)
    assert (tmp_path / KEY_FILE).read_bytes() == b"half"
