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
        self._now = trio.lowlevel.current_clock().current_time  # trio.current_time looks it up each time
        self.last_media_at = self._now()  # also of frames that went the long way
        self._dialogue = dialogue
        self._agent = agent
        self._stream_sid = stream_sid

    def cross(self, source: Chunk | int, limit: int) -> tuple[int, Chunk | None] | None:
        """Send the callee's frames on, while nothing else follows from one. Raises OSError."""
        leg = self._agent.leg
        if leg is None or not self._dialogue.forwards or not leg.takes_at_once():
            return None
        frames, _, payload, rest, out, sent = straight.forward(
            source, leg.descriptor(), self._stream_sid, limit
        )
        if frames:
            self.last_media_at = self._now()
            self.sent(frames, payload)
            if out is not None:
                self._agent.put(leg, out, sent)
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
        self._now = trio.lowlevel.current_clock().current_time
        self._dialogue = dialogue
        self._phone = phone
        self._stream_sid = stream_sid

    def cross(self, source: Chunk | int, limit: int) -> tuple[int, Chunk | None] | None:
        """Send on chunks of the reply that is being heard.

        Raises OSError of the agent's socket, LegClosed of the phone's.
        """
        phone, reply_id = self._phone, self._dialogue.heard_reply
        if reply_id is None or not phone.takes_at_once():
            return None
        now = self._now()
        room = self._dialogue.room_octets(now)
        frames, octets, _, rest, out, sent = straight.play(
            source, phone.descriptor(), reply_id, self._stream_sid, room, limit
        )
        if frames:
            self.frames += frames
            self._dialogue.played(octets, now)
            if out is not None:
                phone.put(out, sent)
        return frames, rest
