"""What the telephone still holds, and what the echo of a mark proves."""

from __future__ import annotations

import math

import pytest

from relay.alarms import Alarms
from relay.playout import Playout, Purpose


def test_audio_is_held_until_it_has_played() -> None:
    playout = Playout()
    playout.sent(2.0, 10.0)
    playout.sent(1.0, 10.5)

    assert playout.playing_until == 13.0
    assert playout.holds_audio(12.9)
    assert not playout.holds_audio(13.0)


def test_audio_after_a_pause_plays_from_then_on() -> None:
    playout = Playout()
    playout.sent(1.0, 10.0)
    playout.sent(1.0, 20.0)

    assert playout.playing_until == 21.0


def test_an_outstanding_mark_means_that_audio_is_held() -> None:
    playout = Playout()
    playout.sent(1.0, 10.0)
    mark = playout.mark(Purpose.REPLY)

    assert playout.holds_audio(99.0)
    assert playout.reached(mark) is Purpose.REPLY
    assert not playout.holds_audio(99.0)


@pytest.mark.parametrize("purpose", Purpose)
def test_an_echo_counts_once(purpose: Purpose) -> None:
    playout = Playout()
    mark = playout.mark(purpose)

    assert playout.reached(mark) is purpose
    assert playout.reached(mark) is None


def test_an_echo_after_a_clear_proves_nothing() -> None:
    playout = Playout()
    playout.sent(1.0, 10.0)
    mark = playout.mark(Purpose.GOODBYE)

    assert playout.clear(10.1)
    assert playout.reached(mark) is None
    assert not playout.holds_audio(10.1)


def test_a_mark_of_a_stranger_proves_nothing() -> None:
    assert Playout().reached("goodbye.1.0") is None


def test_no_two_marks_have_one_name() -> None:
    playout = Playout()
    first = playout.mark(Purpose.REPLY)
    playout.sent(1.0, 10.0)
    playout.clear(10.0)

    assert playout.mark(Purpose.REPLY) not in (first, playout.mark(Purpose.REPLY))


def test_a_clear_is_left_out_only_when_nothing_was_sent_since_the_last() -> None:
    playout = Playout()

    assert not playout.clear(10.0)
    playout.sent(0.1, 10.0)
    assert playout.clear(50.0)  # played long ago, for all we know; the estimate is no reason to risk it
    assert not playout.clear(50.0)


def test_a_mark_without_audio_does_not_outlive_a_clear_either() -> None:
    playout = Playout()
    mark = playout.mark(Purpose.GOODBYE)

    assert not playout.clear(10.0)
    assert playout.reached(mark) is None


def test_the_earliest_alarm_is_known_at_any_time() -> None:
    alarms = Alarms[str]()
    assert alarms.earliest == math.inf

    alarms.set("a", 3.0)
    alarms.set("b", 2.0)
    assert (alarms.earliest, alarms.at("a"), alarms.at("c")) == (2.0, 3.0, math.inf)

    alarms.set("b", 5.0)
    assert alarms.earliest == 3.0

    alarms.drop("a")
    alarms.drop("a")
    assert alarms.earliest == 5.0


def test_alarms_ring_once_and_in_their_order() -> None:
    alarms = Alarms[str]()
    alarms.set("late", 3.0)
    alarms.set("early", 1.0)
    alarms.set("later", 4.0)

    assert alarms.due(0.9) == []
    assert alarms.due(3.0) == ["early", "late"]
    assert alarms.due(3.0) == []
    assert alarms.earliest == 4.0


def test_silence_is_held_and_not_heard() -> None:
    playout = Playout()
    playout.sent(2.0, 10.0)
    playout.sent_silence(3.0, 10.0)
    playout.sent_silence(3.0, 11.0)
    assert (playout.playing_until, playout.sounds_until) == (18.0, 12.0)

    playout.sent(1.0, 11.0)
    assert playout.sounds_until == playout.playing_until == 19.0


def test_what_a_clear_drops_is_not_heard() -> None:
    playout = Playout()
    playout.sent(2.0, 10.0)
    playout.sent_silence(3.0, 10.0)
    playout.clear(11.0)

    assert playout.sounds_until == 11.0
