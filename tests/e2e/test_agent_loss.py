"""The agent dies in the middle of a call: the person hears why there is a pause, and then the agent again."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from relay.clips import shipped
from relay.rehearsal import Performance
from tests.e2e.scenes import ending, quiet_stage, scene

CLIPS = {"bridge": shipped().bridge, "apology": shipped().apology}


def heard(performance: Performance) -> list[str]:
    """The relay's own sentences that the phone was given whole, in order."""
    sound = b"".join(
        b64decode(e.payload or "") for e in performance.ledger.select("phone", "received", "media")
    )
    found = {sound.find(clip): name for name, clip in CLIPS.items() if clip in sound}
    return [found[at] for at in sorted(found)]


@pytest.mark.parametrize("resumes", [True, False])
async def test_an_agent_that_is_killed_in_mid_speech_is_heard_again_behind_the_bridge(
    resumes: bool, tmp_path: Path
) -> None:
    agent: dict[str, Any] = {
        "commit_seconds": 0.3,
        "resumes": resumes,
        "turn": [
            {"reply": "Your appointment is on Monday.", "fault": "rst"},
            {"tool": {"name": "end_call"}, "reply": "Goodbye now."},
        ],
    }
    # Long enough a pause for the agent to be back: what is said to nobody is lost, as on any broken line.
    turns = [{"say": "Yes?", "pause_seconds": 0.2}, {"say": "Thank you.", "pause_seconds": 2.5}]
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("killed", agent=agent, callee={"turn": turns}))
        assert ending(performance) == ("nobody", "goodbye")
        assert performance.ledger.violations == []
        assert heard(performance) == ["bridge"]
        events = [event["event"] for event in performance.record["events"]]
        assert events.count("session ready") == 2
        asked = performance.ledger.select("agent", "received", "session.resume")
        assert len(asked) == 1
        fresh = performance.ledger.select("agent", "received", "session.update")
        assert len(fresh) == (1 if resumes else 2)


async def test_an_agent_that_is_gone_for_good_is_apologised_for_and_the_line_is_closed(
    tmp_path: Path,
) -> None:
    faults = [
        {"leg": "agent", "at": "mid-speech", "kind": "close:1012"},
        {"leg": "agent", "at": "before-ready", "kind": "close:1011", "times": 10},
    ]
    agent: dict[str, Any] = {"commit_seconds": 0.3, "resumes": False, "turn": [{"reply": "On Monday."}]}
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("gone", agent=agent, fault=faults))
        assert ending(performance) == ("agent", "lost")
        assert heard(performance) == ["apology"]
        assert performance.ledger.select("phone", "noted", "say") == []
        assert performance.call is not None
        assert performance.call.is_over
