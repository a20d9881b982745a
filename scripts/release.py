"""A release, from a tree that is fit for one: `python scripts/release.py [--dry-run]`, run in the checkout.

Looks first: nothing uncommitted, a semantic version that has no tag yet, and a dated section of the changelog
that says something. Then builds wheel, single file, SBOM, changes and checksums into dist/release/. It tags
and publishes nothing: it prints how. Exit status 1 with a line for each thing that is not as it must be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import sbom

# semver.org, without build metadata: what stands behind a plus sign orders nothing.
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?")


def git(top: Path, *words: str) -> str:
    """What git says, without its line end."""
    return subprocess.run(["git", *words], cwd=top, capture_output=True, text=True, check=True).stdout.strip()


def changes(top: Path, version: str) -> str | None:
    """The changelog's section of a version, `## 1.2.3 - 2026-03-10`; None without one."""
    text = (top / "CHANGELOG.md").read_text("utf-8")
    heading = rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$"
    found = re.search(rf"{heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else None


def problems(top: Path, version: str) -> Iterator[str]:
    """What keeps this tree from being released, each with its remedy."""
    if dirty := git(top, "status", "--porcelain"):
        yield f"not committed: {', '.join(line[3:] for line in dirty.splitlines())}. Commit or remove it."
    if not SEMVER.fullmatch(version):
        yield f"{version} is no semantic version. Set __version__ in relay/__init__.py to MAJOR.MINOR.PATCH."
    if git(top, "tag", "--list", f"v{version}"):
        yield f"v{version} is released already. Raise __version__ in relay/__init__.py."
    section = changes(top, version)
    if section is None:
        yield f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD'. Move what is under Unreleased there."
    elif not re.search(r"^- ", section, re.MULTILINE):
        yield f"the section of {version} in CHANGELOG.md says nothing."


def names(version: str) -> dict[str, str]:
    """What is released, and the name of each file: the wheel has a compiled part, so it is this Python's."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return {
        "wheel": f"relay-{version}-{python}-{python}-{sysconfig.get_platform().replace('-', '_')}.whl",
        "binary": f"relay-{version}-linux-{platform.machine()}",
        "sbom": f"relay-{version}.cdx.json",
        "changes": f"relay-{version}.md",
        "checksums": f"relay-{version}.sha256",
    }


def build(top: Path, version: str) -> Path:
    """Build everything and lay it side by side; returns the folder."""
    subprocess.run(["make", "wheel", "binary"], cwd=top, check=True)
    folder, named = top / "dist" / "release", names(version)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(top / "dist" / named["wheel"], folder)
    shutil.copy(top / "dist" / "relay", folder / named["binary"])
    (folder / named["sbom"]).write_text(json.dumps(sbom.document(version), indent=2) + "\n", "utf-8")
    (folder / named["changes"]).write_text(f"{changes(top, version)}\n", "utf-8")
    sums = [
        f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}" for each in sorted(folder.iterdir())
    ]
    (folder / named["checksums"]).write_text("\n".join(sums) + "\n", "utf-8")
    return folder


def main() -> int:
    """Look, build, and say what is left to do by hand."""
    parser = argparse.ArgumentParser(description="Build a release of Relay from a clean checkout.")
    parser.add_argument("--dry-run", action="store_true", help="look, and say what would be built")
    dry_run = parser.parse_args().dry_run
    top = Path.cwd()
    version = sbom.version_of(top)
    if found := list(problems(top, version)):
        for problem in found:
            print(f"release: {problem}", file=sys.stderr)
        return 1
    if dry_run:
        print(f"{version} at {git(top, 'rev-parse', '--short=12', 'HEAD')} can be released as")
        print("\n".join(names(version).values()))
        return 0
    folder = build(top, version)
    print("\n".join(str(each.relative_to(top)) for each in sorted(folder.iterdir())))
    print(f"Then: git tag --sign v{version} && git push origin v{version}, and publish these files with it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
