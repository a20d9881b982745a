"""The wheel, in an environment with the pinned packages and nothing else: all that is read is in it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from relay import __version__

TOP: Final = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.needs_wheel, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def wheel() -> Path:
    (found,) = (TOP / "dist").glob("relay-*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Iterator[Path]:
    """A virtual environment in an empty folder, with the wheel and its pinned packages."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        pip: list[str | Path] = [
            folder / "venv" / "bin" / "python",
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
        ]
        pins = TOP / "requirements" / "runtime.txt"
        subprocess.run([*pip, "install", "--require-hashes", "-r", pins], check=True)
        subprocess.run([*pip, "install", "--no-index", "--no-deps", wheel], check=True)
        subprocess.run([*pip, "check"], check=True)  # the pins are what the wheel asks for
        yield folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The installed program, with an empty environment."""
    return subprocess.run(
        [folder / "venv" / "bin" / "relay", *words],
        env={},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def test_it_holds_every_file_of_the_package(wheel: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "relay"], cwd=TOP, capture_output=True, text=True, check=True)
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert set(listed.stdout.splitlines()) - packed == set()
    assert f"relay-{__version__}.dist-info/licenses/LICENSE" in packed
    assert "relay/COMMIT" in packed
    assert [name for name in packed if name.startswith("relay/_straight.") and name.endswith(".so")]


def test_it_says_its_version_and_commit(environment: Path) -> None:
    done = run(environment, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"relay {__version__} (")


def test_it_plays_a_whole_call(environment: Path) -> None:
    done = run(environment, "demo", "--scenario", "short-goodbye", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ending"] == {"blame": "nobody", "reason": "goodbye"}


def test_traces_that_are_wanted_name_the_extra_that_is_not_there(environment: Path) -> None:
    program = (
        "from relay.telemetry.traces import open_traces\nwith open_traces('http://127.0.0.1:9', '1'): pass"
    )
    python = environment / "venv" / "bin" / "python"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "relay[tracing]" in done.stderr
