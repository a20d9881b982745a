"""Either socket dies at any moment: the other one is closed within 2 s, and the record says which it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from relay.rehearsal import Performance
from relay.simulator.scenario import Scenario
from tests.e2e.scenes import broken, ending, quiet_stage

MOMENTS = ["before-ready", "opening", "mid-speech", "tool-running", "farewell", "seconds:0.4", "seconds:4.1"]
KILLS = ["rst", "fin"]
CLOSED_SECONDS = 2.0
SIDE_BY_SIDE = 4


@pytest.mark.slow
@pytest.mark.parametrize("leg", ["phone", "agent"])
async def test_a_killed_socket_takes_the_other_with_it_and_gets_the_blame(leg: str, tmp_path: Path) -> None:
    scenarios = [broken(leg, moment, kill) for moment in MOMENTS for kill in KILLS]
    played: list[Performance] = []
    limit = trio.CapacityLimiter(SIDE_BY_SIDE)

    async with quiet_stage(tmp_path) as stage:

        async def play(scenario: Scenario) -> None:
            async with limit:
                played.append(await stage.play(scenario))

        async with trio.open_nursery() as nursery:
            for scenario in scenarios:
                nursery.start_soon(play, scenario)

    blame = "carrier" if leg == "phone" else "agent"
    assert {each.scenario.title: ending(each) for each in played} == {
        scenario.title: (blame, "lost") for scenario in scenarios
    }
    late = {each.scenario.title: _seconds_to_close(each, leg) for each in played}
    assert {title: seconds for title, seconds in late.items() if seconds > CLOSED_SECONDS} == {}
    assert all(each.call is not None and each.call.is_over for each in played)


def _seconds_to_close(performance: Performance, killed: str) -> float:
    """From the death of one socket to the close of the other, as the far ends saw it; 0 without another."""
    ledger = performance.ledger
    died_at = next(entry.at for entry in ledger.entries if entry.event == "mishap")
    event = ("agent", "closed") if killed == "phone" else ("phone", "stream-closed")
    return next((entry.at - died_at for entry in ledger.entries if (entry.side, entry.event) == event), 0.0)
