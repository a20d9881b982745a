"""Keys that are sounded are the keys that an exchange hears: decoded back by a receiver of its own."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.simulator.sound import decode_mulaw, encode_mulaw
from relay.tones import GAP_SECONDS, KEYS, PAUSE_SECONDS, TONE_SECONDS, tones

ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
PAD = ("123A", "456B", "789C", "*0#D")
RATE = 8000
WINDOW = 160  # 20 ms: the exchange decides on as little (Q.24: 40 ms are taken, less than 20 are not)
LEAST_DBM0 = -24.0  # Q.24, of each of the two
TWIST_DB = 5.0
FULL_SCALE = 32124
FULL_SCALE_DBM0 = 3.17


def goertzel_dbm0(samples: list[int], hertz: int) -> float:
    """The level of one frequency."""
    turn = 2 * math.cos(2 * math.pi * hertz / RATE)
    before = now = 0.0
    for sample in samples:
        before, now = now, sample + turn * now - before
    power = before * before + now * now - turn * before * now
    amplitude = 2 * math.sqrt(max(power, 0.0)) / len(samples)
    return 20 * math.log10(max(amplitude, 1e-9) / FULL_SCALE) + FULL_SCALE_DBM0


def key_of(samples: list[int]) -> str | None:
    """The key of one window, where exactly two tones stand out; None where there is none."""
    rows = [goertzel_dbm0(samples, hertz) for hertz in ROWS]
    columns = [goertzel_dbm0(samples, hertz) for hertz in COLUMNS]
    row, column = max(rows), max(columns)
    if min(row, column) < LEAST_DBM0 or abs(row - column) > TWIST_DB:
        return None
    others = [level for level in rows if level != row] + [level for level in columns if level != column]
    if max(others) > min(row, column) - 6:
        return None
    return PAD[rows.index(row)][columns.index(column)]


def received(mulaw: bytes) -> list[tuple[str | None, float]]:
    """What an exchange makes of it: keys and silences, with their seconds."""
    samples = list(decode_mulaw(mulaw))
    heard: list[tuple[str | None, float]] = []
    for at in range(0, len(samples) - WINDOW + 1, WINDOW):
        key = key_of(samples[at : at + WINDOW])
        if heard and heard[-1][0] == key:
            heard[-1] = (key, heard[-1][1] + WINDOW / RATE)
        else:
            heard.append((key, WINDOW / RATE))
    return heard


def test_the_frequencies_are_those_of_the_keypad() -> None:
    assert KEYS["1"] == (697, 1209)
    assert KEYS["5"] == (770, 1336)
    assert KEYS["#"] == (941, 1477)
    assert KEYS["D"] == (941, 1633)
    assert len(KEYS) == 16


@given(st.text("0123456789*#ABCD", min_size=1, max_size=8))
def test_what_is_pressed_is_received(keys: str) -> None:
    heard = received(tones(keys))
    assert "".join(key for key, _ in heard if key) == keys


@pytest.mark.parametrize("key", list(KEYS))
def test_each_tone_is_as_loud_and_as_long_as_an_exchange_wants(key: str) -> None:
    samples = list(decode_mulaw(tones(key)))
    sounding = samples[: round(TONE_SECONDS * RATE)]
    low, high = (goertzel_dbm0(sounding, hertz) for hertz in KEYS[key])
    assert low == pytest.approx(-8, abs=0.5)
    assert high == pytest.approx(-6, abs=0.5)
    assert -24 < low < high < -3  # Q.24, of each
    assert max(map(abs, samples)) < FULL_SCALE
    (_, tone), (_, gap) = received(tones(key))
    assert tone == pytest.approx(TONE_SECONDS)
    assert gap == pytest.approx(GAP_SECONDS)


def test_a_pause_is_half_a_second_of_silence() -> None:
    heard = received(tones("1w1"))
    assert [key for key, _ in heard] == ["1", None, "1", None]
    assert heard[1][1] == pytest.approx(GAP_SECONDS + PAUSE_SECONDS, abs=0.02)


def test_the_same_key_twice_is_two_keys() -> None:
    assert [key for key, _ in received(tones("55"))] == ["5", None, "5", None]


def test_keys_are_received_through_the_noise_of_a_line() -> None:
    rng = random.Random(1)
    noisy = [sample + round(rng.gauss(0, 300)) for sample in decode_mulaw(tones("1234567890*#"))]
    clipped = b"".join(max(-32768, min(32767, sample)).to_bytes(2, "little", signed=True) for sample in noisy)
    assert "".join(key for key, _ in received(encode_mulaw(clipped)) if key) == "1234567890*#"


def test_speech_is_no_key() -> None:
    from relay.simulator.sound import babble

    assert [key for key, _ in received(babble("This is no key, whatever it sounds like.")) if key] == []
