"""What functions do to a conversation: results in their time, keys that nothing cuts, words in their turn."""

from __future__ import annotations

import pytest

from relay.actions import (
    Action,
    ClearPhoneAudio,
    CreateReply,
    KeysOver,
    Note,
    PlayOnPhone,
    SendMark,
    SendToolResult,
)
from relay.clips import Clips
from relay.errands import SAYINGS
from relay.outcomes import Reason
from relay.playout import MARK_GRACE_SECONDS
from relay.terms import BargeIn
from relay.wire import agent
from tests.test_dialogue import PATIENT, Talk, of, sound, without_notes

LOUD = sound()
TOOL_FILLER_SECONDS = PATIENT.tool_filler_seconds
FILLED = Clips(filler=b"\x31" * 4000)


def press(talk: Talk, keys: str = "12#") -> list[Action]:
    return list(talk.took(talk.dialogue.errands.press(keys, talk.now)))


def say(talk: Talk, words: str) -> list[Action]:
    return list(talk.took(talk.dialogue.errands.say(words, talk.now)))


# ---- keys --------------------------------------------------------------------------------------------------


def test_keys_sound_at_the_phone_and_are_over_when_they_were_heard() -> None:
    talk = Talk().opened()
    sent = press(talk)
    (mark,) = [each for each in sent if isinstance(each, SendMark)]
    assert [each for each in sent if isinstance(each, PlayOnPhone)]
    assert Note("keys sent", {"count": 3}) in sent  # and not which
    assert of(talk.echo(mark.name), KeysOver) == [KeysOver(heard=True)]


@pytest.mark.parametrize("barge_in", list(BargeIn))
def test_whoever_speaks_over_keys_does_not_cut_them(barge_in: BargeIn) -> None:
    """A voice menu speaks over everything; half a number would be another number."""
    talk = Talk(barge_in=barge_in).opened()
    sent = press(talk)
    talk.agent(agent.SpeechStarted())
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(LOUD, "r1"), agent.ReplyDone("interrupted", "r1"))
    assert of(talk.all, ClearPhoneAudio) == []
    (mark,) = [each for each in sent if isinstance(each, SendMark)]
    assert of(talk.echo(mark.name), KeysOver) == [KeysOver(heard=True)]
    talk.agent(agent.ReplyStarted("r2"), agent.ReplyAudio(LOUD, "r2"), agent.ReplyDone("interrupted", "r2"))
    assert of(talk.all, ClearPhoneAudio) == [ClearPhoneAudio()]  # what follows may be cut as ever


def test_keys_whose_end_is_never_told_hold_the_phone_for_a_moment_only() -> None:
    talk = Talk().opened()
    press(talk, "1")
    talk.later(0.2 + MARK_GRACE_SECONDS + 0.1)
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(LOUD, "r1"), agent.ReplyDone("interrupted", "r1"))
    assert of(talk.all, ClearPhoneAudio) == [ClearPhoneAudio()]


def test_the_wish_for_no_more_calls_is_stronger_than_keys() -> None:
    talk = Talk().opened()
    press(talk)
    assert ClearPhoneAudio() in talk.press()


def test_keys_wait_for_keys_and_for_the_opening() -> None:
    talk = Talk()
    assert press(talk) == [KeysOver(heard=False)]
    talk.opened()
    press(talk)
    assert press(talk) == [KeysOver(heard=False)]


# ---- words -------------------------------------------------------------------------------------------------


def test_what_a_tool_wants_said_waits_until_the_agent_says_nothing() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(LOUD, "r1"))
    assert say(talk, "Say that it takes a minute.") == []
    assert say(talk, "Say that it is done.") == []
    assert of(talk.agent(agent.ReplyDone("completed", "r1")), CreateReply) == [
        CreateReply("Say that it takes a minute.")
    ]
    talk.agent(agent.ReplyStarted("r2"), agent.ReplyAudio(LOUD, "r2"))
    assert of(talk.agent(agent.ReplyDone("completed", "r2")), CreateReply) == [
        CreateReply("Say that it is done.")
    ]


def test_two_things_are_not_asked_for_at_once() -> None:
    talk = Talk().opened()
    assert of(say(talk, "One."), CreateReply) == [CreateReply("One.")]
    assert say(talk, "Two.") == []


def test_what_is_too_much_is_not_said_and_noted() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"))
    for number in range(SAYINGS):
        assert say(talk, str(number)) == []
    assert without_notes(say(talk, "one too many")) == []
    assert Note("nothing more to be said", {"waiting": SAYINGS}) in talk.all


def test_what_an_interrupted_turn_wanted_said_is_not() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(LOUD, "r1"))
    say(talk, "Old.")
    talk.agent(agent.ReplyDone("interrupted", "r1"))
    talk.agent(agent.ReplyStarted("r2"), agent.ReplyAudio(LOUD, "r2"))
    assert of(talk.agent(agent.ReplyDone("completed", "r2")), CreateReply) == []


def test_nothing_is_said_into_a_goodbye() -> None:
    talk = Talk().opened()
    talk.calls_tool()
    talk.tool("c1", ends_call=True)
    assert say(talk, "And by the way.") == []


# ---- results -----------------------------------------------------------------------------------------------


def test_a_result_goes_to_the_agent_at_once() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"))
    talk.calls_tool()
    assert SendToolResult("c1", "{}", False) in talk.tool("c1")


def test_a_result_may_wait_for_the_end_of_the_reply_that_asked() -> None:
    talk = Talk(tool_results="reply-done").opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(LOUD, "r1"))
    talk.calls_tool()
    assert of(talk.tool("c1"), SendToolResult) == []
    assert of(talk.agent(agent.ReplyDone("completed", "r1")), SendToolResult) == [
        SendToolResult("c1", "{}", False)
    ]


def test_a_result_that_waits_is_dropped_where_its_turn_is_interrupted() -> None:
    talk = Talk(tool_results="reply-done").opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(LOUD, "r1"))
    talk.calls_tool()
    talk.tool("c1")
    talk.agent(agent.ReplyDone("interrupted", "r1"))
    talk.agent(agent.ReplyStarted("r2"), agent.ReplyAudio(LOUD, "r2"))
    assert of(talk.agent(agent.ReplyDone("completed", "r2")), SendToolResult) == []


# ---- a tool that takes long --------------------------------------------------------------------------------


def test_a_quick_tool_is_not_covered_up_for() -> None:
    talk = Talk(clips=FILLED).opened()
    talk.calls_tool()
    assert of(talk.later(TOOL_FILLER_SECONDS - 0.1), PlayOnPhone) == []
    talk.tool("c1")
    assert of(talk.later(0.2), PlayOnPhone) == []


def test_a_slow_tool_is_covered_up_for_once() -> None:
    talk = Talk(clips=FILLED).opened()
    talk.calls_tool()
    assert len(of(talk.later(TOOL_FILLER_SECONDS), PlayOnPhone)) == 1
    assert of(talk.later(60), PlayOnPhone) == []


def test_nothing_is_said_over_what_the_phone_plays() -> None:
    talk = Talk(clips=FILLED).opened()
    talk.calls_tool()
    press(talk, "w" * 20)
    assert of(talk.later(TOOL_FILLER_SECONDS), PlayOnPhone) == []


def test_a_transfer_is_a_goodbye_of_its_own() -> None:
    talk = Talk().opened()
    talk.calls_tool()
    talk.took(talk.dialogue.errands.result("c1", "{}", talk.now, then=Reason.TRANSFERRED))
    assert talk.dialogue.said_goodbye
