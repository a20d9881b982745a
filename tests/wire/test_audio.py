"""What is said of base64 μ-law is what decoding it would say."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.audio import is_audible, is_digital_silence, payload_seconds, silence


@given(audio=st.binary(max_size=700))
def test_a_payload_plays_as_long_as_its_bytes(audio: bytes) -> None:
    assert payload_seconds(base64.b64encode(audio).decode()) == len(audio) / 8000


@given(payload=st.text())
def test_no_text_plays_for_less_than_no_time(payload: str) -> None:
    assert payload_seconds(payload) >= 0
    is_digital_silence(payload)


@given(
    audio=st.one_of(
        st.binary(max_size=700),
        st.integers(0, 700).map(lambda length: b"\xff" * length),
        st.builds(lambda length, tail: b"\xff" * length + tail, st.integers(0, 9), st.binary(max_size=3)),
    )
)
def test_silence_is_nothing_but_the_byte_of_silence(audio: bytes) -> None:
    assert is_digital_silence(base64.b64encode(audio).decode()) == (set(audio) <= {0xFF})


@pytest.mark.parametrize("payload", ["", "/////w==", "//////////8=", "////"])
def test_the_vendors_own_silence_is_silent(payload: str) -> None:
    assert is_digital_silence(payload)


@pytest.mark.parametrize("payload", ["w8w8", "////w8w8", "8888", "////fw==", "AAAA", "/////v=="])
def test_sound_is_not_silent(payload: str) -> None:
    assert not is_digital_silence(payload)


@given(milliseconds=st.integers(0, 2000))
def test_silence_lasts_as_long_as_was_asked(milliseconds: int) -> None:
    payload = silence(milliseconds / 1000)

    assert base64.b64decode(payload) == b"\xff" * (milliseconds * 8)
    assert is_digital_silence(payload)


# ---- what is heard ---------------------------------------------------------------------------------------


def decoded(byte: int) -> int:
    """A sample of 14 bits, by the table of G.711: sign, segment, step, and their complement on the wire."""
    code = ~byte & 0xFF
    segment, step = (code >> 4) & 7, code & 15
    magnitude = ((2 * step + 33) << segment) - 33
    return -magnitude if code & 0x80 else magnitude


@pytest.mark.parametrize("byte", range(256))
def test_a_sample_is_heard_from_48_db_below_full_scale_on(byte: int) -> None:
    heard = abs(decoded(byte)) > 8031 * 10 ** (-48 / 20)

    assert is_audible(base64.b64encode(b"\xff" * 100 + bytes([byte])).decode()) == heard


@pytest.mark.parametrize("payload", ["A", "not base64 \u20ac"])
def test_what_cannot_be_decoded_is_played_and_counts_as_sound(payload: str) -> None:
    assert is_audible(payload)
