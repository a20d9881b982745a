"""A real HAProxy for the tests: requests one by one to every node in turn, streams as tunnels.

Must not know what is served behind it. It listens on loopback and runs as long as its block.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

# Everything goes to nodes that take new calls, and only where there is none to one that is up: a node that
# drains would otherwise be given the streams of others for ever. Only what changes nothing is asked twice.
CONFIGURATION = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout tunnel 700s
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response
frontend public
    bind 127.0.0.1:{front}
    use_backend live if {{ nbsrv(ready) eq 0 }}
    default_backend ready
backend ready
    balance roundrobin
    http-request disable-l7-retry unless METH_GET
    option httpchk GET /readyz
    default-server check inter 300ms fall 1 rise 1
{servers}
backend live
    balance roundrobin
    http-request disable-l7-retry unless METH_GET
    option httpchk GET /livez
    default-server check inter 300ms fall 2 rise 1
{servers}
"""


@asynccontextmanager
async def open_haproxy(front: int, ports: Mapping[str, int], folder: Path) -> AsyncIterator[None]:
    """Port `front` leads to these ports; one that nobody listens on yet is tried until somebody does."""
    servers = "\n".join(f"    server {name} 127.0.0.1:{port}" for name, port in ports.items())
    file = folder / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(front=front, servers=servers), encoding="utf-8")
    with (folder / "haproxy.log").open("wb") as log:
        async with trio.open_nursery() as nursery:
            command = ["haproxy", "-db", "-f", str(file)]
            run = partial(trio.run_process, command, stdout=log, stderr=log, check=False)
            await nursery.start(run)
            yield
            nursery.cancel_scope.cancel()
