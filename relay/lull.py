"""A lull: nobody speaks. The callee is asked whether they are there, twice, and then the call ends.

Knows no trio, no clock, no socket, no log and not what was said.

It is looked at when the alarm rings, never when audio passes: what the phone holds tells until when the agent
is heard. A sound of the callee's counts for as long as it may be speech.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from relay.actions import Action, Note
from relay.alarms import Alarms, Watch
from relay.announcer import announce
from relay.goodbye import Goodbye
from relay.limits import Limits
from relay.outcomes import Blame, Ending, Reason
from relay.playout import Playout, Purpose

QUESTIONS = 2  # whether they are still there; whoever hears it twice and says nothing is not
FAREWELL_SECONDS = 8.0  # for the agent to say goodbye to whoever may be listening


class Lull:
    """Counts from the last sound of either side, while the callee is being listened to."""

    __slots__ = (
        *("_alarms", "_asked", "_clip", "_goodbye", "_limits", "_playout", "_since"),
        *("_sounds_until", "_wordless_since"),
    )

    def __init__(
        self, alarms: Alarms[Watch], playout: Playout, goodbye: Goodbye, clip: bytes, limits: Limits
    ) -> None:
        self._alarms = alarms
        self._playout = playout
        self._goodbye = goodbye
        self._clip = clip
        self._limits = limits
        self._asked = 0
        self._since = 0.0  # when the count was begun
        self._sounds_until = 0.0  # the callee's voice, or what may be one; infinite while it lasts
        self._wordless_since: float | None = None  # the first such sound after the last word

    def begin(self, now: float) -> None:
        """The callee is heard from now on, or has just said something."""
        self._asked = 0
        self._wordless_since = None
        self._sounds_until = now
        self.put_off(now)

    def stop(self) -> None:
        """Nobody is waited for."""
        self._alarms.drop(Watch.LULL)

    def put_off(self, now: float) -> None:
        """Somebody else is to speak, and has a clock of their own."""
        self._since = now
        self._alarms.set(Watch.LULL, now + self._limits.silence_seconds)

    def sound(self, now: float) -> None:
        """The callee makes one."""
        self._sounds_until = math.inf
        if self._wordless_since is None:
            self._wordless_since = now

    def hush(self, now: float) -> None:
        """It is over."""
        self._sounds_until = min(self._sounds_until, now)
        if Watch.LULL in self._alarms:  # which was put off for as long as a sound may last
            self._alarms.set(Watch.LULL, self._due())

    def word(self, now: float) -> None:
        """What the callee is saying has words in it, and is not over yet."""
        if self._wordless_since is not None:
            self._wordless_since = now

    def ring(self, now: float) -> Sequence[Action]:
        """Ask, or wait on where there was a sound meanwhile."""
        due = self._due()
        if due > now:
            self._alarms.set(Watch.LULL, due)
            return ()
        if self._asked == QUESTIONS:
            self.put_off(now)  # an interruption may undo the goodbye
            ending = Ending(Blame.CALLEE, Reason.SILENT, f"asked {QUESTIONS} times whether they are there")
            return self._goodbye.wind_up(ending, now, within_seconds=FAREWELL_SECONDS, until_words=True)
        self._asked += 1
        question = announce(self._playout, self._clip, Purpose.CLIP, now)
        self.put_off(max(now, self._playout.sounds_until))
        return [Note("still there", {"time": self._asked}), *question]

    def _due(self) -> float:
        """When it is quiet for long enough. A sound without a word counts up to its limit, and not beyond."""
        patience = self._limits.silence_seconds
        quiet = max(self._since, self._playout.sounds_until) + patience
        if self._wordless_since is None:
            return quiet
        given_up = self._wordless_since + self._limits.wordless_seconds
        return max(quiet, min(self._sounds_until + patience, given_up))
