"""Placing, ending and looking up calls through Twilio's REST API; what Twilio says comes back as a value.

Knows nothing of streams, of the gate, or of what becomes of a call: who may be dialled was decided before.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import trio
from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from relay.carrier import (
    Account,
    AlreadyEnded,
    CallerId,
    CarrierCall,
    Dialled,
    DialOrder,
    HangUp,
    HungUp,
    NotHungUp,
    Notice,
    NotPermitted,
    Permission,
    Placed,
    Refused,
    Unavailable,
    Uncertain,
)
from relay.compliance import Permit
from relay.outcomes import Refusal, WireError
from relay.pace import Pace
from relay.rest import (
    LATE,
    MAY_BE_SENT,
    REQUEST_SECONDS,
    HttpxOnTrio,
    NoAnswer,
    NotSent,
    Rejected,
    unreached,
    whole_number,
)
from relay.wire.callbacks import CarrierStatus, read_sid
from relay.wire.carrier_errors import explain

TWILIO_API_URL = "https://api.twilio.com"

PERMIT_TRIES = 3  # in a row, where the ledger takes longer to give a permit than the permit is good for
RETRY_SECONDS = 60.0  # no pause that ends later than this after the first try of a dial is begun
FIRST_PAUSE_SECONDS = 0.5  # doubled for each further try, up to
LONGEST_PAUSE_SECONDS = 15.0
HANG_UP_TRIES = 3  # 3 tries of 1.5 s and 2 pauses: 5 s at most, for somebody may be waiting at the phone
HANG_UP_TRY_SECONDS = 1.5
HANG_UP_PAUSE_SECONDS = 0.25

RECORD_TRIES = 3  # REST lags behind the answer: a call that was just answered may not be in progress yet
RECORD_PAUSE_SECONDS = 0.7

_MAX_CONNECTIONS = 32  # further requests wait for a free one, within their own REQUEST_SECONDS
# Kept shorter than Twilio's own, so that a dial seldom meets a connection that is just closed.
_IDLE_SECONDS = 15.0
_MAX_LISTED = 50  # calls or notifications read in one question: a page, the newest first

_TOO_MANY_REQUESTS = 429
_NOT_FOUND = 404
_NOT_IN_PROGRESS = 21220
_CALL_IS_OVER = frozenset({20404, _NOT_IN_PROGRESS})
_STATUS_EVENTS = ("initiated", "ringing", "answered", "completed")
_MACHINE_DETECTION = {"enable": "Enable", "detect-message-end": "DetectMessageEnd"}


@asynccontextmanager
async def open_dialer(
    *,
    account_sid: str,
    auth_token: str,
    from_number: str,
    api_url: str | None = None,
    dials_per_second: float = 1.0,
    rng: random.Random | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[Dialer]:
    """A dialer with its connections, which are closed behind it. `rng` spreads the pauses between tries."""
    async with httpx.AsyncClient(
        timeout=None,  # noqa: S113 - the deadlines are ours
        follow_redirects=False,
        trust_env=False,  # no proxy, netrc or certificate of the environment: the settings alone decide
        limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS),
    ) as http:
        client = Client(
            account_sid,
            auth_token,
            http_client=HttpxOnTrio(http, api_url or TWILIO_API_URL),
            # An empty mapping would be replaced by os.environ, whose edge and region rewrite the host.
            environment={"TWILIO_EDGE": "", "TWILIO_REGION": ""},
        )
        yield Dialer(client, from_number, Pace(dials_per_second), rng or random.Random(), clock)


class Dialer:
    """The Calls API of one account; made by `open_dialer`."""

    def __init__(
        self, client: Any, from_number: str, pace: Pace, rng: random.Random, clock: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._clock = clock
        self._from_number = from_number
        self._pace = pace
        self._rng = rng

    async def dial(
        self, order: DialOrder, permission: Permission, *, on_dialing: Callable[[], None] = lambda: None
    ) -> Dialled:
        """Place a call, in its turn. Tried again only where Twilio certainly did nothing.

        Nothing is sent without a permit, and each request spends one of its own.
        """
        give_up_at = math.inf
        longest_seconds = FIRST_PAUSE_SECONDS
        spent_attempt = 0
        while True:
            await self._pace.wait_turn()
            permit = await self._permit(order, permission, spent_attempt)
            if isinstance(permit, Refusal):
                return NotPermitted(permit)
            spent_attempt = permit.attempt
            give_up_at = min(give_up_at, trio.current_time() + RETRY_SECONDS)
            on_dialing()
            try:
                return await self._create(order, permit)
            except NoAnswer as error:
                return Uncertain(str(error))
            except Rejected as error:
                refused = Refused(error.code, error.status, error.sentence)
                if error.status != _TOO_MANY_REQUESTS:
                    return refused
                least_seconds = error.retry_after_seconds
            except NotSent as error:
                refused = Refused(None, None, str(error))
                least_seconds = 0.0
            pause_seconds = max(least_seconds, self._rng.uniform(0.5, 1.0) * longest_seconds)
            longest_seconds = min(2 * longest_seconds, LONGEST_PAUSE_SECONDS)
            if trio.current_time() + pause_seconds > give_up_at:
                return refused
            await trio.sleep(pause_seconds)

    async def _permit(self, order: DialOrder, permission: Permission, spent_attempt: int) -> Permit | Refusal:
        """A permit for the next request; one that came too late, behind a slow commit, is replaced."""
        for _ in range(PERMIT_TRIES):
            permit = await permission()
            if not isinstance(permit, Permit):
                return permit.refusal
            covered = permit.covers(order.call_id, permit.attempt, order.to, self._clock())
            if covered and permit.attempt > spent_attempt:
                return permit
            spent_attempt = max(spent_attempt, permit.attempt)
        return Refusal("permit-void", f"{PERMIT_TRIES} permits came too late or were not for this call")

    async def _create(self, order: DialOrder, permit: Permit) -> Placed:
        asked = MAY_BE_SENT.set(lambda: permit.covers(order.call_id, permit.attempt, order.to, self._clock()))
        try:
            created = await self._client.calls.create_async(**_create_parameters(order, self._from_number))
        finally:
            MAY_BE_SENT.reset(asked)
        try:
            sid = read_sid("CA", created.sid or "")
        except WireError as error:
            raise NoAnswer("Twilio's answer does not name the call") from error
        return Placed(sid)

    async def hang_up(self, sid: str) -> HangUp:
        """End a call, whether queued, ringing or in progress; 404 or 21220: it is over."""
        detail = ""
        for tries in range(HANG_UP_TRIES):
            if tries:
                await trio.sleep(HANG_UP_PAUSE_SECONDS)
            detail = f"Twilio did not answer within {HANG_UP_TRY_SECONDS} s"
            with trio.move_on_after(HANG_UP_TRY_SECONDS):
                try:
                    await self._client.calls(sid).update_async(status=CarrierStatus.COMPLETED.value)
                    return HungUp()
                except Rejected as error:
                    if error.status == _NOT_FOUND or error.code in _CALL_IS_OVER:
                        return AlreadyEnded()
                    if error.status != _TOO_MANY_REQUESTS:
                        return NotHungUp(error.sentence)
                    detail = error.sentence
                except (NotSent, NoAnswer) as error:
                    detail = str(error)
        return NotHungUp(detail)

    async def record(self, sid: str, callback: str) -> str | Unavailable:
        """Have Twilio record a live call from now on; its SID. Twilio may not know yet that it is live."""
        wanted = {"recording_channels": "dual", "recording_status_callback": callback}
        recordings = self._client.calls(sid).recordings
        begun = await _ask(recordings.create_async(**wanted), _read_recording)
        for _ in range(RECORD_TRIES - 1):
            if isinstance(begun, str) or begun.code != _NOT_IN_PROGRESS:
                break
            await trio.sleep(RECORD_PAUSE_SECONDS)
            begun = await _ask(recordings.create_async(**wanted), _read_recording)
        return begun

    async def status_of(self, sid: str) -> CarrierCall | Unavailable | None:
        """Twilio's record of a call; None when it knows of none."""
        found = await _ask(self._client.calls(sid).fetch_async(), _read_call)
        return None if isinstance(found, Unavailable) and found.status == _NOT_FOUND else found

    async def calls_since(self, to: str, since: datetime) -> list[CarrierCall] | Unavailable:
        """Our calls to `to` that Twilio created at `since` or later by its own clock: leave a margin.

        Not by Twilio's StartTime filter: a call that is still queued has no start time yet.
        """

        def read(found: list[Any]) -> list[CarrierCall]:
            calls = [_read_call(each) for each in found]
            return [call for call in calls if call.created_at is None or call.created_at >= since]

        wanted = {"to": to, "from_": self._from_number, "limit": _MAX_LISTED}
        return await _ask(self._client.calls.list_async(**wanted), read)

    async def notices(self, sid: str) -> list[Notice] | Unavailable:
        """Twilio's notifications for a call, the oldest first: why it failed although it was created."""
        return await _ask(self._client.calls(sid).notifications.list_async(limit=_MAX_LISTED), _read_notices)

    async def account(self) -> Account | Unavailable:
        """The account that the credentials belong to."""
        return await _ask(self._client.api.accounts(self._client.account_sid).fetch_async(), _read_account)

    async def caller_id(self) -> CallerId | Unavailable:
        """What the configured number is to the account."""
        mine = {"phone_number": self._from_number, "limit": 1}
        owned = await _ask(self._client.incoming_phone_numbers.list_async(**mine), _read_owned)
        if owned is not CallerId.UNKNOWN:
            return owned
        return await _ask(self._client.outgoing_caller_ids.list_async(**mine), _read_verified)


_Answer = TypeVar("_Answer")


async def _ask(question: Awaitable[Any], read: Callable[[Any], _Answer]) -> _Answer | Unavailable:
    """The answer to a question that changes nothing, or why there is none."""
    try:
        with trio.fail_after(REQUEST_SECONDS):  # a list may take more than one request
            return read(await question)
    except Rejected as error:
        return Unavailable(error.code, error.status, error.sentence)
    except (NotSent, NoAnswer) as error:
        return Unavailable(None, None, str(error))
    except trio.TooSlowError:
        return Unavailable(None, None, unreached(LATE))
    except (TwilioException, ValueError) as error:
        return Unavailable(None, None, f"Twilio's answer cannot be read ({error})")


def _create_parameters(order: DialOrder, from_number: str) -> dict[str, object]:
    """The parameters of the Calls API in the spelling of Twilio's package."""
    parameters: dict[str, object] = {
        "to": order.to,
        "from_": from_number,
        "url": order.url,
        "method": "POST",
        "status_callback": order.status_callback,
        "status_callback_method": "POST",
        # Repeated: one joined string means no callbacks at all.
        "status_callback_event": list(_STATUS_EVENTS),
        "timeout": order.ring_seconds,
        "time_limit": order.limit_seconds,
    }
    if order.record:
        parameters |= {"record": True, "recording_channels": "dual"}
        if order.recording_callback:
            parameters |= {"recording_status_callback": order.recording_callback}
    if order.machine_detection != "off":
        # Synchronous detection would keep the callee in silence; the package does not spell booleans here.
        parameters |= {"machine_detection": _MACHINE_DETECTION[order.machine_detection], "async_amd": "true"}
        if order.amd_callback is not None:
            parameters |= {"async_amd_status_callback": order.amd_callback}
    return parameters


def _read_recording(found: Any) -> str:
    return read_sid("RE", found.sid or "")


def _read_call(found: Any) -> CarrierCall:
    return CarrierCall(
        sid=read_sid("CA", found.sid or ""),
        status=CarrierStatus(found.status),
        to=found.to or "",
        created_at=found.date_created,
    )


def _read_notices(found: list[Any]) -> list[Notice]:
    notices = []
    for each in found:
        code = whole_number(each.error_code)
        at = each.message_date or each.date_created
        notices.append(Notice(code, explain(code, each.message_text or ""), at))
    return sorted(notices, key=lambda notice: notice.at.timestamp() if notice.at else math.inf)


def _read_account(found: Any) -> Account:
    return Account(found.friendly_name or "", found.status or "", is_trial=found.type == "Trial")


def _read_owned(found: list[Any]) -> CallerId:
    if not found:
        return CallerId.UNKNOWN
    return CallerId.OWNED if (found[0].capabilities or {}).get("voice", True) else CallerId.WITHOUT_VOICE


def _read_verified(found: list[Any]) -> CallerId:
    return CallerId.VERIFIED if found else CallerId.UNKNOWN
