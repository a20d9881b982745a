"""Local time where it is hard: the two nights of the year, midnight, zones far apart, movable holidays.

Knows windows and holidays as data, no request.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from relay.compliance.hours import Holiday, easter_sunday, holiday_on, is_open
from relay.compliance.rules import Span, Weekday, Window

from .cases import FIRST_INSTANT, LAST_INSTANT, RULEBOOK

WINDOWS = [rule for rule in RULEBOOK.rules if isinstance(rule, Window)]
US_ZONES = sorted({zone for place in RULEBOOK.places.values() for zone in place.zones})

# The days on which most of North America changes its clocks.
CHANGES = [date(2026, 11, 1), date(2027, 3, 14), date(2027, 11, 7)]

HOLIDAY = TypeAdapter(Holiday)


@pytest.mark.parametrize("zone", ["America/New_York", "America/Denver", "America/Phoenix", "America/Adak"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("window", WINDOWS, ids=lambda rule: rule.id)
def test_a_window_is_as_long_as_ever_around_a_change_of_clocks(
    window: Window, change: date, zone: str
) -> None:
    start = datetime.combine(change - timedelta(days=1), time(0), tzinfo=ZoneInfo(zone)).astimezone(UTC)
    open_quarters: dict[date, int] = {}
    for quarter in range(4 * 24 * 3 + 8):
        at = start + timedelta(minutes=15 * quarter)
        if is_open(window.spans, at, zone):
            day = at.astimezone(ZoneInfo(zone)).date()
            open_quarters[day] = open_quarters.get(day, 0) + 1
    for day in (change - timedelta(days=1), change, change + timedelta(days=1)):
        assert open_quarters.get(day, 0) == sum(_quarters(span, day) for span in window.spans)


@given(
    at=st.datetimes(FIRST_INSTANT, LAST_INSTANT, timezones=st.just(UTC)),
    zone=st.sampled_from(US_ZONES),
)
def test_nobody_is_rung_in_the_night_under_any_rule(at: datetime, zone: str) -> None:
    hour = at.astimezone(ZoneInfo(zone)).hour
    if hour < 8 or hour >= 22:
        assert not any(is_open(window.spans, at, zone) for window in WINDOWS)


@given(
    day=st.dates(date(2020, 1, 1), date(2036, 12, 31)),
    zone=st.sampled_from(US_ZONES),
    weekday=st.sampled_from(Weekday),
)
def test_at_midnight_the_new_day_counts(day: date, zone: str, weekday: Weekday) -> None:
    all_of_it = Span(days=frozenset({weekday}), opens=time(0), closes=time(23, 59, 59))
    midnight = datetime.combine(day, time(0), tzinfo=ZoneInfo(zone)).astimezone(UTC)
    assert is_open([all_of_it], midnight, zone) == (Weekday.of(day) is weekday)
    the_day_before = Weekday.of(day - timedelta(days=1))
    assert not is_open([all_of_it], midnight - timedelta(milliseconds=1), zone)
    assert is_open([all_of_it], midnight - timedelta(seconds=2), zone) == (the_day_before is weekday)


@given(
    at=st.datetimes(FIRST_INSTANT, LAST_INSTANT, timezones=st.just(UTC)),
    offset=st.integers(-12, 12),
    zone=st.sampled_from(US_ZONES),
)
def test_an_instant_is_judged_alike_in_whatever_zone_it_is_written(
    at: datetime, offset: int, zone: str
) -> None:
    elsewhere = at.astimezone(ZoneInfo(f"Etc/GMT{offset:+d}"))
    for window in WINDOWS:
        assert is_open(window.spans, at, zone) == is_open(window.spans, elsewhere, zone)


@pytest.mark.parametrize(
    ("year", "easter"),
    [
        (1818, date(1818, 3, 22)),
        (1943, date(1943, 4, 25)),
        (1954, date(1954, 4, 18)),
        (1981, date(1981, 4, 19)),
        (2000, date(2000, 4, 23)),
        (2008, date(2008, 3, 23)),
        (2024, date(2024, 3, 31)),
        (2025, date(2025, 4, 20)),
        (2026, date(2026, 4, 5)),
        (2027, date(2027, 3, 28)),
        (2038, date(2038, 4, 25)),
    ],
)
def test_easter_falls_where_the_tables_have_it(year: int, easter: date) -> None:
    assert easter_sunday(year) == easter


@given(year=st.integers(1900, 2199))
def test_easter_is_a_sunday_between_22_march_and_25_april(year: int) -> None:
    easter = easter_sunday(year)
    assert Weekday.of(easter) is Weekday.SUNDAY
    assert date(year, 3, 22) <= easter <= date(year, 4, 25)


@given(year=st.integers(2000, 2099))
def test_every_holiday_of_the_book_falls_in_its_year_once(year: int) -> None:
    for holiday in RULEBOOK.holidays.values():
        assert holiday.in_year(year).year == year


@given(year=st.integers(2000, 2099), name=st.sampled_from(sorted(RULEBOOK.holidays)))
def test_a_weekend_holiday_closes_the_nearest_working_day_too(year: int, name: str) -> None:
    holiday = RULEBOOK.holidays[name]
    day = holiday.in_year(year)
    shift = {Weekday.SATURDAY: -1, Weekday.SUNDAY: 1}.get(Weekday.of(day), 0)
    assert holiday_on([holiday], day, observed=True) is holiday
    assert holiday_on([holiday], day + timedelta(days=shift), observed=True) is holiday
    if shift:
        assert holiday_on([holiday], day + timedelta(days=shift), observed=False) is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"month": 2, "day": 30},
        {"month": 2, "day": 29},
        {"month": 5},
        {"month": 5, "day": 1, "easter": 3},
        {"month": 5, "weekday": "monday"},
        {"month": 5, "weekday": "monday", "nth": 0},
        {"weekday": "monday", "nth": 1},
    ],
)
def test_a_holiday_that_cannot_be_dated_every_year_is_no_holiday(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HOLIDAY.validate_python({"id": "some-day", "name": "Some Day", **fields})


def _quarters(span: Span, day: date) -> int:
    if Weekday.of(day) not in span.days:
        return 0
    opens, closes = (at.hour * 4 + at.minute // 15 for at in (span.opens, span.closes))
    return closes - opens
