"""What functions do to a conversation: results go to the agent, keys to the phone, and words are said.

Knows no trio, no clock, no socket, no log and no function.

Keys are never cut in half: while they sound, nothing silences the phone but the wish for no more calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.actions import Action, CreateReply, KeysOver, Note, SendToolResult
from relay.announcer import announce
from relay.goodbye import AfterTool, Goodbye
from relay.keypad import Keypad
from relay.playout import MARK_GRACE_SECONDS, Playout, Purpose
from relay.replies import Replies
from relay.standing import Stage, Standing
from relay.terms import Terms
from relay.tones import tones
from relay.tool_runs import ToolRuns
from relay.watchdogs import Watchdogs

SAYINGS = 5  # that wait for their turn; what is one too many is not said, since it would come too late


class Errands:
    """The errands of one conversation."""

    __slots__ = (
        *("_asked_after", "_goodbye", "_keypad", "_playout", "_replies", "_sayings", "_standing"),
        *("_tool_runs", "_waits", "_watchdogs"),
    )

    def __init__(
        self,
        standing: Standing,
        playout: Playout,
        replies: Replies,
        tool_runs: ToolRuns,
        goodbye: Goodbye,
        watchdogs: Watchdogs,
        keypad: Keypad,
        terms: Terms,
    ) -> None:
        self._standing = standing
        self._playout = playout
        self._replies = replies
        self._tool_runs = tool_runs
        self._goodbye = goodbye
        self._watchdogs = watchdogs
        self._keypad = keypad
        self._waits = terms.tool_results == "reply-done"
        self._sayings: list[str] = []
        self._asked_after = -1  # replies begun when something was asked to be said last

    # ---- results -------------------------------------------------------------------------------------------

    def result(
        self, call_id: str, result: str, now: float, *, is_error: bool = False, then: AfterTool | None = None
    ) -> Sequence[Action]:
        """Answer the end of a tool run; a result of an interrupted turn is dropped, and so is its hang-up."""
        if not self._tool_runs.is_wanted(call_id):
            return (Note("tool result dropped"),)
        answer = SendToolResult(call_id, result, is_error)
        leave = self._goodbye.begin(now, then) if then and not is_error else ()
        if self._standing.stage is Stage.CONNECTING:
            self._tool_runs.hold(answer)
            self._goodbye.bereft()
            return leave
        if self._waits and self._replies.active is not None:
            self._tool_runs.hold(answer)
            return leave
        self._watchdogs.tool_answered(now)
        return (answer, *leave)

    def forget(self) -> None:
        """The turn is over that asked for all of it."""
        self._tool_runs.forget()
        self._sayings.clear()

    def reply_ended(self, now: float) -> Sequence[Action]:
        """Nobody speaks: what waited for that."""
        if results := self._tool_runs.release():
            self._watchdogs.tool_answered(now)
            return results  # the agent speaks about them
        return self._keypad.give(now) or self._speak()

    # ---- words ---------------------------------------------------------------------------------------------

    def say(self, instructions: str, now: float) -> Sequence[Action]:
        """Have the agent say something, as soon as it says nothing else."""
        if len(self._sayings) >= SAYINGS:
            return (Note("nothing more to be said", {"waiting": SAYINGS}),)
        self._sayings.append(instructions)
        return self._speak()

    def _speak(self) -> Sequence[Action]:
        is_open = self._standing.stage is Stage.OPEN and not self._goodbye.is_begun
        is_busy = self._replies.active is not None or self._asked_after == self._replies.begun
        if not self._sayings or is_busy or not is_open:
            return ()
        self._asked_after = self._replies.begun
        return (CreateReply(self._sayings.pop(0)),)

    # ---- keys ----------------------------------------------------------------------------------------------

    def press(self, keys: str, now: float) -> Sequence[Action]:
        """Sound keys at the phone, behind what it still plays; KeysOver says what became of them."""
        if self._standing.stage is not Stage.OPEN or self._playout.is_held(now):
            return (KeysOver(heard=False),)
        sounds = announce(self._playout, tones(keys), Purpose.KEYS, now)
        self._playout.held_until = self._playout.playing_until + MARK_GRACE_SECONDS
        return [Note("keys sent", {"count": len(keys)}), *sounds]  # not which: they may be a secret

    def keys_heard(self) -> Sequence[Action]:
        """The echo of the mark behind them."""
        self._playout.held_until = 0.0
        return (KeysOver(heard=True),)
