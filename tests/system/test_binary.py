"""The single file, alone in an empty folder: no Python, no environment, no rights, no repository."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import pytest
import trio

from relay import __version__
from relay.rehearsal import free_port

BINARY: Final = Path(__file__).parents[2] / "dist" / "relay"
UP_SECONDS: Final = 60.0  # it unpacks itself first, and the machine may be busy

pytestmark = [pytest.mark.slow, pytest.mark.needs_binary]

NOBODY: Final[dict[str, Any]] = (
    {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with nothing but the program, that anybody may use; pytest keeps its own to itself."""
    with TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        shutil.copy(BINARY, path)
        yield path


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, as nobody, with this environment and no other."""
    return subprocess.run(
        [folder / "relay", *words],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        **NOBODY,
    )


def settings(folder: Path, port: int) -> dict[str, str]:
    return {
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
        "TWILIO_AUTH_TOKEN": "token",
        "TWILIO_FROM_NUMBER": "+12025550100",
        "TWILIO_API_URL": "http://127.0.0.1:9",
        "ASSEMBLYAI_API_KEY": "key",
        "RELAY_BIND": f"127.0.0.1:{port}",
        "RELAY_API_TOKEN": "operator",
        "RELAY_DATA_DIR": str(folder / "data"),
        "RELAY_DATABASE_URL": f"sqlite:///{folder / 'data' / 'relay.db'}",
        "TMPDIR": str(folder / "tmp"),
    }


@asynccontextmanager
async def serving(folder: Path, **changes: str) -> AsyncIterator[tuple[trio.Process, httpx.AsyncClient]]:
    """`relay serve`, once it answers."""
    port = free_port()
    environment: Mapping[str, str] = settings(folder, port) | changes
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o777)
    command = partial(
        trio.run_process,
        [str(folder / "relay"), "serve"],
        env=environment,
        cwd="/",
        stdout=subprocess.DEVNULL,
        check=False,
        **NOBODY,
    )
    async with (
        trio.open_nursery() as nursery,
        httpx.AsyncClient(base_url=environment["PUBLIC_URL"], trust_env=False) as http,
    ):
        process: trio.Process = await nursery.start(command)
        with trio.fail_after(UP_SECONDS):
            while not await answers(http):
                assert process.returncode is None
                await trio.sleep(0.1)
        yield process, http
        nursery.cancel_scope.cancel()


async def answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/livez")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()  # a zombie has none


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def test_it_says_its_version_and_commit_with_nothing_around_it(folder: Path) -> None:
    done = run(folder, "--version")
    version, _, commit = done.stdout.strip().partition(" (")
    assert (done.returncode, done.stderr) == (0, "")
    assert version == f"relay {__version__}"
    assert len(commit.removesuffix("-dirty)").removesuffix(")")) == 12
    assert names(folder) == {"relay"}


def test_it_plays_a_whole_call(folder: Path) -> None:
    done = run(folder, "demo", "--scenario", "short-goodbye", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["ending"] == {"blame": "nobody", "reason": "goodbye"}
    assert names(folder) == {"relay", "relay-data"}


async def test_it_serves_until_a_signal_and_writes_where_it_was_told_to(folder: Path) -> None:
    async with serving(folder) as (process, http):
        operator = {"Authorization": "Bearer operator"}
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/v1/calls", headers=operator)).json() == {"calls": []}
        assert (await http.get("/openapi.json")).status_code == 200
        metrics = (await http.get("/metrics")).text
        assert f'relay_build_info{{commit="{commit_of(folder)}",version="{__version__}"}} 1.0' in metrics
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(30):
            assert await process.wait() == 0
    assert names(folder) == {"relay", "data", "tmp"}
    assert names(folder / "tmp") == set()  # what it unpacked is gone


async def test_it_has_what_traces_take(folder: Path) -> None:
    async with serving(folder, RELAY_TRACES_URL="http://127.0.0.1:9/v1/traces") as (_process, http):
        assert "relay_traces_lost_total 0.0" in (await http.get("/metrics")).text


def commit_of(folder: Path) -> str:
    return run(folder, "--version").stdout.strip().partition(" (")[2].removesuffix(")")


async def test_the_service_dies_with_the_loader_that_unpacked_it(folder: Path) -> None:
    async with serving(folder) as (process, http):
        (service,) = children(process.pid)
        process.kill()
        with trio.fail_after(10):
            await process.wait()
            while runs(service):  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert not await answers(http)
