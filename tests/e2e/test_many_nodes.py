"""Several nodes at one public address, a real PostgreSQL between them: no call cut, lost or dialled twice."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest
import trio

from relay.rehearsal import Performance, free_port, open_stage
from tests.e2e.scenes import ending, scene
from tests.nodes import CALLEE, WHOLE, check, settings
from tests.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

pytestmark = [pytest.mark.slow, pytest.mark.needs_postgres]

TOLD = ("script", "started", "dialing", "sid learnt", "document fetched", "stream admitted")


class Splitter:
    """Has one node take what operators ask, the other one the streams, and each in turn what else comes."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self.taken: Counter[int] = Counter()
        self._ports = ports
        self._next = cycle(ports)

    def _port_for(self, request: bytes) -> int:
        path = request.split(b" ", 2)[1]
        if path.startswith(b"/v1/"):
            return self._ports[0]
        return self._ports[1] if path.startswith(b"/twilio-stream") else next(self._next)

    async def serve(self, client: trio.SocketStream) -> None:
        request = await client.receive_some()  # small enough for one packet
        if not request:
            return
        port = self._port_for(request)
        self.taken[port] += 1
        node = await trio.open_tcp_stream("127.0.0.1", port)
        await node.send_all(request)
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


async def test_requests_that_always_land_on_the_other_node_make_whole_calls(
    postgres_url: str, tmp_path: Path
) -> None:
    front, first, second = free_port(), free_port(), free_port()
    splitter = Splitter((first, second))
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
    assert len(moved) == len(played)
    assert min(splitter.taken.values()) > len(played)
