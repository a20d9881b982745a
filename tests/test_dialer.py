"""The dialer against an HTTP server that answers as it is told, over real sockets.

Waiting is done on a clock that jumps once nothing has happened for a while, so no test waits for ten seconds.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import parse_qsl, urlsplit

import pytest
import trio
import trio.testing

from relay.carrier import (
    Account,
    AlreadyEnded,
    CallerId,
    Carrier,
    CarrierCall,
    DialOrder,
    HungUp,
    MachineDetection,
    NotHungUp,
    Notice,
    NotPermitted,
    Permission,
    Placed,
    Refused,
    Unavailable,
    Uncertain,
)
from relay.compliance import PERMIT_LIFETIME_SECONDS, Permit, Verdict
from relay.compliance import Refused as Forbidden
from relay.dialer import PERMIT_TRIES, RETRY_SECONDS, Dialer, open_dialer
from relay.outcomes import Refusal
from relay.rest import REQUEST_SECONDS
from relay.wire.callbacks import CarrierStatus
from relay.wire.carrier_errors import explain

ACCOUNT_SID = "AC" + "1" * 32
CALL_SID = "CA" + "2" * 32
CALL_PATH = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{CALL_SID}.json"


def permission_for(order: DialOrder, *, first_attempt: int = 1) -> Permission:
    """The gate's yes, a new one each time, as the ledger would have it."""
    attempts = itertools.count(first_attempt)

    async def permit() -> Permit:
        await trio.lowlevel.checkpoint()
        now, attempt = datetime.now(UTC), next(attempts)
        verdict = Verdict(order.call_id, attempt, "informational", now, now, "test", ())
        return Permit(order.call_id, attempt, order.to, now, verdict)

    return permit


ORDER = DialOrder(
    call_id="call_1",
    to="+12025550143",
    url="https://relay.example/twiml?call=call_1",
    status_callback="https://relay.example/twilio/status?call=call_1",
    limit_seconds=600,
)

Answer = Callable[[trio.SocketStream], Awaitable[None]]
Clock = Callable[[], datetime]


def real_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Request:
    """What the server was asked, and when."""

    method: str
    target: str
    headers: dict[str, str]
    form: list[tuple[str, str]]
    at: float


@dataclass
class Api:
    """A server that answers request after request by its script; past the end it answers nothing."""

    script: list[Answer]
    requests: list[Request] = field(default_factory=list)
    hung_up_on: int = 0
    url: str = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            while (request := await _read_request(stream)) is not None:
                self.requests.append(request)
                await self.script.pop(0)(stream)
            self.hung_up_on += 1


async def _read_request(stream: trio.SocketStream) -> Request | None:
    received = b""
    while b"\r\n\r\n" not in received:
        if not (chunk := await _receive(stream)):
            return None
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += await _receive(stream)
    method, target, _version = first.split(" ")
    form = parse_qsl(body.decode(), keep_blank_values=True)
    return Request(method, target, headers, form, trio.current_time())


async def _receive(stream: trio.SocketStream) -> bytes:
    try:
        return bytes(await stream.receive_some())
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


def says(status: int, body: object, content_type: str = "application/json", **headers: str) -> Answer:
    payload = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {content_type}", f"Content-Length: {len(payload)}"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all("\r\n".join(head).encode() + b"\r\n\r\n" + payload)

    return answer


def error(status: int, code: int, **headers: str) -> Answer:
    return says(status, {"code": code, "message": "Twilio's words", "status": status}, **headers)


def resource(sid: str = CALL_SID, **fields: object) -> dict[str, object]:
    return {"sid": sid, "status": "queued", "to": ORDER.to} | fields


async def stays_mute(stream: trio.SocketStream) -> None:
    await _receive(stream)  # until the other side gives up


async def resets(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def stops_in_the_middle(stream: trio.SocketStream) -> None:
    await stream.send_all(b'HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"sid":')
    await stream.aclose()


@pytest.fixture
def patient_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0.05)


@asynccontextmanager
async def dialer_against(
    *script: Answer, dials_per_second: float = 1000, clock: Clock = real_now
) -> AsyncIterator[tuple[Dialer, Api]]:
    api = Api(list(script))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, api.serve, 0, host="127.0.0.1"))
        api.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with open_at(api.url, dials_per_second, clock) as dialer:
            yield dialer, api
        nursery.cancel_scope.cancel()


def open_at(
    api_url: str, dials_per_second: float = 1000, clock: Clock = real_now
) -> AbstractAsyncContextManager[Dialer]:
    return open_dialer(
        account_sid=ACCOUNT_SID,
        auth_token="secret",
        from_number="+12025550100",
        api_url=api_url,
        dials_per_second=dials_per_second,
        rng=random.Random(7),
        clock=clock,
    )


# Placing


async def test_an_order_is_placed_with_everything_that_twilio_needs() -> None:
    async with dialer_against(says(201, resource())) as (dialer, api):
        carrier: Carrier = dialer
        assert await carrier.dial(ORDER, permission_for(ORDER)) == Placed(CALL_SID)
    (request,) = api.requests
    assert (request.method, request.target) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json")
    assert (
        request.headers["authorization"]
        == "Basic " + base64.b64encode(f"{ACCOUNT_SID}:secret".encode()).decode()
    )
    assert sorted(request.form) == sorted(
        [
            ("To", "+12025550143"),
            ("From", "+12025550100"),
            ("Url", "https://relay.example/twiml?call=call_1"),
            ("Method", "POST"),
            ("StatusCallback", "https://relay.example/twilio/status?call=call_1"),
            ("StatusCallbackMethod", "POST"),
            ("StatusCallbackEvent", "initiated"),
            ("StatusCallbackEvent", "ringing"),
            ("StatusCallbackEvent", "answered"),
            ("StatusCallbackEvent", "completed"),
            ("Timeout", "30"),
            ("TimeLimit", "600"),
        ]
    )


@pytest.mark.parametrize(("kind", "word"), [("enable", "Enable"), ("detect-message-end", "DetectMessageEnd")])
async def test_recording_and_asynchronous_detection_are_ordered_with_their_callbacks(
    kind: MachineDetection, word: str
) -> None:
    order = replace(
        ORDER,
        record=True,
        recording_callback="https://relay.example/twilio/recording?call=call_1",
        machine_detection=kind,
        amd_callback="https://relay.example/twilio/amd?call=call_1",
    )
    async with dialer_against(says(201, resource())) as (dialer, api):
        assert isinstance(await dialer.dial(order, permission_for(order)), Placed)
    form = dict(api.requests[0].form)
    assert {name: form[name] for name in form if name.startswith(("Record", "Machine", "Async"))} == {
        "Record": "true",
        "RecordingChannels": "dual",
        "RecordingStatusCallback": "https://relay.example/twilio/recording?call=call_1",
        "MachineDetection": word,
        "AsyncAmd": "true",
        "AsyncAmdStatusCallback": "https://relay.example/twilio/amd?call=call_1",
    }


async def test_the_environments_edge_and_region_do_not_bend_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("TWILIO_EDGE", "TWILIO_REGION", "TWILIO_ACCOUNT_SID", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://dublin.invalid")
    async with dialer_against(says(201, resource())) as (_, api), open_at(f"{api.url}/prefix/") as dialer:
        assert isinstance(await dialer.dial(ORDER, permission_for(ORDER)), Placed)
    assert api.requests[0].target == f"/prefix/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json"


@pytest.mark.parametrize(("status", "code"), [(400, 21219), (401, 20003), (404, 20404)])
async def test_a_refusal_is_explained_and_not_tried_again(status: int, code: int) -> None:
    async with dialer_against(error(status, code)) as (dialer, api):
        assert await dialer.dial(ORDER, permission_for(ORDER)) == Refused(code, status, explain(code))
    assert len(api.requests) == 1


async def test_a_refusal_without_a_code_is_told_in_its_own_words() -> None:
    answers = [says(404, "<html>", "text/html"), says(302, "", Location="http://127.0.0.1:1/")]
    async with dialer_against(*answers, says(403, {"message": "no", "code": "x"})) as (dialer, _):
        for status in (404, 302):
            refused = Refused(None, status, f"Twilio answered with HTTP {status}; check TWILIO_API_URL.")
            assert await dialer.dial(ORDER, permission_for(ORDER)) == refused
        assert await dialer.dial(ORDER, permission_for(ORDER)) == Refused(None, 403, "no")


async def test_too_many_requests_are_tried_again_after_a_pause(patient_clock: trio.testing.MockClock) -> None:
    answers = [error(429, 20429), error(429, 20429, Retry_After="7"), says(201, resource())]
    async with dialer_against(*answers) as (dialer, api):
        dialling: list[float] = []
        placed = await dialer.dial(
            ORDER, permission_for(ORDER), on_dialing=lambda: dialling.append(trio.current_time())
        )
        assert placed == Placed(CALL_SID)
    first, second = (b.at - a.at for a, b in zip(api.requests, api.requests[1:], strict=False))
    assert 0.25 <= first < 1
    assert 7 <= second < 8
    assert len(dialling) == 3


async def test_too_many_requests_for_a_minute_are_a_refusal(patient_clock: trio.testing.MockClock) -> None:
    async with dialer_against(*[error(429, 20429)] * 50) as (dialer, api):
        assert await dialer.dial(ORDER, permission_for(ORDER)) == Refused(20429, 429, explain(20429))
    assert 5 < len(api.requests) < 15
    assert 30 < api.requests[-1].at - api.requests[0].at <= RETRY_SECONDS + 1


async def test_a_pause_longer_than_our_patience_is_not_begun() -> None:
    async with dialer_against(error(429, 20429, Retry_After="61")) as (dialer, _):
        assert await dialer.dial(ORDER, permission_for(ORDER)) == Refused(20429, 429, explain(20429))


async def test_an_api_that_cannot_be_reached_is_tried_for_a_minute(
    patient_clock: trio.testing.MockClock,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        async with open_at(f"http://127.0.0.1:{unused.getsockname()[1]}") as dialer:
            began_at = trio.current_time()
            refused = await dialer.dial(ORDER, permission_for(ORDER))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.status) == (None, None)
    assert "TWILIO_API_URL" in refused.sentence
    assert 30 < trio.current_time() - began_at <= RETRY_SECONDS + 1


@pytest.mark.parametrize(
    "answer",
    [
        says(503, "<html>busy</html>", "text/html"),
        error(500, 20500),
        resets,
        stops_in_the_middle,
        says(201, "<html>", "text/html"),
        says(201, []),
        says(201, {}),
        says(201, resource(sid="SM" + "2" * 32)),
    ],
)
async def test_an_answer_that_leaves_it_open_is_uncertain_and_never_dialled_again(answer: Answer) -> None:
    async with dialer_against(answer) as (dialer, api):
        assert isinstance(await dialer.dial(ORDER, permission_for(ORDER)), Uncertain)
    assert len(api.requests) == 1


async def test_silence_after_the_request_is_uncertain_at_the_deadline(
    patient_clock: trio.testing.MockClock,
) -> None:
    async with dialer_against(stays_mute) as (dialer, api):
        began_at = trio.current_time()
        assert isinstance(await dialer.dial(ORDER, permission_for(ORDER)), Uncertain)
        assert trio.current_time() - began_at == pytest.approx(REQUEST_SECONDS, abs=0.5)
        await trio.testing.wait_all_tasks_blocked()
    assert len(api.requests) == 1


async def test_dials_keep_the_pace_and_the_order_in_which_they_came(
    patient_clock: trio.testing.MockClock,
) -> None:
    answers = [says(201, resource())] * 4
    async with (
        dialer_against(*answers, dials_per_second=0.5) as (dialer, api),
        trio.open_nursery() as nursery,
    ):
        for number in range(4):
            order = replace(ORDER, to=f"+1202555010{number}")
            nursery.start_soon(dialer.dial, order, permission_for(order))
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert [dict(request.form)["To"][-1] for request in api.requests] == ["0", "1", "2", "3"]
    gaps = [b.at - a.at for a, b in zip(api.requests, api.requests[1:], strict=False)]
    assert gaps == pytest.approx([2, 2, 2], abs=0.5)


async def test_an_order_cancelled_in_the_queue_is_never_placed_and_takes_no_turn(
    patient_clock: trio.testing.MockClock,
) -> None:
    async with dialer_against(*[says(201, resource())] * 2, dials_per_second=0.1) as (dialer, api):
        await dialer.dial(ORDER, permission_for(ORDER))
        with trio.move_on_after(5) as scope:
            await dialer.dial(
                ORDER, permission_for(ORDER), on_dialing=lambda: pytest.fail("it was not our turn")
            )
        assert scope.cancelled_caught
        await dialer.dial(ORDER, permission_for(ORDER))
    first, last = api.requests
    assert last.at - first.at == pytest.approx(10, abs=0.5)


async def test_a_dial_is_cancelled_at_once_and_its_connection_closed() -> None:
    async with dialer_against(stays_mute, says(201, resource())) as (dialer, api):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.dial, ORDER, permission_for(ORDER))
            with trio.fail_after(5):
                while not api.requests:
                    await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            assert isinstance(await dialer.dial(ORDER, permission_for(ORDER)), Placed)
    assert api.hung_up_on >= 1


# Hanging up


async def test_a_call_is_hung_up() -> None:
    async with dialer_against(says(200, resource(status="completed"))) as (dialer, api):
        assert await dialer.hang_up(CALL_SID) == HungUp()
    assert (api.requests[0].method, api.requests[0].target) == ("POST", CALL_PATH)
    assert api.requests[0].form == [("Status", "completed")]


@pytest.mark.parametrize(("status", "code"), [(404, 20404), (400, 21220)])
async def test_a_call_that_is_over_needs_no_hanging_up(status: int, code: int) -> None:
    async with dialer_against(error(status, code)) as (dialer, _):
        assert await dialer.hang_up(CALL_SID) == AlreadyEnded()


async def test_a_hang_up_may_fail_twice(patient_clock: trio.testing.MockClock) -> None:
    for failures in ([error(429, 20429), error(503, 20503)], [resets, stays_mute]):
        async with dialer_against(*failures, says(200, resource())) as (dialer, api):
            assert await dialer.hang_up(CALL_SID) == HungUp()
        assert len(api.requests) == 3


async def test_a_hang_up_gives_up_within_five_seconds(patient_clock: trio.testing.MockClock) -> None:
    async with dialer_against(*[stays_mute] * 3) as (dialer, api):
        began_at = trio.current_time()
        assert isinstance(await dialer.hang_up(CALL_SID), NotHungUp)
        assert trio.current_time() - began_at == pytest.approx(5, abs=0.5)
    assert len(api.requests) == 3


async def test_a_refused_hang_up_says_why() -> None:
    async with dialer_against(error(401, 20003)) as (dialer, _):
        assert await dialer.hang_up(CALL_SID) == NotHungUp(explain(20003))


# Looking up


async def test_a_call_is_looked_up() -> None:
    record = resource(status="completed", date_created="Tue, 10 Mar 2026 18:00:00 +0000")
    async with dialer_against(says(200, record)) as (dialer, api):
        call = await dialer.status_of(CALL_SID)
    created_at = datetime(2026, 3, 10, 18, 0, tzinfo=UTC)
    assert call == CarrierCall(CALL_SID, CarrierStatus.COMPLETED, ORDER.to, created_at)
    assert (api.requests[0].method, api.requests[0].target) == ("GET", CALL_PATH)


async def test_a_call_that_the_carrier_does_not_know_is_none() -> None:
    async with dialer_against(error(404, 20404)) as (dialer, _):
        assert await dialer.status_of(CALL_SID) is None


async def test_a_question_without_an_answer_says_why(patient_clock: trio.testing.MockClock) -> None:
    unreadable = [
        says(200, "<html>"),
        says(200, {}),
        says(200, resource(status="asleep")),
        says(503, ""),
        stays_mute,
    ]
    async with dialer_against(error(401, 20003), *unreadable) as (dialer, _):
        assert await dialer.status_of(CALL_SID) == Unavailable(20003, 401, explain(20003))
        for _each in unreadable:
            assert isinstance(await dialer.status_of(CALL_SID), Unavailable)
    async with dialer_against(says(200, {"a": [], "b": []}), error(401, 20003)) as (dialer, _):
        assert isinstance(await dialer.notices(CALL_SID), Unavailable)
        assert await dialer.notices(CALL_SID) == Unavailable(20003, 401, explain(20003))


async def test_the_calls_to_a_number_since_a_moment_are_found() -> None:
    sids = ["CA" + digit * 32 for digit in "345"]
    created = ["Tue, 10 Mar 2026 18:00:10 +0000", None, "Tue, 10 Mar 2026 17:59:59 +0000"]
    calls = [resource(sid, date_created=at) for sid, at in zip(sids, created, strict=True)]
    page = {"calls": calls, "page": 0, "page_size": 50, "next_page_uri": None, "uri": ""}
    async with dialer_against(says(200, page)) as (dialer, api):
        found = await dialer.calls_since(ORDER.to, datetime(2026, 3, 10, 18, tzinfo=UTC))
    assert isinstance(found, list)
    assert [call.sid for call in found] == sids[:2]
    assert found[0].status is CarrierStatus.QUEUED
    query = dict(parse_qsl(urlsplit(api.requests[0].target).query))
    assert query == {"To": ORDER.to, "From": "+12025550100", "PageSize": "50"}


async def test_a_second_page_is_fetched_from_the_configured_host_alone() -> None:
    pages = [
        {"calls": [resource()], "next_page_uri": "/2010-04-01/next?Page=1", "page": 0},
        {"calls": [resource()], "next_page_uri": None, "page": 1},
    ]
    async with dialer_against(*[says(200, page) for page in pages]) as (dialer, api):
        found = await dialer.calls_since(ORDER.to, datetime(2026, 3, 10, tzinfo=UTC))
    assert isinstance(found, list)
    assert len(found) == 2
    assert api.requests[1].target == "/2010-04-01/next?Page=1"


async def test_notices_come_in_order_with_their_remedies() -> None:
    listed = [
        {"error_code": "31920", "message_date": "Tue, 10 Mar 2026 18:00:02 +0000", "message_text": "x"},
        {"error_code": "11200", "message_date": "Tue, 10 Mar 2026 18:00:01 +0000", "message_text": "x"},
        {"error_code": None, "message_text": "odd"},
    ]
    async with dialer_against(says(200, {"notifications": listed, "next_page_uri": None})) as (dialer, api):
        found = await dialer.notices(CALL_SID)
    assert found == [
        Notice(11200, explain(11200), datetime(2026, 3, 10, 18, 0, 1, tzinfo=UTC)),
        Notice(31920, explain(31920), datetime(2026, 3, 10, 18, 0, 2, tzinfo=UTC)),
        Notice(None, "odd"),
    ]
    assert api.requests[0].target.startswith(CALL_PATH.replace(".json", "/Notifications.json"))


RECORDING = "RE" + "3" * 32


async def test_a_live_call_is_recorded_both_sides_apart() -> None:
    callback = "https://relay.example/twilio/recording?call=call_1"
    async with dialer_against(says(201, {"sid": RECORDING, "status": "in-progress"})) as (dialer, api):
        assert await dialer.record(CALL_SID, callback) == RECORDING
    assert api.requests[0].target == CALL_PATH.replace(".json", "/Recordings.json")
    assert dict(api.requests[0].form) == {
        "RecordingChannels": "dual",
        "RecordingStatusCallback": callback,
    }


async def test_a_call_that_twilio_does_not_know_to_be_live_is_asked_for_again(
    patient_clock: trio.testing.MockClock,
) -> None:
    early = says(400, {"code": 21220, "message": "not eligible", "status": 400})
    async with dialer_against(early, says(201, {"sid": RECORDING})) as (dialer, api):
        assert await dialer.record(CALL_SID, "https://relay.example/") == RECORDING
    async with dialer_against(early, early, early) as (dialer, api):
        assert await dialer.record(CALL_SID, "https://relay.example/") == Unavailable(
            21220, 400, explain(21220)
        )
        assert len(api.requests) == 3


async def test_the_account_tells_whether_it_is_on_trial() -> None:
    async with dialer_against(says(200, {"friendly_name": "Ours", "status": "active", "type": "Trial"})) as (
        dialer,
        api,
    ):
        assert await dialer.account() == Account("Ours", "active", is_trial=True)
    assert api.requests[0].target == f"/2010-04-01/Accounts/{ACCOUNT_SID}.json"


@pytest.mark.parametrize(
    ("owned", "verified", "expected"),
    [
        ([{"capabilities": {"voice": True}}], None, CallerId.OWNED),
        ([{"capabilities": {"voice": False}}], None, CallerId.WITHOUT_VOICE),
        ([], [{"phone_number": "+12025550100"}], CallerId.VERIFIED),
        ([], [], CallerId.UNKNOWN),
    ],
)
async def test_the_caller_id_is_owned_verified_or_neither(
    owned: list[object], verified: list[object] | None, expected: CallerId
) -> None:
    answers = [says(200, {"incoming_phone_numbers": owned, "next_page_uri": None})]
    answers += [says(200, {"outgoing_caller_ids": verified, "next_page_uri": None})]
    async with dialer_against(*answers) as (dialer, api):
        assert await dialer.caller_id() is expected
    asked = [dict(parse_qsl(urlsplit(request.target).query))["PhoneNumber"] for request in api.requests]
    assert asked == ["+12025550100"] * (1 if verified is None else 2)


# Permits


async def test_nothing_is_sent_without_a_permit_for_this_very_call_and_in_time() -> None:
    async def no() -> Forbidden:
        await trio.lowlevel.checkpoint()
        now = datetime.now(UTC)
        return Forbidden(
            Refusal("dnc-listed", "listed"), Verdict("call_1", 1, "informational", now, now, "test", ())
        )

    async def too_old() -> Permit:
        fresh = await permission_for(ORDER)()
        assert isinstance(fresh, Permit)
        return replace(fresh, issued_at=fresh.issued_at - timedelta(seconds=2))

    asked = 0

    def counted(permission: Permission) -> Permission:
        async def ask() -> Permit | Forbidden:
            nonlocal asked
            asked += 1
            return await permission()

        return ask

    async with dialer_against() as (dialer, api):
        assert await dialer.dial(ORDER, no) == NotPermitted(Refusal("dnc-listed", "listed"))
        for permission in (too_old, permission_for(replace(ORDER, call_id="call_2"))):
            asked = 0
            answer = await dialer.dial(ORDER, counted(permission))
            assert isinstance(answer, NotPermitted)
            assert answer.refusal.code == "permit-void"
            assert asked == PERMIT_TRIES
    assert api.requests == []


async def test_a_permit_that_came_too_late_is_replaced_by_one_of_the_next_attempt() -> None:
    given: list[int] = []
    fresh = permission_for(ORDER)

    async def slow_at_first() -> Permit | Forbidden:
        permit = await fresh()
        assert isinstance(permit, Permit)
        given.append(permit.attempt)
        late = timedelta(seconds=2 if permit.attempt < PERMIT_TRIES else 0)
        return replace(permit, issued_at=permit.issued_at - late)

    async with dialer_against(says(201, resource())) as (dialer, api):
        assert isinstance(await dialer.dial(ORDER, slow_at_first), Placed)
    assert given == [1, 2, 3]
    assert len(api.requests) == 1


async def test_a_permit_that_grew_old_while_a_connection_was_waited_for_sends_nothing(
    patient_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, given = datetime.now(UTC), list[float]()
    fresh = permission_for(ORDER)

    def clock() -> datetime:
        return began + timedelta(seconds=trio.current_time())

    async def permission() -> Permit:
        permit = await fresh()
        assert isinstance(permit, Permit)
        given.append(trio.current_time())
        return replace(permit, issued_at=clock())

    async def slow(stream: trio.SocketStream) -> None:
        await trio.sleep(PERMIT_LIFETIME_SECONDS + 0.5)
        await says(200, {"type": "Full"})(stream)

    monkeypatch.setattr("relay.dialer._MAX_CONNECTIONS", 1)  # which a slow question is using
    async with (
        dialer_against(slow, says(201, resource()), clock=clock) as (dialer, api),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(dialer.account)
        await trio.testing.wait_all_tasks_blocked(0.01)
        answer = await dialer.dial(ORDER, permission)
    assert isinstance(answer, Placed)
    assert len(given) == 2
    (dial,) = [request for request in api.requests if request.method == "POST"]
    assert dial.at - given[1] <= PERMIT_LIFETIME_SECONDS


async def test_each_try_spends_a_permit_of_its_own() -> None:
    spent = await permission_for(ORDER)()

    async def the_same_again() -> Permit | Forbidden:
        await trio.lowlevel.checkpoint()
        assert isinstance(spent, Permit)
        return replace(spent, issued_at=datetime.now(UTC))

    async with dialer_against(error(429, 20429), says(201, resource())) as (dialer, api):
        answer = await dialer.dial(ORDER, the_same_again)
        assert isinstance(answer, NotPermitted)
        assert answer.refusal.code == "permit-void"
    assert len(api.requests) == 1
