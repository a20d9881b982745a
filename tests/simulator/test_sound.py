"""The facts of telephone sound, and the renderings that are kept of it."""

from __future__ import annotations

import json
import math
import struct
from array import array
from importlib import resources
from pathlib import Path

import pytest

from relay.simulator import sound
from relay.simulator.scenario import shipped_names, shipped_scenario
from relay.simulator.speech import ONE_MOMENT, TOOL_FAILED, Voices, key


def test_silence_is_the_byte_of_amplitude_zero() -> None:
    assert sound.decode_mulaw(bytes([sound.SILENCE]))[0] == 0
    assert sound.encode_mulaw(array("h", [0]).tobytes()) == bytes([sound.SILENCE])


def test_every_code_survives_decoding_and_encoding() -> None:
    codes = bytes(code for code in range(256) if code != 0x7F)  # 0x7F is the other zero
    assert sound.encode_mulaw(sound.decode_mulaw(codes).tobytes()) == codes


def test_the_ends_of_the_scale_are_those_of_g711() -> None:
    assert list(sound.decode_mulaw(b"\x00\x80")) == [-32124, 32124]
    assert sound.encode_mulaw(array("h", [-32768, 32767]).tobytes()) == b"\x00\x80"


def test_a_full_scale_square_wave_is_at_zero_dbfs() -> None:
    assert sound.level_dbfs(b"\x00\x80" * 80) == pytest.approx(0, abs=0.2)


def test_silence_and_nothing_have_no_level() -> None:
    assert sound.level_dbfs(bytes([sound.SILENCE]) * 160) == -math.inf
    assert sound.level_dbfs(b"") == -math.inf


def test_a_whisper_of_noise_is_not_loud_and_speech_is() -> None:
    noise = sound.encode_mulaw(array("h", [60, -60] * 80).tobytes())
    assert not sound.is_loud(noise)
    assert not sound.is_loud(b"")
    assert any(map(sound.is_loud, sound.frames(sound.babble("hello"))))


def test_frames_are_whole_and_filled_with_silence() -> None:
    assert sound.frames(b"\x00" * 161) == [b"\x00" * 160, b"\x00" + bytes([sound.SILENCE]) * 159]


def test_babble_is_the_same_every_time_and_different_for_every_text() -> None:
    assert sound.babble("Good morning") == sound.babble("Good morning")
    morning, evening = (
        set(filter(sound.is_loud, sound.frames(sound.babble(f"Good {day}"))))
        for day in ("morning", "evening")
    )
    assert not morning & evening


def test_babble_takes_sixty_milliseconds_a_character_at_the_level_of_speech() -> None:
    babble = sound.babble("abcdefghij")
    assert len(babble) == pytest.approx(4800, abs=160)
    assert sound.level_dbfs(babble) == pytest.approx(sound.SPEECH_DBFS, abs=1)


def test_a_wav_holds_both_tracks_as_mulaw(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    sound.write_stereo_wav(path, b"\x01\x02\x03", b"\x11")
    content = path.read_bytes()
    assert content[:4] + content[8:12] == b"RIFFWAVE"
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
    chunks = {}
    position = 12
    while position < len(content):
        name, size = struct.unpack("<4sI", content[position : position + 8])
        chunks[name] = content[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    assert struct.unpack("<HHIIHHH", chunks[b"fmt "]) == (7, 2, 8000, 16000, 2, 8, 0)
    assert struct.unpack("<I", chunks[b"fact"]) == (3,)
    assert chunks[b"data"] == b"\x01\x11\x02\xff\x03\xff"


def kept_texts() -> list[tuple[str, str]]:
    shipped = [pair for name in shipped_names() for pair in shipped_scenario(name).texts()]
    return [*shipped, ("agent", ONE_MOMENT), ("agent", TOOL_FAILED)]


@pytest.mark.parametrize(("voice", "text"), kept_texts())
def test_every_text_of_the_shipped_scenarios_is_kept_as_speech(voice: str, text: str) -> None:
    speech = Voices(synthesise=False).say(voice, text)
    assert speech != sound.babble(text)
    assert sound.level_dbfs(speech) == pytest.approx(sound.SPEECH_DBFS, abs=1)
    assert sound.is_loud(speech[:160])
    assert sound.is_loud(speech[-160:])
    assert 0.03 < len(speech) / sound.BYTES_PER_SECOND / len(text) < 0.12, "no human speaks at this pace"


def test_the_kept_speech_is_small_and_indexed() -> None:
    folder = resources.files("relay.simulator.speech")
    index = json.loads(folder.joinpath("index.json").read_text())
    kept = [entry for entry in folder.iterdir() if entry.name.endswith(".ulaw")]
    sizes = {entry.name.removesuffix(".ulaw"): len(entry.read_bytes()) for entry in kept}
    assert set(index) == set(sizes) == {key(voice, text) for voice, text in kept_texts()}
    assert sum(sizes.values()) < 2_000_000  # under 100 kB a scenario


def test_an_unknown_text_is_babbled_where_nothing_can_speak_it() -> None:
    assert Voices(synthesise=False).say("callee", "Nobody ever said this.") == sound.babble(
        "Nobody ever said this."
    )


@pytest.mark.needs_speech
def test_an_unknown_text_is_spoken_where_espeak_is_installed() -> None:
    speech = Voices().say("callee", "Nobody ever said this.")
    assert speech != sound.babble("Nobody ever said this.")
    assert sound.level_dbfs(speech) == pytest.approx(sound.SPEECH_DBFS, abs=1)


def test_there_are_two_voices_and_no_third() -> None:
    voices = Voices(synthesise=False)
    with pytest.raises(ValueError, match="no voice"):
        voices.say("narrator", "Once upon a time")
