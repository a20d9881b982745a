"""Which reply of the agent's is active, which has finished and which is dead: whose audio may be played.

Knows no trio, no clock, no socket, no log and no phone; ids may be missing, repeated or out of order.
"""

from __future__ import annotations

from dataclasses import dataclass

_DEAD_REPLIES = 32  # interrupted replies remembered; late audio is late by milliseconds, not by replies


@dataclass(slots=True)
class Reply:
    """One reply, and what was sent to the phone of it."""

    id: str | None
    number: int = 0  # among what was said on this stream, from its first audio on
    was_sent: bool = False
    is_audible: bool = False


class Replies:
    """The replies of one call. At most one is active; a dead one never speaks again."""

    __slots__ = ("_dead", "_finished", "_hushed", "active", "begun")

    def __init__(self) -> None:
        self.active: Reply | None = None
        self.begun = 0
        self._finished: Reply | None = None  # the last one; its audio may trail behind its reply.done
        self._dead: list[str] = []  # the newest
        self._hushed = False  # audio without an id belongs to the dead until another reply begins

    def start(self, reply_id: str | None) -> None:
        """The agent begins a reply; a known id is a repetition and changes nothing."""
        if reply_id is None or not (self._is_over(reply_id) or self._is_active(reply_id)):
            self._begin(reply_id)

    @property
    def heard(self) -> str | None:
        """The name of the reply that is active and was heard: more than silence was sent of it."""
        active = self.active
        return active.id if active is not None and active.is_audible else None

    def owner_of(self, reply_id: str | None) -> Reply | None:
        """The reply whose audio this is, begun where it is new; None when it must not be played."""
        active, finished = self.active, self._finished
        if reply_id is None:
            return active or (None if self._hushed else finished or self._begin(None))
        if reply_id in self._dead:
            return None
        if finished is not None and finished.id == reply_id:
            return finished
        if active is None or active.id not in (None, reply_id):
            return self._begin(reply_id)
        active.id = reply_id
        return active

    def finish(self, reply_id: str | None) -> Reply | None:
        """The reply that is over by this; None when it was over before, or another one is active by now."""
        reply = self.active
        if reply is None or (
            reply_id is not None and (self._is_over(reply_id) or not self._is_active(reply_id))
        ):
            return None
        reply.id = reply.id or reply_id
        self.active, self._finished = None, reply
        return reply

    def cut(self, reply_id: str | None) -> bool:
        """Kill a reply, without an id the active one. False when what is meant was dead already."""
        if reply_id in self._dead or (reply_id is None and self.active is None and self._hushed):
            return False
        if self.active is not None and (reply_id is None or self._is_active(reply_id)):
            reply_id = reply_id or self.active.id
            self.active = None
        self._bury(reply_id)
        return True

    def hush(self) -> None:
        """The phone was silenced: nothing that trails behind a finished reply may be played either."""
        if self._finished is not None:
            self._bury(self._finished.id)
            self._finished = None

    def forget(self) -> None:
        """Their session is lost: what it was saying is over, and the next one begins anew."""
        if self.active is not None:
            self._bury(self.active.id)
        self.active = self._finished = None
        self._hushed = False

    def _begin(self, reply_id: str | None) -> Reply:
        self.active = Reply(reply_id)
        self.begun += 1
        self._hushed = False
        return self.active

    def _bury(self, reply_id: str | None) -> None:
        self._hushed = True
        if reply_id is not None and reply_id not in self._dead:
            self._dead.append(reply_id)
            del self._dead[:-_DEAD_REPLIES]

    def _is_active(self, reply_id: str) -> bool:
        return self.active is not None and self.active.id in (None, reply_id)

    def _is_over(self, reply_id: str) -> bool:
        return reply_id in self._dead or (self._finished is not None and self._finished.id == reply_id)
