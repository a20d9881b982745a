"""The disclosure that the carrier speaks: its proof, the keys that stop it, and agents stored elsewhere."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import orjson
import trio

from relay.rehearsal import Performance, Stage
from relay.simulator.ledger import Entry
from relay.simulator.scenario import Scenario, shipped_scenario
from tests.e2e.scenes import ending, quiet_stage, scene

ANNOUNCED = {"call": {"agent": "announced"}}
DISCLOSURE = "This is an automated call. Press 9 to stop it."
CONFIRMED = "You will not be called again. Goodbye."
STORED = "agent_0123456789abcdef0123456789abcdef"
TELEPHONE = {"type": "audio", "format": {"encoding": "audio/pcmu"}}
LOOKUP = {"type": "function", "name": "lookup_order", "http": {"url": "https://shop.example/orders"}}


def keyed(*keys: str, pause_seconds: float = 0.5) -> Scenario:
    """A call whose callee presses these keys, each in a further round of the announcement."""
    turns: list[dict[str, Any]] = [
        {"when": "announcement", "pause_seconds": pause_seconds, "press": key} for key in keys
    ]
    turns += [{"say": "Yes?", "pause_seconds": 0.2}, {"say": "Thank you.", "pause_seconds": 0.2}]
    return scene(f"keys {keys}", callee={"turn": turns}, **ANNOUNCED)


def happened(performance: Performance, event: str) -> list[Entry]:
    return [entry for entry in performance.ledger.entries if entry.event == event]


def said(performance: Performance) -> list[Any]:
    """What the carrier began to say, in order."""
    return [entry.fields["text"] for entry in happened(performance, "say")]


def noted(performance: Performance, event: str) -> list[dict[str, Any]]:
    return [each for each in performance.record["events"] if each["event"] == event]


async def proof(stage: Stage, performance: Performance) -> dict[str, Any]:
    """The disclosure's part of the evidence pack."""
    pack = await stage.http.get(f"/v1/calls/{performance.answer['id']}/evidence")
    with tarfile.open(fileobj=io.BytesIO(pack.content)) as archive:
        content = archive.extractfile(f"{performance.answer['id']}/disclosure.json")
        assert content is not None
        found: dict[str, Any] = orjson.loads(content.read())
        return found


async def test_the_carrier_says_the_disclosure_and_the_agent_begins_with_its_greeting(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("announced", **ANNOUNCED))
        assert ending(performance) == ("nobody", "goodbye")
        assert performance.ledger.violations == []
        assert said(performance) == [DISCLOSURE]
        (session,) = [entry.fields["session"] for entry in happened(performance, "session.update")]
        assert session["greeting"] == "Hello?"
        (heard,) = noted(performance, "disclosure heard")
        (spoken,) = [entry.at for entry in happened(performance, "said")]
        (started,) = [entry.at for entry in happened(performance, "start")]
        assert spoken < started
        found = await proof(stage, performance)
    assert (found["mode"], found["followed_by"], found["mark"]) == ("carrier", "stream", None)
    assert found["heard_at"] == heard["at"]
    assert found["text_sha256"] is not None


async def test_the_opt_out_key_works_already_during_the_disclosure(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path, RELAY_AGENTS_DIR=str(tmp_path / "none")) as stage:
        performance = await stage.play(shipped_scenario("opt-out-key"))
        assert ending(performance) == ("callee", "opted-out")
        assert performance.ledger.violations == []
        assert said(performance)[1:] == [CONFIRMED]
        assert [entry.fields["text"] for entry in happened(performance, "said")] == [CONFIRMED]
        assert happened(performance, "start") == []
        (pressed,) = [entry.at for entry in happened(performance, "gathered")]
        over = next(e.at for e in happened(performance, "status") if e.fields["status"] == "completed")
        assert over - pressed < 5
        again = await stage.http.post("/v1/calls", json={"to": performance.record["to"]})
        assert (again.status_code, again.json()["error"]["code"]) == (403, "dnc-listed")
        assert (await proof(stage, performance))["heard_at"] is None


async def test_the_opt_out_is_recorded_while_the_carrier_still_confirms_it(tmp_path: Path) -> None:
    confirming, played = trio.Event(), list[Performance]()

    def look(entry: Entry) -> None:
        if entry.event == "say" and entry.fields["text"] == CONFIRMED:
            confirming.set()

    async with quiet_stage(tmp_path) as stage, trio.open_nursery() as nursery:

        async def play() -> None:
            played.append(await stage.play(keyed("9"), on_entry=look))

        nursery.start_soon(play)
        await confirming.wait()
        refused = await stage.http.post(
            "/v1/calls", json={"to": Scenario().call.to, "variables": {"business": "Acme"}}
        )
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "dnc-listed")
        assert played == []


async def test_another_key_stops_the_disclosure_which_is_therefore_said_again(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(keyed("#"))
        assert said(performance) == [DISCLOSURE, DISCLOSURE]
        assert len(happened(performance, "said")) == 1
        assert ending(performance) == ("nobody", "goodbye")
        assert performance.ledger.violations == []
        assert len(noted(performance, "disclosure heard")) == 1


async def test_a_call_whose_disclosure_is_stopped_again_and_again_ends_as_such(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(keyed("1", "2", "3"))
        assert ending(performance) == ("callee", "undisclosed")
        assert said(performance) == [DISCLOSURE, DISCLOSURE]
        assert happened(performance, "session.update") == []
        assert performance.ledger.violations == []
        assert noted(performance, "disclosure heard") == []


async def test_hanging_up_during_the_disclosure_is_no_proof_of_it(tmp_path: Path) -> None:
    turn = {"when": "announcement", "pause_seconds": 0.5, "hang_up": True}
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("gone", callee={"turn": [turn]}, **ANNOUNCED))
        assert ending(performance) == ("callee", "hung-up")
        assert noted(performance, "disclosure heard") == []


async def test_a_stored_agent_is_named_and_nothing_else_and_its_tools_are_never_answered(
    tmp_path: Path,
) -> None:
    session = {"greeting": "Hello?", "input": TELEPHONE, "output": TELEPHONE, "tools": [LOOKUP]}
    agent = {
        "commit_seconds": 0.3,
        "stored": {STORED: session},
        "turn": [{"tool": {"name": "lookup_order"}, "reply": "It is on its way."}],
    }
    turns = [
        {"say": "Yes?", "pause_seconds": 0.2},
        {"when": "agent-finished", "pause_seconds": 0.5, "hang_up": True},
    ]
    variables = {"business": "Acme"}
    async with quiet_stage(tmp_path) as stage:
        stored = scene(
            "stored",
            call={"agent": "stored", "variables": variables},
            callee={"turn": turns},
            agent=agent,
        )
        performance = await stage.play(stored)
    assert performance.ledger.violations == []
    assert ending(performance) == ("callee", "hung-up")
    assert said(performance) == ["This is an automated call of Acme. Press 9 to stop it."]
    (update,) = happened(performance, "session.update")
    assert update.fields["session"] == {"agent_id": STORED}
    assert [each["tool"] for each in noted(performance, "tool run by the vendor")] == ["lookup_order"]
    assert [line["text"] for line in performance.record["transcript"]][-1] == "It is on its way."


async def test_an_agent_stored_with_another_sound_ends_the_call_as_such(tmp_path: Path) -> None:
    agent = {"stored": {STORED: {"greeting": "Hello?"}}}
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("noise", call={"agent": "stored"}, agent=agent))
        assert ending(performance) == ("agent", "wrong-format")


async def test_an_agent_that_is_not_stored_there_ends_the_call_as_such(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("nobody", call={"agent": "stored"}))
        assert ending(performance) == ("agent", "refused")


async def test_a_key_that_is_not_twilios_word_is_refused(tmp_path: Path) -> None:
    form = {"CallSid": "CA" + "0" * 32, "To": Scenario().call.to, "Digits": "9"}
    async with quiet_stage(tmp_path) as stage:
        answer = await stage.http.post("/twilio/key?call=call_1&said=1", data=form)
        assert answer.status_code == 403
        listed = await stage.http.get("/v1/dnc")
        assert listed.json()["entries"] == []
