"""From what an operator asks for to a line that can be dialled, or the reason why not.

Knows no HTTP, no store and no other call; nothing is sent and nobody is waited for.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from relay.carrier import DialOrder, MachineDetection
from relay.compliance import DialRequest, Purpose
from relay.costs import Prices, shipped_prices
from relay.dialogue import OPENING_HEARD
from relay.gatekeeper import Gatekeeper
from relay.line import Line
from relay.outcomes import Refusal
from relay.profiles import Profile
from relay.script import Overrides, announcement, compose, resume, scope_of
from relay.store import Books, CallRecord
from relay.terms import BargeIn, Terms
from relay.tools import CallContext, Desk, Tool, Toolbox, definitions
from relay.wire import twiml

SCRIPT = "script"  # the note of what the agent is given, by its digests; one for each stream


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What an operator asks for, checked for shape."""

    to: str
    agent: str = "default"
    variables: Mapping[str, str] = field(default_factory=dict)
    purpose: str | None = None
    time_limit_seconds: int | None = None
    record: bool = False
    machine_detection: MachineDetection = "off"
    state: str | None = None  # where the callee is known to be, besides what the number says
    zone: str | None = None
    idempotency_key: str | None = None
    digest: str | None = None  # of the request's body: the same key with another body is a conflict


@dataclass(frozen=True, slots=True)
class House:
    """The rules of this node: what its settings say of every call."""

    node: str  # unique to this process
    public_url: str
    from_number: str
    max_call_seconds: int
    max_calls: int
    ring_seconds: int
    barge_in: BargeIn
    lead_silence_seconds: float
    overrides: Overrides
    prices: Prices = field(default_factory=shipped_prices)


class Office:
    """Where requests become lines: the rules of this node, its agents and their tools."""

    def __init__(
        self,
        house: House,
        profiles: Callable[[str], Profile | None],
        tools: Mapping[str, Sequence[Tool]],
        clock: Callable[[], datetime],
        books: Books,
        gatekeeper: Gatekeeper,
    ) -> None:
        self._house = house
        self._profiles = profiles
        self._tools = tools
        self._clock = clock
        self._books = books
        self._gatekeeper = gatekeeper

    def prepare(self, request: CallRequest) -> Line | Refusal:
        """A line that nobody has heard of yet."""
        profile = self._profiles(request.agent)
        if profile is None:
            return Refusal("unknown-agent", f"there is no agent called {request.agent[:64]}")
        tools = self._tools[profile.name]
        session = compose(profile, self._house.overrides, request.variables, definitions(tools))
        if isinstance(session, Refusal):
            return session
        house = self._house
        record = CallRecord(
            id=f"call_{secrets.token_hex(12)}",
            to=request.to,
            agent=profile.name,
            started_at=self._clock(),
            time_limit_seconds=min(
                request.time_limit_seconds or house.max_call_seconds,
                house.max_call_seconds,
                profile.limits.call_seconds,
            ),
            record=request.record,
            machine_detection=request.machine_detection,
            purpose=request.purpose or profile.purpose,
            variables=dict(request.variables),
            from_=house.from_number,
            seller=profile.seller or profile.name,
            state=request.state,
            zone=request.zone,
            idempotency_key=request.idempotency_key,
            request_digest=request.digest,
            owner=house.node,
        )
        return self._line(
            record, profile, session, tools, Purpose(request.purpose) if request.purpose else None
        )

    def resume(self, record: CallRecord) -> Line | Refusal:
        """A line for a call whose node has died: the same call, with a new stream and a new session."""
        profile = self._profiles(record.agent)
        if profile is None:
            return Refusal("unknown-agent", f"there is no agent called {record.agent} any more")
        tools = self._tools[profile.name]
        session = compose(profile, self._house.overrides, record.variables, definitions(tools))
        if isinstance(session, Refusal):
            return session
        heard = any(event["event"] == OPENING_HEARD for event in record.events)
        said = [(line.role, line.text) for line in record.transcript]
        session = resume(session, said, heard=heard)
        return self._line(record, profile, session, tools, Purpose(record.purpose), heard=heard)

    def _line(
        self,
        record: CallRecord,
        profile: Profile,
        session: dict[str, Any],
        tools: Sequence[Tool],
        asked: Purpose | None,
        *,
        heard: bool = False,
    ) -> Line:
        terms = Terms(
            session=session,
            time_limit_seconds=float(record.time_limit_seconds),
            barge_in=self._house.barge_in,
            interruptible=session.get("input", {}).get("turn_detection", {}).get("interrupt_response", True),
            lead_silence_seconds=self._house.lead_silence_seconds,
            limits=profile.limits,
            opt_out_key=profile.opt_out_key,
            keys=profile.keypad,
            heard=heard,
            tools_are_ours=profile.agent_id is None,
        )
        plea = DialRequest(
            call_id=record.id,
            attempt=0,
            to=record.to,
            from_=record.from_ or self._house.from_number,
            declared=Purpose(profile.purpose),
            seller=record.seller or profile.seller or profile.name,
            asked=asked,
            state=record.state,
            zone=record.zone,
        )
        desk = self._desk(record, profile, plea)
        toolbox = Toolbox(tools, CallContext(record.id, record.to, record.variables, desk=desk))
        order, said_first = self._order(record), announcement(profile, record.variables)
        line = Line(record, order, plea, terms, toolbox, self._clock, announcement=said_first)
        line.noted(SCRIPT, _script(profile, session, said_first))
        return line

    def _desk(self, record: CallRecord, profile: Profile, plea: DialRequest) -> Desk:
        scope = scope_of(profile, record.variables)
        return Desk(
            books=self._books,
            agent=profile.name,
            calendar=scope.calendar,
            accounts=scope.accounts,
            account=scope.account,
            where=partial(self._gatekeeper.where, plea),
            now=self._clock,
            judge_hour=partial(self._gatekeeper.judge_hour, plea),
        )

    def announcement(self, record: CallRecord) -> str:
        """What the carrier says before it connects the stream of this call; empty where it says nothing."""
        profile = self._profiles(record.agent)
        if profile is None or isinstance(
            compose(profile, self._house.overrides, record.variables, ()), Refusal
        ):
            return ""  # the agent was changed since the call was placed
        return announcement(profile, record.variables)

    def _order(self, record: CallRecord) -> DialOrder:
        here = self._house.public_url
        detection = record.machine_detection
        return DialOrder(
            call_id=record.id,
            to=record.to,
            url=twiml.twiml_url(here, record.id),
            status_callback=twiml.status_url(here, record.id),
            limit_seconds=record.time_limit_seconds,
            ring_seconds=self._house.ring_seconds,
            record=record.record,
            recording_callback=twiml.recording_url(here, record.id) if record.record else None,
            machine_detection=detection,
            amd_callback=twiml.amd_url(here, record.id) if detection != "off" else None,
        )


def _script(profile: Profile, session: Mapping[str, Any], said_first: str) -> dict[str, str]:
    """Digests that prove which agent this was, what it was told, and what has to be spoken first, by whom."""
    script = {"profile": _digest(_canonical(profile.model_dump())), "session": _digest(_canonical(session))}
    if "greeting" in session:  # none on a later stream once it was heard
        script["opening"] = _digest(session["greeting"].encode())
    if said_first:
        script["disclosure"] = _digest(said_first.encode())
    return script


def _canonical(content: Mapping[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
