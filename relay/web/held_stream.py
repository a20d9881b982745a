"""A stream of no call's, held open for whoever asks how long the way between lets one live (`relay check`).

Knows no call and no protocol: the first message, whatever it says, is the end of it.
"""

from __future__ import annotations

import trio

from relay.legs import Leg
from relay.outcomes import LegClosed

HOLD_HEADER = "X-Relay-Hold"
HELD_STREAMS = 2  # at one time; the next one is answered 503
HOLD_SECONDS = 15_000.0  # above the longest call that there is; whoever asks may go away without a word


async def hold(leg: Leg) -> None:
    """Say nothing until the far end does, then close."""
    with trio.move_on_after(HOLD_SECONDS):
        try:
            await leg.receive()
        except LegClosed:
            pass
    await leg.close()
