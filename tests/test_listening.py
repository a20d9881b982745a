"""One task listens for all: what can be taken at once wakes nobody, and everything else reaches its reader.

Must not know WebSockets or calls: sockets, bytes, and who is told of them.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing
from trio._core import _run as trio_run

from relay.framing import Chunk
from relay.listening import Ear, Listening, _trios_epoll, open_listening
from relay.streams import RECEIVE_BYTES, SocketStream
from tests.far_ends import connected_sockets


class Hearer:
    """An ear, and what it left to the task that waits."""

    def __init__(self, listening: Listening, stream: SocketStream, take: Callable[[bytes], bool]) -> None:
        self.ear = Ear(listening, stream, lambda stream: stream.receive_nowait(RECEIVE_BYTES), self._read)
        self._take = take
        self._left: list[bytes] = []

    def _read(self, chunk: Chunk) -> bool:
        if self._take(bytes(chunk)):
            return True
        self._left.append(bytes(chunk))
        return False

    async def receive(self) -> bytes:
        """What was left, as soon as there is any."""
        await self.ear.wait()
        return self._left.pop(0)

    def close(self) -> None:
        """Hear no more."""
        self.ear.close()


def refuse(_: bytes) -> bool:
    return False


async def ear_on(
    listening: Listening | None, take: Callable[[bytes], bool] = refuse
) -> tuple[Hearer, SocketStream, socket.socket]:
    """An ear, its stream, and the other end."""
    assert listening is not None
    here, there = connected_sockets()
    stream = SocketStream(here)
    return Hearer(listening, stream, take), stream, there


async def test_what_is_taken_wakes_nobody_and_the_rest_comes_in_order() -> None:
    taken: list[bytes] = []

    def take(chunk: bytes) -> bool:
        if chunk.startswith(b"take"):
            taken.append(chunk)
        return chunk.startswith(b"take")

    async with open_listening() as listening:
        ear, stream, far = await ear_on(listening, take)
        with far:
            async with stream:
                for text in (b"take 1", b"take 2", b"leave 1", b"take 3"):
                    far.sendall(text)
                    if text == b"leave 1":
                        assert await ear.receive() == text
                    else:
                        with trio.move_on_after(0.05) as waited:
                            await ear.receive()
                        assert waited.cancelled_caught
                assert taken == [b"take 1", b"take 2", b"take 3"]
                far.shutdown(socket.SHUT_WR)
                assert await ear.receive() == b""
                ear.close()


async def test_what_taking_raises_is_raised_where_the_bytes_are_waited_for() -> None:
    def take(chunk: bytes) -> bool:
        raise KeyError(chunk)

    async with open_listening() as listening:
        broken, broken_stream, broken_far = await ear_on(listening, take)
        sound, sound_stream, sound_far = await ear_on(listening)
        broken_far.sendall(b"bug")
        with pytest.raises(KeyError):
            await broken.receive()
        sound_far.sendall(b"others hear on")
        assert await sound.receive() == b"others hear on"
        for ear, stream, far in ((broken, broken_stream, broken_far), (sound, sound_stream, sound_far)):
            ear.close()
            await stream.aclose()
            far.close()


async def test_a_cancelled_reader_has_lost_nothing_and_nobody_spins_meanwhile() -> None:
    heard = 0

    async with open_listening() as listening:
        ear, stream, far = await ear_on(listening)
        hear = ear.ear.hear

        def counted() -> None:
            nonlocal heard
            heard += 1
            hear()

        ear.ear.hear = counted  # type: ignore[method-assign]
        with trio.move_on_after(0.01):
            await ear.receive()
        far.sendall(b"meanwhile")
        await trio.sleep(0.05)
        assert heard == 1  # then it was forgotten
        assert await ear.receive() == b"meanwhile"
        ear.close()
        await stream.aclose()
        far.close()


async def test_what_was_taken_may_cancel_the_reader() -> None:
    scope = trio.CancelScope()

    def take(_: bytes) -> bool:
        scope.cancel()
        return True

    async with open_listening() as listening:
        ear, stream, far = await ear_on(listening, take)
        far.sendall(b"the last frame")
        with scope:
            await ear.receive()
        assert scope.cancelled_caught
        ear.close()
        await stream.aclose()
        far.close()


async def test_closing_tells_the_reader_and_a_reset_breaks() -> None:
    async with open_listening() as listening:
        ear, stream, far = await ear_on(listening)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await ear.receive()

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await ear.receive()
            ear.close()
            await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ear.receive()
        far.close()

        ear, stream, far = await ear_on(listening)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        with pytest.raises(trio.BrokenResourceError):
            await ear.receive()
        ear.close()
        await stream.aclose()


async def test_a_descriptor_given_to_another_socket_is_heard_by_its_new_owner() -> None:
    async with open_listening() as listening:
        seen = set()
        for number in range(5):
            ear, stream, far = await ear_on(listening)
            seen.add(stream.socket.fileno())
            far.sendall(b"%d" % number)
            assert await ear.receive() == b"%d" % number
            ear.close()
            await stream.aclose()
            far.close()
        assert len(seen) < 5


async def test_a_late_close_does_not_deafen_who_has_the_descriptor_by_then() -> None:
    async with open_listening() as listening:
        gone, gone_stream, gone_far = await ear_on(listening)
        with trio.move_on_after(0.01):
            await gone.receive()
        gone.close()
        descriptor = gone_stream.socket.fileno()
        await gone_stream.aclose()
        gone_far.close()
        here, far = connected_sockets()
        stream = SocketStream(here)
        assert descriptor in (here.fileno(), far.fileno())
        if far.fileno() == descriptor:  # the kernel gave the number to the other one of the two
            stream, far = SocketStream(far), here
        assert listening is not None
        ear = Hearer(listening, stream, refuse)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                assert await ear.receive() == b"still heard"

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            gone.close()
            far.sendall(b"still heard")
        ear.close()
        await stream.aclose()
        far.close()


async def test_one_turn_hears_more_sockets_than_one_poll_brings() -> None:
    async with open_listening() as listening:
        ears = [await ear_on(listening) for _ in range(20)]
        came: list[bytes] = []

        async def read(ear: Hearer) -> None:
            came.append(await ear.receive())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("relay.listening._AT_ONCE", 3)
            async with trio.open_nursery() as nursery:
                for number, (ear, _, far) in enumerate(ears):
                    nursery.start_soon(read, ear)
                    far.sendall(b"%d" % number)
        assert sorted(came, key=int) == [b"%d" % number for number in range(20)]
        for ear, stream, far in ears:
            ear.close()
            await stream.aclose()
            far.close()


@pytest.mark.serial  # it measures real time
async def test_trio_sleeps_no_longer_than_it_would_while_we_sleep_in_its_place() -> None:
    async with open_listening() as listening:
        ear, stream, far = await ear_on(listening, lambda _: True)
        heard, slept_at = ear.ear.hear, []

        def hear() -> None:
            slept_at.append(trio.current_time())
            heard()

        ear.ear.hear = hear  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ear.receive)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            for _ in range(20):
                far.sendall(b"audio")  # wakes our sleep, and nobody else
                await trio.sleep(0.01)
            assert trio.current_time() - began < 0.4
            assert len(slept_at) >= 20
            await trio.to_thread.run_sync(far.sendall, b"and a thread may call")
            nursery.cancel_scope.cancel()
        ear.close()
        await stream.aclose()
        far.close()


async def test_a_second_listening_in_a_run_is_none_and_there_may_be_another_afterwards() -> None:
    async with open_listening() as first, open_listening() as second:
        assert (first is None, second) == (False, None)
    async with open_listening() as third:
        assert third is not None


async def test_what_goes_wrong_in_our_sleep_is_not_passed_over_in_silence() -> None:
    async def listen() -> None:
        async with open_listening() as listening:
            assert listening is not None
            listening._epoll.close()
            await trio.sleep(5)

    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        await listen()


async def test_the_release_of_trio_is_one_whose_epoll_and_queue_we_know() -> None:
    runner = trio_run.GLOBAL_RUN_CONTEXT.runner
    assert isinstance(_trios_epoll(runner), select.epoll)
    assert not runner.runq
    trio.lowlevel.current_trio_token().run_sync_soon(lambda: None)
    assert callable(runner.io_manager.force_wakeup)
