"""Endings and what they mean for the person on the phone."""

from __future__ import annotations

import re

import pytest

from relay.outcomes import Blame, Ending, Farewell, LegClosed, Reason, Refusal


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_one_kebab_case_word(reason: Reason) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", reason.value)


@pytest.mark.parametrize("blame", Blame)
def test_somebody_who_may_still_listen_is_owed_a_sentence(blame: Blame) -> None:
    farewell = Ending(blame, Reason.LOST).farewell

    assert farewell is (Farewell.SPOKEN if blame in (Blame.AGENT, Blame.CARRIER) else Farewell.SILENT)


def test_a_crash_of_ours_is_apologised_for() -> None:
    assert Ending(Blame.US, Reason.CRASHED).farewell is Farewell.SPOKEN


def test_a_goodbye_is_followed_by_silence() -> None:
    assert Ending(Blame.NOBODY, Reason.GOODBYE).farewell is Farewell.SILENT


def test_the_detail_of_an_ending_is_not_part_of_the_contract() -> None:
    assert Ending(Blame.AGENT, Reason.NOT_READY, "after 8 s").as_json() == {
        "blame": "agent",
        "reason": "not-ready",
    }


@pytest.mark.parametrize("leg", [Blame.AGENT, Blame.CARRIER])
@pytest.mark.parametrize("kind", [Reason.LOST, Reason.STALLED, Reason.SILENT, Reason.PROTOCOL])
def test_the_loss_of_a_leg_is_blamed_on_its_far_end(leg: Blame, kind: Reason) -> None:
    lost = LegClosed(leg, kind, "end of file", code=1006)

    assert lost.ending == Ending(leg, kind, "end of file")
    assert (str(lost), lost.code) == ("end of file", 1006)


def test_a_refusal_says_what_to_do() -> None:
    assert Refusal("unknown-agent", "there is no agent called x").code == "unknown-agent"
