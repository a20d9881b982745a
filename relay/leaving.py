"""The last words of a call in the relay's own voice, said once, and the line closes behind them.

Knows no trio, no clock, no socket, no log and no agent: they are said whether there is one or not.

They are said to somebody who has opted out, and to somebody whose call ends by a fault of the agent's.
"""

from __future__ import annotations

from dataclasses import replace

from relay.actions import Action, EndCall, OptOutWay
from relay.alarms import Alarms, Watch
from relay.announcer import announce
from relay.clips import Clips
from relay.outcomes import Blame, Ending, Reason
from relay.playout import MARK_GRACE_SECONDS, Playout, Purpose
from relay.wire.audio import BYTES_PER_SECOND

LEAVING_SECONDS = 4.5  # the line is closed 5 s after the wish; the rest is the hang-up's


class Leaving:
    """How one call ends. Begun by an apology or an opt-out; only an opt-out overrides an apology."""

    __slots__ = ("_alarms", "_clips", "_playout", "ending", "opted_out")

    def __init__(self, playout: Playout, clips: Clips, alarms: Alarms[Watch]) -> None:
        self.ending: Ending | None = None  # none before it is begun
        self.opted_out = False
        self._playout = playout
        self._clips = clips
        self._alarms = alarms

    def opt_out(self, how: OptOutWay, now: float) -> list[Action]:
        """Confirm the wish, on a phone that holds no other sound."""
        self.opted_out = True
        if how == "list":
            self.ending = Ending(Blame.US, Reason.OPTED_OUT, "the number was listed while the call was live")
        else:
            self.ending = Ending(Blame.CALLEE, Reason.OPTED_OUT, how)
        seconds = len(self._clips.opted_out) / BYTES_PER_SECOND
        self._alarms.set(Watch.STAGE, now + min(seconds + MARK_GRACE_SECONDS, LEAVING_SECONDS))
        return announce(self._playout, self._clips.opted_out, Purpose.LAST_WORDS, now)

    def apologise(self, ending: Ending, now: float) -> list[Action]:
        """Say that something failed, behind what the phone still holds; without a clip the call just ends."""
        words = announce(self._playout, self._clips.apology, Purpose.LAST_WORDS, now)
        self.ending = replace(ending, apologised=bool(words))
        if not words:
            self._alarms.drop(Watch.STAGE)
            return list(self.over())
        self._alarms.set(Watch.STAGE, self._playout.playing_until + MARK_GRACE_SECONDS)
        return words

    def hurry(self, until: float) -> None:
        """Somebody wants the call to end by then: it does, though the words are not heard."""
        self._alarms.set(Watch.STAGE, min(until, self._alarms.at(Watch.STAGE)))

    def over(self) -> tuple[Action, ...]:
        """The words were heard, or their time is up."""
        return () if self.ending is None else (EndCall(self.ending),)
