"""The end of a conversation: who asked for it, which reply says it, when it was heard, and what undoes it.

Knows no trio, no clock, no socket, no log and no wire.

The farewell is a reply that begins after the goodbye was asked for and completes. The reply in which the
agent called `end_call` is none: the tool's result starts another one, and a call that hung up in between
would cut it off. Only when none comes does what was spoken before count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, assert_never

from relay.actions import Action, CancelReply, CreateReply, EndCall, Note, SendMark
from relay.alarms import Alarms
from relay.outcomes import Blame, Ending, Reason
from relay.playout import MARK_GRACE_SECONDS, Playout, Purpose
from relay.replies import Replies

FAREWELL_REPLY_SECONDS = 2.5  # a managed agent starts the reply to a tool's result well within this
FAREWELL_LIMIT_SECONDS = 20.0  # a goodbye longer than this is no goodbye
REPLY_PATIENCE_SECONDS = 3.0  # a wind-up lets the agent finish its sentence for so long
GOODBYES_UNDONE = 2  # the third goodbye stands, whoever interrupts it

PUT_THROUGH = "Say in one short sentence that you are putting the person through now."
WIND_UP = "Say in one short sentence that this call has to end now, thank the person, and say goodbye."


AfterTool = Literal[Reason.GOODBYE, Reason.TRANSFERRED]
"""What the call ends with once the goodbye behind a tool was heard."""


class _Alarm(Enum):
    REPLY = auto()  # no farewell has begun
    MARK = auto()  # its mark was not echoed
    LIMIT = auto()  # the goodbye as a whole takes too long
    PATIENCE = auto()  # the agent goes on talking while we want to wind up


@dataclass(slots=True)
class _Wish:
    """That the call shall end."""

    ending: Ending
    ours: bool  # a wind-up by us, which no interruption undoes
    asked_after: int | None  # replies begun before the agent was to say goodbye; None: it was not asked yet
    until_words: bool = False  # because the person says nothing: a word undoes it

    @property
    def instructions(self) -> str:
        """What the agent is told where it does not say goodbye by itself."""
        return PUT_THROUGH if self.ending.reason is Reason.TRANSFERRED else WIND_UP


class Goodbye:
    """The goodbye of one call, if there is to be one."""

    __slots__ = ("_alarms", "_playout", "_replies", "_undone", "_wish")

    def __init__(self, playout: Playout, replies: Replies) -> None:
        self._playout = playout
        self._replies = replies
        self._wish: _Wish | None = None
        self._undone = 0
        self._alarms = Alarms[_Alarm]()  # none without a wish

    @property
    def deadline(self) -> float:
        """When `on_time` wants to be called next."""
        return self._alarms.earliest

    @property
    def is_begun(self) -> bool:
        """Whether a goodbye is wished for, being said or said."""
        return self._wish is not None

    @property
    def is_said(self) -> bool:
        """Whether all of it was sent to the phone: it will be heard, whatever becomes of the agent."""
        return self._alarms.at(_Alarm.MARK) < math.inf

    @property
    def is_answered(self) -> bool:
        """Whether a reply has begun since the agent was to say goodbye: the farewell, or one on top of it."""
        if self._wish is None or self._wish.asked_after is None:
            return False
        return self._replies.begun > self._wish.asked_after

    # ---- who asks for it -----------------------------------------------------------------------------------

    def begin(self, now: float, then: AfterTool) -> Sequence[Action]:
        """The agent has ended the conversation, or hands it over, and is about to say goodbye."""
        ending = Ending(Blame.NOBODY, Reason(then))
        if self._wish:
            self._wish.ending = self._wish.ending if self._wish.ours else ending  # the last word counts
            return ()
        self._wish = _Wish(ending, ours=False, asked_after=self._replies.begun)
        self._alarms.set(_Alarm.LIMIT, now + FAREWELL_LIMIT_SECONDS)
        self._await_reply(now)
        return (Note("goodbye begun"),)

    def wind_up(
        self, ending: Ending, now: float, *, within_seconds: float, until_words: bool = False
    ) -> Sequence[Action]:
        """We end the call: let the agent finish its sentence, then have it say goodbye.

        `until_words`: unless the person, who has fallen silent, says something after all.
        """
        limit = now + within_seconds
        if self._wish:
            self._wish.ours, self._wish.until_words = True, False
            self._alarms.set(_Alarm.LIMIT, min(limit, self._alarms.at(_Alarm.LIMIT)))
            return ()
        self._wish = _Wish(ending, ours=not until_words, asked_after=None, until_words=until_words)
        self._alarms.set(_Alarm.LIMIT, limit)
        if self._replies.active is None:
            return (Note("winding up"), *self.reply_ended(now))
        self._alarms.set(_Alarm.PATIENCE, now + REPLY_PATIENCE_SECONDS)
        return (Note("winding up"),)

    # ---- what comes of it ----------------------------------------------------------------------------------

    def said(self, now: float) -> Sequence[Action]:
        """All that will be said was sent to the phone: the call ends when it was heard."""
        self._alarms.drop(_Alarm.REPLY)
        self._alarms.set(_Alarm.MARK, max(self._playout.playing_until, now) + MARK_GRACE_SECONDS)
        return (SendMark(self._playout.mark(Purpose.GOODBYE)),)

    def reply_ended(self, now: float) -> Sequence[Action]:
        """Nobody speaks, and no farewell was said: the reply began before, was silent, failed or was cut."""
        if self._wish is None:
            return ()
        self._await_reply(now)
        if self._wish.asked_after is not None:
            return ()
        self._wish.asked_after = self._replies.begun
        self._alarms.drop(_Alarm.PATIENCE)
        return (CreateReply(self._wish.instructions),)

    def interrupted(self, now: float) -> Sequence[Action]:
        """The person spoke over it: they are not done. Undone twice at most, and never against a wind-up."""
        if self._wish is None:
            return ()
        if self._wish.ours or self._undone >= GOODBYES_UNDONE:
            return self.reply_ended(now) if self._replies.active is None else ()
        self._undone += 1
        self.drop()
        return (Note("goodbye undone"),)

    def answered(self) -> Sequence[Action]:
        """The person has said something: there is no goodbye to somebody who is there."""
        if self._wish is None or not self._wish.until_words:
            return ()
        self.drop()
        return (Note("goodbye withdrawn"),)

    def drop(self) -> None:
        """No goodbye any more: the person is not done, or an opt-out leaves no time for it."""
        self._wish = None
        for alarm in _Alarm:
            self._alarms.drop(alarm)

    def bereft(self) -> None:
        """The agent's session is lost: the wish stays, and whoever comes next is to be asked for it."""
        if self._wish is not None:
            self._wish.asked_after = None
            for alarm in (_Alarm.REPLY, _Alarm.MARK, _Alarm.PATIENCE):
                self._alarms.drop(alarm)

    def heard(self) -> Sequence[Action]:
        """The echo of the goodbye's mark. A reply on top of it became part of it and is waited for."""
        if self._wish is None or self._replies.active is not None:
            return ()
        return (Note("goodbye heard"), EndCall(self._wish.ending))

    # ---- time ----------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> Sequence[Action]:
        """Answer the passing of `deadline`."""
        actions: list[Action] = []
        if self._wish is not None:
            for alarm in self._alarms.due(now):
                actions += self._ring(alarm, self._wish.ending, now)
        return actions

    def _ring(self, alarm: _Alarm, ending: Ending, now: float) -> Sequence[Action]:
        speaking = self._replies.active
        match alarm:
            case _Alarm.PATIENCE:
                return (CancelReply(speaking.id),) if speaking and speaking.id else ()
            case _Alarm.REPLY | _Alarm.MARK if speaking:
                return ()  # its end sets them again
            case _Alarm.REPLY:
                return self.said(now)  # nothing more comes: what was spoken counts
            case _Alarm.MARK | _Alarm.LIMIT:
                return (EndCall(ending),)
            case _:
                assert_never(alarm)

    def _await_reply(self, now: float) -> None:
        self._alarms.drop(_Alarm.MARK)
        self._alarms.set(_Alarm.REPLY, now + FAREWELL_REPLY_SECONDS)
