"""Whether a call that was struck, and the one beside it, fared as the table says.

Must not know how it was played: the same bounds hold in memory and, with some slack, on real sockets.
"""

from __future__ import annotations

from relay.course import SPOKEN_FAREWELL_SECONDS
from relay.outcomes import Blame, Farewell, Reason
from tests.matrix.faults import Dies, Survives, Verdict
from tests.matrix.play import LOOK_SECONDS, Outcome, Played

CLOSED_SECONDS = 0.5  # both sockets, from the moment that the ending is known
FORCED_SECONDS = 2.0  # where the far end answers no close frame any more
TOLD_SECONDS = 0.5  # the carrier, to hang up
SPOKEN_SECONDS = SPOKEN_FAREWELL_SECONDS + TOLD_SECONDS  # behind the stream a sentence is heard first
LATE_SECONDS = 0.1  # for a frame of the undisturbed call
LAST_FRAMES = 2  # that may be on their way when a call ends


def judge(verdict: Verdict, played: Played, *, slack_seconds: float = LOOK_SECONDS) -> None:
    """Raises AssertionError. The slack is for the machine, not for the relay."""
    match verdict:
        case Dies() as dies:
            _judge_end(played, dies, slack_seconds)
        case Survives(noted, is_whole):
            _judge_goodbye(played.struck, slack_seconds, is_whole=is_whole)
            assert noted in played.struck.noted
    _judge_goodbye(played.bystander, slack_seconds)
    for call in (played.struck, played.bystander):
        assert call.records == 1
        assert call.open_streams == 0
    assert played.tasks_left == []


def _judge_end(played: Played, dies: Dies, slack_seconds: float) -> None:
    call = played.struck
    assert dies.allows(call.ending), call.ending
    assert played.noticed_seconds <= dies.within_seconds + slack_seconds
    assert played.closed_seconds <= (FORCED_SECONDS if dies.forced else CLOSED_SECONDS) + slack_seconds
    assert len(call.told_at) == dies.is_told
    told_seconds = SPOKEN_SECONDS if call.ending.farewell is Farewell.SPOKEN else TOLD_SECONDS
    assert all(at - played.closed_at <= told_seconds + slack_seconds for at in call.told_at)


def _judge_goodbye(call: Outcome, slack_seconds: float, *, is_whole: bool = True) -> None:
    """Nothing of the call was lost, or late."""
    assert (call.ending.blame, call.ending.reason) == (Blame.NOBODY, Reason.GOODBYE), call.ending
    assert call.frames_came
    assert not is_whole or call.frames_lost == []
    assert call.frames_unheard <= LAST_FRAMES
    assert call.latest_seconds <= LATE_SECONDS + slack_seconds
