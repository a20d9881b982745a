"""What all tests share: which of them this machine can run, and how hypothesis searches."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import hypothesis
import pytest

# No deadline: the machine may be shared. The same examples each time: a failure belongs to its change.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("house")


TOP: Final = Path(__file__).parents[1]
BINARY: Final = TOP / "dist" / "relay"


def _has_compiled() -> bool:
    from relay.straight import IS_COMPILED

    return IS_COMPILED


def _has_speech() -> bool:
    return importlib.util.find_spec("espeakng_loader") is not None


def _has_tracing() -> bool:
    return importlib.util.find_spec("opentelemetry") is not None


def _has_postgres() -> bool:
    # Debian keeps the server's programs off the path.
    return shutil.which("initdb") is not None or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def _has_program(name: str) -> bool:
    # Debian keeps servers off the path of ordinary users.
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") is not None


# marker: (whether this machine has it, what to install)
NEEDS: Final[dict[str, tuple[Callable[[], bool], str]]] = {
    "needs_linux": (lambda: sys.platform == "linux", "only Linux has its /proc and its socket options"),
    "needs_compiler": (_has_compiled, "apt-get install gcc python3-dev, then make .venv/.relay again"),
    "needs_speech": (_has_speech, "make .venv/.speech"),
    "needs_tracing": (_has_tracing, "make .venv/.dev"),
    "needs_outside_rig": (
        lambda: "RELAY_OUTSIDE_RIG" in os.environ,
        "RELAY_OUTSIDE_RIG=path of a program that plays carrier and agent",
    ),
    "needs_curl": (lambda: _has_program("curl"), "apt-get install curl"),
    "needs_gcc": (lambda: _has_program("gcc"), "apt-get install gcc"),
    "needs_openssl": (lambda: _has_program("openssl"), "apt-get install openssl"),
    "needs_haproxy": (lambda: _has_program("haproxy"), "apt-get install haproxy"),
    "needs_nginx": (lambda: _has_program("nginx"), "apt-get install nginx"),
    "needs_systemd": (lambda: _has_program("systemd-analyze"), "apt-get install systemd"),
    "needs_promtool": (lambda: _has_program("promtool"), "apt-get install prometheus"),
    "needs_venv": ((TOP / ".venv" / "bin" / "relay").exists, "make .venv/.relay"),
    "needs_binary": (BINARY.exists, "make binary"),
    "needs_wheel": (lambda: any(BINARY.parent.glob("relay-*.whl")), "make wheel"),
    "needs_postgres": (_has_postgres, "apt-get install postgresql"),
}

# Whole calls in real time, real databases, floods and searches: `make test-fast` leaves them out.
SLOW: Final = (
    "tests/compliance/",
    "tests/e2e/",
    "tests/matrix/",
    "tests/store/",
    "tests/web/test_advisories.py",
    "tests/web/test_books.py",
    "tests/web/test_edge.py",
    "tests/web/test_evidence.py",
    "tests/web/test_numbers.py",
    "tests/test_bench.py",
    "tests/test_check.py",
    "tests/test_cli.py",
    "tests/test_dial_campaign.py",
)

# They measure real time against a bound: another test beside them could make them fail.
SERIAL: Final = (
    "tests/test_bench.py",
    "tests/test_check.py",
    "tests/test_deploy.py",
    "tests/test_logs.py",
    "tests/test_probe.py",
    "tests/web/test_advisories.py",
    "tests/web/test_edge.py",
)

_LEFT_OUT: Final = pytest.StashKey[list[str]]()
_PURE: Final = Path(__file__).parent / "pure"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Both codecs must pass everything: which one is used is decided at import."""
    parser.addoption("--pure", action="store_true", help="as if the codec had not been compiled")


def pytest_configure(config: pytest.Config) -> None:
    """Comes before any test module, and so before the relay, is imported."""
    if config.getoption("pure"):
        sys.modules["relay._straight"] = None  # type: ignore[assignment]  # importing it fails then
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_PURE), os.environ.get("PYTHONPATH"))))


def _everything_must_run() -> bool:
    return os.environ.get("RELAY_TEST_ALL") == "1"


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A newcomer's machine leaves out what it lacks; with RELAY_TEST_ALL=1 that fails, but for --pure."""
    config.stash[_LEFT_OUT] = []
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if item.nodeid.startswith(SERIAL):
            item.add_marker(pytest.mark.serial)
        elif item.nodeid.startswith("tests/e2e/") and not item.get_closest_marker("serial"):
            item.add_marker(pytest.mark.waiting)
    for marker, (is_there, remedy) in NEEDS.items():
        needing = [item for item in items if item.get_closest_marker(marker)]
        if not needing or is_there():
            continue
        asked_for = marker == "needs_compiler" and config.getoption("pure")
        if _everything_must_run() and not asked_for:
            raise pytest.UsageError(
                f"{len(needing)} tests are marked {marker} and RELAY_TEST_ALL=1: {remedy}"
            )
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]
        config.stash[_LEFT_OUT].append(f"left out: {len(needing)} tests marked {marker} ({remedy})")


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """One line for each kind of test that was left out."""
    return config.stash[_LEFT_OUT]
