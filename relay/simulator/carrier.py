"""The carrier: answers the Calls API and runs the calls that were ordered through it.

Knows neither the service nor its addresses except through the Customer it is given.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from relay.simulator.customer import Customer
from relay.simulator.http import Form, Request, Response, serve_http
from relay.simulator.ledger import Ledger
from relay.simulator.placed_call import Network, PlacedCall
from relay.simulator.rest import (
    API_VERSION,
    PERMISSIONS,
    ApiError,
    account_resource,
    country_resource,
    number_resource,
    page,
    read_dial_order,
    resource_uri,
    since,
)
from relay.simulator.scenario import Scenario
from relay.simulator.speech import Voices

# The ways in which `create` of a scenario fails without placing a call, beside `refused:CODE`.
_TOO_MANY = ApiError(429, 20429, "Too Many Requests")
_INTERNAL = ApiError(500, 20500, "An internal server error has occurred")
_NOT_FOUND = ApiError(404, 20404, "The requested resource was not found")
_STATUS_OF_CODE = {20003: 401, 20404: 404, 20429: 429, 20500: 500, 20503: 503}


class Carrier:
    """An account at the carrier. `calls` holds every call that was placed, by its SID, in order."""

    def __init__(
        self,
        network: Network,
        calls_nursery: trio.Nursery,
        script_for: Callable[[Form], Scenario],
        ledger_for: Callable[[Form], Ledger],
        numbers: Sequence[str],
        account_type: str,
        countries: Collection[str],
    ) -> None:
        self.calls: dict[str, PlacedCall] = {}  # bounded by the run, as the ledger is
        self._network = network
        self._calls_nursery = calls_nursery
        self._script_for, self._ledger_for = script_for, ledger_for
        self._numbers, self._account_type = numbers, account_type
        self._countries = countries
        self._throttled: dict[str, int] = {}

    def answer(self, request: Request) -> Response:
        """One HTTP request to the REST interface."""
        fields = request.form if request.method == "POST" else request.query
        status, content = self.request(request.method, request.path, fields, request.basic_auth)
        return Response.of_json(status, content)

    def request(
        self, method: str, path: str, fields: Form, auth: tuple[str, str] | None
    ) -> tuple[int, dict[str, Any]]:
        """The interface as a function: `fields` are the form of a POST or the query of a GET."""
        try:
            if auth != (self._network.account_sid, self._network.auth_token):
                raise ApiError(401, 20003, "Authenticate")
            return self._route(method, path, fields)
        except ApiError as error:
            return error.status, error.body

    def _route(self, method: str, path: str, fields: Form) -> tuple[int, dict[str, Any]]:
        if method == "GET" and path.startswith(PERMISSIONS):
            country = path.removeprefix(PERMISSIONS)
            return 200, country_resource(country, is_enabled=country in self._countries)
        account = f"/{API_VERSION}/Accounts/{self._network.account_sid}"
        if not path.startswith(account) or not path.endswith(".json"):
            raise _NOT_FOUND
        resource = path.removeprefix(account).removesuffix(".json").split("/")[1:]
        match method, resource:
            case "GET", []:
                return 200, account_resource(self._network.account_sid, self._account_type)
            case "GET", ["IncomingPhoneNumbers" | "OutgoingCallerIds" as kind]:
                return 200, self._list_numbers(kind, dict(fields).get("PhoneNumber"))
            case "POST", ["Calls"]:
                return self._create(fields)
            case "GET", ["Calls"]:
                return 200, self._list_calls(fields)
            case "POST", ["Calls", sid]:
                return 200, self._update(self._find(sid), fields)
            case "GET", ["Calls", sid]:
                return 200, self._find(sid).resource()
            case "POST", ["Calls", sid, "Recordings"]:
                return 201, self._record(self._find(sid), fields)
            case "GET", ["Calls", sid, "Notifications"]:
                return 200, self._list_notifications(self._find(sid))
        raise _NOT_FOUND

    def _create(self, form: Form) -> tuple[int, dict[str, Any]]:
        ledger, scenario = self._ledger_for(form), self._script_for(form)
        ledger.record("phone", "received", "create", dict(form))
        try:
            order, faults = read_dial_order(form)
        except ApiError as error:
            ledger.violate("phone", f"the create was refused: {error} ({error.code})")
            raise
        for fault in faults:
            ledger.violate("phone", fault)
        if self._numbers and order.from_number not in self._numbers:
            raise ApiError(400, 21210, f"{order.from_number} is not a number of this account")
        word, _, argument = scenario.carrier.create.partition(":")
        match word:
            case "lost":
                raise _INTERNAL
            case "refused":
                code = int(argument)
                raise ApiError(_STATUS_OF_CODE.get(code, 400), code, f"Refused by the scenario with {code}")
            case "throttled" if self._throttled.setdefault(order.to, int(argument)) > 0:
                self._throttled[order.to] -= 1
                raise _TOO_MANY
        call = PlacedCall(self._network, order, scenario, ledger)
        self.calls[call.sid] = call
        self._calls_nursery.start_soon(call.run, name=f"call {call.sid}")
        if word == "ambiguous":
            raise _INTERNAL
        return 201, call.resource()

    def _update(self, call: PlacedCall, form: Form) -> dict[str, Any]:
        call.ledger.record("phone", "received", "update", dict(form))
        status = dict(form).get("Status")
        if status not in ("completed", "canceled"):
            call.ledger.violate("phone", f"an update that this carrier does not know: {dict(form)}")
            raise ApiError(400, 20001, "Status must be completed or canceled")
        if call.is_over or (status == "canceled" and call.status == "in-progress"):
            raise ApiError(400, 21220, "Call is not in-progress. Cannot redirect.")
        call.hang_up(status)
        return {**call.resource(), "status": status}

    def _record(self, call: PlacedCall, form: Form) -> dict[str, Any]:
        call.ledger.record("phone", "received", "record", dict(form))
        return call.recordings.order(form, call.status, call.answered_at)

    def _find(self, sid: str) -> PlacedCall:
        if sid not in self.calls:
            raise _NOT_FOUND
        return self.calls[sid]

    def _list_calls(self, query: Form) -> dict[str, Any]:
        wanted, begin = dict(query), since(query)
        found = [
            call.resource()
            for call in reversed(self.calls.values())  # the newest first
            if wanted.get("To") in (None, call.order.to)
            and wanted.get("From") in (None, call.order.from_number)
            and wanted.get("Status") in (None, call.status)
            and (call.answered_at or call.created_at) >= begin
        ]
        return page("calls", found, resource_uri(self._network.account_sid, "/Calls"))

    def _list_numbers(self, kind: str, wanted: str | None) -> dict[str, Any]:
        owned = self._numbers if kind == "IncomingPhoneNumbers" else ()
        account = self._network.account_sid
        found = [number_resource(account, number) for number in owned if wanted in (None, number)]
        name = "incoming_phone_numbers" if kind == "IncomingPhoneNumbers" else "outgoing_caller_ids"
        return page(name, found, resource_uri(account, f"/{kind}"))

    def _list_notifications(self, call: PlacedCall) -> dict[str, Any]:
        account = self._network.account_sid
        found = [notice.resource(account, call.sid) for notice in call.notifications]
        return page("notifications", found, resource_uri(account, f"/Calls/{call.sid}/Notifications"))


@asynccontextmanager
async def open_carrier(
    *,
    account_sid: str,
    auth_token: str,
    customer: Customer,
    script_for: Callable[[Form], Scenario],
    ledger_for: Callable[[Form], Ledger],
    voices: Voices | None = None,
    numbers: Sequence[str] = (),
    account_type: str = "Full",
    countries: Collection[str] = ("US",),
    rng: random.Random | None = None,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[Carrier]:
    """A carrier whose calls live as long as the context; leaving it cuts those that still run.

    `script_for` and `ledger_for` choose by the form of the create. Without `numbers` any caller id is taken.
    """
    network = Network(
        account_sid,
        auth_token,
        customer,
        voices or Voices(),
        rng or random.Random(),
        wall,
    )
    async with trio.open_nursery() as calls_nursery:
        yield Carrier(network, calls_nursery, script_for, ledger_for, numbers, account_type, countries)
        calls_nursery.cancel_scope.cancel()


async def serve_carrier(
    carrier: Carrier, *, port: int = 0, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the REST interface on loopback until cancelled; reports its base address."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    bound = listeners[0].socket.getsockname()[1]
    task_status.started(f"http://127.0.0.1:{bound}")
    await trio.serve_listeners(partial(serve_http, answer=carrier.answer), listeners)
