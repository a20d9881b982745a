"""Silencing the phone: what it still holds is dropped, and what trails behind is not played.

Knows no trio, no clock, no socket, no log and not who has the right to interrupt.
"""

from __future__ import annotations

from relay.actions import Action, ClearPhoneAudio, Note
from relay.playout import Playout
from relay.replies import Replies
from relay.tally import Tally


class Interruption:
    """The interruptions of one call, as they reach the phone."""

    __slots__ = ("_playout", "_replies", "_tally", "noticed_at")

    def __init__(self, playout: Playout, replies: Replies, tally: Tally, now: float) -> None:
        self.noticed_at = now  # the callee's speech, by the agent
        self._playout = playout
        self._replies = replies
        self._tally = tally

    def clear(self, now: float, why: str) -> list[Action]:
        """The callee wants to speak; nothing to do where the phone holds nothing."""
        cleared = self.silence(now)
        if cleared:
            self._tally.barge_ins += 1
            seconds = round(now - self.noticed_at, 3)
            cleared.append(Note("barge-in", {"by": why, "seconds": seconds}))
        return cleared

    def silence(self, now: float) -> list[Action]:
        """Whatever the reason is."""
        self._replies.hush()
        if not self._playout.clear(now):
            return []
        self._tally.clears += 1
        return [ClearPhoneAudio()]
