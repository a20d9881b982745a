"""A recorded call decides again as it did, and a change of the rules shows where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from relay.cli import app, run
from relay.outcomes import Blame, Ending, Reason
from relay.rehearsal import open_stage
from relay.replay import ReplayError, read_capture, replay
from relay.simulator.scenario import shipped_scenario

STREAM = "MZ" + "1" * 32
FRAME = "<216 payload>"  # 20 ms of the phone's, as a capture leaves it


def line(at: float, leg: str, direction: str, **message: Any) -> dict[str, Any]:
    return {"at": at, "leg": leg, "direction": direction, "message": message}


def said(at: float, event: str, **fields: Any) -> dict[str, Any]:
    return line(at, "phone", "in", event=event, streamSid=STREAM, **fields)


def opening() -> Iterator[dict[str, Any]]:
    """Up to the moment at which the opening was heard."""
    yield line(0.0, "agent", "out", type="session.update", session={"greeting": "<40 greeting>"})
    yield line(0.3, "agent", "in", type="session.ready", session_id="s", resume_token="<8 resume_token>")
    yield line(0.4, "agent", "in", type="reply.started", reply_id="r1")
    yield line(0.4, "agent", "in", type="reply.audio", reply_id="r1", data="<400 data, silence>")
    yield line(0.5, "agent", "in", type="reply.audio", reply_id="r1", data="<400 data>")
    yield line(0.6, "agent", "in", type="reply.done", reply_id="r1", status="completed")
    yield line(0.6, "phone", "out", event="mark", streamSid=STREAM, mark={"name": "opening.1.0"})
    yield said(0.7, "media", media={"track": "inbound", "payload": FRAME})
    yield said(0.8, "mark", mark={"name": "opening.1.0"})
    yield said(0.9, "media", media={"track": "inbound", "payload": FRAME})


def test_what_was_said_then_is_decided_again() -> None:
    played = replay([*opening(), said(1.0, "stop", stop={})])
    names = [type(step.action).__name__ for step in played.steps]
    assert names.count("ForwardToAgent") == 1
    assert names.count("SendMark") == 1
    assert played.difference is None
    assert played.ending == Ending(Blame.CALLEE, Reason.HUNG_UP, "stop")


def test_silence_is_no_opening_whatever_its_length() -> None:
    lines = [each for each in opening() if each["message"].get("data") != "<400 data>"]
    played = replay(lines)
    assert played.ending is not None
    assert played.ending.reason is Reason.SILENT


def test_an_alarm_rings_at_its_time_when_nothing_more_comes() -> None:
    played = replay([line(0.0, "agent", "out", type="session.update", session={})])
    assert played.ending == Ending(Blame.AGENT, Reason.NOT_READY)
    assert next(step.at for step in played.steps if step.cause == "alarm") == 8.0


def test_what_it_would_say_otherwise_now_is_named() -> None:
    lines = list(opening())
    lines[6]["message"]["mark"]["name"] = "another"
    assert replay(lines).difference == "then it said mark another, now mark opening.1.0"
    more = [*opening(), line(1.0, "phone", "out", event="clear", streamSid=STREAM)]
    assert replay(more).difference == "then it said clear, now nothing"
    del lines[6]
    assert replay(lines).difference == "then it said nothing more, now mark opening.1.0"


def test_an_agent_with_limits_of_its_own_is_replayed_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        *opening(),
        line(3.8, "phone", "out", event="mark", streamSid=STREAM, mark={"name": "clip.2.0"}),
        said(5.0, "stop", stop={}),
    ]
    file = tmp_path / "call.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(each) for each in lines))
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "hasty.toml").write_text(
        'purpose = "informational"\ndisclosure = "Hello, I am a machine that calls."\n'
        'system_prompt = "Be kind."\n[limits]\nsilence_seconds = 3\n'
    )
    monkeypatch.chdir(tmp_path)

    assert run(["replay", str(file)]) == 1
    assert "mark clip.2.0" in capsys.readouterr().out
    assert run(["replay", str(file), "--agent", "hasty"]) == 0
    assert run(["replay", str(file), "--agent", "nobody"]) == 1


def test_a_file_that_is_no_capture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"{}\n", b"no JSON\n", b"[1]\n"):
        with pytest.raises(ReplayError):
            read_capture(content)
    file = tmp_path / "call.jsonl"
    file.write_bytes(b"{}\n")
    assert app(["replay", str(file)], result_action="return_value") == 2
    assert "line 1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["appointment", "talkative"])
async def test_a_rehearsed_call_replays_to_the_same_ending(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "capture"
    async with open_stage(tmp_path, synthesise=False, RELAY_CAPTURE_DIR=str(folder)) as stage:
        performance = await stage.play(shipped_scenario(scenario))
    (file,) = folder.glob("*.jsonl")
    capsys.readouterr()  # what the service has logged
    assert app(["replay", str(file), "--json"], result_action="return_value") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ending"] == performance.record["ending"]
    assert told["difference"] is None
    assert app(["replay", str(file)], result_action="return_value") == 0
    assert "EndCall nobody/goodbye" in capsys.readouterr().out
    changed = file.read_bytes().replace(b'"mark":{"name":"opening', b'"mark":{"name":"closing', 1)
    file.write_bytes(changed)
    assert orjson.loads(changed.splitlines()[0])
    assert app(["replay", str(file)], result_action="return_value") == 1
    assert "different from the recording" in capsys.readouterr().out
