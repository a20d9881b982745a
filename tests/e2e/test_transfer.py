"""Handing a call over on real sockets: whom the carrier dials, and who may say what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.outcomes import Blame, Ending, Reason
from relay.rehearsal import FROM_NUMBER, Performance
from relay.replay import read_capture, replay
from relay.simulator.scenario import Scenario
from tests.e2e.scenes import ending, quiet_stage, scene

DESK = "+12025550111"


def handed_over(title: str, *others: dict[str, Any]) -> Scenario:
    put_through = {
        "tool": {"name": "transfer_call", "arguments": {"to": "front desk"}},
        "reply": "I am putting you through.",
    }
    return scene(
        title,
        call={"agent": "switch"},
        callee={"turn": [{"say": "A person, please.", "pause_seconds": 0.2}]},
        agent={
            "commit_seconds": 0.3,
            "turn": [put_through, put_through],
            "told": [{"contains": "that failed", "reply": "Nobody is there."}],
        },
        other=others,
    )


def noted(performance: Performance, event: str) -> list[dict[str, Any]]:
    return [dict(each.fields) for each in performance.ledger.select("phone", "noted", event)]


async def test_somebody_answers_and_the_agent_is_billed_no_further(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(handed_over("answered", {"talk_seconds": 1.0}))
    assert ending(performance) == ("nobody", "transferred")
    assert performance.ledger.violations == []
    (dial,) = noted(performance, "dial")
    assert (dial["number"], dial["caller_id"]) == (DESK, FROM_NUMBER)
    (ended,) = performance.ledger.select("agent", "received", "session.end")
    (bridged,) = performance.ledger.select("phone", "noted", "bridged")
    assert ended.at < bridged.at
    assert DESK not in str(performance.record)
    legs = [cost for cost in performance.record["costs"] if cost["item"] == "twilio-voice"]
    assert [leg["amount"] for leg in legs] == ["0.0140", "0.0140"]
    assert legs[1]["seconds"] == 1.0
    assert performance.record["carrier_confirmed_at"]


@pytest.mark.parametrize("outcome", ["busy", "failed"])
async def test_nobody_answers_and_the_person_hears_of_it(tmp_path: Path, outcome: str) -> None:
    captures = tmp_path / "captures"
    async with quiet_stage(tmp_path, RELAY_CAPTURE_DIR=str(captures)) as stage:
        performance = await stage.play(handed_over(outcome, {"outcome": outcome}, {"talk_seconds": 0.2}))
    assert ending(performance) == ("nobody", "transferred")
    assert performance.ledger.violations == []
    outcomes = [each["outcome"] for each in performance.record["events"] if each["event"] == "transfer"]
    assert outcomes == [outcome, "completed"]
    assert performance.call is not None
    assert len(performance.call.phones) == 2
    assert "Nobody is there." in [line["text"] for line in performance.record["transcript"]]
    call_id = performance.record["id"]
    assert {file.name for file in captures.iterdir()} == {f"{call_id}.jsonl", f"{call_id}.1.jsonl"}
    played = replay(read_capture((captures / f"{call_id}.jsonl").read_bytes()))
    assert (played.difference, played.ending) == (None, Ending(Blame.NOBODY, Reason.TRANSFERRED))


async def test_the_person_hangs_up_while_it_rings(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(handed_over("abandoned", {"outcome": "abandoned"}))
    assert ending(performance) == ("callee", "hung-up")
    assert performance.ledger.violations == []


async def test_nobody_but_the_carrier_says_what_became_of_it(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        form = {"CallSid": "CA" + "1" * 32, "DialCallStatus": "completed", "CallStatus": "in-progress"}
        answer = await stage.http.post("/twilio/transfer?call=call_1&attempt=1", data=form)
        assert answer.status_code == 403
