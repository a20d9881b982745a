"""Who is Twilio and who is not; Twilio's own validator is the second opinion."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict

from relay.outcomes import WireError
from relay.wire.signature import (
    MAX_FORM_FIELDS,
    check_signature,
    parse_form,
    read_stream_token,
    sign,
    stream_token,
    upgrade_urls,
    webhook_urls,
)

TOKEN = "12345"
URL = "https://example.com/myapp.php?foo=1&bar=2"
any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates and control characters too
form_text = st.text(st.characters(codec="utf-8"))
forms = st.lists(st.tuples(form_text, form_text))


def test_the_signature_covers_the_address_and_the_fields_by_name() -> None:
    params = [("To", "B"), ("Digits", "1234"), ("A", "")]
    assert sign(TOKEN, URL, params) == sign(TOKEN, URL + "ADigits1234ToB")


def test_the_signature_of_twilios_published_example_is_theirs() -> None:
    params = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675309",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
    }
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert sign(TOKEN, url, params.items()) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


@given(form_text, form_text, forms)
def test_twilios_own_validator_computes_the_same_signature(
    token: str, url: str, params: list[tuple[str, str]]
) -> None:
    fields: MultiDict[str, str] = MultiDict(params)
    assert sign(token, url, params) == RequestValidator(token).compute_signature(url, fields)


@given(forms)
def test_a_form_is_parsed_as_it_was_encoded_with_blank_values_and_repeats(
    form: list[tuple[str, str]],
) -> None:
    assert parse_form(urlencode(form).encode()) == form


@given(st.binary(max_size=300))
def test_no_body_raises_anything_but_the_wires_error(body: bytes) -> None:
    check_signature([TOKEN], [URL], parse_form(body), "x")


def test_a_plus_sign_is_decoded_once() -> None:
    assert parse_form(b"To=%2B12025550143&Name=a+b%2Bc&CallerName=") == [
        ("To", "+12025550143"),
        ("Name", "a b+c"),
        ("CallerName", ""),
    ]


def test_a_form_of_too_many_fields_cannot_be_read() -> None:
    assert len(parse_form(b"&".join([b"a=b"] * MAX_FORM_FIELDS))) == MAX_FORM_FIELDS
    with pytest.raises(WireError):
        parse_form(b"&".join([b"a=b"] * (MAX_FORM_FIELDS + 1)))


@given(forms)
def test_a_request_signed_with_either_token_matches_while_tokens_rotate(
    params: list[tuple[str, str]],
) -> None:
    for token in ("new", "old"):
        assert (
            check_signature(["new", "old"], ["https://other/", URL], params, sign(token, URL, params)) == URL
        )
    assert check_signature(["new"], [URL], params, sign("old", URL, params)) is None


@pytest.mark.parametrize(
    ("form", "forged"),
    [
        ([("To", "+1")], [("To", "+2")]),
        ([("To", "+1")], [("To", "+1"), ("More", "")]),
        ([("To", "+1"), ("CallerName", "x")], [("To", "+1")]),
    ],
)
def test_a_changed_field_is_no_match(form: list[tuple[str, str]], forged: list[tuple[str, str]]) -> None:
    assert check_signature([TOKEN], [URL], forged, sign(TOKEN, URL, form)) is None


@given(st.none() | any_text, st.lists(st.tuples(any_text, any_text)), any_text)
def test_a_missing_or_malformed_signature_is_no_match_and_never_raises(
    signature: str | None, params: list[tuple[str, str]], url: str
) -> None:
    assert check_signature([TOKEN], [url], params, signature) is None


def test_a_blank_token_signs_nothing() -> None:
    assert check_signature([""], [URL], [], sign("", URL)) is None
    assert read_stream_token([""], stream_token("", "call_1", 0)) is None


def test_an_upgrade_may_be_signed_over_either_scheme_port_and_slash() -> None:
    assert upgrade_urls("https://relay.example", "/twilio-stream") == [
        "wss://relay.example/twilio-stream",
        "wss://relay.example:443/twilio-stream",
        "wss://relay.example/twilio-stream/",
        "wss://relay.example:443/twilio-stream/",
        "https://relay.example/twilio-stream",
        "https://relay.example:443/twilio-stream",
        "https://relay.example/twilio-stream/",
        "https://relay.example:443/twilio-stream/",
    ]


@pytest.mark.parametrize(
    ("public_url", "accepted", "refused"),
    [
        (
            "https://relay.example:443/",
            "wss://relay.example/twilio-stream",
            "ws://relay.example/twilio-stream",
        ),
        ("https://h:8443/pbx", "https://h:8443/pbx/twilio-stream/", "wss://h/pbx/twilio-stream"),
        ("http://127.0.0.1:80", "ws://127.0.0.1/twilio-stream", "wss://127.0.0.1/twilio-stream"),
        ("http://[::1]:8080", "http://[::1]:8080/twilio-stream", "ws://[::1]/twilio-stream"),
        ("http://[::1]", "ws://[::1]:80/twilio-stream", "ws://::1:80/twilio-stream"),
    ],
)
def test_only_the_configured_host_counts(public_url: str, accepted: str, refused: str) -> None:
    urls = upgrade_urls(public_url, "/twilio-stream")
    assert check_signature([TOKEN], urls, [], sign(TOKEN, accepted)) == accepted
    assert check_signature([TOKEN], urls, [], sign(TOKEN, refused)) is None


def test_a_webhook_may_be_signed_with_or_without_the_default_port_and_keeps_its_query() -> None:
    assert webhook_urls("https://relay.example/", "/twiml?call=a%20b") == [
        "https://relay.example/twiml?call=a%20b",
        "https://relay.example:443/twiml?call=a%20b",
    ]
    assert webhook_urls("https://relay.example:8443", "/twiml") == ["https://relay.example:8443/twiml"]


call_ids = st.from_regex(r"call_[0-9a-zA-Z_.-]{1,40}", fullmatch=True)


@given(call_ids, st.integers(0, 999))
def test_a_token_names_its_call_and_attempt_and_is_the_same_each_time(call_id: str, attempt: int) -> None:
    token = stream_token(TOKEN, call_id, attempt)
    assert token == stream_token(TOKEN, call_id, attempt)
    assert read_stream_token(["other", TOKEN], token) == (call_id, attempt)
    assert read_stream_token(["other"], token) is None


def test_every_character_of_a_token_counts() -> None:
    token = stream_token(TOKEN, "call_1", 1)
    for at in range(len(token)):
        for other in ("0", "A", "."):
            changed = token[:at] + other + token[at + 1 :]
            assert changed == token or read_stream_token([TOKEN], changed) is None
    assert len(token) < 100  # name and value of a <Parameter> may have 500 characters together


@given(any_text | st.builds("{}.{}.{}".format, any_text, any_text, any_text))
def test_a_text_that_is_no_token_names_no_call_and_never_raises(text: str) -> None:
    assert read_stream_token([TOKEN], text) is None


def test_an_attempt_has_one_spelling_only() -> None:
    genuine = stream_token(TOKEN, "call_1", 1)
    for digits in ("01", "+1", " 1", "1_0", "\u0661", "9" * 5000):
        assert read_stream_token([TOKEN], genuine.replace(".1.", f".{digits}.")) is None
