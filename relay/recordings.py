"""The relay's own recordings: what the callee said and heard, one stereo μ-law WAV for each stream of a call.

Knows the messages of the phone's leg, and no call. Left is what the callee said, right what he heard.

A thread of its own decodes and writes. What waits for it is bounded; what does not fit is counted and becomes
silence: a slow disk costs the recording a second, a full one the recording, and neither costs the call
anything. A leg that is recorded takes the long way: each of its messages wakes a task.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from enum import Enum, auto
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec
import structlog
import trio

from relay.outcomes import WireError
from relay.wire import phone
from relay.wire.audio import BYTES_PER_SECOND

WAITING_BYTES = 384 * 1024  # of messages of one call that wait for the disk: some 14 s of both directions
AHEAD_BYTES = 480_000  # of the agent's sound that the telephone still has to play: a minute
WRITTEN_AT_ONCE = 16 * 1024  # a second of both tracks
FINISH_SECONDS = 2.0  # for the end of a file to be written, before the record is saved without a word of it
FRAME_BYTES = 160  # 20 ms, as Twilio sends them
ROUND_SECONDS = 0.1  # between two rounds of the thread, which so wakes ten times a second and not a thousand
_ITEM_BYTES = 200  # about what a waiting message takes besides its payload
_SILENCE = b"\xff"

log = structlog.get_logger(subsystem="calls")


class _Kind(Enum):
    SAID = auto()  # by the callee
    QUEUED = auto()  # for the callee
    CLEARED = auto()
    LOST = auto()  # so many frames of the callee's
    ENDED = auto()


class _Sent(msgspec.Struct):
    """A message of ours to the carrier, as far as it makes a sound or silences one."""

    event: str
    media: phone.MediaBody | None = None


_read_sent = msgspec.json.Decoder(_Sent).decode


class _Tray:
    """What waits for the thread. Bounded by WAITING_BYTES for each recording."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[tuple[_File, _Kind, Any] | None] = SimpleQueue()
        self.hurry = threading.Event()  # somebody waits for the end of a file

    def empty(self) -> None:
        """Take out what comes, in rounds, until None does."""
        while True:
            self.hurry.wait(ROUND_SECONDS)
            self.hurry.clear()
            while not self.queue.empty():
                item = self.queue.get()
                if item is None:
                    return
                file, kind, content = item
                file.take(kind, content)


class Recording:
    """One stream that is being recorded. `tap` is what its leg calls with each message."""

    def __init__(self, path: Path, tray: _Tray) -> None:
        self._file = _File(path)
        self._tray = tray
        self._offered_bytes = 0
        self._frames_lost = 0  # since the last one that found room
        self._all_lost = 0

    def tap(self, direction: str, text: bytes) -> None:
        """Take a message off the leg; only what is a sound counts."""
        if direction == "out":
            sent = _read_sent(text)
            if sent.event == "clear":
                self._offer(_Kind.CLEARED, "")
            elif sent.media is not None:
                self._offer(_Kind.QUEUED, sent.media.payload)
            return
        try:
            message = phone.decode(text)
        except WireError:
            return
        if isinstance(message, phone.Media) and message.media.track == "inbound":
            self._offer(_Kind.SAID, message.media.payload)

    def _offer(self, kind: _Kind, payload: str) -> None:
        size = len(payload) + _ITEM_BYTES
        if self._offered_bytes - self._file.taken_bytes + size > WAITING_BYTES:
            self._frames_lost += kind is _Kind.SAID
            self._all_lost += kind is not _Kind.CLEARED
            return
        if self._frames_lost:
            self._put(_Kind.LOST, self._frames_lost, _ITEM_BYTES)
            self._frames_lost = 0
        self._put(kind, payload, size)

    def _put(self, kind: _Kind, content: Any, size: int) -> None:
        self._offered_bytes += size
        self._tray.queue.put((self._file, kind, content))

    async def finish(self) -> dict[str, Any]:
        """End the file; what is to be noted of it. Waits for FINISH_SECONDS at most."""
        self._tray.queue.put((self._file, _Kind.ENDED, self._frames_lost))
        self._tray.hurry.set()
        wait = partial(self._file.done.wait, FINISH_SECONDS)
        # In a thread of its own: a record is saved behind it, also where a hundred wait for one disk.
        is_done = await trio.to_thread.run_sync(wait, limiter=trio.CapacityLimiter(1))
        problem = self._file.problem or ("" if is_done else "the disk is too slow")
        fields: dict[str, Any] = {"file": self._file.path.name, "seconds": self._file.seconds}
        fields |= {"messages_lost": self._all_lost} if self._all_lost else {}
        return fields | ({"problem": problem} if problem else {})


class _File:
    """One file, in the hands of the thread. Whole at any moment: its sizes follow each write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken_bytes = 0  # of what was offered; read by the loop, written here
        self.problem = ""
        self.done = threading.Event()
        self._descriptor: int | None = None
        self._written = 0  # bytes of sound
        self._unwritten = bytearray()
        self._ahead = bytearray()  # what the telephone has not played yet

    @property
    def seconds(self) -> float:
        return round(self._written / 2 / BYTES_PER_SECOND, 3)

    def take(self, kind: _Kind, content: Any) -> None:
        """One thing that happened on the leg, in order."""
        size = len(content) if isinstance(content, str) else 0
        self.taken_bytes += size + _ITEM_BYTES
        try:
            match kind:
                case _Kind.SAID:
                    self._play(_decode(content))
                case _Kind.QUEUED:
                    self._ahead += _decode(content)[: max(0, AHEAD_BYTES - len(self._ahead))]
                case _Kind.CLEARED:
                    self._ahead.clear()
                case _Kind.LOST | _Kind.ENDED:
                    for _ in range(content):
                        self._play(_SILENCE * FRAME_BYTES)
            if kind is _Kind.ENDED:
                self._write()
        except OSError as problem:
            self.problem = problem.strerror or type(problem).__name__
            self._unwritten.clear()
        if kind is _Kind.ENDED:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self.done.set()

    def _play(self, said: bytes) -> None:
        """The telephone plays for as long as the callee's frame is: Twilio sends one each 20 ms, always."""
        if self.problem:
            return
        heard = bytes(self._ahead[: len(said)])
        del self._ahead[: len(said)]
        both = bytearray(2 * len(said))
        both[0::2] = said
        both[1::2] = heard.ljust(len(said), _SILENCE)
        self._unwritten += both
        if len(self._unwritten) >= WRITTEN_AT_ONCE:
            self._write()

    def _write(self) -> None:
        if self.problem:
            return
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self.path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        head = _head((self._written + len(self._unwritten)) // 2)
        os.pwrite(self._descriptor, head, 0)
        position = len(head) + self._written
        while self._unwritten:
            sent = os.pwrite(self._descriptor, self._unwritten, position)
            position += sent
            self._written += sent
            del self._unwritten[:sent]


def _head(samples: int) -> bytes:
    """A WAV's first 58 bytes: μ-law (format 7) needs the long format chunk, and a fact chunk."""
    rates = struct.pack("<HHIIHHH", 7, 2, BYTES_PER_SECOND, 2 * BYTES_PER_SECOND, 2, 8, 0)
    fact = b"fact" + struct.pack("<II", 4, samples)
    chunks = b"WAVE" + b"fmt " + struct.pack("<I", len(rates)) + rates + fact
    body = chunks + b"data" + struct.pack("<I", 2 * samples)
    return b"RIFF" + struct.pack("<I", len(body) + 2 * samples) + body


def _decode(payload: str) -> bytes:
    try:
        return b64decode(payload)
    except ValueError:
        return b""


class Recordings:
    """The folder of recordings; without one nothing is recorded. Made by `open_recordings`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.tray = _Tray()

    def begin(self, call_id: str, attempt: int) -> Recording | None:
        """Record a stream of a call from now on."""
        if self._folder is None:
            return None
        return Recording(self._folder / f"{call_id}.{attempt}.wav", self.tray)

    async def call_ids(self) -> list[str]:
        """The calls of which there is a recording here."""
        return sorted(
            await trio.to_thread.run_sync(lambda: {file.name.split(".")[0] for file in self._files()})
        )

    async def erase(self, call_ids: Collection[str]) -> int:
        """Remove what there is of these calls on this node; how many files that were."""
        wanted = frozenset(call_ids)
        return await self._remove(lambda file: file.name.split(".")[0] in wanted)

    async def purge(self, seconds: float) -> int:
        """Remove what was written last so long ago; how many files that were."""
        since = time.time() - seconds
        return await self._remove(lambda file: file.stat().st_mtime < since)

    async def _remove(self, is_meant: Callable[[Path], bool]) -> int:
        def remove() -> int:
            removed = 0
            for file in self._files():
                try:
                    if is_meant(file):
                        file.unlink()
                        removed += 1
                except OSError as problem:
                    log.warning("recording not removed", file=file.name, problem=str(problem))
            return removed

        return await trio.to_thread.run_sync(remove)

    def _files(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.glob("call_*.wav"))


NO_RECORDINGS = Recordings(None)


@asynccontextmanager
async def open_recordings(folder: Path | None) -> AsyncIterator[Recordings]:
    """Recordings with the thread that writes them; at the end it has FINISH_SECONDS for what still waits."""
    recordings = Recordings(folder)
    if folder is None:
        yield recordings
        return
    thread = threading.Thread(target=recordings.tray.empty, name="recordings", daemon=True)
    thread.start()
    try:
        yield recordings
    finally:
        recordings.tray.queue.put(None)
        recordings.tray.hurry.set()
        thread.join(FINISH_SECONDS)  # no call is left that would be kept waiting
