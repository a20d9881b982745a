"""What `relay agents show` prints the vendor takes, by a check that knows the vendor's words alone."""

from __future__ import annotations

import ast
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from relay.cli import app, run
from relay.settings import Settings
from tests import session_schema
from tests.session_schema import faults

VARIABLES = {
    "business": "Lakeside Dental",
    "name": "Priya Raman",
    "amount": "120 dollars",
    "due": "the third of March",
    "offer": "a new roof",
}
SHIPPED = sorted(path.stem for path in (Path(__file__).parents[1] / "relay" / "agents").glob("*.toml"))
EVERYTHING = """
purpose = "informational"
disclosure = "Hello, this is the automated assistant of {{business}}."
greeting = "Do you have a minute?"
system_prompt = "You work for {{business}}: {{notes}}"
voice = "alba"
volume = 80
language = "de-DE"
voice_focus = "near-field"
keyterms = ["Acme", "SKU-12"]
transcription_mode = "min_latency"
tools = ["book_appointment", "end_call", "mark_do_not_call", "change_day"]
tools_file = "own.py"

[turn_detection]
vad_threshold = 0.6
min_silence = 800
max_silence = 2000
interrupt_response = false
interruption_delay = 300

[[http_tools]]
name = "parcel_state"
description = "Where a parcel is."
url = "https://crm.example.com/parcels/{parcel}"

[http_tools.parameters.parcel]
description = "the parcel's number"
enum = ["1", "2"]
"""
OWN = '''
from typing import Annotated, Literal

from pydantic import Field

from relay.tools.functions import tool


@tool
def change_day(day: Annotated[str, Field(max_length=20)], hour: int | None = None, how: Literal["a"] = "a"):
    """Have it brought on another day."""
    return day
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without `.env`, and no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], name: str, **variables: str) -> dict[str, Any]:
    words = [word for pair in (VARIABLES | variables).items() for word in ("--var", "=".join(pair))]
    assert app(["agents", "show", name, *words], result_action="return_value") == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


@pytest.mark.parametrize("name", SHIPPED)
def test_the_vendor_takes_every_agent_that_ships(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faults(shown(capsys, name)) == []


@pytest.mark.parametrize(
    "value", ["x" * 200, 'He said "no", \\ and </script>', "{{business}}", "a\u202eb\nc", "…"]
)
def test_the_vendor_takes_an_agent_with_every_key_whatever_its_variables_say(
    value: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_TOOL_HOSTS", "crm.example.com")
    (folder / "agents").mkdir()
    (folder / "agents" / "own.toml").write_text(EVERYTHING)
    (folder / "agents" / "own.py").write_text(OWN)
    update = shown(capsys, "own", notes=value)

    assert faults(update) == []
    assert update["session"]["input"].keys() - {"type", "format"} == {
        *("keyterms", "transcription_mode", "language_codes", "voice_focus", "turn_detection"),
    }
    assert [tool["name"] for tool in update["session"]["tools"]][-1] == "parcel_state"


def test_the_vendor_takes_a_stored_agent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "agents").mkdir()
    (folder / "agents" / "own.toml").write_text(
        'purpose = "informational"\ndisclosure_mode = "carrier"\n'
        'disclosure = "Hello, this is the automated assistant of Acme."\nagent_id = "agent_1"\n'
    )
    update = shown(capsys, "own")

    assert update == {"type": "session.update", "session": {"agent_id": "agent_1"}}
    assert faults(update) == []


def test_a_missing_value_is_asked_for_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["agents", "show", "collections"], result_action="return_value") == 1
    assert "needs a value for: amount, business, due, name" in capsys.readouterr().err
    assert app(["agents", "show", "default", "--var", "business"], result_action="return_value") == 2
    assert "--var business: must be KEY=VALUE" in capsys.readouterr().err


def test_every_file_is_read_and_what_is_wrong_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agents", "validate", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (sorted(told["agents"]), told["problems"]) == (SHIPPED, [])

    (folder / "agents").mkdir()
    (folder / "agents" / "own.toml").write_text(EVERYTHING.replace("volume", "loudness"))
    assert run(["agents", "validate"]) == 2
    said = "agents/own.toml: loudness: there is no such key"
    assert said in capsys.readouterr().err
    assert run(["agents", "validate", "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert said in problem


# ---- the check itself ------------------------------------------------------------------------------------

SOUND = {"type": "audio", "format": {"encoding": "audio/pcmu"}}
TOOL = {
    "type": "function",
    "name": "x",
    "description": "x",
    "parameters": {"type": "object", "properties": {}},
}
GOOD = {
    "type": "session.update",
    "session": {"system_prompt": "x", "greeting": "x", "input": SOUND, "output": SOUND, "tools": [TOOL]},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    message: Any = deepcopy(GOOD)
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    within = message
    for step in way:
        within = within[step]
    within[last] = value
    assert isinstance(message, dict)
    return message


def test_the_check_knows_no_code_of_the_relays() -> None:
    tree = ast.parse(Path(session_schema.__file__).read_text())
    names = [
        node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not [name for name in names if name.startswith(("relay", "tests"))]
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("type", "session.resume"),
        ("extra", 1),
        ("session", []),
        ("session.llm", {}),
        ("session.agent_id", "agent_1"),
        ("session.greeting", None),
        ("session.greeting", ""),
        ("session.system_prompt", 1),
        ("session.system_prompt", "\ud800"),
        ("session.input", {"type": "audio"}),
        ("session.input.format.encoding", "audio/pcm"),
        ("session.input.format.sample_rate", 8000),
        ("session.input.keyterms", ["x" * 51]),
        ("session.input.keyterms", ["x"] * 101),
        ("session.input.language_codes", "de"),
        ("session.input.transcription_mode", "fast"),
        ("session.input.turn_detection", {"vad_threshold": float("nan")}),
        ("session.input.turn_detection", {"vad_threshold": True}),
        ("session.input.turn_detection", {"min_silence": 0.5}),
        ("session.input.turn_detection", {"interruption_delay": 1001}),
        ("session.input.turn_detection", None),
        ("session.output.voice", "ivy"),
        ("session.output.volume", 101),
        ("session.output.speed", 1),
        ("session.tools", [TOOL, TOOL]),
        ("session.tools.0.parameters", {"type": "object", "properties": []}),
        ("session.tools.0.parameters", {"type": "object", "properties": {}, "required": ["x"]}),
        ("session.tools.0.timeout_seconds", 301),
        ("session.tools.0.http", {}),
        ("session.tools.0.function", {}),
    ],
)
def test_the_check_finds_what_the_vendor_refuses(path: str, value: Any) -> None:
    assert faults(changed(path, value)) != []
