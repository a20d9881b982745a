"""Reads the rules: those that ship in the package, then the operator's own additions and recorded overrides.

Knows no request and no moment; files are read here, once, when the service is put together, and nowhere else.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from relay.compliance.hours import Holiday
from relay.compliance.rules import EVALUATION_ORDER, HolidayRule, Override, Place, Rule
from relay.shapes import all_that_is_wrong

# The profile `us-strict` is these files together: every rule in them must hold.
_US_STRICT = ("places", "holidays", "us-federal", "us-states", "canada", "us-strict")
_DIGEST_LENGTH = 16
DIALS_PER_HOUR = 1000  # where nothing else is set


class RulebookError(ValueError):
    """A rule file that cannot be used; the text names the file and what to mend."""


@dataclass(frozen=True, slots=True)
class Rulebook:
    """All rules in the order of evaluation, what sets some of them aside, and the names they use.

    `digest` changes with every byte of every file: a stored verdict names the exact text it was given under.
    `dials_per_hour` is the house's own bound on what a program that runs wild, or a stolen token, can spend.
    """

    rules: tuple[Rule, ...]
    overrides: tuple[Override, ...]
    holidays: Mapping[str, Holiday]
    places: Mapping[str, Place]
    digest: str
    dials_per_hour: int = DIALS_PER_HOUR

    def override_of(self, rule: Rule, places: tuple[str, ...], today: date) -> Override | None:
        """The decision that sets this rule aside today in all these places, if there is one."""
        return next((found for found in self.overrides if found.reaches(rule, places, today)), None)


def load_rulebook(folder: Path | None = None) -> Rulebook:
    """The packaged profile, and every `*.toml` of the operator's folder on top of it."""
    packaged = resources.files("relay.compliance") / "rules"
    texts = {f"{name}.toml": (packaged / f"{name}.toml").read_text("utf-8") for name in _US_STRICT}
    if folder is not None:
        if not folder.is_dir():
            raise RulebookError(f"{folder}: no such folder of rules: make it, or name another one")
        texts |= {str(path): path.read_text("utf-8") for path in sorted(folder.glob("*.toml"))}
    return parse_rulebook(texts)


def parse_rulebook(texts: Mapping[str, str]) -> Rulebook:
    """A rulebook from the texts of its files, by name. Raises RulebookError with a person's message."""
    files = [_parse(name, text) for name, text in texts.items()]
    rules = sorted(
        (rule for file in files for rule in file.rule), key=lambda rule: EVALUATION_ORDER.index(type(rule))
    )
    rulebook = Rulebook(
        rules=tuple(rules),
        overrides=tuple(override for file in files for override in file.override),
        holidays={holiday.id: holiday for file in files for holiday in file.holiday},
        places={place.code: place for file in files for place in file.place},
        digest=hashlib.sha256("\0".join(f"{n}\0{texts[n]}" for n in sorted(texts)).encode()).hexdigest()[
            :_DIGEST_LENGTH
        ],
    )
    _check_names(rulebook)
    return rulebook


@dataclass(frozen=True, slots=True)
class _File:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    rule: tuple[Annotated[Rule, Field(discriminator="kind")], ...] = ()
    override: tuple[Override, ...] = ()
    holiday: tuple[Holiday, ...] = ()
    place: tuple[Place, ...] = ()


_FILE = TypeAdapter(_File)
_TABLES = TypeAdapter(dict[str, object])
_RULES = TypeAdapter(list[dict[str, object]])


def _parse(name: str, text: str) -> _File:
    """`[defaults]` of a file are the fields that its rules have in common."""
    try:
        tables = tomllib.loads(text)
        defaults = _TABLES.validate_python(tables.pop("defaults", {}))
        if "rule" in tables:
            tables["rule"] = [defaults | rule for rule in _RULES.validate_python(tables["rule"])]
        return _FILE.validate_python(tables)
    except tomllib.TOMLDecodeError as error:
        raise RulebookError(f"{name}: not TOML: {error}") from error
    except ValidationError as error:
        raise RulebookError("\n".join(f"{name}: {line}" for line in all_that_is_wrong(error))) from error


def _check_names(rulebook: Rulebook) -> None:
    ids = [rule.id for rule in rulebook.rules]
    if twice := _repeated(ids):
        raise RulebookError(
            f"two rules are called {twice}; set one aside with an [[override]] and name yours anew"
        )
    if unknown := {override.rule for override in rulebook.overrides} - set(ids):
        raise RulebookError(f"an override names a rule that does not exist: {', '.join(sorted(unknown))}")
    named = {day for rule in rulebook.rules if isinstance(rule, HolidayRule) for day in rule.days}
    if unknown := named - set(rulebook.holidays):
        raise RulebookError(f"a rule names a holiday that does not exist: {', '.join(sorted(unknown))}")
    if twice := _repeated(code for place in rulebook.places.values() for code in place.area_codes):
        raise RulebookError(f"two places claim the area code {twice}")
    for place in rulebook.places.values():
        for zone in place.zones:
            try:
                ZoneInfo(zone)
            except (KeyError, ValueError, OSError) as error:
                raise RulebookError(
                    f"{place.code}: no time zone {zone} on this machine; is tzdata there?"
                ) from error


def _repeated(names: Iterable[str]) -> str | None:
    return next((name for name, times in Counter(names).items() if times > 1), None)
