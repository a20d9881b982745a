"""Nobody speaks, the agent speaks alone, or faster than anybody hears: each has an end, and is told."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from relay.actions import (
    Action,
    CancelReply,
    ClearPhoneAudio,
    CreateReply,
    EndCall,
    Note,
    PlayOnPhone,
    SendMark,
)
from relay.clips import Clips
from relay.dead_air import NUDGE
from relay.goodbye import FAREWELL_REPLY_SECONDS, REPLY_PATIENCE_SECONDS, WIND_UP
from relay.limits import Limits
from relay.lull import FAREWELL_SECONDS, QUESTIONS
from relay.monologue import BREATH_SECONDS
from relay.outcomes import Blame, LegClosed, Reason
from relay.playout import MARK_GRACE_SECONDS
from relay.session_faults import socket_lost
from relay.wire import agent
from relay.wire.audio import silence
from tests.test_dialogue import HUSH, Talk, endings, of, sound

LIMITS = Limits()
SILENCE, WORDLESS, MONOLOGUE = LIMITS.silence_seconds, LIMITS.wordless_seconds, LIMITS.monologue_seconds
QUESTION_SECONDS = 0.5
CLIPS = Clips(still_there=b"\x33" * 4000, apology=b"\x32" * 8000)
QUESTION = PlayOnPhone(sound(QUESTION_SECONDS, 0x33))
ROUND = SILENCE + QUESTION_SECONDS  # from one question to the next


def talk_of(limits: Limits = LIMITS, *, clips: Clips = CLIPS) -> Talk:
    return Talk(clips=clips, limits=limits).opened()


def asked(actions: Sequence[Action]) -> int:
    return sum(action == QUESTION for action in actions)


def told(talk: Talk) -> list[tuple[Blame, Reason]]:
    """How the call ends when nobody does anything any more; the carrier has not heard of marks."""
    talk.later(600.0)
    return endings(talk.all)[:1]


# ---- nobody speaks ---------------------------------------------------------------------------------------


def test_who_says_nothing_is_asked_twice_and_then_told_goodbye() -> None:
    talk = talk_of()
    start = talk.now

    assert talk.later(SILENCE - 0.1) == []
    assert talk.later(0.1) == [Note("still there", {"time": 1}), QUESTION, SendMark("clip.2.0")]
    assert talk.later(ROUND - 0.1) == []
    assert talk.later(0.1) == [Note("still there", {"time": 2}), QUESTION, SendMark("clip.3.0")]
    assert talk.later(ROUND - 0.1) == []
    assert talk.later(0.1) == [Note("winding up"), CreateReply(WIND_UP)]
    assert talk.now - start == pytest.approx((QUESTIONS + 1) * SILENCE + QUESTIONS * QUESTION_SECONDS)

    talk.says(sound(2.0), reply_id="farewell")
    assert endings(talk.echo()) == [(Blame.CALLEE, Reason.SILENT)]


def test_an_agent_that_says_no_goodbye_either_is_not_waited_for() -> None:
    talk = talk_of()
    talk.later(SILENCE + QUESTIONS * ROUND)

    assert endings(talk.later(FAREWELL_REPLY_SECONDS + MARK_GRACE_SECONDS)) == [(Blame.CALLEE, Reason.SILENT)]


def test_the_silence_begins_when_the_agent_was_heard_to_its_end() -> None:
    talk = talk_of()
    talk.says(sound(5.0))

    assert asked(talk.later(5.0 + SILENCE - 0.1)) == 0
    assert asked(talk.later(0.2)) == 1


def test_what_the_agent_sends_of_silence_is_silence() -> None:
    talk = talk_of()
    talk.agent(agent.ReplyStarted("r1"))
    for _ in range(round(SILENCE)):
        talk.agent(agent.ReplyAudio(silence(1.0), "r1"))
        talk.later(1.0)

    assert asked(talk.all) == 1


@pytest.mark.parametrize("sign", ["words", "key"])
def test_a_word_or_a_key_begins_the_count_anew(sign: str) -> None:
    talk = talk_of(Limits(filler_seconds=58, nudge_seconds=59, dead_air_seconds=60))
    talk.later(SILENCE + ROUND)
    if sign == "words":
        talk.agent(agent.SpeechStarted(), agent.SpeechStopped(), agent.CalleeSaid("Wait, I look it up."))
        talk.says(sound(0.5))
    else:
        talk.press("#")  # nothing that the agent would have to answer
    talk.all.clear()

    assert [asked(talk.later(ROUND)) for _ in range(QUESTIONS)] == [1, 1]
    assert CreateReply(WIND_UP) in talk.later(ROUND)


def test_who_is_speaking_is_not_asked() -> None:
    talk = talk_of()
    talk.later(SILENCE - 1.0)
    talk.agent(agent.SpeechStarted())

    assert talk.later(SILENCE * 3) == []
    talk.agent(agent.SpeechStopped())
    assert talk.later(SILENCE - 0.1) == []
    assert asked(talk.later(0.2)) == 1


def test_the_question_is_silenced_by_whoever_answers_it() -> None:
    talk = talk_of()
    talk.later(SILENCE)

    assert ClearPhoneAudio() in talk.agent(agent.SpeechStarted())


@pytest.mark.parametrize("during", ["before", "tail"])
def test_a_word_withdraws_the_goodbye(during: str) -> None:
    talk = talk_of()
    talk.later(SILENCE + QUESTIONS * ROUND)
    if during == "tail":
        talk.agent(agent.ReplyStarted("farewell"), agent.ReplyAudio(sound(2.0), "farewell"))
        talk.agent(agent.ReplyDone("completed", "farewell"))
    said = talk.agent(agent.CalleeSaid("Yes, I am here."))

    assert Note("goodbye withdrawn") in said
    assert not talk.dialogue.said_goodbye
    assert endings(talk.echo()) == []


def test_an_operators_goodbye_is_not_withdrawn_by_a_word() -> None:
    talk = talk_of()
    talk.later(SILENCE + QUESTIONS * ROUND)
    talk.wind_up()
    talk.agent(agent.CalleeSaid("Yes, I am here."))

    assert talk.dialogue.said_goodbye


def test_an_answer_that_is_owed_is_not_the_callees_silence() -> None:
    talk = talk_of(Limits(silence_seconds=3))
    talk.agent(agent.CalleeSaid("Tuesday?"))

    assert asked(talk.later(20.0)) == 0
    assert endings(talk.echo()) == [(Blame.AGENT, Reason.SILENT)]


def test_while_a_tool_runs_nobody_is_asked() -> None:
    talk = talk_of()
    talk.later(SILENCE - 0.1)
    talk.calls_tool("c1", "look_up")

    assert asked(talk.later(SILENCE * 4)) == 0


def test_without_a_clip_the_agent_alone_says_goodbye() -> None:
    talk = talk_of(clips=Clips())

    assert of(talk.later(SILENCE * 2), PlayOnPhone) == []
    assert CreateReply(WIND_UP) in talk.later(SILENCE)


def test_before_the_opening_was_heard_nobody_is_asked() -> None:
    talk = Talk(clips=CLIPS, limits=Limits(silence_seconds=3))
    talk.agent(agent.SessionReady("s1"), agent.ReplyAudio(sound(8.0), "r1"))

    assert asked(talk.later(9.0)) == 0


def test_a_session_that_takes_over_begins_the_count_anew() -> None:
    talk = talk_of()
    talk.later(SILENCE)
    lost = LegClosed(Blame.AGENT, Reason.LOST, "reset")
    talk.took(talk.dialogue.on_agent_lost(socket_lost(lost), talk.now))
    assert asked(talk.later(7.0)) == 0

    talk.agent(agent.SessionReady("s2"))
    talk.says(sound(1.0))
    assert asked(talk.later(1.0 + SILENCE)) == 1


# ---- sound without words ---------------------------------------------------------------------------------


def test_two_minutes_of_music_are_silence() -> None:
    talk = talk_of()
    talk.agent(agent.SpeechStarted())

    assert talk.later(WORDLESS - 0.1) == []
    assert asked(talk.later(0.1)) == 1
    assert asked(talk.later(ROUND)) == 1
    assert told(talk) == [(Blame.CALLEE, Reason.SILENT)]


def test_music_with_pauses_is_no_speech_either() -> None:
    talk = talk_of()
    start = talk.now
    while not asked(talk.all) and talk.now < start + 2 * WORDLESS:
        talk.agent(agent.SpeechStarted())
        talk.later(4.0)
        talk.agent(agent.SpeechStopped())
        talk.later(2.0)

    assert WORDLESS < talk.now - start + 1.0 < WORDLESS + SILENCE


def test_a_long_story_is_no_music() -> None:
    talk = talk_of()
    talk.agent(agent.SpeechStarted())
    for _ in range(3):
        talk.later(WORDLESS - 1.0)
        talk.agent(agent.CalleePartial())

    assert asked(talk.all) == 0


# ---- the agent speaks alone ------------------------------------------------------------------------------

DEAF = Limits(silence_seconds=600)


def speaks_on(talk: Talk, seconds: float, *, pause: float = 1.0) -> None:
    """Reply after reply of four seconds each, and nobody says a word."""
    until, number = talk.now + seconds, 0
    while talk.now < until:
        number += 1
        talk.agent(agent.ReplyStarted(f"m{number}"), agent.ReplyAudio(sound(4.0), f"m{number}"))
        talk.later(4.0)
        talk.agent(agent.ReplyDone("completed", f"m{number}"))
        talk.later(pause)


def test_a_monologue_of_replies_is_wound_up() -> None:
    talk = talk_of(DEAF)
    speaks_on(talk, MONOLOGUE - 5.0)
    assert of(talk.all, CreateReply) == []
    speaks_on(talk, 5.0)
    talk.later(REPLY_PATIENCE_SECONDS)

    assert CreateReply(WIND_UP) in talk.all
    talk.says(sound(1.0), reply_id="farewell")
    assert endings(talk.echo()) == [(Blame.NOBODY, Reason.MONOLOGUE)]


def test_a_reply_without_end_is_cut_short_for_the_goodbye() -> None:
    talk = talk_of(DEAF)
    for _ in range(round(MONOLOGUE + REPLY_PATIENCE_SECONDS) + 1):
        talk.agent(agent.ReplyAudio(sound(1.0), "m1"))
        talk.later(1.0)

    assert CancelReply("m1") in talk.all


def test_a_word_makes_it_a_conversation() -> None:
    talk = talk_of(DEAF)
    for _ in range(3):
        speaks_on(talk, MONOLOGUE - 10.0)
        talk.agent(agent.CalleeSaid("Go on."))

    assert CreateReply(WIND_UP) not in talk.all


def test_who_has_fallen_silent_speaks_no_monologue() -> None:
    talk = talk_of(DEAF)
    talk.says(sound(2.0))
    talk.later(MONOLOGUE + 1.0)
    talk.says(sound(2.0), reply_id="r2")
    talk.later(MONOLOGUE - BREATH_SECONDS)

    assert CreateReply(WIND_UP) not in talk.all


def test_a_wind_up_for_a_monologue_has_an_end() -> None:
    talk = talk_of(DEAF)
    speaks_on(talk, MONOLOGUE - 2.0)
    talk.agent(agent.ReplyStarted(None), agent.ReplyAudio(sound(4.0)))  # it cannot be cancelled

    assert endings(talk.later(5.0 + FAREWELL_SECONDS))[:1] == [(Blame.NOBODY, Reason.MONOLOGUE)]


# ---- the agent speaks too fast ---------------------------------------------------------------------------


def test_speech_that_nobody_could_listen_to_ends_the_call() -> None:
    talk = talk_of()
    talk.agent(*[agent.ReplyAudio(sound(1.0), "r1")] * round(LIMITS.ahead_seconds))
    assert of(talk.all, ClearPhoneAudio) == []

    flood = talk.agent(agent.ReplyAudio(sound(1.0), "r1"))
    assert flood == [ClearPhoneAudio(), PlayOnPhone(sound(1.0, 0x32)), SendMark("last-words.2.1")]
    assert endings(talk.echo()) == [(Blame.AGENT, Reason.FLOOD)]


def test_one_message_can_be_a_flood() -> None:
    talk = talk_of(clips=Clips())

    assert endings(talk.agent(agent.ReplyAudio(sound(LIMITS.ahead_seconds + 1), "r1"))) == [
        (Blame.AGENT, Reason.FLOOD)
    ]


def test_a_flood_of_silence_is_one() -> None:
    talk = talk_of(clips=Clips())

    assert of(talk.agent(*[agent.ReplyAudio(silence(1.0), "r1")] * 31), EndCall) != []


def test_what_is_spoken_as_fast_as_it_is_heard_is_none() -> None:
    talk = talk_of()
    for _ in range(50):
        talk.agent(agent.ReplyAudio(sound(1.0), "r1"))
        talk.later(1.0)

    assert endings(talk.all) == []


# ---- what is audible -------------------------------------------------------------------------------------


def test_a_whisper_of_the_line_is_no_answer() -> None:
    talk = talk_of()
    talk.agent(agent.CalleeSaid("Tuesday?"), agent.ReplyStarted("r1"))
    talk.agent(agent.ReplyAudio(sound(0.1, 0x7E), "r1"), agent.ReplyAudio(sound(0.1, 0xF1), "r1"))

    assert CancelReply("r1") in talk.later(LIMITS.nudge_seconds)
    talk.agent(agent.ReplyDone("completed", "r1"))
    assert CreateReply(NUDGE) in talk.later(1.0)


def test_nothing_waits_for_ever() -> None:
    talk = talk_of()
    assert talk.dialogue.deadline < math.inf
    assert told(talk) == [(Blame.CALLEE, Reason.SILENT)]
    assert sound() != HUSH


# ---- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"silence_seconds": 1},
        {"call_seconds": 10},
        {"ahead_seconds": 31},
        {"filler_seconds": 10},
        {"dead_air_seconds": 9},
        {"patience": 9},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits.model_validate(wrong)
