"""Bytes that look like audio for the compiled codec, and what the general one makes of the same.

Run by itself, `python -m tests.straight_fuzz MODULE ROUNDS` holds an extension that was built elsewhere
against the oracle: the sanitizers' build is loaded so.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from typing import Any, Protocol

from relay import straight
from relay.straight import Crossed, Forward, Play
from tests.far_ends import TEXT, frame

STREAM, REPLY = "MZ0123456789abcdef0123456789abcdef", "resp_1"
LIMIT = 2000
ROOM = 2_000  # octets


class Codec(Protocol):
    """What is built from relay/_straight.c."""

    forward: Forward
    play: Play


def unmasked(out: bytes) -> bytes:
    """Frames without their masks and keys: those are drawn anew each time."""
    plain, at = bytearray(), 0
    while at < len(out):
        size, body = out[at + 1] & 0x7F, at + 2
        if size == 126:
            size, body = int.from_bytes(out[body : body + 2], "big"), body + 2
        plain += out[at:body]
        if out[at + 1] & 0x80:
            key, body = out[body : body + 4], body + 4
            plain += bytes(byte ^ key[i % 4] for i, byte in enumerate(out[body : body + size]))
        else:
            plain += out[body : body + size]
        at = body + size
    return bytes(plain)


def assert_sound(crossed: Crossed, plainly: Crossed, chunk: bytes) -> int:
    """What was taken is what the oracle makes of the same bytes, and what was left is left as it came."""
    frames, octets, payload, rest, out, sent = crossed
    assert rest is None or chunk.endswith(rest)
    assert (rest is None) == (frames > 0 and out is not None and plainly[3] is None)
    assert (frames, octets, payload, sent) == (plainly[0], plainly[1], plainly[2], plainly[5])
    assert (out is None) == (plainly[4] is None)
    assert unmasked(out or b"") == unmasked(plainly[4] or b"")
    return frames


def cross_both(codec: Codec, chunk: bytes, *, from_phone: bool, room: int = ROOM) -> int:
    """How many frames of a chunk the compiled codec took; that they are right is asserted."""

    def forward(some: bytes, forward: Forward) -> Crossed:
        return forward(some, straight.NO_DESCRIPTOR, STREAM, LIMIT)

    def play(some: bytes, play: Play) -> Crossed:
        return play(some, straight.NO_DESCRIPTOR, REPLY, STREAM, room, LIMIT)

    crossed = forward(chunk, codec.forward) if from_phone else play(chunk, codec.play)
    taken = chunk[: len(chunk) - len(crossed[3])] if crossed[3] is not None else chunk
    if not taken:
        assert crossed[:3] == (0, 0, "")
        assert crossed[3:] == (chunk, None, 0)
        return 0
    plainly = forward(taken, straight.forward_plainly) if from_phone else play(taken, straight.play_plainly)
    assert plainly[3] is None
    return assert_sound((*crossed[:3], None, *crossed[4:]), plainly, taken)


# ---- near misses -----------------------------------------------------------------------------------------

_NUMBERS = (0, -1, 1.5, 1e300, 10**14, 10**15, 10**30)
_WORDS = ("", "\x7f", "μ", '"', "\\", "inbound", "outbound", "media", "reply.audio", STREAM, REPLY)
_SOUNDS = ("A" * 5, "/" * 400, "=", "a=b==", "x" * 1900)
_ODD: tuple[Any, ...] = (True, None, [], {}, [{"a": 1}], {"payload": "x"}, *_NUMBERS, *_WORDS, *_SOUNDS)
_NAMES = ("x", "event", "type", "media", "payload", "data", "μ", "")


def _phone(chance: random.Random) -> dict[str, Any]:
    media = {"track": "inbound", "chunk": "2", "timestamp": "5", "payload": "f" * chance.randint(0, 300)}
    return {"event": "media", "sequenceNumber": "4", "media": media, "streamSid": STREAM}


def _agent(chance: random.Random) -> dict[str, Any]:
    payload = "f" * chance.randint(0, 500)
    return {"type": "reply.audio", "reply_id": REPLY, "item_id": "m", "data": payload, "timestamp": 1.25}


def _bend(message: dict[str, Any], chance: random.Random) -> None:
    within = message.get("media")
    spot = within if isinstance(within, dict) and chance.random() < 0.5 else message
    match chance.randrange(4):
        case 0 if spot:
            del spot[chance.choice(list(spot))]
        case 1 if spot:
            spot[chance.choice(list(spot))] = chance.choice(_ODD)
        case 2:
            spot[chance.choice(_NAMES)] = chance.choice(_ODD)
        case _:
            items = list(spot.items())
            chance.shuffle(items)
            spot.clear()
            spot.update(items)


def _text(chance: random.Random, *, from_phone: bool) -> bytes:
    message = _phone(chance) if from_phone else _agent(chance)
    for _ in range(chance.choice((0, 0, 1, 2))):
        _bend(message, chance)
    separators = chance.choice(((",", ":"), (", ", ": "), (" ,\n", "\t:\r ")))
    text = json.dumps(message, separators=separators, ensure_ascii=chance.random() < 0.5).encode()
    if chance.random() < 0.1:
        text = text.replace(b'"', b'"x":1,"', 1) if chance.random() < 0.5 else text[:-1] + b', "media": {}}'
    return text + chance.choice((b"", b"", b" ", b"\0", b"}"))


def chunk_of(chance: random.Random, *, from_phone: bool) -> bytes:
    """A few frames, most of them nearly right, and some bytes that were changed or lost on the way."""
    chunk = bytearray()
    for _ in range(chance.randint(1, 4)):
        chunk += frame(TEXT, _text(chance, from_phone=from_phone), masked=from_phone)
    for _ in range(chance.choice((0, 0, 1, 3))):
        chunk[chance.randrange(len(chunk))] = chance.randrange(256)
    if chance.random() < 0.2:
        del chunk[chance.randrange(len(chunk)) :]
    return bytes(chunk)


def fuzz(codec: Codec, rounds: int, seed: int = 7) -> int:
    """How many frames were taken; each was right, whatever came before it and behind it."""
    chance, taken = random.Random(seed), 0
    for _ in range(rounds):
        from_phone = chance.random() < 0.5
        chunk = chunk_of(chance, from_phone=from_phone)
        taken += cross_both(codec, chunk, from_phone=from_phone, room=chance.choice((ROOM, 300, 0, -1)))
    return taken


def load(path: str) -> Codec:
    """The extension in a file, whatever else of that name was imported."""
    spec = importlib.util.spec_from_file_location("relay._straight", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.stdout.write(f"{fuzz(load(sys.argv[1]), int(sys.argv[2]))}\n")
