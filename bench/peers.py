"""The peers: how each is built and started.

Knows where `make bench` has put what they need; measures nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from relay.bench.capacity import RELAY
from relay.bench.rig import Addresses, Candidate

HERE = Path(__file__).parent / "peers"

NODE = "node"
FASTAPI = "fastapi"
BY_THE_BOOK = "by-the-book"
PIPECAT = "pipecat"
EPOLL = "epoll"

ALL = (NODE, FASTAPI, BY_THE_BOOK, PIPECAT, EPOLL)

LABELS = {
    RELAY.name: "Relay",
    NODE: "Node, ws + bufferutil",
    FASTAPI: "FastAPI + uvicorn + websockets",
    BY_THE_BOOK: "Quart-Trio + trio-websocket, by the book",
    PIPECAT: "Pipecat pipeline",
    EPOLL: "C, epoll, one thread",
}
WITHOUT_TLS = frozenset({EPOLL})


def find_peers(tools: Path, names: Sequence[str] = ALL) -> tuple[dict[str, Candidate], dict[str, str]]:
    """The relay and those of the peers that can be started here, and why the others cannot.

    `tools` holds what was installed for them: `node/node_modules`, the environments `fastapi` and `pipecat`.
    """
    makers: dict[str, Callable[[Path], Candidate]] = {
        NODE: _node,
        FASTAPI: lambda tools: _python(FASTAPI, tools / "fastapi" / "bin" / "python", "fastapi_bridge.py"),
        BY_THE_BOOK: lambda _: _python(BY_THE_BOOK, Path(sys.executable), "by_the_book_bridge.py"),
        PIPECAT: lambda tools: _python(PIPECAT, tools / "pipecat" / "bin" / "python", "pipecat_bridge.py"),
        EPOLL: _epoll,
    }
    found, missing = {RELAY.name: RELAY}, {}
    for name in names:
        try:
            found[name] = makers[name](tools)
        except (OSError, subprocess.SubprocessError) as problem:
            missing[name] = str(problem)
    return found, missing


def _environment(addresses: Addresses) -> dict[str, str]:
    return {"PORT": str(addresses.port), "AGENT_URL": addresses.agent_url}


def _node(tools: Path) -> Candidate:
    modules = tools / "node" / "node_modules"
    node = _program("node")
    if not (modules / "ws").is_dir():
        raise FileNotFoundError(f"{modules} is missing: make bench installs it")
    return Candidate(
        NODE,
        command=lambda _: [node, str(HERE / "node" / "bridge.js")],
        environment=lambda addresses: {**_environment(addresses), "NODE_PATH": str(modules)},
    )


def _python(name: str, python: Path, script: str) -> Candidate:
    if not python.exists():
        raise FileNotFoundError(f"{python} is missing: make bench installs it")
    return Candidate(name, command=lambda _: [str(python), str(HERE / script)], environment=_environment)


def _epoll(tools: Path) -> Candidate:
    binary = tools / "epoll_bridge"
    subprocess.run(
        [_program("gcc"), "-O2", "-o", str(binary), str(HERE / "epoll_bridge.c")],
        check=True,
        capture_output=True,
    )
    return Candidate(
        EPOLL,
        command=lambda _: [str(binary)],
        environment=lambda addresses: {
            "PORT": str(addresses.port),
            "AGENT_PORT": str(urlsplit(addresses.agent_url).port),
        },
    )


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed")
    return path


def versions(tools: Path) -> dict[str, str]:
    """What each peer is made of."""
    packages = {
        FASTAPI: (tools / "fastapi" / "bin" / "python", ("fastapi", "uvicorn", "uvloop", "websockets")),
        PIPECAT: (tools / "pipecat" / "bin" / "python", ("pipecat-ai", "uvicorn", "uvloop", "websockets")),
        BY_THE_BOOK: (Path(sys.executable), ("quart-trio", "hypercorn", "trio", "trio-websocket")),
        RELAY.name: (Path(sys.executable), ("trio", "websockets", "msgspec", "quart-trio", "hypercorn")),
    }
    found = {name: _python_versions(python, names) for name, (python, names) in packages.items()}
    node = json.loads((HERE / "node" / "package.json").read_text())["dependencies"]
    found[NODE] = ", ".join([_first_line("node"), *(f"{name} {version}" for name, version in node.items())])
    found[EPOLL] = _first_line("gcc") + ", -O2"
    return found


def _python_versions(python: Path, packages: tuple[str, ...]) -> str:
    code = (
        "import platform, sys; from importlib.metadata import version; "
        "names = [f'{name} {version(name)}' for name in sys.argv[1:]]; "
        "print('Python ' + platform.python_version(), *names, sep=', ')"
    )
    return _said([str(python), "-c", code, *packages])


def _first_line(program: str) -> str:
    return f"{program} {_said([program, '--version']).splitlines()[0].removeprefix(program).strip()}"


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not installed"
