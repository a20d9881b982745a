"""The short cut past the codec changes nothing: the same bytes, however they are cut, mean the same with it.

Must not know streams or calls: the codec without the short cut is the oracle for the codec with it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.uri import parse_uri
from websockets.utils import accept_key, apply_mask

from relay.framing import ClientFraming, Framing, ServerFraming
from relay.legs import Leg
from relay.outcomes import Blame, LegClosed
from tests.far_ends import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

LIMIT = 2000


def server() -> Framing:
    return ServerFraming(LIMIT)


def client() -> Framing:
    framing = ClientFraming(parse_uri("ws://agent.test/"), max_size=LIMIT)
    request = framing.connect()
    framing.send_request(request)
    framing.data_to_send()
    answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    accept = accept_key(request.headers["Sec-WebSocket-Key"])
    framing.receive_data(f"{answer}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    assert framing.state is State.OPEN
    framing.events_received()
    return framing


SIDES = pytest.mark.parametrize("make", [server, client])


class Script(trio.abc.Stream):
    """A stream that says its pieces and then ends, and keeps what is said to it."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = list(pieces)
        self.sent = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def send_nowait(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    async def wait_send_all_might_not_block(self) -> None:
        """There is always room."""

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass
class Heard:
    """What a leg made of the bytes: its messages, how it ended, and what it answered."""

    messages: list[bytes]
    tapped: list[tuple[str, bytes]]
    loss: tuple[str, str, int | None]
    answers: bytes
    short_cuts: int = 0


def listen(make: Callable[[], Framing], pieces: Sequence[bytes], *, short_cut: bool) -> Heard:
    framing, stream = make(), Script(pieces)
    heard = Heard([], [], ("", "", None), b"")
    take = framing.take_texts

    def counted(chunk: bytes | bytearray) -> tuple[list[bytes], bytes | bytearray]:
        texts, rest = take(chunk) if short_cut else ([], chunk)
        heard.short_cuts += len(texts)
        return texts, rest

    framing.take_texts = counted  # type: ignore[method-assign]

    async def read() -> None:
        leg = Leg(Blame.CARRIER, stream, framing, tap=lambda way, text: heard.tapped.append((way, text)))
        try:
            while True:
                heard.messages.append(await leg.receive())
        except LegClosed as lost:
            heard.loss = (lost.kind.value, lost.ending.detail, lost.code)

    trio.run(read)
    heard.answers = unmasked(stream.sent) if make is client else stream.sent
    return heard


def unmasked(sent: bytes) -> bytes:
    """Our short frames with their masks taken off: those are drawn anew each time."""
    plain = b""
    while sent:
        size = sent[1] & 0x7F
        assert size < 126, "control frames only"
        plain += sent[:2] + apply_mask(sent[6 : 6 + size], sent[2:6])
        sent = sent[6 + size :]
    return plain


def assert_same(make: Callable[[], Framing], pieces: Sequence[bytes]) -> int:
    with_it, without = (listen(make, pieces, short_cut=short_cut) for short_cut in (True, False))
    short_cuts, with_it.short_cuts = with_it.short_cuts, 0
    assert with_it == without
    return short_cuts


def masked_frame(opcode: int, payload: bytes, key: bytes, *, head: int = 0x80, masked: bool = True) -> bytes:
    plain = frame(opcode, payload, masked=False)
    start = len(plain) - len(payload)
    body = key + apply_mask(payload, key) if masked else payload
    return bytes((opcode | head, plain[1] | (0x80 if masked else 0))) + plain[2:start] + body


texts = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.binary(max_size=12),  # rarely UTF-8
    st.sampled_from([b"", b"x" * 125, b"x" * 126, b"{}" * 200, b"x" * LIMIT, b"x" * (LIMIT + 1)]),
)
keys = st.binary(min_size=4, max_size=4)
closes = st.sampled_from([b"", b"\x03", struct.pack("!H", 1000), struct.pack("!H", 1005), b"\x03\xe8\xff"])


def whole(masked: bool) -> st.SearchStrategy[bytes]:
    """A frame that is in order, or wrong in one of the ways that a short cut could overlook."""

    def build(opcode: int, payload: bytes, key: bytes, head: int, flips_mask: bool) -> bytes:
        return masked_frame(opcode, payload, key, head=head, masked=masked != flips_mask)

    lone = st.builds(build, st.just(TEXT), texts, keys, st.just(0x80), st.just(False))
    odd = st.builds(
        build,
        st.sampled_from([TEXT, CONTINUATION, BINARY, PING, PONG, 0x3, 0xB]),
        texts,
        keys,
        st.sampled_from([0x80, 0x00, 0xC0, 0xA0, 0x90]),
        st.sampled_from([False, False, True]),
    )
    close = st.builds(build, st.just(CLOSE), closes, keys, st.just(0x80), st.just(False))
    long_winded = st.builds(
        lambda size, key: (
            struct.pack("!BBH", 0x81, (0x80 if masked else 0) | 126, size)
            + (key + apply_mask(b"y" * size, key) if masked else b"y" * size)
        ),
        st.integers(0, 125),
        keys,
    )
    return st.one_of(lone, lone, lone, odd, close, long_winded)


@st.composite
def conversations(draw: st.DrawFn, *, masked: bool) -> list[bytes]:
    """Bytes in pieces: cut between the frames, mostly, and elsewhere."""
    pieces: list[bytes] = []
    for each in draw(st.lists(whole(masked), max_size=8)):
        match draw(st.integers(0, 5)):
            case 0 if pieces:
                pieces[-1] += each
            case 1 if len(each) > 1:
                cut = draw(st.integers(1, min(len(each) - 1, 16)))
                pieces += [each[:cut], each[cut:]]
            case 2:
                pieces.append(each[: draw(st.integers(0, len(each)))])
            case _:
                pieces.append(each)
    return [piece for piece in pieces if piece]


@example([frame(TEXT, b"a", fin=False), frame(TEXT, b"b")])
@example([frame(TEXT, b"a", fin=False), frame(PING), frame(CONTINUATION, b"b"), frame(TEXT, b"c")])
@example([frame(TEXT, b"abc")[:2], frame(TEXT, b"abc")])
@example([frame(CLOSE), frame(TEXT, b"late")])
@example([frame(TEXT, b"abc") + b"\x01"])
@given(conversations(masked=True))
def test_a_phone_leg_hears_the_same_with_and_without_the_short_cut(pieces: list[bytes]) -> None:
    assert_same(server, pieces)


@example([frame(TEXT, b"a", fin=False, masked=False), frame(TEXT, b"b", masked=False)])
@example([frame(TEXT, b"abc", masked=False)[:2], frame(TEXT, b"abc", masked=False)])
@example([frame(TEXT, b"abc", masked=False) + b"\x01"])
@given(conversations(masked=False))
def test_an_agent_leg_hears_the_same_with_and_without_the_short_cut(pieces: list[bytes]) -> None:
    assert_same(client, pieces)


@pytest.mark.slow
@SIDES
def test_bytes_changed_at_random_mean_the_same_with_and_without_the_short_cut(
    make: Callable[[], Framing],
) -> None:
    chance = random.Random(7)
    masked = make is server
    short_cuts = 0
    for _ in range(6000):
        pieces = [
            bytearray(
                masked_frame(TEXT, b"a" * chance.choice((0, 1, 5, 125, 126, 300)), b"\1\2\3\4", masked=masked)
            )
            for _ in range(chance.randint(1, 4))
        ]
        for _ in range(chance.randint(0, 2)):
            piece = chance.choice(pieces)
            piece[min(chance.randint(0, 9), len(piece) - 1)] = chance.randrange(256)
        if chance.random() < 0.2:
            del pieces[-1][chance.randint(1, len(pieces[-1])) :]
        short_cuts += assert_same(make, [bytes(piece) for piece in pieces])
    assert short_cuts > 6000


@SIDES
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, LIMIT])
def test_one_whole_message_takes_the_short_cut(make: Callable[[], Framing], size: int) -> None:
    pieces = [masked_frame(TEXT, b"x" * size, b"\1\2\3\4", masked=make is server)] * 3
    assert assert_same(make, pieces) == 3


@SIDES
def test_the_short_cut_is_open_again_after_whatever_was_in_order(make: Callable[[], Framing]) -> None:
    masked = make is server
    lone = frame(TEXT, b"lone", masked=masked)
    unusual = [
        frame(PING, b"?", masked=masked),
        frame(TEXT, b"in two ", fin=False, masked=masked) + frame(CONTINUATION, b"parts", masked=masked),
        lone + lone,
        lone[:3],
        lone[3:],
        frame(TEXT, "μ".encode(), masked=masked),
    ]
    pieces = [piece for each in unusual for piece in ((each, lone) if each != lone[:3] else (each,))]
    assert assert_same(make, pieces) == 7


def test_a_length_written_longer_than_it_need_be_is_left_to_the_codec() -> None:
    long_winded = struct.pack("!BBH", 0x81, 126, 5) + b"hello"
    assert client().take_texts(long_winded) == ([], long_winded)


@SIDES
@pytest.mark.parametrize("how", ["closed by us", "closed by the far end", "failed"])
def test_a_leg_that_is_closing_has_no_short_cut(make: Callable[[], Framing], how: str) -> None:
    framing, masked = make(), make is server
    match how:
        case "closed by us":
            framing.send_close(1000)
        case "closed by the far end":
            framing.receive_data(frame(CLOSE, masked=masked))
        case _:
            framing.fail(1007)
    late = frame(TEXT, b"late", masked=masked)
    assert framing.take_texts(late) == ([], late)


# ---- writing --------------------------------------------------------------------------------------


def read_back(written: bytes, *, masked: bool) -> tuple[int, bytes]:
    """What the other side's codec makes of it: one frame and nothing behind it."""
    far = Protocol(Side.SERVER if masked else Side.CLIENT)
    far.receive_data(written)
    (read,) = far.events_received()
    assert isinstance(read, Frame)
    assert read.fin
    assert not far.reader.buffer
    return read.opcode, bytes(read.data)


@SIDES
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535])
def test_a_text_is_written_as_the_codec_would_write_it(make: Callable[[], Framing], size: int) -> None:
    framing, text = make(), "μ".encode() * (size // 2) + b"x" * (size % 2)
    written = framing.text_frame(text)
    assert written is not None
    assert read_back(written, masked=make is client) == (Opcode.TEXT, text)
    framing.send_text(text)
    codec = b"".join(framing.data_to_send())
    if make is server:
        assert written == codec
    else:
        head = len(written) - size - 4
        assert (written[:head], len(written)) == (codec[:head], len(codec))


@SIDES
def test_a_text_of_64_kib_is_left_to_the_codec(make: Callable[[], Framing]) -> None:
    assert make().text_frame(b"x" * 65536) is None


def test_no_masking_key_is_used_twice() -> None:
    framings = [client(), client()]
    keys = {(framing.text_frame(b"hello") or b"")[2:6] for framing in framings for _ in range(500)}
    assert len(keys) > 990  # of 2**32, a thousand are hardly ever the same
