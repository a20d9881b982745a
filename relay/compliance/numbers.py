"""The number itself: whether it may be rung at all, and in which places and time zones it may ring.

Knows no purpose and no rule; the numbering plan comes from `phonenumbers`, the states from the place data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberType, timezone

from relay.compliance.rules import Place, covers
from relay.outcomes import Refusal
from relay.shapes import E164, REGION

_UNKNOWN_ZONE = "Etc/Unknown"

# An allow-list: toll-free, premium, shared-cost, paging, voicemail, personal (+1 5xx) and corporate numbers
# cost somebody money or do not say where they ring. Emergency and other short numbers have no E.164 form.
RINGABLE = frozenset(
    {
        PhoneNumberType.FIXED_LINE,
        PhoneNumberType.MOBILE,
        PhoneNumberType.FIXED_LINE_OR_MOBILE,
        PhoneNumberType.VOIP,
    }
)


@dataclass(frozen=True, slots=True)
class Location:
    """Where the phone may ring: every place (`US-TX`, `GB`) and every IANA zone that cannot be excluded."""

    places: tuple[str, ...]
    zones: tuple[str, ...]


def locate(to: str, state: str | None, zone: str | None, places: Mapping[str, Place]) -> Location | Refusal:
    """Everywhere that the number, or the address given beside it, may lie.

    A number of the North American plan whose area code belongs to no known state may lie in any state of its
    country. Its zones are those that the numbering plan names and all those of its state. An address adds, it
    never replaces: people carry their numbers across borders.
    """
    number = parse(to, RINGABLE)
    if isinstance(number, Refusal):
        return number
    if state is not None and not REGION.fullmatch(state):
        return Refusal("place-unknown", f"{state!r} is not an ISO 3166-2 code such as US-TX.")
    if zone is not None:
        try:
            zone_that_exists(zone)
        except ValueError as problem:
            return Refusal("zone-unknown", str(problem))
    homes = _places_of(number, places)
    zones = [known for known in timezone.time_zones_for_number(number) if known != _UNKNOWN_ZONE]
    # The library names one zone where an area code has two (+1 850: only New York for most of Pensacola), and
    # within a state numbers move freely; so every zone of the state counts.
    states = [home for home in homes if "-" in home]
    zones += _zones_of(states if zones else homes, places)
    address_zones = [zone] if zone else _zones_of([state], places) if state else []
    if not zones or (state and not address_zones):
        return Refusal(
            "zone-unknown", "It is not known what time it is where the number or the address lies."
        )
    if state:
        homes.append(state)
    return Location(tuple(dict.fromkeys(homes)), tuple(dict.fromkeys(zones + address_zones)))


def is_e164(text: str) -> bool:
    """Whether the text has the form of an E.164 number; nothing is said about its existence."""
    return E164.fullmatch(text) is not None


def parse(to: str, kinds: Collection[int]) -> PhoneNumber | Refusal:
    """A number that exists and is of one of these kinds, or why it is not dialled."""
    if not is_e164(to):
        return Refusal("number-invalid", "The number is not in E.164 form: a plus sign, then 7 to 15 digits.")
    try:
        number = phonenumbers.parse(to)
    except phonenumbers.NumberParseException:
        return Refusal("number-invalid", "The number belongs to no country's numbering plan.")
    if not phonenumbers.is_valid_number(number):
        return Refusal("number-invalid", "No such number exists in its country's numbering plan.")
    if phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) != to:
        return Refusal(
            "number-invalid", "The number has another E.164 form; give it as the numbering plan does."
        )
    kind = phonenumbers.number_type(number)
    if kind not in kinds:
        name = PhoneNumberType.to_string(kind).lower().replace("_", "-")
        why = "such a number costs somebody money, or does not say where it rings"
        return Refusal("number-kind", f"A {name} number is not dialled: {why}.")
    return number


def _places_of(number: PhoneNumber, places: Mapping[str, Place]) -> list[str]:
    country = phonenumbers.region_code_for_number(number) or ""
    states = [place for place in places.values() if place.code.startswith(f"{country}-")]
    if not states:
        return [country]
    area_code = str(number.national_number)[:3]
    return [place.code for place in states if area_code in place.area_codes] or [
        place.code for place in states
    ]


def _zones_of(codes: Iterable[str], places: Mapping[str, Place]) -> list[str]:
    """The zones of these places; of a place that has no entry, all the zones of its country."""
    zones: list[str] = []
    for code in codes:
        country = code.partition("-")[0]
        near = [places[code]] if code in places else [p for p in places.values() if covers(country, p.code)]
        zones += [zone for place in near for zone in place.zones]
    return zones


def zone_that_exists(zone: str) -> str:
    """The zone, if this machine knows it; ValueError otherwise."""
    try:
        return ZoneInfo(zone).key
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{zone[:64]!r} is not an IANA time zone such as America/Chicago.") from None
