"""The operator's API under `/v1`: place, look at and end calls.

Knows Quart and the shape of requests; every answer is the switchboard's or the store's.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import orjson
import trio
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from quart import Blueprint, Response, jsonify, request
from quart.typing import ResponseReturnValue
from quart_schema import document_headers, security_scheme, validate_querystring, validate_request

from relay.carrier import MachineDetection
from relay.compliance.numbers import zone_that_exists
from relay.outcomes import Refusal
from relay.shapes import Region
from relay.store import CallRecord, Status, Store
from relay.store.list_csv import Number
from relay.switchboard import CallRequest, Switchboard
from relay.web.answers import error
from relay.web.bearer import bearer_only

DECISION_SECONDS = 10.0  # how long placing a call waits for the carrier's answer before it says 202
# In answers that say when to ask again: a line may be free in a moment, the spend cap falls dial by dial.
RETRY_AFTER_SECONDS = {503: 5, 429: 60}

_STATUS = {
    "draining": 503,
    "full": 503,
    "no-store": 503,
    "public-url": 503,
    "spend-cap": 429,
    "key-conflict": 409,
}

Value = Annotated[str, StringConstraints(max_length=2000)]
State = Annotated[Region, Field(description="ISO 3166-2")]
Zone = Annotated[str, AfterValidator(zone_that_exists), Field(description="IANA, such as America/Chicago")]


class CallBody(BaseModel):
    """What `POST /v1/calls` takes."""

    model_config = ConfigDict(extra="forbid")

    to: Number
    agent: Annotated[str, StringConstraints(max_length=100)] = "default"
    variables: dict[str, Value] = Field(default={}, max_length=50)
    purpose: Literal["informational", "collections", "telemarketing"] | None = None
    time_limit: int | None = Field(default=None, ge=10, description="seconds, at most RELAY_MAX_CALL_SECONDS")
    record: bool = False
    machine_detection: MachineDetection | None = None  # as the agent's profile says
    state: State | None = None
    zone: Zone | None = None


class HangUpBody(BaseModel):
    """What `POST /v1/calls/{id}/hangup` takes; an empty body hangs up at once."""

    model_config = ConfigDict(extra="forbid")

    goodbye: bool = False


class ListQuery(BaseModel):
    """How many calls to list."""

    limit: int = Field(default=50, ge=1, le=500)


class IdempotencyHeader(BaseModel):
    """The same key gives the same call."""

    idempotency_key: Annotated[str, StringConstraints(max_length=255)] | None = None


def operator_routes(
    switchboard: Switchboard, store: Store, api_token: str | None, *, max_call_seconds: int
) -> Blueprint:
    """`/v1/*`; without a configured token everyone is refused."""
    routes = bearer_only("operator", api_token)

    @routes.post("/calls")
    @security_scheme([{"bearer": []}])
    @document_headers(IdempotencyHeader)
    @validate_request(CallBody)
    async def place(data: CallBody) -> ResponseReturnValue:
        """Store the intent and dial."""
        if data.time_limit is not None and data.time_limit > max_call_seconds:
            return error(422, "bad-value", f"time_limit: at most {max_call_seconds} (RELAY_MAX_CALL_SECONDS)")
        key = request.headers.get("Idempotency-Key")
        if key is not None and not 0 < len(key) <= 255:
            return error(422, "bad-value", "Idempotency-Key: 1 to 255 characters")
        placed = await switchboard.place(
            CallRequest(
                to=data.to,
                agent=data.agent,
                variables=data.variables,
                purpose=data.purpose,
                time_limit_seconds=data.time_limit,
                record=data.record,
                machine_detection=data.machine_detection,
                state=data.state,
                zone=data.zone,
                idempotency_key=key,
                digest=_digest(data.model_dump(exclude_none=True)),
            )
        )
        if isinstance(placed, Refusal):
            return _refused(placed, 422)
        if isinstance(placed, CallRecord):
            return jsonify(placed.summary()), 200
        with trio.move_on_after(DECISION_SECONDS):
            await placed.decided.wait()
        if placed.forbidden is not None:
            return _refused(placed.forbidden, 403)
        if placed.refusal is not None:
            return error(502, "carrier-refused", placed.refusal)
        record = await switchboard.newest(placed)
        return jsonify(record.summary()), 201 if record.sid else 202

    @routes.get("/calls")
    @security_scheme([{"bearer": []}])
    @validate_querystring(ListQuery)
    async def calls(query_args: ListQuery) -> ResponseReturnValue:
        """The newest calls, newest first."""
        records = await store.recent(query_args.limit)
        return jsonify({"calls": [_listed(as_it_is(record)) for record in records]})

    @routes.get("/calls/<call_id>")
    @security_scheme([{"bearer": []}])
    async def call(call_id: str) -> ResponseReturnValue:
        """One call with its timeline."""
        record = await store.get(call_id)
        if record is None:
            return _unknown(call_id)
        return Response(orjson.dumps(as_it_is(record).as_json()), content_type="application/json")

    @routes.post("/calls/<call_id>/hangup")
    @security_scheme([{"bearer": []}])
    async def hang_up(call_id: str) -> ResponseReturnValue:
        """End a call: at once, or with a goodbye."""
        body = await request.get_data()
        try:
            wish = HangUpBody.model_validate_json(body) if body.strip() else HangUpBody()
        except ValueError:
            return error(422, "bad-value", 'the body is {"goodbye": true}, {"goodbye": false} or empty')
        line = switchboard.line(call_id)
        if (
            line is not None
            and line.record.status is not Status.ENDED
            and await switchboard.holds(line) is not False
        ):
            line.hang_up(goodbye=wish.goodbye)
            return jsonify(line.record.summary()), 202
        record = await store.get(call_id)
        if record is None:
            return _unknown(call_id)
        if record.ending is None and await switchboard.hang_up_elsewhere(call_id, goodbye=wish.goodbye):
            return jsonify(record.summary()), 202
        return jsonify(record.summary()), 200

    def as_it_is(record: CallRecord) -> CallRecord:
        """A live call of this node as it is now, which the store may hear of a moment later."""
        line = switchboard.line(record.id)
        return record if line is None else line.record

    def _unknown(call_id: str) -> ResponseReturnValue:
        return error(404, "unknown-call", f"there is no call {call_id[:64]}")

    return routes


def _refused(refusal: Refusal, otherwise: int) -> ResponseReturnValue:
    status = _STATUS.get(refusal.code, otherwise)
    seconds = RETRY_AFTER_SECONDS.get(status)
    headers = {} if seconds is None else {"Retry_After": str(seconds)}
    return error(status, refusal.code, refusal.message, **headers)


def _listed(record: CallRecord) -> dict[str, Any]:
    return {
        **record.summary(),
        "ending": record.ending and record.ending.as_json(),
        "duration_seconds": record.duration_seconds,
    }


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
