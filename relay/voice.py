"""What a tool may do on the telephone while it runs: have something said, and press keys.

Knows no socket, no leg and no tool; the dialogue decides, and tells it what became of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio

from relay.actions import Action, KeysOver
from relay.errands import Errands


class Voice:
    """The telephone of one call, for its tools."""

    def __init__(
        self, errands: Errands, attempt: Callable[[Callable[[float], Sequence[Action]], float], None]
    ) -> None:
        self._errands = errands
        self._attempt = attempt
        self._line = trio.Lock()  # keys of two tools do not mix
        self._over = trio.Event()
        self._heard = False

    def say(self, instructions: str) -> None:
        """Have the agent say something in its own words, once it says nothing else."""
        self._attempt(partial(self._errands.say, instructions), trio.current_time())

    async def press(self, keys: str) -> bool:
        """Sound keys; whether they were heard to their end. Waits for it: the tool's deadline bounds that."""
        async with self._line:
            self._over = trio.Event()
            self._attempt(partial(self._errands.press, keys), trio.current_time())
            await self._over.wait()
            return self._heard

    def keys_over(self, over: KeysOver) -> None:
        """What became of them."""
        self._heard = over.heard
        self._over.set()
