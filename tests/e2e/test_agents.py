"""A change of an agent's file: the next call has it, a running one does not, and both records say which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from relay.rehearsal import Performance
from tests.e2e.scenes import AGENTS, ending, quiet_stage, scene


def greeting(performance: Performance) -> str:
    """What the agent was told to begin with."""
    (update, *_) = performance.ledger.select("agent", "received", "session.update")
    return str(json.loads(json.dumps(update.fields))["session"]["greeting"])


def files(performance: Performance) -> str:
    """The digest of the files of the agent that the call had."""
    (script,) = [event for event in performance.record["events"] if event["event"] == "script"]
    return str(script["files"])


# The emulated carrier's HTTP client leaves the body of a request that the stage's end cuts off half read.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx._content.ByteStream:ResourceWarning")
async def test_a_changed_file_counts_for_the_next_call_alone(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    shutil.copytree(AGENTS, folder)
    file = folder / "default.toml"
    changed = file.read_text().replace('"Hello?"', '"Good morning?"')

    edited: list[int] = []

    def edit(_: object) -> None:
        """While the telephone rings: the agent was not told of its call yet."""
        if not edited:
            edited.append(file.write_text(changed))

    async with quiet_stage(tmp_path, RELAY_AGENTS_DIR=str(folder)) as stage:
        before = await stage.play(scene("before"), on_entry=edit)
        after = await stage.play(scene("after"))
    assert [ending(each) for each in (before, after)] == [("nobody", "goodbye")] * 2
    assert greeting(before).endswith("Hello?")
    assert greeting(after).endswith("Good morning?")
    assert files(before) != files(after)
