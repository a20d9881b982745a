"""The relay's own recordings: what both sides heard, bounded, off the call's way, and removed in time."""

from __future__ import annotations

import errno
import os
import random
import threading
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from relay.call import Call
from relay.handshake import accept_phone_leg, join_agent_leg
from relay.legs import Leg
from relay.outcomes import Ending
from relay.recordings import AHEAD_BYTES, WAITING_BYTES, WRITTEN_AT_ONCE, Recordings, open_recordings
from relay.simulator.agent import AgentEmulator
from relay.simulator.callee import Callee as TalkingCallee
from relay.simulator.handset import Handset
from relay.simulator.ledger import Ledger
from relay.simulator.media_stream import StreamWriter
from relay.simulator.scenario import Callee, shipped_scenario
from relay.simulator.sound import write_stereo_wav
from relay.simulator.speech import Voices
from relay.terms import Terms
from relay.tools import CallContext, Toolbox
from relay.tools.builtin import end_call
from relay.wire import phone as phone_wire
from tests.far_ends import AGENT_URL, memory_pair
from tests.test_call import SESSION, Notebook

SID = "MZ" + "0" * 32
HEAD_BYTES = 58


@pytest.fixture
async def recordings(tmp_path: Path) -> AsyncIterator[Recordings]:
    async with open_recordings(tmp_path) as opened:
        yield opened


def frame(fill: int) -> bytes:
    payload = b64encode(bytes([fill]) * 160).decode()
    return StreamWriter("AC1", "CA1", SID, {}).media(payload, 0).encode()


def chunk(fill: int, size: int = 160) -> bytes:
    return phone_wire.media(SID, b64encode(bytes([fill]) * size).decode())


def tracks(file: Path) -> tuple[bytes, bytes]:
    """What was said, and what was heard."""
    sound = file.read_bytes()[HEAD_BYTES:]
    return sound[0::2], sound[1::2]


# ---- beside the telephone ----------------------------------------------------------------------------------


async def test_a_recording_is_byte_for_byte_what_the_telephone_said_and_played(
    recordings: Recordings, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A whole call in virtual time, with an interruption in it: nothing takes any time on the way."""
    script = shipped_scenario("appointment")
    recording = recordings.begin("call_1", 0)
    assert recording is not None
    ledger, voices = Ledger(), Voices(synthesise=False)
    emulator = AgentEmulator("key", lambda _: script, lambda _: ledger, voices, random.Random(1))
    callee = TalkingCallee(Callee(turn=script.callee.turn), lambda text: voices.say("callee", text))

    async with trio.open_nursery() as nursery:

        async def open_agent(_token: str | None) -> Leg:
            ours, theirs = memory_pair()
            nursery.start_soon(emulator.serve, theirs)
            return await join_agent_leg(ours, AGENT_URL, headers={"Authorization": "Bearer key"})

        async def nothing(_ending: Ending) -> None:
            await trio.lowlevel.checkpoint()

        ours, theirs = memory_pair()
        handset = Handset(theirs, StreamWriter("AC1", "CA1", SID, {}), callee, lambda _: None)
        leg = accept_phone_leg(ours)
        leg.tap = recording.tap
        call = Call(
            phone=leg,
            stream_sid=SID,
            open_agent=open_agent,
            terms=Terms(session={**SESSION, "output": SESSION["input"]}, time_limit_seconds=120),
            tools=Toolbox([end_call], CallContext("call_1", "+12025550143", {})),
            diary=Notebook(),
            announce=nothing,
            hang_up=nothing,
            answered_at=trio.current_time(),
        )
        nursery.start_soon(handset.run)
        await call.run()
        nursery.cancel_scope.cancel()
    noted = await recording.finish()

    assert len(ledger.select("agent", "sent", "reply.done")) >= 5
    assert handset.violations == []
    frames = round(noted["seconds"] * 50)
    assert 0 <= len(handset.said) // 160 - frames <= 2  # what was said after the socket was closed
    expected = tmp_path / "telephone.wav"
    write_stereo_wav(expected, bytes(handset.said[: frames * 160]), bytes(handset.heard[: frames * 160]))
    assert (tmp_path / noted["file"]).read_bytes() == expected.read_bytes()


# ---- what costs the recording, and not the call ------------------------------------------------------------


async def test_what_a_clear_drops_is_not_recorded_as_heard(recordings: Recordings, tmp_path: Path) -> None:
    recording = recordings.begin("call_1", 0)
    assert recording is not None
    recording.tap("out", chunk(1, 320))
    recording.tap("in", frame(2))
    recording.tap("out", phone_wire.clear(SID))
    recording.tap("out", phone_wire.mark(SID, "reply.1.0"))
    recording.tap("in", frame(2))
    recording.tap("in", b"no message")

    assert await recording.finish() == {"file": "call_1.0.wav", "seconds": 0.04}
    assert tracks(tmp_path / "call_1.0.wav") == (b"\x02" * 320, b"\x01" * 160 + b"\xff" * 160)
    assert (tmp_path / "call_1.0.wav").stat().st_mode & 0o777 == 0o600


async def test_what_a_slow_disk_has_no_room_for_becomes_silence_and_is_counted(
    recordings: Recordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, write = threading.Event(), os.pwrite

    def slowly(descriptor: int, data: bytes, offset: int) -> int:
        hangs.wait(10)
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", slowly)
    recording = recordings.begin("call_1", 0)
    assert recording is not None
    for _ in range(3000):  # a minute, said at once
        recording.tap("in", frame(2))
        await trio.lowlevel.checkpoint()
    waiting = recordings.tray.queue.qsize()
    assert waiting * 200 < WAITING_BYTES
    hangs.set()
    noted = await recording.finish()

    assert noted["seconds"] == 60
    said, _ = tracks(tmp_path / noted["file"])
    assert said.count(b"\xff") == noted["messages_lost"] * 160 > 0
    assert said.count(b"\x02") == 60 * 8000 - noted["messages_lost"] * 160


async def test_the_agents_sound_that_waits_to_be_played_is_bounded(
    recordings: Recordings, tmp_path: Path
) -> None:
    assert WAITING_BYTES + AHEAD_BYTES < 1024 * 1024
    recording = recordings.begin("call_1", 0)
    assert recording is not None
    for _ in range(20):
        recording.tap("out", chunk(1, 64_000))
        await trio.sleep(0.15)  # for the thread, which is faster than that
    file = recording._file
    assert len(file._ahead) == AHEAD_BYTES
    await recording.finish()


async def test_a_full_disk_costs_the_recording_and_says_so(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    recording = recordings.begin("call_1", 0)
    assert recording is not None
    for _ in range(200):
        recording.tap("in", frame(2))
    assert (await recording.finish())["problem"] == "No space left on device"

    second = recordings.begin("call_2", 0)  # whose thread is still there
    monkeypatch.undo()
    assert second is not None
    second.tap("in", frame(2))
    assert "problem" not in await second.finish()


async def test_the_end_of_a_recording_waits_for_nobody_elses_thread(recordings: Recordings) -> None:
    """The record is saved behind it: it may not queue behind all the calls that a drain cuts at once."""
    recording = recordings.begin("call_1", 0)
    assert recording is not None
    threads = trio.to_thread.current_default_thread_limiter()
    others = [object() for _ in range(int(threads.total_tokens))]
    for other in others:
        threads.acquire_on_behalf_of_nowait(other)
    with trio.fail_after(2):
        assert "problem" not in await recording.finish()
    for other in others:
        threads.release_on_behalf_of(other)


async def test_a_long_gap_is_written_piece_by_piece(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, write = [], os.pwrite

    def noted(descriptor: int, data: bytes, offset: int) -> int:
        sizes.append(len(data))
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", noted)
    recording = recordings.begin("call_1", 0)
    assert recording is not None
    recording._frames_lost = 60 * 50  # of a minute in which the disk hung
    assert (await recording.finish())["seconds"] == 60
    assert max(sizes) < 2 * WRITTEN_AT_ONCE


async def test_without_a_folder_nothing_is_recorded() -> None:
    async with open_recordings(None) as recordings:
        assert recordings.begin("call_1", 0) is None


# ---- how long they are kept --------------------------------------------------------------------------------


async def test_recordings_are_removed_by_call_and_by_age(recordings: Recordings, tmp_path: Path) -> None:
    for name, age_seconds in (("call_1.0", 10), ("call_1.1", 10), ("call_2.0", 100), ("call_3.0", 10)):
        file = tmp_path / f"{name}.wav"
        file.write_bytes(b"RIFF")
        os.utime(file, (file.stat().st_mtime - age_seconds,) * 2)
    (tmp_path / "notes.txt").write_text("not ours")

    assert await recordings.call_ids() == ["call_1", "call_2", "call_3"]
    assert await recordings.erase(["call_1", "call_9"]) == 2
    assert await recordings.purge(50) == 1
    assert sorted(os.listdir(tmp_path)) == ["call_3.0.wav", "notes.txt"]
