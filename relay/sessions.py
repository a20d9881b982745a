"""Which session the agent speaks in: the first one, a lost one that is taken up again, or a fresh one.

Knows no trio, no clock, no socket, no log and nothing of what is being said.

A session that was lost is asked for once, by its resume token: it knows all that was said, but the live
service was never seen to give one back. The fresh one behind it is told what was said so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from relay.actions import Action, CreateReply, Note, OpenSession
from relay.alarms import Alarms, Watch
from relay.announcer import announce
from relay.goodbye import Goodbye
from relay.outcomes import Blame, Ending, Reason
from relay.playout import Playout, Purpose
from relay.replies import Replies
from relay.session_faults import Fault
from relay.terms import Terms
from relay.tool_runs import ToolRuns
from relay.wire import agent

READY_SECONDS = 8.0  # no session.ready: the person has answered and hears nothing; AssemblyAI says 10
RESUME_SECONDS = 3.0  # for a lost session to come back; a fresh one takes one second
LOSSES = 3  # that one call gets over; a session that is always lost again is no conversation

OFFER = "Tell them so in one short sentence, and ask whether you can help with something else."
RESUME = "Say in one short sentence that the line was interrupted for a moment, and go on where you were."


class Sessions:
    """The sessions of one call, one at a time, and the attempts that are left when one fails."""

    def __init__(
        self,
        alarms: Alarms[Watch],
        playout: Playout,
        replies: Replies,
        tool_runs: ToolRuns,
        goodbye: Goodbye,
        terms: Terms,
        now: float,
    ) -> None:
        self._news = terms.news  # until it was told
        self.greets = not terms.heard  # the session that was asked for last
        self._says: str | None = None  # what it was asked for, if that is no conversation
        self._alarms = alarms
        self._playout = playout
        self._replies = replies
        self._tool_runs = tool_runs
        self._goodbye = goodbye
        self._bridge = terms.clips.bridge
        self._is_ready = False
        self._cause: Ending | None = None  # what the call ends with if the search for a session is in vain
        self._losses = 0
        self._tries = 1  # fresh sessions that may still be asked for in this search
        self._resumable: str | None = None  # the id of the session that its token may bring back
        self._is_resuming = False
        alarms.set(Watch.STAGE, now + READY_SECONDS)

    # ---- there is one --------------------------------------------------------------------------------------

    def misfit(self, message: agent.SessionReady) -> Ending | None:
        """Why this session is of no use: noise on the telephone, or not the one that was asked for."""
        if foreign := message.foreign_encoding:
            return Ending(Blame.AGENT, Reason.WRONG_FORMAT, f"the session speaks {foreign}")
        if self._is_resuming and message.session_id != self._resumable:
            return Ending(Blame.AGENT, Reason.ERROR, "another session came back")
        return None

    def ready(self, message: agent.SessionReady, now: float) -> Sequence[Action]:
        """The session hears and speaks: have it go on where the one before it was, unless it greets."""
        was_resumed, self._is_resuming = self._is_resuming, False
        self._is_ready = True
        self._cause = None
        self._resumable = message.session_id if message.resume_token else None
        self._alarms.drop(Watch.RESUME)
        if self.greets:
            return ()
        self._alarms.drop(Watch.STAGE)
        if self._goodbye.is_begun:
            return self._goodbye.reply_ended(now)
        if was_resumed and self._tool_runs.are_awaited:
            return ()  # the agent speaks when it has the result
        news, self._news = self._news, ""
        opening = CreateReply(f"{news} {OFFER}" if news else RESUME)
        return (self._tool_runs.release() if was_resumed else ()) or (opening,)

    def instead(self, says: str | None, now: float, *, heard: bool) -> Sequence[Action]:
        """Give this session up for one that begins with `says`, or else as a conversation begins."""
        self._replies.forget()
        self._tool_runs.forget()
        self._goodbye.drop()
        self._says = says
        self.greets = says is not None or not heard
        self._is_ready = self._is_resuming = False
        self._resumable = None
        self._tries = 1
        self._alarms.drop(Watch.RESUME)
        self._alarms.set(Watch.STAGE, now + READY_SECONDS)
        return [OpenSession(resume=False, heard=heard, says=says)]

    # ---- there is none -------------------------------------------------------------------------------------

    def lost(self, fault: Fault, now: float, *, heard: bool) -> Sequence[Action] | Ending:
        """A session was lost or did not come about: what to do, or what the call ends with.

        Marks, and what the phone still plays, are left alone. A goodbye that was said needs no agent; one
        that was not is asked for again. Results of tools wait for a session that comes back, and are dropped
        where a fresh one takes its place.
        """
        self._replies.forget()
        was_ready, self._is_ready = self._is_ready, False
        if self._goodbye.is_said:
            return (Note("agent gone"),)
        self._goodbye.bereft()
        if not was_ready:
            again = self._again(fault, heard=heard)
            failed = Note("session failed", {"reason": fault.ending.reason.value})
            return again if isinstance(again, Ending) else [failed, *again]
        self._losses += 1
        self._tries = 1
        self._alarms.set(Watch.STAGE, now + READY_SECONDS)
        if self._losses > LOSSES or not fault.is_passing:
            return fault.ending
        note = Note("agent lost", {"reason": fault.ending.reason.value})
        bridge = announce(self._playout, self._bridge, Purpose.CLIP, now)
        if self._resumable is None or self._says or not heard:  # only a fresh session begins anew
            again = self._again(fault, heard=heard)
            return again if isinstance(again, Ending) else [note, *bridge, *again]
        self._cause = fault.ending
        self._is_resuming, self.greets = True, False
        self._alarms.set(Watch.RESUME, now + RESUME_SECONDS)
        return [note, *bridge, OpenSession(resume=True, heard=heard)]

    def not_resumed(self, *, heard: bool) -> Sequence[Action] | Ending:
        """The lost session did not come back in its time."""
        return self._again(Fault(_NOT_READY), heard=heard)

    def not_ready(self) -> Ending:
        """The time for the whole search is over."""
        return self._in_vain(_NOT_READY)

    def _again(self, fault: Fault, *, heard: bool) -> Sequence[Action] | Ending:
        was_resuming, self._is_resuming = self._is_resuming, False
        self._alarms.drop(Watch.RESUME)
        if not self._tries or not (fault.is_passing or was_resuming):  # which may be refused for any reason
            return self._in_vain(fault.ending)
        self._tries -= 1
        self._cause = self._cause or fault.ending
        self._tool_runs.forget()
        self.greets = self._says is not None or not heard
        return [OpenSession(resume=False, heard=heard, says=self._says)]

    def _in_vain(self, last: Ending) -> Ending:
        """The first cause, and for people what became of the attempts to mend it."""
        if self._cause is None:
            return last
        return replace(self._cause, detail=f"{self._cause.detail}; then {last.detail or last.reason}")


_NOT_READY = Ending(Blame.AGENT, Reason.NOT_READY)
