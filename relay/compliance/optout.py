"""Hears the wish not to be called again, in the plain words of a final transcript or as a key.

Knows no call and no list: text in, yes or no out. What people say is data: `rules/optout.toml`.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

OPT_OUT_KEY = "9"

_SENTENCE_END = re.compile(r"[.!?;:\u2026\u00a1\u00bf\n]+")
_APOSTROPHES = re.compile(r"['\u2019\u02bc]")
_NO_WORD = re.compile(r"[^\w]+")
# "Stop" is an international word: whatever the language of the call, English is heard too.
_ALWAYS_HEARD = "en"
_NOTHING = r"(?!)"  # matches nowhere; an empty expression would match everywhere


def asks_to_stop(text: str, language: str, own: Iterable[str] = ()) -> bool:
    """Whether a callee's final transcript asks for no more calls.

    `language` is a BCP 47 tag of which the first part counts; in a language without phrases all are tried.
    `own` are phrases of the agent's beside those, each the words of it one after the other.
    A doubt is read as a wish to stop: a call too few can be mended, a call too many cannot.
    """
    sentences = [f" {' '.join(_words(sentence))} " for sentence in _SENTENCE_END.split(text)]
    if any(f" {' '.join(_words(phrase))} " in sentence for phrase in own for sentence in sentences):
        return True
    languages = _phrasebooks()
    primary = language.partition("-")[0].lower()
    tried = {primary, _ALWAYS_HEARD} if primary in languages else set(languages)
    return any(languages[name].hears(text) for name in sorted(tried))


@dataclass(frozen=True, slots=True)
class _Phrases:
    """One language as it stands in the file."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    fillers: frozenset[str]
    whole: frozenset[str]
    phrases: tuple[str, ...]
    exceptions: tuple[str, ...] = ()
    short_forms: dict[str, str] = field(default_factory=dict)
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Phrasebook:
    """One language, ready to be matched."""

    language: _Phrases
    phrases: re.Pattern[str]
    exceptions: re.Pattern[str]

    def hears(self, text: str) -> bool:
        return any(self._asks(sentence) for sentence in _SENTENCE_END.split(text))

    def _asks(self, sentence: str) -> bool:
        written_out = self.language.short_forms
        words = [part for word in _words(sentence) for part in written_out.get(word, word).split()]
        core = [word for word in words if word not in self.language.fillers]
        # "Stop, stop, stop" says no more than "stop".
        if " ".join(dict.fromkeys(core)) in self.language.whole:
            return True
        # What an exception matches is not said to us; it leaves a mark that no phrase can reach across.
        remaining = self.exceptions.sub("| ", "".join(f"{word} " for word in words))
        return self.phrases.search(remaining) is not None


def _words(text: str) -> list[str]:
    """Lower-case words without accents and apostrophes."""
    folded = unicodedata.normalize("NFKD", _APOSTROPHES.sub("", text.casefold()))
    bare = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return _NO_WORD.sub(" ", bare).split()


@cache
def _phrasebooks() -> Mapping[str, _Phrasebook]:
    """Read once: the file ships in the package and does not change while we run."""
    text = (resources.files("relay.compliance") / "rules" / "optout.toml").read_text("utf-8")
    languages = TypeAdapter(dict[str, _Phrases]).validate_python(tomllib.loads(text))
    return MappingProxyType({name: _compile(language) for name, language in languages.items()})


def _compile(language: _Phrases) -> _Phrasebook:
    def any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
        return re.compile("|".join(_expression(pattern, language.words) for pattern in patterns) or _NOTHING)

    return _Phrasebook(language, any_of(language.phrases), any_of(language.exceptions))


def _expression(pattern: str, words: Mapping[str, tuple[str, ...]]) -> str:
    """A pattern of the file as a regular expression over words that each end in one space."""
    return r"(?<!\S)" + "".join(_element(part, words) for part in pattern.split())


def _element(part: str, words: Mapping[str, tuple[str, ...]]) -> str:
    if part.startswith("["):
        return f"(?:{_element(part[1:-1], words)})?"
    if part.startswith("{"):
        return f"(?:{'|'.join(words[part[1:-1]])}) "
    if part.startswith("!"):
        return rf"(?!{part[1:]} )\w+ "
    return {"^": "^", "$": "$", "*": r"\w+ "}.get(part) or f"(?:{part}) "
