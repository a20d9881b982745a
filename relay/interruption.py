"""Silencing the phone: what it still holds is dropped, and what trails behind is not played.

Knows no trio, no clock, no socket, no log and not what is being said.
"""

from __future__ import annotations

from relay.actions import Action, ClearPhoneAudio, Note
from relay.hearing import Hearing
from relay.playout import Playout
from relay.replies import Replies
from relay.tally import Tally
from relay.terms import BargeIn, Terms


class Interruption:
    """The interruptions of one call, as they reach the phone."""

    __slots__ = ("_by_sound", "_hearing", "_may_be", "_noticed_at", "_playout", "_replies", "_tally")

    def __init__(
        self, playout: Playout, replies: Replies, hearing: Hearing, tally: Tally, terms: Terms, now: float
    ) -> None:
        self._may_be = terms.interruptible
        self._by_sound = terms.barge_in is BargeIn.SPEECH_STARTED
        self._noticed_at = now  # the callee's speech, by the agent
        self._playout = playout
        self._replies = replies
        self._hearing = hearing
        self._tally = tally

    def noticed(self, now: float, *, tail: bool, may_clear: bool) -> list[Action]:
        """The callee makes a sound. One over the `tail` of a reply that is over silences the phone at once:
        no verdict of the agent's will follow. While a reply is active that verdict is waited for, unless
        BARGE_IN says otherwise.
        """
        self._noticed_at = now
        is_due = may_clear and self._may_be and (tail or self._by_sound)
        return self.clear(now, "speech started") if is_due else []

    @property
    def is_allowed(self) -> bool:
        """Whether the callee may interrupt the agent."""
        return self._may_be

    def by_key(self, now: float) -> list[Action]:
        """The callee presses a key: there is no verdict of the agent's to wait for."""
        self._noticed_at = now
        return self.clear(now, "key")

    def clear(self, now: float, why: str) -> list[Action]:
        """The callee wants to speak; nothing to do where the phone holds nothing, or must play it all."""
        if self._playout.is_held(now):
            self._replies.hush()
            return []
        cleared = self.silence(now, active_goes_on=True)  # one that was cut is active no more
        if cleared:
            self._tally.barge_ins += 1
            seconds = round(now - self._noticed_at, 3)
            cleared.append(Note("barge-in", {"by": why, "seconds": seconds}))
        return cleared

    def silence(self, now: float, *, active_goes_on: bool = False) -> list[Action]:
        """Whatever the reason is."""
        self._replies.hush()
        self._hearing.cleared(now, active_goes_on=active_goes_on)
        if not self._playout.clear(now):
            return []
        self._tally.clears += 1
        return [ClearPhoneAudio()]

    def broken_off(self) -> None:
        """Whatever is being said ends here."""
        self._hearing.broken_off()
