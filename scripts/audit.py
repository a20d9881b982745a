"""Looks the pinned packages up in the list of known vulnerabilities: `python scripts/audit.py FILE…`.

Exit status 1 for a known vulnerability, and for a package that could not be looked up while others could.
Where the list cannot be reached at all nothing is known: that is said in so many words, and is no failure of
the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 120  # for one file; each package is one request


def look_up(file: str) -> list[dict[str, Any]] | None:
    """What pip-audit found of each package of a file; None when it reached nothing."""
    audit = [str(Path(sys.executable).with_name("pip-audit")), "--disable-pip", "--require-hashes"]
    command = [*audit, "--progress-spinner", "off", "--format", "json", "--requirement", file]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return list(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return None


def main(files: list[str]) -> int:
    """Look up each file, and say what was found."""
    status = 0
    for file in files:
        packages = look_up(file)
        known = [each for each in packages or [] if "vulns" in each]
        if packages is None or not known:
            print(f"{file}: NOT AUDITED. The list of vulnerabilities cannot be reached from here.")
            continue
        for each in packages:
            if "vulns" not in each:
                print(
                    f"{file}: {each['name']} was not looked up: {each.get('skip_reason', 'no reason given')}"
                )
                status = 1
            for found in each.get("vulns", ()):
                mended = ", ".join(found["fix_versions"]) or "no version yet"
                print(f"{file}: {each['name']} {each['version']}: {found['id']}, mended in {mended}")
                status = 1
        print(f"{file}: {len(known)} packages looked up")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
