"""`<Dial>` as the carrier runs it: another telephone rings, and perhaps two people talk.

Must not know calls, documents or sockets.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from relay.simulator.http import Form
from relay.simulator.scenario import Other
from relay.simulator.twiml import Dial


@dataclass(frozen=True, slots=True)
class Dialled:
    """What became of it, and whether the callee, who had to wait, has hung up meanwhile."""

    status: str
    talked_seconds: float = 0.0
    hung_up: bool = False

    def fields(self, sid: str) -> Form:
        """What the request to `action` says of it, beside the usual; `sid` is the other leg's."""
        is_bridged = self.status == "completed"
        fields = [("DialCallStatus", self.status), ("DialBridged", "true" if is_bridged else "false")]
        if self.status not in ("failed", "canceled"):
            fields.append(("DialCallSid", sid))
        return [*fields, *([("DialCallDuration", str(math.ceil(self.talked_seconds)))] if is_bridged else [])]


async def dial(verb: Dial, others: deque[Other], note: Callable[[str, Mapping[str, Any]], None]) -> Dialled:
    """Ring the other telephone until it answers or its time is over; takes what it does from `others`."""
    other = others.popleft() if others else Other()
    note("dial", {"number": verb.number, "caller_id": verb.caller_id, "timeout": verb.timeout_seconds})
    if other.outcome == "abandoned":
        await trio.sleep(other.ring_seconds)
        return Dialled("canceled", hung_up=True)
    is_late = other.outcome == "no-answer" or other.ring_seconds > verb.timeout_seconds
    await trio.sleep(min(other.ring_seconds, verb.timeout_seconds))
    if is_late or other.outcome != "answered":
        return Dialled("no-answer" if is_late else other.outcome)
    note("bridged", {"number": verb.number})
    await trio.sleep(other.talk_seconds)
    return Dialled("completed", other.talk_seconds)
