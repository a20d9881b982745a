"""A service that cannot start names the setting that is wrong, what is wrong with it, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from relay import service
from relay.outcomes import cause_of
from relay.settings import ConfigurationError, load_settings

SERVING = {
    "PUBLIC_URL": "http://127.0.0.1:1",
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": "token",
    "TWILIO_FROM_NUMBER": "+12025550100",
    "ASSEMBLYAI_API_KEY": "key",
    "RELAY_BIND": "127.0.0.1:0",
}


@pytest.mark.parametrize(
    ("name", "value", "wrong", "remedy"),
    [
        ("RELAY_DATA_DIR", "{here}/file", "File exists", "Name a folder"),
        ("RELAY_DATA_DIR", "{here}", "subject.key has 5 bytes", "bring it back from a copy"),
        ("RELAY_DATABASE_URL", "sqlite:///:memory:", "names no file", "sqlite:///relay.db"),
        ("RELAY_DATABASE_URL", "sqlite:///{here}/a/b.db", "a/b.db cannot be opened", "must be there"),
        ("RELAY_DATABASE_URL", "postgresql+psycopg://u:word@127.0.0.1:1/x", "refused", "See that it is up"),
        ("RELAY_BIND", "192.0.2.1:8080", "cannot listen there", "an address of this machine"),
        ("RELAY_RULES_DIR", "{here}/none", "no such folder", "make it"),
        ("RELAY_PRICES_FILE", "{here}/none", "cannot be read", "Name another file"),
    ],
)
async def test_a_start_that_fails_names_the_setting_and_the_remedy(
    name: str, value: str, wrong: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "subject.key").write_text("short", "utf-8")
    written = {"RELAY_DATA_DIR": f"{tmp_path}/data", "RELAY_DATABASE_URL": f"sqlite:///{tmp_path}/relay.db"}
    settings = load_settings(SERVING | written | {name: value.format(here=tmp_path)})
    with (
        trio.fail_after(20),
        pytest.RaisesGroup(ConfigurationError, allow_unwrapped=True, flatten_subgroups=True) as found,
    ):
        await service.serve(settings)
    (line,) = str(cause_of(found.value)).splitlines()
    assert line.startswith(f"{name}: ")
    assert wrong in line
    assert remedy in line
    assert "word" not in line
