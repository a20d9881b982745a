"""Keys reach the agent in groups, as an instruction for one reply; nothing else learns which they were."""

from __future__ import annotations

import pytest

from relay.actions import CancelReply, ClearPhoneAudio, CreateReply, Note, OptOut, SendToolResult
from relay.compliance import OPT_OUT_KEY
from relay.keypad import GROUPS, HUSH_SECONDS, PRESSED
from relay.keys import LONGEST_GROUP, Keys
from relay.outcomes import Blame, Reason
from relay.profiles import ProfileError, read_profile
from relay.wire import agent
from tests.test_dialogue import Talk, endings, of, sound, without_notes

MENU = Keys(digits=1)
PAUSE_SECONDS = Keys().pause_seconds


def told(*groups: str) -> CreateReply:
    return CreateReply(PRESSED.format(groups=", then ".join(groups)))


def test_a_group_ends_with_its_key() -> None:
    talk = Talk().opened()
    for key in "1234":
        assert without_notes(talk.press(key)) == []

    assert without_notes(talk.press("#")) == [told("1234")]


def test_a_group_ends_with_a_pause() -> None:
    talk = Talk().opened()
    talk.press("1")
    talk.later(PAUSE_SECONDS - 0.1)
    talk.press("2")

    assert without_notes(talk.later(PAUSE_SECONDS - 0.1)) == []
    assert without_notes(talk.later(0.2)) == [told("12")]
    assert of(talk.later(60), CreateReply)[:1] != [told("12")]


def test_in_a_menu_each_key_is_an_answer() -> None:
    assert without_notes(Talk(keys=MENU).opened().press("2")) == [told("2")]


def test_a_group_cannot_grow_without_end() -> None:
    talk = Talk().opened()
    for _ in range(LONGEST_GROUP - 1):
        talk.press("1")

    assert without_notes(talk.press("1")) == [told("1" * LONGEST_GROUP)]


def test_an_end_without_a_group_says_nothing() -> None:
    assert without_notes(Talk().opened().press("#")) == []


def test_what_is_pressed_before_the_opening_was_heard_waits_for_it() -> None:
    talk = Talk(keys=MENU)
    talk.agent(agent.SessionReady("sess_1"))
    talk.says(sound(), reply_id="opening")

    assert without_notes(talk.press("2")) == []
    assert without_notes(talk.echo()) == [told("2")]


def test_the_first_key_silences_the_agent_and_the_answer_waits_until_it_is_silent() -> None:
    talk = Talk(keys=MENU).opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(2.0), "r1"))

    assert without_notes(talk.press("2")) == [ClearPhoneAudio(), CancelReply("r1")]
    assert talk.agent(agent.ReplyAudio(sound(), "r1")) == []
    assert without_notes(talk.agent(agent.ReplyDone("cancelled", "r1"))) == []
    assert without_notes(talk.later(HUSH_SECONDS)) == [told("2")]


def test_only_the_first_key_of_a_group_interrupts() -> None:
    talk = Talk().opened()
    talk.press("1")
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(2.0), "r1"))

    assert without_notes(talk.press("2")) == []


def test_an_agent_that_may_not_be_interrupted_is_told_when_it_has_spoken() -> None:
    talk = Talk(keys=MENU, interruptible=False).opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(2.0), "r1"))

    assert without_notes(talk.press("2")) == []
    assert of(talk.agent(agent.ReplyDone("completed", "r1")), CreateReply) == [told("2")]


def test_a_key_leaves_a_tool_that_runs_in_silence_alone() -> None:
    talk = Talk(keys=MENU).opened()
    talk.later(5)
    talk.agent(agent.ReplyStarted("r1"))
    talk.calls_tool("c1", "lookup_account")

    assert without_notes(talk.press("2")) == []
    assert of(talk.tool("c1"), SendToolResult) != []


def test_groups_that_come_while_the_agent_speaks_are_told_together() -> None:
    talk = Talk(keys=MENU, interruptible=False).opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(2.0), "r1"))
    talk.press("2")
    talk.press("7")

    assert of(talk.agent(agent.ReplyDone("completed", "r1")), CreateReply) == [told("2", "7")]


def test_of_more_groups_than_may_wait_the_newest_are_told() -> None:
    talk = Talk(keys=MENU, interruptible=False).opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(2.0), "r1"))
    keys = "12345678012"
    for key in keys:
        talk.press(key)

    assert len(keys) > GROUPS
    assert of(talk.agent(agent.ReplyDone("completed", "r1")), CreateReply) == [told(*keys[-GROUPS:])]


def test_a_key_undoes_a_goodbye_as_speech_does() -> None:
    talk = Talk(keys=MENU).leaving()
    talk.agent(agent.ReplyStarted("bye"), agent.ReplyAudio(sound(2.0), "bye"))

    assert Note("goodbye undone") in talk.press("2")
    assert of(talk.later(HUSH_SECONDS), CreateReply) == [told("2")]


def test_the_opt_out_key_counts_in_the_middle_of_a_group() -> None:
    talk = Talk().opened()
    talk.press("1")

    assert of(talk.press(OPT_OUT_KEY), OptOut) == [OptOut("key")]
    assert endings(talk.later(60)) == [(Blame.CALLEE, Reason.OPTED_OUT)]
    assert of(talk.all, CreateReply) == []


def test_what_was_pressed_stands_in_the_instruction_and_nowhere_else() -> None:
    talk = Talk().opened()
    for key in "4111#":
        talk.press(key)

    assert [action for action in talk.all if "4111" in repr(action)] == [told("4111")]
    assert {note.event for note in of(talk.all, Note)} == {"key pressed", "keys given"}
    assert all(note.fields == {} for note in of(talk.all, Note))


PROFILE = """
purpose = "informational"
disclosure = "This is the automated assistant of Acme, calling about your order."
system_prompt = "Be kind."
"""


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("keypad = { digits = 16 }", "may be one of them: choose \\*"),
        ("opt_out_key = '#'", "ends a group"),
        ("keypad = { ends_with = '*' }\nopt_out_key = '*'", "ends a group"),
        ("opt_out_key = '*'\ngreeting = 'Hi'\ndisclosure_mode = 'carrier'", "while the carrier speaks"),
        ("opt_out_key = '99'", "opt_out_key"),
        ("keypad = { pause_seconds = 60 }", "keypad.pause_seconds"),
    ],
)
def test_keys_that_would_get_in_each_others_way_are_refused(keys: str, problem: str) -> None:
    with pytest.raises(ProfileError, match=problem):
        read_profile("x", PROFILE + keys, where="x.toml")


def test_numbers_can_be_typed_where_another_key_opts_out() -> None:
    profile = read_profile("x", f"{PROFILE}opt_out_key = '*'\nkeypad = {{ digits = 16 }}", where="x.toml")

    assert (profile.opt_out_key, profile.keypad.digits) == ("*", 16)
