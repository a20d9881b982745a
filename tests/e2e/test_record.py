"""What the record tells of a whole call, beside what both far ends saw of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.simulator.scenario import shipped_scenario
from relay.simulator.verdict import Run, measure
from tests.e2e.scenes import quiet_stage

FADING_SECONDS = 0.25  # of the end of a last word, which is quieter than what is taken for speech
NOTICED_SECONDS = 0.1  # between a far end's doing something and the emulator's writing it down


@pytest.mark.slow
async def test_a_call_with_an_interruption_is_told_as_it_was_heard(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path, RELAY_AGENTS_DIR=str(tmp_path / "none")) as stage:
        performance = await stage.play(shipped_scenario("appointment"))
    record, figures = performance.record, measure(Run(performance.ledger))

    cut = [reply for reply in record["replies"] if reply["cleared_seconds"]]
    whole = [reply for reply in record["replies"] if not reply["cleared_seconds"]]
    assert len(cut) == 1
    assert cut[0]["heard_seconds"] < cut[0]["sent_seconds"]
    assert [reply["proven_seconds"] for reply in whole] == [reply["sent_seconds"] for reply in whole]

    (line,) = [line for line in record["transcript"] if line["role"] == "agent" and line["interrupted"]]
    assert line["text"].startswith("Your check-up is on Monday")
    assert "insurance card" not in line["text"]

    waits = [turn["wait_seconds"] for turn in record["latency"]]
    assert waits == pytest.approx([turn.total_seconds for turn in figures.turns], abs=FADING_SECONDS)
    assert record["first_audio_seconds"] == pytest.approx(
        figures.answer_to_first_audio_seconds, abs=NOTICED_SECONDS
    )

    costs = {cost["item"]: cost for cost in record["costs"]}
    assert costs["twilio-voice"]["amount"] == "0.0140"
    assert not costs["twilio-voice"]["checked"]
    assert 0 < costs["assemblyai-session"]["seconds"] <= record["duration_seconds"] + 1
    assert float(record["cost"]["USD"]) == pytest.approx(
        sum(float(cost["amount"]) for cost in record["costs"])
    )
