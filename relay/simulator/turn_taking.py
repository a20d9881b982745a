"""When the emulated agent takes its turn and when it gives it up, by its configuration.

It must not know sound, replies or the wire: times in seconds come out.

Measured on the live service in September 2026; what a session sets of `turn_detection` replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.simulator.scenario import Agent
from relay.simulator.session_config import SessionConfig, TurnDetection
from relay.simulator.sound import LOUD_DBFS

COMMIT_SECONDS = {"min_latency": 1.3, "balanced": 1.9, "max_accuracy": 3.2}
ONSET_SECONDS = 0.6
INTERRUPTION_DELAY_SECONDS = {"min_latency": 0.0, "balanced": 0.5, "max_accuracy": 0.5}

SPEECH_DBFS_SPAN = 60.0
"""Not published: what `vad_threshold` is in decibels. Here the default, 0.5, is LOUD_DBFS; 0.8 is 18 more."""
FOCUS_DB = {"near-field": 20.0, "far-field": 12.0}
"""Not published either: how much weaker `voice_focus` makes what is no voice."""


@dataclass(frozen=True, slots=True)
class TurnTaking:
    """The manners of one session. The scenario's `commit_seconds` overrides them."""

    config: SessionConfig
    agent: Agent

    @property
    def _detection(self) -> TurnDetection:
        return self.config.input.turn_detection or TurnDetection()

    @property
    def _mode(self) -> str:
        return self.config.input.transcription_mode or self.agent.mode

    @property
    def commit_seconds(self) -> float:
        """The silence that ends the callee's turn."""
        if self.agent.commit_seconds is not None:
            return self.agent.commit_seconds
        silence_ms = self._detection.min_silence
        return COMMIT_SECONDS[self._mode] if silence_ms is None else silence_ms / 1000

    def speech_dbfs(self, *, is_noise: bool) -> float:
        """The level above which a frame is speech; what is noise arrives weaker where it is suppressed."""
        threshold = self._detection.vad_threshold
        level = LOUD_DBFS if threshold is None else LOUD_DBFS + (threshold - 0.5) * SPEECH_DBFS_SPAN
        return level + (FOCUS_DB.get(self.config.input.voice_focus or "", 0.0) if is_noise else 0.0)

    @property
    def interruptible(self) -> bool:
        """Whether the callee's speech may cut a reply."""
        return self._detection.interrupt_response is not False

    @property
    def barge_in_seconds(self) -> float:
        """How long the callee has to speak for that."""
        delay_ms = self._detection.interruption_delay
        return ONSET_SECONDS + (
            INTERRUPTION_DELAY_SECONDS[self._mode] if delay_ms is None else delay_ms / 1000
        )
