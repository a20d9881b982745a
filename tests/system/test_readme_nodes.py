"""Two nodes are up by the README alone: its blocks are typed as they stand, but for ports and accounts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import pytest
import trio

from relay.rehearsal import free_port
from tests.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

TOP: Final = Path(__file__).parents[2]
UP_SECONDS: Final = 30.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.needs_postgres,
    pytest.mark.needs_haproxy,
    pytest.mark.needs_openssl,
    pytest.mark.needs_venv,
]

ACCOUNT: Final = """
TWILIO_ACCOUNT_SID=AC00000000000000000000000000000000
TWILIO_AUTH_TOKEN=your-auth-token
TWILIO_FROM_NUMBER=+12025550100
TWILIO_API_URL=http://127.0.0.1:9
ASSEMBLYAI_API_KEY=your-api-key
RELAY_API_TOKEN=a-long-random-word
"""


def blocks() -> list[str]:
    """The blocks of the section, in their order."""
    section = (TOP / "README.md").read_text("utf-8").partition("## Two nodes behind a balancer")[2]
    found = re.findall(r"^ {3}```sh\n(.*?)^ {3}```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    return [re.sub(r"^ {3}", "", block, flags=re.MULTILINE) for block in found]


def commands(block: str) -> Iterator[str]:
    """What is typed, one command after the other."""
    yield from re.sub(r" \\\n +", " ", block).splitlines()


async def answers(http: httpx.AsyncClient, path: str) -> int:
    try:
        return (await http.get(path, headers={"Authorization": "Bearer a-long-random-word"})).status_code
    except httpx.TransportError:
        return 0


async def test_two_nodes_are_up_by_the_readme_alone(postgres_url: str, tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("8080", "8081", "8082", "8443")}

    def here(text: str) -> str:
        for shipped, ours in ports.items():
            text = text.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{ours}")
        return text

    for name in (".venv", "deploy"):
        (tmp_path / name).symlink_to(TOP / name)
    (tmp_path / ".env").write_text(ACCOUNT + here("PUBLIC_URL=http://127.0.0.1:8080\n"), "utf-8")
    (tmp_path / "relay-data").mkdir()
    environment = {"PATH": os.environ["PATH"]}
    type_in = partial(
        subprocess.run, cwd=tmp_path, env=environment, shell=True, check=True, capture_output=True
    )

    database, settings, nodes, balancer = blocks()
    assert "CREATE DATABASE relay" in database  # made already, with a name of its own
    for command in commands(settings):
        type_in(re.sub(r"postgresql[^\"]+", postgres_url, command))
    certificate, balance = commands(here(balancer))
    type_in(certificate)
    async with (
        trio.open_nursery() as nursery,
        httpx.AsyncClient(base_url=here("http://127.0.0.1:8080"), trust_env=False) as http,
    ):
        started: list[trio.Process] = []
        for command in (*commands(here(nodes)), balance):
            start = partial(
                trio.run_process,
                f"exec env {command}",
                cwd=tmp_path,
                env=environment,
                shell=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
            started.append(await nursery.start(start))
        with trio.fail_after(UP_SECONDS):
            while await answers(http, "/readyz") != httpx.codes.OK:
                assert [process.returncode for process in started] == [None] * 3
                await trio.sleep(0.1)
            for port in ("8081", "8082"):
                while await answers(http, here(f"http://127.0.0.1:{port}/readyz")) != 200:  # noqa: ASYNC110
                    await trio.sleep(0.1)
        first, second, _ = started
        first.send_signal(signal.SIGINT)
        with trio.fail_after(UP_SECONDS):
            assert await first.wait() == 0
        assert second.returncode is None
        for _ in range(6):
            assert await answers(http, "/v1/calls") == httpx.codes.OK
        nursery.cancel_scope.cancel()
