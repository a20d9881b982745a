"""Whatever a far end does, whenever it does it: the call ends as the table says, and no other call notices.

Must not know real time or real sockets: the clock jumps, and what is measured is what the relay decided.
"""

from __future__ import annotations

import pytest

from relay.course import SPOKEN_FAREWELL_SECONDS
from relay.outcomes import Blame, Farewell, Reason
from tests.matrix.faults import Cell, Dies, Survives, cells
from tests.matrix.measure import measured
from tests.matrix.play import LOOK_SECONDS, Outcome, Played

CLOSED_SECONDS = 0.5  # both sockets, from the moment that the ending is known
FORCED_SECONDS = 2.0  # where the far end answers no close frame any more
SPOKEN_SECONDS = SPOKEN_FAREWELL_SECONDS + 1.0  # the sentence behind the stream, then the hang-up
SLOWEST_FRAME_SECONDS = 0.1
LAST_FRAMES = 2  # that may be on their way when a call ends


@pytest.mark.parametrize("cell", list(cells()), ids=str)
def test_a_struck_call_ends_or_goes_on_as_the_table_says(cell: Cell) -> None:
    played = measured(cell)
    match cell.verdict:
        case Dies() as dies:
            has_died(played, dies)
        case Survives(noted):
            has_said_goodbye(played.struck)
            assert noted in played.struck.events
    has_said_goodbye(played.bystander)
    for call in (played.struck, played.bystander):
        assert call.records == 1
        assert call.open_streams == 0
    assert played.tasks_left == []


def has_died(played: Played, dies: Dies) -> None:
    """For the right reason, in time, on both sides, and with the carrier told."""
    call = played.struck
    assert dies.allows(call.ending), call.ending
    assert played.known_at - played.struck_at <= dies.within_seconds + LOOK_SECONDS
    closed_seconds = FORCED_SECONDS if dies.forced else CLOSED_SECONDS
    assert played.closed_at - played.known_at <= closed_seconds + LOOK_SECONDS
    assert len(call.told_at) == dies.is_told
    told_seconds = SPOKEN_SECONDS if call.ending.farewell is Farewell.SPOKEN else CLOSED_SECONDS
    assert all(at - played.closed_at <= told_seconds for at in call.told_at)


def has_said_goodbye(call: Outcome) -> None:
    """And nothing of it was lost, or late."""
    assert (call.ending.blame, call.ending.reason) == (Blame.NOBODY, Reason.GOODBYE), call.ending
    assert call.frames_came
    assert call.frames_lost == []
    assert call.frames_unheard <= LAST_FRAMES
    assert call.latest_seconds <= SLOWEST_FRAME_SECONDS
