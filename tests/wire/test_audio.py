"""What is said of base64 μ-law is what decoding it would say."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.audio import is_digital_silence, payload_seconds, silence


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
