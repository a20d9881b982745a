"""Either socket dies at any moment, for good: the other one is closed, and the record says which it was.

Must not know what the relay does within: sockets are real, and what the machine adds to a time is allowed.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio
from structlog.testing import capture_logs

from relay.outcomes import Blame, Reason
from relay.rehearsal import Performance
from relay.simulator.ledger import Direction, Side
from relay.simulator.scenario import Scenario
from tests.e2e.scenes import broken, ending, gone, quiet_stage
from tests.matrix.far_sides import narrow_wire, socket_wire
from tests.matrix.faults import After, Cell, Dies, Moment, cells
from tests.matrix.judgement import judge
from tests.matrix.play import Played, network
from tests.matrix.play import play as play_cell

MOMENTS = ["before-ready", "opening", "mid-speech", "tool-running", "farewell", "seconds:0.4", "seconds:4.1"]
KILLS = ["rst", "fin"]
CLOSED_SECONDS = {"phone": 2.0, "agent": 7.0}  # the callee hears the bridge and the apology meanwhile
SIDE_BY_SIDE = 4
CELLS_SIDE_BY_SIDE = 16  # each with two calls of one frame in 0.2 s
SLACK_SECONDS = 1.0  # of a busy machine
# The buffers of a kernel take more than those in memory: a missing pong, or the kernel itself after 3 s
# without an acknowledgement, may come before our own patience with what is not sent.
NOTICED_BY_OTHERS = ((Blame.AGENT, Reason.LOST), (Blame.AGENT, Reason.SILENT))


@pytest.mark.slow
@pytest.mark.parametrize("leg", ["phone", "agent"])
async def test_a_killed_socket_takes_the_other_with_it_and_gets_the_blame(leg: str, tmp_path: Path) -> None:
    die = gone if leg == "agent" else partial(broken, leg)
    scenarios = [die(moment, kill) for moment in MOMENTS for kill in KILLS]
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
    assert {each.scenario.title for each in played} == {scenario.title for scenario in scenarios}
    for each in played:
        # One that breaks with its `start` may be gone before the ledger has let it in.
        reason = "lost" if each.record["stream_sid"] else "no-stream"
        assert (each.scenario.title, *ending(each)) == (each.scenario.title, blame, reason)
        assert reason == "lost" or each.scenario.title.endswith("before-ready")
    late = {each.scenario.title: _seconds_to_close(each, leg) for each in played}
    assert {title: seconds for title, seconds in late.items() if seconds > CLOSED_SECONDS[leg]} == {}
    assert all(each.call is not None and each.call.is_over for each in played)


# By leg: the other one, what its far end sees of it first, and last.
OTHERS: Final[dict[str, tuple[Side, tuple[Direction, str], str]]] = {
    "phone": ("agent", ("received", "session.update"), "closed"),
    "agent": ("phone", ("sent", "start"), "stream-closed"),
}


def _seconds_to_close(performance: Performance, killed: str) -> float:
    """From the death of one socket to the close of the other, as the far ends saw it; 0 without another."""
    ledger, (other, begun, closed) = performance.ledger, OTHERS[killed]
    died_at = next(entry.at for entry in ledger.entries if entry.event == "mishap")
    if not [entry for entry in ledger.select(other, *begun) if entry.at <= died_at]:
        return 0.0
    return next((entry.at - died_at for entry in ledger.select(other, "noted", closed)), math.inf)


def one_of_each() -> list[Cell]:
    """A cell for each fault, and one in which the agent comes back: mid-conversation where that can be."""
    apt = [cell for cell in cells() if cell.moment is Moment.MID_SPEECH or cell.fault.at_handshake]
    return list({(cell.fault.name, cell.after is After.BACK): cell for cell in apt}.values())


@pytest.mark.timeout(240)
async def test_each_fault_ends_its_call_on_real_sockets_as_it_does_in_memory() -> None:
    played: dict[Cell, Played] = {}
    limit = trio.CapacityLimiter(CELLS_SIDE_BY_SIDE)
    descriptors = len(os.listdir("/proc/self/fd"))

    async def run(cell: Cell) -> None:
        async with limit:
            wire = narrow_wire if cell.fault.name == "stops reading" else socket_wire
            played[cell] = await play_cell(cell, wire)

    with network(), capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            for cell in one_of_each():
                nursery.start_soon(run, cell)
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []
    for cell in one_of_each():
        verdict = cell.verdict
        if cell.fault.name == "stops reading" and isinstance(verdict, Dies):
            verdict = replace(verdict, others=NOTICED_BY_OTHERS)
        judge(verdict, played[cell], slack_seconds=SLACK_SECONDS)
    assert len(os.listdir("/proc/self/fd")) == descriptors
