"""What the telephone still holds: an estimate of Twilio's play-out buffer, and the marks that prove it.

Knows no trio, no clock, no socket and no log; seconds come in as `now`.

A mark is echoed when the audio before it was played *or dropped by a clear*, so an echo alone proves nothing
(Twilio's page on WebSocket messages): marks carry the generation in which they were sent, a clear begins a
new one.
"""

from __future__ import annotations

from enum import StrEnum

MARK_GRACE_SECONDS = 2.0  # an echo comes within a network round trip of the end of its audio


class Purpose(StrEnum):
    """What the echo of a mark proves."""

    OPENING = "opening"
    REPLY = "reply"
    GOODBYE = "goodbye"
    LAST_WORDS = "last-words"
    CLIP = "clip"
    KEYS = "keys"


class Playout:
    """The far side of the phone leg, as far as it can be known from here."""

    __slots__ = (
        *("_dirty", "_generation", "_hushed_at", "_marks", "_number"),
        *("held_until", "playing_until", "proven", "queued"),
    )

    def __init__(self) -> None:
        self.playing_until = 0.0
        self.queued = 0.0  # seconds of sound that were ever sent: positions in it never repeat
        self.proven = 0.0  # the position up to which marks prove that what was not cleared was played
        self.held_until = 0.0  # what is queued may not be cleared before, keys being among it
        self._dirty = False
        self._hushed_at: float | None = None  # where silence is all that was queued last
        self._generation = 0
        self._number = 0
        # One a reply, none after a clear; each with the position behind which it was sent.
        self._marks: dict[str, tuple[Purpose, float]] = {}

    def sent(self, seconds: float, now: float) -> None:
        """Audio was queued that plays for so long."""
        self._dirty = True
        self._hushed_at = None
        self.queued += seconds
        self.playing_until = (self.playing_until if self.playing_until > now else now) + seconds

    def sent_silence(self, seconds: float, now: float) -> None:
        """Audio was queued that plays for so long, and that nobody hears."""
        hushed_at = self.sounds_until
        self.sent(seconds, now)
        self._hushed_at = hushed_at

    @property
    def sounds_until(self) -> float:
        """Until when the person hears something of what was sent."""
        return self.playing_until if self._hushed_at is None else self._hushed_at

    def mark(self, purpose: Purpose) -> str:
        """Name a mark that is about to be sent behind the audio so far."""
        self._number += 1
        name = f"{purpose}.{self._number}.{self._generation}"
        self._marks[name] = purpose, self.queued
        return name

    def clear(self, now: float) -> bool:
        """Forget everything queued. False when nothing was sent since the last clear: then none is needed."""
        self._marks.clear()
        if not self._dirty:
            return False
        self._dirty = False
        self._generation += 1
        self.playing_until = now
        self._hushed_at = None if self._hushed_at is None else min(self._hushed_at, now)
        return True

    def reached(self, name: str) -> Purpose | None:
        """What an echoed mark proves; None for the echo of a mark that a clear overtook."""
        purpose, position = self._marks.pop(name, (None, 0.0))
        self.proven = max(self.proven, position)
        return purpose

    def is_held(self, now: float) -> bool:
        """Whether the phone must play what it has."""
        return now < self.held_until

    def played(self, now: float) -> float:
        """The position that the phone has reached by now, as far as can be told from here.

        The way there cancels out: what is sent arrives later by as much as a clear does.
        """
        return self.queued - max(0.0, self.playing_until - now)

    def holds_audio(self, now: float) -> bool:
        """Whether the person would go on hearing something if nothing more were sent."""
        return bool(self._marks) or self.playing_until > now
