"""One WebSocket leg keeps one contract over every stream, with another implementation at the far end.

Must not know calls: a leg, a stream and what the far end saw.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
import trustme

from relay import legs
from relay.framing import Chunk, read_text
from relay.handshake import (
    AGENT_MESSAGE_BYTES,
    PHONE_MESSAGE_BYTES,
    HandshakeRefused,
    accept_phone_leg,
    open_agent_leg,
)
from relay.legs import CLOSE_SECONDS, SEND_SECONDS, Leg
from relay.listening import open_listening
from relay.outcomes import Blame, LegClosed, Reason
from relay.streams import SocketStream, TLSStream
from tests.far_ends import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FarEnd,
    MemoryStream,
    Writer,
    answer_upgrade,
    connected_sockets,
    frame,
    join_agent_leg,
    join_phone_leg,
    memory_pair,
)

OpenLeg: TypeAlias = Callable[[], Any]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def raw_pair() -> tuple[SocketStream, SocketStream]:
    here, there = connected_sockets()
    return SocketStream(here), SocketStream(there)


def server_side(sock: socket.socket, context: ssl.SSLContext) -> TLSStream:
    return TLSStream(
        context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False)
    )


async def tls_pair(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[TLSStream, TLSStream]:
    here, there = connected_sockets()
    near = client.wrap_socket(
        here, server_hostname="localhost", do_handshake_on_connect=False, suppress_ragged_eofs=False
    )
    ours, theirs = TLSStream(near), server_side(there, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.handshake)
        nursery.start_soon(theirs.handshake)
    return ours, theirs


KINDS = [
    "phone-memory",
    "phone-waiting-memory",
    "phone-raw",
    "agent-memory",
    "agent-waiting-memory",
    "agent-raw",
    "agent-tls",
    "phone-listening",
    "agent-listening",
    "agent-listening-tls",
]


@pytest.fixture(params=KINDS)
def open_leg(request: pytest.FixtureRequest, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> OpenLeg:
    """`async with open_leg() as (leg, far, writer)`: a leg whose writer runs, and its far end."""
    side, _, transport = request.param.partition("-")
    join = join_phone_leg if side == "phone" else join_agent_leg

    @asynccontextmanager
    async def open_one() -> AsyncIterator[tuple[Leg, FarEnd, Writer]]:
        match transport:
            case "memory":
                pair: tuple[Any, Any] = memory_pair()
            case "waiting-memory":
                pair = memory_pair(nowait=False)
            case "raw" | "listening":
                pair = raw_pair()
            case _:
                pair = await tls_pair(*contexts)
        async with open_listening() as listening, trio.open_nursery() as nursery:
            leg, far = await join(nursery, *pair, listening if "listening" in transport else None)
            writer = Writer(leg)
            nursery.start_soon(writer.run)
            yield leg, far, writer
            await leg.abort()
            await trio.aclose_forcefully(pair[1])
            nursery.cancel_scope.cancel()

    return open_one


def phone_on(stream: Any) -> Leg:
    """A phone leg whose upgrade was answered before."""
    return accept_phone_leg(stream)


async def lost(leg: Leg) -> LegClosed:
    """How the leg ends when it is read."""
    try:
        while True:
            await leg.receive()
    except LegClosed as loss:
        return loss


# ---- what every leg does --------------------------------------------------------------------------


async def test_the_memory_stream_of_these_tests_keeps_trios_contract() -> None:
    async def pair() -> tuple[MemoryStream, MemoryStream]:
        return memory_pair()

    await trio.testing.check_half_closeable_stream(pair, None)


async def test_text_goes_both_ways_untouched_and_in_order(open_leg: OpenLeg) -> None:
    texts = [f"{number} μ-law".encode() * 20 for number in range(300)]
    async with open_leg() as (leg, far, _):
        for text in texts:
            leg.send(text)
        for text in texts:
            assert await far.receive() == text.decode()
        for text in texts:
            await far.send(text.decode())
        for text in texts:
            assert await leg.receive() == text


async def test_fragments_are_joined_around_control_frames(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, _):
        masked = leg.blame is Blame.CARRIER
        pieces = [
            frame(TEXT, b"", fin=False, masked=masked),
            frame(CONTINUATION, "one μ".encode()[:-1], fin=False, masked=masked),
            frame(PING, b"still there?", masked=masked),
            frame(CONTINUATION, "μ".encode()[-1:] + b" two", fin=False, masked=masked),
            frame(CONTINUATION, b"", masked=masked),
            frame(TEXT, b"three", masked=masked),
        ]
        await far.stream.send_all(b"".join(pieces))
        assert await leg.receive() == "one μ two".encode()
        assert await leg.receive() == b"three"


async def test_a_message_split_at_every_byte_arrives_whole(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, _):
        text = frame(TEXT, b"bit by bit", masked=leg.blame is Blame.CARRIER)
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in text:
                    await far.stream.send_all(bytes([byte]))

            nursery.start_soon(drip)
            assert await leg.receive() == b"bit by bit"


class Aside:
    """A way for whatever says `audio`; it leads nowhere, but keeps what went."""

    def __init__(self, leg: Leg) -> None:
        self.leg = leg
        self.went: list[bytes] = []

    def cross(self, source: Chunk | int, limit: int) -> tuple[int, Chunk | None]:
        """Take what begins so, out of the chunk or the socket."""
        chunk = os.read(source, 65536) if isinstance(source, int) else source
        start, frames = 0, 0
        while found := read_text(chunk, start, masked=self.leg.blame is Blame.CARRIER, limit=limit):
            if not found[0].startswith(b"audio"):
                break
            self.went.append(found[0])
            start, frames = found[1], frames + 1
        return frames, chunk[start:] or None


async def test_what_crosses_at_once_never_overtakes_what_waits(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, _):
        masked, aside = leg.blame is Blame.CARRIER, Aside(leg)
        texts = [b"audio 1", b"audio 2", b"words", b"audio 3", b"\xce\xbc"]
        await far.stream.send_all(b"".join(frame(TEXT, text, masked=masked) for text in texts))
        assert await leg.receive(aside) == b"words"
        assert await leg.receive(aside) == b"audio 3"
        assert await leg.receive(aside) == b"\xce\xbc"
        assert aside.went == [b"audio 1", b"audio 2"]
        await far.stream.send_all(frame(TEXT, b"audio 4", masked=masked))
        await far.send("in order")
        assert await leg.receive(aside) == b"in order"
        assert aside.went[2:] == [b"audio 4"]


async def test_the_far_ends_ping_is_answered(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, _), trio.open_nursery() as nursery:
        nursery.start_soon(lost, leg)
        await far.socket.ping(b"hello")
        await far.socket.aclose()


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1013, 4000])
async def test_a_close_frame_loses_the_leg_and_tells_its_code(open_leg: OpenLeg, code: int) -> None:
    async with open_leg() as (leg, far, writer), trio.open_nursery() as nursery:
        await far.send("last words")
        nursery.start_soon(partial(far.socket.aclose, code, "because"))
        assert await leg.receive() == b"last words"
        loss = await lost(leg)
        assert (loss.leg, loss.kind, loss.code) == (leg.blame, Reason.LOST, code)
        await writer.stop()
        await leg.close()
        assert await far.wait_closed() == code


async def test_the_end_of_the_stream_without_a_close_frame_loses_the_leg(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, _):
        await trio.aclose_forcefully(far.stream)
        loss = await lost(leg)
        assert (loss.leg, loss.kind, loss.code) == (leg.blame, Reason.LOST, None)


async def test_a_reset_loses_the_leg(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, writer):
        if isinstance(far.stream, MemoryStream):
            far.stream.reset()
        else:
            far.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            trio.lowlevel.notify_closing(far.stream.socket)
            far.stream.socket.close()
        assert (await lost(leg)).kind is Reason.LOST
        await writer.stop()
        await leg.close()


async def test_a_binary_message_ends_the_leg_with_1003(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, writer):
        await far.send(b"\x00\x01")
        assert (await lost(leg)).kind is Reason.PROTOCOL
        async with trio.open_nursery() as nursery:
            await writer.stop()
            nursery.start_soon(leg.close)
            assert await far.wait_closed() == 1003


async def test_invalid_utf8_ends_the_leg_with_1007(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, writer):
        await far.stream.send_all(frame(TEXT, b"\xff\xfe", masked=leg.blame is Blame.CARRIER))
        assert (await lost(leg)).kind is Reason.PROTOCOL
        async with trio.open_nursery() as nursery:
            await writer.stop()
            nursery.start_soon(leg.close)
            assert await far.wait_closed() == 1007


async def test_a_message_may_be_as_long_as_the_limit_and_no_longer(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, writer):
        limit = PHONE_MESSAGE_BYTES if leg.blame is Blame.CARRIER else AGENT_MESSAGE_BYTES
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.send, "x" * limit)
            assert len(await leg.receive()) == limit
            nursery.start_soon(far.send, "x" * (limit + 1))
            assert (await lost(leg)).kind is Reason.PROTOCOL
            await writer.stop()
            nursery.start_soon(leg.close)
            assert await far.wait_closed() == 1009


async def test_the_close_frame_reaches_a_far_end_that_is_still_sending(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, writer):
        assert leg.blame in Blame
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.send, "x" * 2 * 2**20)
            loss = await lost(leg)
            assert (loss.leg, loss.kind) == (leg.blame, Reason.PROTOCOL)
            await writer.stop()
            nursery.start_soon(leg.close)
            assert await far.wait_closed() == 1009


@pytest.mark.parametrize("code", [1000, 1008, 1013])
async def test_closing_says_why_and_leaves_no_socket(open_leg: OpenLeg, code: int) -> None:
    async with open_leg() as (leg, far, writer):
        leg.send(b"goodbye")
        async with trio.open_nursery() as nursery:
            await writer.stop()
            nursery.start_soon(leg.close, code)
            assert await far.receive() == "goodbye"
            assert await far.wait_closed() == code
        await leg.close()
        await leg.abort()


async def test_nothing_is_sent_after_the_close(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, writer):
        async with trio.open_nursery() as nursery:
            await writer.stop()
            nursery.start_soon(leg.close)
            await far.wait_closed()
        with pytest.raises(LegClosed):
            leg.send(b"too late")
        with pytest.raises(LegClosed):
            await leg.send_last(b"too late")


async def test_send_last_needs_no_writer(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, far, writer):
        await writer.stop()
        await leg.send_last(b"session.end")
        assert await far.receive() == "session.end"


async def test_a_stalled_far_end_is_given_up_when_the_outbox_is_full(open_leg: OpenLeg) -> None:
    async with open_leg() as (leg, _far, writer):

        def flood() -> None:
            for _ in range(4096):  # more than kernel and outbox hold; no checkpoint, so nobody reads
                leg.send(b"x" * 65536)

        with pytest.raises(LegClosed) as caught:
            flood()
        assert (caught.value.leg, caught.value.kind) == (leg.blame, Reason.STALLED)
        await writer.stop()
        await leg.close()


# ---- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nowait", [True, False])
async def test_a_torn_leg_sends_no_close_frame(autojump_clock: trio.testing.MockClock, nowait: bool) -> None:
    ours, theirs = memory_pair(capacity=1000, nowait=nowait)
    leg = phone_on(ours)
    writer = Writer(leg)
    leg.send(b"x" * 1500)
    began = trio.current_time()
    await writer.run()
    assert writer.loss is not None
    assert writer.loss.kind is Reason.STALLED
    await leg.close()
    assert trio.current_time() - began == pytest.approx(SEND_SECONDS)  # the close itself took no time
    seen = b""
    while chunk := await theirs.receive_some():
        seen += chunk
    assert seen == frame(TEXT, b"x" * 1500, masked=False)[:1000]


async def test_a_send_that_was_cancelled_half_way_tears_the_leg(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_pair(capacity=10, nowait=False)
    leg = phone_on(ours)
    leg.send(b"x" * 100)
    with trio.move_on_after(1):
        await leg.write()
    with pytest.raises(LegClosed):
        await leg.send_last(b"session.end")
    await leg.close()
    assert await theirs.receive_some() == frame(TEXT, b"x" * 100, masked=False)[:10]
    assert await theirs.receive_some() == b""


async def test_what_waits_in_the_outbox_leaves_before_the_close_frame(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_pair(nowait=False)
    leg = phone_on(ours)
    leg.send(b"one")
    leg.send(b"two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leg.close, 1001)
        await theirs.send_all(frame(CLOSE, struct.pack("!H", 1001)))
    seen = await theirs.receive_some()
    expected = [frame(TEXT, b"one", masked=False), frame(TEXT, b"two", masked=False)]
    assert seen == b"".join(expected) + frame(CLOSE, struct.pack("!H", 1001), masked=False)


async def test_a_far_end_that_never_answers_the_close_is_left_after_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)
    began = trio.current_time()
    await leg.close()
    assert trio.current_time() - began == pytest.approx(CLOSE_SECONDS)
    assert await theirs.receive_some() == frame(CLOSE, struct.pack("!H", 1000), masked=False)
    assert ours.closed


async def test_a_far_end_that_floods_cannot_hold_up_the_close(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)

    async def flood() -> None:
        with suppress(trio.BrokenResourceError):
            while True:
                await theirs.send_all(frame(TEXT, b"x" * 1000))
                await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        began = trio.current_time()
        await leg.close()
        assert trio.current_time() - began == pytest.approx(CLOSE_SECONDS)


async def test_a_close_whose_frame_cannot_leave_ends_within_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, _ = memory_pair(capacity=1)
    leg = phone_on(ours)
    began = trio.current_time()
    await leg.close()
    assert trio.current_time() - began == pytest.approx(CLOSE_SECONDS)


async def test_what_was_said_before_the_leg_broke_is_heard(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)
    await theirs.send_all(frame(PING, b"?") + frame(TEXT, b'{"event":"stop"}'))
    await theirs.aclose()  # the answer to the ping finds nobody
    assert await leg.receive() == b'{"event":"stop"}'
    assert (await lost(leg)).kind is Reason.LOST


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_send_does_not_hide_what_was_said_before_the_end(
    autojump_clock: trio.testing.MockClock, then: str
) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)
    said = frame(TEXT, b'{"event":"media"}') + frame(TEXT, b'{"event":"stop"}')
    await theirs.send_all(said + (frame(CLOSE, (1000).to_bytes(2)) if then == "close" else b""))
    assert await leg.receive() == b'{"event":"media"}'
    if then == "reset":
        theirs.reset()
    leg.send(b"a frame of the agent's, before anybody has read on")
    assert await leg.receive() == b'{"event":"stop"}'
    assert (await lost(leg)).kind is Reason.LOST


async def test_what_follows_a_violation_is_not_heard(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)
    await theirs.send_all(frame(TEXT, b"heard") + frame(BINARY, b"\0") + frame(TEXT, b"not heard"))
    assert await leg.receive() == b"heard"
    assert (await lost(leg)).kind is Reason.PROTOCOL


async def test_an_unmasked_frame_of_the_carriers_is_a_violation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)
    await theirs.send_all(frame(TEXT, b"bare", masked=False))
    assert (await lost(leg)).kind is Reason.PROTOCOL


async def test_a_close_frame_between_fragments_is_an_orderly_close(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)
    await theirs.send_all(frame(TEXT, b"half", fin=False) + frame(CLOSE, struct.pack("!H", 1000)))
    loss = await lost(leg)
    assert (loss.kind, loss.code) == (Reason.LOST, 1000)
    await leg.close()
    assert await theirs.receive_some() == frame(CLOSE, struct.pack("!H", 1000), masked=False)


async def test_a_megabyte_of_empty_fragments_takes_no_memory(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = memory_pair(capacity=2**22)
    leg = phone_on(ours)
    await theirs.send_all(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, fin=False) * 200_000)
    await theirs.send_all(frame(CONTINUATION, b"b"))
    assert await leg.receive() == b"ab"


# ---- signs of life --------------------------------------------------------------------------------


async def beat(leg: Leg) -> LegClosed:
    with pytest.raises(LegClosed) as caught:
        await leg.beat()
    return caught.value


async def test_a_far_end_that_never_answered_a_ping_is_not_held_to_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)
    with trio.move_on_after(600):
        await leg.beat()
    assert (await theirs.receive_some()).count(frame(PING, b"relay", masked=False)) == 120


async def test_the_first_ping_follows_the_first_word_of_the_far_end_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_pair()
    leg, began = phone_on(ours), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leg.beat)
        await trio.sleep(0.5)
        await theirs.send_all(frame(TEXT, b"{}"))
        await leg.receive()
        assert await theirs.receive_some() == frame(PING, b"relay", masked=False)
        assert trio.current_time() - began == 0.5
        nursery.cancel_scope.cancel()


async def test_a_far_end_that_falls_silent_is_noticed_within_eight_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)
    fell_silent_at = 0.0

    async def answer_thrice() -> None:
        nonlocal fell_silent_at
        for _ in range(3):
            await theirs.receive_some()
            await theirs.send_all(frame(PONG, b"relay"))
            fell_silent_at = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_thrice)
        nursery.start_soon(lost, leg)
        assert (await beat(leg)).kind is Reason.SILENT
        assert trio.current_time() - fell_silent_at <= 8.0
        await trio.aclose_forcefully(theirs)


async def test_unsolicited_pongs_prove_nothing(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = memory_pair()
    leg = phone_on(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lost, leg)
        await theirs.send_all(frame(PONG, b"unasked") + frame(PONG))
        with trio.move_on_after(60):
            await leg.beat()
        await trio.aclose_forcefully(theirs)


# ---- the agent's handshake ------------------------------------------------------------------------


@asynccontextmanager
async def listening(answer: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """The URL of a server that treats one connection so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                await trio.lowlevel.wait_readable(listener)
                sock, _ = listener.accept()
                async with SocketStream(sock) as stream:
                    await answer(stream)

            nursery.start_soon(accept)
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}/v1/ws"
            nursery.cancel_scope.cancel()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


dial = partial(open_agent_leg, headers={"Authorization": "Bearer key"}, tls=ssl.create_default_context())


async def read_request(stream: SocketStream) -> bytes:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += await stream.receive_some()
    return request


@pytest.mark.parametrize("status", [200, 401, 403, 404, 429, 503])
async def test_an_answer_other_than_101_is_refused_with_its_status(status: int) -> None:
    async def answer(stream: SocketStream) -> None:
        assert b"Authorization: Bearer key\r\n" in await read_request(stream)
        await stream.send_all(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status)
        assert await stream.receive_some() == b""

    async with listening(answer) as url:
        with pytest.raises(HandshakeRefused) as caught:
            await dial(url)
        assert caught.value.status == status


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 101 ",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: false\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut",
        b"HTTP/1.1 101 x\r\n" + b"a: " + b"x" * 100_000 + b"\r\n",
    ],
    ids=["nothing", "half", "another-protocol", "bare", "forged", "cut-body", "long-header"],
)
async def test_an_answer_that_is_none_makes_the_agent_unreachable(answer: bytes) -> None:
    async def give(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(answer)

    async with listening(give) as url:
        with pytest.raises(LegClosed) as caught:
            await dial(url)
        assert (caught.value.leg, caught.value.kind) == (Blame.AGENT, Reason.UNREACHABLE)


async def test_nobody_listening_makes_the_agent_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LegClosed) as caught:
        await dial(f"ws://127.0.0.1:{port}/v1/ws")
    assert (caught.value.leg, caught.value.kind) == (Blame.AGENT, Reason.UNREACHABLE)


async def test_a_certificate_of_strangers_makes_the_agent_unreachable(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, _ = contexts

    async def answer(stream: SocketStream) -> None:
        async with server_side(stream.socket, server) as tls:
            with pytest.raises(ssl.SSLError):
                await tls.handshake()

    async with listening(answer) as url:
        with pytest.raises(LegClosed) as caught:
            await dial(url.replace("ws://127.0.0.1", "wss://localhost"))
        assert (caught.value.leg, caught.value.kind) == (Blame.AGENT, Reason.UNREACHABLE)


@pytest.mark.needs_linux
async def test_a_mute_far_end_is_left_without_a_descriptor() -> None:
    muted = trio.Event()

    async def mute(stream: SocketStream) -> None:
        await read_request(stream)
        muted.set()
        assert await stream.receive_some() == b""

    async with listening(mute) as url:
        before = open_descriptors()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial, url)
            await muted.wait()
            nursery.cancel_scope.cancel()
        assert open_descriptors() <= before + 1  # the server's own end may not have seen it yet


async def test_what_comes_in_one_piece_with_the_101_is_heard_at_once() -> None:
    async def answer(stream: SocketStream) -> None:
        early = frame(TEXT, b'{"type":"session.error"}', masked=False)
        await answer_upgrade(stream, early)
        await trio.sleep_forever()

    async with listening(answer) as url:
        leg = await dial(url)
        assert await leg.receive() == b'{"type":"session.error"}'
        await leg.abort()


def test_the_limits_are_those_that_were_promised() -> None:
    assert (PHONE_MESSAGE_BYTES, AGENT_MESSAGE_BYTES) == (65536, 1048576)
    assert (SEND_SECONDS, CLOSE_SECONDS) == (2, 1)
    assert legs.PING_SECONDS + legs.PONG_SECONDS <= 8
