"""One epoll for the sockets of all legs: what a socket brings is looked at before anybody is woken.

Knows no WebSocket, no call and no log, and not what the bytes mean.

Trio wakes a task for each readable socket: it schedules the task, runs it through all its awaits and asks the
kernel anew for each wait. For 20 ms of audio that is more work than the frame itself. Here a socket is
registered once; one task reads it and offers the bytes to whoever can take them without waiting. The task
that waits for them is woken for whatever was not taken.
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import trio

from relay.streams import RECEIVE_BYTES, SocketStream, TLSStream

_AT_ONCE = 256  # sockets in one turn; those beyond come with the next
_CLOSED = "this stream was closed"


class Listening:
    """The epoll and its task. Open it with `open_listening`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ears: dict[int, Ear] = {}  # those that are waiting or were just now: at most one for each leg

    def watch(self, descriptor: int, ear: Ear) -> None:
        """Have `ear` hear whenever there is something to read, an end or an error included."""
        if descriptor not in self._ears:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._ears[descriptor] = ear

    def forget(self, descriptor: int) -> None:
        """Have nobody hear; to be said before a socket is closed, since its number is given to another."""
        if self._ears.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    async def run(self) -> NoReturn:
        """Listen for as long as the service runs."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for descriptor, _ in self._epoll.poll(0, _AT_ONCE):
                ear = self._ears.get(descriptor)
                if ear is not None:  # not closed by one that heard before it
                    ear.hear()

    def close(self) -> None:
        """Close the epoll; the sockets are whose they were."""
        self._epoll.close()


class Ear:
    """One stream's place in a listening. `take` is offered all that comes; True where it needed nobody else.

    Whatever `take` raises is raised in the task that waits, as if that task had called it.
    """

    def __init__(
        self,
        listening: Listening,
        stream: SocketStream | TLSStream,
        take: Callable[[bytes], bool],
    ) -> None:
        self._listening = listening
        self._stream = stream
        self._take = take
        self._descriptor = stream.socket.fileno()
        self._reader: trio.lowlevel.Task | None = None
        self._brought: bytes | Exception = b""  # for the reader that was woken

    async def receive(self) -> bytes:
        """The next bytes that were not taken; `b""` when the far end has finished sending.

        Raises as the stream's `receive_some` does, and as `take` does. A cancelled call has lost nothing.
        """
        if self._reader is not None:
            raise trio.BusyResourceError("another task is receiving from this stream")
        if self._stream.holds_bytes:
            return await self._stream.receive_some(RECEIVE_BYTES)
        if self._stream.socket.fileno() == -1:
            raise trio.ClosedResourceError(_CLOSED)
        self._listening.watch(self._descriptor, self)
        self._reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._give_up)
        brought, self._brought = self._brought, b""
        if isinstance(brought, Exception):
            raise brought
        return brought

    def hear(self) -> None:
        """Read, have it taken, or else wake the reader."""
        if self._reader is None:  # it is busy, or gone: not to be told again and again
            self._listening.forget(self._descriptor)
            return
        stream = self._stream
        try:
            chunk = stream.receive_nowait(RECEIVE_BYTES)
            while chunk is not None and self._take(chunk):
                if not stream.holds_bytes or self._reader is None:  # None: cancelled by what was taken
                    return
                chunk = stream.receive_nowait(RECEIVE_BYTES)
        except Exception as problem:  # noqa: BLE001 - no border: the reader raises it, in its own call
            self._wake(problem)
        else:
            if chunk is not None:
                self._wake(chunk)

    def close(self) -> None:
        """Hear no more; to be called before the stream is closed. A waiting task is told so."""
        self._listening.forget(self._descriptor)
        self._wake(trio.ClosedResourceError(_CLOSED))

    def _wake(self, brought: bytes | Exception) -> None:
        if self._reader is not None:
            self._brought = brought
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    def _give_up(self, _: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED


@asynccontextmanager
async def open_listening() -> AsyncIterator[Listening | None]:
    """A listening whose task runs. None on a system without epoll: each leg then waits for itself."""
    if not hasattr(select, "epoll"):
        yield None
        return
    listening = Listening()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening.run, name="listening")
            yield listening
            nursery.cancel_scope.cancel()
    finally:
        listening.close()
