"""Media Streams messages as the carrier's documents and captures show them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.outcomes import WireError
from relay.wire import phone

SID = "MZc3320b5e6fba10a11d7c96fe1903e3f0"
PAYLOAD = base64.b64encode(bytes(range(160))).decode()

CONNECTED = b'{"event":"connected","protocol":"Call","version":"1.0.0"}'
START = (
    b'{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1b32414e8ab41e56e6393bcbba7d5a9d",'
    b'"streamSid":"MZc3320b5e6fba10a11d7c96fe1903e3f0","callSid":"CA77145f1c2f9166cab03d083d5804d9ae",'
    b'"tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},'
    b'"customParameters":{"token":"abc"}},"streamSid":"MZc3320b5e6fba10a11d7c96fe1903e3f0"}'
)
MEDIA = (
    b'{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":"1","timestamp":"155",'
    b'"payload":"/////w=="},"streamSid":"MZ5174584e1127285e2b015e720b3d9e68"}'
)
DTMF = b'{"event":"dtmf","streamSid":"MZ1","sequenceNumber":"5","dtmf":{"track":"inbound_track","digit":"1"}}'
MARK = b'{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"utt-17"}}'
STOP = b'{"event":"stop","sequenceNumber":"5","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}'
MULAW = phone.MediaFormat("audio/x-mulaw", 8000, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CONNECTED, phone.Connected()),
        (
            START,
            phone.StreamStarted(
                phone.StartBody(
                    account_sid="AC1b32414e8ab41e56e6393bcbba7d5a9d",
                    stream_sid=SID,
                    call_sid="CA77145f1c2f9166cab03d083d5804d9ae",
                    media_format=MULAW,
                    custom_parameters={"token": "abc"},
                ),
                SID,
            ),
        ),
        (MEDIA, phone.Media(phone.MediaBody("/////w=="), "MZ5174584e1127285e2b015e720b3d9e68")),
        (DTMF, phone.KeyPressed(phone.DtmfBody("1"), "MZ1")),
        (MARK, phone.MarkReached(phone.MarkBody("utt-17"), "MZ1")),
        (STOP, phone.StreamStopped("MZ1")),
        (b'{"event":"weather","sky":{"blue":[1,2.5,null]}}', phone.Unrecognised("weather")),
    ],
)
def test_every_documented_message_is_read(text: bytes, message: phone.PhoneMessage) -> None:
    assert phone.decode(text) == message


def test_the_order_of_keys_does_not_matter() -> None:
    turned = json.dumps(dict(reversed(json.loads(START).items()))).encode()

    assert phone.decode(turned) == phone.decode(START)


@pytest.mark.parametrize(
    ("media_format", "is_mulaw"),
    [
        (MULAW, True),
        (phone.MediaFormat("audio/x-alaw", 8000, 1), False),
        (phone.MediaFormat("audio/x-mulaw", 16000, 1), False),
        (phone.MediaFormat("audio/x-mulaw", 8000, 2), False),
    ],
)
def test_only_one_format_passes_through(media_format: phone.MediaFormat, is_mulaw: bool) -> None:
    assert media_format.is_mulaw is is_mulaw


@pytest.mark.parametrize(
    ("text", "document"),
    [
        (phone.media(SID, PAYLOAD), {"event": "media", "streamSid": SID, "media": {"payload": PAYLOAD}}),
        (phone.mark(SID, "utt-17"), {"event": "mark", "streamSid": SID, "mark": {"name": "utt-17"}}),
        (phone.clear(SID), {"event": "clear", "streamSid": SID}),
    ],
)
def test_what_we_send_has_exactly_the_documented_keys(text: bytes, document: dict[str, Any]) -> None:
    assert json.loads(text) == document


@given(sid=st.text(), audio=st.binary(max_size=400), name=st.text())
def test_what_goes_in_comes_out_untouched(sid: str, audio: bytes, name: str) -> None:
    payload = base64.b64encode(audio).decode()

    assert phone.decode(phone.media(sid, payload)) == phone.Media(phone.MediaBody(payload), sid)
    assert phone.decode(phone.mark(sid, name)) == phone.MarkReached(phone.MarkBody(name), sid)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"17",
        b'"media"',
        b"{}",
        b'{"event":null}',
        b'{"event":17}',
        b'{"event":"media"}',
        b'{"event":"media","streamSid":"MZ1","media":null}',
        b'{"event":"media","streamSid":"MZ1","media":{"payload":7}}',
        b'{"event":"mark","streamSid":"MZ1","mark":{}}',
        b'{"event":"mark","streamSid":17,"mark":{"name":"a"}}',
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":"\xff\xfe"}}',
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":"\xed\xa0\x80"}}',
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":"\\ud800"}}',
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":NaN}}',
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":' + b"1" * 100_000 + b"}}",
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":' + b"[" * 100_000 + b"}}",
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":"a"},"x":'
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}",
        b'{"event":"media","event":"mark","streamSid":"MZ1","mark":{"name":"a"}}',
        b'{"event":' + b"{" * 100_000,
        START.replace(b"8000", b'"fast"'),
        START.replace(b'"token":"abc"', b'"token":1'),
        MARK[:-1],
        MARK + b"x",
        b"\xef\xbb\xbf" + MARK,
        b"\x00" * 100,
    ],
)
def test_garbage_raises_the_error_of_the_wire_and_no_other(text: bytes) -> None:
    with pytest.raises(WireError):
        phone.decode(text)


def test_the_last_of_repeated_keys_counts() -> None:
    assert phone.decode(MARK.replace(b'"utt-17"', b'"a","name":"b"')) == phone.MarkReached(
        phone.MarkBody("b"), "MZ1"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(text=st.binary())
def test_no_bytes_raise_another_error(text: bytes) -> None:
    try_to_read(text)


@given(document=st.dictionaries(st.sampled_from(["event", "media", "mark", "start", "streamSid"]), JSON))
def test_no_document_raises_another_error(document: dict[str, Any]) -> None:
    try_to_read(json.dumps(document).encode())


@given(
    text=st.sampled_from([CONNECTED, START, MEDIA, DTMF, MARK, STOP]),
    at=st.integers(0, 300),
    junk=st.binary(max_size=3),
)
def test_no_damage_raises_another_error(text: bytes, at: int, junk: bytes) -> None:
    try_to_read(text[:at] + junk + text[at + 1 :])


def try_to_read(text: bytes) -> None:
    try:
        message = phone.decode(text)
    except WireError:
        return
    assert isinstance(message, phone.PhoneMessage)
