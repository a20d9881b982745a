"""What is wished of the owners of live calls, for the ledger in memory.

Knows no clock, and of a call its id alone.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from relay.store.ledger import Wish, WishKind


class Wishes:
    """Wishes in the order in which they were left, each under a number that is never given again."""

    def __init__(self) -> None:
        self.left: dict[int, Wish] = {}
        self._numbers = count()

    def leave(self, call_id: str, kind: WishKind, fields: dict[str, Any] | None = None) -> None:
        """One more."""
        self.left[next(self._numbers)] = Wish(call_id, kind, fields or {})

    def take(self, is_meant: Callable[[Wish], bool]) -> list[Wish]:
        """Those that are meant; nobody finds them any more."""
        taken = {number: wish for number, wish in self.left.items() if is_meant(wish)}
        self.left = {number: wish for number, wish in self.left.items() if number not in taken}
        return list(taken.values())
