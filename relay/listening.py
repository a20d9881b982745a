"""One epoll for the sockets of all legs: what a socket brings is looked at before anybody is woken.

Knows no WebSocket, no call and no log, and not what the bytes mean.

Trio wakes a task for each readable socket: it schedules the task, runs it through all its awaits and asks the
kernel anew for each wait. For 20 ms of audio that is more work than the frame itself. Here a socket is
registered once, and whenever Trio has nothing to run and is about to sleep, it is us who sleep instead, on
the sockets of the legs and on Trio's own epoll. A leg's bytes are offered to whoever can take them without
waiting; the task that waits for them is woken for whatever was not taken.
"""

from __future__ import annotations

import select
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import trio
from trio._core import _run as trio_run  # no public name leads to Trio's epoll

from relay.framing import Chunk
from relay.streams import SocketStream, TLSStream

_AT_ONCE = 256  # sockets in one turn; those beyond come with the next
_CLOSED = "this stream was closed"
_is_open = trio.lowlevel.RunVar("listening", default=False)


class Listening(trio.abc.Instrument):
    """The epoll, and the sleep of Trio's loop. Open it with `open_listening`; there is one in a run."""

    def __init__(self) -> None:
        self._runner = trio_run.GLOBAL_RUN_CONTEXT.runner
        self._trio = _trios_epoll(self._runner).fileno()
        self._epoll = select.epoll()
        self._epoll.register(self._trio, select.EPOLLIN)
        self._ears: dict[int, Ear] = {}  # those that are waiting or were just now: at most one for each leg
        self._problem: BaseException | None = None
        self._has_failed = trio.Event()

    def watch(self, descriptor: int, ear: Ear) -> None:
        """Have `ear` hear whenever there is something to read, an end or an error included."""
        if descriptor not in self._ears:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._ears[descriptor] = ear

    def forget(self, descriptor: int, ear: Ear) -> None:
        """Have `ear` hear no more; to be said before a socket is closed: its number is given to another.

        Said once more, when the number is another's by then, it changes nothing.
        """
        if self._ears.get(descriptor) is ear:
            del self._ears[descriptor]
            self._epoll.unregister(descriptor)

    def before_io_wait(self, timeout: float) -> None:
        """Trio is about to sleep for so long, unless something happens meanwhile."""
        try:
            self._sleep(timeout)
        except BaseException as problem:  # noqa: ASYNC103, BLE001 - no border: Trio would only log it
            self._problem = problem
            self._has_failed.set()
            self._runner.io_manager.force_wakeup()

    def _sleep(self, timeout: float) -> None:
        """Sleep in Trio's place. Whatever it is to do comes first, as soon as one turn of ours is over."""
        until, ears, trios = time.perf_counter() + timeout, self._ears, self._trio
        while True:
            is_called = False
            for descriptor, _ in self._epoll.poll(timeout, _AT_ONCE):
                ear = ears.get(descriptor)
                if ear is not None:
                    ear.hear()
                elif descriptor == trios:  # else one that heard before it has closed it
                    is_called = True
            if is_called or not timeout:  # its own wait ends at once
                return
            timeout = until - time.perf_counter()
            if timeout <= 0 or self._runner.runq:
                self._runner.io_manager.force_wakeup()
                return

    async def run(self) -> NoReturn:
        """Raise what goes wrong while Trio sleeps; nothing ever should."""
        await self._has_failed.wait()
        assert self._problem is not None
        raise self._problem

    def close(self) -> None:
        """Close the epoll; the sockets are whose they were."""
        self._epoll.close()


class Ear:
    """One stream's place in a listening.

    `take_in` takes what came out of the stream and says what of it is left; None is nothing. `read` is given
    that, and False wakes the task that waits. Whatever they raise is raised in that task.
    """

    def __init__(
        self,
        listening: Listening,
        stream: SocketStream | TLSStream,
        take_in: Callable[[SocketStream | TLSStream], Chunk | None],
        read: Callable[[Chunk], bool],
    ) -> None:
        self._listening = listening
        self._stream = stream
        self._take_in = take_in
        self._read = read
        self._descriptor = stream.socket.fileno()
        self._waiter: trio.lowlevel.Task | None = None
        self._problem: Exception | None = None  # for the task that was woken

    async def wait(self) -> None:
        """Read until `read` says False; it is given `b""` when the far end has finished sending.

        Raises as the stream's `receive_nowait` does, and as `take_in` and `read` do. A cancelled call has
        lost nothing.
        """
        if self._waiter is not None:
            raise trio.BusyResourceError("another task is receiving from this stream")
        while self._stream.holds_bytes:
            await trio.lowlevel.checkpoint()
            rest = self._take_in(self._stream)
            if rest is not None and not self._read(rest):
                return
        if self._stream.socket.fileno() == -1:
            raise trio.ClosedResourceError(_CLOSED)
        self._listening.watch(self._descriptor, self)
        self._waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._give_up)
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def hear(self) -> None:
        """Read what there is, and wake the waiting task if that is needed."""
        if self._waiter is None:  # it is busy, or gone: not to be told again and again
            self._listening.forget(self._descriptor, self)
            return
        stream, problem = self._stream, None
        try:
            while (rest := self._take_in(stream)) is None or self._read(rest):
                if not stream.holds_bytes or self._waiter is None:  # the last: `read` cancelled it
                    return
        except Exception as raised:  # noqa: BLE001 - no border: the waiting task raises it, in its own call
            problem = raised
        self._wake(problem)

    def close(self) -> None:
        """Hear no more; to be called before the stream is closed. A waiting task is told so."""
        self._listening.forget(self._descriptor, self)
        self._wake(trio.ClosedResourceError(_CLOSED))

    def _wake(self, problem: Exception | None) -> None:
        if self._waiter is not None:
            self._problem = problem
            trio.lowlevel.reschedule(self._waiter)
            self._waiter = None

    def _give_up(self, _: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED


def _trios_epoll(runner: trio_run.Runner) -> select.epoll:
    """Where Trio waits. A test holds this against the release of Trio that is pinned."""
    return runner.io_manager._epoll


@asynccontextmanager
async def open_listening() -> AsyncIterator[Listening | None]:
    """A listening that hears. None without epoll, or for a second one in a run: each leg waits for itself."""
    if not hasattr(select, "epoll") or _is_open.get():
        yield None
        return
    listening = Listening()
    _is_open.set(True)
    trio.lowlevel.add_instrument(listening)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening.run, name="listening")
            yield listening
            nursery.cancel_scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(listening)
        _is_open.set(False)
        listening.close()
