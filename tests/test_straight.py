"""The compiled codec makes of audio what the general ones make of it, and takes nothing else.

Must not know calls: bytes of one side, bytes for the other, and sockets to read from and send on. The general
codecs are the oracle.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import straight
from relay.straight import NO_DESCRIPTOR, forward, forward_plainly, play, play_plainly
from relay.wire import agent, phone
from tests.far_ends import CLOSE, CONTINUATION, PING, TEXT, connected_sockets, frame
from tests.straight_fuzz import LIMIT, REPLY, ROOM, STREAM, cross_both, fuzz, unmasked

needs_compiler = pytest.mark.needs_compiler
SOURCE = Path(straight.__file__).with_name("_straight.c")
PAYLOAD = "fn9+" * 53 + "fg=="  # 160 octets

# As the vendors write them.
MEDIA = (
    '{"event":"media","sequenceNumber":"4","media":{"track":"inbound","chunk":"2","timestamp":"5",'
    f'"payload":"{PAYLOAD}"}},"streamSid":"{STREAM}"}}'
)
AUDIO = f'{{"type": "reply.audio", "reply_id": "{REPLY}", "data": "{PAYLOAD}", "timestamp": 1758000000.25}}'


def from_phone(text: str | bytes) -> bytes:
    return frame(TEXT, text.encode() if isinstance(text, str) else text, masked=True)


def from_agent(text: str | bytes) -> bytes:
    return frame(TEXT, text.encode() if isinstance(text, str) else text, masked=False)


# ---- what both do --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cross", [pytest.param(forward, marks=needs_compiler), forward_plainly])
def test_the_callees_frames_become_the_agents(cross: straight.Forward) -> None:
    chunk = from_phone(MEDIA) * 3
    frames, octets, payload, rest, out, sent = cross(chunk, NO_DESCRIPTOR, STREAM, LIMIT)
    assert (frames, octets, payload, rest, sent) == (3, 480, PAYLOAD, None, 0)
    assert out is not None
    assert unmasked(out) == unmasked(frame(TEXT, agent.input_audio(PAYLOAD), masked=True)) * 3


@pytest.mark.parametrize("cross", [pytest.param(play, marks=needs_compiler), play_plainly])
def test_the_agents_chunks_become_frames_for_the_phone(cross: straight.Play) -> None:
    chunk = from_agent(AUDIO) * 3
    frames, octets, payload, rest, out, _ = cross(chunk, NO_DESCRIPTOR, REPLY, STREAM, ROOM, LIMIT)
    assert (frames, octets, payload, rest) == (3, 480, PAYLOAD, None)
    assert out == frame(TEXT, phone.media(STREAM, PAYLOAD), masked=False) * 3


@pytest.mark.parametrize("cross", [pytest.param(play, marks=needs_compiler), play_plainly])
def test_no_more_is_played_than_there_is_room_for(cross: straight.Play) -> None:
    chunk = from_agent(AUDIO) * 3
    frames, octets, _, rest, _, _ = cross(chunk, NO_DESCRIPTOR, REPLY, STREAM, 479, LIMIT)
    assert (frames, octets, rest) == (2, 320, from_agent(AUDIO))
    nothing = from_agent(AUDIO.replace(PAYLOAD, ""))
    assert cross(nothing, NO_DESCRIPTOR, REPLY, STREAM, 0, LIMIT)[0] == 1
    assert cross(nothing, NO_DESCRIPTOR, REPLY, STREAM, -1, LIMIT)[0] == 0


OTHERS = {
    "a mark": f'{{"event":"mark","streamSid":"{STREAM}","mark":{{"name":"a"}}}}',
    "another stream": MEDIA.replace(STREAM, STREAM[:-1] + "0"),
    "the other track": MEDIA.replace("inbound", "outbound"),
    "no stream": MEDIA.replace("streamSid", "streamSod"),
    "no payload": MEDIA.replace("payload", "payroll"),
    "payload in the wrong place": MEDIA.replace('"chunk":"2"', '"chunk":2').replace("payload", "x")[:-1]
    + ',"payload":"AA"}',
    "no JSON": MEDIA[:-1],
    "more than JSON": MEDIA + "}",
    "a zero byte behind it": MEDIA + "\0",
    "an array": f"[{MEDIA}]",
    "nothing": "",
}


@pytest.mark.parametrize("cross", [pytest.param(forward, marks=needs_compiler), forward_plainly])
@pytest.mark.parametrize("what", OTHERS)
def test_from_whatever_else_on_everything_is_left_as_it_came(what: str, cross: straight.Forward) -> None:
    left = from_phone(OTHERS[what]) + from_phone(MEDIA)
    frames, _, _, rest, out, _ = cross(from_phone(MEDIA) + left, NO_DESCRIPTOR, STREAM, LIMIT)
    assert (frames, rest) == (1, left)
    assert out is not None
    assert cross(left, NO_DESCRIPTOR, STREAM, LIMIT) == (0, 0, "", left, None, 0)


@pytest.mark.parametrize("cross", [pytest.param(forward, marks=needs_compiler), forward_plainly])
def test_the_end_is_told_from_nothing_left(cross: straight.Forward) -> None:
    assert cross(b"", NO_DESCRIPTOR, STREAM, LIMIT) == (0, 0, "", b"", None, 0)


# ---- the compiled one takes the plainest, and no more than the oracle ----------------------------------


class Compiled:
    """The extension that was built with the package."""

    forward = staticmethod(forward)
    play = staticmethod(play)


NOT_PLAIN = {
    "an escape": MEDIA.replace('"2"', '"\\u0032"'),
    "a word beyond ASCII": MEDIA.replace('"2"', '"μ"'),
    "the payload twice": MEDIA.replace('"chunk"', '"payload":"AAAA","chunk"'),
    "the stream twice": MEDIA[:-1] + f',"streamSid":"{STREAM}"}}',
    "an object that is unknown": MEDIA[:-1] + ',"more":{}}',
    "an exponent": MEDIA[:-1] + ',"more":1e400}',
    "a long number": MEDIA[:-1] + f',"more":{"9" * 400}}}',
    "true": MEDIA[:-1] + ',"more":true}',
}


@needs_compiler
@pytest.mark.parametrize("what", NOT_PLAIN)
def test_what_is_not_plain_is_left_to_the_general_codec(what: str) -> None:
    assert forward(from_phone(NOT_PLAIN[what]), NO_DESCRIPTOR, STREAM, LIMIT)[0] == 0


@needs_compiler
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_order_blanks_and_unknown_words_make_no_difference(separators: tuple[str, str]) -> None:
    for number in (0, -0.5, 12, 1758000000.123456):
        message = {"more": number, "data": PAYLOAD, "seq": "~}{", "reply_id": REPLY, "type": "reply.audio"}
        text = json.dumps(message, separators=separators)
        assert cross_both(Compiled, from_agent(f" {text}\n"), from_phone=False) == 1


@needs_compiler
@pytest.mark.parametrize("kind", [PING, CLOSE, CONTINUATION])
def test_other_frames_and_unmasked_or_masked_ones_of_the_wrong_side_are_left(kind: int) -> None:
    for left in (frame(kind, b"", masked=True), frame(TEXT, MEDIA.encode(), masked=True, fin=False)):
        assert forward(from_phone(MEDIA) + left, NO_DESCRIPTOR, STREAM, LIMIT)[3] == left
    assert forward(from_agent(MEDIA), NO_DESCRIPTOR, STREAM, LIMIT)[0] == 0
    assert play(from_phone(AUDIO), NO_DESCRIPTOR, REPLY, STREAM, ROOM, LIMIT)[0] == 0


@needs_compiler
@pytest.mark.parametrize("cut", [1, 2, 3, 7, 8, 100])
def test_a_frame_that_is_not_all_there_is_left_as_it_came(cut: int) -> None:
    whole = from_phone(MEDIA)
    for piece in (whole[:cut], whole[:-cut]):
        assert forward(whole + piece, NO_DESCRIPTOR, STREAM, LIMIT)[3] == piece


@needs_compiler
def test_sizes_around_every_bound() -> None:
    bare = '{"type":"reply.audio","reply_id":"%s","data":"%s"}'
    for size in (*range(40, 80), *range(1930, 2000), 65_400, 65_480, 65_535 - 53):
        text = bare % (REPLY, "A" * size)
        limit, chunk = 1 << 20, from_agent(text)
        crossed = play(chunk, NO_DESCRIPTOR, REPLY, STREAM, 1 << 20, limit)
        plainly = play_plainly(chunk, NO_DESCRIPTOR, REPLY, STREAM, 1 << 20, limit)
        assert crossed == plainly
        assert play(chunk, NO_DESCRIPTOR, REPLY, STREAM, 1 << 20, len(text))[0] == plainly[0]
        assert play(chunk, NO_DESCRIPTOR, REPLY, STREAM, 1 << 20, len(text) - 1)[0] == 0


@needs_compiler
def test_as_many_frames_as_there_is_room_for_are_made_and_the_rest_is_left() -> None:
    chunk = from_agent('{"type":"reply.audio","reply_id":"r","data":""}') * 3000
    total, rest = 0, chunk
    while rest:
        frames, _, _, left, out, _ = play(rest, NO_DESCRIPTOR, "r", STREAM, ROOM, LIMIT)
        assert out == frame(TEXT, phone.media(STREAM, ""), masked=False) * frames
        assert frames > 0
        total, rest = total + frames, bytes(left or b"")
    assert total == 3000


@needs_compiler
@pytest.mark.parametrize("word", ['a"b', "a\\b", "μ", "\n", "\ud800", "x" * 70_000])
def test_words_that_would_have_to_be_escaped_take_the_long_way(word: str) -> None:
    assert play(from_agent(AUDIO), NO_DESCRIPTOR, REPLY, word, ROOM, LIMIT)[0] == 0
    assert play(from_agent(AUDIO), NO_DESCRIPTOR, word, STREAM, ROOM, LIMIT)[0] == 0
    assert forward(from_phone(MEDIA), NO_DESCRIPTOR, word, LIMIT)[0] == 0


texts = st.text(max_size=12) | st.sampled_from(
    ["media", "inbound", "reply.audio", STREAM, REPLY, PAYLOAD, "a=", "", "\x7f", "~"]
)
scalars = texts | st.floats() | st.integers() | st.booleans() | st.none()
names = st.sampled_from(
    ["event", "media", "payload", "track", "streamSid", "type", "data", "reply_id"]
) | st.text(max_size=6)
flat = st.lists(st.tuples(names, scalars), max_size=6)


def written(members: list[tuple[str, Any]], *, blanks: str, is_ascii: bool) -> str:
    """JSON with its members in that order, repeated ones too."""
    pairs = (
        f"{json.dumps(name, ensure_ascii=is_ascii)}{blanks}:"
        f"{value if isinstance(value, Raw) else json.dumps(value, ensure_ascii=is_ascii)}"
        for name, value in members
    )
    return f"{{{blanks}{f',{blanks}'.join(pairs)}{blanks}}}"


class Raw(str):
    """JSON already."""


@st.composite
def nearly(draw: st.DrawFn, *, is_phone: bool) -> bytes:
    blanks, is_ascii = draw(st.sampled_from(["", " ", "\r\n\t"])), draw(st.booleans())
    payload = draw(st.sampled_from([PAYLOAD, "", "a"]))
    members: list[tuple[str, Any]] = list(draw(flat))
    if is_phone:
        media = [("payload", payload), ("track", "inbound"), *draw(flat)]
        nested = Raw(written(draw(st.permutations(media)), blanks=blanks, is_ascii=is_ascii))
        members += [("event", "media"), ("streamSid", STREAM), ("media", nested)]
    else:
        members += [("type", "reply.audio"), ("reply_id", REPLY), ("data", payload)]
    text = written(draw(st.permutations(members)), blanks=blanks, is_ascii=is_ascii)
    return frame(TEXT, text.encode(errors="replace")[:4000], masked=is_phone)


@needs_compiler
@given(st.lists(nearly(is_phone=True), min_size=1, max_size=3).map(b"".join))
def test_nothing_of_the_callees_is_taken_otherwise_than_by_the_oracle(chunk: bytes) -> None:
    cross_both(Compiled, chunk, from_phone=True)


@needs_compiler
@given(st.lists(nearly(is_phone=False), min_size=1, max_size=3).map(b"".join))
def test_nothing_of_the_agents_is_taken_otherwise_than_by_the_oracle(chunk: bytes) -> None:
    cross_both(Compiled, chunk, from_phone=False)


@needs_compiler
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_at_all(chunk: bytes, is_phone: bool) -> None:
    cross_both(Compiled, chunk, from_phone=is_phone)


@needs_compiler
def test_bytes_changed_at_random_are_taken_as_by_the_oracle_or_left() -> None:
    assert fuzz(Compiled, 4000) > 800


@needs_compiler
@pytest.mark.needs_gcc
@pytest.mark.slow
def test_the_sanitizers_find_nothing_in_it(tmp_path: Path) -> None:
    library = tmp_path / "_straight.so"
    built = ["gcc", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-shared", "-fPIC"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    include = sysconfig.get_paths()["include"]
    subprocess.run([*built, *checks, f"-I{include}", str(SOURCE), "-o", str(library)], check=True)
    preload = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    fuzzed = subprocess.run(
        [sys.executable, "-m", "tests.straight_fuzz", str(library), "20000"],
        env={**os.environ, "LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert fuzzed.returncode == 0, fuzzed.stderr[-3000:]
    assert int(fuzzed.stdout) > 4000


# ---- reading and sending by itself ---------------------------------------------------------------------


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket, socket.socket, socket.socket]]:
    """A carrier and our end to it, our end to an agent and the agent."""
    ours, theirs = connected_sockets()
    near, far = connected_sockets()
    for sock in (ours, near):
        sock.setblocking(False)
    with ours, theirs, near, far:
        yield theirs, ours, near, far


Sockets = tuple[socket.socket, socket.socket, socket.socket, socket.socket]


@needs_compiler
def test_a_read_goes_out_on_the_other_socket_in_one_send(sockets: Sockets) -> None:
    theirs, ours, near, far = sockets
    assert forward(ours.fileno(), near.fileno(), STREAM, LIMIT) == (0, 0, "", None, None, 0)  # nothing came
    theirs.sendall(from_phone(MEDIA) * 2)
    crossed = forward(ours.fileno(), near.fileno(), STREAM, LIMIT)
    received = far.recv(65536)
    assert crossed == (2, 320, PAYLOAD, None, None, len(received))
    assert unmasked(received) == unmasked(frame(TEXT, agent.input_audio(PAYLOAD), masked=True)) * 2
    theirs.sendall(from_phone(MEDIA) + b"\x89")
    assert forward(ours.fileno(), near.fileno(), STREAM, LIMIT)[3] == b"\x89"
    theirs.close()
    assert forward(ours.fileno(), near.fileno(), STREAM, LIMIT) == (0, 0, "", b"", None, 0)


@needs_compiler
def test_what_the_other_socket_does_not_take_is_given_back_and_how_much_it_took(sockets: Sockets) -> None:
    theirs, ours, near, _ = sockets
    filled = 0
    while True:  # until not one more byte fits
        try:
            filled += near.send(b"x" * 65536)
        except BlockingIOError:
            break
    theirs.sendall(from_phone(MEDIA))
    frames, _, _, rest, out, sent = forward(ours.fileno(), near.fileno(), STREAM, LIMIT)
    assert (frames, rest, sent) == (1, None, 0)
    assert out is not None
    near.close()
    theirs.sendall(from_phone(MEDIA))  # a socket that is gone: whoever sends it again hears why
    frames, _, _, rest, out, sent = forward(ours.fileno(), NO_DESCRIPTOR, STREAM, LIMIT)
    assert (frames, rest, sent) == (1, None, 0)
    assert out is not None


@needs_compiler
def test_a_socket_that_cannot_be_read_raises(sockets: Sockets) -> None:
    theirs, ours, near, _ = sockets
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    with pytest.raises(ConnectionResetError):
        forward(ours.fileno(), near.fileno(), STREAM, LIMIT)
    with pytest.raises(OSError, match="Bad file descriptor"):
        forward(NO_DESCRIPTOR, near.fileno(), STREAM, LIMIT)


@needs_compiler
def test_no_masking_key_is_used_twice() -> None:
    seen = set()
    for _ in range(3000):
        out = forward(from_phone(MEDIA), NO_DESCRIPTOR, STREAM, LIMIT)[4]
        assert out is not None
        seen.add(out[4:8])
    assert len(seen) > 2990  # of 2**32, three thousand are hardly ever the same
