"""What we may ask of the carrier, and what it may answer.

Knows no trio, no clock, no socket and no log, and not how the questions travel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from relay.compliance import Permit
from relay.compliance import Refused as Forbidden
from relay.outcomes import Refusal
from relay.wire.callbacks import CarrierStatus

MachineDetection = Literal["off", "enable", "detect-message-end"]


@dataclass(frozen=True, slots=True)
class DialOrder:
    """One call to place. Each address is absolute and carries the call id, so each can teach us the SID."""

    call_id: str
    to: str  # E.164
    url: str
    status_callback: str
    limit_seconds: int
    ring_seconds: int = 30
    record: bool = False
    recording_callback: str = ""  # where a recording is reported, whoever starts it
    machine_detection: MachineDetection = "off"
    amd_callback: str | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """Twilio took the order."""

    sid: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was placed; `sentence` says why and what to do. Without a status Twilio was never reached."""

    code: int | None
    status: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class NotPermitted:
    """The gate said no: nothing was sent."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The request went out and no readable answer came: the call may ring. Never dial again because of it."""

    detail: str


@dataclass(frozen=True, slots=True)
class HungUp:
    """Twilio ends the call now."""


@dataclass(frozen=True, slots=True)
class AlreadyEnded:
    """There was nothing left to end."""


@dataclass(frozen=True, slots=True)
class NotHungUp:
    """The call may still be up; the time limit that was sent with it ends it at the latest."""

    detail: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A question that Twilio did not answer; `sentence` says why and what to do."""

    code: int | None
    status: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class CarrierCall:
    """A call as Twilio's records have it."""

    sid: str
    status: CarrierStatus
    to: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that Twilio noted down about a call; `sentence` says what to do about it."""

    code: int | None
    sentence: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """The Twilio account; only `active` ones can dial, trial accounts reach verified numbers only."""

    name: str
    status: str
    is_trial: bool


class CallerId(StrEnum):
    """What the configured caller id is to the account."""

    OWNED = "owned"
    VERIFIED = "verified"
    WITHOUT_VOICE = "without-voice"  # owned, but not capable of calls
    UNKNOWN = "unknown"


Dialled = Placed | Refused | NotPermitted | Uncertain
Permission = Callable[[], Awaitable[Permit | Forbidden]]
"""Asked before each request: a permit is good for one second and for one attempt."""

HangUp = HungUp | AlreadyEnded | NotHungUp


class Carrier(Protocol):
    """What a call needs of the carrier. Implemented by the dialer, and by functions in a simulation."""

    async def dial(
        self, order: DialOrder, permission: Permission, *, on_dialing: Callable[[], None] = ...
    ) -> Dialled:
        """Place a call; `on_dialing` is called at each request: cancelled before it, nothing was placed."""

    async def hang_up(self, sid: str) -> HangUp:
        """End a call that is queued, ringing or in progress; within 5 s."""

    async def record(self, sid: str, callback: str) -> str | Unavailable:
        """Record a live call from now on, both sides apart; the SID of the recording."""

    async def status_of(self, sid: str) -> CarrierCall | Unavailable | None:
        """The carrier's record of a call; None when it knows of none."""

    async def calls_since(self, to: str, since: datetime) -> list[CarrierCall] | Unavailable:
        """The calls from our number to `to` created at `since` or later."""

    async def notices(self, sid: str) -> list[Notice] | Unavailable:
        """What the carrier noted down about a call, the oldest first."""
