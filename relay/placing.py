"""From what an operator asks for to a line that can be dialled, or the reason why not.

Knows no HTTP, no store and no other call; nothing is sent and nobody is waited for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from relay.call import Terms
from relay.dialogue import BargeIn
from relay.line import Line
from relay.outcomes import Refusal
from relay.profiles import Overrides, Profile, compose
from relay.store import CallRecord
from relay.tools import Tool, Toolbox
from relay.wire import twiml
from relay.wire.carrier import DialOrder, MachineDetection


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
    idempotency_key: str | None = None
    digest: str | None = None  # of the request's body: the same key with another body is a conflict


@dataclass(frozen=True, slots=True)
class House:
    """The rules of this node: what its settings say of every call."""

    public_url: str
    max_call_seconds: int
    max_calls: int
    ring_seconds: int
    barge_in: BargeIn
    lead_silence_seconds: float
    overrides: Overrides


class Office:
    """Where requests become lines: the rules of this node, its agents and their tools."""

    def __init__(
        self,
        house: House,
        *,
        profiles: Callable[[str], Profile | None],
        tools: Mapping[str, Tool],
        clock: Callable[[], datetime],
    ) -> None:
        self._house = house
        self._profiles = profiles
        self._tools = tools
        self._clock = clock

    def prepare(self, request: CallRequest) -> Line | Refusal:
        """A line that nobody has heard of yet."""
        profile = self._profiles(request.agent)
        if profile is None:
            return Refusal("unknown-agent", f"there is no agent called {request.agent[:64]}")
        if unknown := [name for name in profile.tools if name not in self._tools]:
            return Refusal(
                "unknown-tool", f"agent {profile.name} names tools that do not exist: {', '.join(unknown)}"
            )
        toolbox = Toolbox(self._tools[name] for name in profile.tools)
        session = compose(profile, self._house.overrides, request.variables, toolbox.definitions)
        if isinstance(session, Refusal):
            return session
        house = self._house
        record = CallRecord(
            id=f"call_{secrets.token_hex(12)}",
            to=request.to,
            agent=profile.name,
            started_at=self._clock(),
            time_limit_seconds=min(
                request.time_limit_seconds or house.max_call_seconds, house.max_call_seconds
            ),
            record=request.record,
            machine_detection=request.machine_detection,
            purpose=request.purpose or profile.purpose,
            variables=dict(request.variables),
            idempotency_key=request.idempotency_key,
            request_digest=request.digest,
        )
        terms = Terms(
            session=session,
            time_limit_seconds=float(record.time_limit_seconds),
            barge_in=house.barge_in,
            interruptible=session["input"].get("turn_detection", {}).get("interrupt_response", True),
            lead_silence_seconds=house.lead_silence_seconds,
        )
        return Line(
            record, self._order(record.id, request, record.time_limit_seconds), terms, toolbox, self._clock
        )

    def _order(self, call_id: str, request: CallRequest, limit_seconds: int) -> DialOrder:
        here = self._house.public_url
        detects = request.machine_detection != "off"
        return DialOrder(
            call_id=call_id,
            to=request.to,
            url=twiml.twiml_url(here, call_id),
            status_callback=twiml.status_url(here, call_id),
            limit_seconds=limit_seconds,
            ring_seconds=self._house.ring_seconds,
            record=request.record,
            recording_callback=twiml.recording_url(here, call_id) if request.record else None,
            machine_detection=request.machine_detection,
            amd_callback=twiml.amd_url(here, call_id) if detects else None,
        )
