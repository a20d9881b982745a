"""`relay calls show`: what a person reads of a call."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.cli import run
from relay.outcomes import Blame, Ending, Reason
from relay.store import CallRecord, TranscriptLine

NOW = datetime(2026, 3, 10, 18, tzinfo=UTC)


def a_call() -> CallRecord:
    record = CallRecord("call_1", "+12025550143", "default", NOW, 600, answered_at=NOW)
    record.note(NOW + timedelta(seconds=0.5), "opening started", queued_seconds=0.25)
    record.transcribe(TranscriptLine("agent", "Your check-up is on Monday.", NOW, True), "0.1")
    record.heard(NOW, "0.1", sent_seconds=1.5, heard_seconds=0.6, characters=13)
    for wait_seconds in (1.2, 2.5, None):
        record.measure(
            NOW, agent_seconds=0.6, relay_seconds=0.001, queued_seconds=0.1, wait_seconds=wait_seconds
        )
    record.charge(NOW, "twilio-voice", "0.0140", "USD")
    record.charge(NOW, "twilio-recording", None, None)
    record.ending, record.ended_at = Ending(Blame.CALLEE, Reason.HUNG_UP), NOW + timedelta(seconds=9)
    return record


def shown(
    record: CallRecord, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    def answer(*_question: str, **_body: Any) -> dict[str, Any]:
        return record.as_json()

    # Not by import: the package has a command of that name.
    monkeypatch.setattr(sys.modules["relay.cli.calls"], "ask", answer)
    assert run(["calls", "show", "call_1"]) == 0
    return capsys.readouterr().out.splitlines()


def test_what_was_heard_and_what_was_not_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(a_call(), monkeypatch, capsys)
    assert "    agent: Your check-up — [not heard: is on Monday.]" in lines


def test_the_longest_wait_is_told_with_our_share_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(a_call(), monkeypatch, capsys)
    assert (
        "  first sound 0.75 s after the answer; longest wait for an answer 2.50 s, 0.10 s of it ours" in lines
    )


def test_the_cost_says_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "  estimated cost 0.0140 USD, without twilio-recording" in shown(a_call(), monkeypatch, capsys)


def test_a_call_that_was_never_answered_has_none_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = CallRecord("call_1", "+12025550143", "default", NOW, 600)
    assert shown(record, monkeypatch, capsys) == ["call_1  queued  +12025550143  0.0 s"]


def test_nothing_of_a_listed_call_is_cut_and_its_id_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call_id = "call_0123456789abcdef01234567"
    listed = {"id": call_id, "to": "+12025550143", "agent": "lead-qualification", "status": "ended"}
    ending = {"blame": "us", "reason": "not-permitted"}
    calls = [{**listed, "ending": ending, "duration_seconds": 0.0}]
    monkeypatch.setattr(sys.modules["relay.cli.calls"], "ask", lambda *_, **__: {"calls": calls})
    monkeypatch.setenv("COLUMNS", "60")
    assert run(["calls", "list"]) == 0
    shown = capsys.readouterr().out
    assert call_id in shown
    assert "…" not in shown
