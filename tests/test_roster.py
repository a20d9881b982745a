"""The agents of a node: read at start, whole or not at all, and again where a file has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from relay import clips
from relay.placing import Agent
from relay.roster import Roster
from relay.settings import ConfigurationError, load_settings

FILE = """
purpose = "informational"
disclosure = "Hello, I am a machine that calls."
system_prompt = "Be kind."
"""
TOOL = '''
from relay.tools.functions import tool


@tool
def look_up(day: str) -> str:
    """Look something up."""
    return "{answer}"
'''
SOUND = b"\x31" * 8000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "night.toml", FILE)
    return tmp_path


def write(file: Path, content: str | bytes) -> None:
    """As an editor does, at another time than before."""
    stamp = file.stat().st_mtime_ns + 1_000_000 if file.exists() else None
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    if stamp is not None:
        os.utime(file, ns=(stamp, stamp))


def roster_of(folder: Path) -> Roster:
    return Roster(load_settings({"RELAY_AGENTS_DIR": str(folder)}))


def night(roster: Roster) -> Agent:
    agent = roster.get("night")
    assert agent is not None
    return agent


async def test_a_change_is_taken_by_the_next_call_and_the_rest_stays_what_it_was(folder: Path) -> None:
    roster = roster_of(folder)
    before, default = night(roster), roster.get("default")
    write(folder / "night.toml", FILE.replace("kind", "brief"))
    await roster.refresh()

    assert before.profile.system_prompt == "Be kind."
    assert night(roster).profile.system_prompt == "Be brief."
    assert night(roster).content != before.content
    assert roster.get("default") is default


async def test_what_has_not_changed_is_not_read_again(folder: Path) -> None:
    roster = roster_of(folder)
    before = roster.agents
    await roster.refresh()

    assert roster.agents is before


async def test_agents_come_and_go_with_their_files(folder: Path) -> None:
    roster = roster_of(folder)
    write(folder / "day.toml", FILE)
    (folder / "night.toml").unlink()
    await roster.refresh()

    assert roster.get("night") is None
    assert roster.get("day") is not None


async def test_a_file_over_a_shipped_agent_gives_it_back_when_it_goes(folder: Path) -> None:
    roster = roster_of(folder)
    shipped = roster.get("default")
    write(folder / "default.toml", FILE)
    await roster.refresh()
    assert roster.get("default") != shipped
    (folder / "default.toml").unlink()
    await roster.refresh()

    assert roster.get("default") == shipped


async def test_a_mistake_is_not_taken_and_told_once(folder: Path) -> None:
    roster = roster_of(folder)
    before = night(roster)
    write(folder / "night.toml", FILE.replace("system_prompt", "sistem_prompt"))
    with capture_logs() as lines:
        await roster.refresh()
        await roster.refresh()

    assert night(roster) is before
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert line["event"] == "agent not taken"
    assert "night.toml: sistem_prompt: there is no such key; did you mean system_prompt?" in line["problem"]

    write(folder / "night.toml", FILE.replace("kind", "brief"))
    await roster.refresh()
    assert night(roster).profile.system_prompt == "Be brief."


async def test_a_tool_that_was_changed_is_another_one(folder: Path) -> None:
    write(folder / "night.py", TOOL.replace("{answer}", "old"))
    write(folder / "night.toml", FILE + 'tools = ["look_up"]\ntools_file = "night.py"\n')
    roster = roster_of(folder)
    before = night(roster)
    write(folder / "night.py", TOOL.replace("{answer}", "new"))
    await roster.refresh()

    assert night(roster).content != before.content
    assert night(roster).tools != before.tools


# ---- sounds ----------------------------------------------------------------------------------------------


async def test_an_agent_may_have_sounds_of_its_own(folder: Path) -> None:
    write(folder / "filler.ulaw", SOUND)
    write(folder / "night.toml", FILE + '[clips]\nfiller = "filler.ulaw"\n')
    roster = roster_of(folder)
    assert night(roster).clips.filler == SOUND
    assert night(roster).clips.apology == clips.shipped().apology

    write(folder / "filler.ulaw", SOUND[:4000])
    await roster.refresh()
    assert night(roster).clips.filler == SOUND[:4000]


@pytest.mark.parametrize(
    ("clip", "sound", "says"),
    [
        ("filler", b"RIFF" + SOUND, "filler: is no μ-law of 8 kHz without a header; `ffmpeg"),
        ("filler", b"", "filler: is no μ-law"),
        ("still-there", SOUND * 11, "still-there: lasts longer than 10 s"),
        ("opted-out", SOUND * 5, "opted-out: lasts longer than 4 s"),
        ("apology", None, "No such file"),
        ("good-bye", SOUND, "clips.good-bye"),
    ],
)
def test_a_sound_that_cannot_be_played_is_refused(
    folder: Path, clip: str, sound: bytes | None, says: str
) -> None:
    if sound is not None:
        write(folder / "own.ulaw", sound)
    write(folder / "night.toml", FILE + f'[clips]\n{clip} = "own.ulaw"\n')
    with pytest.raises(ConfigurationError, match=says) as refused:
        roster_of(folder)
    assert "night.toml" in str(refused.value)


# ---- at start --------------------------------------------------------------------------------------------


def test_every_file_with_a_mistake_is_named_at_once(folder: Path) -> None:
    write(folder / "day.toml", FILE + "volume = 101\n")
    write(folder / "dawn.toml", b"\xff")
    with pytest.raises(ConfigurationError) as refused:
        roster_of(folder)
    first, second = sorted(refused.value.problems)
    assert "dawn.toml" in first
    assert "day.toml: volume: must be less than or equal to 100" in second


async def test_a_disk_that_hangs_keeps_no_call_from_being_placed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roster = roster_of(folder)
    freed = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def hang(*_: object) -> None:
        trio.from_thread.run(freed.wait, trio_token=token)

    monkeypatch.setattr(roster, "_changed", hang)
    monkeypatch.setattr("relay.roster.REFRESH_SECONDS", 0.05)
    with capture_logs() as lines:
        await roster.refresh()
    assert [line["event"] for line in lines] == ["agents not looked at"]
    assert roster.get("night") is not None
    freed.set()
