"""The leg as an echo server under the Autobahn suite, cases 1-7 and 10: `scripts/autobahn.py PYTHON2.7`.

Must not be imported: a command for people and for CI. It installs the suite for a Python 2.7 into a folder of
its own, since nobody has ported it, and exits 1 when a case failed, 2 when there is no such Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import trio
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from relay.framing import ServerFraming
from relay.legs import Leg
from relay.outcomes import Blame, LegClosed

SUITE = "autobahntestsuite==0.8.2"
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
PASSES = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
MESSAGE_BYTES = 16 * 1024 * 1024
RUN_SECONDS = 900.0
NO_PYTHON = (
    "autobahn: the suite runs on Python 2.7 only, and {given} is none. Install one (pyenv install 2.7.18) "
    "and name it: scripts/autobahn.py /path/to/python2.7, or PYTHON27=/path/to/python2.7"
)


async def echo(stream: trio.SocketStream) -> None:
    """Answer the upgrade, then send every message back as it came."""
    upgrade = ServerProtocol()
    try:
        while not (requests := upgrade.events_received()):
            upgrade.receive_data(await stream.receive_some())
        assert isinstance(requests[0], Request)
        upgrade.send_response(upgrade.accept(requests[0]))
        await stream.send_all(b"".join(upgrade.data_to_send()))
        framing = ServerFraming(MESSAGE_BYTES)
        leg = Leg(Blame.CARRIER, stream, framing, binary_allowed=True, outbox_bytes=2 * MESSAGE_BYTES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, leg)
            await _answer(leg)
            nursery.cancel_scope.cancel()
        await leg.close()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def _write(leg: Leg) -> None:
    try:
        await leg.write()
    except LegClosed:
        pass


async def _answer(leg: Leg) -> None:
    try:
        while True:
            message = await leg.receive()
            if leg.last_opcode is Opcode.TEXT:
                leg.send(message)
            else:
                leg.send_binary(message)
    except LegClosed:
        pass


async def run_suite(command: list[str], environment: dict[str, str], folder: Path) -> dict[str, Any]:
    """Run the fuzzing client against the echo server; the suite's own index of results."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        spec = {
            "outdir": str(folder / "reports"),
            "servers": [{"agent": "relay", "url": f"ws://127.0.0.1:{port}"}],
            "cases": CASES,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (folder / "fuzzingclient.json").write_text(json.dumps(spec))
        with trio.fail_after(RUN_SECONDS):
            await trio.run_process(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
        nursery.cancel_scope.cancel()
    results: dict[str, Any] = json.loads((folder / "reports" / "index.json").read_text())["relay"]
    return results


def main() -> int:
    """Install, run, report."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PYTHON27", "python2.7")
    python = shutil.which(given)
    if python is None:
        sys.stderr.write(NO_PYTHON.format(given=given) + "\n")
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        suite = (
            Path(os.environ["AUTOBAHN_SUITE"]) if "AUTOBAHN_SUITE" in os.environ else _install(python, folder)
        )
        start = (
            "import sys; from autobahntestsuite import wstest; sys.argv[0] = 'wstest'; sys.exit(wstest.run())"
        )
        command = [python, "-c", start, "-m", "fuzzingclient", "-s", "fuzzingclient.json"]
        results = trio.run(run_suite, command, {**os.environ, "PYTHONPATH": str(suite)}, folder)
    return _report(results)


def _install(python: str, folder: Path) -> Path:
    suite = folder / "suite"
    pip = [
        python,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "install",
        "--target",
        str(suite),
        SUITE,
    ]
    subprocess.run(pip, check=True)
    (suite / "zope" / "__init__.py").touch()  # a namespace package, which --target leaves without one
    return suite


def _report(results: dict[str, Any]) -> int:
    failed = False
    counts: dict[str, int] = {}
    for case, result in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        words = {result["behavior"], result["behaviorClose"]}
        counts[result["behavior"]] = counts.get(result["behavior"], 0) + 1
        if not words <= PASSES:
            failed = True
        if words - {"OK"}:
            sys.stdout.write(f"{case}: {result['behavior']}, close {result['behaviorClose']}\n")
    sys.stdout.write(
        f"{len(results)} cases: {', '.join(f'{n} {word}' for word, n in sorted(counts.items()))}\n"
    )
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
