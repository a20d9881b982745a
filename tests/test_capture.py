"""A capture shows the shape of what was said on the wire, and nothing that anybody said or pressed."""

from __future__ import annotations

from pathlib import Path

import orjson

from relay.telemetry.capture import Captures

SPOKEN = {"type": "transcript.user", "text": "my card is 4111", "item_id": "m1"}
PRESSED = {"event": "dtmf", "streamSid": "MZ1", "dtmf": {"track": "inbound_track", "digit": "7"}}
SECRET = {"type": "session.ready", "session_id": "s1", "resume_token": "opens-doors"}


async def test_speech_keys_and_secrets_are_left_out(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    tap = captures.tap("call_1", "phone")
    assert tap is not None
    for message in (SPOKEN, PRESSED, SECRET):
        tap("in", orjson.dumps(message))
    tap("in", b"no JSON, but 4111")
    await captures.write("call_1")
    written = (tmp_path / "call_1.jsonl").read_text()
    lines = [orjson.loads(line) for line in written.splitlines()]
    assert [line["message"].get("type") or line["message"].get("event") for line in lines[:3]] == [
        "transcript.user",
        "dtmf",
        "session.ready",
    ]
    assert lines[1]["message"]["dtmf"]["digit"] == "<1 digit>"
    for kept_out in ("4111", "opens-doors", '"7"'):
        assert kept_out not in written


async def test_without_a_folder_nothing_is_kept() -> None:
    captures = Captures(None)
    assert captures.tap("call_1", "agent") is None
    await captures.write("call_1")
