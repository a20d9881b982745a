"""The edge survives its peers, ends in time, and lets WebSockets go without losing a message.

Must not know the service's routes: a small Quart application with one of each kind stands in for them.
"""

import os
import resource
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version

import pytest
import trio
import trio.testing
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import Handshake, WSStream
from quart import Response, request, websocket
from quart_trio import QuartTrio
from trio_websocket import open_websocket
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from relay.streams import SocketStream
from relay.web.edge import Connection, DetachRefused, Limits, serve
from tests.web.hostile import PACKETS, Ending, Packet, get, post, upgrade

GET_HELLO = get("/hello")

# Production's patience, divided so that a test of it takes no time.
IMPATIENT = Limits(
    head_seconds=0.3,
    body_seconds=0.3,
    keep_alive_seconds=0.6,
    send_seconds=0.3,
    linger_seconds=0.1,
    grace_seconds=0.3,
    connections=40,
)
# For what should take none of it, on a machine that is busy with other things.
PATIENCE_SECONDS = 5


@dataclass
class Edge:
    """A running edge, and what its routes saw."""

    calls: trio.Nursery
    address: tuple[str, int] = ("", 0)
    stop: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event = field(default_factory=trio.Event)
    release: trio.Event = field(default_factory=trio.Event)  # lets the slow route answer
    answered: trio.Event = field(default_factory=trio.Event)  # the long route has answered
    received: dict[str, list[str]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    at_rest: tuple[int, int] = (0, 0)  # tasks and descriptors while nothing is connected

    async def connect(self, *pieces: bytes) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(*self.address)
        for piece in pieces:
            await stream.send_all(piece)
        return stream

    async def call(self, name: str, stream: SocketStream) -> None:
        """A call: keep every message and echo those that ask for it, until the peer closes."""
        frames = Protocol(Side.SERVER, state=State.OPEN)
        messages = self.received.setdefault(name, [])
        async with stream:
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    frames.receive_data(data)
                    for event in frames.events_received():
                        if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                            messages.append(bytes(event.data).decode())
                            if messages[-1].startswith("echo"):
                                frames.send_text(event.data)
                    for reply in frames.data_to_send():
                        await stream.send_all(reply)


def application(edge: Edge) -> QuartTrio:
    app = QuartTrio(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 100_000

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.post("/body")
    async def body() -> str:
        return str(len(await request.get_data()))

    @app.get("/bug")
    async def bug() -> str:
        raise ZeroDivisionError

    @app.get("/hang")
    async def hang() -> str:
        try:
            await trio.sleep_forever()
        finally:
            edge.cancelled.append("hang")

    @app.get("/slow")
    async def slow() -> str:
        await edge.release.wait()
        return "done"

    @app.get("/endless")
    async def endless() -> Response:
        async def flood() -> AsyncIterator[bytes]:
            while True:
                yield bytes(65536)

        return Response(flood())

    @app.post("/long")
    async def long() -> bytes:
        edge.answered.set()
        return bytes(int(request.args.get("size", "75000"))) + b"end"

    add_websockets(app, edge)
    return app


def add_websockets(app: QuartTrio, edge: Edge) -> None:
    @app.get("/detach")
    async def detach() -> str:
        connection: Connection = request.scope["state"]["connection"]
        with pytest.raises(DetachRefused):
            await connection.detach()
        return "refused"

    @app.websocket("/stream")
    async def stream() -> None:
        connection: Connection = websocket.scope["state"]["connection"]
        try:
            await connection.detach()
            await websocket.accept()
            edge.calls.start_soon(edge.call, websocket.args.get("name", ""), connection.take())
        except DetachRefused as refusal:
            edge.refusals.append(str(refusal))

    @app.websocket("/late")
    async def late() -> None:
        await edge.release.wait()
        await stream()

    @app.websocket("/misuse")
    async def misuse() -> None:
        connection: Connection = websocket.scope["state"]["connection"]
        with pytest.raises(DetachRefused):
            connection.take()
        await connection.detach()
        with pytest.raises(DetachRefused):
            await connection.detach()
        with pytest.raises(DetachRefused):
            connection.take()
        await websocket.accept()
        taken = connection.take()
        with pytest.raises(DetachRefused):
            connection.take()
        edge.calls.start_soon(edge.call, "misuse", taken)

    @app.websocket("/plain")
    async def plain() -> None:
        await websocket.accept()


@asynccontextmanager
async def open_edge(limits: Limits = IMPATIENT) -> AsyncIterator[Edge]:
    async with trio.open_nursery() as calls:
        edge = Edge(calls)

        async def run(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            start = partial(serve, application(edge), "127.0.0.1:0", stop=edge.stop, limits=limits)
            async with trio.open_nursery() as serving:
                task_status.started(await serving.start(start))
            edge.stopped.set()

        edge.address = await calls.start(run)
        await trio.testing.wait_all_tasks_blocked()
        edge.at_rest = usage()
        yield edge
        edge.stop.set()
        with trio.fail_after(PATIENCE_SECONDS):
            await edge.stopped.wait()
        calls.cancel_scope.cancel()


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge() as edge:
        yield edge


def usage() -> tuple[int, int]:
    """Living tasks and open descriptors."""
    descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    return trio.lowlevel.current_statistics().tasks_living, descriptors


async def eventually(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - the kernel sets no event of ours
            await trio.sleep(0.01)


async def read_all(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    with trio.fail_after(PATIENCE_SECONDS), suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            received += data
    return bytes(received)


async def read_until(stream: trio.SocketStream, ending: bytes) -> bytes:
    received = bytearray()
    with trio.fail_after(PATIENCE_SECONDS):
        while not received.endswith(ending):
            data = await stream.receive_some()
            assert data, received
            received += data
    return bytes(received)


async def read_head(stream: trio.SocketStream) -> bytes:
    """The answer to an upgrade: nothing follows it of its own accord."""
    return await read_until(stream, b"\r\n\r\n")


async def read_hello(stream: trio.SocketStream) -> bytes:
    return await read_until(stream, b"\r\n\r\nhello")


def status(answer: bytes) -> int | None:
    return int(answer.split(b" ", 2)[1]) if answer else None


async def check_still_serving(edge: Edge) -> None:
    stream = await edge.connect(get("/hello", "Connection: close"))
    async with stream:
        answer = await read_all(stream)
    assert status(answer) == 200
    assert answer.endswith(b"hello")


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def attack(edge: Edge, packet: Packet) -> None:
    async with await edge.connect() as stream:
        with suppress(trio.BrokenResourceError):  # the edge may hang up before it has heard it all
            for piece in packet.pieces:
                await stream.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
        match packet.ending:
            case Ending.LISTENS:
                answer = await read_all(stream)
                assert status(answer) in (packet.statuses or {None}), answer[:200]
            case Ending.RESETS:
                reset(stream)
            case Ending.STALLS:
                await eventually(lambda: usage()[0] == edge.at_rest[0])


@pytest.mark.parametrize("packet", PACKETS, ids=lambda packet: packet.name.replace(" ", "-"))
async def test_no_packet_harms_the_edge(edge: Edge, packet: Packet) -> None:
    await attack(edge, packet)
    await check_still_serving(edge)
    await eventually(lambda: usage() == edge.at_rest)


async def test_all_packets_at_once_leave_nothing_behind(edge: Edge) -> None:
    async with trio.open_nursery() as attackers:
        for packet in PACKETS[: IMPATIENT.connections]:
            if packet.ending is Ending.LISTENS:
                attackers.start_soon(attack, edge, packet)
    await check_still_serving(edge)
    await eventually(lambda: usage() == edge.at_rest)


async def test_a_request_is_cancelled_when_its_client_goes(edge: Edge) -> None:
    async with await edge.connect(get("/hang")):
        await trio.testing.wait_all_tasks_blocked()
    await eventually(lambda: edge.cancelled == ["hang"])


async def test_one_connection_serves_many_requests(edge: Edge) -> None:
    async with await edge.connect() as stream:
        for _ in range(3):
            await stream.send_all(GET_HELLO)
            assert status(await read_hello(stream)) == 200


async def test_requests_sent_ahead_are_answered_in_order(edge: Edge) -> None:
    async with await edge.connect(GET_HELLO * 2 + get("/none")) as stream:
        answers = await read_all(stream)
    assert [status(b"HTTP/1.1" + answer) for answer in answers.split(b"HTTP/1.1")[1:]] == [200, 200, 404]


async def test_a_connection_may_pause_longer_between_requests_than_within_one(edge: Edge) -> None:
    async with await edge.connect(GET_HELLO) as stream:
        await read_hello(stream)
        await trio.sleep(IMPATIENT.head_seconds * 1.2)
        await stream.send_all(GET_HELLO)
        await read_hello(stream)
        assert await read_all(stream) == b""  # and then it is closed


async def test_a_head_sent_byte_by_byte_is_cut_off(edge: Edge) -> None:
    async with await edge.connect() as stream:
        with trio.fail_after(PATIENCE_SECONDS), suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"G")
                await trio.sleep(IMPATIENT.head_seconds / 10)
    await eventually(lambda: usage() == edge.at_rest)


async def test_a_body_too_large_is_told_so_while_it_is_being_sent(edge: Edge) -> None:
    async with await edge.connect(post("Content-Length: 1000000")) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(bytes(1_000_000))

        nursery.start_soon(send)
        assert status(await read_all(stream)) == 413


async def test_a_slow_reader_is_not_cut_off(edge: Edge) -> None:
    opening = post("Content-Length: 0").replace(b"/body", b"/long?size=8000000")
    async with await edge.connect(opening) as stream:
        began = trio.current_time()
        received = 0
        while received < 8_000_000:
            received += len(await stream.receive_some())
            await trio.sleep(0.005)
        assert trio.current_time() - began > IMPATIENT.send_seconds


async def test_an_answer_is_not_lost_on_a_client_that_is_still_sending() -> None:
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # the end of the answer waits at the edge
    async with open_edge(Limits()) as edge:
        await sock.connect(edge.address)
        async with trio.SocketStream(sock) as stream, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(post("Content-Length: 1000000000").replace(b"/body", b"/long"))
                while True:
                    await stream.send_all(bytes(65536))

            nursery.start_soon(send)
            await edge.answered.wait()
            await trio.sleep(0.1)  # slow to read: an edge that does not linger has closed by now
            await read_until(stream, b"end")
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "opening",
    [
        post("Content-Length: 200000000"),
        post("Transfer-Encoding: chunked") + b"BEBC200\r\n",
        upgrade(),
        upgrade("/late"),
        GET_HELLO.removesuffix(b"\r\n") + b"X: ",
        get("/hang"),
    ],
    ids=["body", "chunk", "taken over", "not taken over", "head", "behind a request"],
)
async def test_two_hundred_megabytes_do_not_stay_in_memory(edge: Edge, opening: bytes) -> None:
    chunk = bytes(2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with await edge.connect(opening) as stream:
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1), suppress(trio.BrokenResourceError):
            for _ in range(200):
                await stream.send_all(chunk)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000, f"{grown} kB"
    await check_still_serving(edge)
    await eventually(lambda: usage() == edge.at_rest)


async def test_connections_over_the_cap_are_closed_at_once(edge: Edge) -> None:
    async with AsyncExitStack() as crowd:
        for _ in range(IMPATIENT.connections):
            await crowd.enter_async_context(await edge.connect())
        async with await edge.connect() as one_more:
            assert await read_all(one_more) == b""
    await eventually(lambda: usage() == edge.at_rest)
    await check_still_serving(edge)


# Taking over


async def test_an_independent_client_talks_to_a_taken_over_connection(edge: Edge) -> None:
    host, port = edge.address
    async with open_websocket(host, port, "/stream?name=one", use_ssl=False) as client:
        for message in ("echo 1", "echo 2", "echo 3"):
            await client.send_message(message)
            assert await client.get_message() == message
    await eventually(lambda: usage() == edge.at_rest)


async def test_a_taken_over_connection_costs_one_task_and_one_descriptor(edge: Edge) -> None:
    async with await edge.connect(upgrade()) as stream:
        assert status(await read_head(stream)) == 101
        tasks, descriptors = edge.at_rest
        own_descriptor = 1 if descriptors else 0
        await eventually(lambda: usage() == (tasks + 1, descriptors and descriptors + 1 + own_descriptor))


async def test_two_hundred_clients_that_speak_and_leave_at_once_lose_nothing() -> None:
    messages = [f"message {number}" for number in range(5)]

    async def speak_and_leave(edge: Edge, name: str) -> None:
        frames = Protocol(Side.CLIENT, state=State.OPEN)
        for message in messages:
            frames.send_text(message.encode())
        async with await edge.connect(upgrade(f"/stream?name={name}")) as stream:
            assert status(await read_head(stream)) == 101
            await stream.send_all(b"".join(frames.data_to_send()))

    async with open_edge(Limits()) as edge:
        async with trio.open_nursery() as clients:
            for number in range(200):
                clients.start_soon(speak_and_leave, edge, str(number))
        await eventually(lambda: usage() == edge.at_rest)
        assert edge.received == {str(number): messages for number in range(200)}


async def test_permessage_deflate_is_not_offered_back(edge: Edge) -> None:
    request = upgrade(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    async with await edge.connect(request) as stream:
        head = await read_head(stream)
    assert status(head) == 101
    assert b"extensions" not in head.lower()


async def test_a_frame_before_the_answer_is_answered_400(edge: Edge) -> None:
    async with await edge.connect(upgrade("/late")) as stream:
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"\x81\x80\x00\x00\x00\x00")
        assert status(await read_all(stream)) == 400


async def test_a_client_gone_before_the_answer_is_never_taken_over(edge: Edge) -> None:
    async with await edge.connect(upgrade("/late")):
        await trio.testing.wait_all_tasks_blocked()
    await eventually(lambda: usage() == edge.at_rest)
    edge.release.set()
    await trio.testing.wait_all_tasks_blocked()
    assert edge.received == {}


async def test_only_a_waiting_websocket_request_can_be_detached(edge: Edge) -> None:
    async with await edge.connect(get("/detach")) as stream:
        assert status(await read_head(stream)) == 200


async def test_detach_accept_take_is_the_only_order(edge: Edge) -> None:
    host, port = edge.address
    async with open_websocket(host, port, "/misuse", use_ssl=False) as client:
        await client.send_message("echo")
        assert await client.get_message() == "echo"


# Stopping


async def test_a_taken_over_connection_outlives_the_edge(edge: Edge) -> None:
    host, port = edge.address
    async with open_websocket(host, port, "/stream", use_ssl=False) as client:
        edge.stop.set()
        await eventually(edge.stopped.is_set)
        await client.send_message("echo after the end")
        assert await client.get_message() == "echo after the end"


async def test_a_request_in_flight_is_answered_after_stop() -> None:
    async with open_edge(Limits()) as edge, await edge.connect(get("/slow")) as stream:
        await trio.testing.wait_all_tasks_blocked()
        edge.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        edge.release.set()
        assert (await read_all(stream)).endswith(b"done")


async def test_no_connection_is_accepted_after_stop(edge: Edge) -> None:
    edge.stop.set()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(OSError, match="failed"):
        await edge.connect()


async def test_idle_connections_do_not_delay_the_stop() -> None:
    async with open_edge(Limits()) as edge, await edge.connect() as silent, await edge.connect() as kept:
        await kept.send_all(GET_HELLO)
        await read_hello(kept)
        began = trio.current_time()
        edge.stop.set()
        assert await read_all(silent) == b""
        assert await read_all(kept) == b""
        assert trio.current_time() - began < Limits().grace_seconds


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"GET",
        GET_HELLO,
        post("Content-Length: 9"),
        get("/hang"),
        get("/endless"),
        upgrade("/late"),
    ],
    ids=["silent", "half a head", "kept alive", "half a body", "hanging", "not reading", "not accepted"],
)
async def test_the_stop_takes_bounded_time_whatever_the_peer_does(edge: Edge, packet: bytes) -> None:
    async with await edge.connect(packet):
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        edge.stop.set()
        await eventually(edge.stopped.is_set)
        bound = 2 * IMPATIENT.grace_seconds + IMPATIENT.send_seconds
        assert trio.current_time() - began < bound + 1  # and a second for a busy machine


async def test_cancelling_the_edge_takes_no_longer_than_a_send() -> None:
    async with trio.open_nursery() as nursery:
        edge = Edge(nursery)
        start = partial(serve, application(edge), "127.0.0.1:0", stop=edge.stop, limits=IMPATIENT)
        edge.address = await nursery.start(start)
        async with await edge.connect(get("/endless")):
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            nursery.cancel_scope.cancel()
    assert trio.current_time() - began < IMPATIENT.send_seconds + 1


@pytest.mark.parametrize("bind", ["", "127.0.0.1", ":8080", "127.0.0.1:http"])
async def test_an_address_that_is_none_is_a_value_error(bind: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        await serve(QuartTrio(__name__), bind, stop=trio.Event())


async def test_an_address_in_use_is_an_os_error(edge: Edge) -> None:
    host, port = edge.address
    with pytest.raises(OSError, match="in use"):
        await serve(QuartTrio(__name__), f"{host}:{port}", stop=trio.Event())


# What all this rests on


def test_hypercorn_is_the_version_whose_internals_these_are() -> None:
    assert version("hypercorn") == "0.18.0"


def test_hypercorn_looks_at_a_request_through_the_method_that_we_replace() -> None:
    assert "_check_protocol" in H11Protocol._handle_events.__code__.co_names
    assert "_create_stream" in H11Protocol._handle_events.__code__.co_names
    for name in ("handle", "_send_error_response"):
        assert callable(getattr(H11Protocol, name))


def test_hypercorns_websocket_request_has_the_parts_that_we_touch() -> None:
    handshake = Handshake([(b"sec-websocket-extensions", b"permessage-deflate")], "1.1")
    assert not handshake.accepted
    assert handshake.extensions == ["permessage-deflate"]
    assert {"closed", "handshake", "app_put"} <= set(WSStream.app_send.__code__.co_names) | set(
        WSStream.handle.__code__.co_names
    )
