"""What a call costs, by a table of prices: estimates for the record, no invoice.

Knows no vendor's API, no clock and no log. Money is decimal and travels as text, never as a float.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relay.shapes import all_that_is_wrong

Item = Literal[
    "twilio-voice",
    "twilio-media-stream",
    "twilio-machine-detection",
    "twilio-recording",
    "assemblyai-session",
]
# What each node of a call pays for itself. All else is paid once for a call, by whoever ends it.
OF_A_NODE: tuple[Item, ...] = ("assemblyai-session",)
_SMALLEST = Decimal("0.000001")  # of any currency: a second of an agent's session is more


class PricesError(ValueError):
    """A table of prices that cannot be used; the text names the file, the key and what is wrong."""


class Price(BaseModel):
    """One line of the table. `checked`: somebody has compared it with the vendor on the day `as_of`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: Item
    amount: Annotated[Decimal, Field(ge=0)]
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    per: Literal["call", "begun-minute", "hour"]
    prefixes: tuple[Annotated[str, Field(pattern=r"^\+\d*$")], ...] = ("+",)
    source: str = Field(min_length=1)
    as_of: date
    checked: bool

    def of(self, seconds: float) -> Decimal:
        """The price of so much."""
        match self.per:
            case "call":
                return self.amount
            case "begun-minute":
                return self.amount * math.ceil(seconds / 60)
            case "hour":
                return (self.amount * Decimal(str(round(seconds, 3))) / 3600).quantize(_SMALLEST)
            case _:
                assert_never(self.per)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    price: tuple[Price, ...] = ()


Prices = tuple[Price, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What of each thing a call has used, in seconds; 0 where it has not used it."""

    to: str
    answered_seconds: float
    streamed_seconds: float
    recorded_seconds: float
    agent_seconds: float  # that sockets to the agent were open
    is_machine_detected: bool
    put_through: tuple[tuple[str, float], ...] = ()  # the numbers of other legs, and for how long each was up


@dataclass(frozen=True, slots=True)
class Charge:
    """One item of a call's cost. `amount` is None where the table has no price for it."""

    item: Item
    seconds: float
    amount: str | None = None
    currency: str | None = None
    as_of: str | None = None
    checked: bool = False


def charges(usage: Usage, prices: Prices) -> list[Charge]:
    """What a call has cost; nothing of what it has not used."""
    detected_seconds = usage.answered_seconds if usage.is_machine_detected else 0.0
    used: list[tuple[Item, str, float]] = [
        ("twilio-voice", usage.to, usage.answered_seconds),
        *(("twilio-voice", *leg) for leg in usage.put_through),
        ("twilio-media-stream", usage.to, usage.streamed_seconds),
        ("twilio-machine-detection", usage.to, detected_seconds),
        ("twilio-recording", usage.to, usage.recorded_seconds),
        ("assemblyai-session", usage.to, usage.agent_seconds),
    ]
    return [
        _charge(item, seconds, _price_of(item, number, prices)) for item, number, seconds in used if seconds
    ]


def _charge(item: Item, seconds: float, price: Price | None) -> Charge:
    if price is None:
        return Charge(item, round(seconds, 3))
    amount = format(price.of(seconds), "f")
    return Charge(item, round(seconds, 3), amount, price.currency, price.as_of.isoformat(), price.checked)


def _price_of(item: Item, to: str, prices: Prices) -> Price | None:
    """The one with the longest prefix of the number."""
    fits = [
        (len(prefix), price)
        for price in prices
        for prefix in price.prefixes
        if price.item == item and to.startswith(prefix)
    ]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None


def totals(costs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The sum of what the record has, by currency."""
    sums: dict[str, Decimal] = {}
    for cost in costs:
        if cost.get("amount") is not None:
            sums[cost["currency"]] = sums.get(cost["currency"], Decimal()) + Decimal(cost["amount"])
    return {currency: format(amount, "f") for currency, amount in sums.items()}


@cache
def shipped_prices() -> Prices:
    """The table that comes with the package."""
    text = (resources.files(__name__) / "prices.toml").read_text("utf-8")
    return _parse("prices.toml", text)


def load_prices(own: Path | None) -> Prices:
    """The packaged prices; an own file replaces all lines of the items it names. Raises PricesError."""
    if own is None:
        return shipped_prices()
    try:
        theirs = _parse(str(own), own.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise PricesError(
            f"{own}: cannot be read ({type(problem).__name__}). Name another file, or unset it"
        ) from None
    named = {price.item for price in theirs}
    return (*theirs, *(price for price in shipped_prices() if price.item not in named))


def _parse(name: str, text: str) -> Prices:
    try:
        return _Table.model_validate(tomllib.loads(text)).price
    except tomllib.TOMLDecodeError as problem:
        raise PricesError(f"{name}: not TOML: {problem}") from None
    except ValidationError as problem:
        raise PricesError("\n".join(f"{name}: {line}" for line in all_that_is_wrong(problem))) from None
