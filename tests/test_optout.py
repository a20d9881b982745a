"""Who does not want to be called is told so in our own words, and the line closes: at once, in any state."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

import pytest

from relay.actions import (
    Action,
    CancelReply,
    ClearPhoneAudio,
    CreateReply,
    EndCall,
    ForwardToAgent,
    Note,
    OptOut,
    OptOutWay,
    PlayOnPhone,
    SendMark,
    Transcribe,
)
from relay.clips import Clips, shipped
from relay.leaving import LEAVING_SECONDS
from relay.limits import Limits
from relay.outcomes import Blame, Ending, Farewell, Reason
from relay.playout import MARK_GRACE_SECONDS
from relay.sessions import RESUME
from relay.simulator.sound import SPEECH_DBFS, level_dbfs
from relay.wire import agent, phone
from relay.wire.audio import BYTES_PER_SECOND, payload_seconds
from tests.test_dialogue import SID, Talk, endings, frame, of, sound, without_notes

CLIP = bytes(range(256)) * 80  # 2.56 s, no two seconds alike
CLIP_SECONDS = len(CLIP) / BYTES_PER_SECOND
CLOSED_SECONDS = 5.0
BLAMES: dict[OptOutWay, Blame] = {
    "key": Blame.CALLEE,
    "words": Blame.CALLEE,
    "tool": Blame.CALLEE,
    "list": Blame.US,
}


def connecting(talk: Talk) -> None:
    """The agent is dead."""


def ready(talk: Talk) -> None:
    talk.agent(agent.SessionReady("sess_1"))


def greeting(talk: Talk) -> None:
    talk.agent(agent.SessionReady("sess_1"), agent.ReplyAudio(sound(), "opening"))


def greeted(talk: Talk) -> None:
    talk.agent(agent.SessionReady("sess_1"))
    talk.says(sound(), reply_id="opening")


def opened(talk: Talk) -> None:
    talk.opened()


def speaking(talk: Talk) -> None:
    talk.opened().agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(3.0), "r1"))


def trailing(talk: Talk) -> None:
    talk.opened().says(sound(3.0))


def interrupted(talk: Talk) -> None:
    talk.opened().says(sound(3.0), status="interrupted")


def running_a_tool(talk: Talk) -> None:
    talk.opened().calls_tool("c9")


def leaving(talk: Talk) -> None:
    talk.leaving()


def farewell_said(talk: Talk) -> None:
    talk.leaving().says(sound(), reply_id="farewell")


def winding_up(talk: Talk) -> None:
    talk.opened().wind_up(within_seconds=2.0)


def impatient(talk: Talk) -> None:
    speaking(talk)
    talk.wind_up(within_seconds=15.0)


STATES = [
    connecting,
    ready,
    greeting,
    greeted,
    opened,
    speaking,
    trailing,
    interrupted,
    running_a_tool,
    leaving,
    farewell_said,
    winding_up,
    impatient,
]
in_any_state = pytest.mark.parametrize("state", STATES)
in_any_way = pytest.mark.parametrize("how", BLAMES)


def in_state(state: Callable[[Talk], None]) -> Talk:
    talk = Talk(clips=Clips(opted_out=CLIP))
    state(talk)
    return talk


def played(actions: Sequence[Action]) -> bytes:
    return b"".join(base64.b64decode(action.payload) for action in of(actions, PlayOnPhone))


def over_is_silent(ending: Ending) -> bool:
    return ending.farewell is Farewell.SILENT


# ---- the wish ---------------------------------------------------------------------------------------------


@in_any_state
@in_any_way
def test_it_is_recorded_then_the_phone_is_silenced_then_our_sentence_is_said(
    state: Callable[[Talk], None], how: OptOutWay
) -> None:
    talk = in_state(state)
    is_silent = state in (connecting, ready, interrupted)

    actions = [action for action in talk.opts_out(how) if not isinstance(action, Transcribe)]

    assert actions[0] == OptOut(how)
    assert (actions[1] == ClearPhoneAudio()) is not is_silent
    assert played(actions) == CLIP
    assert len(of(actions, SendMark)) == 1
    assert max(payload_seconds(piece.payload) for piece in of(actions, PlayOnPhone)) <= 1.0


def test_an_opt_out_is_no_interruption() -> None:
    talk = in_state(speaking)
    talk.opts_out("key")

    assert (talk.dialogue.tally.clears, talk.dialogue.tally.barge_ins) == (1, 0)


def test_what_was_said_is_on_record_before_what_followed() -> None:
    assert in_state(opened).opts_out("words")[0] == Transcribe("callee", "Stop calling me.", False)


@pytest.mark.parametrize(
    ("state", "cancelled"), [(greeting, ["opening"]), (speaking, ["r1"]), (trailing, []), (connecting, [])]
)
def test_the_reply_that_is_being_made_is_cancelled(
    state: Callable[[Talk], None], cancelled: list[str]
) -> None:
    assert [cancel.reply_id for cancel in of(in_state(state).opts_out("key"), CancelReply)] == cancelled


def test_a_reply_without_an_id_is_not_cancelled_but_not_heard_either() -> None:
    talk = in_state(opened)
    talk.agent(agent.ReplyStarted(), agent.ReplyAudio(sound()))

    assert of(talk.opts_out("key"), CancelReply) == []
    assert talk.agent(agent.ReplyAudio(sound())) == []


@pytest.mark.parametrize(
    ("text", "language", "is_wish"),
    [
        ("Please take me off your list.", "en", True),
        ("No thanks. Don't call me again!", "en-US", True),
        ("Deja de llamarme.", "es", True),
        ("Stop calling me.", "es", True),
        ("Stop.", "en", True),
        ("Tuesday is fine.", "en", False),
        ("Can you call me back on Tuesday?", "en", False),
        ("The bus stop is right here.", "en", False),
        ("", "en", False),
    ],
)
def test_plain_words_are_understood_in_the_language_of_the_call(
    text: str, language: str, is_wish: bool
) -> None:
    talk = Talk(clips=Clips(opted_out=CLIP), language=language).opened()

    assert of(talk.agent(agent.CalleeSaid(text)), OptOut) == ([OptOut("words")] if is_wish else [])


def test_what_is_not_final_or_not_the_callees_is_no_wish() -> None:
    talk = in_state(opened)

    heard = talk.agent(agent.CalleePartial("Stop calling me."), agent.AgentSaid("Stop calling me."))

    assert of(heard, OptOut) == []


@pytest.mark.parametrize(
    ("key", "pressed", "is_wish"), [("9", "8", False), ("*", "*", True), (None, "9", False)]
)
def test_only_the_agreed_key_is_a_wish(key: str | None, pressed: str, is_wish: bool) -> None:
    talk = Talk(clips=Clips(opted_out=CLIP), opt_out_key=key).opened()

    assert bool(of(talk.press(pressed), OptOut)) is is_wish


def test_a_key_of_another_stream_is_no_wish() -> None:
    talk = in_state(opened)

    assert talk.phone(phone.KeyPressed(phone.DtmfBody("9"), "MZ2")) == []


# ---- from then on -----------------------------------------------------------------------------------------


@in_any_state
def test_the_agent_is_neither_played_nor_heard_nor_obeyed(state: Callable[[Talk], None]) -> None:
    talk = in_state(state)
    talk.opts_out("key")
    late, early = talk.dialogue.tally.late_frames, talk.dialogue.tally.early_frames
    talk.all.clear()

    talk.agent(agent.SessionReady("sess_2"), agent.SpeechStarted(), agent.ReplyAudio(sound(), "r1"))
    talk.says(sound(), reply_id="r9")
    talk.says(sound(), reply_id=None, status="interrupted")
    talk.phone(frame())
    talk.calls_tool("c10")
    talk.agent(agent.SessionError("session_expired"), agent.SessionEnded())
    talk.wind_up()

    assert talk.all == []
    assert talk.dialogue.tally.late_frames - late == 3
    assert talk.dialogue.tally.early_frames == early


def test_the_result_of_a_running_tool_is_dropped_and_so_is_its_goodbye() -> None:
    talk = in_state(running_a_tool)
    talk.opts_out("key")

    assert talk.tool("c9", ends_call=True) == [Note("tool result dropped")]
    assert not talk.dialogue.said_goodbye


def test_what_is_said_is_still_written_down() -> None:
    talk = in_state(opened)
    talk.opts_out("key")

    assert talk.agent(agent.CalleeSaid("And do not write."), agent.AgentSaid("Of c", True)) == [
        Transcribe("callee", "And do not write.", False),
        Transcribe("agent", "Of c", True, reply=1),
    ]


@in_any_way
def test_a_second_wish_changes_nothing(how: OptOutWay) -> None:
    talk = in_state(opened)
    talk.opts_out("key")
    until = talk.dialogue.deadline
    talk.later(1.0)

    assert of(talk.opts_out(how), OptOut) == []
    assert talk.dialogue.deadline == until
    assert talk.dialogue.leaving == Ending(Blame.CALLEE, Reason.OPTED_OUT, "key")


def test_before_the_wish_nothing_says_that_there_was_one() -> None:
    assert in_state(opened).dialogue.leaving is None


# ---- the end ----------------------------------------------------------------------------------------------


@in_any_state
@in_any_way
def test_the_echo_of_its_own_mark_ends_the_call(state: Callable[[Talk], None], how: OptOutWay) -> None:
    talk = in_state(state)
    older = of(talk.all, SendMark)
    talk.opts_out(how)
    talk.later(CLIP_SECONDS)
    for mark in older:
        assert talk.echo(mark.name) == []

    assert endings(talk.echo()) == [(BLAMES[how], Reason.OPTED_OUT)]
    assert all(over_is_silent(end.ending) for end in of(talk.all, EndCall))


@in_any_state
@in_any_way
def test_without_an_echo_it_ends_two_seconds_after_the_sentence_and_once(
    state: Callable[[Talk], None], how: OptOutWay
) -> None:
    talk = in_state(state)
    talk.opts_out(how)
    until = min(CLIP_SECONDS + MARK_GRACE_SECONDS, LEAVING_SECONDS)

    assert talk.later(until - 0.1) == []
    assert endings(talk.later(30.0)) == [(BLAMES[how], Reason.OPTED_OUT)]


@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.5, 10.0])
def test_the_line_is_closed_in_five_seconds_however_long_the_sentence_is(seconds: float) -> None:
    talk = Talk(clips=Clips(opted_out=b"\x30" * round(seconds * BYTES_PER_SECOND))).opened()
    talk.opts_out("key")

    assert len(endings(talk.later(CLOSED_SECONDS))) == 1


def test_a_hang_up_is_not_waited_for() -> None:
    talk = in_state(opened)
    talk.opts_out("key")

    assert len(endings(talk.phone(phone.StreamStopped(SID)))) == 1


# ---- the sentence that ships ------------------------------------------------------------------------------


def test_our_sentence_is_as_loud_as_speech_and_short_enough_to_be_heard_to_its_end() -> None:
    clip = shipped().opted_out

    assert len(clip) <= 30_000
    assert len(clip) / BYTES_PER_SECOND + MARK_GRACE_SECONDS <= LEAVING_SECONDS
    assert level_dbfs(clip) == pytest.approx(SPEECH_DBFS, abs=1.0)


# ---- a call that is taken up again ------------------------------------------------------------------------


def test_a_call_taken_up_again_is_open_at_once_and_asks_the_agent_to_go_on() -> None:
    talk = Talk(heard=True)
    assert talk.phone(frame()) == []

    assert without_notes(talk.agent(agent.SessionReady("sess_2"))) == [CreateReply(RESUME)]
    assert talk.phone(frame()) == [ForwardToAgent("callee")]
    assert talk.later(Limits().filler_seconds - 0.1) == []
    assert without_notes(talk.says(sound())) == [PlayOnPhone(sound()), SendMark("reply.1.0")]


def test_a_call_taken_up_again_still_needs_a_session() -> None:
    assert endings(Talk(heard=True).later(60.0)) == [(Blame.AGENT, Reason.NOT_READY)]
