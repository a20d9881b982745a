"""Real processes on real sockets, struck for real: the proxy does what it says, and every promise holds.

Must not know how the service is built: it is a process, and is planted with a bug only to try the judge.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from relay.chaos.loopback.acts import Strike
from relay.chaos.loopback.proxy import DEADLY, PASSING, Passage, Proxy
from relay.chaos.loopback.siege import of_strike, open_siege

TOP = Path(__file__).parents[2]
QUIET_SECONDS = 0.7  # in which nothing comes: a loopback takes a thousandth of it, a trickle a second

NO_WATCHDOGS = """\
import trio
import relay.call
from relay.legs import Leg

async def never(leg):
    await trio.sleep_forever()

relay.call.MEDIA_SILENCE_SECONDS = float("inf")
Leg.beat = never
"""


@asynccontextmanager
async def passage() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream, Passage]]:
    """The service's end, the outside world's, and what is between them."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        arrived, arrivals = trio.open_memory_channel[trio.SocketStream](1)

        async def accept(stream: trio.SocketStream) -> None:
            await arrived.send(stream)
            await trio.sleep_forever()

        nursery.start_soon(trio.serve_listeners, accept, listeners)  # noqa: ASYNC113 - they listen already
        proxy = Proxy(listeners[0].socket.getsockname()[1], Random(1), is_dialled=True)
        port = await nursery.start(proxy.serve)
        service = await trio.open_tcp_stream("127.0.0.1", port)
        outside = await arrivals.receive()
        while not proxy.passages:  # noqa: ASYNC110 - it is taken behind the listener's back
            await trio.sleep(0.01)
        async with service:
            yield service, outside, proxy.passages[0]
        nursery.cancel_scope.cancel()


async def received(stream: trio.SocketStream, count: int, within_seconds: float = 5.0) -> bytes:
    """What comes, up to so many bytes; what has come by then where it is less."""
    found = b""
    with trio.move_on_after(within_seconds):
        while len(found) < count and (chunk := await stream.receive_some(count - len(found))):
            found += chunk
    return found


@pytest.mark.parametrize("kind", PASSING)
async def test_what_a_connection_lives_through_loses_nothing(kind: str) -> None:
    async with passage() as (service, outside, between):
        between.befall(kind, 0.2)
        began = trio.current_time()
        await service.send_all(b"there" * 100)
        await outside.send_all(b"here" * 100)
        assert await received(outside, 500) == b"there" * 100
        assert await received(service, 400) == b"here" * 100
        assert trio.current_time() - began >= {"late": 0.15, "stall": 0.2, "sliced": 0.0}[kind]
        await service.aclose()
        assert await received(outside, 1) == b""
        assert between.closed_at is not None


@pytest.mark.parametrize("kind", DEADLY)
async def test_what_a_connection_does_not_live_through_is_as_on_a_wire(kind: str) -> None:
    async with passage() as (service, outside, between):
        between.befall(kind, 3.0)
        if kind == "reset":
            for end in (service, outside):
                with pytest.raises(trio.BrokenResourceError):
                    await end.receive_some()
            return
        await outside.send_all(b"12345678")
        came = await received(service, 8, QUIET_SECONDS)
        assert came == {"truncate": b"1234", "trickle": b"1", "stop-reading": b"12345678"}.get(kind, b"")
        if kind == "truncate":
            assert await service.receive_some() == b""
            return
        await service.send_all(b"87654321")
        went = await received(outside, 8, QUIET_SECONDS)
        assert went == {"half-close": b"87654321", "trickle": b"8"}.get(kind, b"")
        if kind == "half-close":
            assert await service.receive_some() == b""
        if kind == "blackout":
            assert await received(service, 8) == b"12345678"
        if kind == "half-open":
            assert unacknowledged_bytes(service) == 8


def unacknowledged_bytes(stream: trio.SocketStream) -> int:
    """What the kernel still holds of what was sent: on a sound loopback nothing, after a moment."""
    inode = f"{os.fstat(stream.socket.fileno()).st_ino}"
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()]
    (row,) = (row for row in rows[1:] if row[9] == inode)
    return int(row[4].partition(":")[0], 16)


@pytest.mark.timeout(120)
async def test_a_service_without_watchdogs_is_found_out(tmp_path: Path) -> None:
    plant = tmp_path / "plant"
    plant.mkdir()
    (plant / "sitecustomize.py").write_text(NO_WATCHDOGS)
    path = f"{plant}{os.pathsep}{TOP}"
    async with open_siege("planted", tmp_path / "siege", 1, PYTHONPATH=path) as siege:
        outcome = await siege.play(of_strike(Strike("phone", "blackout", 4.0, 20.0)))
    (sentence,) = outcome.violations
    assert "after it, at most 14 s may be" in sentence


def gives_namespaces() -> bool:
    """Whether this system gives its user a network and mounts of their own, as another program finds it."""
    who = [] if os.geteuid() == 0 else ["--user"]
    tried = subprocess.run(["unshare", *who, "--net", "--mount", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.serial
@pytest.mark.timeout(600)  # two minutes, most of it waiting for what a dead node has left
def test_the_command_finds_nothing_and_reports_as_json(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relay", "chaos", "--sockets", "--calls", "8", "--seed", "11", "--json"],
        env={**os.environ, "PYTHONPATH": str(TOP), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    told = json.loads(done.stdout)
    assert (told["seed"], told["violations"], done.returncode) == (11, [], 0), done.stdout
    acts = {call["act"] for call in told["calls"]}
    ruined = {"full disk", "no network"} if gives_namespaces() else set()
    assert acts == {"connections", "stopped", "killed"} | ruined
    assert (told["left_out"] == []) is bool(ruined)
    assert len([call for call in told["calls"] if call["act"] == "connections"]) == 8
