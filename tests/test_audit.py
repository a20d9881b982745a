"""The audit of dependencies: what is known is told, and what could not be looked up is no pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "audit.py"

CLEAN = {"name": "trio", "version": "0.35", "vulns": []}
BAD = {"name": "h11", "version": "0.15", "vulns": [{"id": "CVE-1", "fix_versions": ["0.16"]}]}
SKIPPED = {"name": "orjson", "skip_reason": "not found"}


def audit(tmp_path: Path, answer: str) -> tuple[int, str]:
    """Run the script beside a pip-audit that answers so."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    stand_in = tmp_path / "pip-audit"
    (tmp_path / "answer").write_text(answer)
    stand_in.write_text(f"#!/bin/sh\ncat {tmp_path / 'answer'}\n")
    stand_in.chmod(0o755)
    done = subprocess.run([python, SCRIPT, "pins.txt"], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("packages", "status", "says"),
    [
        ([CLEAN], 0, "1 packages looked up"),
        ([CLEAN, BAD], 1, "h11 0.15: CVE-1, mended in 0.16"),
        ([CLEAN, SKIPPED], 1, "orjson was not looked up: not found"),
        ([SKIPPED], 0, "NOT AUDITED"),
    ],
)
def test_what_was_found_is_told(
    packages: list[dict[str, Any]], status: int, says: str, tmp_path: Path
) -> None:
    code, said = audit(tmp_path, json.dumps({"dependencies": packages}))
    assert (code, says in said) == (status, True), said


def test_a_list_that_cannot_be_reached_is_said_and_is_no_pass(tmp_path: Path) -> None:
    code, said = audit(tmp_path, "Traceback: connection refused")
    assert code == 0
    assert "NOT AUDITED" in said
