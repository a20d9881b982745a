"""Which numbers may be rung, and where they may ring.

Knows the numbering plan through examples of each kind; states and area codes are held against phonenumbers.
"""

from __future__ import annotations

from collections import defaultdict

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.compliance.numbers import Location, locate
from relay.compliance.rules import Place
from relay.outcomes import Refusal

from .cases import RULEBOOK

PLACES = RULEBOOK.places


def find(to: str, state: str | None = None, zone: str | None = None) -> Location:
    found = locate(to, state, zone, PLACES)
    assert isinstance(found, Location), found
    return found


def refusal_code(to: str, state: str | None = None, zone: str | None = None) -> str:
    found = locate(to, state, zone, PLACES)
    assert isinstance(found, Refusal), found
    return found.code


@pytest.mark.parametrize("line", range(100, 200))
def test_the_fictional_numbers_of_an_area_code_count_as_numbers(line: int) -> None:
    assert find(f"+12025550{line}").places == ("US-DC",)


@pytest.mark.parametrize(
    "to",
    [
        "",
        "12025550143",
        "+",
        "+1",
        "+911",
        "+1911",
        "+19115550143",
        "+1 202 555 0143",
        "+12025550143 ",
        "+12025550143\n",
        "tel:+12025550143",
        "+120255501430",
        "+1202555014",
        "+11235550143",
        "+15555550100",
        "+99912345678",
        "+1202555014\u0663",
        "+12025550143;ext=9",
        "anonymous",
    ],
)
def test_what_is_no_number_in_e164_form_is_refused(to: str) -> None:
    assert refusal_code(to) == "number-invalid"


@pytest.mark.parametrize(
    "to",
    [
        "+18005551212",
        "+18885550143",
        "+19005550143",
        "+15005550006",
        "+15335550143",
        "+448001111111",
        "+449098790000",
    ],
)
def test_toll_free_premium_and_personal_numbers_are_refused(to: str) -> None:
    assert refusal_code(to) == "number-kind"


@given(text=st.text(max_size=20) | st.from_regex(r"\+[0-9]{1,16}", fullmatch=True))
def test_any_text_is_located_or_refused(text: str) -> None:
    found = locate(text, None, None, PLACES)
    if isinstance(found, Location):
        assert found.places
        assert found.zones


@pytest.mark.parametrize(
    ("to", "places", "zones"),
    [
        ("+12125550143", ("US-NY",), ("America/New_York",)),
        ("+18085550143", ("US-HI",), ("Pacific/Honolulu",)),
        ("+12508910000", ("CA",), None),
        ("+14165550143", ("CA",), ("America/Toronto",)),
        ("+442071838750", ("GB",), ("Europe/London",)),
        ("+17875550143", ("PR",), ("America/Puerto_Rico",)),
    ],
)
def test_a_number_lies_where_its_area_code_says(
    to: str, places: tuple[str, ...], zones: tuple[str, ...] | None
) -> None:
    found = find(to)
    assert found.places == places
    assert zones is None or found.zones == zones


@pytest.mark.parametrize(
    "place", [place for place in PLACES.values() if place.area_codes], ids=lambda it: it.code
)
def test_a_number_lies_in_every_zone_of_its_state(place: Place) -> None:
    for area_code in place.area_codes:
        found = find(f"+1{area_code}5550143")
        assert found.places == (place.code,)
        assert set(place.zones) <= set(found.zones)


def test_an_address_adds_to_what_the_number_says() -> None:
    found = find("+12125550143", "US-CA")
    assert found.places == ("US-NY", "US-CA")
    assert found.zones == ("America/New_York", "America/Los_Angeles")


def test_a_zone_given_beside_a_state_stands_for_the_zones_of_that_state() -> None:
    assert find("+12125550143", "US-TX", "America/Chicago").zones == ("America/New_York", "America/Chicago")
    assert find("+12125550143", "US-TX").zones == ("America/New_York", "America/Chicago", "America/Denver")
    assert find("+12125550143", None, "Pacific/Guam").zones == ("America/New_York", "Pacific/Guam")


def test_a_state_without_an_entry_has_all_the_zones_of_its_country() -> None:
    assert set(PLACES["CA"].zones) <= set(find("+14165550143", "CA-ON").zones)


@pytest.mark.parametrize("state", ["TX", "CA", "us-tx", "Texas", "US_TX", "US-", " "])
def test_a_state_that_is_no_code_is_refused(state: str) -> None:
    assert refusal_code("+12125550143", state) == "place-unknown"


@pytest.mark.parametrize(
    "zone", ["Texas", "America", "../../etc/passwd", "/etc/localtime", " ", "Etc/Unknown"]
)
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    assert refusal_code("+12125550143", None, zone) == "zone-unknown"


def test_an_address_whose_time_is_unknown_is_refused() -> None:
    assert refusal_code("+12125550143", "GB-SCT") == "zone-unknown"


def test_an_area_code_without_a_state_may_lie_in_any() -> None:
    without_new_york = {code: place for code, place in PLACES.items() if code != "US-NY"}
    found = locate("+12125550143", None, None, without_new_york)
    assert isinstance(found, Location)
    assert set(found.places) == set(without_new_york) - {"CA"}


def test_a_number_of_unknown_zone_lies_in_every_zone_of_its_places() -> None:
    satellite = "+882161234567"
    assert refusal_code(satellite) == "zone-unknown"
    somewhere = Place(code="001-AQ", name="Antarctica", zones=("Antarctica/Troll", "Antarctica/Vostok"))
    found = locate(satellite, None, None, {somewhere.code: somewhere})
    assert found == Location(("001-AQ",), ("Antarctica/Troll", "Antarctica/Vostok"))


def test_a_number_that_lies_nowhere_in_particular_lies_in_every_zone_of_its_numbering_plan() -> None:
    assert {"America/St_Johns", "America/New_York", "Pacific/Honolulu"} <= set(find("+16005550143").zones)


def test_the_area_codes_of_the_states_are_those_of_phonenumbers() -> None:
    from phonenumbers import geocoder  # 100 MB: the reason why the product has a table of its own

    by_name = {place.name: code for code, place in PLACES.items()}
    found: dict[str, set[str]] = defaultdict(set)
    for area_code in range(200, 1000):
        for exchange in (200, 222, 234, 272, 355, 444, 555, 666, 777, 892):
            number = phonenumbers.parse(f"+1{area_code}{exchange}0143")
            if phonenumbers.region_code_for_number(number) != "US":
                continue
            name = geocoder.description_for_number(number, "en").split(", ")[-1]
            if name:  # toll-free and personal numbers lie nowhere
                found[by_name.get(name, f"US-{name}")].add(str(area_code))
    assert {code: sorted(codes) for code, codes in sorted(found.items())} == {
        code: sorted(place.area_codes) for code, place in sorted(PLACES.items()) if place.area_codes
    }
