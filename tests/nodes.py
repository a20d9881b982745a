"""Several nodes with one ledger: what they have in common, and what must be true of all their calls.

Must not know how many there are, nor what becomes of them.
"""

from __future__ import annotations

from typing import Final

from relay.rehearsal import Performance, Stage
from tests.e2e.scenes import AGENTS

# Every call ends in one of these ways: on a busy machine a scripted person and a scripted agent may wait for
# each other to speak, and the person hangs up then.
WHOLE: Final = {("nobody", "goodbye"), ("callee", "hung-up")}
TURNS: Final = [{"say": "Yes?", "pause_seconds": 0.2}, {"say": "Thank you.", "pause_seconds": 0.2}]
CALLEE: Final = {"leave_after_seconds": 8.0, "turn": TURNS}


def settings(front: int, database_url: str) -> dict[str, str]:
    """What all nodes have in common."""
    return {
        "PUBLIC_URL": f"http://127.0.0.1:{front}",
        "RELAY_DATABASE_URL": database_url,
        "RELAY_SUBJECT_KEY": "k" * 64,
        "RELAY_AGENTS_DIR": str(AGENTS),
        "RELAY_DRAIN_SECONDS": "90",
    }


async def check(stage: Stage, played: list[Performance], told_by_all: tuple[str, ...]) -> None:
    """One order, one record and one intact diary for each call, and nothing of ours still up."""
    refused = [performance.answer for performance in played if "id" not in performance.answer]
    assert refused == [], refused
    assert len({performance.record["id"] for performance in played}) == len(played)
    assert len(stage.carrier.calls) == len(played)
    assert [call.sid for call in stage.carrier.calls.values() if not call.is_over] == []
    for performance in played:
        assert len(performance.ledger.select("phone", "received", "create")) == 1
        told = [event["event"] for event in performance.record["events"]]
        for event in told_by_all:
            assert event in told, (performance.scenario.title, event, told)
        word = await stage.http.get(f"/v1/calls/{performance.record['id']}/verification")
        assert word.json()["integrity"] == "intact"
