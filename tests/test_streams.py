"""Our streams keep Trio's stream contract, and what the media path adds to it.

Must not know WebSockets or calls: two sockets and a certificate are all it takes.
"""

import os
import socket
import ssl
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing
import trustme

from relay.streams import SocketStream, TLSStream, harden, open_tcp, open_tls

# More than a Unix pair buffers; eight of them are more than TCP does.
MEGABYTE = bytes(2**20)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def connected_sockets() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = socket.create_connection(listening.getsockname())
        there, _ = listening.accept()
    return here, there


async def raw_pair() -> tuple[SocketStream, SocketStream]:
    here, there = connected_sockets()
    return SocketStream(here), SocketStream(there)


def server_side(sock: socket.socket, context: ssl.SSLContext) -> TLSStream:
    return TLSStream(
        context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False)
    )


async def tls_pair(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[TLSStream, TLSStream]:
    here, there = connected_sockets()
    ours = TLSStream(
        client.wrap_socket(
            here, server_hostname="localhost", do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
    )
    theirs = server_side(there, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.handshake)
        nursery.start_soon(theirs.handshake)
    return ours, theirs


async def clogged_raw_pair() -> tuple[SocketStream, SocketStream]:
    """Two ends that take nothing more. A Unix pair is full when it says so; TCP makes room a little later."""
    here, there = socket.socketpair()
    ours, theirs = SocketStream(here), SocketStream(there)
    for stream in (ours, theirs):
        while stream.send_nowait(MEGABYTE):
            pass
    return ours, theirs


async def expect(stream: SocketStream | TLSStream, expected: bytes) -> None:
    received = bytearray()
    while len(received) < len(expected):
        received += await stream.receive_some()
    assert received == expected


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_the_raw_stream_keeps_trios_half_closeable_contract() -> None:
    await trio.testing.check_half_closeable_stream(raw_pair, clogged_raw_pair)


async def test_the_tls_stream_keeps_trios_two_way_contract(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    # Without the clogged half: filling a TLS stream leaves a record unfinished, after which only the same
    # bytes may follow, and Trio's suite sends others.
    await trio.testing.check_two_way_stream(partial(tls_pair, server_context, client_context), None)


async def test_send_nowait_takes_what_fits_and_then_nothing() -> None:
    here, there = socket.socketpair()
    async with SocketStream(here) as ours, SocketStream(there) as theirs:
        accepted = ours.send_nowait(MEGABYTE)
        assert 0 < accepted < len(MEGABYTE)
        assert ours.send_nowait(b"more") == 0
        await expect(theirs, MEGABYTE[:accepted])
        assert ours.send_nowait(b"more") == 4


async def test_send_nowait_of_nothing_sends_nothing() -> None:
    ours, theirs = await raw_pair()
    async with ours, theirs:
        assert ours.send_nowait(b"") == 0


async def test_send_nowait_refuses_while_another_task_is_sending() -> None:
    ours, theirs = await clogged_raw_pair()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"waits")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            ours.send_nowait(b"does not")
        nursery.cancel_scope.cancel()


async def test_send_nowait_says_closed_when_we_closed_and_broken_when_they_did() -> None:
    ours, theirs = await raw_pair()
    await theirs.aclose()
    with suppress(trio.BrokenResourceError):
        while True:
            ours.send_nowait(b"x")
    with pytest.raises(trio.BrokenResourceError):
        ours.send_nowait(b"x")
    await ours.aclose()
    with pytest.raises(trio.ClosedResourceError):
        ours.send_nowait(b"x")


async def test_nothing_is_sent_nowait_after_send_eof() -> None:
    ours, theirs = await raw_pair()
    async with ours, theirs:
        await ours.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            ours.send_nowait(b"x")


async def test_send_all_cancelled_before_it_began_has_sent_nothing() -> None:
    ours, theirs = await raw_pair()
    async with ours, theirs:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.send_all(b"never")
        await ours.send_eof()
        assert await theirs.receive_some() == b""


async def test_adopting_a_trio_stream_moves_its_descriptor() -> None:
    here, there = connected_sockets()
    here.setblocking(False)
    trios = trio.SocketStream(trio.socket.from_stdlib_socket(here))
    async with SocketStream.adopt(trios) as ours, SocketStream(there) as theirs:
        assert trios.socket.fileno() == -1
        assert not ours.socket.getblocking()
        await theirs.send_all(b"still here")
        assert await ours.receive_some() == b"still here"


async def test_a_tls_stream_blocked_in_a_record_takes_only_the_same_bytes(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    ours, theirs = await tls_pair(server_context, client_context)
    record = b"y" * 1000
    async with ours, theirs, trio.open_nursery() as nursery:
        sent = 0
        while accepted := ours.send_nowait(record):
            sent += accepted
        with pytest.raises(trio.BrokenResourceError):
            ours.send_nowait(b"other bytes")
        nursery.start_soon(expect, theirs, b"y" * (sent + len(record)) + b"other bytes")
        while ours.send_nowait(record) == 0:
            await ours.wait_send_all_might_not_block()
        await ours.send_all(b"other bytes")


async def test_a_tls_stream_carries_more_than_the_buffers_hold(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    ours, theirs = await tls_pair(server_context, client_context)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, 8 * MEGABYTE)
        nursery.start_soon(expect, theirs, 8 * MEGABYTE)


async def test_a_tls_record_larger_than_one_read_is_read_to_its_end(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    ours, theirs = await tls_pair(server_context, client_context)
    async with ours, theirs:
        await ours.send_all(b"abc")
        assert [await theirs.receive_some(1) for _ in range(3)] == [b"a", b"b", b"c"]


async def test_a_tls_connection_cut_without_goodbye_is_broken_not_ended(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    ours, theirs = await tls_pair(server_context, client_context)
    async with ours:
        await ours.send_all(b"x")
        assert await theirs.receive_some() == b"x"
        theirs.socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()
        theirs.socket.close()


@pytest.mark.needs_linux
def test_a_hardened_socket_notices_a_lost_peer_within_eight_seconds() -> None:
    with socket.socket() as sock:
        harden(sock)

        def option(name: str) -> int:
            return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert option("TCP_KEEPIDLE") + option("TCP_KEEPINTVL") * option("TCP_KEEPCNT") <= 8
        assert option("TCP_USER_TIMEOUT") <= 8000
        assert option("TCP_NODELAY")


def test_hardening_a_socket_that_is_not_tcp_is_harmless() -> None:
    one, other = socket.socketpair()
    with one, other:
        harden(one)


async def test_open_tcp_connects_hardened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with await open_tcp(*listening.getsockname()) as ours:
            there, _ = listening.accept()
            async with SocketStream(there) as theirs:
                assert ours.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                await theirs.send_all(b"hello")
                assert await ours.receive_some() == b"hello"


async def test_open_tcp_raises_oserror_when_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
    with pytest.raises(OSError, match="failed"):
        await open_tcp(*address)


async def test_open_tls_connects_and_checks_the_certificate(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _, port = listening.getsockname()

        async def answer() -> None:
            sock, _ = listening.accept()  # the connection waits in the backlog: open_tls came first
            async with server_side(sock, server_context) as theirs:
                await theirs.handshake()
                await theirs.send_all(b"hello")

        async with trio.open_nursery() as nursery:

            async def call() -> None:
                async with await open_tls("localhost", port, client_context) as ours:
                    assert await ours.receive_some() == b"hello"
                    assert await ours.receive_some() == b""

            nursery.start_soon(call)
            await trio.lowlevel.wait_readable(listening)
            nursery.start_soon(answer)


@pytest.mark.needs_linux
async def test_a_refused_certificate_leaves_no_descriptor(server_context: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _, port = listening.getsockname()
        before = open_descriptors()

        async def answer() -> None:
            await trio.lowlevel.wait_readable(listening)
            sock, _ = listening.accept()
            async with server_side(sock, server_context) as theirs:
                with pytest.raises(ssl.SSLError):
                    await theirs.handshake()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(ssl.SSLCertVerificationError):
                await open_tls("localhost", port, ssl.create_default_context())
        assert open_descriptors() == before


@pytest.mark.needs_linux
async def test_an_open_cancelled_in_the_handshake_leaves_no_descriptor(
    client_context: ssl.SSLContext,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # accepts, and never answers
        _, port = listening.getsockname()
        before = open_descriptors()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_tls, "localhost", port, client_context)
            await trio.lowlevel.wait_readable(listening)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert open_descriptors() == before
