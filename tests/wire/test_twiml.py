"""The documents that Twilio fetches, read back by an XML parser of its own."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.twiml.voice_response import Connect, VoiceResponse

from relay.wire import twiml

PUBLIC_URL = "https://relay.example"


def test_an_answered_call_gets_the_stream_with_its_token_and_a_redirect_behind_it() -> None:
    document = twiml.connect_stream(
        stream_url=twiml.stream_url(PUBLIC_URL),
        token="call_1.0.mac",
        status_callback=twiml.stream_status_url(PUBLIC_URL, "call_1"),
        redirect=twiml.twiml_url(PUBLIC_URL, "call_1", attempt=1),
    )
    root = ElementTree.fromstring(document)
    assert (root.tag, [verb.tag for verb in root]) == ("Response", ["Connect", "Redirect"])
    stream = root.find("Connect/Stream")
    assert stream is not None
    assert stream.attrib == {
        "url": "wss://relay.example/twilio-stream",
        "statusCallback": "https://relay.example/twilio/stream?call=call_1",
        "statusCallbackMethod": "POST",
    }
    assert [parameter.attrib for parameter in stream] == [{"name": "token", "value": "call_1.0.mac"}]
    assert root.findtext("Redirect") == "https://relay.example/twiml?call=call_1&attempt=1"


def test_an_announcement_is_gathered_over_before_the_stream_is_connected() -> None:
    document = twiml.connect_stream(
        stream_url="wss://h/twilio-stream",
        token="t",
        status_callback="https://h/s",
        redirect="https://h/twiml?call=a&attempt=1",
        announcement=twiml.Announcement("Hi & bye.", twiml.key_url("https://h", "call_a", 1)),
    )
    theirs = VoiceResponse()
    gather = theirs.gather(
        input="dtmf",
        num_digits=1,
        finish_on_key="",
        timeout=1,
        action="https://h/twilio/key?call=call_a&said=1",
        method="POST",
    )
    gather.say("Hi & bye.", language="en-US")
    verbs = ElementTree.fromstring(document)
    assert [verb.tag for verb in verbs] == ["Gather", "Connect", "Redirect"]
    assert ElementTree.canonicalize(ElementTree.tostring(verbs[0])) == ElementTree.canonicalize(
        ElementTree.tostring(ElementTree.fromstring(str(theirs))[0])
    )


def test_the_document_is_what_twilios_own_package_would_write() -> None:
    theirs = VoiceResponse()
    connect = Connect()
    stream = connect.stream(
        url="wss://h/twilio-stream", status_callback="https://h/s?call=a&b=c", status_callback_method="POST"
    )
    stream.parameter(name="token", value='<"&>')
    theirs.append(connect)
    theirs.redirect("https://h/twiml?call=a&attempt=1", method="POST")
    ours = twiml.connect_stream(
        stream_url="wss://h/twilio-stream",
        token='<"&>',
        status_callback="https://h/s?call=a&b=c",
        redirect="https://h/twiml?call=a&attempt=1",
    )
    assert ElementTree.canonicalize(ours) == ElementTree.canonicalize(str(theirs))


def test_a_person_is_dialled_from_our_number_and_the_word_on_it_comes_to_us() -> None:
    action = twiml.transfer_url("https://h", "call_a", 1)
    document = twiml.dial("+12025550111", caller_id="+12025550100", ring_seconds=25, action=action)
    theirs = VoiceResponse()
    theirs.dial(
        caller_id="+12025550100",
        timeout=25,
        action="https://h/twilio/transfer?call=call_a&attempt=1",
        method="POST",
    ).number("+12025550111")
    assert ElementTree.canonicalize(document) == ElementTree.canonicalize(str(theirs))


def test_the_documents_after_the_stream_hang_up_with_or_without_a_sentence() -> None:
    assert [verb.tag for verb in ElementTree.fromstring(twiml.hangup())] == ["Hangup"]
    root = ElementTree.fromstring(twiml.say_and_hangup("Es tut uns leid.", language="de-DE"))
    assert [verb.tag for verb in root] == ["Say", "Hangup"]
    assert (root[0].text, root[0].attrib) == ("Es tut uns leid.", {"language": "de-DE"})


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_said_the_document_can_be_parsed(sentence: str) -> None:
    document = twiml.say_and_hangup(sentence, language=sentence).encode("utf-8")
    assert [verb.tag for verb in ElementTree.fromstring(document)] == ["Say", "Hangup"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co"))))
def test_what_is_said_is_what_was_meant(sentence: str) -> None:
    assert (ElementTree.fromstring(twiml.say_and_hangup(sentence)).findtext("Say") or "") == sentence


@pytest.mark.parametrize(
    ("public_url", "expected"),
    [
        ("https://relay.example", "wss://relay.example/twilio-stream"),
        ("https://relay.example/", "wss://relay.example/twilio-stream"),
        ("https://relay.example:8443/pbx", "wss://relay.example:8443/pbx/twilio-stream"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/twilio-stream"),
    ],
)
def test_the_stream_address_is_the_public_one_with_a_socket_scheme_and_no_query(
    public_url: str, expected: str
) -> None:
    assert twiml.stream_url(public_url) == expected


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(0, 9))
def test_every_address_carries_the_call_and_a_later_attempt_its_number(call_id: str, attempt: int) -> None:
    for address in (
        twiml.twiml_url(PUBLIC_URL, call_id, attempt),
        twiml.stream_status_url(PUBLIC_URL, call_id, attempt),
    ):
        query = parse_qs(urlsplit(address).query)
        assert query == {"call": [call_id]} | ({"attempt": [str(attempt)]} if attempt else {})
    for address in (
        twiml.status_url(PUBLIC_URL, call_id),
        twiml.amd_url(PUBLIC_URL, call_id),
        twiml.recording_url(PUBLIC_URL, call_id),
    ):
        assert parse_qs(urlsplit(address).query) == {"call": [call_id]}
