"""The words of the carrier's REST interface: reading what is asked for, writing resources and errors.

Knows no sockets and keeps no calls: whoever does passes in what there is to say.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

from relay.simulator.http import Form

API_VERSION = "2010-04-01"
PERMISSIONS = "/v1/DialingPermissions/Countries/"
STATUS_EVENTS = frozenset({"initiated", "ringing", "answered", "completed"})
TERMINAL = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})

_E164 = re.compile(r"\+[1-9]\d{6,14}")
_CREATE_PARAMETERS = frozenset(
    """To From Url Method FallbackUrl FallbackMethod
    StatusCallback StatusCallbackMethod StatusCallbackEvent
    SendDigits Timeout TimeLimit CallReason
    Record RecordingChannels RecordingTrack Trim
    RecordingStatusCallback RecordingStatusCallbackMethod RecordingStatusCallbackEvent
    MachineDetection MachineDetectionTimeout MachineDetectionSilenceTimeout
    MachineDetectionSpeechThreshold MachineDetectionSpeechEndThreshold
    AsyncAmd AsyncAmdStatusCallback AsyncAmdStatusCallbackMethod""".split()  # noqa: SIM905 - reads as a list
)


class ApiError(Exception):
    """A refusal of the interface: an HTTP status and the carrier's own error code."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code

    @property
    def body(self) -> dict[str, Any]:
        """The refusal as it goes over the wire."""
        return {
            "code": self.code,
            "message": str(self),
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": self.status,
        }


@dataclass(frozen=True, slots=True)
class DialOrder:
    """A call that was asked for."""

    to: str
    from_number: str
    url: str
    status_callback: str | None
    status_events: frozenset[str]
    ring_seconds: int
    limit_seconds: int
    machine_detection: str | None = None  # Enable or DetectMessageEnd
    amd_callback: str | None = None
    recording: Form | None = None  # what is said of the recording that begins with the answer, if one does


def read_dial_order(form: Form) -> tuple[DialOrder, list[str]]:
    """Read the form of a create, and what is wrong with it although the carrier would take it.

    Raises ApiError where the carrier refuses.
    """
    fields: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in form:
        fields[name].append(value)
    faults = [
        f"the create has an unknown parameter {name}" for name in sorted(set(fields) - _CREATE_PARAMETERS)
    ]
    faults += [
        f"the create repeats {name}"
        for name, values in fields.items()
        if len(values) > 1 and name not in ("StatusCallbackEvent", "RecordingStatusCallbackEvent")
    ]
    one = {name: values[0] for name, values in fields.items()}
    if one.get("AsyncAmd", "true") not in ("true", "false"):
        faults.append(f"AsyncAmd is {one['AsyncAmd']!r}, not the text true or false")
    detection = one.get("MachineDetection")
    if detection is not None:
        if detection not in ("Enable", "DetectMessageEnd"):
            raise ApiError(400, 21234, f"MachineDetection is {detection!r}")
        if one.get("AsyncAmd") != "true":
            faults.append("without AsyncAmd the document waits for the verdict: the callee hears nothing")
        if "AsyncAmdStatusCallback" not in one:
            faults.append("the verdict has nowhere to go (21262)")
    if "TimeLimit" not in one:
        faults.append("the create has no TimeLimit")
    order = DialOrder(
        to=_read_number(one, "To", missing=21201, wrong=21211),
        from_number=_read_number(one, "From", missing=21213, wrong=21212),
        url=_read_url(one.get("Url"), 21205, "Url"),
        status_callback=one.get("StatusCallback"),
        status_events=_read_status_events(fields["StatusCallbackEvent"], faults),
        ring_seconds=_read_seconds(one, "Timeout", default=60, top=600, code=21208),
        limit_seconds=_read_seconds(one, "TimeLimit", default=14400, top=86400, code=20422),
        machine_detection=detection,
        amd_callback=one.get("AsyncAmdStatusCallback"),
        recording=form if one.get("Record", "false").lower() == "true" else None,
    )
    for name in ("Method", "StatusCallbackMethod", "RecordingStatusCallbackMethod"):
        if one.get(name, "POST") != "POST":
            raise ApiError(400, 21209, f"{name} is not POST")
    for name in ("StatusCallback", "RecordingStatusCallback", "AsyncAmdStatusCallback"):
        if name in one:
            _read_url(one[name], 21609, name)
    return order, faults


def _read_number(fields: Mapping[str, str], name: str, *, missing: int, wrong: int) -> str:
    number = fields.get(name, "")
    if not number:
        raise ApiError(400, missing, f"No '{name}' number is specified")
    if not _E164.fullmatch(number):
        raise ApiError(400, wrong, f"The '{name}' number {number} is not a valid phone number")
    return number


def _read_url(url: str | None, code: int, name: str) -> str:
    parts = urlsplit(url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname or "_" in parts.hostname:
        raise ApiError(400, code, f"{name} is not a valid absolute URL: {url}")
    return url or ""


def _read_status_events(events: Sequence[str], faults: list[str]) -> frozenset[str]:
    """The subscription. Events joined into one text (21626) silence all callbacks: a well-known trap."""
    if not set(events) <= STATUS_EVENTS:
        faults.append(f"StatusCallbackEvent {list(events)} is not one event per parameter (21626)")
        return frozenset()
    return frozenset(events) or frozenset({"completed"})


def _read_seconds(fields: Mapping[str, str], name: str, *, default: int, top: int, code: int) -> int:
    text = fields.get(name, str(default))
    if not text.isdecimal() or not 0 < int(text) <= top:
        raise ApiError(400, code, f"{name} {text!r} is not a number from 1 to {top}")
    return int(text)


def resource_uri(account_sid: str, rest: str) -> str:
    """The path of a resource of an account."""
    return f"/{API_VERSION}/Accounts/{account_sid}{rest}.json"


def rfc2822(at: float) -> str:
    """A moment as the carrier writes it: `Tue, 10 Mar 2026 18:00:00 +0000`."""
    return format_datetime(datetime.fromtimestamp(int(at), UTC))


def page(name: str, resources: Sequence[Mapping[str, Any]], uri: str) -> dict[str, Any]:
    """A list of resources that fits one page."""
    return {
        name: list(resources),
        "first_page_uri": f"{uri}?PageSize=50&Page=0",
        "next_page_uri": None,
        "previous_page_uri": None,
        "page": 0,
        "page_size": 50,
        "start": 0,
        "end": max(0, len(resources) - 1),
        "uri": f"{uri}?PageSize=50&Page=0",
    }


def account_resource(account_sid: str, kind: str) -> dict[str, Any]:
    """The account itself; `kind` is Full or Trial."""
    return {
        "sid": account_sid,
        "friendly_name": "Simulated account",
        "owner_account_sid": account_sid,
        "status": "active",
        "type": kind,
        "subresource_uris": {},
        "uri": f"/{API_VERSION}/Accounts/{account_sid}.json",
    }


def country_resource(iso_code: str, *, is_enabled: bool) -> dict[str, Any]:
    """Whether ordinary numbers of a country may be called: Voice Geographic Permissions."""
    return {
        "iso_code": iso_code,
        "name": iso_code,
        "low_risk_numbers_enabled": is_enabled,
        "high_risk_special_numbers_enabled": False,
        "high_risk_tollfraud_numbers_enabled": False,
        "url": f"https://voice.twilio.com{PERMISSIONS}{iso_code}",
    }


def number_resource(account_sid: str, number: str) -> dict[str, Any]:
    """A number that the account owns."""
    sid = "PN" + number.removeprefix("+").rjust(32, "0")
    return {
        "sid": sid,
        "account_sid": account_sid,
        "phone_number": number,
        "friendly_name": number,
        "capabilities": {"voice": True, "sms": False, "mms": False, "fax": False},
        "status": "in-use",
        "uri": resource_uri(account_sid, f"/IncomingPhoneNumbers/{sid}"),
    }


def call_resource(
    account_sid: str,
    sid: str,
    order: DialOrder,
    status: str,
    *,
    created_at: float,
    answered_at: float | None,
    ended_at: float | None,
    duration_seconds: int,
    answered_by: str | None,
) -> dict[str, Any]:
    """A call as the interface shows it; times of day in seconds since 1970."""
    uri = resource_uri(account_sid, f"/Calls/{sid}")
    begun = answered_at or created_at
    return {
        "sid": sid,
        "account_sid": account_sid,
        "api_version": API_VERSION,
        "date_created": rfc2822(created_at),
        "date_updated": rfc2822(ended_at or begun),
        "start_time": rfc2822(begun) if status != "queued" else None,
        "end_time": rfc2822(ended_at) if ended_at is not None else None,
        "duration": str(duration_seconds) if ended_at is not None else None,
        "to": order.to,
        "to_formatted": order.to,
        "from": order.from_number,
        "from_formatted": order.from_number,
        "status": status,
        "direction": "outbound-api",
        "queue_time": "0",
        "answered_by": answered_by,
        "caller_name": "",
        "forwarded_from": None,
        "group_sid": None,
        "parent_call_sid": None,
        "phone_number_sid": None,
        "price": None,
        "price_unit": "USD",
        "trunk_sid": None,
        "uri": uri,
        "subresource_uris": {"notifications": uri.replace(".json", "/Notifications.json")},
    }


@dataclass(frozen=True, slots=True)
class Notification:
    """What the carrier's debugger shows about a call."""

    sid: str
    code: int
    text: str
    url: str
    at: float

    def resource(self, account_sid: str, call_sid: str) -> dict[str, Any]:
        """As the interface shows it."""
        return {
            "sid": self.sid,
            "account_sid": account_sid,
            "call_sid": call_sid,
            "api_version": API_VERSION,
            "log": "0",
            "error_code": str(self.code),
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "message_text": self.text,
            "message_date": rfc2822(self.at),
            "date_created": rfc2822(self.at),
            "date_updated": rfc2822(self.at),
            "request_method": "POST",
            "request_url": self.url,
            "uri": resource_uri(account_sid, f"/Notifications/{self.sid}"),
        }


def since(query: Form) -> float:
    """The `StartTime>` filter of a list, a day or a moment in ISO 8601, as a moment; 0 without it."""
    for name, value in query:
        if name == "StartTime>":
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                raise ApiError(400, 20001, f"StartTime {value!r} is not a date") from None
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return 0.0
