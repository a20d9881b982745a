"""Each cell of the matrix, played once on a clock that jumps.

Must not know what is made of it: tests judge the outcomes, a table shows their times.
"""

from __future__ import annotations

from functools import cache

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from tests.matrix.far_sides import memory_wire
from tests.matrix.faults import Cell
from tests.matrix.play import Played, network, play


@cache
def measured(cell: Cell) -> Played:
    """Play it, or remember how it went. Raises AssertionError where the relay has logged an error."""
    with network(), capture_logs() as lines:
        played = trio.run(play, cell, memory_wire, clock=MockClock(autojump_threshold=0))
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []
    return played
