"""What was heard: how far each reply got at the phone, and how long the callee waited for it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from relay.hearing import ReplyHeard
from relay.playout import Playout
from relay.store import CallRecord, TranscriptLine
from relay.turns import SAMPLE_SECONDS, Turns
from relay.wire import agent
from relay.wire.audio import silence
from tests.test_dialogue import HUSH, Talk, sound

TEXT = "Your check-up is on Monday."
TIMES = (("Your ", 250), ("check-up ", 500), ("is ", 750), ("on ", 1000), ("Monday. ", 1500))
NOW = datetime(2026, 3, 10, 18, tzinfo=UTC)


class Listener(Talk):
    """A talk, and what it has settled."""

    def heard(self) -> list[ReplyHeard]:
        settled = list(self.dialogue.hearing.settled)
        self.dialogue.hearing.settled.clear()
        return settled

    def speaks(self, seconds: float, reply_id: str | None = "r1", *, timed: bool = True) -> None:
        """Begin a reply whose sound so far is that long, delivered in no time."""
        self.agent(agent.ReplyStarted(reply_id), agent.ReplyAudio(sound(seconds), reply_id))
        if timed:
            self.agent(*(agent.AgentPartial(word, reply_id, end_ms) for word, end_ms in TIMES))

    def ends(self, text: str = TEXT, status: str = "completed", reply_id: str | None = "r1") -> None:
        self.agent(
            agent.AgentSaid(text, status == "interrupted", reply_id), agent.ReplyDone(status, reply_id)
        )


def begun() -> Listener:
    listener = Listener()
    listener.opened()
    listener.heard()
    return listener


def test_what_a_mark_proves_was_heard_to_its_end() -> None:
    talk = begun()
    talk.speaks(1.5)
    talk.ends()
    assert talk.heard() == []  # sent, and no more is known
    talk.later(1.5)
    talk.echo()

    assert talk.heard() == [ReplyHeard(2, 1.5, 1.5, 1.5, 0.0, TEXT, TEXT)]


def test_the_opening_is_heard_like_any_reply() -> None:
    talk = Listener()
    talk.opened()

    assert [(heard.reply, heard.proven_seconds) for heard in talk.heard()] == [(1, 0.1)]


@pytest.mark.parametrize(
    ("after_seconds", "heard"), [(0.1, ""), (0.6, "Your check-up"), (1.0, "Your check-up is on"), (9.0, TEXT)]
)
def test_an_interrupted_reply_is_cut_at_the_last_word_that_was_played(
    after_seconds: float, heard: str
) -> None:
    talk = begun()
    talk.speaks(1.5)
    talk.later(after_seconds)
    talk.ends(status="interrupted")  # its text runs to what was sent

    (reply,) = talk.heard()
    played = min(after_seconds, 1.5)
    assert reply == ReplyHeard(2, 1.5, round(played, 3), 0.0, round(1.5 - played, 3), TEXT, heard)


def test_the_tail_of_a_finished_reply_is_cut_too() -> None:
    talk = begun()
    talk.speaks(1.5)
    talk.ends()
    talk.later(0.6)
    talk.agent(agent.SpeechStarted())

    (reply,) = talk.heard()
    assert (reply.heard, reply.cleared_seconds) == ("Your check-up", 0.9)
    talk.echo()  # Twilio echoes what the clear dropped as if it had been played
    assert talk.heard() == []


def test_without_the_times_of_its_words_a_text_is_cut_by_its_share_of_the_sound() -> None:
    talk = begun()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(silence(0.5), "r1"))
    talk.speaks(1.0, timed=False)
    talk.later(1.0)
    talk.ends(status="interrupted")

    assert [reply.heard for reply in talk.heard()] == ["Your check-up"]


def test_text_that_is_not_what_its_words_say_is_cut_by_its_share_as_well() -> None:
    talk = begun()
    talk.speaks(1.5)
    talk.later(0.8)
    talk.ends("Something else was said here, ten words of it all.", status="interrupted")

    assert [reply.heard for reply in talk.heard()] == ["Something else was said here,"]


def test_a_reply_that_was_held_back_was_heard_by_nobody() -> None:
    talk = begun()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(HUSH, "r1"))
    talk.ends()
    talk.later(0.1)
    talk.echo()

    assert [(reply.heard, reply.heard_seconds) for reply in talk.heard()] == [("", 0.1)]


def test_text_that_comes_after_the_cut_is_told_then() -> None:
    talk = begun()
    talk.speaks(1.5)
    talk.later(0.6)
    talk.agent(agent.ReplyDone("interrupted", "r1"))
    assert [reply.heard for reply in talk.heard()] == [None]

    talk.agent(agent.AgentSaid(TEXT, True, "r1"))
    assert [(reply.reply, reply.heard) for reply in talk.heard()] == [(2, "Your check-up")]


def test_replies_without_ids_are_told_apart() -> None:
    talk = begun()
    for number in (2, 3):
        talk.speaks(1.5, reply_id=None)
        talk.ends(reply_id=None)
        talk.later(1.5)
        talk.echo()
        assert [(reply.reply, reply.heard) for reply in talk.heard()] == [(number, TEXT)]


def test_a_call_that_ends_in_mid_sentence_has_heard_half_of_it() -> None:
    talk = begun()
    talk.speaks(1.5)
    talk.agent(agent.AgentSaid(TEXT, False, "r1"))
    talk.later(0.6)
    talk.dialogue.hearing.over(talk.now)

    (reply,) = talk.heard()
    assert (reply.heard, reply.heard_seconds, reply.cleared_seconds) == ("Your check-up", 0.6, 0.0)


def test_our_own_words_are_not_the_agents() -> None:
    talk = begun()
    talk.speaks(1.5)
    talk.later(1.5)
    talk.opts_out("key")
    talk.agent(agent.AgentSaid(TEXT, True, "r1"))

    assert [reply.sent_seconds for reply in talk.heard()] == [1.5, 1.5]


def test_the_transcript_of_the_record_ends_where_the_hearing_did() -> None:
    record = CallRecord("call_1", "+12025550143", "default", NOW, 600)
    record.transcribe(TranscriptLine("agent", TEXT, NOW, True), "0.1")
    assert [line.text for line in record.transcript] == [TEXT]

    record.heard(NOW, "0.1", sent_seconds=1.5, heard_seconds=0.6, characters=13)
    shown = record.as_json()
    assert shown["transcript"][0]["text"] == "Your check-up"
    assert shown["transcript"][0]["unheard"] == "is on Monday."
    assert shown["replies"][0]["heard_seconds"] == 0.6


# ---- the wait for an answer ------------------------------------------------------------------------------


def voice(level: int) -> str:
    return base64.b64encode(bytes([0xFF - level]) * 160).decode()


@pytest.mark.parametrize("noise", [0, 20])
def test_the_wait_counts_from_the_end_of_what_was_said(noise: int) -> None:
    playout = Playout()
    turns = Turns(playout)
    for step in range(20):  # a second and a half of speech, and then none
        turns.sampled(voice(90), 10 + step * SAMPLE_SECONDS)
    for step in range(20, 40):
        turns.sampled(voice(noise), 10 + step * SAMPLE_SECONDS)
    turns.commit(13.2)
    playout.sent(0.5, 14.0)  # something of ours
    playout.sent(0.1, 14.0)

    (turn,) = turns.answered(0.1, 14.0)
    assert turn.commit_seconds == pytest.approx(13.2 - 11.52 - SAMPLE_SECONDS / 2)
    assert turn.agent_seconds == pytest.approx(0.8)
    assert turn.queued_seconds == pytest.approx(0.5)


def test_a_turn_in_which_no_speech_was_found_has_no_such_moment() -> None:
    turns = Turns(Playout())
    turns.sampled(voice(3), 1.0)
    turns.sampled("a", 1.2)  # cannot be read
    turns.commit(2.0)

    assert [turn.commit_seconds for turn in turns.answered(0.1, 3.0)] == [None]
    assert turns.answered(0.1, 4.0) == ()
