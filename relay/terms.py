"""What a call is told before it begins, and whom it tells while it lasts.

Knows no trio, no clock, no socket and no log; who fills these in and who listens is the house's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from relay.actions import OptOutWay, Role, TurnAnswered
from relay.clips import Clips, shipped
from relay.compliance import OPT_OUT_KEY, asks_to_stop
from relay.hearing import ReplyHeard
from relay.keys import Keys
from relay.limits import Limits
from relay.voicemail import FixedTexts, Voicemail


class BargeIn(StrEnum):
    """Which event silences the phone (BARGE_IN)."""

    INTERRUPTED = "interrupted"
    SPEECH_STARTED = "speech-started"


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed for one call before it began."""

    session: Mapping[str, Any]
    time_limit_seconds: float
    barge_in: BargeIn = BargeIn.INTERRUPTED
    interruptible: bool = True
    lead_silence_seconds: float = 0.25
    opt_out_key: str | None = OPT_OUT_KEY
    keys: Keys = field(default_factory=Keys)  # how others are taken
    voicemail: Voicemail = field(default_factory=Voicemail)
    texts: FixedTexts = field(default_factory=FixedTexts)
    clips: Clips = field(default_factory=shipped)
    limits: Limits = field(default_factory=Limits)
    language: str = "en"  # BCP 47, of the plain words by which a callee opts out
    opt_out_words: tuple[str, ...] = ()  # phrases of the agent's own, beside those
    heard: bool = False  # the opening was, on an earlier stream of this call
    tool_results: Literal["immediate", "reply-done"] = "immediate"  # when the agent gets them
    news: str = ""  # what the agent has to tell the callee first on this stream; none: what it greets with
    tools_are_ours: bool = True  # not those of a stored agent: AssemblyAI runs them itself

    def hears_opt_out(self, said: str) -> bool:
        """Whether what the callee said asks for no more calls."""
        return asks_to_stop(said, self.language, self.opt_out_words)


class Diary(Protocol):
    """Where a call writes down what happens."""

    def noted(self, event: str, fields: Mapping[str, Any]) -> None:
        """Something for the timeline."""

    def said(self, role: Role, text: str, *, interrupted: bool, reply: int | None) -> None:
        """Something for the transcript; a reply of the agent's has a number."""

    def heard(self, reply: ReplyHeard) -> None:
        """What the callee heard of a reply; said again where its text came late."""

    def turn_answered(self, turn: TurnAnswered, relay_seconds: float) -> None:
        """A turn was answered: what the callee waited for, and how long we held the first sound."""

    def ran(self, tool: str, run: str, arguments: Mapping[str, Any], result: str) -> None:
        """A tool was told this, and answered that: as private as what is said."""

    def opted_out(self, how: OptOutWay) -> None:
        """The callee is never to be called again, from this moment on."""
