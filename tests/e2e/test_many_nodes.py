"""Several nodes at one public address, a real PostgreSQL between them: no call cut, lost or dialled twice."""

from __future__ import annotations

import signal
from collections import Counter
from functools import partial
from itertools import cycle
from pathlib import Path

import httpx
import pytest
import trio

from relay.rehearsal import Performance, Stage, free_port, open_stage
from relay.simulator.ledger import Entry
from tests.e2e.scenes import AGENTS, ending, scene
from tests.haproxy import open_haproxy
from tests.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

pytestmark = [pytest.mark.slow, pytest.mark.needs_postgres]

# Every call ends in one of these ways: on a busy machine a scripted person and a scripted agent may wait for
# each other to speak, and the person hangs up then.
WHOLE = {("nobody", "goodbye"), ("callee", "hung-up")}
TURNS = [{"say": "Yes?", "pause_seconds": 0.2}, {"say": "Thank you.", "pause_seconds": 0.2}]
TOLD = ("script", "started", "dialing", "sid learnt", "document fetched", "stream admitted")
CALLEE = {"leave_after_seconds": 8.0, "turn": TURNS}
HEARD_AGAIN_SECONDS = 5.0


class Splitter:
    """Gives each connection to the next node in turn: the requests of a call seldom meet on one node."""

    def __init__(self, ports: list[int]) -> None:
        self.taken: Counter[int] = Counter()
        self._next = cycle(ports)

    async def serve(self, client: trio.SocketStream) -> None:
        port = next(self._next)
        self.taken[port] += 1
        node = await trio.open_tcp_stream("127.0.0.1", port)
        async with client, node, trio.open_nursery() as nursery:
            for source, sink in ((client, node), (node, client)):
                nursery.start_soon(self._pump, source, sink, nursery.cancel_scope)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        try:
            async for chunk in source:
                await sink.send_all(chunk)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        both.cancel()


def settings(front: int, database_url: str) -> dict[str, str]:
    """What all nodes have in common."""
    return {
        "PUBLIC_URL": f"http://127.0.0.1:{front}",
        "RELAY_DATABASE_URL": database_url,
        "RELAY_SUBJECT_KEY": "k" * 64,
        "RELAY_AGENTS_DIR": str(AGENTS),
        "RELAY_DRAIN_SECONDS": "90",
    }


async def check(stage: Stage, played: list[Performance], told_by_all: tuple[str, ...]) -> None:
    """One order, one record and one intact diary for each call, and nothing of ours still up."""
    assert len({performance.record["id"] for performance in played}) == len(played)
    assert len(stage.carrier.calls) == len(played)
    assert [call.sid for call in stage.carrier.calls.values() if not call.is_over] == []
    for performance in played:
        assert len(performance.ledger.select("phone", "received", "create")) == 1
        told = [event["event"] for event in performance.record["events"]]
        for event in told_by_all:
            assert event in told, (performance.scenario.title, event, told)
        word = await stage.http.get(f"/v1/calls/{performance.record['id']}/verification")
        assert word.json()["integrity"] == "intact"


async def test_requests_that_always_land_on_the_other_node_make_whole_calls(
    postgres_url: str, tmp_path: Path
) -> None:
    front, first, second = free_port(), free_port(), free_port()
    splitter = Splitter([first, second])
    played: list[Performance] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, splitter.serve, front, host="127.0.0.1"))
        async with open_stage(
            tmp_path,
            seed=1,
            synthesise=False,
            own_process=True,
            **settings(front, postgres_url) | {"RELAY_BIND": f"127.0.0.1:{first}"},
        ) as stage:
            await stage.add_node(second)

            async def play(number: int) -> None:
                played.append(await stage.play(scene(f"call {number}", callee=CALLEE)))

            async with trio.open_nursery() as calls:
                for number in range(8):
                    calls.start_soon(play, number)
                    await trio.sleep(0.3)
            await check(stage, played, TOLD)
        nursery.cancel_scope.cancel()
    assert {ending(performance) for performance in played} <= WHOLE
    moved = [p for p in played if "moved" in [event["event"] for event in p.record["events"]]]
    assert moved
    assert min(splitter.taken.values()) > len(played)


@pytest.mark.needs_haproxy
@pytest.mark.timeout(240)
# The emulated carrier's HTTP client leaves the body of a request that the killed node cuts off half read.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx._content.ByteStream:ResourceWarning")
async def test_a_node_drains_and_another_dies_in_the_middle_of_forty_calls(
    postgres_url: str, tmp_path: Path
) -> None:
    front, calls_in_all = free_port(), 40
    ports = {name: free_port() for name in ("first", "second", "third")}
    played: list[Performance] = []
    killed_at: list[float] = []
    audible: dict[str, list[float]] = {}
    async with (
        open_haproxy(front, ports, tmp_path),
        open_stage(
            tmp_path,
            seed=1,
            synthesise=False,
            own_process=True,
            **settings(front, postgres_url) | {"RELAY_BIND": f"127.0.0.1:{ports['first']}"},
        ) as stage,
    ):
        assert stage.process is not None
        second = await stage.add_node(ports["second"])
        await wait_ready(stage)

        async def play(number: int) -> None:
            title = f"call {number}"

            def watch(entry: Entry) -> None:
                if entry.event == "agent-audible":
                    audible.setdefault(title, []).append(entry.at)

            played.append(await stage.play(scene(title, callee=CALLEE), on_entry=watch))

        async def disturb() -> None:
            await trio.sleep(10)
            assert stage.process is not None
            stage.process.send_signal(signal.SIGTERM)
            await stage.add_node(ports["third"])
            await trio.sleep(8)
            killed_at.append(trio.current_time())
            second.kill()

        async with trio.open_nursery() as calls:
            calls.start_soon(disturb)
            for number in range(calls_in_all):
                calls.start_soon(play, number)
                await trio.sleep(0.75)
        # A node that is killed takes along what it had noted in its last second.
        await check(stage, played, ("script", "stream admitted"))
        with trio.fail_after(20):
            assert await stage.process.wait() == 0  # drained, though calls went on all the time
    told = {p.scenario.title: [event["event"] for event in p.record["events"]] for p in played}
    taken_over = [p for p in played if "taken over" in told[p.scenario.title]]
    assert taken_over
    assert {ending(performance) for performance in played} <= WHOLE
    for performance in taken_over:
        again = [at for at in audible[performance.scenario.title] if at > killed_at[0]]
        assert again[0] - killed_at[0] <= HEARD_AGAIN_SECONDS


async def wait_ready(stage: Stage) -> None:
    """Until the balancer has seen a node."""
    with trio.fail_after(10):
        while (await stage.http.get("/readyz")).status_code != httpx.codes.OK:  # noqa: ASYNC110
            await trio.sleep(0.1)
