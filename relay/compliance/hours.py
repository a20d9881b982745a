"""Local hours and holidays: whether an instant falls inside a window, and which day it is at the other end.

Knows no request and no rulebook: instants, zones, spans and dates come in as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, Field

from relay.compliance.rules import Name, Sentence, Span, Weekday

_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holiday:
    """A day of the year, in one of three forms, moved by `plus_days`.

    `month` and `day`; or `month`, `weekday` and `nth` (-1: the last); or `easter`, days from Easter Sunday.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: Name
    name: Sentence
    month: Annotated[int, Field(ge=1, le=12)] | None = None
    day: Annotated[int, Field(ge=1, le=31)] | None = None
    weekday: Weekday | None = None
    nth: Annotated[int, Field(ge=-1, le=4)] | None = None
    easter: int | None = None
    plus_days: int = 0

    def __post_init__(self) -> None:
        # A holiday that cannot be dated is refused when it is read, not when somebody dials.
        for year in (2024, 2025):
            self.in_year(year)

    def in_year(self, year: int) -> date:
        """The date it falls on."""
        match self:
            case Holiday(month=int(month), day=int(day), weekday=None, nth=None, easter=None):
                found = date(year, month, day)
            case Holiday(
                month=int(month), day=None, weekday=Weekday() as weekday, nth=int(nth), easter=None
            ) if nth:
                found = _nth_weekday(year, month, weekday, nth)
            case Holiday(month=None, day=None, weekday=None, nth=None, easter=int(offset)):
                found = easter_sunday(year) + offset * _ONE_DAY
            case _:
                raise ValueError("a holiday has month and day, or month, weekday and nth, or easter")
        return found + self.plus_days * _ONE_DAY


def is_open(spans: Iterable[Span], at: datetime, zone: str) -> bool:
    """Whether the wall clock of `zone` is inside one of the spans at the aware instant `at`."""
    local = at.astimezone(ZoneInfo(zone))
    clock = local.time()
    day = Weekday.of(local.date())
    return any(day in span.days and span.opens <= clock < span.closes for span in spans)


def holiday_on(holidays: Iterable[Holiday], day: date, *, observed: bool) -> Holiday | None:
    """The holiday that closes this date; with `observed`, a working day that stands in for one too."""
    for holiday in holidays:
        # The stand-in for 1 January may lie in the old year.
        for year in (day.year, day.year + 1):
            actual = holiday.in_year(year)
            if day == actual or (observed and day == _stand_in(actual)):
                return holiday
    return None


def easter_sunday(year: int) -> date:
    """Easter of the Gregorian calendar: the Sunday after the first full moon of spring, as tables have it."""
    golden = year % 19
    century = year // 100
    moon_correction = century - century // 4 - (8 * century + 13) // 25
    epact = (19 * golden + moon_correction + 15) % 30
    epact -= epact // 28 * (1 - 29 // (epact + 1) * ((21 - golden) // 11))
    weekday = (year + year // 4 + epact + 2 - century + century // 4) % 7
    day = epact - weekday
    month = 3 + (day + 40) // 44
    return date(year, month, day + 28 - 31 * (month // 4))


def _stand_in(day: date) -> date:
    match Weekday.of(day):
        case Weekday.SATURDAY:
            return day - _ONE_DAY
        case Weekday.SUNDAY:
            return day + _ONE_DAY
        case _:
            return day


def _nth_weekday(year: int, month: int, weekday: Weekday, nth: int) -> date:
    first = date(year, month, 1)
    ahead = (list(Weekday).index(weekday) - first.weekday()) % 7
    days = [first + (ahead + 7 * week) * _ONE_DAY for week in range(5)]
    days = [day for day in days if day.month == month]
    return days[-1] if nth == -1 else days[nth - 1]
