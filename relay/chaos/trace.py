"""What was seen during one run: a digest of everything, lines for a person, and counts.

Knows trio's clock; judges nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque

import trio

LINES_KEPT = 200  # the newest, to be shown beside a violation


class Trace:
    """Two runs of one plan are the same run when their digests agree."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._digest = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """Of all that was seen, in order, with its virtual time to the nanosecond."""
        return self._digest.hexdigest()

    def saw(self, who: str, what: str) -> None:
        """Something seldom."""
        line = f"{trio.current_time():.9f} {who} {what}"
        self._digest.update(line.encode())
        self.lines.append(line)

    def saw_frame(self, who: str, frame: bytes) -> None:
        """A piece of sound: counted and hashed, not shown."""
        self.counts[who] += 1
        self._digest.update(b"%.9f %b" % (trio.current_time(), frame))

    def violates(self, who: str, what: str) -> None:
        """A promise was broken in front of a far end."""
        self.violations.append(f"{who}: {what}")
        self.saw(who, f"VIOLATION {what}")
