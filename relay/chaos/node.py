"""The node of a simulation, put together as the service puts one together, with the ports replaced.

Knows the house from the switchboard down; knows no plan and no fault.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import cache

import trio

from relay.carrier import Carrier
from relay.chaos.plan import LIMIT_SECONDS
from relay.compliance import Rulebook, load_rulebook
from relay.gatekeeper import Gatekeeper
from relay.legs import Leg
from relay.limits import Limits
from relay.meter import Meter
from relay.outcomes import Refusal
from relay.placing import Agent, Cast
from relay.profiles import Profile
from relay.reconciler import Reconciler
from relay.recordings import NO_RECORDINGS
from relay.script import Overrides
from relay.store import Retention, Spool, Store
from relay.switchboard import House, Switchboard
from relay.telemetry.capture import Captures
from relay.telemetry.metrics import Metrics
from relay.telemetry.traces import Traces
from relay.terms import BargeIn
from relay.tools.builtin import end_call, mark_do_not_call
from relay.tools.functions import tool

HANGING_TOOL_SECONDS = 60.0
MAX_CALLS = 200

_NODE = "node"
_PROFILE = Profile(
    name="default",
    purpose="informational",
    disclosure="This is an automated call from the clinic.",
    system_prompt="Be kind.",
    tools=("end_call", "mark_do_not_call", "look_up"),
    limits=Limits(silence_seconds=3),  # a call of a few seconds is to meet it
)


def build_node(
    calls: trio.Nursery,
    spool: Spool,
    *,
    carrier: Carrier,
    ledger: Store,
    open_agent: Callable[[str | None], Awaitable[Leg]],
    clock: Callable[[], datetime],
) -> tuple[Switchboard, Reconciler]:
    """A switchboard and who looks after its calls; whoever asks for it has to run the latter."""
    meter, house = Meter(Metrics()), _house()
    switchboard = Switchboard(
        house=house,
        calls=calls,
        carrier=carrier,
        open_agent=open_agent,
        store=ledger,
        spool=spool,
        gatekeeper=Gatekeeper(ledger, _rulebook(), clock=clock),
        agents=Cast(default=Agent(_PROFILE, (end_call, mark_do_not_call, look_up))),
        clock=clock,
        probe=_reachable,
        captures=Captures(None),
        recordings=NO_RECORDINGS,
        traces=Traces(),
        meter=meter,
    )
    tending = (ledger, spool, carrier, clock, Retention(), meter, Traces(), NO_RECORDINGS, house.prices)
    return switchboard, Reconciler(_NODE, switchboard, *tending)


@cache
def _rulebook() -> Rulebook:
    return load_rulebook()


def _house() -> House:
    return House(
        node=_NODE,
        public_url="https://relay.test",
        from_number="+12025550100",
        max_call_seconds=LIMIT_SECONDS,
        max_calls=MAX_CALLS,
        ring_seconds=30,
        barge_in=BargeIn.INTERRUPTED,
        lead_silence_seconds=0.25,
        overrides=Overrides(),
    )


async def _reachable() -> Refusal | None:
    await trio.lowlevel.checkpoint()
    return None


@tool
async def look_up(how: str) -> dict[str, str]:
    """Look something up. It is quick, hangs or fails, as the agent asks for it."""
    await trio.sleep(HANGING_TOOL_SECONDS if how == "slow-tool" else 0.2)
    if how == "broken-tool":
        raise RuntimeError("chaos")
    return {"found": "yes"}
