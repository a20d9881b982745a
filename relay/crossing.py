"""The two ways across a call: audio that only has to be sent on crosses, and no task is woken.

Knows when that may be: for as long as the dialogue says that nothing else follows from a frame, and the other
leg takes it at once. What the frames look like is `straight`'s business.

Nearly every message of a call is such a frame. Whatever else comes is left, with all that is behind it, to
the task that reads the leg; so is what cannot be read.
"""

from __future__ import annotations

import trio

from relay import straight
from relay.agent_half import AgentHalf
from relay.dialogue import Dialogue
from relay.framing import Chunk
from relay.legs import Leg
from relay.turns import SAMPLE_EVERY


class ToAgent:
    """The callee's way to the agent."""

    def __init__(self, dialogue: Dialogue, agent: AgentHalf, stream_sid: str) -> None:
        self.frames = 0
        self.last_media_at = (
            trio.current_time()
        )  # of any frame of the callee's, also of those that went the long way
        self._dialogue = dialogue
        self._agent = agent
        self._stream_sid = stream_sid

    def sink(self) -> Leg | None:
        """Where a frame of the callee's only has to be sent on to, if that is so."""
        leg = self._agent.leg
        return leg if leg is not None and self._dialogue.forwards and leg.takes_at_once else None

    def cross(self, source: Chunk | int, sink: Leg, limit: int) -> tuple[int, Chunk | None]:
        """Send on what `source` begins with; how many frames that were, and what is left. Raises OSError."""
        frames, _, payload, rest, out, sent = straight.forward(
            source, sink.descriptor, self._stream_sid, limit
        )
        if frames:
            self.last_media_at = trio.current_time()
            self.sent(frames, payload)
            if out is not None:
                self._agent.put(sink, out, sent)
        return frames, rest

    def sent(self, frames: int, payload: str) -> None:
        """So many frames went to the agent, the last one with that payload."""
        if -self.frames % SAMPLE_EVERY < frames:
            self._dialogue.turns.sampled(payload, self.last_media_at)
        self.frames += frames


class ToPhone:
    """The agent's way to the callee."""

    def __init__(self, dialogue: Dialogue, phone: Leg, stream_sid: str) -> None:
        self.frames = 0
        self._dialogue = dialogue
        self._phone = phone
        self._stream_sid = stream_sid

    def sink(self) -> Leg | None:
        """Where a chunk of the reply that is being heard only has to be sent on to, if that is so."""
        phone = self._phone
        return phone if self._dialogue.heard_reply is not None and phone.takes_at_once else None

    def cross(self, source: Chunk | int, sink: Leg, limit: int) -> tuple[int, Chunk | None]:
        """Send on what `source` begins with; how many chunks that were, and what is left.

        Raises OSError of the agent's socket, LegClosed of the phone's.
        """
        reply_id, now = self._dialogue.heard_reply, trio.current_time()
        assert reply_id is not None, "there is a sink"
        room = self._dialogue.room_octets(now)
        frames, octets, _, rest, out, sent = straight.play(
            source, sink.descriptor, reply_id, self._stream_sid, room, limit
        )
        if frames:
            self.frames += frames
            self._dialogue.played(octets, now)
            if out is not None:
                sink.put(out, sent)
        return frames, rest
