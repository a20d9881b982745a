"""Who has picked up: what the carrier's machine detection says, weighed with the first seconds of sound.

Knows no trio, no clock, no socket, no log and not what is done about it.

The carrier alone is not believed: it takes a person who says "Accounts department, this is John speaking" for
a machine. It takes a second sign before anybody is hung up on: words that machines say, a long speech, or no
answer to an opening that was heard. A beep is enough by itself, since no person makes one. The callee's words
are known from the end of the opening on, when they are forwarded; the carrier listens from the answer on.
"""

from __future__ import annotations

from enum import Enum, auto

from relay.alarms import Alarms, Watch
from relay.pickup import Kind, count_words, kind_of

LISTEN_SECONDS = 3.0  # after the opening, which ends with a question: people answer within one
SHORT_WORDS = 10  # an answer; the greeting of a machine that says none of the known phrases is longer
TURNS_WEIGHED = 2  # of the callee's: whoever has talked twice like a person is one
GREETING_SECONDS = 30.0  # the longest that a greeting may go on after the opening
SETTLED_SECONDS = 1.5  # from the last words of a greeting, which are told 1 to 3 s late, to the message
BEEP_SECONDS = 4.0  # the same, where the carrier is to tell the end of the greeting
SCREENING_SECONDS = 45.0  # for somebody to come to the telephone who was asked whether they want to

_BEEPED = "machine_end_beep"
_ENDED = frozenset({_BEEPED, "machine_end_silence", "machine_end_other"})
_MACHINES = frozenset({"machine_start", "fax"}) | _ENDED


class Finding(Enum):
    """What has become clear."""

    MACHINE = auto()  # it answered, whatever it is doing now
    MESSAGE_TIME = auto()  # its greeting is over: it records
    FAX = auto()
    PERSON = auto()  # whom the carrier, or we, had taken for a machine
    SCREENING = auto()  # it wants to know who calls and why
    WAITING = auto()  # somebody is being fetched, by a machine or a person
    PUT_THROUGH = auto()  # a person, behind the screening
    NOBODY_CAME = auto()  # behind it


class _Stage(Enum):
    OPENING = auto()  # nothing is heard of them yet
    WEIGHING = auto()
    PERSON = auto()  # settled
    MACHINE = auto()  # until it records
    SCREENING = auto()


class Answering:
    """What is known of whoever has picked up one call. `language` is a BCP 47 tag."""

    __slots__ = (
        "_alarms",
        "_awaits_end",
        "_has_ended",
        "_is_suspect",
        "_language",
        "_sounds",
        "_stage",
        "_turns",
    )

    def __init__(self, alarms: Alarms[Watch], language: str, *, awaits_end: bool) -> None:
        """`awaits_end`: the carrier will tell when the greeting of a machine is over."""
        self._alarms = alarms
        self._language = language
        self._awaits_end = awaits_end
        self._stage = _Stage.OPENING
        self._is_suspect = False  # the carrier thinks that it is a machine
        self._has_ended = False  # and that its greeting is over
        self._sounds = False
        self._turns = 0

    @property
    def is_machine(self) -> bool:
        """Whether nobody is to be talked with, so far as is known."""
        return self._stage in (_Stage.MACHINE, _Stage.SCREENING)

    # ---- what is noticed -----------------------------------------------------------------------------------

    def told(self, who: str, now: float) -> Finding | None:
        """The carrier's verdict (`AnsweredBy`); it comes once, at any moment."""
        self._awaits_end = False
        if who not in _MACHINES:
            return None
        self._has_ended = who in _ENDED
        if self._stage is _Stage.MACHINE:
            self._settle(now)
            return None
        if who == "fax":
            self.leave()
            return Finding.FAX
        if self._stage is _Stage.SCREENING:
            return None
        if self._turns:  # they have talked like a person
            self.leave()
            return Finding.PERSON
        if self._stage is _Stage.PERSON:
            return None
        self._is_suspect = True
        if who == _BEEPED:
            return self._found(now)
        if self._stage is _Stage.WEIGHING and not self._sounds:
            self._alarms.set(Watch.ANSWER, now + LISTEN_SECONDS)
        return None

    def heard(self, now: float) -> None:
        """The opening was: from here on they are listened to."""
        if self._stage is _Stage.OPENING:
            self._stage = _Stage.WEIGHING
            if self._is_suspect:
                self._alarms.set(Watch.ANSWER, now + LISTEN_SECONDS)

    def sounds(self, now: float) -> None:
        """They begin to speak, or to beep."""
        self._sounds = True
        if self._is_awaited:
            self._alarms.set(Watch.ANSWER, now + GREETING_SECONDS)

    def quiet(self, now: float) -> None:
        """They have ended."""
        self._sounds = False
        if self._stage is _Stage.MACHINE:
            self._settle(now)
        elif self._is_awaited:
            self._alarms.set(Watch.ANSWER, now + LISTEN_SECONDS)

    def said(self, text: str, now: float) -> Finding | None:
        """What it was, in words."""
        kind = kind_of(text, self._language)
        match self._stage:
            case _Stage.OPENING | _Stage.WEIGHING:
                return self._weigh(kind, text, now)
            case _Stage.SCREENING if kind is Kind.PERSON:
                self.leave()
                return Finding.PUT_THROUGH
            case _Stage.SCREENING if kind is Kind.MACHINE:
                return self._found(now)
            case _Stage.SCREENING if kind is Kind.SCREENING:
                return Finding.SCREENING
            case _Stage.MACHINE if kind is Kind.PERSON and self._is_short(text):
                self.leave()
                return Finding.PERSON
            case _Stage.MACHINE if kind is Kind.SCREENING:
                return self._screened(now)
            case _:
                return None

    def ring(self, now: float) -> Finding | None:
        """Nothing was heard for as long as was waited."""
        match self._stage:
            case _Stage.WEIGHING:
                return self._found(now)
            case _Stage.MACHINE:
                return Finding.MESSAGE_TIME
            case _Stage.SCREENING:
                return Finding.NOBODY_CAME
            case _:
                return None

    def answered(self, now: float) -> None:
        """The screening was told who calls and why, or is not told: it is its turn now."""
        self._alarms.set(Watch.ANSWER, now + SCREENING_SECONDS)

    def leave(self) -> None:
        """It is not asked any more."""
        self._stage = _Stage.PERSON
        self._alarms.drop(Watch.ANSWER)

    # ---- what follows --------------------------------------------------------------------------------------

    @property
    def _is_awaited(self) -> bool:
        """Whether something depends on what they do next."""
        return Watch.ANSWER in self._alarms and self._stage in (_Stage.WEIGHING, _Stage.MACHINE)

    def _weigh(self, kind: Kind, text: str, now: float) -> Finding | None:
        if kind is Kind.SCREENING:
            return self._screened(now)
        if kind is Kind.WAITING:
            self._screened(now)
            return Finding.WAITING
        if kind is Kind.MACHINE or (self._is_suspect and not self._is_short(text)):
            return self._found(now)
        self._turns += 1
        if self._is_suspect:
            self.leave()
            return Finding.PERSON
        if self._turns >= TURNS_WEIGHED:
            self._stage = _Stage.PERSON
        return None

    def _found(self, now: float) -> Finding:
        self._stage = _Stage.MACHINE
        self._settle(now)
        return Finding.MACHINE

    def _settle(self, now: float) -> None:
        """Wait for the end of the greeting: told by the carrier, or so much silence behind its last words."""
        seconds = 0.0 if self._has_ended else BEEP_SECONDS if self._awaits_end else SETTLED_SECONDS
        self._alarms.set(Watch.ANSWER, now + (GREETING_SECONDS if self._sounds else seconds))

    def _screened(self, now: float) -> Finding:
        self._stage = _Stage.SCREENING
        self.answered(now)
        return Finding.SCREENING

    def _is_short(self, text: str) -> bool:
        return count_words(text) <= SHORT_WORDS or text.rstrip().endswith("?")
