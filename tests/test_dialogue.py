"""The conversation: who is heard when, what silences the phone, and how it ends."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Literal, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
    RetryWithoutVoice,
    RunTool,
    SendMark,
    SendToolResult,
    Transcribe,
    TurnAnswered,
)
from relay.clips import Clips
from relay.compliance import OPT_OUT_KEY
from relay.dialogue import Dialogue
from relay.goodbye import (
    FAREWELL_LIMIT_SECONDS,
    FAREWELL_REPLY_SECONDS,
    GOODBYES_UNDONE,
    REPLY_PATIENCE_SECONDS,
    WIND_UP,
    AfterTool,
)
from relay.keys import Keys
from relay.limits import Limits
from relay.lull import QUESTIONS
from relay.opening import OPENING_SECONDS
from relay.outcomes import Blame, Ending, Reason
from relay.own_stream import FOREIGN_MESSAGES
from relay.playout import MARK_GRACE_SECONDS
from relay.sessions import READY_SECONDS
from relay.terms import BargeIn, Terms
from relay.tool_runs import TOOL_CALLS
from relay.voicemail import FixedTexts, Voicemail
from relay.wire import agent, phone
from relay.wire.audio import payload_seconds, silence

SID = "MZ1"
HUSH = silence(0.1)
NO_CLIPS = Clips()
PATIENT = Limits(silence_seconds=600, monologue_seconds=600)  # nobody is asked anything in these talks
SAID = (Reason.GOODBYE, Reason.TIME_LIMIT)
GOODBYE = Ending(Blame.NOBODY, Reason.GOODBYE)
TIME_LIMIT = Ending(Blame.US, Reason.TIME_LIMIT)
T = TypeVar("T", bound=Action)


def sound(seconds: float = 0.1, fill: int = 0x20) -> str:
    return base64.b64encode(bytes([fill]) * round(seconds * 8000)).decode()


class Talk:
    """A dialogue, a clock that is turned by hand, and everything that was asked for so far."""

    def __init__(
        self,
        *,
        barge_in: BargeIn = BargeIn.INTERRUPTED,
        interruptible: bool = True,
        lead_silence_seconds: float = 0.0,
        now: float = 100.0,
        opt_out_key: str | None = OPT_OUT_KEY,
        keys: Keys | None = None,
        voicemail: Voicemail | None = None,
        texts: FixedTexts | None = None,
        clips: Clips = NO_CLIPS,
        language: str = "en",
        heard: bool = False,
        limits: Limits = PATIENT,
        tool_results: Literal["immediate", "reply-done"] = "immediate",
    ) -> None:
        self.now = now
        self.all: list[Action] = []
        terms = Terms(
            session={},
            time_limit_seconds=math.inf,
            barge_in=barge_in,
            interruptible=interruptible,
            lead_silence_seconds=lead_silence_seconds,
            opt_out_key=opt_out_key,
            keys=keys or Keys(),
            voicemail=voicemail or Voicemail(),
            texts=texts or FixedTexts(),
            clips=clips,
            language=language,
            heard=heard,
            limits=limits,
            tool_results=tool_results,
        )
        self.dialogue = Dialogue(SID, terms, now=now)

    def took(self, actions: Sequence[Action]) -> list[Action]:
        self.all += actions
        return list(actions)

    def agent(self, *messages: agent.AgentMessage) -> list[Action]:
        return [
            action for message in messages for action in self.took(self.dialogue.on_agent(message, self.now))
        ]

    def phone(self, *messages: phone.PhoneMessage) -> list[Action]:
        return [
            action for message in messages for action in self.took(self.dialogue.on_phone(message, self.now))
        ]

    def tool(self, call_id: str, *, is_error: bool = False, ends_call: bool = False) -> list[Action]:
        then: AfterTool | None = Reason.GOODBYE if ends_call else None
        return self.took(self.dialogue.errands.result(call_id, "{}", self.now, is_error=is_error, then=then))

    def press(self, digit: str = OPT_OUT_KEY) -> list[Action]:
        return self.phone(phone.KeyPressed(phone.DtmfBody(digit), SID))

    def opts_out(self, how: OptOutWay) -> list[Action]:
        match how:
            case "key":
                return self.press()
            case "words":
                return self.agent(agent.CalleeSaid("Stop calling me."))
            case "tool" | "list":
                return self.took(self.dialogue.opt_out(how, self.now))

    def machine_detected(self, who: str) -> list[Action]:
        return self.took(self.dialogue.machine_detected(who, self.now))

    def wind_up(self, ending: Ending = TIME_LIMIT, within_seconds: float = 15.0) -> list[Action]:
        return self.took(self.dialogue.wind_up(ending, self.now, within_seconds=within_seconds))

    def later(self, seconds: float) -> list[Action]:
        """Let time pass, ringing at each deadline on the way."""
        until = self.now + seconds
        rung: list[Action] = []
        while self.dialogue.deadline <= until:
            self.now = max(self.now, self.dialogue.deadline)
            rung += self.took(self.dialogue.on_time(self.now))
        self.now = until
        return rung

    def says(self, *chunks: str, reply_id: str | None = "r1", status: str = "completed") -> list[Action]:
        """One whole reply, delivered in no time."""
        return self.agent(
            agent.ReplyStarted(reply_id),
            *(agent.ReplyAudio(chunk, reply_id) for chunk in chunks),
            agent.ReplyDone(status, reply_id),
        )

    def echo(self, mark: str | None = None) -> list[Action]:
        """The carrier has played up to a mark; without a name, up to the last one."""
        return self.phone(phone.MarkReached(phone.MarkBody(mark or of(self.all, SendMark)[-1].name), SID))

    def opened(self) -> Talk:
        """Past the opening: both are heard."""
        self.agent(agent.SessionReady("sess_1"))
        self.says(sound(), reply_id="opening")
        self.later(0.2)
        self.echo()
        self.all.clear()
        return self

    def calls_tool(self, call_id: str = "c1", name: str = "end_call") -> list[Action]:
        return self.agent(agent.ToolCall(call_id, name, {}))

    def leaving(self) -> Talk:
        """The agent has called end_call in a silent reply, and got its result."""
        self.opened()
        self.agent(agent.ReplyStarted("pre-amble"), agent.ReplyAudio(HUSH, "pre-amble"))
        self.calls_tool()
        self.agent(agent.ReplyDone("completed", "pre-amble"))
        self.tool("c1", ends_call=True)
        return self


def of(actions: Sequence[Action], kind: type[T]) -> list[T]:
    return [action for action in actions if isinstance(action, kind)]


def without_notes(actions: Sequence[Action]) -> list[Action]:
    return [action for action in actions if not isinstance(action, Note)]


def frame(payload: str = "callee", *, sid: str = SID, track: str = "inbound") -> phone.Media:
    return phone.Media(phone.MediaBody(payload, track), sid)


# ---- the opening -----------------------------------------------------------------------------------------


def test_nothing_is_forwarded_before_the_opening_was_heard() -> None:
    talk = Talk()
    assert talk.phone(frame()) == []
    talk.agent(agent.SessionReady("sess_1"))
    assert talk.phone(frame()) == []
    talk.says(sound())
    assert talk.phone(frame()) == []
    assert talk.dialogue.tally.early_frames == 3

    talk.echo()
    assert talk.phone(frame()) == [ForwardToAgent("callee")]


def test_the_gate_stays_open() -> None:
    talk = Talk().opened()
    talk.says(sound(), status="interrupted")
    talk.agent(agent.SessionReady("sess_1"))

    assert talk.phone(frame("a"), frame("b")) == [ForwardToAgent("a"), ForwardToAgent("b")]


def test_what_the_callee_does_not_say_is_not_forwarded() -> None:
    assert Talk().opened().phone(frame(track="outbound")) == []


def test_the_line_gets_its_silence_before_the_first_word_and_never_again() -> None:
    talk = Talk(lead_silence_seconds=0.25)
    talk.agent(agent.SessionReady("sess_1"))

    assert of(talk.says(sound()), PlayOnPhone) == [PlayOnPhone(silence(0.25)), PlayOnPhone(sound())]
    assert of(talk.says(sound(), reply_id="r2"), PlayOnPhone) == [PlayOnPhone(sound())]


def test_no_session_within_the_limit_ends_the_call() -> None:
    talk = Talk()

    assert talk.later(READY_SECONDS - 0.1) == []
    assert talk.later(0.1) == [EndCall(Ending(Blame.AGENT, Reason.NOT_READY))]


def test_an_opening_that_does_not_begin_ends_the_call() -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"), agent.ReplyStarted("r1"), agent.ReplyAudio(HUSH, "r1"))

    assert endings(talk.later(OPENING_SECONDS)) == [(Blame.AGENT, Reason.SILENT)]


def test_an_opening_that_does_not_end_ends_the_call() -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"), agent.ReplyAudio(sound(), "r1"))

    assert endings(talk.later(OPENING_SECONDS + MARK_GRACE_SECONDS)) == [(Blame.AGENT, Reason.SILENT)]


def test_an_opening_that_is_not_echoed_ends_the_call() -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"))
    talk.says(sound(3.0))

    assert talk.later(3.0 + MARK_GRACE_SECONDS - 0.1) == []
    assert endings(talk.later(0.1)) == [(Blame.CARRIER, Reason.SILENT)]


@pytest.mark.parametrize(
    ("chunk", "status", "reason"),
    [
        (HUSH, "completed", Reason.SILENT),
        (sound(), "failed", Reason.ERROR),
        (sound(), "interrupted", Reason.ERROR),
        (sound(), "cancelled", Reason.ERROR),
    ],
)
def test_an_opening_that_was_not_spoken_to_its_end_ends_the_call(
    chunk: str, status: str, reason: Reason
) -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"))

    assert endings(talk.says(chunk, status=status)) == [(Blame.AGENT, reason)]


def test_the_person_can_answer_after_ten_seconds_of_opening() -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"), agent.ReplyAudio(silence(10.0), "r1"))
    assert of(talk.all, SendMark) == []  # silence is no opening

    marks = of(talk.agent(*[agent.ReplyAudio(sound(1.0), "r1")] * 12), SendMark)
    assert [mark.name for mark in marks] == ["opening.1.0"]

    talk.echo("opening.1.0")
    assert talk.phone(frame()) == [ForwardToAgent("callee")]
    assert talk.agent(agent.ReplyDone("completed", "r1")) == [SendMark("reply.2.0")]


def test_a_long_opening_may_be_over_before_its_mark_is_echoed() -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"))
    talk.says(*[sound(1.0)] * 12)

    assert of(talk.all, SendMark) == [SendMark("opening.1.0"), SendMark("reply.2.0")]


def test_an_opening_in_many_replies_is_still_ten_seconds_long() -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"))
    for number in range(12):
        talk.agent(agent.ReplyStarted(f"r{number}"), agent.ReplyAudio(sound(1.0), f"r{number}"))
        talk.later(1.0)

    assert of(talk.all, SendMark) == [SendMark("opening.1.0")]


@pytest.mark.parametrize("reply_id", [None, "opening"])
def test_an_end_of_the_opening_said_twice_changes_nothing(reply_id: str | None) -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"))
    talk.says(sound(), reply_id=reply_id)

    assert talk.agent(agent.ReplyDone("completed", reply_id)) == []
    assert talk.echo() == [Note("opening heard", {"mark": "opening.1.0"})]
    assert talk.echo() == []


def test_a_start_that_comes_after_its_audio_changes_nothing() -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"), agent.ReplyAudio(sound(), "r1"), agent.ReplyStarted("r1"))

    assert talk.agent(agent.ReplyDone("completed", "r1")) == [SendMark("opening.1.0")]


def test_nothing_is_played_before_the_session_has_said_what_it_speaks() -> None:
    talk = Talk()

    assert talk.says(sound()) == []
    assert talk.dialogue.tally.late_frames == 1


def test_the_opening_cannot_be_interrupted_by_speech() -> None:
    talk = Talk(barge_in=BargeIn.SPEECH_STARTED)
    talk.agent(agent.SessionReady("sess_1"), agent.ReplyAudio(sound(), "r1"))

    assert talk.agent(agent.SpeechStarted()) == []


# ---- the session -----------------------------------------------------------------------------------------


def endings(actions: Sequence[Action]) -> list[tuple[Blame, Reason]]:
    return [(end.ending.blame, end.ending.reason) for end in of(actions, EndCall)]


def test_a_session_in_another_format_ends_the_call() -> None:
    config = agent.SessionConfig(output=agent.Side(agent.Format("audio/pcm")))

    assert endings(Talk().agent(agent.SessionReady("s", None, config))) == [
        (Blame.AGENT, Reason.WRONG_FORMAT)
    ]


def test_a_second_ready_changes_nothing() -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"))
    deadline = talk.dialogue.deadline
    talk.later(1.0)

    assert talk.agent(agent.SessionReady("sess_1")) == []
    assert talk.dialogue.deadline == deadline


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (agent.SessionError("unauthorized"), (Blame.AGENT, Reason.UNAUTHORIZED)),
        (agent.SessionError("FORBIDDEN"), (Blame.AGENT, Reason.UNAUTHORIZED)),
        (agent.SessionError("invalid_value", "", "llm"), (Blame.AGENT, Reason.REFUSED)),
    ],
)
def test_an_error_before_ready_ends_the_call(
    error: agent.SessionError, expected: tuple[Blame, Reason]
) -> None:
    assert endings(Talk().agent(error)) == [expected]


def test_a_refused_voice_is_tried_again_without() -> None:
    refused = agent.SessionError("invalid_value", "Must be one of: alba", "output.voice")

    assert Talk().agent(refused) == [RetryWithoutVoice("invalid_value: Must be one of: alba")]


@pytest.mark.parametrize("code", ["session_expired", "SESSION_NOT_FOUND", "unauthorized"])
def test_an_error_that_the_session_does_not_survive_ends_the_call(code: str) -> None:
    assert endings(Talk().opened().agent(agent.SessionError(code))) == [(Blame.AGENT, Reason.ERROR)]


def test_an_error_that_the_session_survives_is_noted() -> None:
    talk = Talk().opened()

    assert talk.agent(agent.SessionError("invalid_audio", "Invalid audio data")) == [
        Note("session error", {"code": "invalid_audio"})
    ]


def test_the_end_of_the_session_is_the_end_of_the_call() -> None:
    assert endings(Talk().opened().agent(agent.SessionEnded())) == [(Blame.AGENT, Reason.SESSION_ENDED)]


@pytest.mark.parametrize(
    "message", [agent.SessionUpdated(), agent.CalleePartial("h"), agent.AgentPartial("h")]
)
def test_what_asks_for_nothing_gets_nothing(message: agent.AgentMessage) -> None:
    assert Talk().opened().agent(message) == []


def test_unknown_events_are_counted_and_ignored() -> None:
    talk = Talk().opened()

    assert talk.agent(agent.Unrecognised("x" * 999)) == [Note("unknown agent event", {"name": "x" * 64})]
    assert talk.phone(phone.Unrecognised("y" * 999)) == [Note("unknown phone event", {"name": "y" * 64})]
    assert talk.dialogue.tally.unknown_events == 2


def test_what_both_say_is_transcribed_unless_it_is_nothing() -> None:
    talk = Talk().opened()

    assert talk.agent(
        agent.CalleeSaid("Hello?"),
        agent.CalleeSaid(""),
        agent.AgentSaid("Good day", True),
        agent.AgentSaid(""),
    ) == [Transcribe("callee", "Hello?", False), Transcribe("agent", "Good day", True, reply=1)]


def test_the_wait_for_an_answer_ends_with_its_first_audible_sound() -> None:
    talk = Talk(now=0.0).opened()
    talk.agent(agent.SpeechStopped())
    talk.later(0.5)
    talk.agent(agent.CalleeSaid("Hello?"), agent.ReplyStarted("r1"))
    talk.later(0.5)
    assert of(talk.agent(agent.ReplyAudio(HUSH, "r1")), TurnAnswered) == []
    talk.later(0.5)

    assert of(talk.agent(*[agent.ReplyAudio(sound(), "r1")] * 2), TurnAnswered) == [TurnAnswered(1.5)]
    assert of(talk.says(sound(), reply_id="r2"), TurnAnswered) == []


def test_a_turn_is_committed_by_its_transcript_too() -> None:
    talk = Talk().opened()
    talk.agent(agent.CalleeSaid("Hello?"))
    talk.later(1.0)

    assert of(talk.says(sound()), TurnAnswered) == [TurnAnswered(1.0)]


# ---- the phone -------------------------------------------------------------------------------------------


def start(inner: str, outer: str) -> phone.StreamStarted:
    media_format = phone.MediaFormat("audio/x-mulaw", 8000, 1)
    return phone.StreamStarted(phone.StartBody("AC1", inner, "CA1", media_format), outer)


def test_a_start_said_twice_is_noted() -> None:
    assert Talk().opened().phone(phone.Connected(), start(SID, SID)) == [Note("start repeated")]


@pytest.mark.parametrize(("inner", "outer"), [("MZ2", "MZ2"), ("MZ2", SID), (SID, "MZ2")])
def test_a_second_and_different_start_ends_the_call(inner: str, outer: str) -> None:
    assert endings(Talk().opened().phone(start(inner, outer))) == [(Blame.CARRIER, Reason.PROTOCOL)]


def test_the_end_of_the_stream_is_the_callees_doing() -> None:
    assert endings(Talk().opened().phone(phone.StreamStopped(SID))) == [(Blame.CALLEE, Reason.HUNG_UP)]


def test_a_key_is_noted_but_not_which() -> None:
    assert Talk().opened().press("7") == [Note("key pressed")]


def test_messages_for_another_stream_are_dropped_and_the_tenth_ends_the_call() -> None:
    talk = Talk().opened()
    foreign: list[phone.PhoneMessage] = [
        frame(sid="MZ2"),
        phone.StreamStopped("MZ2"),
        phone.MarkReached(phone.MarkBody("a"), "MZ2"),
    ]

    assert talk.phone(*foreign * 3) == []
    assert endings(talk.phone(foreign[0])) == [(Blame.CARRIER, Reason.PROTOCOL)]
    assert talk.dialogue.tally.foreign_messages == FOREIGN_MESSAGES


# ---- passthrough and marks -------------------------------------------------------------------------------


def test_audio_is_played_untouched_and_in_order() -> None:
    talk = Talk().opened()
    chunks = [sound(0.0375, fill) for fill in range(9)] + ["", "not base64 at all"]

    assert of(talk.says(*chunks), PlayOnPhone) == [PlayOnPhone(chunk) for chunk in chunks]


@pytest.mark.parametrize("reply_id", [None, "r1"])
def test_a_mark_follows_each_replys_audio(reply_id: str | None) -> None:
    talk = Talk().opened()

    assert isinstance(talk.says(sound(), reply_id=reply_id)[-1], SendMark)
    assert talk.says(reply_id=reply_id and "r2") == []  # nothing was sent, nothing is marked


@pytest.mark.parametrize(
    "messages",
    [
        [agent.ReplyStarted(), agent.ReplyAudio(sound(), "r1"), agent.ReplyDone("completed", "r1")],
        [agent.ReplyStarted("r1"), agent.ReplyAudio(sound()), agent.ReplyDone()],
        [agent.ReplyStarted(), agent.ReplyAudio(sound(), "r1"), agent.ReplyDone()],
        [agent.ReplyAudio(sound(), "r1"), agent.ReplyDone("completed", "r1")],
        [agent.ReplyStarted("r1"), agent.ReplyStarted("r1"), agent.ReplyAudio(sound()), agent.ReplyDone()],
        [agent.ReplyStarted(), agent.ReplyAudio(sound()), agent.ReplyDone("completed", "r1")],
    ],
)
def test_a_reply_is_one_reply_whatever_ids_are_missing(messages: list[agent.AgentMessage]) -> None:
    assert without_notes(Talk().opened().agent(*messages)) == [PlayOnPhone(sound()), SendMark("reply.2.0")]


def test_audio_without_any_start_is_a_reply() -> None:
    talk = Talk()
    talk.agent(agent.SessionReady("sess_1"), agent.ReplyAudio(sound()))

    assert talk.agent(agent.ReplyDone()) == [SendMark("opening.1.0")]


@pytest.mark.parametrize("reply_id", [None, "r1"])
def test_audio_that_trails_behind_the_end_of_its_reply_is_played(reply_id: str | None) -> None:
    talk = Talk().opened()
    talk.says(sound(), reply_id=reply_id)

    assert talk.agent(agent.ReplyAudio(sound(), reply_id)) == [PlayOnPhone(sound())]
    talk.later(0.1)
    assert ClearPhoneAudio() in talk.agent(agent.SpeechStarted())  # it did not become a reply that never ends
    assert talk.agent(agent.ReplyAudio(sound(), reply_id)) == []


def test_the_end_of_a_reply_that_another_one_overtook_ends_nothing() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(), "r1"), agent.ReplyStarted("r2"))

    assert talk.agent(agent.ReplyDone("completed", "r1")) == []
    assert talk.agent(agent.ReplyAudio(sound(), "r2"), agent.ReplyDone("completed", "r2"))[-1] == SendMark(
        "reply.2.0"
    )


def test_a_failed_reply_is_over() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(), "r1"))

    assert talk.agent(agent.ReplyError("provider_error", "", "r1")) == [
        Note("reply failed", {"code": "provider_error"}),
        SendMark("reply.2.0"),
    ]
    assert talk.agent(agent.ReplyDone("completed", "r1")) == []


# ---- interruption ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["interrupted", "cancelled"])
@pytest.mark.parametrize("done_id", [None, "r1"])
def test_an_interrupted_reply_silences_the_phone_and_never_speaks_again(
    status: str, done_id: str | None
) -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(), "r1"), agent.SpeechStarted())
    talk.now += 0.5

    assert talk.agent(agent.ReplyDone(status, done_id)) == [
        ClearPhoneAudio(),
        Note("barge-in", {"by": "interrupted", "seconds": 0.5}),
    ]
    assert talk.agent(agent.ReplyAudio(sound(), "r1"), agent.ReplyAudio(sound())) == []
    assert talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(), "r1")) == []
    assert talk.agent(agent.ReplyDone("completed", "r1"), agent.ReplyDone("completed")) == []
    assert talk.agent(agent.ReplyDone("interrupted", "r1"), agent.ReplyDone("interrupted")) == []
    assert talk.dialogue.tally.late_frames == 3

    assert of(talk.says(sound(), reply_id="r2"), PlayOnPhone) == [PlayOnPhone(sound())]
    assert talk.agent(agent.ReplyAudio(sound(), "r1")) == []


def test_the_next_reply_speaks_though_no_id_is_ever_given() -> None:
    talk = Talk().opened()
    talk.says(sound(), reply_id=None, status="interrupted")
    assert talk.agent(agent.ReplyAudio(sound())) == []

    assert of(talk.says(sound(), reply_id=None), PlayOnPhone) == [PlayOnPhone(sound())]
    assert talk.agent(agent.ReplyAudio(sound())) == [PlayOnPhone(sound())]


def test_the_end_of_a_dead_reply_does_not_end_one_without_an_id() -> None:
    talk = Talk().opened()
    talk.says(sound(), status="interrupted")
    talk.agent(agent.ReplyStarted(), agent.ReplyAudio(sound()))

    assert talk.agent(agent.ReplyDone("completed", "r1"), agent.ReplyDone("interrupted", "r1")) == []
    assert of(talk.agent(agent.ReplyDone()), SendMark) != []


def test_a_reply_is_interrupted_though_another_one_overtook_it() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(), "r1"), agent.ReplyStarted("r2"))

    assert ClearPhoneAudio() in talk.agent(agent.ReplyDone("interrupted", "r1"))
    assert talk.agent(agent.ReplyAudio(sound(), "r1"), agent.ReplyAudio(sound(), "r2")) == [
        PlayOnPhone(sound())
    ]


def test_a_finished_reply_can_be_interrupted_after_all() -> None:
    talk = Talk().opened()
    talk.says(sound())

    assert ClearPhoneAudio() in talk.agent(agent.ReplyDone("interrupted", "r1"))
    assert talk.agent(agent.ReplyAudio(sound(), "r1")) == []


def test_a_clear_is_left_out_when_nothing_was_sent_since_the_last() -> None:
    talk = Talk().opened()
    talk.says(sound(), status="interrupted")

    assert talk.says(reply_id="r2", status="interrupted") == []
    assert talk.dialogue.tally.clears == 1


def test_speech_clears_the_tail_of_a_reply_that_is_over() -> None:
    talk = Talk().opened()
    talk.says(sound(2.0))
    talk.later(1.0)

    assert talk.agent(agent.SpeechStarted()) == [
        ClearPhoneAudio(),
        Note("barge-in", {"by": "speech started", "seconds": 0.0}),
    ]


def test_speech_clears_nothing_when_all_was_played() -> None:
    talk = Talk().opened()
    talk.says(sound(2.0))
    talk.later(2.0)
    talk.echo()

    assert talk.agent(agent.SpeechStarted()) == []


def test_speech_waits_for_the_agents_verdict_while_a_reply_is_active() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(2.0), "r1"))

    assert talk.agent(agent.SpeechStarted()) == []
    assert ClearPhoneAudio() in talk.agent(agent.ReplyDone("interrupted", "r1"))


def test_speech_always_clears_when_so_configured() -> None:
    talk = Talk(barge_in=BargeIn.SPEECH_STARTED).opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(2.0), "r1"))

    assert ClearPhoneAudio() in talk.agent(agent.SpeechStarted())
    assert talk.agent(agent.SpeechStarted(), agent.ReplyDone("interrupted", "r1")) == []
    talk.says(sound(), reply_id="r2")
    talk.later(5.0)
    talk.echo()
    assert ClearPhoneAudio() in talk.agent(agent.SpeechStarted())


@pytest.mark.parametrize("barge_in", BargeIn)
def test_speech_never_clears_what_may_not_be_interrupted(barge_in: BargeIn) -> None:
    talk = Talk(barge_in=barge_in, interruptible=False).opened()
    talk.says(sound(2.0))

    assert talk.agent(agent.SpeechStarted()) == []


def test_the_echo_of_a_cleared_mark_proves_nothing() -> None:
    talk = Talk().leaving()
    talk.says(sound(2.0), reply_id="farewell")
    talk.says(sound(), reply_id="farewell", status="interrupted")

    assert talk.echo() == []


# ---- tools -----------------------------------------------------------------------------------------------


def test_a_tool_is_run_and_answered_once() -> None:
    talk = Talk().opened()

    assert talk.agent(agent.ToolCall("c1", "look_up", '{"a":1}')) == [RunTool("c1", "look_up", {"a": 1})]
    assert talk.tool("c1") == [SendToolResult("c1", "{}", False)]
    assert talk.tool("c1") == [Note("tool result dropped")]
    assert talk.agent(agent.ToolCall("c1", "look_up", {})) == [
        Note("tool call repeated", {"tool": "look_up"})
    ]


def test_arguments_that_cannot_be_read_are_answered_with_what_is_wrong() -> None:
    talk = Talk().opened()

    assert talk.agent(agent.ToolCall("c1", "look_up", [1])) == [
        SendToolResult("c1", "arguments of look_up are no object", True)
    ]
    assert talk.tool("c1") == [Note("tool result dropped")]


@pytest.mark.parametrize("interruption", [agent.ReplyDone("interrupted", "r1"), agent.ReplyDone("cancelled")])
def test_a_result_of_an_interrupted_turn_is_dropped(interruption: agent.ReplyDone) -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"))
    talk.calls_tool()
    talk.agent(interruption)

    assert talk.tool("c1", ends_call=True) == [Note("tool result dropped")]
    assert not talk.dialogue.said_goodbye


def test_an_agent_in_a_loop_is_told_no() -> None:
    talk = Talk().opened()
    for number in range(TOOL_CALLS):
        assert of(talk.calls_tool(f"c{number}"), RunTool)

    assert of(talk.calls_tool("more"), SendToolResult)[0].is_error
    assert of(talk.calls_tool("more"), SendToolResult) == []


# ---- goodbye ---------------------------------------------------------------------------------------------


def test_the_call_ends_when_the_goodbye_was_heard() -> None:
    talk = Talk().leaving()
    assert talk.dialogue.said_goodbye

    assert talk.says(sound(2.0), reply_id="farewell")[-1] == SendMark("goodbye.3.0")
    talk.later(2.1)
    assert without_notes(talk.echo()) == [EndCall(GOODBYE)]


def test_a_goodbye_that_is_not_echoed_is_not_waited_for_long() -> None:
    talk = Talk().leaving()
    talk.later(1.0)
    talk.says(sound(2.0), reply_id="farewell")

    assert talk.later(2.0 + MARK_GRACE_SECONDS - 0.5) == []
    assert talk.later(0.5) == [EndCall(GOODBYE)]


@pytest.mark.parametrize("chunk", [HUSH, sound()])
@pytest.mark.parametrize("result_first", [True, False])
def test_the_reply_in_which_the_agent_asked_to_leave_is_not_its_goodbye(
    chunk: str, result_first: bool
) -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(chunk, "r1"))
    talk.calls_tool()
    if result_first:
        talk.tool("c1", ends_call=True)
    talk.agent(agent.ReplyDone("completed", "r1"))
    if not result_first:
        talk.tool("c1", ends_call=True)
    assert talk.echo() == []
    talk.later(1.0)

    assert talk.says(sound(), reply_id="farewell")[-1] == SendMark("goodbye.3.0")


def test_what_was_spoken_counts_when_no_goodbye_comes() -> None:
    talk = Talk().leaving()

    assert talk.later(FAREWELL_REPLY_SECONDS - 0.1) == []
    assert talk.later(0.1) == [SendMark("goodbye.3.0")]
    assert without_notes(talk.echo()) == [EndCall(GOODBYE)]


@pytest.mark.parametrize(("chunk", "status"), [(HUSH, "completed"), (sound(), "failed")])
def test_a_goodbye_that_was_not_spoken_is_waited_for_again(chunk: str, status: str) -> None:
    talk = Talk().leaving()
    assert of(talk.says(chunk, reply_id="r1", status=status), SendMark)[0].name.startswith("reply")
    talk.later(1.0)

    assert talk.says(sound(), reply_id="farewell")[-1] == SendMark("goodbye.4.0")


def test_a_reply_on_top_of_the_goodbye_is_heard_too() -> None:
    talk = Talk().leaving()
    talk.says(sound(), reply_id="farewell")
    talk.agent(agent.ReplyStarted("more"), agent.ReplyAudio(sound(5.0), "more"))

    assert talk.echo() == []
    assert talk.later(4.0) == []
    assert talk.agent(agent.ReplyDone("completed", "more")) == [SendMark("goodbye.4.0")]
    assert without_notes(talk.echo()) == [EndCall(GOODBYE)]


def test_a_silent_reply_on_top_of_the_goodbye_may_announce_more() -> None:
    talk = Talk().leaving()
    talk.says(sound(), reply_id="farewell")
    talk.says(reply_id="pre-amble")

    assert talk.later(FAREWELL_REPLY_SECONDS - 0.1) == []
    assert talk.says(sound(), reply_id="more")[-1] == SendMark("goodbye.4.0")


def test_a_goodbye_is_not_cut_off_because_it_begins_late() -> None:
    talk = Talk().leaving()
    talk.later(FAREWELL_REPLY_SECONDS - 0.1)
    talk.agent(agent.ReplyStarted("farewell"), agent.ReplyAudio(sound(5.0), "farewell"))

    assert talk.later(5.0) == []


def test_a_goodbye_without_end_is_ended() -> None:
    talk = Talk().leaving()
    talk.agent(agent.ReplyStarted("farewell"), agent.ReplyAudio(sound(25.0), "farewell"))

    assert talk.later(FAREWELL_LIMIT_SECONDS) == [EndCall(GOODBYE)]


def test_ending_the_call_twice_is_one_goodbye() -> None:
    talk = Talk().leaving()
    talk.calls_tool("c2")

    assert talk.tool("c2", ends_call=True) == [SendToolResult("c2", "{}", False)]


def test_a_tool_that_fails_to_end_the_call_does_not() -> None:
    talk = Talk().opened()
    talk.calls_tool()
    talk.tool("c1", is_error=True, ends_call=True)

    assert not talk.dialogue.said_goodbye


@pytest.mark.parametrize("during", ["reply", "tail"])
def test_interrupting_the_goodbye_undoes_it_twice_and_no_more(during: str) -> None:
    talk = Talk().opened()
    for number in range(GOODBYES_UNDONE + 1):
        talk.calls_tool(f"c{number}")
        talk.tool(f"c{number}", ends_call=True)
        talk.agent(agent.ReplyStarted(f"r{number}"), agent.ReplyAudio(sound(), f"r{number}"))
        if during == "reply":
            talk.agent(agent.ReplyDone("interrupted", f"r{number}"))
        else:
            talk.agent(agent.ReplyDone("completed", f"r{number}"), agent.SpeechStarted())
        assert talk.dialogue.said_goodbye == (number == GOODBYES_UNDONE)
        if number < GOODBYES_UNDONE:
            assert talk.dialogue.deadline > talk.now + FAREWELL_LIMIT_SECONDS

    assert of(talk.later(FAREWELL_REPLY_SECONDS), SendMark) != []
    assert without_notes(talk.echo()) == [EndCall(GOODBYE)]


def test_the_echo_of_an_undone_goodbye_ends_nothing() -> None:
    talk = Talk().leaving()
    talk.says(sound(), reply_id="farewell")
    talk.agent(agent.SpeechStarted())

    assert talk.echo() == []


# ---- winding up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_ready", [False, True])
def test_before_the_opening_was_heard_there_is_nothing_to_wind_up(is_ready: bool) -> None:
    talk = Talk()
    if is_ready:
        talk.agent(agent.SessionReady("sess_1"))

    assert talk.wind_up() == [EndCall(TIME_LIMIT)]


def test_a_wind_up_has_the_agent_say_goodbye() -> None:
    talk = Talk().opened()

    assert talk.wind_up() == [Note("winding up"), CreateReply(WIND_UP)]
    assert talk.says(sound(), reply_id="farewell")[-1] == SendMark("goodbye.2.0")
    assert without_notes(talk.echo()) == [EndCall(TIME_LIMIT)]


def test_a_wind_up_lets_the_agent_finish_its_sentence() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(), "r1"))

    assert talk.wind_up() == [Note("winding up")]
    talk.later(REPLY_PATIENCE_SECONDS - 0.1)
    assert talk.agent(agent.ReplyDone("completed", "r1")) == [SendMark("reply.2.0"), CreateReply(WIND_UP)]
    talk.agent(agent.ReplyStarted("farewell"), agent.ReplyAudio(sound(5.0), "farewell"))
    assert talk.later(5.0) == []


def test_a_wind_up_stops_a_sentence_that_does_not_end() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyAudio(sound(), "r1"))
    talk.wind_up()

    assert talk.later(REPLY_PATIENCE_SECONDS) == [CancelReply("r1")]
    assert without_notes(talk.agent(agent.ReplyDone("cancelled", "r1"))) == [
        ClearPhoneAudio(),
        CreateReply(WIND_UP),
    ]


def test_a_reply_without_an_id_cannot_be_stopped() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted(), agent.ReplyAudio(sound()))
    talk.wind_up(within_seconds=10.0)

    assert talk.later(9.0) == []
    assert talk.later(1.0) == [EndCall(TIME_LIMIT)]


def test_a_wind_up_is_never_undone() -> None:
    talk = Talk().opened()
    talk.wind_up()
    for number in range(5):
        talk.says(sound(), reply_id=f"r{number}", status="interrupted")
        assert talk.dialogue.said_goodbye

    assert of(talk.later(15.0), EndCall)[0] == EndCall(TIME_LIMIT)


def test_a_wind_up_takes_over_the_goodbye_that_is_being_said() -> None:
    talk = Talk().leaving()
    assert talk.wind_up(within_seconds=5.0) == []
    talk.says(sound(), reply_id="farewell", status="interrupted")
    assert talk.dialogue.said_goodbye
    talk.agent(agent.ReplyStarted("r2"))

    assert talk.later(5.0) == [EndCall(GOODBYE)]


def test_a_later_wind_up_does_not_put_off_an_earlier_one() -> None:
    talk = Talk().opened()
    talk.wind_up(within_seconds=3.0)
    talk.wind_up(Ending(Blame.US, Reason.DRAINED), within_seconds=60.0)
    talk.agent(agent.ReplyStarted("r1"))

    assert talk.later(3.0) == [EndCall(TIME_LIMIT)]


def test_nobody_is_asked_for_a_goodbye_while_a_reply_is_active() -> None:
    talk = Talk().opened()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyStarted("r2"))
    talk.wind_up()

    assert of(talk.agent(agent.ReplyDone("interrupted", "r1")), CreateReply) == []
    assert of(talk.agent(agent.ReplyDone("completed", "r2")), CreateReply) == [CreateReply(WIND_UP)]


def test_a_cut_reply_does_not_end_a_wind_up_while_another_one_speaks() -> None:
    talk = Talk().opened()
    talk.wind_up()
    talk.agent(agent.ReplyStarted("r1"), agent.ReplyStarted("farewell"))
    talk.agent(agent.ReplyDone("interrupted", "r1"), agent.ReplyAudio(sound(6.0), "farewell"))

    assert talk.later(6.0) == []
    assert talk.agent(agent.ReplyDone("completed", "farewell")) == [SendMark("goodbye.2.1")]


# ---- any history whatever --------------------------------------------------------------------------------

IDS = st.sampled_from([None, "r1", "r2", "r3", "r4"])
CALL_IDS = ("c1", "c2", "c3", "c4")
CALLS = st.sampled_from(CALL_IDS)
SECONDS = st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.5, 4.0])
BOUNDS = st.sampled_from([1.0, 5.0, 15.0])
WAYS: st.SearchStrategy[OptOutWay] = st.sampled_from(["key", "words", "tool", "list"])
CLIPS = [b"", b"\x30" * 19_520, b"\x30" * 80_000]
CHUNKS = {"silence": HUSH, "sound": sound(), "long sound": sound(3.0), "nothing": ""}


class AnyHistory(RuleBasedStateMachine):
    """Both far ends do what they like; what we do keeps its promises."""

    @initialize(
        barge_in=st.sampled_from(BargeIn),
        interruptible=st.booleans(),
        opened=st.booleans(),
        clip=st.sampled_from(CLIPS),
    )
    def begin(self, barge_in: BargeIn, interruptible: bool, opened: bool, clip: bytes) -> None:
        clips, limits = Clips(opted_out=clip), Limits()
        self.talk = Talk(barge_in=barge_in, interruptible=interruptible, clips=clips, limits=limits)
        self.clip = clip
        self.opted_out_at: float | None = None
        self.sent_since_clear = False
        self.dead: set[str] = set()
        self.played: set[str] = set()  # replies of which something was sent since the last clear
        self.is_open = opened
        self.live_marks: set[str] = set()
        self.results: list[str] = []
        self.goodbyes_undone = 0
        self.winding_up_until = math.inf
        self.over = False
        if opened:
            self.talk.opened()
            self.sent_since_clear = True

    def check(self, actions: Sequence[Action]) -> None:
        """The promises that hold for every answer, whatever it answers."""
        if self.opted_out_at is not None:
            assert {type(action) for action in actions} <= {Transcribe, Note, EndCall}, "not left alone"
        for action in actions:
            match action:
                case OptOut():
                    self.opted_out_at = self.talk.now
                    self.winding_up_until = math.inf
                case PlayOnPhone():
                    self.sent_since_clear = True
                case ClearPhoneAudio():
                    assert self.sent_since_clear, "a clear, though nothing was sent since the last"
                    self.sent_since_clear = False
                    self.live_marks.clear()
                    self.played.clear()
                case SendMark(name):
                    assert name not in self.live_marks
                    self.live_marks.add(name)
                case SendToolResult(call_id):
                    assert call_id not in self.results, "two results for one call"
                    self.results.append(call_id)
                case Note("goodbye undone"):
                    self.goodbyes_undone += 1
                    assert self.winding_up_until == math.inf, "a wind-up was undone"
                    assert self.goodbyes_undone <= GOODBYES_UNDONE
                case EndCall(ending):
                    self.over = True
                    if self.opted_out_at is not None:
                        assert ending.reason is Reason.OPTED_OUT
                        assert self.talk.now - self.opted_out_at < 5.0
                case ForwardToAgent():
                    assert self.is_open, "the callee was forwarded before the opening was heard"
                case _:
                    pass

    @precondition(lambda self: self.over)
    @rule()
    def nothing_more_happens(self) -> None:
        """The call is over."""

    # ---- the agent

    @precondition(lambda self: not self.over)
    @rule()
    def session_is_ready(self) -> None:
        self.check(self.talk.agent(agent.SessionReady("sess_1")))

    @precondition(lambda self: not self.over)
    @rule(reply_id=IDS)
    def reply_starts(self, reply_id: str | None) -> None:
        assert self.talk.agent(agent.ReplyStarted(reply_id)) == []

    @precondition(lambda self: not self.over)
    @rule(reply_id=IDS, chunk=st.sampled_from(list(CHUNKS)))
    def reply_sounds(self, reply_id: str | None, chunk: str) -> None:
        actions = self.talk.agent(agent.ReplyAudio(CHUNKS[chunk], reply_id))
        played = of(actions, PlayOnPhone)
        assert played in ([], [PlayOnPhone(CHUNKS[chunk])])
        assert not (played and reply_id in self.dead), "a dead reply speaks"
        self.check(actions)
        if played and reply_id is not None:
            self.played.add(reply_id)

    @precondition(lambda self: not self.over)
    @rule(reply_id=IDS, status=st.sampled_from(["completed", "interrupted", "cancelled", "failed"]))
    def reply_ends(self, reply_id: str | None, status: str) -> None:
        actions = self.talk.agent(agent.ReplyDone(status, reply_id))
        if reply_id is not None and status in ("interrupted", "cancelled"):
            if reply_id in self.played:
                assert ClearPhoneAudio() in actions, "an interruption left the phone talking"
            self.dead.add(reply_id)
        self.check(actions)

    @precondition(lambda self: not self.over)
    @rule(reply_id=IDS)
    def reply_fails(self, reply_id: str | None) -> None:
        self.check(self.talk.agent(agent.ReplyError("provider_error", "", reply_id)))

    @precondition(lambda self: not self.over)
    @rule()
    def callee_speaks(self) -> None:
        self.check(self.talk.agent(agent.SpeechStarted()))

    @precondition(lambda self: not self.over)
    @rule()
    def something_new_happens(self) -> None:
        self.check(self.talk.agent(agent.Unrecognised("new")))
        self.check(self.talk.phone(phone.Unrecognised("new")))

    @precondition(lambda self: not self.over)
    @rule(call_id=CALLS, arguments=st.sampled_from(["{}", "["]))
    def tool_is_called(self, call_id: str, arguments: str) -> None:
        self.check(self.talk.agent(agent.ToolCall(call_id, "a_tool", arguments)))

    @precondition(lambda self: not self.over)
    @rule(call_id=CALLS, is_error=st.booleans(), ends_call=st.booleans())
    def tool_returns(self, call_id: str, is_error: bool, ends_call: bool) -> None:
        self.check(self.talk.tool(call_id, is_error=is_error, ends_call=ends_call))

    # ---- the carrier

    @precondition(lambda self: not self.over)
    @rule()
    def callee_is_heard(self) -> None:
        self.check(self.talk.phone(frame()))

    @precondition(lambda self: not self.over)
    @rule(back=st.integers(0, 5))
    def mark_is_echoed(self, back: int) -> None:
        """Any mark of late, also one that a clear overtook or that was echoed already."""
        marks = of(self.talk.all, SendMark)
        if back >= len(marks):
            return
        name = marks[-1 - back].name
        is_live = name in self.live_marks
        self.live_marks.discard(name)
        if is_live and name.startswith("opening"):
            self.is_open = True
        actions = self.talk.echo(name)
        if not is_live:
            assert actions == [], "an echo that proves nothing did something"
        for end in of(actions, EndCall):
            if self.opted_out_at is None:
                assert name.startswith("goodbye")
                assert end.ending.reason in (*SAID, Reason.SILENT, Reason.MONOLOGUE)
        self.check(actions)

    # ---- time, and us

    @precondition(lambda self: not self.over)
    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        until = self.talk.now + seconds
        while not self.over and self.talk.dialogue.deadline <= until:
            self.talk.now = max(self.talk.now, self.talk.dialogue.deadline)
            before = self.talk.dialogue.deadline
            self.check(self.talk.took(self.talk.dialogue.on_time(self.talk.now)))
            assert self.talk.dialogue.deadline > before, "an alarm rings for ever"
        if not self.over:
            self.talk.now = until

    @precondition(lambda self: not self.over)
    @rule(within_seconds=BOUNDS)
    def we_wind_up(self, within_seconds: float) -> None:
        if self.opted_out_at is not None:
            assert self.talk.wind_up(within_seconds=within_seconds) == []
            return
        self.winding_up_until = min(self.winding_up_until, self.talk.now + within_seconds)
        self.check(self.talk.wind_up(within_seconds=within_seconds))
        assert self.over or self.talk.dialogue.said_goodbye

    @precondition(lambda self: not self.over)
    @rule(how=WAYS)
    def callee_opts_out(self, how: OptOutWay) -> None:
        again, clears = self.opted_out_at is not None, self.sent_since_clear
        actions = [action for action in self.talk.opts_out(how) if not isinstance(action, Transcribe)]
        self.check(actions)
        if again:
            assert actions == [], "opted out twice"
            return
        assert actions[0] == OptOut(how)
        assert (actions[1:2] == [ClearPhoneAudio()]) == clears
        assert b"".join(base64.b64decode(sound.payload) for sound in of(actions, PlayOnPhone)) == self.clip
        assert max((payload_seconds(sound.payload) for sound in of(actions, PlayOnPhone)), default=0) <= 1.0

    @invariant()
    def a_wind_up_ends_within_its_bound(self) -> None:
        if hasattr(self, "talk") and not self.over:
            assert self.talk.now < self.winding_up_until
            assert self.talk.dialogue.deadline <= self.winding_up_until

    @invariant()
    def whatever_is_waited_for_has_an_end(self) -> None:
        if hasattr(self, "talk") and not self.over:
            assert self.talk.dialogue.deadline < math.inf

    def teardown(self) -> None:
        """From any state, the clock alone ends what is waited for; the tools have clocks of their own."""
        if not hasattr(self, "talk"):
            return
        for call_id in CALL_IDS:
            if not self.over:
                self.check(self.talk.tool(call_id, is_error=True))
        limits = Limits()
        limit = self.talk.now + FAREWELL_LIMIT_SECONDS + OPENING_SECONDS + limits.dead_air_seconds
        limit += limits.wordless_seconds + (QUESTIONS + 2) * limits.silence_seconds
        while not self.over:
            self.talk.now = max(self.talk.now, self.talk.dialogue.deadline)
            assert self.talk.now <= limit
            self.check(self.talk.took(self.talk.dialogue.on_time(self.talk.now)))


AnyHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestAnyHistory = AnyHistory.TestCase


@pytest.mark.parametrize("seconds", [0.0, 0.1, 3.0])
def test_the_sounds_of_these_tests_play_as_long_as_they_say(seconds: float) -> None:
    assert payload_seconds(sound(seconds)) == seconds
