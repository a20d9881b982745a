"""Who has picked up, and what is done about it: people are talked to, machines are left a message or not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from relay.actions import (
    Action,
    CancelReply,
    ClearPhoneAudio,
    ForwardToAgent,
    Note,
    OpenSession,
    OptOut,
    PlayOnPhone,
    RunTool,
)
from relay.answering import (
    BEEP_SECONDS,
    GREETING_SECONDS,
    LISTEN_SECONDS,
    SCREENING_SECONDS,
    SETTLED_SECONDS,
)
from relay.outcomes import Blame, LegClosed, Reason
from relay.pickup import Kind, kind_of
from relay.reception import ANSWERS, MESSAGE_SECONDS, OPENING_HEARD
from relay.session_faults import socket_lost
from relay.voicemail import FixedTexts, Voicemail
from relay.wire import agent
from tests.test_dialogue import Talk, endings, frame, of, sound

MESSAGE = "This is the assistant of Acme. Please call us back."
ANSWER = "This is the assistant of Acme, about your order."
TEXTS = FixedTexts(message=MESSAGE, answer=ANSWER)
LEAVE = Voicemail(policy="leave-message", message="Please call us back.")
LEAVE_AT_END = LEAVE.model_copy(update={"machine_detection": "detect-message-end"})
GREETING = "Hi, this is Bob. Please leave a message after the tone."
LONG_GREETING = "Hello this is Bob I am somewhere in the mountains with my dog and will be back on Friday"
SCREEN = "Hi, if you record your name and reason for calling, I'll see if this person is available."
MACHINE = (Blame.CALLEE, Reason.MACHINE)
LEFT = (Blame.NOBODY, Reason.MESSAGE_LEFT)


def talk_of(voicemail: Voicemail | None = None, **terms: bool) -> Talk:
    texts = FixedTexts(message=MESSAGE, answer=ANSWER, is_disclosure_apart=terms.pop("apart", False))
    return Talk(voicemail=voicemail, texts=texts)


def opening(talk: Talk) -> Talk:
    """While it is being said."""
    talk.agent(agent.SessionReady("sess_1"), agent.ReplyAudio(sound(3.0), "opening"))
    return talk


def hears(talk: Talk, text: str) -> list[Action]:
    """The callee says something, and it is transcribed."""
    return talk.agent(agent.SpeechStarted(), agent.SpeechStopped(), agent.CalleeSaid(text))


def recites(talk: Talk, session_id: str = "sess_2") -> list[Action]:
    """The session that was asked for says what it has to, and it is heard."""
    talk.agent(agent.SessionReady(session_id))
    talk.says(sound(2.0), reply_id=session_id)
    talk.later(2.0)
    return talk.echo()


def noted(actions: Sequence[Action]) -> list[str]:
    return [note.event for note in of(actions, Note)]


# ---- by words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (GREETING, Kind.MACHINE),
        ("You've reached the voicemail of 202 555 0143.", Kind.MACHINE),
        ("The number you have dialled is not in service.", Kind.MACHINE),
        ("Al oír la señal, deje su mensaje.", Kind.MACHINE),
        (SCREEN, Kind.SCREENING),
        ("Go ahead and say your name and why you're calling.", Kind.SCREENING),
        ("Please state your name and leave a message if nobody answers.", Kind.SCREENING),
        ("Thanks, please stay on the line.", Kind.WAITING),
        ("Hello?", Kind.PERSON),
        ("He is not available right now.", Kind.PERSON),
        ("You've reached Smith and Sons, how can I help you?", Kind.PERSON),
        ("Why are you calling?", Kind.PERSON),
        ("Can you state your business?", Kind.PERSON),
    ],
)
def test_machines_are_known_by_what_they_say(text: str, kind: Kind) -> None:
    assert kind_of(text, "es" if "mensaje" in text else "en") is kind


def test_in_a_language_without_phrases_all_are_tried() -> None:
    assert kind_of("Hinterlassen Sie eine Nachricht nach dem Ton.", "nl") is Kind.MACHINE
    assert kind_of("Hinterlassen Sie eine Nachricht nach dem Ton.", "fr") is Kind.PERSON


# ---- hanging up on machines --------------------------------------------------------------------------------


def test_words_alone_tell_a_machine_without_any_verdict() -> None:
    assert endings(hears(talk_of().opened(), GREETING)) == [MACHINE]


@pytest.mark.parametrize("verdict", ["machine_start", "machine_end_silence", "machine_end_other"])
def test_a_verdict_alone_hangs_up_on_nobody(verdict: str) -> None:
    talk = opening(talk_of())
    assert endings(talk.machine_detected(verdict)) == []
    talk.agent(agent.ReplyDone("completed", "opening"))
    talk.later(3.0)

    assert noted(talk.echo()) == [OPENING_HEARD]
    assert endings(talk.later(LISTEN_SECONDS - 0.1)) == []
    assert endings(talk.later(0.2)) == [MACHINE], "and nobody answers the opening"


@pytest.mark.parametrize("verdict", ["machine_end_beep", "fax"])
def test_no_person_beeps(verdict: str) -> None:
    assert endings(opening(talk_of()).machine_detected(verdict)) == [MACHINE]


def test_a_long_speech_confirms_a_verdict() -> None:
    talk = talk_of().opened()
    talk.machine_detected("machine_start")

    assert endings(hears(talk, LONG_GREETING)) == [MACHINE]


def test_a_long_speech_without_a_verdict_is_a_persons() -> None:
    talk = talk_of().opened()

    assert noted(hears(talk, LONG_GREETING)) == []
    assert talk.phone(frame("a")) == [ForwardToAgent("a")]


@pytest.mark.parametrize("when", ["before", "while", "after"])
def test_a_person_who_was_taken_for_a_machine_is_talked_to_and_counted(when: str) -> None:
    talk = talk_of()
    if when == "before":
        talk.machine_detected("machine_start")
    talk.opened()
    if when == "while":
        talk.agent(agent.SpeechStarted())
        talk.machine_detected("machine_start")
        talk.later(LISTEN_SECONDS + 1)
        talk.agent(agent.SpeechStopped(), agent.CalleeSaid("Accounts department, John speaking."))
    else:
        hears(talk, "Accounts department, John speaking.")
    if when == "after":
        talk.machine_detected("machine_end_silence")

    assert noted(talk.all).count("taken for a machine") == 1
    assert talk.dialogue.tally.people_taken_for_machines == 1
    assert endings(talk.later(LISTEN_SECONDS + 1)) == []
    assert of(talk.says(sound(), reply_id="r1"), PlayOnPhone) != []


def test_whoever_has_talked_like_a_person_twice_may_say_anything() -> None:
    talk = talk_of().opened()
    hears(talk, "Hello?")
    talk.says(sound(), reply_id="r1")
    hears(talk, "Yes, that is fine.")

    assert endings(hears(talk, "Just leave a message after the tone next time.")) == []


@pytest.mark.parametrize("verdict", ["human", "unknown", "something new"])
def test_other_verdicts_change_nothing(verdict: str) -> None:
    talk = talk_of().opened()

    assert talk.machine_detected(verdict) == []
    assert endings(talk.later(LISTEN_SECONDS + 1)) == []


def test_the_policy_may_be_to_go_on() -> None:
    talk = talk_of(Voicemail(policy="continue")).opened()

    assert noted(hears(talk, GREETING)) == ["machine answered"]
    assert endings(talk.later(LISTEN_SECONDS + 1)) == []
    assert of(talk.says(sound(), reply_id="r1"), PlayOnPhone) != []


# ---- a message ---------------------------------------------------------------------------------------------


def says(text: str | None, *, heard: bool = True) -> OpenSession:
    return OpenSession(resume=False, heard=heard, says=text)


def test_a_message_is_what_a_session_of_its_own_begins_with_and_its_mark_ends_the_call() -> None:
    talk = talk_of(LEAVE).opened()
    assert of(hears(talk, GREETING), OpenSession) == []
    assert of(talk.later(SETTLED_SECONDS), OpenSession) == [says(MESSAGE)]

    assert talk.phone(frame()) == [], "nobody is forwarded while it is said"
    assert endings(recites(talk)) == [LEFT]


def test_a_machine_is_not_talked_with_while_it_talks() -> None:
    talk = talk_of(LEAVE).opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(2.0), "r1"))
    actions = hears(talk, GREETING)
    assert [ClearPhoneAudio(), CancelReply("r1")] == [
        action for action in actions if isinstance(action, ClearPhoneAudio | CancelReply)
    ]

    assert talk.agent(agent.ReplyStarted("r2")) == [CancelReply("r2")]
    assert talk.agent(agent.ReplyAudio(sound(), "r2")) == []
    assert of(talk.agent(agent.ToolCall("c1", "end_call", {})), RunTool) == []
    assert talk.phone(frame("a")) == [ForwardToAgent("a")], "but listened to"


def test_a_beep_in_the_middle_of_the_opening_is_answered_with_the_message_at_once() -> None:
    talk = opening(talk_of(LEAVE_AT_END))
    talk.machine_detected("machine_end_beep")
    actions = talk.later(0.0)

    assert of(actions, ClearPhoneAudio) != []
    assert of(actions, OpenSession) == [says(MESSAGE, heard=False)]
    assert endings(recites(talk)) == [LEFT]


def test_a_message_waits_for_the_end_of_the_greeting_where_the_carrier_tells_it() -> None:
    talk = talk_of(LEAVE_AT_END).opened()
    hears(talk, GREETING)
    assert of(talk.later(BEEP_SECONDS - 0.1), OpenSession) == []
    talk.machine_detected("machine_end_beep")

    assert of(talk.later(0.0), OpenSession) == [says(MESSAGE)]


def test_a_greeting_that_goes_on_is_waited_for_and_not_for_ever() -> None:
    talk = talk_of(LEAVE).opened()
    hears(talk, GREETING)
    talk.agent(agent.SpeechStarted())
    assert of(talk.later(GREETING_SECONDS - 0.1), OpenSession) == []

    assert of(talk.later(0.2), OpenSession) == [says(MESSAGE)]


def test_a_person_who_speaks_up_before_the_message_is_a_person() -> None:
    talk = opening(talk_of(LEAVE_AT_END))
    talk.agent(agent.ReplyDone("completed", "opening"))
    talk.later(3.0)
    talk.echo()
    talk.machine_detected("machine_start")
    assert "machine answered" in noted(talk.later(LISTEN_SECONDS))
    hears(talk, "Sorry, who is this?")

    assert "taken for a machine" in noted(talk.all)
    assert of(talk.says(sound(), reply_id="r1"), PlayOnPhone) != []
    assert of(talk.later(GREETING_SECONDS), OpenSession) == []


def test_a_message_may_be_longer_than_an_opening() -> None:
    talk = talk_of(LEAVE).opened()
    hears(talk, GREETING)
    talk.later(SETTLED_SECONDS)
    talk.agent(agent.SessionReady("sess_2"))
    for _ in range(30):
        talk.agent(agent.ReplyAudio(sound(1.0), "m"))
        assert endings(talk.later(1.0)) == []
    talk.agent(agent.ReplyDone("completed", "m"))

    assert endings(talk.echo()) == [LEFT]
    assert MESSAGE_SECONDS > 30


def test_a_message_that_was_cut_off_by_a_loss_is_said_anew() -> None:
    talk = talk_of(LEAVE).opened()
    hears(talk, GREETING)
    talk.later(SETTLED_SECONDS)
    talk.agent(agent.SessionReady("sess_2", resume_token="t"), agent.ReplyAudio(sound(1.0), "m"))
    lost = LegClosed(Blame.AGENT, Reason.LOST, "reset")
    again = talk.took(talk.dialogue.on_agent_lost(socket_lost(lost), talk.now))

    assert of(again, OpenSession) == [says(MESSAGE)]
    assert endings(recites(talk, "sess_3")) == [LEFT]


def test_nobody_leaves_a_message_on_a_fax() -> None:
    assert endings(opening(talk_of(LEAVE)).machine_detected("fax")) == [MACHINE]


def test_the_opt_out_key_counts_while_the_message_is_said() -> None:
    talk = talk_of(LEAVE).opened()
    hears(talk, GREETING)
    talk.later(SETTLED_SECONDS)
    talk.agent(agent.SessionReady("sess_2"), agent.ReplyAudio(sound(1.0), "m"))

    assert of(talk.press(), OptOut) == [OptOut("key")]
    assert endings(talk.later(5.0)) == [(Blame.CALLEE, Reason.OPTED_OUT)]


# ---- screening ---------------------------------------------------------------------------------------------


def test_a_screening_is_told_who_calls_and_why_and_then_only_listened_to() -> None:
    talk = talk_of().opened()
    assert of(hears(talk, SCREEN), OpenSession) == [says(ANSWER)]
    assert noted(recites(talk)) == ["screening answered"]

    assert talk.phone(frame("a")) == [ForwardToAgent("a")]
    assert of(hears(talk, "Thanks, please stay on the line."), OpenSession) == []
    assert talk.agent(agent.ReplyStarted("r1")) == [CancelReply("r1")]
    assert talk.agent(agent.ReplyAudio(sound(), "r1")) == []


def test_the_person_behind_a_screening_hears_the_opening_before_they_are_listened_to() -> None:
    talk = talk_of().opened()
    hears(talk, SCREEN)
    recites(talk)
    assert of(hears(talk, "Hello?"), OpenSession) == [says(None, heard=False)]
    talk.agent(agent.SessionReady("sess_3"))

    assert talk.phone(frame()) == []
    talk.says(sound(2.0), reply_id="again")
    talk.later(2.0)
    assert OPENING_HEARD in noted(talk.echo())
    assert talk.phone(frame("a")) == [ForwardToAgent("a")]


def test_where_the_carrier_spoke_the_disclosure_it_is_said_to_that_person_first() -> None:
    talk = talk_of(apart=True).opened()
    hears(talk, SCREEN)
    recites(talk)
    assert of(hears(talk, "Hello?"), OpenSession) == [says(ANSWER, heard=False)]
    actions = recites(talk, "sess_3")

    assert "disclosure heard" in noted(actions)
    assert of(actions, OpenSession) == [says(None, heard=False)]


def test_somebody_who_is_fetched_hears_the_opening_too() -> None:
    talk = talk_of().opened()
    assert "call screened" in noted(hears(talk, "One moment please, I will get her."))
    assert talk.agent(agent.ReplyStarted("r1")) == [CancelReply("r1")]

    assert of(hears(talk, "Yes?"), OpenSession) == [says(None, heard=False)]


def test_nobody_comes_to_the_telephone() -> None:
    talk = talk_of().opened()
    hears(talk, SCREEN)
    recites(talk)

    assert endings(talk.later(SCREENING_SECONDS)) == [(Blame.CALLEE, Reason.SCREENED)]


def test_a_screening_that_asks_on_is_answered_twice_at_most() -> None:
    talk = talk_of().opened()
    answered = 0
    for number in range(ANSWERS + 1):
        answered += len(of(hears(talk, SCREEN), OpenSession))
        recites(talk, f"answer {number}")

    assert answered == ANSWERS


def test_a_screening_that_is_not_answered_any_more_is_not_waited_for_for_ever() -> None:
    talk = talk_of(LEAVE).opened()
    for number in range(ANSWERS):
        hears(talk, SCREEN)
        recites(talk, f"answer {number}")
    hears(talk, GREETING)
    hears(talk, SCREEN)

    assert endings(talk.later(SCREENING_SECONDS)) == [(Blame.CALLEE, Reason.SCREENED)]


def test_a_screening_that_ends_in_a_voicemail_is_a_machine() -> None:
    talk = talk_of(LEAVE).opened()
    hears(talk, SCREEN)
    recites(talk)
    hears(talk, "This person is not available. " + GREETING)
    talk.later(SETTLED_SECONDS)

    assert endings(recites(talk, "sess_3")) == [LEFT]


def test_a_screening_may_opt_out_for_its_owner() -> None:
    talk = talk_of().opened()
    hears(talk, SCREEN)
    recites(talk)

    assert of(hears(talk, "Please remove this number from your list and do not call again."), OptOut) != []


@pytest.mark.parametrize("before", ["", "Hi."])
def test_a_verdict_on_a_screening_changes_nothing(before: str) -> None:
    talk = talk_of().opened()
    hears(talk, before)
    hears(talk, SCREEN)
    recites(talk)

    assert talk.machine_detected("machine_end_silence") == []
    assert of(hears(talk, "Hello?"), OpenSession) == [says(None, heard=False)]


# ---- nothing of it undoes our last words -------------------------------------------------------------------


@pytest.mark.parametrize("said", [SCREEN, GREETING, "One moment please.", LONG_GREETING])
def test_nothing_that_is_said_undoes_an_opt_out(said: str) -> None:
    talk = talk_of().opened()
    talk.press()
    actions = hears(talk, said)

    assert not [action for action in actions if isinstance(action, OpenSession | ClearPhoneAudio)]
    assert endings(actions) == []
    assert talk.phone(frame()) == []
    assert endings(talk.later(5.0)) == [(Blame.CALLEE, Reason.OPTED_OUT)]


def test_an_answer_that_is_heard_when_its_session_is_lost_is_given_by_the_next_one() -> None:
    talk = talk_of().opened()
    hears(talk, SCREEN)
    talk.agent(agent.SessionReady("sess_2"))
    talk.says(sound(2.0), reply_id="a")
    lost = LegClosed(Blame.AGENT, Reason.LOST, "reset")
    assert of(talk.took(talk.dialogue.on_agent_lost(socket_lost(lost), talk.now)), OpenSession) == [
        says(ANSWER)
    ]
    talk.later(2.0)
    talk.echo()
    assert noted(recites(talk, "sess_3"))[-1] == "screening answered"
    assert talk.phone(frame("a")) == [ForwardToAgent("a")]
    assert endings(talk.later(SCREENING_SECONDS - 1)) == []
