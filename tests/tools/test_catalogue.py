"""Which tools an agent gets: the example of the docs works as printed, and mistakes are named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from relay.outcomes import Refusal
from relay.roster import Roster, overrides
from relay.script import compose
from relay.settings import ConfigurationError, Settings, load_settings
from relay.tools import CallContext, Toolbox, definitions
from tests.session_schema import faults

DOCS = Path(__file__).parents[2] / "docs" / "agents.md"
ENVIRONMENT = {"RELAY_TOOL_HOSTS": "crm.example.com", "RELAY_TOOL_SECRET_NAME": "s3cret"}


def example(language: str) -> str:
    found: str = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)[0]
    return textwrap.dedent(found)


def settings(folder: Path, **changes: str) -> Settings:
    return load_settings({**ENVIRONMENT, "RELAY_AGENTS_DIR": str(folder), **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parcel.toml").write_text(example("toml"), "utf-8")
    (tmp_path / "parcel.py").write_text(example("python"), "utf-8")
    return tmp_path


def test_the_commands_of_the_docs_work(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    here = tmp_path_factory.mktemp("here")
    folder.rename(here / "agents")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-e", "-c", example("sh")],
        cwd=here,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    summary, update = done.stdout.split("\n", 1)
    assert "agents are fine" in summary
    assert "parcel" in summary
    assert faults(json.loads(update)) == []
    assert "Zenith Parcels" in json.loads(update)["session"]["greeting"]


async def test_the_example_of_the_docs_works(folder: Path) -> None:
    ours = settings(folder)
    roster = Roster(ours)
    tools = roster.agents["parcel"].tools
    assert [each.name for each in tools] == ["change_day", "end_call", "mark_do_not_call", "parcel_state"]
    session = compose(roster.agents["parcel"].profile, overrides(ours), {}, definitions(tools))
    assert not isinstance(session, Refusal)
    assert session["tools"][3]["parameters"]["properties"]["parcel"]["pattern"] == "^[0-9]{8}$"
    box = Toolbox(tools, CallContext("call_1", "+12025550143", {}))
    moved = await box.run("change_day", {"day": "Tuesday"}, "r1")
    assert moved.result == '{"number":"+12025550143","day":"Tuesday"}'
    assert (await box.run("change_day", {"day": "Sunday"}, "r2")).is_error
    await roster.web.aclose()


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('"end_call", ', '"hang_up", ', "parcel.toml: tools: there is no hang_up; there are .*end_call"),
        ('"parcel.py"', '"lost.py"', "parcel.toml: tools_file: .*lost.py: there is no such Python file"),
        ('"change_day", ', '"end_call", ', "parcel.toml: named twice: end_call"),
        ("crm.example.com", "evil.example.com", "evil.example.com is not in RELAY_TOOL_HOSTS"),
        ("SECRET_NAME}", "SECRET_LOST}", "set in the environment: RELAY_TOOL_SECRET_LOST"),
        ('pattern = "', 'patern = "', "patern"),
        ('"end_call", ', '"transfer_call", ', "parcel.toml: tools: transfer_call needs somebody"),
        ("[variables]", '[transfers]\nboss = "12"\n\n[variables]', "transfers.boss"),
        ("[variables]", '[transfers]\nboss = "+442079460000"\n\n[variables]', "transfers.boss: GB is not"),
        (
            "[variables]",
            '[transfers]\nboss = "+19005550123"\n\n[variables]',
            "transfers.boss: A premium-rate number",
        ),
    ],
)
def test_a_mistake_keeps_the_service_from_starting(folder: Path, before: str, after: str, says: str) -> None:
    text = (folder / "parcel.toml").read_text("utf-8")
    assert before in text
    (folder / "parcel.toml").write_text(text.replace(before, after), "utf-8")
    with pytest.raises(ConfigurationError, match=says):
        Roster(settings(folder))


def test_secrets_of_tools_are_kept_out_of_the_log(folder: Path) -> None:
    ours = settings(folder)
    assert "s3cret" in ours.secrets()
    assert "s3cret" not in repr(ours)
