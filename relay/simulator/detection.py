"""The carrier's machine detection: when it has made up its mind, and in which words it says so.

Knows the scenario and what an observer notices at the telephone; no stream, no webhook.

A machine that is only to be told from a person is known after some seconds. Where the end of its greeting is
wanted too, that is its beep, or so much silence behind its last words.
"""

from __future__ import annotations

import trio

from relay.simulator.scenario import Network

SPEECH_END_SECONDS = 1.2  # MachineDetectionSpeechEndThreshold, its default
TIMEOUT_SECONDS = 30.0  # MachineDetectionTimeout, its default: then it is `unknown`


class Detection:
    """Listens to one call. `mode` is MachineDetection of the order: Enable or DetectMessageEnd."""

    def __init__(self, network: Network, mode: str) -> None:
        self._network = network
        self._mode = mode
        self._beeped = trio.Event()
        self._fell_silent = trio.Event()

    def notice(self, event: str) -> None:
        """Something that can be noticed at the telephone."""
        if event == "beeped":
            self._beeped.set()
        elif event == "speech-ended":
            self._fell_silent.set()

    async def verdict(self) -> str:
        """`AnsweredBy`, as soon as it is known."""
        network = self._network
        with trio.move_on_after(TIMEOUT_SECONDS):
            await trio.sleep(network.verdict_seconds)
            if network.answered_by != "machine":
                return network.answered_by
            if self._mode == "Enable":
                return "machine_start"
            return await self._end_of_greeting()
        return "unknown"

    async def _end_of_greeting(self) -> str:
        await self._fell_silent.wait()
        with trio.move_on_after(SPEECH_END_SECONDS):
            await self._beeped.wait()
            return "machine_end_beep"
        return "machine_end_silence"
