"""What keeps live calls going while the store is down: their words wait on this machine until it is back.

Knows no database and no call. An intent to dial never comes here: without the store nothing new is dialled.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from relay.store.ledger import ListEntry, Store, Writes, Written
from relay.store.records import Entry, Progress, StoreError, StoreRefused, left_to_tell

RETRY_SECONDS = 2.0  # between two looks whether the store is back
WAITING_LINES = (
    10_000  # in memory, for the disk; past that a write fails, and the reconciler repairs the call
)
SPOOL_BYTES = 64 * 2**20  # on disk, likewise: hours of full load

_SHAPES: dict[str, Any] = {  # of what is spooled
    "write": Progress,
    "confirm": tuple[str, datetime],
    "tell": tuple[str, list[Entry]],
    "suppress": list[ListEntry],
}

log = structlog.get_logger(subsystem="store")


class Spool(Writes):
    """Writes through to the store while it is up; made by `open_spool`.

    `problem` says why the store is thought to be down, for readyz; None when all is written.
    """

    def __init__(self, store: Store, path: Path) -> None:
        self.problem: str | None = "what was spooled before is not written yet" if _size(path) else None
        self.torn = 0  # lines that could not be read back
        self.refused = 0  # lines that the store would not take though it is up
        self._store = store
        self._path = path
        self._waiting: deque[bytes] = deque()
        self._arrived = trio.Event()
        self._written = trio.Event()  # set for a moment, when it is

    @property
    def bytes_on_disk(self) -> int:
        """What waits there for the store."""
        return _size(self._path)

    @property
    def lines_waiting(self) -> int:
        """What waits in memory for the disk."""
        return len(self._waiting)

    # ---- what calls say ----------------------------------------------------------------------

    async def write(self, progress: Progress) -> Written:
        """As the store's. Raises StoreError only when this machine can keep no more either."""
        return await self._through("write", progress) or Written.SPOOLED

    async def confirm(self, call_id: str, at: datetime) -> None:
        """As the store's."""
        await self._through("confirm", (call_id, at))

    async def tell(self, call_id: str, entries: Sequence[Entry]) -> None:
        """As the store's."""
        await self._through("tell", (call_id, list(entries)))

    async def suppress(self, entries: Sequence[ListEntry]) -> None:
        """As the store's. Until it is written no number is dialled at all, so that this one is not either."""
        await self._through("suppress", list(entries))

    async def _through(self, kind: str, content: Any) -> Written | None:
        """What the store makes of it; None where it is down, so that it waits here."""
        if self.problem is None:
            try:
                return await self._give(kind, content)
            except StoreRefused:
                raise
            except StoreError as problem:
                self._is_down(problem)
            except trio.Cancelled:
                self._put(kind, content)  # perhaps a second time: writing it twice is writing it once
                raise
        self._put(kind, content)
        return None

    async def _give(self, kind: str, content: Any) -> Written | None:
        match kind:
            case "write":
                return await self._store.write(content)
            case "confirm":
                await self._store.confirm(*content)
            case "tell":
                await self._store.tell(*content)
            case "suppress":
                await self._store.suppress(content)
        return None

    def doubt(self, problem: StoreError) -> None:
        """Somebody else found the store down: look until it is back."""
        self._is_down(problem)
        self._arrived.set()

    def _is_down(self, problem: StoreError) -> None:
        if self.problem is None:
            log.warning("store is down", detail=str(problem))
        self.problem = str(problem)

    def _put(self, kind: str, content: Any) -> None:
        if len(self._waiting) >= WAITING_LINES or _size(self._path) >= SPOOL_BYTES:
            raise StoreError("the store is down and the spool is full")
        self._waiting.append(_line(kind, content))
        self._arrived.set()

    # ---- writing it when the store is back ---------------------------------------------------

    async def run(self) -> None:
        """Bring what waits to the disk at once, and to the store when it is back."""
        while True:
            if self.problem is None:
                await self._arrived.wait()
            self._arrived = trio.Event()
            await self._to_disk()
            await self._to_store()
            if self.problem is not None:
                await self._keep_until_retry()

    async def _keep_until_retry(self) -> None:
        retry_at = trio.current_time() + RETRY_SECONDS
        while trio.current_time() < retry_at:
            with trio.move_on_at(retry_at):
                await self._arrived.wait()
            self._arrived = trio.Event()
            await self._to_disk()

    async def _to_disk(self) -> None:
        lines = list(self._waiting)
        if not lines:
            return
        try:
            await trio.to_thread.run_sync(partial(_append, self._path, lines))
        except OSError as problem:
            log.error(
                "spool cannot be written", detail=str(problem)
            )  # they stay in memory, and are tried again
        else:
            for _ in lines:
                self._waiting.popleft()

    async def _to_store(self) -> None:
        try:
            await self._store.get("")  # before a long file is read in vain
            lines, torn = await trio.to_thread.run_sync(lambda: _split(_read(self._path)))
            for kind, what in lines:
                await self._deliver(kind, what)
            self.torn += torn
            await trio.to_thread.run_sync(_empty, self._path)
            while self._waiting:  # what came meanwhile: it comes more slowly than it is written
                [(kind, what)], _ = _split(self._waiting[0])
                await self._deliver(kind, what)
                self._waiting.popleft()
        except (StoreError, OSError) as problem:
            self._is_down(StoreError(str(problem)))
        else:
            self.problem = None
            self._written.set()
            self._written = trio.Event()
            log.info("store is back", torn=self.torn, refused=self.refused)

    async def _deliver(self, kind: str, what: Any) -> None:
        """Give one line to the store. One that it will never take must not block the rest."""
        try:
            content = msgspec.convert(what, _SHAPES[kind])
        except (KeyError, msgspec.ValidationError):
            self.torn += 1
            return
        try:
            if await self._give(kind, content) is Written.STALE and (told := left_to_tell(content.entries)):
                await self._store.tell(
                    content.call_id, told
                )  # it was taken from us while we could say nothing
        except StoreRefused as problem:
            log.error("the ledger refuses a spooled line", kind=kind, detail=str(problem))
            self.refused += 1

    async def wait_written(self) -> None:
        """Return when nothing waits for the store."""
        while self.problem is not None:
            await self._written.wait()

    def leave(self) -> None:
        """Put what still waits on the disk, for the next start; blocks for as long as that takes."""
        if self._waiting:
            try:
                _append(self._path, list(self._waiting))
            except OSError as problem:
                log.error("spooled lines are lost", lines=len(self._waiting), detail=str(problem))


@asynccontextmanager
async def open_spool(store: Store, path: Path) -> AsyncGenerator[Spool]:
    """A spool in this file. What an earlier process left there is written first."""
    spool = Spool(store, path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.run, name="spool")
            yield spool
            nursery.cancel_scope.cancel()
    finally:
        spool.leave()


# ---- lines -----------------------------------------------------------------------------------
# Each is its checksum, its length and its content: a torn or altered one shows, and ends with its line.


def _line(kind: str, content: Any) -> bytes:
    text = json.dumps([kind, msgspec.to_builtins(content)]).encode()
    return b"%08x %d %b\n" % (zlib.crc32(text), len(text), text)


def _split(content: bytes) -> tuple[Iterator[tuple[str, Any]], int]:
    lines = content.split(b"\n")
    whole = [text for text in map(_checked, lines) if text is not None]
    torn = sum(line != b"" for line in lines) - len(whole)
    return ((kind, what) for kind, what in map(json.loads, whole)), torn


def _checked(line: bytes) -> bytes | None:
    head, _, rest = line.partition(b" ")
    length, _, text = rest.partition(b" ")
    sound = head == b"%08x" % zlib.crc32(text) and length == b"%d" % len(text)
    return text if sound and text else None


def _append(path: Path, lines: Sequence[bytes]) -> None:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
    )  # it holds speech
    with open(descriptor, "ab") as file:
        file.write(b"\n" + b"".join(lines))  # what a crash tore before ends here; empty lines are nothing
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _empty(path: Path) -> None:
    path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
