"""What is known of the agent's key: learnt from calls, asked for while it is refused, and never in vain.

Must not know calls or HTTP: endings come from the test, and the agent is a leg in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing
from trio.testing import MockClock

from relay.agent_key import RETRY_SECONDS, VERDICT_SECONDS, AgentKey
from relay.handshake import HandshakeRefused
from relay.legs import Leg
from relay.outcomes import Blame, Ending, Reason
from tests.far_ends import join_agent_leg, memory_pair

REFUSED = Ending(Blame.AGENT, Reason.UNAUTHORIZED)
OVER = Ending(Blame.CALLEE, Reason.HUNG_UP)
A_PROBE_SECONDS = RETRY_SECONDS + VERDICT_SECONDS + 1


class Vendor:
    """Takes or refuses the key, and counts how often it is asked."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.takes = True
        self.asked = 0
        self._nursery = nursery

    async def open_agent(self, resume_token: str | None) -> Leg:
        assert resume_token is None
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if not self.takes:
            raise HandshakeRefused(401)
        leg, _ = await join_agent_leg(self._nursery, *memory_pair())
        return leg


def is_refused(key: AgentKey) -> bool:
    return key.refusal is not None


@asynccontextmanager
async def open_key() -> AsyncIterator[tuple[AgentKey, Vendor]]:
    """A key that is watched."""
    async with trio.open_nursery() as nursery:
        vendor = Vendor(nursery)
        key = AgentKey(vendor.open_agent)
        nursery.start_soon(key.watch)
        await trio.testing.wait_all_tasks_blocked()
        yield key, vendor
        nursery.cancel_scope.cancel()


async def test_a_refusal_is_asked_after_until_the_key_is_good(autojump_clock: MockClock) -> None:
    async with open_key() as (key, vendor):
        vendor.takes = False
        key.judge(REFUSED, had_session=False)
        await trio.sleep(3 * A_PROBE_SECONDS)
        assert is_refused(key)
        assert vendor.asked >= 2
        vendor.takes = True
        await trio.sleep(A_PROBE_SECONDS)
        assert not is_refused(key)
        asked = vendor.asked
        await trio.sleep(10 * A_PROBE_SECONDS)
        assert vendor.asked == asked


async def test_a_refusal_behind_a_good_call_is_noticed_too(autojump_clock: MockClock) -> None:
    async with open_key() as (key, _):
        key.judge(OVER, had_session=True)
        await trio.testing.wait_all_tasks_blocked()
        key.judge(REFUSED, had_session=False)
        await trio.sleep(A_PROBE_SECONDS)
        assert not is_refused(key)


async def test_a_call_in_the_same_moment_outweighs_a_refusal_before_it(autojump_clock: MockClock) -> None:
    async with open_key() as (key, vendor):
        key.judge(REFUSED, had_session=False)
        key.judge(OVER, had_session=True)
        assert not is_refused(key)
        await trio.sleep(10 * A_PROBE_SECONDS)
        assert vendor.asked == 0
        key.judge(REFUSED, had_session=False)
        await trio.sleep(A_PROBE_SECONDS)
        assert (is_refused(key), vendor.asked) == (False, 1)


async def test_nobody_is_asked_what_a_call_has_told_meanwhile(autojump_clock: MockClock) -> None:
    async with open_key() as (key, vendor):
        key.judge(REFUSED, had_session=False)
        await trio.sleep(RETRY_SECONDS / 2)
        key.judge(OVER, had_session=True)
        await trio.sleep(10 * A_PROBE_SECONDS)
        assert vendor.asked == 0  # each probe is billed


async def test_a_call_without_a_session_says_nothing_of_the_key(autojump_clock: MockClock) -> None:
    async with open_key() as (key, vendor):
        vendor.takes = False
        key.judge(REFUSED, had_session=False)
        key.judge(Ending(Blame.AGENT, Reason.UNREACHABLE), had_session=False)
        key.judge(OVER, had_session=False)
        assert is_refused(key)
