"""What befalls real sockets follows from the seed and leaves nothing out; what is broken is told with it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from relay.chaos.loopback import run
from relay.chaos.loopback.acts import LEGS, draw_strikes
from relay.chaos.loopback.proxy import DEADLY, PASSING
from relay.chaos.loopback.run import CALLS, Report, run_acts
from relay.chaos.loopback.siege import Outcome
from relay.cli import app
from relay.rehearsal import Unplayed


def test_by_default_every_fault_strikes_each_leg_and_some_calls_are_left_in_peace() -> None:
    strikes = draw_strikes(7, CALLS)
    struck = Counter((strike.leg, strike.kind) for strike in strikes if strike is not None)
    assert set(struck) == {(leg, kind) for leg in LEGS for kind in (*PASSING, *DEADLY)}
    assert strikes.count(None) >= 5
    assert draw_strikes(7, CALLS) == strikes != draw_strikes(8, CALLS)


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_broken_promise_is_told_with_its_seed_and_fails(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def siege(seed: int, _calls: int, folder: Path, **_options: object) -> Report:
        struck = Outcome("connections", "phone reset", "call_1", "us cut", 9.0, None, ("ended as us/cut ()",))
        return Report(seed, folder, [struck])

    monkeypatch.setattr("relay.chaos.loopback.show.run_siege", siege)
    assert app(["chaos", "--sockets", "--seed", "123", *words], result_action="return_value") == 1
    told = capsys.readouterr().out
    assert "connections: phone reset: ended as us/cut ()" in told
    assert "123" in told
    if words:
        assert json.loads(told)["seed"] == 123


async def test_an_act_that_fails_or_never_ends_breaks_a_promise_and_no_other_act(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def endless(*_: object) -> list[str]:
        await trio.sleep(10_000)
        return []

    async def failing(*_: object) -> list[str]:
        raise Unplayed("no service came up")

    async def telling(*_: object) -> list[str]:
        return ["1 legs are open"]

    for name, act in (("strike_connections", endless), ("kill_service", failing), ("stop_service", telling)):
        monkeypatch.setattr(run, name, act)
    report = Report(1, tmp_path)
    await run_acts(report, 1, own_world=False)
    assert sorted(report.violations) == [
        "connections: not over after 900 s",
        "killed: no service came up",
        "stopped: 1 legs are open",
    ]
