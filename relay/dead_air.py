"""Dead air: the agent owes an answer, and nothing of it can be heard.

Knows no trio, no clock, no socket, no log and not what was said.

While a tool runs or the callee speaks nothing is counted. Digital silence is no answer: replies open with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.actions import Action, CancelReply, CreateReply, Note
from relay.alarms import Alarms, Watch
from relay.announcer import announce
from relay.goodbye import Goodbye
from relay.limits import Limits
from relay.outcomes import Blame, Ending, Reason
from relay.playout import Playout, Purpose
from relay.replies import Replies

HUSH_SECONDS = 1.0  # for a silent reply to be over once it was cancelled

NUDGE = "Answer what the person said last, in one short sentence."


class DeadAir:
    """Counts from what the callee said, or from a tool's result, to the first sound of a reply."""

    __slots__ = (
        "_alarms",
        "_filler",
        "_goodbye",
        "_is_paused",
        "_playout",
        "_replies",
        "_tool_filler_seconds",
        "_watches",
    )

    def __init__(
        self,
        alarms: Alarms[Watch],
        playout: Playout,
        replies: Replies,
        goodbye: Goodbye,
        filler: bytes,
        limits: Limits,
    ) -> None:
        self._alarms = alarms
        self._playout = playout
        self._replies = replies
        self._goodbye = goodbye
        self._filler = filler
        self._is_paused = False
        self._tool_filler_seconds = limits.tool_filler_seconds
        self._watches = {
            Watch.FILLER: limits.filler_seconds,
            Watch.NUDGE: limits.nudge_seconds,
            Watch.DEAD_AIR: limits.dead_air_seconds,
        }

    @property
    def is_counted(self) -> bool:
        """Whether an answer is owed."""
        return Watch.DEAD_AIR in self._alarms

    def owe(self, now: float) -> None:
        """The agent is to speak now."""
        self._is_paused = False
        self._alarms.drop(Watch.TOOL)
        for watch, seconds in self._watches.items():
            self._alarms.set(watch, now + seconds)

    def stop(self) -> None:
        """It is heard, or somebody else's turn."""
        self._is_paused = False
        for watch in (*self._watches, Watch.TOOL):
            self._alarms.drop(watch)

    def tool_called(self, now: float, *, is_running: bool) -> None:
        """A function was asked for. One that does not run here brings no result: the answer is owed still."""
        if is_running:
            self.stop()
            self._alarms.set(Watch.TOOL, now + self._tool_filler_seconds)
        else:
            self.owe(now)

    def tool_is_slow(self, now: float) -> Sequence[Action]:
        """It runs still: say that somebody is at it, unless the phone plays something anyway."""
        if self._goodbye.is_begun or self._playout.sounds_until > now:
            return ()
        return self._fill(now)

    def _fill(self, now: float) -> Sequence[Action]:
        return [Note("filler"), *announce(self._playout, self._filler, Purpose.CLIP, now)]

    def pause(self) -> None:
        """The callee makes a sound."""
        is_owed = self._is_paused or self.is_counted
        self.stop()
        self._is_paused = is_owed

    def go_on(self, now: float) -> None:
        """It is over: what was owed before is owed still, and nobody may ever say what the sound was."""
        if self._is_paused:
            self.owe(now)

    def ring(self, watch: Watch, now: float) -> Sequence[Action] | Ending:
        """One of the three moments has come; at the last one the call is given up."""
        if self._goodbye.is_begun:  # which has clocks of its own
            self.stop()
            return ()
        if watch is Watch.FILLER:
            return self._fill(now)
        if watch is Watch.NUDGE:
            return self._nudge(now)
        seconds = self._watches[Watch.DEAD_AIR]
        return Ending(Blame.AGENT, Reason.SILENT, f"no answer was heard for {seconds:g} s")

    def _nudge(self, now: float) -> Sequence[Action]:
        """Have the agent speak; one that is silently at it is stopped first, since two replies collide."""
        silent = self._replies.active
        if silent is None:
            return (Note("nudge"), CreateReply(NUDGE))
        self._alarms.set(Watch.NUDGE, now + HUSH_SECONDS)
        return (CancelReply(silent.id),) if silent.id else ()
