"""The last sentence to somebody who has opted out: our own words, said once, and the line closes behind them.

Knows no trio, no clock, no socket, no log and no agent: it is said whether there is one or not.
"""

from __future__ import annotations

import base64
import math

from relay.actions import Action, EndCall, OptOutWay, PlayOnPhone, SendMark
from relay.outcomes import Blame, Ending, Reason
from relay.playout import MARK_GRACE_SECONDS, Playout, Purpose
from relay.wire.audio import BYTES_PER_SECOND

LEAVING_SECONDS = 4.5  # the line is closed 5 s after the wish; the rest is the hang-up's
_PIECE_BYTES = BYTES_PER_SECOND  # one second of sound: a message that no far end finds too long


class Leaving:
    """How one call ends once its callee has opted out. Begun at most once, and never undone."""

    __slots__ = ("_clip", "_playout", "ending", "until")

    def __init__(self, playout: Playout, clip: bytes) -> None:
        self.ending: Ending | None = None  # none before the opt-out
        self.until = math.inf
        self._playout = playout
        self._clip = clip

    def begin(self, how: OptOutWay, now: float) -> list[Action]:
        """Say the sentence, on a phone that holds no other sound."""
        if how == "list":
            self.ending = Ending(Blame.US, Reason.OPTED_OUT, "the number was listed while the call was live")
        else:
            self.ending = Ending(Blame.CALLEE, Reason.OPTED_OUT, how)
        seconds = len(self._clip) / BYTES_PER_SECOND
        self.until = now + min(seconds + MARK_GRACE_SECONDS, LEAVING_SECONDS)
        pieces = (self._clip[at : at + _PIECE_BYTES] for at in range(0, len(self._clip), _PIECE_BYTES))
        sounds = [PlayOnPhone(base64.b64encode(piece).decode("ascii")) for piece in pieces]
        return [*sounds, SendMark(self._playout.mark(Purpose.OPTED_OUT))]

    def over(self) -> tuple[Action, ...]:
        """The sentence was heard, or its time is up."""
        return () if self.ending is None else (EndCall(self.ending),)
