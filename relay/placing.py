"""From what an operator asks for to a line that can be dialled, or the reason why not.

Knows no HTTP, no store and no other call; nothing is sent and nobody is waited for.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import orjson

from relay.carrier import DialOrder, MachineDetection
from relay.clips import Clips, shipped
from relay.compliance import DialRequest, Purpose
from relay.costs import Prices, shipped_prices
from relay.gatekeeper import Gatekeeper
from relay.line import Line
from relay.outcomes import Refusal
from relay.parting import being_transferred, came_back
from relay.profiles import Profile
from relay.reception import OPENING_HEARD, SCREENED
from relay.script import (
    LANGUAGE,
    Announcement,
    Overrides,
    announcement,
    compose,
    fixed_texts,
    resume,
    scope_of,
)
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
    machine_detection: MachineDetection | None = None  # None: as the agent's profile says
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


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as it stands when a call is placed; the call keeps it to its end."""

    profile: Profile
    tools: Sequence[Tool] = ()
    clips: Clips = field(default_factory=shipped)
    content: str = ""  # the digest of its files

    def terms(self, session: Mapping[str, Any], time_limit_seconds: float) -> Terms:
        """What a call of this agent is told before it begins, apart from what its house says."""
        detection = session.get("input", {}).get("turn_detection", {})  # none of a stored agent
        return Terms(
            session=session,
            time_limit_seconds=time_limit_seconds,
            interruptible=detection.get("interrupt_response", True),
            clips=self.clips,
            limits=self.profile.limits,
            opt_out_key=self.profile.opt_out_key,
            keys=self.profile.keypad,
            language=self.profile.language or LANGUAGE,
            opt_out_words=self.profile.opt_out_words,
            tools_are_ours=self.profile.agent_id is None,
            tool_results=self.profile.tool_results,
        )


class Agents(Protocol):
    """Where agents are looked up by name."""

    def get(self, name: str, /) -> Agent | None:
        """As it stood at the last refresh."""

    async def refresh(self) -> None:
        """Take what has changed meanwhile."""


class Cast(dict[str, Agent]):
    """Agents that never change."""

    async def refresh(self) -> None:
        """There is nothing to take."""


def no_such_agent(name: str) -> Refusal:
    """What is said of a name that nobody has."""
    return Refusal("unknown-agent", f"there is no agent called {name[:64]}; `relay agents list` shows them")


@dataclass(frozen=True, slots=True)
class Destination:
    """A person whom the carrier is to dial for a call that is handed over."""

    number: str
    caller_id: str
    ring_seconds: int


class Office:
    """Where requests become lines: the rules of this node, and its agents."""

    def __init__(
        self,
        house: House,
        agents: Agents,
        clock: Callable[[], datetime],
        books: Books,
        gatekeeper: Gatekeeper,
    ) -> None:
        self._house = house
        self._agents = agents
        self.refresh = agents.refresh
        self._clock = clock
        self._books = books
        self._gatekeeper = gatekeeper

    def prepare(self, request: CallRequest) -> Line | Refusal:
        """A line that nobody has heard of yet."""
        agent = self._agents.get(request.agent)
        if agent is None:
            return no_such_agent(request.agent)
        profile = agent.profile
        session = compose(profile, self._house.overrides, request.variables, definitions(agent.tools))
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
            record=request.record or profile.recording == "call",
            machine_detection=request.machine_detection or profile.voicemail.machine_detection,
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
        return self._line(record, agent, session, Purpose(request.purpose) if request.purpose else None)

    def resume(self, record: CallRecord) -> Line | Refusal:
        """A line for a call whose node has died: the same call, with a new stream and a new session."""
        agent = self._agents.get(record.agent)
        if agent is None:
            return Refusal("unknown-agent", f"there is no agent called {record.agent} any more")
        session = compose(agent.profile, self._house.overrides, record.variables, definitions(agent.tools))
        if isinstance(session, Refusal):
            return session
        proofs = [event["event"] for event in record.events if event["event"] in (OPENING_HEARD, SCREENED)]
        heard = proofs[-1:] == [OPENING_HEARD]  # by somebody else than a screening
        news = came_back(record)
        session = resume(session, record.past, heard=heard, news=news)
        return self._line(record, agent, session, Purpose(record.purpose), heard=heard, news=news)

    def destination(self, record: CallRecord) -> Destination | None:
        """Whom the call is handed over to; None where the profile knows nobody so, or nobody may be."""
        agent = self._agents.get(record.agent)
        number = agent and agent.profile.transfers.get(being_transferred(record))
        if not number or self._gatekeeper.judge_destination(number, Purpose(record.purpose)):
            return None
        return Destination(number, record.from_ or self._house.from_number, self._house.ring_seconds)

    def _line(
        self,
        record: CallRecord,
        agent: Agent,
        session: dict[str, Any],
        asked: Purpose | None,
        *,
        heard: bool = False,
        news: str = "",
    ) -> Line:
        profile = agent.profile
        terms = replace(
            agent.terms(session, float(record.time_limit_seconds)),
            barge_in=self._house.barge_in,
            lead_silence_seconds=self._house.lead_silence_seconds,
            voicemail=profile.voicemail.model_copy(update={"machine_detection": record.machine_detection}),
            texts=fixed_texts(profile, record.variables),
            heard=heard,
            news=news,
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
        toolbox = Toolbox(agent.tools, CallContext(record.id, record.to, record.variables, desk=desk))
        order, said_first = self._order(record), announcement(profile, record.variables)
        line = Line(
            *(record, order, plea, terms, toolbox, self._clock),
            announcement=said_first,
            recording=profile.recording,
            transfers=profile.transfers,
        )
        line.noted(SCRIPT, _script(agent, session, said_first))
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

    def announcement(self, record: CallRecord) -> Announcement | None:
        """What the carrier says before it connects the stream of this call; None where it says nothing."""
        agent = self._agents.get(record.agent)
        if agent is None or isinstance(
            compose(agent.profile, self._house.overrides, record.variables, ()), Refusal
        ):
            return None  # the agent was changed since the call was placed
        return announcement(agent.profile, record.variables)

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
            recording_callback=twiml.recording_url(here, record.id),
            machine_detection=detection,
            amd_callback=twiml.amd_url(here, record.id) if detection != "off" else None,
        )


def same_call(earlier: CallRecord, request: CallRequest) -> CallRecord | Refusal:
    """The call under a key that is known already, or why this is another request."""
    if earlier.request_digest != request.digest:
        return Refusal("key-conflict", "this Idempotency-Key was used for another request")
    return earlier


def _script(agent: Agent, session: Mapping[str, Any], said_first: Announcement | None) -> dict[str, str]:
    """Digests that prove which agent this was, what it was told, and what has to be spoken first, by whom."""
    profile = _canonical(agent.profile.model_dump())
    script = {"profile": _digest(profile), "session": _digest(_canonical(session))}
    if agent.content:
        script["files"] = agent.content
    if "greeting" in session:  # none on a later stream once it was heard
        script["opening"] = _digest(session["greeting"].encode())
    if said_first is not None:
        script["disclosure"] = _digest(said_first.sentence.encode())
    return script


def _canonical(content: Mapping[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
