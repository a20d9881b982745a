"""A real HAProxy for the tests, with the file that ships: only its nodes are replaced.

Must not know what is served behind it. It listens on loopback and runs as long as its block.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio
import trustme

from relay.rehearsal import free_port

SHIPPED: Final = Path(__file__).parents[1] / "deploy" / "haproxy.cfg"
NODES: Final = re.compile(r'    server a "\$\{RELAY_NODE_A\}"(.*)\n    server b "\$\{RELAY_NODE_B\}".*\n')


def program() -> str:
    """Debian keeps it off the path of ordinary users."""
    return shutil.which("haproxy") or "/usr/sbin/haproxy"


@asynccontextmanager
async def open_haproxy(front: int, ports: Mapping[str, int], folder: Path) -> AsyncIterator[None]:
    """Port `front` leads to these ports; one that nobody listens on yet is tried until somebody does."""

    def servers(found: re.Match[str]) -> str:
        options = {name: found[1].replace("/a", f"/{name}") for name in ports}
        return "".join(f"    server {name} 127.0.0.1:{port}{options[name]}\n" for name, port in ports.items())

    text, backends = NODES.subn(servers, SHIPPED.read_text("utf-8"))
    assert backends == 3
    file, certificate = folder / "haproxy.cfg", folder / "certificate.pem"
    file.write_text(text, encoding="utf-8")
    trustme.CA().issue_cert("relay.test").private_key_and_cert_chain_pem.write_to_path(certificate)
    listening = {
        "BALANCER_HTTP": f"127.0.0.1:{front}",
        "BALANCER_HTTPS": f"127.0.0.1:{free_port()}",
        "BALANCER_CERTIFICATE": str(certificate),
    }
    with (folder / "haproxy.log").open("wb") as log:
        async with trio.open_nursery() as nursery:
            command = [program(), "-db", "-f", str(file)]
            environment = {**os.environ, **listening}
            run = partial(trio.run_process, command, env=environment, stdout=log, stderr=log, check=False)
            await nursery.start(run)
            yield
            nursery.cancel_scope.cancel()
