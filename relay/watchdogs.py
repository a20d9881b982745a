"""Who is waited for while a conversation is open, and what is said when nothing comes.

Knows no trio, no clock, no socket, no log and not what was said; tells each of its watchdogs what happened.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.actions import Action
from relay.alarms import Alarms, Watch
from relay.dead_air import DeadAir
from relay.goodbye import Goodbye
from relay.lull import Lull
from relay.monologue import Monologue
from relay.outcomes import Ending
from relay.playout import Playout
from relay.replies import Replies
from relay.terms import Terms
from relay.tool_runs import ToolRuns


class Watchdogs:
    """The agent that owes an answer, the callee who says nothing, and the agent that says all."""

    __slots__ = ("_alarms", "_dead_air", "_goodbye", "_lull", "_monologue", "_tool_runs")

    def __init__(
        self,
        alarms: Alarms[Watch],
        playout: Playout,
        replies: Replies,
        goodbye: Goodbye,
        tool_runs: ToolRuns,
        terms: Terms,
    ) -> None:
        clips, limits = terms.clips, terms.limits
        self._alarms = alarms
        self._goodbye = goodbye
        self._tool_runs = tool_runs
        self._dead_air = DeadAir(alarms, playout, replies, goodbye, clips.filler, limits)
        self._lull = Lull(alarms, playout, goodbye, clips.still_there, limits)
        self._monologue = Monologue(alarms, replies, goodbye, limits)

    @property
    def is_open(self) -> bool:
        """Whether the callee is waited for: somebody has opened this conversation, and nobody has left it."""
        return Watch.LULL in self._alarms

    # ---- the stages ----------------------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """The callee is listened to from now on."""
        self._lull.begin(now)

    def owe(self, now: float) -> None:
        """The agent is to speak now."""
        self._dead_air.owe(now)

    def stop(self) -> None:
        """There is no conversation, not any more or not for the moment."""
        self._dead_air.stop()
        self._lull.stop()
        self._monologue.stop()

    # ---- the callee ----------------------------------------------------------------------------------------

    def callee_sounds(self, now: float) -> None:
        """The callee begins to make a sound: nobody is to speak to them."""
        self._dead_air.pause()
        self._lull.sound(now)

    def callee_is_quiet(self, now: float) -> None:
        """The sound is over, whatever it was."""
        self._dead_air.go_on(now)
        self._lull.hush(now)

    def callee_speaks(self, now: float) -> None:
        """There are words in what the callee is saying."""
        self._lull.word(now)

    def callee_said(self, now: float) -> Sequence[Action]:
        """A turn of the callee's, in words or by a key: they are there. A goodbye to nobody is undone."""
        self._monologue.stop()
        if self.is_open:
            self._lull.begin(now)
        return self._goodbye.answered()

    # ---- the agent -----------------------------------------------------------------------------------------

    def agent_sounds(self, now: float) -> None:
        """The first sound of a reply."""
        self._dead_air.stop()
        if self.is_open:
            self._monologue.spoke(now)

    def agent_spoke(self, now: float) -> None:
        """A reply that was heard is over."""
        if self.is_open:
            self._monologue.spoke(now)

    def interrupted(self) -> None:
        """The reply that was owed is not."""
        self._dead_air.stop()

    def tool_called(self, now: float) -> None:
        """A function was asked for."""
        self._dead_air.tool_called(now, is_running=self._tool_runs.are_awaited)

    def tool_answered(self, now: float) -> None:
        """The agent has a result: it speaks when it has them all."""
        if not self._tool_runs.are_awaited:
            self._dead_air.owe(now)

    # ---- time ----------------------------------------------------------------------------------------------

    def ring(self, watch: Watch, now: float) -> Sequence[Action] | Ending:
        """One of the alarms went off; an Ending where the call is given up."""
        if watch is Watch.TOOL:
            return self._dead_air.tool_is_slow(now) if self._tool_runs.are_awaited else ()
        if watch not in (Watch.LULL, Watch.MONOLOGUE):
            return self._dead_air.ring(watch, now)
        if watch is Watch.MONOLOGUE:
            return () if self._goodbye.is_begun else self._monologue.ring(now)
        if self._goodbye.is_begun or self._dead_air.is_counted or self._tool_runs.are_awaited:
            self._lull.put_off(now)
            return ()
        return self._lull.ring(now)
