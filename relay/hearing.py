"""What was heard of each reply: what was sent, what marks prove, what was cleared, how far its text got.

Knows no trio, no clock, no socket and no log; never looks at a sample.

`transcript.agent` says what the agent meant to say: of a reply that was held back all of it, of one that was
cut what was spoken there, not what was played here. Where a reply stands in the sound that went to the phone
is known, and how much of that the phone has played; `transcript.agent.delta` has the times of the words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import msgspec

from relay.playout import Playout
from relay.replies import Replies, Reply
from relay.wire import agent

_REPLIES = 32  # followed at once; each is settled within a round trip of its end
_WORDS = 2000  # of one reply; what comes beyond that is judged by its share of the sound
_WORD = re.compile(r"\S+")
_SLACK_SECONDS = 0.05  # a word or a reply counts as heard when no more than this of it was not


class ReplyHeard(msgspec.Struct, frozen=True):
    """What became of one reply at the phone, in seconds of its sound; the rest was lost with the line.

    `proven_seconds` by the echo of a mark, `heard_seconds` by that or by when it was sent. `heard` is the
    part of `text` that the callee heard; both are None while there is no text.
    """

    reply: int
    sent_seconds: float
    heard_seconds: float
    proven_seconds: float
    cleared_seconds: float
    text: str | None
    heard: str | None


@dataclass(slots=True)
class _Utterance:
    """One reply. Positions are seconds in all the sound that ever went to the phone."""

    number: int
    id: str | None
    begins: float | None = None  # none of it was sent
    sounds_from: float | None = None  # all of it is silence so far
    ends: float | None = None  # it goes on
    cleared: float = 0.0
    heard_to: float | None = None  # not settled
    proven_to: float = 0.0
    text: str | None = None
    interrupted: bool = False
    words: list[tuple[float, str]] = field(default_factory=list)  # each with its end within the reply


class Hearing:
    """The replies of one stream, until it is known what was heard of them.

    `settled` holds what became known; whoever reads it empties it. A reply whose text is late is told twice.
    """

    __slots__ = ("_number", "_playout", "_replies", "_utterances", "settled")

    def __init__(self, playout: Playout, replies: Replies) -> None:
        self.settled: list[ReplyHeard] = []
        self._playout = playout
        self._replies = replies
        self._number = 0
        self._utterances: list[_Utterance] = []  # the newest

    # ---- what is sent --------------------------------------------------------------------------------------

    def sent(self, reply: Reply, seconds: float) -> None:
        """A chunk went to the phone: to be told of the first of a reply, its first sound, and what trails."""
        spoken = self._numbered(reply.number)
        if spoken is None:
            spoken = self._of(reply.id)
            if spoken is None or spoken.begins is not None:
                spoken = self._begin(reply.id)
            spoken.begins = self._playout.queued - seconds
            spoken.id = spoken.id or reply.id
            reply.number = spoken.number
        if reply.is_audible and spoken.sounds_from is None:
            spoken.sounds_from = self._playout.queued - seconds
        if spoken.ends is not None:
            spoken.ends = self._playout.queued

    def ended(self, reply: Reply) -> None:
        """All of a reply was sent; a mark follows it."""
        spoken = self._numbered(reply.number)
        if spoken is not None and spoken.ends is None:
            spoken.ends = self._playout.queued

    def broken_off(self) -> None:
        """Whatever is being said ends here: its session is lost, or we speak ourselves."""
        for spoken in self._unsettled():
            spoken.ends = self._playout.queued if spoken.ends is None else spoken.ends

    # ---- what is said --------------------------------------------------------------------------------------

    def word(self, message: agent.AgentPartial) -> None:
        """A word of a reply, with its time in it."""
        spoken = self._of(message.reply_id) or self._begin(message.reply_id)
        if message.end_ms is not None and len(spoken.words) < _WORDS:
            spoken.words.append((message.end_ms / 1000, message.delta))

    def said(self, message: agent.AgentSaid) -> int:
        """The text of a reply; its number."""
        spoken = self._of(message.reply_id)
        if spoken is None or spoken.text is not None:
            spoken = self._begin(message.reply_id)
        spoken.text, spoken.interrupted = message.text, message.interrupted
        if spoken.heard_to is not None:
            self._tell(spoken)
        return spoken.number

    # ---- what is heard -------------------------------------------------------------------------------------

    def proven(self) -> None:
        """A mark was echoed that no clear has overtaken: what stands before it was played."""
        for spoken in self._unsettled():
            if spoken.ends is not None and spoken.ends <= self._playout.proven + _SLACK_SECONDS:
                self._settle(spoken, spoken.ends)

    def cleared(self, now: float, *, active_goes_on: bool = False) -> None:
        """The phone is about to be silenced. `active_goes_on`: more of the active reply may be played."""
        played, queued = self._playout.played(now), self._playout.queued
        for spoken in self._unsettled():
            if spoken.begins is not None:
                ends = queued if spoken.ends is None else spoken.ends
                spoken.cleared += max(0.0, ends - max(played, spoken.begins))
            if not (active_goes_on and spoken.ends is None and self._is_active(spoken)):
                spoken.ends = queued if spoken.ends is None else spoken.ends
                self._settle(spoken, played)

    def over(self, now: float) -> None:
        """The line is closed: nothing more is heard."""
        self.broken_off()
        for spoken in self._unsettled():
            self._settle(spoken, self._playout.played(now))

    def _settle(self, spoken: _Utterance, played_to: float) -> None:
        if spoken.begins is None or spoken.ends is None:
            spoken.begins = spoken.ends = spoken.heard_to = 0.0
        else:
            spoken.heard_to = min(max(played_to, spoken.begins), spoken.ends)
            spoken.proven_to = min(max(self._playout.proven, spoken.begins), spoken.ends)
        self._tell(spoken)

    def _tell(self, spoken: _Utterance) -> None:
        assert spoken.begins is not None
        assert spoken.ends is not None
        assert spoken.heard_to is not None
        gap = spoken.cleared if spoken.heard_to == spoken.ends else 0.0  # a hole, with more behind it
        self.settled.append(
            ReplyHeard(
                reply=spoken.number,
                sent_seconds=round(spoken.ends - spoken.begins, 3),
                heard_seconds=round(max(0.0, spoken.heard_to - spoken.begins - gap), 3),
                proven_seconds=round(max(0.0, spoken.proven_to - spoken.begins - gap), 3),
                cleared_seconds=round(spoken.cleared, 3),
                text=spoken.text,
                heard=None if spoken.text is None else spoken.text[: _heard_of(spoken.text, spoken)],
            )
        )

    # ---- which reply it is ---------------------------------------------------------------------------------

    def _begin(self, reply_id: str | None) -> _Utterance:
        self._number += 1
        spoken = _Utterance(self._number, reply_id)
        self._utterances.append(spoken)
        del self._utterances[:-_REPLIES]
        return spoken

    def _of(self, reply_id: str | None) -> _Utterance | None:
        """The one with that id; without an id, or where it had none, the newest."""
        newest = self._utterances[-1] if self._utterances else None
        if reply_id is None:
            return newest
        found = next((spoken for spoken in reversed(self._utterances) if spoken.id == reply_id), None)
        return newest if found is None and newest is not None and newest.id is None else found

    def _numbered(self, number: int) -> _Utterance | None:
        return next((spoken for spoken in reversed(self._utterances) if spoken.number == number), None)

    def _unsettled(self) -> list[_Utterance]:
        return [spoken for spoken in self._utterances if spoken.heard_to is None]

    def _is_active(self, spoken: _Utterance) -> bool:
        active = self._replies.active
        return active is not None and active.number == spoken.number


def _heard_of(text: str, spoken: _Utterance) -> int:
    """How many characters of a text were heard: by the times of its words, else by the share of its sound."""
    assert spoken.begins is not None
    assert spoken.ends is not None
    assert spoken.heard_to is not None
    if spoken.sounds_from is None:
        return 0  # held back, or never sent
    is_whole = spoken.heard_to >= spoken.ends - _SLACK_SECONDS
    if is_whole and not spoken.interrupted:
        return len(text)
    whole = "".join(word for _, word in spoken.words).strip()
    if whole and (whole.startswith(text.strip()) or text.strip().startswith(whole)):
        until = spoken.heard_to - spoken.begins + _SLACK_SECONDS
        heard = "".join(word for ends, word in spoken.words if ends <= until).strip()
        return min(len(text), text.index(text.strip()) + len(heard))
    if is_whole:
        return len(text)
    sound = spoken.ends - spoken.sounds_from
    ends = [word.end() for word in _WORD.finditer(text)]
    count = (
        int((spoken.heard_to - spoken.sounds_from + _SLACK_SECONDS) / sound * len(ends)) if sound > 0 else 0
    )
    return ends[min(count, len(ends)) - 1] if count > 0 and ends else 0
