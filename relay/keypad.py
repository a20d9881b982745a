"""Keys that the callee presses: collected in groups, and given to the agent as an instruction for one reply.

Knows no trio, no clock, no socket, no log, and not which key opts out: that one never comes here.

What was pressed may be the number of a card: it leaves here in the instruction and nowhere else. The vendor
has no keys on its socket; an instruction is obeyed in the reply that it asks for, and not remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.actions import Action, CancelReply, CreateReply, Note
from relay.alarms import Alarms, Watch
from relay.goodbye import Goodbye
from relay.interruption import Interruption
from relay.keys import LONGEST_GROUP, Keys
from relay.playout import Playout
from relay.replies import Replies
from relay.standing import Stage, Standing
from relay.tool_runs import ToolRuns
from relay.watchdogs import Watchdogs

GROUPS = 8  # that wait for the agent to be free; of more only the newest are told
HUSH_SECONDS = 0.5  # for a reply to be over once it was cancelled: two replies collide

PRESSED = (
    "The person pressed keys on the telephone: {groups}. Take that as their answer and go on."
    " Do not say the keys aloud."
)


class Keypad:
    """The keys of one call."""

    __slots__ = (
        *("_alarms", "_digits", "_goodbye", "_groups", "_hushed_until", "_interruption", "_keys", "_playout"),
        *("_replies", "_standing", "_tool_runs", "_watchdogs"),
    )

    def __init__(
        self,
        keys: Keys,
        standing: Standing,
        alarms: Alarms[Watch],
        playout: Playout,
        replies: Replies,
        tool_runs: ToolRuns,
        goodbye: Goodbye,
        interruption: Interruption,
        watchdogs: Watchdogs,
    ) -> None:
        self._keys = keys
        self._standing = standing
        self._alarms = alarms
        self._playout = playout
        self._replies = replies
        self._tool_runs = tool_runs
        self._goodbye = goodbye
        self._interruption = interruption
        self._watchdogs = watchdogs
        self._digits = ""
        self._groups: list[str] = []  # the newest
        self._hushed_until = 0.0

    def pressed(self, key: str, now: float) -> Sequence[Action]:
        """One key. The first of a group is as good as speech: the agent falls silent, if it has to."""
        actions: list[Action] = [Note("key pressed"), *self._watchdogs.callee_said(now)]  # not which
        if self._is_open and not self._digits and self._playout.holds_audio(now):
            actions += self._cut(now)
        is_end = key == self._keys.ends_with
        if not is_end:
            self._digits += key
        if is_end or len(self._digits) >= (self._keys.digits or LONGEST_GROUP):
            return [*actions, *self.ring(now)]
        self._alarms.set(Watch.KEYS, now + self._keys.pause_seconds)
        return actions

    def ring(self, now: float) -> Sequence[Action]:
        """The group is complete, by its end or a pause; a reply that was stopped may need a moment more."""
        if self._digits:
            self._groups.append(self._digits)
            del self._groups[:-GROUPS]
            self._digits = ""
        self._alarms.drop(Watch.KEYS)
        if self._groups and now < self._hushed_until:
            self._alarms.set(Watch.KEYS, self._hushed_until)
        return self.give(now)

    def give(self, now: float) -> Sequence[Action]:
        """What waits for the agent, where it may be asked to speak: not while it still does or leaves."""
        is_busy = self._replies.active is not None or self._goodbye.is_begun or now < self._hushed_until
        if not self._groups or not self._is_open or is_busy:
            return ()
        told = PRESSED.format(groups=", then ".join(self._groups))
        self._groups.clear()
        self._watchdogs.owe(now)
        return (Note("keys given"), CreateReply(told))

    @property
    def _is_open(self) -> bool:
        return self._standing.stage is Stage.OPEN

    def _cut(self, now: float) -> list[Action]:
        if not self._interruption.is_allowed:
            return []
        self._tool_runs.forget()  # as when speech interrupts
        speaking = self._replies.active
        cancelled: list[Action] = []
        if speaking is not None and speaking.id is not None and self._replies.cut(speaking.id):
            self._hushed_until = now + HUSH_SECONDS
            cancelled.append(CancelReply(speaking.id))
        return [*self._interruption.by_key(now), *cancelled, *self._goodbye.interrupted(now)]
