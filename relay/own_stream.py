"""Which of the carrier's messages are of this call's stream, and what becomes of the odd ones.

Knows no trio, no clock, no socket, no log and not what is done about the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.actions import Action, EndCall, Note
from relay.outcomes import Blame, Ending, Reason
from relay.tally import Tally
from relay.wire import phone

FOREIGN_MESSAGES = 10  # messages for another stream before the socket is given up
_WORD_CHARACTERS = 64  # of a far end's word in our timeline


class OwnStream:
    """The one stream of a call on this socket."""

    __slots__ = ("_sid", "_tally")

    def __init__(self, sid: str, tally: Tally) -> None:
        self._sid = sid
        self._tally = tally

    def brings(self, frame: phone.Media) -> bool:
        """Whether a frame is the callee's own sound."""
        return frame.stream_sid == self._sid and frame.media.track == "inbound"

    def is_foreign(
        self, message: phone.Media | phone.MarkReached | phone.KeyPressed | phone.StreamStopped
    ) -> bool:
        """Whether it names another stream."""
        return message.stream_sid != self._sid

    def started(self, message: phone.StreamStarted) -> Sequence[Action]:
        """A start, though the stream has begun: said twice it changes nothing."""
        if message.stream_sid == message.start.stream_sid == self._sid:
            return (Note("start repeated"),)
        return (_broken("a second, different start"),)

    def unrecognised(self, event: str) -> Sequence[Action]:
        """A message of a kind that we do not know."""
        self._tally.unknown_events += 1
        return (Note("unknown phone event", {"name": event[:_WORD_CHARACTERS]}),)

    def foreign(self) -> Sequence[Action]:
        """A message for another stream: dropped, and not borne with for ever."""
        self._tally.foreign_messages += 1
        if self._tally.foreign_messages < FOREIGN_MESSAGES:
            return ()
        return (_broken("messages for another stream"),)


def _broken(detail: str) -> EndCall:
    return EndCall(Ending(Blame.CARRIER, Reason.PROTOCOL, detail))
