"""The agent owes an answer: the callee is told so, the agent is asked, and nobody waits for ever."""

from __future__ import annotations

import pytest

from relay.actions import CancelReply, ClearPhoneAudio, CreateReply, EndCall, Note, PlayOnPhone, SendMark
from relay.clips import Clips
from relay.dead_air import HUSH_SECONDS, NUDGE
from relay.goodbye import FAREWELL_REPLY_SECONDS
from relay.outcomes import Blame, Ending, LegClosed, Reason
from relay.playout import MARK_GRACE_SECONDS
from relay.session_faults import socket_lost
from relay.wire import agent
from tests.test_dialogue import HUSH, PATIENT, Talk, endings, of, sound, without_notes

FILLER_SECONDS, NUDGE_SECONDS, DEAD_AIR_SECONDS = (
    PATIENT.filler_seconds,
    PATIENT.nudge_seconds,
    PATIENT.dead_air_seconds,
)
TOOL_FILLER_SECONDS = PATIENT.tool_filler_seconds
CLIPS = Clips(filler=b"\x31" * 4000, apology=b"\x32" * 8000)
FILLER = [PlayOnPhone(sound(0.5, 0x31)), SendMark("clip.2.0")]


def asked() -> Talk:
    """The callee has said something, and the agent is to answer."""
    talk = Talk(clips=CLIPS).opened()
    talk.agent(agent.SpeechStarted(), agent.SpeechStopped(), agent.CalleeSaid("Tuesday?"))
    talk.all.clear()
    return talk


def test_an_answer_that_does_not_come_is_covered_up_for_asked_for_and_given_up() -> None:
    talk = asked()

    assert talk.later(FILLER_SECONDS - 0.1) == []
    assert without_notes(talk.later(0.1)) == FILLER
    assert talk.later(NUDGE_SECONDS - FILLER_SECONDS - 0.1) == []
    assert talk.later(0.1) == [Note("nudge"), CreateReply(NUDGE)]
    assert talk.later(DEAD_AIR_SECONDS - NUDGE_SECONDS - 0.1) == []
    apology = talk.later(0.1)
    assert apology == [PlayOnPhone(sound(1.0, 0x32)), SendMark("last-words.3.0")]
    assert endings(talk.echo("last-words.3.0")) == [(Blame.AGENT, Reason.SILENT)]


def test_an_apology_that_is_not_echoed_is_not_waited_for_long() -> None:
    talk = asked()
    talk.later(DEAD_AIR_SECONDS)

    assert endings(talk.later(1.0 + MARK_GRACE_SECONDS)) == [(Blame.AGENT, Reason.SILENT)]


def test_the_first_sound_of_an_answer_ends_the_count_and_silence_does_not() -> None:
    talk = asked()
    talk.later(4.0)
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(HUSH, "r1"))
    assert of(talk.later(1.0), PlayOnPhone) == FILLER[:1]

    talk.agent(agent.ReplyAudio(sound(), "r1"))
    assert talk.later(60.0) == []


def test_an_answer_is_not_cut_by_the_filler_that_it_overtook() -> None:
    talk = asked()
    talk.later(FILLER_SECONDS)
    said = talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(), "r1"))

    assert of(said, PlayOnPhone) == [PlayOnPhone(sound())]  # behind the clip, which it does not clear
    assert of(said, ClearPhoneAudio) == []


def test_whoever_speaks_over_the_filler_silences_it_and_is_waited_for() -> None:
    talk = asked()
    talk.later(FILLER_SECONDS)

    assert ClearPhoneAudio() in talk.agent(agent.SpeechStarted())
    assert talk.later(60.0) == []


def test_a_silent_reply_is_stopped_before_the_agent_is_asked_again() -> None:
    talk = asked()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(HUSH, "r1"))

    assert without_notes(talk.later(NUDGE_SECONDS))[-1] == CancelReply("r1")
    talk.agent(agent.ReplyDone("completed", "r1"))
    assert of(talk.later(HUSH_SECONDS), CreateReply) == [CreateReply(NUDGE)]


def test_while_a_tool_runs_nothing_is_counted_and_its_result_begins_the_count_anew() -> None:
    talk = asked()
    talk.calls_tool("c1", "look_up")
    talk.calls_tool("c2", "look_up")
    assert talk.later(TOOL_FILLER_SECONDS - 0.1) == []
    assert of(talk.later(60.0), PlayOnPhone) == FILLER[:1]  # said once, however long they take
    talk.tool("c1")
    assert talk.later(60.0) == []

    talk.tool("c2")
    assert talk.later(FILLER_SECONDS - 0.1) == []
    assert of(talk.later(0.1), PlayOnPhone) == FILLER[:1]


def test_a_goodbye_has_clocks_of_its_own() -> None:
    talk = Talk(clips=CLIPS).opened()
    talk.calls_tool()
    talk.tool("c1", ends_call=True)
    talk.agent(agent.ReplyStarted("farewell"))

    assert of(talk.later(FILLER_SECONDS + FAREWELL_REPLY_SECONDS), PlayOnPhone) == []


def test_an_opt_out_ends_the_count() -> None:
    talk = asked()
    talk.press()

    assert [end.ending.reason for end in of(talk.later(60.0), EndCall)] == [Reason.OPTED_OUT]


def test_a_session_that_takes_over_owes_a_word() -> None:
    talk = asked()
    talk.later(4.0)
    lost = LegClosed(Blame.AGENT, Reason.LOST, "reset")
    talk.took(talk.dialogue.on_agent_lost(socket_lost(lost), talk.now))
    assert talk.later(7.0) == []  # the count of the lost session is over

    talk.agent(agent.SessionReady("s2"))
    assert of(talk.later(FILLER_SECONDS), PlayOnPhone) == FILLER[:1]


@pytest.mark.parametrize("text", ["", "uh"])
def test_only_words_are_owed_an_answer(text: str) -> None:
    talk = Talk(clips=CLIPS).opened()
    talk.agent(agent.CalleeSaid(text))

    assert bool(of(talk.later(FILLER_SECONDS), PlayOnPhone)) == bool(text)


def test_the_ending_says_how_long_it_was_waited_for() -> None:
    talk = Talk().opened()
    talk.agent(agent.CalleeSaid("Hello?"))

    detail = "no answer was heard for 20 s"
    assert of(talk.later(DEAD_AIR_SECONDS), EndCall) == [EndCall(Ending(Blame.AGENT, Reason.SILENT, detail))]


# ---- what must not switch it off -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        (agent.ToolCall("c1", "lookup", {}), agent.ToolCall("c1", "lookup", {})),
        (agent.ToolCall("c1", "lookup", "nonsense"),),
    ],
    ids=["repeated", "unreadable"],
)
def test_a_function_that_does_not_run_leaves_the_answer_owed(messages: tuple[agent.ToolCall, ...]) -> None:
    talk = asked()
    talk.agent(messages[0])
    if len(messages) == 2:
        talk.tool("c1")
        talk.agent(messages[1])
    assert CreateReply(NUDGE) in talk.later(NUDGE_SECONDS)


def test_a_sound_that_nobody_transcribes_leaves_the_answer_owed() -> None:
    talk = asked()
    talk.agent(agent.SpeechStarted(), agent.SpeechStopped())
    assert CreateReply(NUDGE) in talk.later(NUDGE_SECONDS)
