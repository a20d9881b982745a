"""The emulated carrier: its REST interface, its documents, its callbacks, and calls from end to end.

Knows the service only as a Customer that answers by a script.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from twilio.base.exceptions import TwilioRestException
from twilio.http import HttpClient
from twilio.http.response import Response as TwilioResponse
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from werkzeug.datastructures import MultiDict

from relay.simulator.carrier import Carrier, open_carrier, serve_carrier
from relay.simulator.customer import Answer, Unreachable, open_loopback_customer
from relay.simulator.http import Form, Request, Response, serve_http
from relay.simulator.ledger import Ledger
from relay.simulator.placed_call import PlacedCall
from relay.simulator.rest import ApiError, read_dial_order
from relay.simulator.scenario import Callee, CalleeTurn, Network, Scenario
from relay.simulator.signing import sign
from relay.simulator.speech import Voices
from relay.simulator.twiml import (
    BadDocument,
    ConnectStream,
    Hangup,
    Pause,
    Redirect,
    Say,
    read_document,
)

SID = "AC" + "1" * 32
TOKEN = "auth token"
AUTH = (SID, TOKEN)
NOW = 1_773_165_600.0  # 2026-03-10T18:00:00Z
BASE = f"/2010-04-01/Accounts/{SID}"
PUBLIC = "https://relay.example"
CREATE: Form = [
    ("To", "+12025550143"),
    ("From", "+12025550100"),
    ("Url", f"{PUBLIC}/twiml?call=1"),
    ("Method", "POST"),
    ("StatusCallback", f"{PUBLIC}/twilio/status?call=1"),
    ("StatusCallbackEvent", "initiated"),
    ("StatusCallbackEvent", "ringing"),
    ("StatusCallbackEvent", "answered"),
    ("StatusCallbackEvent", "completed"),
    ("Timeout", "30"),
    ("TimeLimit", "60"),
]
HANG_UP = "<Response><Hangup/></Response>"
STREAM = """<Response>
<Connect><Stream url="wss://relay.example/twilio-stream" statusCallback="/twilio/stream">
<Parameter name="token" value="t"/></Stream></Connect>
<Redirect>/twiml?call=1&amp;attempt=1</Redirect></Response>"""


def changed(**changes: str | None) -> Form:
    """CREATE with parameters replaced, or left out where the change is None."""
    kept = [(name, value) for name, value in CREATE if name not in changes]
    return kept + [(name, value) for name, value in changes.items() if value is not None]


@dataclass
class ScriptedCustomer:
    """A service that answers each path by a script and talks on its stream as told."""

    documents: dict[str, Answer] = field(default_factory=dict)
    on_stream: Callable[[WebSocketConnection], Any] | None = None
    posts: list[tuple[float, str, dict[str, str], Mapping[str, str]]] = field(default_factory=list)
    nursery: trio.Nursery | None = None
    is_down: bool = False

    async def post(self, url: str, form: Form, headers: Mapping[str, str]) -> Answer:
        await trio.sleep(0.01)
        if self.is_down:
            raise Unreachable("connection refused")
        self.posts.append((trio.current_time(), url, dict(form), headers))
        return self.documents.get(url.removeprefix(PUBLIC), Answer(204, "", ""))

    async def connect(self, url: str) -> trio.abc.Stream:
        if self.on_stream is None:
            raise Unreachable("connection refused")
        assert self.nursery is not None
        ours, theirs = memory_stream_pair()
        self.nursery.start_soon(self._serve, ours)
        return theirs

    async def _serve(self, stream: trio.abc.Stream) -> None:
        assert self.on_stream is not None
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            try:
                await self.on_stream(await request.accept())
            except ConnectionClosed:
                pass
            nursery.cancel_scope.cancel()

    def told(self, field_name: str) -> list[str]:
        return [form[field_name] for _, _, form, _ in self.posts if field_name in form]

    @property
    def statuses(self) -> list[dict[str, str]]:
        return [form for _, url, form, _ in self.posts if "/twilio/status" in url]


def document(body: str, status: int = 200) -> Answer:
    return Answer(status, "text/xml; charset=utf-8", body)


@asynccontextmanager
async def open_world(
    customer: ScriptedCustomer, scenario: Scenario | None = None, **options: Any
) -> AsyncIterator[tuple[Carrier, Ledger]]:
    ledger = Ledger()
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            customer.nursery = nursery
            async with open_carrier(
                account_sid=SID,
                auth_token=TOKEN,
                customer=customer,
                script_for=lambda form: scenario or Scenario(),
                ledger_for=lambda form: ledger,
                voices=Voices(synthesise=False),
                rng=random.Random(1),
                wall=lambda: NOW + trio.current_time(),
                **options,
            ) as carrier:
                yield carrier, ledger
            nursery.cancel_scope.cancel()


def place(carrier: Carrier, form: Form | None = None) -> PlacedCall:
    status, content = carrier.request("POST", f"{BASE}/Calls.json", form or CREATE, AUTH)
    assert status == 201, content
    return carrier.calls[content["sid"]]


# ---- REST ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        (changed(To=None), 400, 21201),
        (changed(From=None), 400, 21213),
        (changed(To="5550143"), 400, 21211),
        (changed(From="Relay"), 400, 21212),
        (changed(Url=None), 400, 21205),
        (changed(Url="/twiml"), 400, 21205),
        (changed(Url="https://under_score.example/"), 400, 21205),
        (changed(StatusCallback="/status"), 400, 21609),
        (changed(Timeout="0"), 400, 21208),
        (changed(Method="PUT"), 400, 21209),
        (changed(TimeLimit="soon"), 400, 20422),
    ],
)
def test_a_create_is_refused_as_the_carrier_would(form: Form, status: int, code: int) -> None:
    with pytest.raises(ApiError) as refusal:
        read_dial_order(form)
    assert refusal.value.status == status
    assert refusal.value.body["code"] == code
    assert refusal.value.body["more_info"].endswith(str(code))
    assert refusal.value.body["status"] == status


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        (changed(TimeLimit=None), "no TimeLimit"),
        (changed(AsyncAmd="True"), "AsyncAmd"),
        (changed(StatusCallbackEvent="initiated ringing answered completed"), "21626"),
        (changed(Colour="red"), "unknown parameter Colour"),
        ([*CREATE, ("To", "+12025550199")], "repeats To"),
    ],
)
def test_what_the_carrier_would_swallow_is_still_a_fault(form: Form, complaint: str) -> None:
    _, [fault] = read_dial_order(form)
    assert complaint in fault


def test_the_order_is_read_with_its_events_as_a_list() -> None:
    order, faults = read_dial_order(CREATE)
    assert faults == []
    assert order.status_events == {"initiated", "ringing", "answered", "completed"}
    assert (order.ring_seconds, order.limit_seconds) == (30, 60)


@pytest.mark.parametrize(
    ("method", "path", "auth", "status", "code"),
    [
        ("GET", f"{BASE}.json", None, 401, 20003),
        ("GET", f"{BASE}.json", (SID, "wrong"), 401, 20003),
        ("GET", f"{BASE}/Calls/CA0.json", AUTH, 404, 20404),
        ("GET", "/2010-04-01/Accounts/AC0.json", AUTH, 404, 20404),
        ("DELETE", f"{BASE}/Calls.json", AUTH, 404, 20404),
    ],
)
async def test_refusals_carry_the_code_of_the_carrier(
    method: str, path: str, auth: tuple[str, str] | None, status: int, code: int
) -> None:
    async with open_world(ScriptedCustomer()) as (carrier, _):
        answered, content = carrier.request(method, path, [], auth)
        assert (answered, content["code"], content["status"]) == (status, code, status)


@pytest.mark.parametrize(
    ("create", "answers", "placed"),
    [
        ("placed", [201], 1),
        ("ambiguous", [500], 1),
        ("lost", [500], 0),
        ("refused:21219", [400], 0),
        ("refused:20003", [401], 0),
        ("throttled:2", [429, 429, 201], 1),
    ],
)
async def test_a_create_goes_as_the_scenario_says(
    create: str, answers: list[int], placed: int, autojump_clock: MockClock
) -> None:
    scenario = Scenario(carrier=Network(create=create))
    async with open_world(ScriptedCustomer(), scenario) as (carrier, ledger):
        given = [carrier.request("POST", f"{BASE}/Calls.json", CREATE, AUTH)[0] for _ in answers]
        assert given == answers
        assert len(carrier.calls) == placed
        assert ledger.violations == []


async def test_a_caller_id_must_belong_to_the_account(autojump_clock: MockClock) -> None:
    async with open_world(ScriptedCustomer(), numbers=["+12025550111"]) as (carrier, _):
        status, content = carrier.request("POST", f"{BASE}/Calls.json", CREATE, AUTH)
        assert (status, content["code"]) == (400, 21210)


async def test_an_ended_call_can_not_be_hung_up_again(autojump_clock: MockClock) -> None:
    async with open_world(ScriptedCustomer({"/twiml?call=1": document(HANG_UP)})) as (carrier, _):
        call = place(carrier)
        await call.finished.wait()
        path = f"{BASE}/Calls/{call.sid}.json"
        status, content = carrier.request("POST", path, [("Status", "completed")], AUTH)
        assert (status, content["code"]) == (400, 21220)


class InProcess(HttpClient):  # type: ignore[misc]  # the library ships no types
    """The vendor's own client library, talking to the carrier without a socket."""

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(logging.getLogger(__name__), is_async=False)
        self.carrier = carrier

    def request(self, method: str, url: str, *args: Any, **options: Any) -> TwilioResponse:
        fields: Form = []
        for name, value in (options.get("params") or options.get("data") or {}).items():
            fields += [(name, str(each)) for each in (value if isinstance(value, list) else [value])]
        path = url.removeprefix("https://api.twilio.com")
        status, content = self.carrier.request(method, path, fields, options.get("auth"))
        return TwilioResponse(status, json.dumps(content))


async def test_the_vendors_library_understands_every_resource(autojump_clock: MockClock) -> None:
    customer = ScriptedCustomer({"/twiml?call=1": Answer(503, "text/plain", "")})
    async with open_world(customer, numbers=["+12025550100"], account_type="Trial") as (carrier, _):
        client = Client(SID, TOKEN, http_client=InProcess(carrier))
        fields = dict(CREATE)
        created = client.calls.create(
            to=fields["To"],
            from_=fields["From"],
            url=fields["Url"],
            status_callback=fields["StatusCallback"],
            status_callback_event=["initiated", "ringing", "answered", "completed"],
            time_limit=60,
        )
        assert created.status == "queued"
        await carrier.calls[created.sid].finished.wait()
        fetched = client.calls(created.sid).fetch()
        assert (fetched.status, fetched.duration, fetched.direction) == ("completed", "1", "outbound-api")
        assert fetched.start_time.timestamp() == pytest.approx(NOW, abs=2)
        [listed] = client.calls.list(to=fields["To"], start_time_after=fetched.date_created)
        assert listed.sid == created.sid
        assert client.calls.list(to="+12025550199") == []
        [notice] = client.calls(created.sid).notifications.list()
        assert (notice.error_code, notice.request_url) == ("11200", fields["Url"])
        account = client.api.accounts(SID).fetch()
        assert (account.status, account.type) == ("active", "Trial")
        [number] = client.incoming_phone_numbers.list(phone_number="+12025550100")
        assert number.capabilities["voice"] is True
        assert client.outgoing_caller_ids.list() == []
        with pytest.raises(TwilioRestException) as refusal:
            client.calls(created.sid).update(status="completed")
        assert (refusal.value.status, refusal.value.code) == (400, 21220)


# ---- signatures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("https://relay.example/twiml?call=1", [("CallSid", "CA1"), ("CallerName", ""), ("To", "+1 202")]),
        ("https://relay.example:8443/status", [("b", "2"), ("b", "1"), ("b", "2"), ("a", "x")]),
        ("wss://relay.example/twilio-stream", []),
    ],
)
def test_signatures_are_those_of_the_vendors_library(url: str, form: Form) -> None:
    assert sign(TOKEN, url, form) == RequestValidator(TOKEN).compute_signature(url, MultiDict(form))


# ---- documents -----------------------------------------------------------------------------------


def test_a_document_is_read_into_verbs() -> None:
    body = """<?xml version="1.0" encoding="UTF-8"?>
    <Response><Connect><Stream url="wss://relay.example/s?x=1" name="n" statusCallback="https://r.example/cb">
    <Parameter name="token" value="a&amp;b"/></Stream></Connect>
    <Say language="en-US">Sorry.</Say><Pause length="2"/><Redirect> /next </Redirect><Hangup/></Response>"""
    verbs, warnings = read_document("text/xml", body)
    assert verbs == [
        ConnectStream("wss://relay.example/s", {"token": "a&b"}, "n", "https://r.example/cb"),
        Say("Sorry."),
        Pause(2),
        Redirect("/next"),
        Hangup(),
    ]
    assert warnings == ["the query of <Stream url> is dropped by the carrier"]


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("text/html", "<Response/>", 12300),
        ("text/xml", "<Response>", 12100),
        ("text/xml", "", 12100),
        ("application/xml", "<response/>", 12102),
    ],
)
def test_a_document_that_can_not_be_executed_has_a_code(content_type: str, body: str, code: int) -> None:
    with pytest.raises(BadDocument) as bad:
        read_document(content_type, body)
    assert bad.value.code == code


DIAL = 'callerId="+12025550100" action="https://h/done"'


@pytest.mark.parametrize(
    ("inside", "complaint"),
    [
        ("<Enqueue/>", "unknown verb <Enqueue>"),
        ("<Connect/>", "exactly one <Stream>"),
        (
            '<Connect><Stream url="wss://r.example/s" statusCallbackEvent="x"/></Connect>',
            "statusCallbackEvent",
        ),
        ('<Connect><Stream url="wss://r.example/s" track="both_tracks"/></Connect>', "31941"),
        (
            '<Connect><Stream url="wss://r.example/s"><Parameter value="v"/></Stream></Connect>',
            "without a name",
        ),
        ('<Connect><Stream url="wss://r.example/s"><Param/></Stream></Connect>', "unknown noun <Param>"),
        ('<Pause length="x"/>', "no positive number"),
        ('<Gather speechTimeout="auto"/>', "no attribute 'speechTimeout'"),
        ('<Gather input="dtmf speech"/>', "is not dtmf"),
        ('<Gather method="GET"/>', "is not POST"),
        ('<Gather actionOnEmptyResult="yes"/>', "is not true or false"),
        ('<Gather numDigits="0"/>', "no positive number"),
        ('<Gather timeout="auto"/>', "no positive number"),
        ('<Gather finishOnKey="12"/>', "is no key"),
        ("<Gather><Hangup/></Gather>", "<Hangup> in <Gather>"),
        (f"<Dial {DIAL}>12</Dial>", "no number (13223)"),
        (f"<Dial {DIAL.replace('+1202', '')}>+12025550111</Dial>", "no callerId (13214)"),
        (f"<Dial {DIAL.replace('https://h', '')}>+12025550111</Dial>", "is not absolute"),
        (f'<Dial {DIAL} timeout="soon">+12025550111</Dial>', "no positive number"),
        (f'<Dial {DIAL} record="true">+12025550111</Dial>', "no attribute 'record'"),
    ],
)
def test_what_the_carrier_would_warn_about_is_named(inside: str, complaint: str) -> None:
    _, [warning] = read_document("text/xml", f"<Response>{inside}</Response>")
    assert complaint in warning


# ---- calls ---------------------------------------------------------------------------------------


async def test_callbacks_are_signed_ordered_and_numbered(autojump_clock: MockClock) -> None:
    customer = ScriptedCustomer({"/twiml?call=1": document("<Response><Pause length='3'/></Response>")})
    async with open_world(customer) as (carrier, ledger):
        call = place(carrier)
        await call.finished.wait()
        assert ledger.violations == []
    assert [form["CallStatus"] for form in customer.statuses] == [
        "initiated",
        "ringing",
        "in-progress",
        "completed",
    ]
    assert [form["SequenceNumber"] for form in customer.statuses] == ["0", "1", "2", "3"]
    last = customer.statuses[-1]
    assert (last["CallDuration"], last["Duration"]) == ("4", "1")  # three seconds and the fetch, rounded up
    assert last["CallerName"] == ""
    assert last["Timestamp"] == "Tue, 10 Mar 2026 18:00:03 +0000"
    validator = RequestValidator(TOKEN)
    for _, url, form, headers in customer.posts:
        assert validator.validate(url, form, headers["X-Twilio-Signature"])


@pytest.mark.parametrize("outcome", ["busy", "no-answer", "failed", "canceled"])
async def test_a_call_that_is_not_answered_ends_without_a_document(
    outcome: str, autojump_clock: MockClock
) -> None:
    customer = ScriptedCustomer()
    async with open_world(customer, Scenario(carrier=Network.model_validate({"outcome": outcome}))) as (
        carrier,
        _,
    ):
        call = place(carrier)
        await call.finished.wait()
        assert call.status == outcome
    assert customer.told("CallStatus") == ["initiated", "ringing", outcome]
    assert customer.statuses[-1]["CallDuration"] == "0"


async def test_nobody_answers_after_the_ring_time_that_was_ordered(autojump_clock: MockClock) -> None:
    async with open_world(ScriptedCustomer(), Scenario(carrier=Network(ring_seconds=90))) as (carrier, _):
        call = place(carrier)
        await call.finished.wait()
        assert call.status == "no-answer"
        assert trio.current_time() == pytest.approx(30, abs=0.1)


async def test_without_a_subscription_only_the_end_is_told(autojump_clock: MockClock) -> None:
    customer = ScriptedCustomer({"/twiml?call=1": document(HANG_UP)})
    async with open_world(customer) as (carrier, _):
        await place(carrier, changed(StatusCallbackEvent=None)).finished.wait()
    assert [form["CallStatus"] for form in customer.statuses] == ["completed"]


async def test_when_the_service_closes_the_stream_the_next_verb_follows(autojump_clock: MockClock) -> None:
    async def talk(ws: WebSocketConnection) -> None:
        for _ in range(100):
            await ws.get_message()
        await ws.aclose()

    farewell = "<Response><Say>We are sorry, please call again.</Say><Hangup/></Response>"
    documents = {"/twiml?call=1": document(STREAM), "/twiml?call=1&attempt=1": document(farewell)}
    customer = ScriptedCustomer(documents, talk)
    async with open_world(customer) as (carrier, ledger):
        call = place(carrier)
        await call.finished.wait()
        assert ledger.violations == []
        [start] = ledger.select("phone", "sent", "start")
        assert customer.told("StreamSid") == [start.fields["stream_sid"]] * 2
        assert customer.told("StreamEvent") == ["stream-started", "stream-stopped"]
        [said] = ledger.select("phone", "noted", "say")
        assert said.fields["text"] == "We are sorry, please call again."
        assert (call.ended_at or 0) - NOW == pytest.approx(0.3 + 2 + 1.9, abs=0.3)
        assert call.notifications == []


async def test_a_rest_hang_up_stops_the_stream_and_completes_the_call(autojump_clock: MockClock) -> None:
    received: list[str] = []

    async def talk(ws: WebSocketConnection) -> None:
        while True:
            received.append(json.loads(await ws.get_message())["event"])

    customer = ScriptedCustomer({"/twiml?call=1": document(STREAM)}, talk)
    async with open_world(customer) as (carrier, ledger):
        call = place(carrier)
        await trio.sleep(2)
        assert carrier.request("GET", f"{BASE}/Calls/{call.sid}.json", [], AUTH)[1]["status"] == "in-progress"
        update = partial(carrier.request, "POST", f"{BASE}/Calls/{call.sid}.json", auth=AUTH)
        assert update(fields=[("Status", "canceled")])[0] == 400
        assert update(fields=[("Status", "completed")])[0] == 200
        await call.finished.wait()
        assert trio.current_time() < 2.2
        assert received[:3] == ["connected", "start", "media"]
        assert received[-1] == "stop"
        assert customer.statuses[-1]["CallStatus"] == "completed"
        assert ledger.violations == []


@pytest.mark.parametrize("status", ["completed", "canceled"])
async def test_a_ringing_call_can_be_taken_back(status: str, autojump_clock: MockClock) -> None:
    customer = ScriptedCustomer()
    async with open_world(customer, Scenario(carrier=Network(ring_seconds=20))) as (carrier, _):
        call = place(carrier)
        await trio.sleep(1)
        carrier.request("POST", f"{BASE}/Calls/{call.sid}.json", [("Status", status)], AUTH)
        await call.finished.wait()
        assert customer.told("CallStatus") == ["initiated", "ringing", status]
        assert trio.current_time() < 1.1


async def test_a_callee_who_hangs_up_ends_the_call(autojump_clock: MockClock) -> None:
    async def talk(ws: WebSocketConnection) -> None:
        while True:
            await ws.get_message()

    customer = ScriptedCustomer({"/twiml?call=1": document(STREAM)}, talk)
    leaves = CalleeTurn(when="answered", pause_seconds=1, hang_up=True)
    async with open_world(customer, Scenario(callee=Callee(turn=(leaves,)))) as (carrier, _):
        call = place(carrier)
        await call.finished.wait()
        assert call.status == "completed"
        assert len([url for _, url, _, _ in customer.posts if "/twiml" in url]) == 1


async def test_the_time_limit_ends_the_call(autojump_clock: MockClock) -> None:
    async def talk(ws: WebSocketConnection) -> None:
        while True:
            await ws.get_message()

    customer = ScriptedCustomer({"/twiml?call=1": document(STREAM)}, talk)
    async with open_world(customer) as (carrier, ledger):
        call = place(carrier)
        await call.finished.wait()
        assert call.duration_seconds in (60, 61)
        assert ledger.select("phone", "sent", "stop")


@pytest.mark.parametrize(
    ("answer", "code", "is_violation"),
    [
        (Answer(404, "text/html", ""), 11200, False),
        (Answer(200, "text/html", HANG_UP), 12300, True),
        (Answer(200, "text/xml", "<Response"), 12100, True),
    ],
)
async def test_a_document_that_fails_leaves_a_notification(
    answer: Answer, code: int, is_violation: bool, autojump_clock: MockClock
) -> None:
    async with open_world(ScriptedCustomer({"/twiml?call=1": answer})) as (carrier, ledger):
        call = place(carrier)
        await call.finished.wait()
        assert [notice.code for notice in call.notifications] == [code]
        assert bool(ledger.violations) == is_violation
        assert call.status == "completed"


async def test_a_service_that_is_down_leaves_a_notification_for_each_webhook(
    autojump_clock: MockClock,
) -> None:
    async with open_world(ScriptedCustomer(is_down=True)) as (carrier, ledger):
        call = place(carrier)
        await call.finished.wait()
        assert [notice.code for notice in call.notifications] == [11205] * 5
        assert call.status == "completed"
        assert ledger.violations == []


async def test_a_stream_that_can_not_connect_is_an_error_and_the_next_verb_follows(
    autojump_clock: MockClock,
) -> None:
    documents = {"/twiml?call=1": document(STREAM), "/twiml?call=1&attempt=1": document(HANG_UP)}
    customer = ScriptedCustomer(documents)
    async with open_world(customer) as (carrier, _):
        call = place(carrier)
        await call.finished.wait()
        assert [notice.code for notice in call.notifications] == [31902]
        assert customer.told("StreamEvent") == ["stream-error"]
        assert customer.told("StreamError")[0].startswith("31902")
        assert len([url for _, url, _, _ in customer.posts if "attempt=1" in url]) == 1


async def test_documents_that_redirect_in_a_loop_are_given_up(autojump_clock: MockClock) -> None:
    loop = document("<Response><Redirect>/twiml?call=1</Redirect></Response>")
    async with open_world(ScriptedCustomer({"/twiml?call=1": loop})) as (carrier, ledger):
        await place(carrier).finished.wait()
        assert ledger.violations == ["phone: the documents redirect in a loop"]


async def test_a_callback_that_is_refused_is_a_violation(autojump_clock: MockClock) -> None:
    refused = {"/twiml?call=1": document(HANG_UP), "/twilio/status?call=1": Answer(403, "", "")}
    async with open_world(ScriptedCustomer(refused)) as (carrier, ledger):
        await place(carrier).finished.wait()
        assert len(ledger.violations) == 4
        assert "status-callback initiated was answered with 403" in ledger.violations[0]


async def test_a_stream_must_be_encrypted_unless_it_stays_on_this_machine(autojump_clock: MockClock) -> None:
    open_stream = STREAM.replace("wss://relay.example", "ws://relay.example")
    documents = {"/twiml?call=1": document(open_stream), "/twiml?call=1&attempt=1": document(HANG_UP)}
    async with open_world(ScriptedCustomer(documents)) as (carrier, ledger):
        await place(carrier).finished.wait()
        assert ledger.violations == ["phone: the stream's scheme is 'ws', not wss (31922)"]


async def test_two_runs_with_one_seed_are_the_same(autojump_clock: MockClock) -> None:
    async def talk(ws: WebSocketConnection) -> None:
        for _ in range(100):
            await ws.get_message()
        await ws.aclose()

    async def run() -> list[Any]:
        begun = trio.current_time()
        documents = {"/twiml?call=1": document(STREAM), "/twiml?call=1&attempt=1": document(HANG_UP)}
        async with open_world(ScriptedCustomer(documents, talk)) as (carrier, ledger):
            await place(carrier).finished.wait()
        skipped = ("status-callback", "stream-callback")  # they run beside the call
        return [
            (round(e.at - begun, 6), e.event, e.payload, e.fields.get("stream_sid"))
            for e in ledger.entries
            if e.event not in skipped
        ]

    assert await run() == await run()


# ---- over sockets --------------------------------------------------------------------------------


async def test_the_interface_is_served_over_http() -> None:
    customer = ScriptedCustomer({"/twiml?call=1": document(HANG_UP)})
    async with open_world(customer) as (carrier, _), trio.open_nursery() as nursery:
        base = await nursery.start(serve_carrier, carrier)
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            with trio.fail_after(10):
                assert (await client.get(f"{BASE}.json")).status_code == 401
                form: dict[str, list[str]] = {}
                for name, value in CREATE:
                    form.setdefault(name, []).append(value)
                created = await client.post(f"{BASE}/Calls.json", data=form, auth=AUTH)
                assert (created.status_code, created.json()["status"]) == (201, "queued")
                await carrier.calls[created.json()["sid"]].finished.wait()
                listed = await client.get(f"{BASE}/Calls.json?To=%2B12025550143", auth=AUTH)
                assert [call["status"] for call in listed.json()["calls"]] == ["completed"]
                huge = await client.post(f"{BASE}/Calls.json", content=b"x" * 100_000, auth=AUTH)
                assert huge.status_code == 413
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("packet", "status"),
    [(b"nonsense\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\n\r\n", b"400"), (b"GET / HT", None)],
)
async def test_bytes_that_are_not_http_end_their_connection_only(
    packet: bytes, status: bytes | None, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_http, theirs, lambda request: Response(200, "text/plain", b""))
        await ours.send_all(packet)
        answer = b"".join([chunk async for chunk in ours])
    assert status in answer if status else answer == b""
    assert trio.current_time() < 16


async def test_two_requests_share_a_connection(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    seen: list[Request] = []

    def answer(request: Request) -> Response:
        seen.append(request)
        return Response.of_json(200, {})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_http, theirs, answer)
        await ours.send_all(b"GET /a?b=&c=1 HTTP/1.1\r\nHost: h\r\n\r\n" * 2)
        await ours.send_eof()
        answered = b"".join([chunk async for chunk in ours])
    assert answered.count(b"HTTP/1.1 200") == 2
    assert seen[0].path == "/a"
    assert seen[0].query == [("b", ""), ("c", "1")]


async def test_a_customer_on_this_machine_is_reached_under_its_public_address() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Response:
        seen.append(request)
        return Response(200, "text/xml", HANG_UP.encode())

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    base = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, partial(serve_http, answer=answer), listeners)
            async with open_loopback_customer(PUBLIC, base) as customer:
                given = await customer.post(f"{PUBLIC}/twiml?call=1", [("CallerName", "")], {"X-A": "b"})
                assert given == Answer(200, "text/xml", HANG_UP)
                assert seen[0].path == "/twiml"
                assert seen[0].form == [("CallerName", "")]
                assert seen[0].headers["host"] == "relay.example"
                assert seen[0].headers["x-a"] == "b"
                stream = await customer.connect("wss://relay.example/twilio-stream")
                await stream.aclose()
                with pytest.raises(Unreachable):
                    await customer.post("https://elsewhere.example/", [], {})
                with pytest.raises(Unreachable):
                    await customer.connect("wss://elsewhere.example/")
            nursery.cancel_scope.cancel()


async def test_a_customer_that_does_not_listen_is_unreachable() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    base = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    await listener.aclose()
    async with open_loopback_customer(PUBLIC, base) as customer:
        with trio.fail_after(10), pytest.raises(Unreachable):
            await customer.post(f"{PUBLIC}/twiml", [], {})
