"""Voice Agent messages as the vendor's documents and live captures show them."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.outcomes import WireError
from relay.wire import agent

PCMU = agent.Format("audio/pcmu")

READY = rb"""{
  "type": "session.ready",
  "session_id": "sess_7941c0f2aa5b4c0c9d7d1f7a2b3c4d5e",
  "expires_at": 1790215455,
  "resume_token": "opaque",
  "config": {
    "id": "sess_7941c0f2aa5b4c0c9d7d1f7a2b3c4d5e",
    "system_prompt": "...", "greeting": "...",
    "input": {"type":"audio","format":{"encoding":"audio/pcmu","sample_rate":8000},"turn_detection":null,
              "keyterms":null,"transcription_mode":null,"continuous_partials":null,"transcription_prompt":null,
              "language_codes":null,"voice_focus":null,"voice_focus_threshold":null},
    "output": {"type":"audio","voice":"alba","format":{"encoding":"audio/pcmu","sample_rate":8000},
               "volume":null},
    "tools": [], "llm": [], "pre_connect_requests": []
  },
  "timestamp": 1790211860.117
}"""
DOCUMENTED: list[tuple[bytes, agent.AgentMessage]] = [
    (
        b'{"type":"session.updated","config":{"id":"sess_1","system_prompt":"...","greeting":"...","input":{},'
        b'"output":{},"tools":[],"llm":[],"pre_connect_requests":[]},"timestamp":1790211860.1}',
        agent.SessionUpdated(),
    ),
    (
        READY,
        agent.SessionReady(
            "sess_7941c0f2aa5b4c0c9d7d1f7a2b3c4d5e",
            "opaque",
            agent.SessionConfig(agent.Side(PCMU), agent.Side(PCMU, "alba")),
        ),
    ),
    (
        b'{"type":"session.error","code":"immutable_field","message":"cannot be changed",'
        b'"session_id":"sess_1","param":"output.voice","timestamp":1790210503.02}',
        agent.SessionError("immutable_field", "cannot be changed", "output.voice"),
    ),
    (
        b'{"type":"session.error","code":"unauthorized","message":"Authentication failed","session_id":null,'
        b'"param":null}',
        agent.SessionError("unauthorized", "Authentication failed"),
    ),
    (
        b'{"type":"session.ended","session_duration_seconds":35.279485,"audio_duration_seconds":null,'
        b'"timestamp":1790211905.4}',
        agent.SessionEnded(35.279485),
    ),
    (b'{"type":"input.speech.started","timestamp":1790211869.39}', agent.SpeechStarted()),
    (b'{"type":"input.speech.stopped","timestamp":"2026-09-24T10:00:00Z"}', agent.SpeechStopped()),
    (
        b'{"type":"transcript.user.delta","item_id":"msg_a1","text":"The order number is 4815"}',
        agent.CalleePartial("The order number is 4815"),
    ),
    (
        b'{"type":"transcript.user","item_id":"msg_a1","text":"The order number is 481529."}',
        agent.CalleeSaid("The order number is 481529."),
    ),
    (
        b'{"type":"reply.started","reply_id":"resp_9bc31ea8","item_id":"msg_b7","timestamp":1790211872.04}',
        agent.ReplyStarted("resp_9bc31ea8"),
    ),
    (
        b'{"type":"reply.audio","reply_id":"resp_9bc31ea8","data":"/////w==","timestamp":1790211872.05}',
        agent.ReplyAudio("/////w==", "resp_9bc31ea8"),
    ),
    (b'{"type":"reply.audio","data":"/////w=="}', agent.ReplyAudio("/////w==")),
    (
        b'{"type":"transcript.agent.delta","reply_id":"resp_9bc31ea8","item_id":"msg_b7","delta":"Your ",'
        b'"start_ms":32,"end_ms":null}',
        agent.AgentPartial("Your ", "resp_9bc31ea8"),
    ),
    (
        b'{"type":"transcript.agent","reply_id":"resp_9bc31ea8","item_id":"msg_b7",'
        b'"text":"Your order is in transit.","interrupted":false}',
        agent.AgentSaid("Your order is in transit.", False, "resp_9bc31ea8"),
    ),
    (
        b'{"type":"reply.done","reply_id":"resp_9bc31ea8","status":"completed","timestamp":1790211875.3}',
        agent.ReplyDone("completed", "resp_9bc31ea8"),
    ),
    (b'{"type":"reply.done"}', agent.ReplyDone("completed")),
    (
        b'{"type":"reply.error","reply_id":"resp_1","code":"provider_error","message":"...","retryable":true,'
        b'"status_code":503,"provider_code":null,"provider_param":null,"timestamp":1790211880.0}',
        agent.ReplyError("provider_error", "...", "resp_1"),
    ),
    (
        b'{"type":"tool.call","call_id":"chatcmpl-tool-9ebb68d367b5d129","name":"lookup_order",'
        b'"arguments":{"order_number":"481529"},"timestamp":1790211874.7}',
        agent.ToolCall("chatcmpl-tool-9ebb68d367b5d129", "lookup_order", {"order_number": "481529"}),
    ),
    (b'{"type":"something.new","x":{"y":[1,2.5,null]}}', agent.Unrecognised("something.new")),
    (b'{"code":"UNAUTHORIZED","message":"no"}', agent.SessionError("UNAUTHORIZED", "no")),
    (b'{"type":"error","code":"server_error","param":"x"}', agent.SessionError("server_error", "", "x")),
]


@pytest.mark.parametrize(("text", "message"), DOCUMENTED)
def test_every_documented_event_is_read(text: bytes, message: agent.AgentMessage) -> None:
    assert agent.decode(text) == message


@pytest.mark.parametrize(
    ("text", "document"),
    [
        (agent.input_audio("//////////8="), {"type": "input.audio", "audio": "//////////8="}),
        (agent.session_update({"greeting": "Hi"}), {"type": "session.update", "session": {"greeting": "Hi"}}),
        (
            agent.tool_result("chatcmpl-tool-9ebb68d367b5d129", '{"ok":true}'),
            {
                "type": "tool.result",
                "call_id": "chatcmpl-tool-9ebb68d367b5d129",
                "result": '{"ok":true}',
                "is_error": False,
            },
        ),
        (
            agent.tool_result("c", "taken", is_error=True),
            {"type": "tool.result", "call_id": "c", "result": "taken", "is_error": True},
        ),
        (
            agent.reply_create("Tell the caller we are still checking."),
            {"type": "reply.create", "instructions": "Tell the caller we are still checking."},
        ),
        (agent.reply_cancel("resp_9bc31ea8"), {"type": "reply.cancel", "reply_id": "resp_9bc31ea8"}),
        (agent.session_end(), {"type": "session.end"}),
    ],
)
def test_what_we_send_has_exactly_the_documented_keys(text: bytes, document: dict[str, Any]) -> None:
    assert json.loads(text) == document


@given(audio=st.binary(max_size=400), reply_id=st.none() | st.text())
def test_audio_passes_untouched(audio: bytes, reply_id: str | None) -> None:
    payload = base64.b64encode(audio).decode()
    message = agent.ReplyAudio(payload, reply_id)

    assert agent.decode(msgspec.json.encode(message)) == message
    assert json.loads(agent.input_audio(payload))["audio"] == payload


@pytest.mark.parametrize(
    ("status", "was_cut", "was_completed"),
    [
        ("completed", False, True),
        ("interrupted", True, False),
        ("cancelled", True, False),
        ("failed", False, False),
        ("", False, False),
        ("something-new", False, False),
    ],
)
def test_only_completed_means_spoken_to_the_end(status: str, was_cut: bool, was_completed: bool) -> None:
    done = agent.ReplyDone(status)

    assert (done.was_cut, done.was_completed) == (was_cut, was_completed)


PCM = agent.Side(agent.Format("audio/pcm"))


@pytest.mark.parametrize(
    ("config", "foreign"),
    [
        (None, None),
        (agent.SessionConfig(), None),
        (agent.SessionConfig(agent.Side(), agent.Side(agent.Format())), None),
        (agent.SessionConfig(agent.Side(PCMU), agent.Side(PCMU)), None),
        (agent.SessionConfig(PCM, agent.Side(PCMU)), "audio/pcm"),
        (agent.SessionConfig(None, PCM), "audio/pcm"),
    ],
)
def test_an_absent_echo_of_the_format_is_accepted_and_another_is_not(
    config: agent.SessionConfig | None, foreign: str | None
) -> None:
    assert agent.SessionReady("sess_1", None, config).foreign_encoding == foreign


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"arguments": {"a": 1}}, {"a": 1}),
        ({"arguments": '{"a":1}'}, {"a": 1}),
        ({"arguments": ""}, {}),
        ({"arguments": "null"}, {}),
        ({"args": {"a": 1}}, {"a": 1}),
        ({"arguments": None, "args": '{"a":1}'}, {"a": 1}),
        ({"arguments": {}, "args": {"a": 1}}, {}),
        ({}, {}),
    ],
)
def test_arguments_may_be_an_object_or_json_text_under_either_key(
    fields: dict[str, Any], arguments: dict[str, Any]
) -> None:
    call = agent.decode(json.dumps({"type": "tool.call", "call_id": "c", "name": "n", **fields}).encode())

    assert isinstance(call, agent.ToolCall)
    assert call.read_arguments() == arguments


@pytest.mark.parametrize(
    "arguments",
    [
        7,
        [1],
        True,
        "[1]",
        "7",
        "{",
        "{'a':1}",
        '{"a":NaN}',
        '{"a":"\\ud800"}',
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' + "1" * 100_000 + "}",
    ],
)
def test_arguments_that_are_no_object_raise_the_error_of_the_wire(arguments: object) -> None:
    with pytest.raises(WireError):
        agent.ToolCall("c", "n", arguments).read_arguments()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"17",
        b"{}",
        b'{"type":null}',
        b'{"type":17}',
        b'{"code":17}',
        b'{"type":"reply.audio"}',
        b'{"type":"reply.audio","data":null}',
        b'{"type":"reply.done","status":[]}',
        b'{"type":"session.error","message":"no code"}',
        b'{"type":"session.ready"}',
        b'{"type":"session.ready","session_id":"s","config":{"input":{"format":7}}}',
        b'{"type":"tool.call","name":"n"}',
        b'{"type":"tool.call","call_id":"c","name":"n","arguments":NaN}',
        b'{"type":"tool.call","call_id":"c","name":"n","arguments":1e999}',
        b'{"type":"tool.call","call_id":"c","name":"n","arguments":' + b"1" * 100_000 + b"}",
        b'{"type":"tool.call","call_id":"c","name":"n","arguments":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type":"transcript.user","text":"\xff"}',
        b'{"type":"transcript.user","text":"\xed\xa0\x80"}',
        b'{"type":"transcript.user","text":"\\udc00"}',
        b'{"type":"\xff"}',
        b'{"type":"reply.started","type":"reply.audio","data":"AAAA"}x',
        b'{"type":"new","x":' + b"[" * 100_000 + b"}",
        READY[:-1],
        b"\x00" * 100,
    ],
)
def test_garbage_raises_the_error_of_the_wire_and_no_other(text: bytes) -> None:
    with pytest.raises(WireError):
        agent.decode(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["type", "code", "data", "reply_id", "status", "config", "arguments", "call_id", "name"]
)
TYPES = st.sampled_from([json.loads(text).get("type") for text, _ in DOCUMENTED])


@given(text=st.binary())
def test_no_bytes_raise_another_error(text: bytes) -> None:
    try_to_read(text)


@given(document=st.dictionaries(KEYS, JSON), kind=st.none() | TYPES)
def test_no_document_raises_another_error(document: dict[str, Any], kind: str | None) -> None:
    try_to_read(json.dumps(document if kind is None else {**document, "type": kind}).encode())


@given(
    text=st.sampled_from([text for text, _ in DOCUMENTED]), at=st.integers(0, 600), junk=st.binary(max_size=3)
)
def test_no_damage_raises_another_error(text: bytes, at: int, junk: bytes) -> None:
    try_to_read(text[:at] + junk + text[at + 1 :])


def try_to_read(text: bytes) -> None:
    try:
        message = agent.decode(text)
        if isinstance(message, agent.ToolCall):
            assert isinstance(message.read_arguments(), dict)
    except WireError:
        return
    assert isinstance(message, agent.AgentMessage)
