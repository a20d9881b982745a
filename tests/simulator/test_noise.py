"""The noise of a line: heard for speech by default, and not where a session is told to know better."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from relay.simulator.listening import UNINTELLIGIBLE, Recogniser, VoiceActivity
from relay.simulator.noise import Line, noise_frames
from relay.simulator.scenario import Agent, Noise
from relay.simulator.session_config import SessionConfig
from relay.simulator.sound import (
    FRAME_BYTES,
    SILENCE,
    decode_mulaw,
    encode_mulaw,
    frames,
    is_loud,
    level_dbfs,
)
from relay.simulator.speech import Voices
from relay.simulator.turn_taking import TurnTaking

LEVEL = -34.0
NOISE = Noise(level_dbfs=LEVEL, every_seconds=4, lasts_seconds=2)
QUIET = bytes([SILENCE]) * FRAME_BYTES
VOICES = Voices(synthesise=False)
SAID = frames(VOICES.say("callee", "Hello there."))


def speech_seconds(heard: list[bytes], **config: Any) -> float:
    """For how long an agent of that configuration takes it for speech."""
    taking = TurnTaking(SessionConfig.model_validate({"input": config}), Agent())
    recogniser = Recogniser(["Hello there."], VOICES, noise_frames(LEVEL))
    activity = VoiceActivity()
    for frame in heard:
        activity.hear(frame, taking.speech_dbfs(is_noise=recogniser.is_noise(frame)))
    return activity.speech_seconds


def test_noise_has_its_level_and_is_the_same_each_time() -> None:
    assert level_dbfs(b"".join(noise_frames(LEVEL))) == pytest.approx(LEVEL, abs=1)
    assert noise_frames(LEVEL) == noise_frames.__wrapped__(LEVEL)


def test_noise_comes_in_bursts_and_speech_masks_it() -> None:
    line = Line(NOISE)
    carried = [line.carry(QUIET) for _ in range(400)]
    assert sum(map(is_loud, carried)) == pytest.approx(200, abs=2)
    assert [line.carry(frame) for frame in SAID if is_loud(frame)] == [f for f in SAID if is_loud(f)]
    assert Line(None).carry(QUIET) == QUIET


@pytest.mark.parametrize(
    ("config", "misfires"),
    [
        ({}, True),
        ({"turn_detection": {"vad_threshold": 0.5}}, True),
        ({"turn_detection": {"vad_threshold": 0.8}}, False),
        ({"turn_detection": {"vad_threshold": 0.2}}, True),
        ({"voice_focus": "near-field"}, False),
        ({"voice_focus": "far-field"}, False),
    ],
)
def test_noise_is_speech_unless_it_is_below_the_threshold_or_suppressed(
    config: dict[str, Any], misfires: bool
) -> None:
    assert (speech_seconds(list(noise_frames(LEVEL)), **config) > 0) is misfires
    assert speech_seconds(SAID, **config) > 0.3, "and the callee is heard all the same"


def test_a_threshold_does_not_hear_who_speaks_softly_and_suppression_does() -> None:
    soft = [encode_mulaw(array("h", (s // 8 for s in decode_mulaw(frame))).tobytes()) for frame in SAID]
    assert speech_seconds(soft, turn_detection={"vad_threshold": 0.8}) == 0
    assert speech_seconds(soft, voice_focus="near-field") > 0.3


def test_there_are_no_words_in_noise() -> None:
    recogniser = Recogniser(["Hello there."], VOICES, noise_frames(LEVEL))
    for frame in noise_frames(LEVEL):
        recogniser.hear(frame)
    assert recogniser.text() == UNINTELLIGIBLE
    for frame in [*noise_frames(LEVEL), *SAID]:
        recogniser.hear(frame)
    assert recogniser.text() == "Hello there."
