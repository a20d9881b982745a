"""A demo shows a call as it happens, word for word, and succeeds only where every check holds."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from relay.demo import Show, _write_files, run_demo
from relay.rehearsal import Performance
from relay.simulator.ledger import Entry, Ledger
from relay.simulator.scenario import Scenario, shipped_scenario


def test_what_is_said_is_shown_as_it_is_on_one_line() -> None:
    console = Console(file=io.StringIO(), width=40)
    show = Show(console, Scenario())
    said = "Well [/b] then, [unintelligible], and much more than fits into a line."
    show.see(Entry(1.0, "phone", "noted", "speech-started", {"text": said}))
    show.see(Entry(2.0, "agent", "sent", "transcript.agent", {"text": "[Yes]", "interrupted": True}))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split(maxsplit=1) for line in console.file.getvalue().splitlines()]
    assert lines == [["callee", said], ["agent", "[Yes] (interrupted)"]]


def test_the_recording_has_every_stream_of_the_call(tmp_path: Path) -> None:
    phones = [SimpleNamespace(said=bytearray(b"ab"), heard=bytearray(b"AB")) for _ in range(2)]
    call: Any = SimpleNamespace(phones=phones)
    _write_files(Performance(Scenario(), Ledger(), call=call), tmp_path)
    assert (tmp_path / "call.wav").read_bytes().endswith(b"aAbBaAbB")


@pytest.mark.parametrize("reason", ["busy", "no-answer"])
def test_a_demo_succeeds_only_where_every_check_holds(
    reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    busy = shipped_scenario("busy")
    expected = busy.expect.model_copy(update={"ending": ("callee", reason)})
    held = run_demo(busy.model_copy(update={"expect": expected}), tmp_path, as_json=True)
    told = json.loads(capfd.readouterr().out)
    assert held == (reason == "busy")
    assert told["checks"].pop(f"ended by {reason}") == held
    assert all(told["checks"].values())
    assert told["ending"] == {"blame": "callee", "reason": "busy"}
    assert {file.name for file in Path(told["files"]).iterdir()} >= {"call.json", "events.jsonl", "relay.log"}
