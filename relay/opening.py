"""The opening: who calls and that it is a machine, heard to its end before the callee is listened to.

Knows no trio, no clock, no socket, no log and not what is said in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.actions import Action, Note, PlayOnPhone, SendMark
from relay.alarms import Alarms, Watch
from relay.outcomes import Blame, Ending, Reason
from relay.playout import MARK_GRACE_SECONDS, Playout, Purpose
from relay.wire.audio import silence

OPENING_SECONDS = 10.0  # the longest that a person is talked at without being heard


class Opening:
    """One opening. It begins again where its session was lost: the next one has to say it all."""

    __slots__ = ("_alarms", "_lead_seconds", "_longest_seconds", "_playout", "_seconds", "is_marked")

    def __init__(self, playout: Playout, alarms: Alarms[Watch], lead_seconds: float) -> None:
        self.is_marked = False
        self._longest_seconds = OPENING_SECONDS
        self._lead_seconds = lead_seconds  # 0 once that silence was sent
        self._seconds = 0.0  # from the first sound on
        self._playout = playout
        self._alarms = alarms

    @property
    def failure(self) -> Ending:
        """What it means that its reply is over, and that it was not spoken to its end."""
        if self._seconds:
            return Ending(Blame.AGENT, Reason.ERROR, "the opening was not finished")
        return Ending(Blame.AGENT, Reason.SILENT, "the opening was silence")

    def begin(self, now: float, longest_seconds: float = OPENING_SECONDS) -> None:
        """The session is ready: whoever it is has to speak now, for so long at most."""
        self.is_marked = False
        self._longest_seconds = longest_seconds
        self._seconds = 0.0
        self._alarms.set(Watch.STAGE, now + OPENING_SECONDS)

    def lead(self, now: float) -> list[Action]:
        """What goes before the first audio, once: the line opens late, and would clip the first word."""
        seconds, self._lead_seconds = self._lead_seconds, 0.0
        if not seconds:
            return []
        self._playout.sent_silence(seconds, now)
        return [PlayOnPhone(silence(seconds))]

    def sounds(self, seconds: float, now: float) -> list[Action]:
        """The person is being greeted: not for ever, and the rest of a long greeting can be interrupted."""
        actions: list[Action] = []
        if not self._seconds:
            self._alarms.set(Watch.STAGE, now + self._longest_seconds + MARK_GRACE_SECONDS)
            queued = max(0.0, self._playout.playing_until - seconds - now)
            actions.append(Note("opening started", {"queued_seconds": round(queued, 3)}))
        self._seconds += seconds
        if self._seconds >= self._longest_seconds and not self.is_marked:
            actions += self.mark(now)
        return actions

    def mark(self, now: float) -> Sequence[Action]:
        """It was spoken: the callee is listened to from the echo of this mark on."""
        self.is_marked = True
        self._alarms.set(Watch.STAGE, max(self._playout.playing_until, now) + MARK_GRACE_SECONDS)
        return (SendMark(self._playout.mark(Purpose.OPENING)),)
