"""The last words of a call in the relay's own voice, said once, and the line closes behind them.

Knows no trio, no clock, no socket, no log and no agent: they are said whether there is one or not.

They are said to somebody who has opted out, and to somebody whose call ends by a fault of the agent's.
"""

from __future__ import annotations

from dataclasses import replace

from relay.actions import Action, CancelReply, EndCall, OptOut, OptOutWay
from relay.alarms import Alarms, Watch
from relay.announcer import announce
from relay.clips import Clips
from relay.goodbye import Goodbye
from relay.interruption import Interruption
from relay.outcomes import Blame, Ending, Reason
from relay.playout import MARK_GRACE_SECONDS, Playout, Purpose
from relay.replies import Replies
from relay.standing import Stage, Standing
from relay.tool_runs import ToolRuns
from relay.watchdogs import Watchdogs
from relay.wire.audio import BYTES_PER_SECOND

LEAVING_SECONDS = 4.5  # the line is closed 5 s after the wish; the rest is the hang-up's


class Leaving:
    """How one call ends. Begun by an apology or an opt-out; only an opt-out overrides an apology."""

    __slots__ = (
        *("_alarms", "_clips", "_goodbye", "_interruption", "_playout", "_replies", "_standing"),
        *("_tool_runs", "_watchdogs", "ending", "opted_out"),
    )

    def __init__(
        self,
        standing: Standing,
        alarms: Alarms[Watch],
        playout: Playout,
        replies: Replies,
        goodbye: Goodbye,
        tool_runs: ToolRuns,
        interruption: Interruption,
        watchdogs: Watchdogs,
        clips: Clips,
    ) -> None:
        self._standing = standing
        self._replies = replies
        self._interruption = interruption
        self._goodbye = goodbye
        self._tool_runs = tool_runs
        self._watchdogs = watchdogs
        self.ending: Ending | None = None  # none before it is begun
        self.opted_out = False
        self._playout = playout
        self._clips = clips
        self._alarms = alarms

    def opt_out(self, how: OptOutWay, now: float) -> list[Action]:
        """Record the wish and confirm it, on a phone that holds no other sound."""
        self._fall_silent()
        silence = self._interruption.silence(now)
        self.opted_out = True
        if how == "list":
            self.ending = Ending(Blame.US, Reason.OPTED_OUT, "the number was listed while the call was live")
        else:
            self.ending = Ending(Blame.CALLEE, Reason.OPTED_OUT, how)
        seconds = len(self._clips.opted_out) / BYTES_PER_SECOND
        self._alarms.set(Watch.STAGE, now + min(seconds + MARK_GRACE_SECONDS, LEAVING_SECONDS))
        words = announce(self._playout, self._clips.opted_out, Purpose.LAST_WORDS, now)
        speaking = self._replies.active
        cancelled = [CancelReply(speaking.id)] if speaking and speaking.id else []
        return [OptOut(how), *silence, *words, *cancelled]

    def apologise(self, ending: Ending, now: float) -> list[Action]:
        """Say that something failed, behind what the phone still holds; without a clip the call just ends."""
        self._fall_silent()
        words = announce(self._playout, self._clips.apology, Purpose.LAST_WORDS, now)
        self.ending = replace(ending, apologised=bool(words))
        if not words:
            self._alarms.drop(Watch.STAGE)
            return list(self.over())
        self._alarms.set(Watch.STAGE, self._playout.playing_until + MARK_GRACE_SECONDS)
        return words

    def hurry(self, until: float) -> None:
        """Somebody wants the call to end by then: it does, though the words are not heard.

        Not those of an opt-out: they have a bound of their own, and the law behind them.
        """
        if self.opted_out:
            return
        self._alarms.set(Watch.STAGE, min(until, self._alarms.at(Watch.STAGE)))

    def over(self) -> tuple[Action, ...]:
        """The words were heard, or their time is up."""
        return () if self.ending is None else (EndCall(self.ending),)

    def _fall_silent(self) -> None:
        """Nobody but us has a say any more."""
        self._standing.stage = Stage.LEAVING
        self._interruption.broken_off()
        self._goodbye.drop()
        self._tool_runs.forget()
        self._watchdogs.stop()
        for watch in (Watch.RESUME, Watch.ANSWER, Watch.KEYS):
            self._alarms.drop(watch)
