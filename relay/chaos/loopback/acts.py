"""What is to happen to the calls of one run, drawn from its seed, and what may become of them.

Knows endings and names of faults; no socket, no process and no time of day.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from relay.chaos.loopback.proxy import DEADLY, PASSING
from relay.outcomes import Blame, Reason

Leg: TypeAlias = Literal["phone", "agent"]
Fate: TypeAlias = tuple[Blame, Reason]

LEGS: Final[tuple[Leg, ...]] = ("phone", "agent")
PEACEFUL: Final = 4  # of all calls one in so many is left in peace, and none of the others may disturb it
STALL_SECONDS: Final = (0.3, 1.0)  # less than anybody's patience; for the echo of a mark it is 2 s
BLACKOUT_SECONDS: Final = (12.0, 20.0)  # more than every one's
CONVERSING_SECONDS: Final = (1.0, 6.0)  # from the stream's start to the strike

GOODBYE: Final[Fate] = (Blame.NOBODY, Reason.GOODBYE)
HUNG_UP: Final[Fate] = (Blame.CALLEE, Reason.HUNG_UP)  # a word was lost, and nobody knew what to say next
_GONE: Final[frozenset[Fate]] = frozenset(
    (Blame.CARRIER, reason) for reason in (Reason.LOST, Reason.SILENT, Reason.STALLED)
)
# A lost agent is looked for, and here it is always found again: only where it was lost in its last words does
# the call end otherwise than with a goodbye.
_MENDED: Final[frozenset[Fate]] = frozenset(
    (Blame.AGENT, reason) for reason in (Reason.LOST, Reason.SILENT, Reason.STALLED)
) | {GOODBYE, HUNG_UP}

# The longest from the strike to the end of the record, teardown included, and what a busy machine adds.
AT_ONCE_SECONDS: Final = 2.0
MISSED_SECONDS: Final = 10.0
SLACK_SECONDS: Final = 4.0


class Strike(msgspec.Struct, frozen=True):
    """One thing that befalls one connection of one call."""

    leg: Leg
    kind: str
    at: float  # seconds after the stream's start
    seconds: float = 0.0

    @property
    def fates(self) -> frozenset[Fate]:
        """How the call may end."""
        if self.kind in PASSING:
            return frozenset((GOODBYE, HUNG_UP))
        return _GONE | {GOODBYE} if self.leg == "phone" and self.kind in _UNSEEN else _FATES[self.leg]

    @property
    def within_seconds(self) -> float | None:
        """At the latest so long after the strike it has its record; None where it goes on."""
        if self.kind in PASSING or self.leg == "agent":
            return None
        return SLACK_SECONDS + (MISSED_SECONDS if self.kind in _UNSEEN else AT_ONCE_SECONDS)


_FATES: Final[Mapping[Leg, frozenset[Fate]]] = {"phone": _GONE, "agent": _MENDED}
# What nobody says: a call that was about to end by itself may do so before it is missed.
_UNSEEN: Final = frozenset({"trickle", "stop-reading", "blackout", "half-open"})


def draw_strikes(seed: int, calls: int) -> list[Strike | None]:
    """What befalls each of so many calls: every fault on every leg in turn, in an order of the seed's."""
    rng = random.Random(seed)
    left: list[tuple[Leg, str]] = []
    strikes: list[Strike | None] = []
    for number in range(calls):
        if number % PEACEFUL == PEACEFUL - 1:
            strikes.append(None)
            continue
        if not left:
            left = [(leg, kind) for leg in LEGS for kind in (*PASSING, *DEADLY)]
            rng.shuffle(left)
        leg, kind = left.pop()
        span = STALL_SECONDS if kind == "stall" else BLACKOUT_SECONDS if kind == "blackout" else (0.0, 0.0)
        at = round(rng.uniform(*CONVERSING_SECONDS), 2)
        strikes.append(Strike(leg, kind, at, round(rng.uniform(*span), 2)))
    return strikes
