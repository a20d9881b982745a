"""Calls that are over leave nothing behind, judged by count; what is made to stay is missed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.chaos.soak import run_soak
from relay.cli import app
from relay.line import Line
from relay.switchboard import Switchboard

SEED = 20_000
CALLS = 400
FEW_CALLS = 140


@pytest.mark.slow
@pytest.mark.timeout(400)  # three quarters of a minute on a core of its own
def test_four_hundred_calls_leave_nothing_behind() -> None:
    samples, broken = run_soak(SEED, calls=CALLS)
    assert broken == []
    assert samples[-1].calls == CALLS
    assert samples[-1].calls_held == samples[-1].tasks_left == 0


@pytest.mark.slow
@pytest.mark.timeout(400)  # a third of that; the census is longer in a process that has run many tests
def test_what_calls_leave_behind_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    release = Switchboard._release
    kept: list[Any] = []

    def keep(switchboard: Switchboard, line: Line) -> None:
        release(switchboard, line)
        kept.append((line, bytes(20_000)))

    monkeypatch.setattr(Switchboard, "_release", keep)
    _, broken = run_soak(SEED, calls=FEW_CALLS)
    assert [sentence.partition(" grew ")[0] for sentence in broken] == ["what is held", "calls_held"]


@pytest.mark.slow
def test_the_command_shows_a_table_and_reports_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["chaos", "--soak", "0.05", "--seed", str(SEED)]
    assert app(words, result_action="return_value") == 0
    assert "files" in capsys.readouterr().out
    assert app([*words, "--json"], result_action="return_value") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["violations"] == []
    assert {"memory_kib", "held_kib", "descriptors", "threads", "tasks_left"} <= set(told["samples"][0])
