"""Twilio's forms as values; and what its error codes mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.outcomes import WireError
from relay.wire.callbacks import (
    AmdCallback,
    AnsweredBy,
    CarrierStatus,
    DialCallback,
    DialOutcome,
    RecordingCallback,
    RecordingStatus,
    StatusCallback,
    StreamCallback,
    StreamEvent,
    read_amd,
    read_call_sid,
    read_dial,
    read_recording,
    read_sid,
    read_status,
    read_stream,
)
from relay.wire.carrier_errors import explain

CALL_SID = "CA77145f1c2f9166cab03d083d5804d9ae"
STREAM_SID = "MZc3320b5e6fba10a11d7c96fe1903e3f0"
RECORDING_SID = "RE" + "0123456789abcdef" * 2
Form = list[tuple[str, str]]


def form(**fields: str) -> Form:
    return [("CallSid", CALL_SID), ("AccountSid", "AC" + "1" * 32), ("CallerName", ""), *fields.items()]


def test_a_status_callback_tells_how_far_the_call_has_come() -> None:
    assert read_status(form(CallStatus="ringing", SequenceNumber="1")) == StatusCallback(
        CALL_SID, CarrierStatus.RINGING, sequence=1
    )


def test_the_last_status_callback_tells_how_it_ended() -> None:
    ended = form(
        CallStatus="failed",
        SequenceNumber="3",
        CallDuration="0",
        SipResponseCode="404",
        AnsweredBy="machine_end_beep",
        ErrorCode="32017",
        ErrorMessage="blocked",
    )
    assert read_status(ended) == StatusCallback(
        CALL_SID, CarrierStatus.FAILED, 3, AnsweredBy.MACHINE_END_BEEP, 0, 404, 32017, "blocked"
    )


def test_blank_and_unreadable_side_fields_do_not_cost_the_status() -> None:
    odd = form(
        CallStatus="completed", SequenceNumber="", CallDuration="٣", SipResponseCode="-1", AnsweredBy=""
    )
    assert read_status(odd) == StatusCallback(CALL_SID, CarrierStatus.COMPLETED)


def test_status_ranks_only_rise_and_all_ends_are_equal() -> None:
    words = ("queued", "initiated", "ringing", "in-progress")
    ranks = [CarrierStatus(word).rank for word in words]
    ends = [status for status in CarrierStatus if status.is_terminal]
    assert ranks == sorted(set(ranks))
    assert {end.value for end in ends} == {"completed", "busy", "failed", "no-answer", "canceled"}
    assert {end.rank for end in ends} == {max(ranks) + 1}


def test_a_stream_callback_tells_what_happened_to_the_stream() -> None:
    assert read_stream(
        form(StreamEvent="stream-error", StreamError="handshake", StreamSid=STREAM_SID)
    ) == StreamCallback(CALL_SID, StreamEvent.ERROR, STREAM_SID, "handshake")
    assert read_stream(form(StreamEvent="stream-started")) == StreamCallback(CALL_SID, StreamEvent.STARTED)


def test_a_recording_callback_tells_where_the_recording_is() -> None:
    fields = form(
        RecordingSid=RECORDING_SID,
        RecordingStatus="completed",
        RecordingUrl="https://api.twilio.com/r",
        RecordingDuration="12",
        RecordingChannels="2",
    )
    assert read_recording(fields) == RecordingCallback(
        CALL_SID, RECORDING_SID, RecordingStatus.COMPLETED, "https://api.twilio.com/r", 12, 2
    )


def test_a_detection_callback_tells_who_answered() -> None:
    assert read_amd(form(AnsweredBy="human", MachineDetectionDuration="2345")) == AmdCallback(
        CALL_SID, AnsweredBy.HUMAN, 2.345
    )


@pytest.mark.parametrize(
    ("said", "outcome", "is_answered"),
    [
        ("completed", DialOutcome.COMPLETED, True),
        ("answered", DialOutcome.ANSWERED, True),
        ("busy", DialOutcome.BUSY, False),
        ("no-answer", DialOutcome.NO_ANSWER, False),
        ("something new", DialOutcome.FAILED, False),
    ],
)
def test_a_dial_tells_what_became_of_it(said: str, outcome: DialOutcome, is_answered: bool) -> None:
    form = [("CallSid", "CA" + "1" * 32), ("CallStatus", "in-progress"), ("DialCallStatus", said)]
    told = read_dial(form)
    assert told == DialCallback("CA" + "1" * 32, outcome, is_over=False)
    assert told.outcome.is_answered is is_answered
    assert read_dial([*form[:1], ("CallStatus", "completed"), *form[2:]]).is_over
    assert read_dial([*form, ("DialCallDuration", "61")]).talked_seconds == 61


def test_only_machines_are_machines() -> None:
    assert AnsweredBy("a word of next year") is AnsweredBy.UNKNOWN
    people = {answered_by for answered_by in AnsweredBy if not answered_by.is_machine}
    assert people == {AnsweredBy.HUMAN, AnsweredBy.UNKNOWN}


@pytest.mark.parametrize(
    "sid", ["", "CA", CALL_SID[:-1], CALL_SID + "0", STREAM_SID, CALL_SID[:-1] + "g", f"{CALL_SID}\n"]
)
def test_a_misshapen_call_sid_cannot_be_read(sid: str) -> None:
    with pytest.raises(WireError):
        read_sid("CA", sid)
    with pytest.raises(WireError):
        read_status([("CallSid", sid), ("CallStatus", "ringing")])


@pytest.mark.parametrize(
    ("read", "fields"),
    [
        (read_status, form()),
        (read_status, form(CallStatus="answered")),
        (read_stream, form(StreamEvent="stream-paused")),
        (read_stream, form(StreamEvent="stream-started", StreamSid=CALL_SID)),
        (read_recording, form(RecordingStatus="completed")),
        (read_recording, form(RecordingSid=RECORDING_SID, RecordingStatus="")),
        (read_amd, form()),
    ],
)
def test_a_form_without_what_it_is_about_cannot_be_read(read: Callable[[Form], object], fields: Form) -> None:
    with pytest.raises(WireError):
        read(fields)


names = st.sampled_from(
    ["CallSid", "CallStatus", "StreamEvent", "SequenceNumber", "AnsweredBy", "RecordingSid"]
)


@given(st.lists(st.tuples(names | st.text(), st.text() | st.just(CALL_SID) | st.sampled_from(CarrierStatus))))
def test_garbage_raises_the_wires_error_or_nothing(fields: Form) -> None:
    for read in (read_call_sid, read_status, read_stream, read_recording, read_amd):
        try:
            read(fields)
        except WireError:
            pass


EVERY_CODE = """
    20003 20005 10001 20006 20010 20008 20404 20409 20422 20429 20500 20503 21201 21213 21202 21203
    21205 11100 21206 21208 21209 21210 21211 21212 21214 21215 21216 21217 21218 21219 21220 21234
    21263 21262 21609 21626 22001 22005 10002 10004 32018 32019 21608 21606 21408 11200 11201 11202
    11203 11205 11206 11210 11215 11220 11235 11236 11237 12100 12102 12200 12300 15003 15004 31900
    31901 31902 31903 31904 31910 31920 31921 31922 31923 31924 31930 31931 31940 31941 31942 31950
    31951 13214 13223 13224 13225 13227 13247 32014 32015 13805 32016 32017 32021
"""


def test_every_code_a_dialer_meets_has_a_sentence_of_its_own_with_a_remedy() -> None:
    for code in EVERY_CODE.split():
        sentence = explain(int(code), "Twilio's words")
        assert "Twilio's words" not in sentence
        assert "docs/api/errors" not in sentence
        assert sentence.endswith(".")
        assert ";" in sentence or "," in sentence, "what is wrong; what to do"


def test_an_unlisted_code_is_explained_by_its_family_or_by_twilios_words() -> None:
    assert explain(11299, "odd").startswith("Twilio could not fetch from PUBLIC_URL")
    assert (
        explain(99999, "odd") == "odd (Twilio error 99999, see https://www.twilio.com/docs/api/errors/99999)"
    )
    assert explain(None, "odd") == "odd"
    assert explain(None) != ""
