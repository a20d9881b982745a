"""What the gate would say if a number were dialled now, rule by rule; nothing is dialled or stored.

Knows Quart and where the gate gets its facts; weighs nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from quart import Blueprint, jsonify
from quart.typing import ResponseReturnValue
from quart_schema import security_scheme, validate_request

from relay.compliance import DialRequest, Purpose, Rulebook, Stage, weigh
from relay.placing import Agents, no_such_agent
from relay.profiles import DEFAULT_AGENT
from relay.store import Store
from relay.store.list_csv import Number
from relay.web.answers import error
from relay.web.bearer import bearer_only
from relay.web.operator import State, Zone

NO_CALL = "none"  # in the verdict, where the name of the call would stand


class CheckBody(BaseModel):
    """What `POST /v1/check` takes: as much of a call as the gate looks at."""

    model_config = ConfigDict(extra="forbid")

    to: Number
    agent: str = DEFAULT_AGENT
    purpose: Purpose | None = None
    state: State | None = None
    zone: Zone | None = None


def explain_routes(
    store: Store,
    rulebook: Rulebook,
    api_token: str | None,
    *,
    agents: Agents,
    from_number: str,
    clock: Callable[[], datetime],
    rule_time: Callable[[], datetime | None] = lambda: None,
) -> Blueprint:
    """`POST /v1/check`. `rule_time` stands for `clock` in the rules of date and hour, where it gives one."""
    routes = bearer_only("explain", api_token)

    @routes.post("/check")
    @security_scheme([{"bearer": []}])
    @validate_request(CheckBody)
    async def explain(data: CheckBody) -> ResponseReturnValue:
        """The verdict on a number, without a dial."""
        await agents.refresh()
        agent = agents.get(data.agent)
        if agent is None:
            unknown = no_such_agent(data.agent)
            return error(422, unknown.code, unknown.message)
        profile = agent.profile
        asked = DialRequest(
            call_id=NO_CALL,
            attempt=1,
            to=data.to,
            from_=from_number,
            declared=Purpose(profile.purpose),
            seller=profile.seller or profile.name,
            asked=data.purpose,
            state=data.state,
            zone=data.zone,
        )
        now = clock()
        facts = await store.facts(data.to, now)
        verdict = weigh(Stage.DIAL, asked, facts, rulebook, now, rule_time())
        refusal = verdict.refusal
        return jsonify(
            {
                "allowed": refusal is None,
                "refusal": refusal and {"code": refusal.code, "message": refusal.message},
                "verdict": verdict.as_json(),
            }
        )

    return routes
