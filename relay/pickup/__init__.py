"""Tells by its words what has picked up: a person, a machine that records, one that asks who calls.

Knows no call: text in, a kind out. What machines say is data: `phrases.toml`.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib import resources

from pydantic import TypeAdapter

_APOSTROPHES = re.compile(r"['\u2019\u02bc]")
_NO_WORD = re.compile(r"[\W_]+")
_ALWAYS_HEARD = "en"  # telephones speak it whatever the language of their owner is


class Kind(StrEnum):
    """What something said on the telephone sounds like."""

    PERSON = "person"  # or nothing that is known: the benefit of the doubt
    MACHINE = "machine"
    SCREENING = "screening"
    WAITING = "waiting"  # of a screening: nobody has been reached yet


def kind_of(text: str, language: str) -> Kind:
    """What a final transcript of the callee's sounds like.

    `language` is a BCP 47 tag of which the first part counts; in a language without phrases all are tried. A
    screening counts before a voicemail:
    it may offer to take a message, too.
    """
    languages = _phrases()
    primary = language.partition("-")[0].lower()
    tried = {primary, _ALWAYS_HEARD} if primary in languages else set(languages)
    said = f" {_plain(text)} "
    for kind in (Kind.SCREENING, Kind.MACHINE, Kind.WAITING):
        if any(phrase in said for name in sorted(tried) for phrase in languages[name].get(kind, ())):
            return kind
    return Kind.PERSON


def count_words(text: str) -> int:
    """How many words were said."""
    return len(_plain(text).split())


def _plain(text: str) -> str:
    """Lower-case words without accents and apostrophes, one space between them."""
    folded = unicodedata.normalize("NFKD", _APOSTROPHES.sub("", text.casefold()))
    bare = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return _NO_WORD.sub(" ", bare).strip()


@cache
def _phrases() -> Mapping[str, Mapping[Kind, tuple[str, ...]]]:
    """Read once: the file ships in the package and does not change while we run."""
    text = (resources.files(__name__) / "phrases.toml").read_text("utf-8")
    languages = TypeAdapter(dict[str, dict[Kind, tuple[str, ...]]]).validate_python(tomllib.loads(text))
    return {
        name: {kind: tuple(f" {_plain(phrase)} " for phrase in phrases) for kind, phrases in kinds.items()}
        for name, kinds in languages.items()
    }
