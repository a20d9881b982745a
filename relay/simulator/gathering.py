"""`<Gather>` as the carrier runs it: something is said, and the callee's keys stop it.

Must not know calls, documents or sockets; speaking is the caller's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from relay.simulator.scenario import CalleeTurn
from relay.simulator.twiml import Gather, Pause, Say


@dataclass(frozen=True, slots=True)
class Gathered:
    """The keys that were pressed, the one that finished them without being one, and whether he hung up."""

    digits: str = ""
    finished_on: str = ""
    hung_up: bool = False


async def gather(
    verb: Gather, turns: deque[CalleeTurn], speak: Callable[[Say | Pause], Awaitable[None]]
) -> Gathered:
    """Speak and wait for keys; the first one stops what is said.

    Takes what the callee does from `turns`: each at its pause after the beginning, or after the key before. A
    turn that comes too late is lost.
    """
    digits = ""
    while True:
        turn = turns.popleft() if turns else None
        with trio.move_on_after(turn.pause_seconds if turn else math.inf) as quiet:
            for prompt in () if digits else verb.prompts:
                await speak(prompt)
            await trio.sleep(verb.timeout_seconds)
        if turn is None or not quiet.cancelled_caught:
            return Gathered(digits)
        if turn.press is None:
            return Gathered(digits, hung_up=True)
        if turn.press == verb.finish_on_key:
            return Gathered(digits, finished_on=turn.press)
        digits += turn.press
        if len(digits) == verb.digits:
            return Gathered(digits)
