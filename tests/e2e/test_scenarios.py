"""Whole calls over real sockets: the service, the emulated carrier and the emulated agent."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest
import trio

from relay import answering, doubt
from relay.clips import shipped
from relay.rehearsal import FROM_NUMBER, Performance, Stage
from relay.simulator.ledger import Ledger
from relay.simulator.placed_call import PlacedCall
from relay.simulator.rest import read_dial_order
from relay.simulator.scenario import Scenario, shipped_names, shipped_scenario
from relay.simulator.verdict import Check, Run, judge
from tests.e2e.scenes import EXPLANATION, broken, ending, gone, quiet_stage, scene

TALK = {"turn": [{"say": "Yes?", "pause_seconds": 0.2}]}
MONOLOGUE = {"commit_seconds": 0.3, "turn": [{"reply": EXPLANATION}]}
WITHOUT_END = {"commit_seconds": 0.3, "turn": [{"reply": " ".join([EXPLANATION] * 5)}]}

ENDINGS: list[tuple[Scenario, tuple[str, str]]] = [
    (scene("goodbye"), ("nobody", "goodbye")),
    (
        scene("callee hangs up", callee={"turn": [{"when": "agent-finished", "hang_up": True}]}),
        ("callee", "hung-up"),
    ),
    (scene("busy", carrier={"outcome": "busy"}), ("callee", "busy")),
    (scene("no answer", carrier={"outcome": "no-answer", "ring_seconds": 0.2}), ("callee", "no-answer")),
    (scene("failed", carrier={"outcome": "failed"}), ("carrier", "failed")),
    (scene("canceled", carrier={"outcome": "canceled"}), ("carrier", "canceled")),
    (scene("stream unreachable", carrier={"stream": "unreachable"}), ("carrier", "no-stream")),
    (scene("ambiguous create", carrier={"create": "ambiguous"}), ("nobody", "goodbye")),
    (scene("throttled", carrier={"create": "throttled:1"}), ("nobody", "goodbye")),
    (broken("phone", "mid-speech", "stop-media"), ("carrier", "silent")),
    (broken("phone", "mid-speech", "garbage"), ("carrier", "protocol")),
    (broken("phone", "mid-speech", "duplicate-start"), ("carrier", "protocol")),
    (broken("phone", "mid-speech", "binary"), ("carrier", "protocol")),
    (broken("phone", "mid-speech", "oversize"), ("carrier", "protocol")),
    (broken("agent", "mid-speech", "garbage"), ("agent", "protocol")),
    (broken("agent", "mid-speech", "binary"), ("agent", "protocol")),
    (broken("agent", "mid-speech", "oversize"), ("agent", "protocol")),
    (broken("agent", "before-ready", "wrong-format"), ("agent", "wrong-format")),
    (broken("agent", "before-ready", "never-ready"), ("agent", "not-ready")),
    (broken("agent", "before-ready", "ready-without-config"), ("nobody", "goodbye")),
    (broken("agent", "before-ready", "mute"), ("agent", "not-ready")),
    (broken("agent", "mid-speech", "error:session_expired"), ("agent", "error")),
    (broken("agent", "mid-speech", "error:invalid_audio"), ("nobody", "goodbye")),
    (broken("agent", "mid-speech", "missing-status"), ("nobody", "goodbye")),
    (gone("mid-speech", "close:1011"), ("agent", "lost")),
    (broken("agent", "mid-speech", "flood"), ("agent", "flood")),
    (scene("nobody speaks", call={"agent": "impatient"}, callee={}), ("callee", "silent")),
    (
        scene("monologue", call={"agent": "impatient"}, callee=TALK, agent=WITHOUT_END),
        ("nobody", "monologue"),
    ),
]
SIDE_BY_SIDE = 5  # of calls whose far ends run in this process too


@pytest.mark.slow
async def test_each_way_a_call_can_end_is_told_with_the_right_blame_and_every_call_ends_at_the_carrier(
    tmp_path: Path,
) -> None:
    async with quiet_stage(tmp_path) as stage:
        played: list[Performance] = []
        limit = trio.CapacityLimiter(SIDE_BY_SIDE)

        async def play(scenario: Scenario) -> None:
            async with limit:
                played.append(await stage.play(scenario))

        async with trio.open_nursery() as nursery:
            for scenario, _ in ENDINGS:
                nursery.start_soon(play, scenario)
        told = {performance.scenario.title: ending(performance) for performance in played}
        assert told == {scenario.title: wanted for scenario, wanted in ENDINGS}
        violations = {
            each.scenario.title: each.ledger.violations for each in played if each.ledger.violations
        }
        assert {title: v for title, v in violations.items() if "garbage" not in title} == {}
        assert all(each.call is not None and each.call.is_over for each in played)
        assert all(each.record["carrier_confirmed_at"] for each in played)


def shipped_groups() -> list[list[Scenario]]:
    """The shipped scenarios, so many at a time, and each that wants settings of its own by itself."""
    scenarios = [shipped_scenario(name) for name in shipped_names()]
    plain = [scenario for scenario in scenarios if not scenario.service]
    groups = [plain[at : at + SIDE_BY_SIDE] for at in range(0, len(plain), SIDE_BY_SIDE)]
    return [*groups, *([scenario] for scenario in scenarios if scenario.service)]


@pytest.mark.slow
@pytest.mark.parametrize("scenarios", shipped_groups(), ids=lambda scenarios: scenarios[0].title)
async def test_every_shipped_scenario_holds_every_check(scenarios: list[Scenario], tmp_path: Path) -> None:
    failed: dict[str, list[Check]] = {}
    settings = {"RELAY_AGENTS_DIR": str(tmp_path / "none"), **scenarios[0].service}

    async def play(stage: Stage, scenario: Scenario) -> None:
        failed[scenario.title] = failed_checks(await stage.play(scenario))

    async with quiet_stage(tmp_path, **settings) as stage, trio.open_nursery() as nursery:
        for scenario in scenarios:
            nursery.start_soon(play, stage, scenario)
    assert failed == {scenario.title: [] for scenario in scenarios}


def failed_checks(performance: Performance) -> list[Check]:
    scenario = performance.scenario
    assert performance.call is not None
    run = Run(performance.ledger, scenario.expect)
    status = performance.call.status
    # That there is no second one the stage looks to at its end.
    checks = judge(run, performance.record, scenario, final_records=1, carrier_status=status)
    return [check for check in checks if not check.holds]


@pytest.mark.parametrize(
    ("settings", "fault", "wanted"),
    [
        ({}, "refuse:401", ("agent", "unauthorized")),
        ({}, "refuse:503", ("agent", "refused")),
        ({"ASSEMBLYAI_API_KEY": "another-key"}, None, ("agent", "unauthorized")),
        ({"ASSEMBLYAI_WS_URL": "ws://127.0.0.1:9/v1/ws"}, None, ("agent", "unreachable")),
    ],
)
async def test_an_agent_that_cannot_be_had_ends_the_call_with_an_apology_on_the_stream(
    settings: dict[str, str], fault: str | None, wanted: tuple[str, str], tmp_path: Path
) -> None:
    async with quiet_stage(tmp_path, **settings) as stage:
        scenario = broken("agent", "before-ready", fault) if fault else scene("no agent")
        performance = await stage.play(scenario)
        assert ending(performance) == wanted
        played = performance.ledger.select("phone", "received", "media")
        assert b"".join(b64decode(entry.payload or "") for entry in played) == shipped().apology
        assert [entry.event for entry in performance.ledger.entries if entry.event == "say"] == []


async def test_a_refused_voice_costs_one_reconnect_and_not_the_call(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path, AGENT_VOICE="ivy") as stage:
        performance = await stage.play(scene("voice"))
        assert ending(performance) == ("nobody", "goodbye")
        assert "voice refused" in [event["event"] for event in performance.record["events"]]


async def test_a_refused_create_answers_502_with_the_remedy_and_leaves_a_record(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("refused", carrier={"create": "refused:21219"}))
        assert performance.answer_status == 502
        assert "verif" in performance.answer["error"]["message"]
        listed = (await stage.http.get("/v1/calls")).json()["calls"]
        assert [call["ending"] for call in listed] == [{"blame": "carrier", "reason": "refused"}]


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for minutes until the carrier has listed a call, or has said something of it."""
    monkeypatch.setattr(doubt, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(doubt, "LISTED_SECONDS", 0.3)
    monkeypatch.setattr(doubt, "UNKNOWN_SECONDS", 0.9)


def listed(performance: Performance) -> list[object]:
    """What the timeline says of the carrier's list of calls."""
    return [event["candidates"] for event in performance.record["events"] if event["event"] == doubt.LISTED]


async def test_a_create_that_nobody_ever_hears_of_again_ends_as_not_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("lost", carrier={"create": "lost"}))
        assert performance.answer_status == 202
        assert performance.answer["status"] == "unknown"
        assert ending(performance) == ("carrier", "not-placed")
        assert listed(performance) == [{}]
        assert performance.record["duration_seconds"] == 0


async def test_somebody_elses_call_to_that_number_is_named_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Placed through the same account in the moment of ours, which was never carried out."""
    hurry(monkeypatch)
    async with quiet_stage(tmp_path) as stage:
        lost = scene("lost", carrier={"create": "lost"})
        form = [
            ("To", lost.call.to),
            ("From", FROM_NUMBER),
            ("Url", "https://else.where/"),
            ("TimeLimit", "9"),
        ]
        order, _ = read_dial_order(form)
        foreign = PlacedCall(stage.carrier._network, order, lost, Ledger())
        stage.carrier.calls[foreign.sid] = foreign
        performance = await stage.play(lost)
        assert ending(performance) == ("carrier", "not-placed")
        assert listed(performance) == [{foreign.sid: "queued"}]
        assert foreign.sid in performance.record["ending_detail"]
        assert performance.record["sid"] is None
        assert foreign.status == "queued"
        assert performance.ledger.select("phone", "received", "update") == []


async def _wait_live(performance: Performance, entry: str = "agent-audible") -> None:
    while not performance.ledger.select("phone", "noted", entry):  # noqa: ASYNC110 - the ledger is no event
        await trio.sleep(0.02)


@pytest.mark.parametrize("goodbye", [False, True])
async def test_the_operator_ends_a_live_call_at_once_or_with_a_goodbye(goodbye: bool, tmp_path: Path) -> None:
    heard = trio.Event()

    def watch(entry: object) -> None:
        if getattr(entry, "event", "") == "input.audio":
            heard.set()

    async with quiet_stage(tmp_path) as stage, trio.open_nursery() as nursery:
        played: list[Performance] = []

        async def play() -> None:
            played.append(await stage.play(scene("operator", callee=TALK, agent=MONOLOGUE), on_entry=watch))

        nursery.start_soon(play)
        await heard.wait()
        call_id = (await stage.http.get("/v1/calls")).json()["calls"][0]["id"]
        answer = await stage.http.post(f"/v1/calls/{call_id}/hangup", json={"goodbye": goodbye})
        assert answer.status_code == 202
        while not played:  # noqa: ASYNC110
            await trio.sleep(0.02)
        assert ending(played[0]) == ("us", "operator")
        asked = played[0].ledger.select("agent", "received", "reply.create")
        assert len(asked) == (1 if goodbye else 0)
        assert (await stage.http.post(f"/v1/calls/{call_id}/hangup")).status_code == 200


async def test_a_screening_behind_which_nobody_comes_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "SCREENING_SECONDS", 1.0)
    asks = {"say": "Please say your name and why you are calling.", "pause_seconds": 0.2}
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(scene("screened", callee={"turn": [asks]}))
        assert ending(performance) == ("callee", "screened")
        noted = [event["event"] for event in performance.record["events"]]
        assert noted.index("call screened") < noted.index("screening answered") < noted.index("ended")


async def test_the_time_limit_winds_the_call_up_before_the_cap(tmp_path: Path) -> None:
    async with quiet_stage(tmp_path) as stage:
        scenario = scene("limit", callee={"turn": []}, call={"time_limit": 10})
        performance = await stage.play(scenario)
        assert ending(performance) == ("us", "time-limit")
        assert performance.record["duration_seconds"] < 12
        assert len(performance.ledger.select("agent", "received", "reply.create")) == 1
