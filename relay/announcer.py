"""The relay's own sentences on their way to the phone: behind what is playing, never over it.

Knows no trio, no clock, no socket, no log and no agent; what is said when is decided elsewhere.
"""

from __future__ import annotations

import base64

from relay.actions import Action, PlayOnPhone, SendMark
from relay.playout import Playout, Purpose
from relay.wire.audio import BYTES_PER_SECOND

_PIECE_BYTES = BYTES_PER_SECOND  # one second of sound: a message that no far end finds too long


def announce(playout: Playout, clip: bytes, purpose: Purpose, now: float) -> list[Action]:
    """Play a clip (μ-law) and mark its end; nothing where the clip is empty."""
    if not clip:
        return []
    pieces = (clip[at : at + _PIECE_BYTES] for at in range(0, len(clip), _PIECE_BYTES))
    sounds = [PlayOnPhone(base64.b64encode(piece).decode("ascii")) for piece in pieces]
    playout.sent(len(clip) / BYTES_PER_SECOND, now)
    return [*sounds, SendMark(playout.mark(purpose))]
