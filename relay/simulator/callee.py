"""The person at the telephone: listens to what it plays, and speaks, presses keys and hangs up by a script.

Knows 20 ms frames only: no clock, no socket, no protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from relay.simulator.noise import Line
from relay.simulator.scenario import Callee as CalleeScript
from relay.simulator.scenario import CalleeTurn
from relay.simulator.sound import BYTES_PER_SECOND, FRAME_BYTES, SILENCE, beep, frames, is_loud

FRAME_SECONDS = 0.02
# Shorter gaps are pauses within an utterance, not its end: rendered sentences are up to 0.34 s apart.
GAP_FRAMES = 20
# Less than this is a click or the tail of a word, not somebody who spoke.
SPOKE_FRAMES = 10
KEY_FRAMES = 12  # from one key to the next, by somebody who types a number
BEEP_SECONDS = 0.5

_SILENT_FRAME = bytes([SILENCE]) * FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an observer would have noticed at the telephone, `frames_ago` frames back."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)
    frames_ago: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """What the callee does in one frame."""

    said: bytes
    pressed: str | None = None
    hung_up: bool = False
    notices: Sequence[Notice] = ()


class _Ear:
    """Follows the agent's voice at the telephone."""

    def __init__(self) -> None:
        self.audible = False
        self.silent_frames = 0  # since the last loud frame
        self.loud_frames = 0  # since the callee began to wait for his next turn
        self.utterance_frames = 0  # loud ones, of an utterance that began while he waited
        self._fresh = True  # whether what is audible now, or next, began while he waited

    def expect(self) -> None:
        """Begin to wait: what was heard before no longer counts; an utterance under way is not a next one."""
        self.loud_frames = self.utterance_frames = 0
        self._fresh = not self.audible

    def hear(self, frame: bytes) -> Notice | None:
        """One frame; a Notice where the agent begins or ceases to be audible."""
        if is_loud(frame):
            self.silent_frames = 0
            self.loud_frames += 1
            self.utterance_frames += self._fresh
            if not self.audible:
                self.audible = True
                return Notice("agent-audible")
            return None
        self.silent_frames += 1
        if self.audible and self.silent_frames >= GAP_FRAMES:
            self.audible = False
            self._fresh = True
            return Notice("agent-silent", frames_ago=self.silent_frames)
        return None


class Callee:
    """Plays the turns of a script, one frame at a time; afterwards it stays silent, or leaves.

    What he does during an announcement is no part of the stream.
    """

    def __init__(self, script: CalleeScript, say: Callable[[str], bytes]) -> None:
        self._say = say
        self._turns = deque(turn for turn in script.turn if turn.when != "announcement")
        self._leave_after_seconds = script.leave_after_seconds
        self._line = Line(script.noise)
        self._ear = _Ear()
        self._speech: deque[bytes] = deque()
        self._ends = "speech-ended"  # what a notice calls the end of it
        self._keys: deque[str | None] = deque()  # those still to be pressed, with the frames between them
        self._waited_frames = 0

    def add(self, turn: CalleeTurn) -> None:
        """One thing more to do, behind all others."""
        self._turns.append(turn)

    def leave(self) -> None:
        """Hang up in the next frame, whatever was to be said."""
        self._speech.clear()
        self._keys.clear()
        self._turns = deque([CalleeTurn(when="answered", pause_seconds=0, hang_up=True)])

    def live_frame(self, heard: bytes) -> Moment:
        """Hear one frame of the telephone and answer with one."""
        moment = self._live(heard)
        return replace(moment, said=self._line.carry(moment.said))

    def _live(self, heard: bytes) -> Moment:
        notices = [notice for notice in [self._ear.hear(heard)] if notice]
        if self._speech:
            return self._speak(notices)
        if self._keys:
            return self._type(notices)
        self._waited_frames += 1
        if not self._turns:
            leaves = self._leave_after_seconds is not None and self._agent_finished(self._leave_after_seconds)
            return Moment(_SILENT_FRAME, hung_up=leaves, notices=notices)
        if not self._is_due(self._turns[0]):
            return Moment(_SILENT_FRAME, notices=notices)
        return self._take_turn(self._turns.popleft(), notices)

    def _is_due(self, turn: CalleeTurn) -> bool:
        match turn.when:
            case "agent-finished":
                return self._agent_finished(turn.pause_seconds)
            case "agent-speaking":
                return self._ear.utterance_frames * FRAME_SECONDS >= max(turn.pause_seconds, FRAME_SECONDS)
            case "answered":
                return self._waited_frames * FRAME_SECONDS >= turn.pause_seconds
            case "announcement":
                return False

    def _agent_finished(self, pause_seconds: float) -> bool:
        heard_speech = self._ear.loud_frames >= SPOKE_FRAMES
        return heard_speech and self._ear.silent_frames * FRAME_SECONDS >= pause_seconds

    def _take_turn(self, turn: CalleeTurn, notices: list[Notice]) -> Moment:
        if turn.say is not None:
            self._speech.extend(frames(self._say(turn.say)))
            self._ends = "speech-ended"
            return self._speak([*notices, Notice("speech-started", {"text": turn.say})])
        if turn.beep:
            self._speech.extend(frames(beep(round(BEEP_SECONDS * BYTES_PER_SECOND))))
            self._ends = "beeped"
            return self._speak(notices)
        if turn.press is not None:
            for key in turn.press:
                self._keys += [key, *[None] * KEY_FRAMES]
            return self._type(notices)
        self._wait()
        return Moment(_SILENT_FRAME, None, turn.hang_up is not None, notices)

    def _speak(self, notices: list[Notice]) -> Moment:
        frame = self._speech.popleft()
        if not self._speech:
            notices.append(Notice(self._ends))
            self._wait()
        return Moment(frame, notices=notices)

    def _type(self, notices: list[Notice]) -> Moment:
        key = self._keys.popleft()
        if not self._keys:
            self._wait()
        return Moment(_SILENT_FRAME, key, notices=notices)

    def _wait(self) -> None:
        self._waited_frames = 0
        self._ear.expect()
