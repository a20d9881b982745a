"""Days and hours as an agent names them, and how they are said back.

Knows no book and no call: words and instants come in, instants and words go out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from typing import Annotated

from pydantic import Field

from relay.tools import ToolRefused

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Day = Annotated[
    str,
    Field(
        description="the date as YYYY-MM-DD, or the day of the week for the next such day",
        examples=["2026-03-10", "Tuesday"],
        max_length=20,
    ),
]
Time = Annotated[
    str, Field(description="hour and minute of the 24-hour clock", examples=["14:30"], max_length=8)
]

_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_UNREAD = "Ask again, and call this with the day as YYYY-MM-DD or a day of the week, and the time as HH:MM."


def read_days(words: str, today: date) -> list[date]:
    """The date that is meant; of a weekday that is today, also the one in a week. Raises ToolRefused."""
    name = words.strip().lower()
    if name in WEEKDAYS:
        ahead = (WEEKDAYS.index(name) - today.weekday()) % 7
        return [today + timedelta(days=days) for days in ((0, 7) if ahead == 0 else (ahead,))]
    try:
        return [date.fromisoformat(name)]
    except ValueError:
        raise ToolRefused(f"{_UNREAD} Today is {say_day(today)}.") from None


def read_time(words: str) -> time:
    """The time of day that is meant. Raises ToolRefused."""
    clock = _CLOCK.fullmatch(words.strip())
    if clock is None:
        raise ToolRefused(_UNREAD)
    return time(int(clock[1]), int(clock[2]))


def say_day(day: date) -> str:
    """`Tuesday 2026-03-10`: an agent reads both, and can say either."""
    return f"{WEEKDAYS[day.weekday()].capitalize()} {day.isoformat()}"


def say(instant: datetime) -> str:
    """`Tuesday 2026-03-10 10:00`, by the wall clock of the instant."""
    return f"{say_day(instant.date())} {instant:%H:%M}"


def nearest(instants: Iterable[datetime], wanted: datetime, count: int) -> list[datetime]:
    """The few that lie nearest to what was wanted, in order."""
    return sorted(sorted(instants, key=lambda instant: abs(instant - wanted))[:count])
