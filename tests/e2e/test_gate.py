"""The gate in the way of real dials: hours, lists, opt-outs, and proof of it all."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from relay.rehearsal import Performance
from relay.roster import Roster
from relay.settings import load_settings
from relay.simulator.ledger import Direction, Entry, Side
from tests.e2e.scenes import AGENTS, EXPLANATION, ending, quiet_stage, scene

NIGHT = "2026-03-10T05:00:00Z"  # midnight in New York, earlier in the west
TALK = {"turn": [{"say": "Yes?", "pause_seconds": 0.2}]}
MONOLOGUE = {"commit_seconds": 0.3, "turn": [{"reply": EXPLANATION}]}
CALLEE = "+12025550143"
CLEARED_SECONDS = 0.1  # from the final transcript or the key to the `clear` at the telephone
CLOSED_SECONDS = 5.0  # and to the end of the call at the carrier
ORDER = {"to": CALLEE, "variables": {"business": "Lakeside"}}


async def test_at_night_nothing_is_dialled_and_the_answer_names_the_rule(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path, RELAY_CLOCK=NIGHT) as stage:
        performance = await stage.play(scene("night"))
        assert performance.answer_status == 403
        assert performance.answer["error"]["code"] == "outside-hours"
        assert stage.carrier.calls == {}
        (call,) = (await stage.http.get("/v1/calls")).json()["calls"]
        assert call["ending"] == {"blame": "us", "reason": "not-permitted"}


@pytest.mark.parametrize(
    "to", ["abc+12025550143", "client:x+12025550143", "+１２０２５５５０１４３", "12025550143"]
)
async def test_what_is_no_number_is_a_bad_value_and_leaves_no_record(to: str, tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        answer = await stage.http.post("/v1/calls", json={**ORDER, "to": to})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad-value")
        assert (await stage.http.get("/v1/calls")).json()["calls"] == []


async def test_what_the_request_says_of_the_address_is_judged_and_kept(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path, RELAY_CLOCK="2026-03-10T13:00:00Z") as stage:  # 9:00 in Washington
        for address, status in (
            ({"zone": "Central"}, 422),
            ({"state": "Texas"}, 422),
            ({"state": "US-CA"}, 403),
        ):
            answer = await stage.http.post("/v1/calls", json={**ORDER, **address})
            assert (answer.status_code, answer.is_success) == (status, False), answer.text
        (call,) = (await stage.http.get("/v1/calls")).json()["calls"]
        kept = (await stage.http.get(f"/v1/calls/{call['id']}")).json()
        assert (kept["state"], kept["zone"], kept["ending"]["reason"]) == ("US-CA", None, "not-permitted")
        assert stage.carrier.calls == {}


async def test_a_listed_number_is_not_dialled(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        listed = await stage.http.post("/v1/dnc", json={"number": CALLEE, "source": "letter"})
        assert listed.is_success, listed.text
        performance = await stage.play(scene("listed"))
        assert (performance.answer_status, performance.answer["error"]["code"]) == (403, "dnc-listed")
        assert stage.carrier.calls == {}


@pytest.mark.parametrize(
    ("event", "seconds", "carrier"),
    [("ringing", 3.0, {"ring_seconds": 20}), ("input.audio", 5.0, {"ring_seconds": 0.1})],
)
async def test_a_number_listed_while_it_rings_or_talks_is_hung_up_in_time(
    event: str, seconds: float, carrier: dict[str, float], tmp_path: Path
) -> None:
    moment, played = trio.Event(), list[Performance]()
    scenario = scene("listed late", callee=TALK, agent=MONOLOGUE, carrier=carrier)

    def is_it(entry: Entry) -> bool:
        return entry.event == event or entry.fields.get("status") == event

    async with quiet_stage(tmp_path) as stage, trio.open_nursery() as nursery:

        async def play() -> None:
            played.append(
                await stage.play(scenario, on_entry=lambda entry: moment.set() if is_it(entry) else None)
            )

        nursery.start_soon(play)
        await moment.wait()
        listed_at = trio.current_time()
        assert (await stage.http.post("/v1/dnc", json={"number": CALLEE, "source": "letter"})).is_success
        with trio.fail_after(3 * seconds):
            while not played:  # noqa: ASYNC110 - the ledger is no event
                await trio.sleep(0.02)
    over_at = next(
        e.at for e in played[0].ledger.entries if e.fields.get("status") in ("completed", "canceled")
    )
    assert over_at - listed_at <= seconds
    assert ending(played[0])[0] == "us"


@pytest.mark.parametrize(
    ("turn", "wish"),
    [
        ({"say": "Please stop calling me.", "pause_seconds": 0.2}, ("agent", "sent", "transcript.user")),
        ({"press": "9", "pause_seconds": 0.2}, ("phone", "sent", "dtmf")),
    ],
)
async def test_an_opt_out_by_word_or_key_is_confirmed_recorded_and_ends_the_call_in_time(
    turn: dict[str, object], wish: tuple[Side, Direction, str], tmp_path: Path
) -> None:
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("opt-out", callee={"turn": [turn]}, agent=MONOLOGUE))
        assert ending(performance) == ("callee", "opted-out")
        assert performance.ledger.violations == []
        told = performance.ledger.select
        [wished] = told(*wish)
        cleared = next(entry for entry in told("phone", "received", "clear") if entry.at >= wished.at)
        assert cleared.at - wished.at <= CLEARED_SECONDS
        [confirmed] = [e for e in told("phone", "sent", "mark") if e.fields["name"].startswith("last-words")]
        [over] = [e for e in told("phone", "noted", "status") if e.fields["status"] == "completed"]
        assert wished.at < confirmed.at < over.at <= wished.at + CLOSED_SECONDS
        again = await stage.http.post("/v1/calls", json=ORDER)
        assert (again.status_code, again.json()["error"]["code"]) == (403, "dnc-listed")


async def test_a_request_over_the_spend_cap_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path, RELAY_CALLS_PER_HOUR="1") as stage:
        await stage.play(scene("spent", callee={"turn": [{"hang_up": True}]}))
        refused = await stage.http.post("/v1/calls", json=ORDER)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "spend-cap")
        assert int(refused.headers["Retry-After"]) > 0
        assert len(stage.carrier.calls) == 1


async def test_an_opt_out_through_the_agents_tool_is_one_like_any_other(tmp_path: Path) -> None:
    turns = [{"say": "I do not want this.", "pause_seconds": 0.2}]
    agent = {"commit_seconds": 0.3, "turn": [{"tool": {"name": "mark_do_not_call"}, "reply": "Very well."}]}
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("opt-out", callee={"turn": turns}, agent=agent))
        assert ending(performance) == ("callee", "opted-out")
        assert performance.ledger.violations == []
        again = await stage.http.post("/v1/calls", json=ORDER)
        assert (again.status_code, again.json()["error"]["code"]) == (403, "dnc-listed")


def read(archive: tarfile.TarFile, name: str) -> Any:
    """One file of an evidence pack."""
    content = archive.extractfile(next(each for each in archive.getnames() if each.endswith(f"/{name}")))
    assert content is not None
    return orjson.loads(content.read())


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_a_call_leaves_an_evidence_pack_with_every_rule_and_an_intact_chain(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("evidence"))
        assert ending(performance) == ("nobody", "goodbye")
        pack = await stage.http.get(f"/v1/calls/{performance.answer['id']}/evidence")
    with tarfile.open(fileobj=io.BytesIO(pack.content)) as archive:
        names = {Path(name).name for name in archive.getnames()}
        verdicts = read(archive, "verdicts.json")
        rules = [finding["rule"] for verdict in verdicts for finding in verdict["findings"]]
        (script,) = read(archive, "script.json")
        disclosure = read(archive, "disclosure.json")
    assert {"record.json", "verdicts.json", "chain.json", "transcript.json"} <= names
    assert len(rules) > 10
    assert len(verdicts) == 2  # before the dial, and when somebody had picked up
    agent = Roster(load_settings({"RELAY_AGENTS_DIR": str(AGENTS)})).agents["default"]
    profile = agent.profile
    assert script["files"] == agent.content
    assert script["profile"] == digest(orjson.dumps(profile.model_dump(), option=orjson.OPT_SORT_KEYS))
    assert disclosure["text_sha256"] == digest(b"This is an automated call. Hello?")
    assert disclosure["mark"].startswith("opening.")
    assert script["at"] < disclosure["heard_at"]


async def test_records_lists_and_idempotency_keys_outlive_the_process(tmp_path: Path) -> None:
    headers = {"Idempotency-Key": "one-intent"}
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("kept", callee={"turn": [{"hang_up": True}]}))
        assert (await stage.http.post("/v1/dnc", json={"number": CALLEE, "source": "letter"})).is_success
        assert (await stage.http.post("/v1/calls", json=ORDER, headers=headers)).status_code == 403
    async with quiet_stage(tmp_path) as stage:
        record = (await stage.http.get(f"/v1/calls/{performance.answer['id']}")).json()
        assert record["ending"] == {"blame": "callee", "reason": "hung-up"}
        again = await stage.http.post("/v1/calls", json=ORDER, headers=headers)
        assert (again.status_code, again.json()["status"]) == (200, "ended")
        other = await stage.http.post("/v1/calls", json={**ORDER, "record": True}, headers=headers)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "key-conflict")
        assert (await stage.http.post("/v1/calls", json=ORDER)).status_code == 403
