"""Our own public address is asked once for all who wait, and again for whoever comes later."""

from __future__ import annotations

from functools import partial

import trio

from relay.probe import Probe

SILENCE_SECONDS = 0.2


async def test_those_who_wait_share_one_answer_and_the_next_one_asks_again() -> None:
    asked: list[float] = []

    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            asked.append(trio.current_time())
            await trio.sleep(SILENCE_SECONDS)
            await stream.send_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        probe = Probe(f"http://127.0.0.1:{port}", "token")
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await probe())

        async with trio.open_nursery() as waiting:
            for _ in range(5):
                waiting.start_soon(ask)
        assert len(asked) == 1
        assert len(answers) == 5
        assert all(answer is not None for answer in answers)
        assert await probe() is not None
        assert len(asked) == 2
        nursery.cancel_scope.cancel()
