"""Scenarios are data, and an error in one names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.simulator.scenario import (
    ScenarioError,
    parse_scenario,
    read_scenario,
    shipped_names,
    shipped_scenario,
)

WANTED = {"ambiguous", "appointment", "busy", "hang-up", "no-answer", "short-goodbye", "talkative"}


def test_the_shipped_scenarios_can_all_be_read() -> None:
    assert set(shipped_names()) >= WANTED
    for name in shipped_names():
        assert shipped_scenario(name).title != "Untitled"


def test_the_demo_has_four_turns_a_barge_in_a_tool_and_a_farewell() -> None:
    demo = shipped_scenario("appointment")
    assert len(demo.callee.turn) >= 4
    assert [turn.when for turn in demo.callee.turn].count("agent-speaking") == 1
    assert [turn.tool.name for turn in demo.agent.turn if turn.tool] == ["book_appointment", "end_call"]
    assert demo.agent.turn[-1].reply


def test_an_empty_scenario_is_an_answered_call_in_which_nobody_speaks() -> None:
    scenario = parse_scenario("", "empty.toml")
    assert scenario.carrier.outcome == "answered"
    assert len(scenario.callee.turn) == len(scenario.agent.turn) == 0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[callee]\n[[callee.turn]]\nsay = 'x'\npress = '1'", "callee.turn[0]"),
        ("[callee]\n[[callee.turn]]\nwhen = 'answered'", "callee.turn[0]"),
        ("[callee]\n[[callee.turn]]\npress = 'x'", "callee.turn[0].press"),
        ("[callee]\n[[callee.turn]]\nwhen = 'announcement'\npress = '12'", "callee.turn[0]"),
        ("[callee]\n[[callee.turn]]\nsay = 'x'\nwhen = 'later'", "callee.turn[0].when"),
        ("[callee]\n[[callee.turn]]\nsay = 'x'\nwhen = 'announcement'", "callee.turn[0]"),
        ("[carrier]\ncreate = 'maybe'", "carrier.create"),
        ("[carrier]\noutcome = 'eaten'", "carrier.outcome"),
        ("[call]\nto = '555'", "call.to"),
        ("[agent]\ncommit_seconds = 0.01", "agent.commit_seconds"),
        ("[[agent.turn]]\nfollow_up = 'Bye'", "agent.turn[0]"),
        ("[[agent.turn]]\ntool_after = { name = 'end_call' }", "agent.turn[0]"),
        ("[[agent.turn]]\nreply = 'x'\nfault = 'never-ready'", "agent.turn[0]"),
        ("[[fault]]\nleg = 'agent'\nkind = 'earthquake'", "fault[0].kind"),
        ("[[fault]]\nleg = 'agent'\nkind = 'rst'\nat = 'noon'", "fault[0].at"),
        ("[[fault]]\nleg = 'moon'\nkind = 'rst'", "fault[0].leg"),
        ("[[fault]]\nleg = 'phone'\nkind = 'late-audio'", "fault[0]"),
        ("[[fault]]\nleg = 'phone'\nkind = 'error:at_capacity'", "fault[0]"),
        ("[[fault]]\nleg = 'agent'\nkind = 'stop-media'", "fault[0]"),
        ("[[fault]]\nleg = 'agent'\nkind = 'never-ready'", "fault[0]"),
        ("colour = 'blue'", "colour"),
        ("title = ", "end of document"),
    ],
)
def test_an_error_names_the_file_and_the_key(text: str, key: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "mine.toml")
    assert "mine.toml: " in str(caught.value)
    assert key in str(caught.value)


@pytest.mark.parametrize("kind", ["rst", "fin", "close:1011", "error:at_capacity", "late-audio"])
def test_known_faults_are_accepted_at_every_moment(kind: str) -> None:
    for at in ("before-ready", "opening", "mid-speech", "tool-running", "farewell", "seconds:3.2"):
        scenario = parse_scenario(f"[[fault]]\nleg = 'agent'\nat = '{at}'\nkind = '{kind}'", "f.toml")
        assert scenario.faults("agent", at) == [kind]
        assert scenario.faults("phone", at) == []


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"gone\.toml"):
        read_scenario(tmp_path / "gone.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match=r"binary\.toml"):
        read_scenario(tmp_path / "binary.toml")


def test_a_scenario_can_be_read_from_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("title = 'Mine'")
    assert read_scenario(tmp_path / "own.toml").title == "Mine"


def test_an_unknown_shipped_scenario_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ScenarioError, match="appointment"):
        shipped_scenario("moon-landing")
