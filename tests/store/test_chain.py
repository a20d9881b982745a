"""What the chain shows: every alteration, every missing entry, and an erasure for what it is.

Must not know any store.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relay.store.chain import Integrity, SealedEntry, canonical, seal_entry, verify
from tests.store.conftest import NOW

CALL = "call_1"


def a_diary(length: int) -> list[SealedEntry]:
    diary: list[SealedEntry] = []
    for position in range(length):
        head = diary[-1].link if diary else CALL
        body = canonical({"event": f"number {position}"})
        diary.append(seal_entry(head, position, "event", NOW, body, bytes([position]) * 16))
    return diary


def integrity(diary: list[SealedEntry], whole: list[SealedEntry]) -> Integrity:
    return verify(CALL, diary, len(whole), whole[-1].link).integrity


ALTERATIONS: list[dict[str, Any]] = [
    {"body": canonical({"event": "another"})},
    {"salt": b"x" * 16},
    {"salt": None},
    {"body": None},
    {"kind": "line"},
    {"at": NOW + timedelta(microseconds=1)},
    {"seal": "0" * 64},
    {"link": "0" * 64},
    {"position": 99},
]


def test_what_was_written_is_intact() -> None:
    assert integrity(a_diary(5), a_diary(5)) is Integrity.INTACT
    assert verify(CALL, [], 0, CALL).integrity is Integrity.INTACT


@given(position=st.integers(0, 4), alteration=st.sampled_from(ALTERATIONS))
def test_every_alteration_shows_and_says_where(position: int, alteration: dict[str, Any]) -> None:
    diary = a_diary(5)
    diary[position] = replace(diary[position], **alteration)
    found = verify(CALL, diary, 5, a_diary(5)[-1].link)
    assert found.integrity is Integrity.BROKEN
    assert f"entry {position} " in found.where


@given(position=st.integers(0, 4))
def test_a_missing_entry_shows(position: int) -> None:
    diary = a_diary(5)
    del diary[position]
    assert integrity(diary, a_diary(5)) is Integrity.BROKEN


def test_an_entry_too_many_shows() -> None:
    assert integrity(a_diary(6), a_diary(5)) is Integrity.BROKEN


def test_the_diary_of_another_call_shows() -> None:
    assert verify("call_2", a_diary(5), 5, a_diary(5)[-1].link).integrity is Integrity.BROKEN


@given(positions=st.sets(st.integers(0, 4), min_size=1))
def test_what_was_erased_is_known_as_erased(positions: set[int]) -> None:
    diary = [replace(e, body=None, salt=None) if e.position in positions else e for e in a_diary(5)]
    assert integrity(diary, a_diary(5)) is Integrity.ERASED


def test_one_content_has_one_spelling() -> None:
    assert (
        canonical({"b": 1, "a": "\0 ☎"}) == canonical({"a": "\0 ☎", "b": 1}) == r'{"a":"\u0000 \u260e","b":1}'
    )
