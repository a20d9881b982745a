"""What is done about whoever has picked up: a person is talked to, a machine is left, or left a message.

Knows no trio, no clock, no socket, no log and not how the one is told from the other.

A fixed text is what a session of its own begins with: the agent speaks a greeting word for word, and the echo
of its mark proves that it was heard. Nobody is forwarded meanwhile. A person who comes on behind a screening
gets the opening anew, since nothing of the call was said to them before; so does one who is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from relay.actions import Action, CancelReply, EndCall, Note
from relay.alarms import Alarms, Watch
from relay.answering import Answering, Finding
from relay.interruption import Interruption
from relay.opening import OPENING_SECONDS
from relay.outcomes import Blame, Ending, Reason
from relay.replies import Replies
from relay.sessions import Sessions
from relay.standing import Stage, Standing
from relay.tally import Tally
from relay.terms import Terms
from relay.watchdogs import Watchdogs

OPENING_HEARD = "opening heard"  # the note that proves it, also for whoever takes the call over
SCREENED = "call screened"  # from here on it has to be proven anew
MESSAGE_SECONDS = 45.0  # LONGEST_MESSAGE characters at 13 a second, and a slow beginning
ANSWERS = 2  # to a screening; one that asks on is not satisfied by more of the same


class _Says(Enum):
    """What a session is opened to say."""

    OPENING = auto()
    MESSAGE = auto()
    ANSWER = auto()
    DISCLOSURE = auto()  # where the carrier had spoken it to a screening


class Reception:
    """The first words of one call, and to whom they are said."""

    def __init__(
        self,
        standing: Standing,
        alarms: Alarms[Watch],
        replies: Replies,
        interruption: Interruption,
        sessions: Sessions,
        watchdogs: Watchdogs,
        terms: Terms,
        tally: Tally,
    ) -> None:
        self.has_heard = terms.heard  # the opening, whoever it is that talks with us now
        self._standing = standing
        self._alarms = alarms
        self._replies = replies
        self._interruption = interruption
        self._sessions = sessions
        self._watchdogs = watchdogs
        self._policy = terms.voicemail.policy
        self._texts = terms.texts
        self._tally = tally
        self._says = _Says.OPENING
        self._answers = 0
        detects_end = terms.voicemail.machine_detection == "detect-message-end"
        self._answering = Answering(alarms, terms.language, awaits_end=detects_end)
        if terms.heard:
            self._answering.heard(0.0)

    @property
    def longest_seconds(self) -> float:
        """How long somebody is talked at, without being heard, by what is being opened with."""
        return MESSAGE_SECONDS if self._says is _Says.MESSAGE else OPENING_SECONDS

    @property
    def is_listening(self) -> bool:
        """Whether no person is there, so far as is known."""
        return self._answering.is_machine

    # ---- what is noticed -----------------------------------------------------------------------------------

    def told(self, who: str, now: float) -> Sequence[Action]:
        """The carrier's verdict."""
        return self._act(self._answering.told(who, now), now)

    def heard(self, mark: str, now: float) -> Sequence[Action]:
        """What was opened with was heard to its end."""
        says, is_current = self._says, self._standing.stage is Stage.OPENING  # else its session was lost
        if is_current:
            self._alarms.drop(Watch.STAGE)
        match says:
            case _Says.MESSAGE:
                return (Note("message heard", {"mark": mark}), EndCall(_MESSAGE_LEFT))
            case _Says.ANSWER:
                if is_current:  # or else the next one answers again
                    self._listen()
                    self._answering.answered(now)
                return (Note("screening answered", {"mark": mark}),)
            case _Says.DISCLOSURE:
                return (Note("disclosure heard", {"by": "agent"}), *self._say(_Says.OPENING, None, now))
        self.has_heard = True
        self._answering.heard(now)
        if is_current:
            self._standing.stage = Stage.OPEN
            self._watchdogs.opened(now)
        return (Note(OPENING_HEARD, {"mark": mark}),)

    def sounds(self, now: float) -> None:
        """The callee begins to make a sound."""
        self._answering.sounds(now)

    def quiet(self, now: float) -> None:
        """It is over."""
        self._answering.quiet(now)

    def said(self, text: str, now: float) -> Sequence[Action]:
        """What it was."""
        self._answering.quiet(now)
        return self._act(self._answering.said(text, now), now)

    def ring(self, now: float) -> Sequence[Action]:
        """Nothing was heard for long enough."""
        return self._act(self._answering.ring(now), now)

    # ---- what follows --------------------------------------------------------------------------------------

    def _act(self, finding: Finding | None, now: float) -> Sequence[Action]:
        match finding:
            case None:
                return ()
            case _ if self._standing.stage is Stage.LEAVING:
                return ()  # nothing undoes our last words
            case Finding.MACHINE | Finding.FAX:
                return self._machine(now, may_record=finding is Finding.MACHINE)
            case Finding.MESSAGE_TIME:
                return (Note("message begun"), *self._say(_Says.MESSAGE, self._texts.message, now))
            case Finding.PERSON:
                return self._person(now)
            case Finding.SCREENING:
                return self._screened(now)
            case Finding.WAITING:
                return (Note(SCREENED), *self._fall_silent(now))
            case Finding.PUT_THROUGH:
                self.has_heard = False
                apart = self._texts.is_disclosure_apart
                says, text = (_Says.DISCLOSURE, self._texts.answer) if apart else (_Says.OPENING, None)
                return (Note("put through"), *self._say(says, text, now))
            case Finding.NOBODY_CAME:
                return (EndCall(Ending(Blame.CALLEE, Reason.SCREENED, "nobody came to the telephone")),)

    def _machine(self, now: float, *, may_record: bool) -> Sequence[Action]:
        note = Note("machine answered", {"policy": self._policy})
        if self._policy == "leave-message" and may_record:
            return (note, *self._fall_silent(now))
        self._answering.leave()
        if self._policy == "continue":
            return (note,)
        return (note, EndCall(Ending(Blame.CALLEE, Reason.MACHINE)))

    def _person(self, now: float) -> Sequence[Action]:
        self._tally.people_taken_for_machines += 1
        if self._standing.stage is Stage.LISTENING:
            self._standing.stage = Stage.OPEN
            self._watchdogs.opened(now)
            self._watchdogs.owe(now)
        return (Note("taken for a machine"),)

    def _screened(self, now: float) -> Sequence[Action]:
        if self._answers == ANSWERS:
            return ()
        self._answers += 1
        self._alarms.drop(Watch.ANSWER)  # until that was heard, nobody can come
        return (Note(SCREENED), *self._say(_Says.ANSWER, self._texts.answer, now))

    def _fall_silent(self, now: float) -> list[Action]:
        """Let it talk, and have the agent be quiet: it has nobody to talk to."""
        if self._standing.stage is not Stage.OPEN:
            return []
        self._listen()
        speaking = self._replies.active
        cancelled: list[Action] = []
        if speaking is not None and speaking.id is not None and self._replies.cut(speaking.id):
            cancelled.append(CancelReply(speaking.id))
        return [*self._interruption.silence(now), *cancelled]

    def _listen(self) -> None:
        self._standing.stage = Stage.LISTENING
        self._watchdogs.stop()

    def _say(self, says: _Says, text: str | None, now: float) -> list[Action]:
        self._says = says
        self._standing.stage = Stage.CONNECTING
        self._watchdogs.stop()
        return [*self._interruption.silence(now), *self._sessions.instead(text, now, heard=self.has_heard)]


_MESSAGE_LEFT = Ending(Blame.NOBODY, Reason.MESSAGE_LEFT)
