"""A monologue: the agent speaks on and on, and nobody says a word to it.

Knows no trio, no clock, no socket, no log and not what is said; it may be said to an answering machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.actions import Action
from relay.alarms import Alarms, Watch
from relay.goodbye import Goodbye
from relay.limits import Limits
from relay.lull import FAREWELL_SECONDS
from relay.outcomes import Blame, Ending, Reason
from relay.replies import Replies

BREATH_SECONDS = 10.0  # between two replies of one monologue; after a longer pause it is another one


class Monologue:
    """Counts from the first sound of the agent's that is answered by no word."""

    __slots__ = ("_alarms", "_goodbye", "_limits", "_replies", "_spoke_at")

    def __init__(self, alarms: Alarms[Watch], replies: Replies, goodbye: Goodbye, limits: Limits) -> None:
        self._alarms = alarms
        self._replies = replies
        self._goodbye = goodbye
        self._limits = limits
        self._spoke_at = 0.0

    def spoke(self, now: float) -> None:
        """A reply of the agent's began to be heard, or is over."""
        self._spoke_at = now
        if Watch.MONOLOGUE not in self._alarms:
            self._alarms.set(Watch.MONOLOGUE, now + self._limits.monologue_seconds)

    def stop(self) -> None:
        """The callee has said something, or nobody speaks to them any more."""
        self._alarms.drop(Watch.MONOLOGUE)

    def ring(self, now: float) -> Sequence[Action]:
        """Wind the call up, unless the agent has fallen silent by itself."""
        speaking = self._replies.active
        if not (speaking and speaking.is_audible) and now - self._spoke_at > BREATH_SECONDS:
            return ()
        seconds = self._limits.monologue_seconds
        ending = Ending(Blame.NOBODY, Reason.MONOLOGUE, f"no word for {seconds:g} s of the agent's")
        return self._goodbye.wind_up(ending, now, within_seconds=FAREWELL_SECONDS)
