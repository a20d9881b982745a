"""What the record tells of a whole call, beside what both far ends saw of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from relay.simulator.scenario import shipped_scenario
from relay.simulator.verdict import Run, measure
from tests.e2e.scenes import AGENTS, quiet_stage, scene

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


async def test_a_call_is_recorded_by_twilio_and_by_us_once_its_disclosure_was_heard(tmp_path: Path) -> None:
    agents, folder = tmp_path / "agents", tmp_path / "recordings"
    agents.mkdir()
    text = (AGENTS / "default.toml").read_text("utf-8").replace("tools =", 'recording = "disclosed"\ntools =')
    (agents / "default.toml").write_text(text)
    settings = {"RELAY_AGENTS_DIR": str(agents), "RELAY_RECORD_DIR": str(folder)}
    async with quiet_stage(tmp_path, **settings) as stage:
        performance = await stage.play(scene("recorded"))
        record, call = performance.record, performance.call
        assert call is not None
        with trio.fail_after(10):
            await call.finished.wait()
        record = (await stage.http.get(f"/v1/calls/{record['id']}")).json()
    events = {event["event"]: event for event in record["events"]}

    (twilios,) = call.recordings.begun
    assert (twilios.channels, events["recording started"]["recording_sid"]) == (2, twilios.sid)
    assert events["recording"]["recording_sid"] == twilios.sid
    assert events["recording"]["status"] == "completed"
    assert performance.ledger.violations == []

    sound = (folder / events["recorded"]["file"]).read_bytes()[58:]
    said, heard = sound[0::2], sound[1::2]
    begun = bytes(call.phones[-1].said).index(said[:8000])
    assert bytes(call.phones[-1].said)[begun : begun + len(said)] == said
    played = bytes(call.phones[-1].heard)[begun:].replace(b"\xff", b"")
    assert heard.replace(b"\xff", b"") == played  # silence lies where the way takes time
    assert 0 < events["recorded"]["seconds"] < record["duration_seconds"]
