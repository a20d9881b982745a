"""The shapes that a rule can have; what the rules say is data in `rules/*.toml`.

Knows no request and no moment: a rule is judged elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from relay.compliance.case import ConsentForm, Purpose

EVERYWHERE = "*"
LONGEST_CAP_HOURS = 7 * 24  # the facts reach back seven days; a longer cap could not be counted

Jurisdiction = Annotated[str, Field(pattern=r"^(\*|[A-Z]{2}(-[A-Z0-9]{1,3})?)$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Sentence = Annotated[str, Field(min_length=3)]


def covers(jurisdiction: str, place: str) -> bool:
    """Whether a place (`US-TX`, `GB`) lies in a jurisdiction (`*`, `US`, `US-TX`)."""
    return jurisdiction in (EVERYWHERE, place) or place.startswith(f"{jurisdiction}-")


class Weekday(StrEnum):
    """In the order of `date.weekday()`."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"

    @classmethod
    def of(cls, day: date) -> Weekday:
        """The weekday of a date."""
        return list(cls)[day.weekday()]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleHead:
    """What every rule states about itself.

    In force from `effective_from` up to, not including, `effective_to`. `note` says what is uncertain.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: Name
    jurisdiction: Jurisdiction
    purposes: Annotated[frozenset[Purpose], Field(min_length=1)]
    title: Sentence
    source: Sentence
    reviewed_on: date
    review_by: date
    effective_from: date
    effective_to: date | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.review_by <= self.reviewed_on:
            raise ValueError("review_by must be later than reviewed_on")
        if self.effective_to is not None and self.effective_to <= self.effective_from:
            raise ValueError("effective_to must be later than effective_from")


@dataclass(frozen=True, slots=True, kw_only=True)
class Countries(RuleHead):
    """Only these countries may be called (ISO 3166-1)."""

    kind: Literal["countries"] = "countries"
    allow: frozenset[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRule(RuleHead):
    """A consent to this purpose, given to this seller and not revoked, must be on record."""

    kind: Literal["consent"] = "consent"
    form: ConsentForm


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRule(RuleHead):
    """A copy of the list no older than this must be on record, and the number must not stand on it."""

    kind: Literal["list"] = "list"
    list: Jurisdiction
    max_age_days: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prohibition(RuleHead):
    """No such call, unless an override names the ground on which it may be made."""

    kind: Literal["prohibition"] = "prohibition"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Hours of local time on some days, from `opens` up to, not including, `closes`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    days: Annotated[frozenset[Weekday], Field(min_length=1)] = frozenset(Weekday)
    opens: time
    closes: time

    def __post_init__(self) -> None:
        if self.opens >= self.closes:
            raise ValueError("opens must be earlier than closes: a span does not cross midnight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(RuleHead):
    """Calls only within one of these spans, in every zone where the called party may be."""

    kind: Literal["window"] = "window"
    spans: Annotated[tuple[Span, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HolidayRule(RuleHead):
    """No calls on these holidays, by the date in any zone where the called party may be.

    `observed`: a holiday on a Saturday closes the Friday before it too, one on a Sunday the Monday after it.
    """

    kind: Literal["holidays"] = "holidays"
    days: Annotated[tuple[Name, ...], Field(min_length=1)]
    observed: bool = True


class Counted(StrEnum):
    """What a cap counts."""

    ATTEMPTS = "attempts"
    CONVERSATIONS = "conversations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap(RuleHead):
    """At most so many of these in so many hours; the call that is asked for would be one more."""

    kind: Literal["cap"] = "cap"
    counts: Counted
    at_most: Annotated[int, Field(ge=1)]
    within_hours: Annotated[int, Field(ge=1, le=LONGEST_CAP_HOURS)]


# The order is the order of evaluation: where we may call at all, whom, whether, when, how often.
Rule = Countries | ConsentRule | ListRule | Prohibition | Window | HolidayRule | Cap
EVALUATION_ORDER: tuple[type[Rule], ...] = (
    Countries,
    ConsentRule,
    ListRule,
    Prohibition,
    Window,
    HolidayRule,
    Cap,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A recorded decision to set one rule aside, in some jurisdictions and up to a date, or for good."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    rule: Name
    reason: Sentence
    decided_by: Sentence
    decided_on: date
    expires_on: date | None = None
    jurisdictions: Annotated[frozenset[Jurisdiction], Field(min_length=1)] = frozenset({EVERYWHERE})

    def reaches(self, rule: Rule, places: tuple[str, ...], today: date) -> bool:
        """Whether it sets `rule` aside today in every one of `places` that the rule covers."""
        if self.rule != rule.id or today < self.decided_on:
            return False
        if self.expires_on is not None and today >= self.expires_on:
            return False
        concerned = [place for place in places if covers(rule.jurisdiction, place)]
        return all(any(covers(ours, place) for ours in self.jurisdictions) for place in concerned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A state or country: the zones it spans and, in the North American plan, its area codes."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    code: Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
    name: Sentence
    zones: Annotated[tuple[str, ...], Field(min_length=1)]
    area_codes: frozenset[Annotated[str, Field(pattern=r"^[2-9][0-9]{2}$")]] = frozenset()
