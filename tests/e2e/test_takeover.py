"""A node dies in the middle of a call, and another one behind the same public address goes on with it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from relay.rehearsal import Performance, free_port, open_stage
from relay.simulator.ledger import Entry
from tests.e2e.scenes import AGENTS, EXPLANATION, ending, scene
from tests.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

HEARD_AGAIN_SECONDS = 5.0
SCENARIO = scene(
    "takeover",
    callee={"turn": [{"say": "Yes?", "pause_seconds": 0.2}], "leave_after_seconds": 1.5},
    agent={"commit_seconds": 0.3, "turn": [{"reply": EXPLANATION}]},
)


class Balancer:
    """Forwards each connection to the first node that answers, as the balancers in deploy/ do.

    The kernel takes connections for a process that is being killed: one that closes without a word is passed
    over too.
    """

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports

    async def serve(self, client: trio.SocketStream) -> None:
        asked = bytearray()
        async with client:
            for port in self.ports:
                try:
                    node = await trio.open_tcp_stream("127.0.0.1", port)
                except OSError:
                    continue
                async with node:
                    if await self._forward(client, node, asked):
                        return

    async def _forward(self, client: trio.SocketStream, node: trio.SocketStream, asked: bytearray) -> bool:
        """Until either side closes; whether the node has answered at all."""
        answered = False

        async def ask() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await node.send_all(bytes(asked))
                async for chunk in client:
                    if not answered:
                        asked.extend(chunk)
                    await node.send_all(chunk)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for chunk in node:
                    answered = True
                    await client.send_all(chunk)
            nursery.cancel_scope.cancel()
        return answered


@pytest.mark.slow
@pytest.mark.needs_postgres
async def test_the_callee_hears_the_agent_again_within_five_seconds_of_the_nodes_death(
    postgres_url: str, tmp_path: Path
) -> None:
    front, second = free_port(), free_port()
    balancer = Balancer([])
    killed_at: list[float] = []
    played: list[Performance] = []
    forwarded = trio.Event()

    def watch(entry: Entry) -> None:
        if entry.event == "input.audio":
            forwarded.set()

    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_tcp, balancer.serve, front, host="127.0.0.1")
        await nursery.start(serving)
        settings = {
            "PUBLIC_URL": f"http://127.0.0.1:{front}",
            "RELAY_DATABASE_URL": postgres_url,
            "RELAY_SUBJECT_KEY": "k" * 64,
            "RELAY_AGENTS_DIR": str(AGENTS),
        }
        first = free_port()
        balancer.ports = [first, second]
        async with open_stage(
            tmp_path, seed=1, synthesise=False, own_process=True, RELAY_BIND=f"127.0.0.1:{first}", **settings
        ) as stage:
            assert stage.process is not None
            await stage.add_node(second)

            async def play() -> None:
                played.append(await stage.play(SCENARIO, on_entry=watch))

            nursery.start_soon(play)
            await forwarded.wait()
            await trio.sleep(1.0)
            killed_at.append(trio.current_time())
            stage.process.kill()
            with trio.fail_after(60):
                while not played:  # noqa: ASYNC110 - the ledger is no event
                    await trio.sleep(0.05)
            (performance,) = played
        nursery.cancel_scope.cancel()
    audible = [entry.at for entry in performance.ledger.select("phone", "noted", "agent-audible")]
    heard_again = [at - killed_at[0] for at in audible if at > killed_at[0]]
    assert heard_again
    assert heard_again[0] <= HEARD_AGAIN_SECONDS
    assert ending(performance) == ("callee", "hung-up")
    assert "taken over" in [event["event"] for event in performance.record["events"]]
    assert len(performance.ledger.select("phone", "received", "create")) == 1
    sessions = performance.ledger.select("agent", "received", "session.update")
    assert len(sessions) == 2
    assert performance.call is not None
    assert performance.call.is_over
