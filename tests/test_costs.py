"""What a call costs: by a table in data, as an estimate that says what it rests on."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay.costs import Charge, PricesError, Usage, charges, load_prices, shipped_prices, totals

NOTHING = Usage("+12025550143", 0.0, 0.0, 0.0, 0.0, is_machine_detected=False)
TALK = Usage("+12025550143", 61.0, 61.0, 61.0, 36.0, is_machine_detected=True)


def amounts(usage: Usage) -> dict[str, str | None]:
    return {charge.item: charge.amount for charge in charges(usage, shipped_prices())}


def test_a_minute_that_was_begun_is_paid_and_a_session_by_the_second() -> None:
    assert amounts(TALK) == {
        "twilio-voice": "0.0280",
        "twilio-media-stream": "0.0080",
        "twilio-machine-detection": "0.0075",
        "twilio-recording": "0.0050",
        "assemblyai-session": "0.045000",
    }


def test_a_call_that_nobody_answered_costs_nothing() -> None:
    assert amounts(NOTHING) == {}


def test_another_leg_is_paid_by_its_own_number() -> None:
    put_through = (("+12025550111", 61.0), ("+442079460000", 10.0), ("+12025550112", 0.0))
    voice = [
        (charge.seconds, charge.amount)
        for charge in charges(replace(TALK, put_through=put_through), shipped_prices())
        if charge.item == "twilio-voice"
    ]
    assert voice == [(61.0, "0.0280"), (61.0, "0.0280"), (10.0, None)]


def test_a_number_without_a_price_is_said_to_have_none() -> None:
    (voice, *_) = charges(
        Usage("+4930123456", 61.0, 0.0, 0.0, 0.0, is_machine_detected=False), shipped_prices()
    )

    assert voice == Charge("twilio-voice", 61.0)
    assert voice.amount is None


def test_the_longest_prefix_counts(tmp_path: Path) -> None:
    line = (
        '[[price]]\nitem = "twilio-voice"\namount = "{}"\ncurrency = "EUR"\nper = "call"\nprefixes = ["{}"]\n'
    )
    rest = 'source = "contract"\nas_of = 2026-10-01\nchecked = true\n'
    own = tmp_path / "prices.toml"
    own.write_text("".join(line.format(a, p) + rest for a, p in (("1", "+"), ("2", "+1202"), ("3", "+1"))))
    found = charges(TALK, load_prices(own))

    assert (found[0].amount, found[0].currency, found[0].checked) == ("2", "EUR", True)
    assert found[1].currency == "USD"  # what the own table does not name is as it was


def test_no_shipped_price_pretends_to_have_been_checked() -> None:
    for price in shipped_prices():
        assert not price.checked
        assert price.source


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[[price]", "not TOML"),
        ('[[price]]\nitem = "taxi"', "price.0.item"),
        ('[[price]]\nitem = "twilio-voice"\namount = "-1"', "price.0.amount"),
    ],
)
def test_a_table_that_cannot_be_used_names_the_file_and_the_key(
    text: str, wrong: str, tmp_path: Path
) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(text)
    with pytest.raises(PricesError, match=wrong) as problem:
        load_prices(own)
    assert "mine.toml" in str(problem.value)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PricesError, match=r"none\.toml: cannot be read"):
        load_prices(tmp_path / "none.toml")


def test_sums_are_kept_apart_by_currency_and_exact() -> None:
    costs: list[dict[str, Any]] = [
        {"amount": "0.1", "currency": "USD"},
        {"amount": "0.2", "currency": "USD"},
        {"amount": "0.3", "currency": "EUR"},
        {"amount": None, "currency": None},
    ]
    assert {currency: Decimal(sum_) for currency, sum_ in totals(costs).items()} == {
        "USD": Decimal("0.3"),
        "EUR": Decimal("0.3"),
    }
