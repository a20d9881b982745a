"""A release is made of what it says, and of a tree that is fit for one."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from relay import __version__

TOP: Final = Path(__file__).parent.parent
SCRIPTS: Final = TOP / "scripts"

CHANGELOG: Final = """# Changelog

## Unreleased

## 1.2.3 - 2026-03-10

- Calls are placed.

## 1.2.2 - 2026-03-09

- Earlier.
"""


def run(program: str, *words: str, folder: Path = TOP) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / program), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


# ---- what it is made of ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bom() -> Any:
    return json.loads(run("sbom.py").stdout)


def pinned(name: str) -> set[tuple[str, str]]:
    """Names and versions, read in the simplest way there is."""
    lines = TOP.joinpath("requirements", f"{name}.txt").read_text("utf-8").splitlines()
    pins = [line.split(" ")[0].split("==") for line in lines if "==" in line and not line.startswith(" ")]
    return {(re.sub(r"\[.*", "", package), version) for package, version in pins}


def test_the_bill_names_every_package_that_is_shipped_and_no_other(bom: Any) -> None:
    listed = {(each["name"], each["version"]) for each in bom["components"]}
    assert listed == pinned("runtime") | pinned("tracing")
    assert len(bom["components"]) == len(listed) > 40
    required = {(each["name"], each["version"]) for each in bom["components"] if each["scope"] == "required"}
    assert required == pinned("runtime")


def test_the_bill_has_the_form_that_its_readers_know(bom: Any) -> None:
    assert (bom["bomFormat"], bom["specVersion"], bom["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", bom["serialNumber"])
    refs = {each["bom-ref"] for each in bom["components"]}
    for each in bom["components"]:
        assert each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}"
        assert all(re.fullmatch("[0-9a-f]{64}", digest["content"]) for digest in each["hashes"])
        assert each["hashes"]
    (relay,) = bom["dependencies"]
    assert relay["ref"] == bom["metadata"]["component"]["bom-ref"]
    assert set(relay["dependsOn"]) <= refs
    assert any(ref.startswith("pkg:pypi/trio@") for ref in relay["dependsOn"])


def test_the_same_pins_give_the_same_bill(bom: Any) -> None:
    assert json.loads(run("sbom.py").stdout) == bom


# ---- a tree that is fit for a release ----------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout of something with a version and a changelog, all of it committed."""
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "__init__.py").write_text('__version__ = "1.2.3"\n', "utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, "utf-8")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(tree: Path, *words: str) -> None:
    who = ["-c", "user.name=Relay", "-c", "user.email=relay@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], cwd=tree, check=True, capture_output=True)


def commit(tree: Path) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "As it is")


def test_a_dry_run_says_what_would_be_released_and_builds_nothing(tree: Path) -> None:
    done = run("release.py", "--dry-run", folder=tree)
    assert (done.returncode, done.stderr) == (0, "")
    first, *files = done.stdout.splitlines()
    assert re.fullmatch(r"1\.2\.3 at [0-9a-f]{12} can be released as", first)
    assert [re.sub("(linux|cp3).*?(.whl)?$", r"\1…\2", name) for name in files] == [
        "relay-1.2.3-cp3….whl",
        "relay-1.2.3-linux…",
        "relay-1.2.3.cdx.json",
        "relay-1.2.3.md",
        "relay-1.2.3.sha256",
    ]
    assert not (tree / "dist").exists()


@pytest.mark.parametrize(
    ("path", "text", "is_committed", "complaint"),
    [
        ("relay/stray.py", "", False, "not committed: relay/stray.py"),
        ("relay/__init__.py", '__version__ = "1.2"\n', True, "1.2 is no semantic version"),
        ("relay/__init__.py", '__version__ = "1.2.4"\n', True, "no section '## 1.2.4"),
        ("CHANGELOG.md", "## 1.2.3 - 2026-03-10\n\n### Added\n", True, "says nothing"),
    ],
)
def test_what_is_not_as_it_must_be_is_named_and_nothing_is_built(
    tree: Path, path: str, text: str, is_committed: bool, complaint: str
) -> None:
    (tree / path).write_text(text, "utf-8")
    if is_committed:
        commit(tree)
    done = run("release.py", folder=tree)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert not (tree / "dist").exists()


def test_a_version_is_released_once(tree: Path) -> None:
    git(tree, "tag", "v1.2.3")
    done = run("release.py", "--dry-run", folder=tree)
    assert done.returncode == 1
    assert "v1.2.3 is released already" in done.stderr


def test_the_version_is_semantic_and_its_changes_have_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    semver = importlib.import_module("release").SEMVER
    assert semver.fullmatch(__version__)
    assert re.search(r"^## Unreleased$", TOP.joinpath("CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
