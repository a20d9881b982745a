"""What the gate is asked and what it is told: the request for a dial and the facts about the number.

Knows no clock, no store and no rule: whoever asks fills these in, and a fact left unknown (None) refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

OWN_LIST = "own"
SPENDING = timedelta(hours=1)  # the period of the spend cap


class Purpose(StrEnum):
    """Why we call, from the least to the most regulated."""

    INFORMATIONAL = "informational"
    COLLECTIONS = "collections"
    TELEMARKETING = "telemarketing"

    @property
    def strictness(self) -> int:
        """Position in the order above: a request may only move up from what its profile declares."""
        return list(Purpose).index(self)


@dataclass(frozen=True, slots=True)
class DialRequest:
    """One wish to ring one number once.

    `to` and `from_` are E.164. `declared` is the profile's purpose, `asked` the request's (None: the same).
    `state` (ISO 3166-2, such as US-TX) and `zone` (IANA) say where the called party is known to be; they add
    to what the number itself says, they never replace it.
    """

    call_id: str
    attempt: int
    to: str
    from_: str
    declared: Purpose
    seller: str
    asked: Purpose | None = None
    state: str | None = None
    zone: str | None = None

    @property
    def purpose(self) -> Purpose:
        """The purpose that the rules judge."""
        return self.declared if self.asked is None else self.asked


@dataclass(frozen=True, slots=True)
class Suppression:
    """The number stands on a list: our own (`OWN_LIST`) or an imported one (`US`, `US-TX`, …)."""

    list: str
    since: datetime


class ConsentForm(StrEnum):
    """How a consent was given; written satisfies whatever express does."""

    EXPRESS = "express"
    WRITTEN = "written"


@dataclass(frozen=True, slots=True)
class Consent:
    """The called party agreed to calls of one purpose, or a less strict one, from one seller."""

    form: ConsentForm
    purpose: Purpose
    seller: str
    given_at: datetime
    text_shown: str
    source: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """The called party took consent back; None in a field means all purposes, all sellers."""

    at: datetime
    purpose: Purpose | None = None
    seller: str | None = None

    def concerns(self, purpose: Purpose, seller: str) -> bool:
        """Whether it is about such a call: whoever refuses one purpose refuses the stricter ones with it."""
        of_purpose = self.purpose is None or purpose.strictness >= self.purpose.strictness
        return of_purpose and self.seller in (None, seller)


@dataclass(frozen=True, slots=True)
class ListCopy:
    """The newest copy that we hold of an imported list, and the moment as of which it is true."""

    list: str
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is on record about one number; None means that it could not be learnt, and refuses.

    `attempts` and `conversations` are the instants of the last seven days, over every seller and purpose,
    without the call that is being asked about. `dials` is about no number: how many dials to anybody were
    permitted within SPENDING, this call's included.
    """

    number: str
    suppressions: tuple[Suppression, ...] | None = None
    consents: tuple[Consent, ...] | None = None
    revocations: tuple[Revocation, ...] | None = None
    lists: tuple[ListCopy, ...] | None = None
    attempts: tuple[datetime, ...] | None = None
    conversations: tuple[datetime, ...] | None = None
    dials: int | None = None
