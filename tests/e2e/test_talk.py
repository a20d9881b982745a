"""`relay talk`: an agent in a terminal, without a telephone, a database or an account."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relay import talk as talks
from relay.cli import run
from relay.cli import talks as command
from relay.settings import load_settings
from relay.simulator.scenario import shipped_scenario
from tests.e2e.scenes import AGENTS

PACKAGE = Path(__file__).parents[2]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """`relay talk` in a folder of its own, with nothing set but the agents of these tests."""
    return subprocess.Popen(
        [sys.executable, "-m", "relay", "talk", *words],
        cwd=folder,
        env={"PATH": os.defpath, "PYTHONPATH": str(PACKAGE), "RELAY_AGENTS_DIR": str(AGENTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def talk(folder: Path, *lines: str) -> str:
    """What was shown of a talk that went well."""
    process = start(folder)
    shown, complaints = process.communicate("".join(f"{line}\n" for line in lines), timeout=110)
    assert (process.returncode, complaints) == (0, "")
    assert list(folder.iterdir()) == []  # no database, no log, no sound
    return shown


def test_an_agent_is_talked_to_through_a_pipe_and_its_tools_are_seen(tmp_path: Path) -> None:
    shown = talk(tmp_path, "Yes, go ahead.", "Tuesday?", "Ten is fine.", "That is all.")

    said = [line.removeprefix("     you  ") for line in shown.splitlines() if line.startswith("     you")]
    assert said == ["Yes, go ahead.", "Tuesday?", "Ten is fine.", "That is all."]
    assert "tool  book_appointment {'day': 'Tuesday', 'time': '10:00'}" in shown
    assert '"confirmation_number"' in shown  # of a calendar that is gone with the talk
    assert shown.splitlines()[-1].strip() == "goodbye (blame: nobody)"
    assert "understood" not in shown  # every line arrived as it was typed
    assert "would not have taken" not in shown


def test_who_opts_out_in_words_is_let_go(tmp_path: Path) -> None:
    shown = talk(tmp_path, "Please stop calling me.", "And another thing.")

    assert "opted out by words" in shown
    assert shown.splitlines()[-1].strip() == "opted-out (blame: callee) words"
    assert "another thing" not in shown


def test_a_key_is_pressed_and_not_said(tmp_path: Path) -> None:
    assert "opted out by key" in talk(tmp_path, "/press 9")


def test_an_agent_that_is_stored_at_the_vendor_can_be_talked_to(tmp_path: Path) -> None:
    process = start(tmp_path, "stored", "--var", "business=Acme")
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "carrier  This is an automated call of Acme." in shown
    assert f"agent  {talks.STORED['greeting']}" in shown


def test_ctrl_c_hangs_up_at_once(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    assert "emulated" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    shown, complaints = process.communicate(timeout=20)

    assert (process.returncode, complaints) == (0, "")
    assert "hung-up (blame: callee)" in shown


def test_the_talk_has_an_end_though_nobody_ends_it(tmp_path: Path) -> None:
    process = start(tmp_path, "--time-limit", "6")
    assert process.stdout is not None
    shown = process.stdout.read()  # while its stdin stays open
    assert process.wait(timeout=20) == 0
    assert "time-limit (blame: us)" in shown
    process.communicate()


def test_an_agent_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    process = start(tmp_path, "nobody")
    _, complaints = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "relay agents list" in complaints


async def test_with_a_key_the_agent_at_the_address_is_talked_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with talks.emulate(shipped_scenario("appointment"), {}) as (_, url):
        settings = load_settings(
            {
                "ASSEMBLYAI_API_KEY": talks.EMULATED_KEY,
                "ASSEMBLYAI_WS_URL": url,
                "RELAY_AGENTS_DIR": str(AGENTS),
            }
        )
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        assert await command._talk(settings, "default", {"business": "Acme"}, 60, emulated=False) == 0
    shown = capsys.readouterr().out
    assert url in shown.replace("\n", "")
    assert "automated" in shown
    assert "hung-up (blame: callee)" in shown


def test_without_a_voice_for_the_lines_the_real_agent_is_not_dialled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "a-key")
    monkeypatch.setattr(command, "_has_speech", lambda: False)

    assert run(["talk"]) == 1
    assert "relay[speech]" in capsys.readouterr().err
