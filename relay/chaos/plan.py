"""What one simulated node will live through, as data: its calls, and the faults that strike them.

Knows no clock and no house; `draw` makes a plan of a seed, and a plan can be written down and read again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from relay.chaos.links import Weather

Target: TypeAlias = Literal["phone", "agent", "carrier", "node"]
Moment: TypeAlias = Literal["time", "parting"]

CALLS: Final = 4  # in one plan; one that is struck must not disturb the others
LIMIT_SECONDS: Final = 30  # of each call; they are over after 6 to 12 where nothing strikes

# What the bytes of a connection suffer; `Link.befall` does it.
LINK_FAULTS: Final = (
    *("clog", "black-hole", "stop-reading", "mute", "trickle", "reset", "fin", "half-close"),
    *("clog", "black-hole", "mute"),  # twice as often as the others: nobody says that these have happened
)
_CLOSES: Final = ("close:1000", "close:1001", "close:1008", "close:1011", "close:1013", "close:4000")
_BAD_MESSAGES: Final = (
    "garbage",
    "garbage-flood",
    "binary",
    "oversize",
    "bad-utf8",
    "wrong-shape",
    "unknown",
)
PHONE_FAULTS: Final = (
    *(*LINK_FAULTS, *_CLOSES, *_BAD_MESSAGES),
    *(
        "start-again",
        "foreign-start",
        "foreign-media",
        "strange-mark",
        "lost-marks",
        "stop",
        "no-media",
        "no-media",
    ),
)
AGENT_FAULTS: Final = (
    *(*LINK_FAULTS, *_CLOSES, *_BAD_MESSAGES),
    *("error:invalid_format", "error:server_error", "error:session_expired", "session-ended", "silence"),
    *("flood", "tool-again", "unknown-tool", "reply-error", "storm"),
)
CARRIER_FAULTS: Final = ("rest-down", "rest-slow", "document-again", "stream-again", "stream-error", "amd")
NODE_FAULTS: Final = ("ledger-down", "drain", "wind-up", "cut", "cancel")

FAULTS: Final[dict[Target, Sequence[str]]] = {
    "phone": PHONE_FAULTS,
    "agent": AGENT_FAULTS,
    "carrier": CARRIER_FAULTS,
    "node": NODE_FAULTS,
}

TURNS: Final = ("reply", "tool", "slow-tool", "broken-tool", "interrupted", "late-audio", "tail")
FINISHES: Final = (
    *("goodbye", "goodbye", "goodbye", "hang-up", "hang-up", "hang-up", "key", "words", "tool-opt-out"),
    *("operator", "operator-goodbye", "listed", "nobody", "nobody", "nobody"),
)
OUTCOMES: Final = ("busy", "no-answer", "failed", "canceled")
CREATES: Final = ("ambiguous", "lost", "refused", "slow")
OPENINGS: Final = (
    *("refuse:401", "refuse:404", "refuse:503", "refuse:200", "never-ready", "wrong-format", "unreachable"),
    *("mute-handshake", "silent-opening", "failed-opening", "slow-ready", "error:unauthorized"),
)
CALLBACKS: Final = ("prompt", "prompt", "late", "doubled", "reversed", "lost")


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that goes wrong.

    `at` counts in seconds from when its leg was connected (of the node: from the beginning); at a "parting",
    from the first sign of that call's end. `seconds` is how long what lasts will last. A "cancel" strikes
    when the tasks of the calls have made `step` steps: at one await point of one of them.
    """

    target: Target
    kind: str
    at: float = 0.0
    call: int = 0
    seconds: float = 0.0
    moment: Moment = "time"
    step: int = 0


class CallPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the far ends of one call do by themselves."""

    begins_at: float = 0.0
    ring_seconds: float = 0.5
    create: str = "placed"
    outcome: str = "answered"
    callbacks: str = "prompt"
    opening: str = "spoken"
    opening_seconds: float = 1.5
    turns: tuple[str, ...] = ("reply",)
    finish: str = "goodbye"
    finish_at: float = 6.0  # from the stream's start, where it is not the agent that ends the call
    resumes: bool = False  # whether the agent takes a session back
    phone: Weather = Weather()
    agent: Weather = Weather()


class Plan(msgspec.Struct, frozen=True):
    """One node, its calls in the order in which they are placed, and its faults."""

    seed: int
    calls: tuple[CallPlan, ...]
    faults: tuple[Fault, ...] = ()


def draw(seed: int) -> Plan:
    """The plan of a seed: one plan in eight is left in peace."""
    rng = random.Random(seed)
    calls = tuple(_draw_call(rng, position) for position in range(CALLS))
    faults: list[Fault] = []
    if rng.random() >= 0.125:
        shape = rng.choice((_scattered, _scattered, _swizzled, _at_parting))
        faults = shape(rng)
        if rng.random() < 0.25:
            faults.append(_of_node(rng))
    return Plan(seed, calls, tuple(faults))


def _draw_call(rng: random.Random, position: int) -> CallPlan:
    odd = rng.random()  # most calls are ordinary: what is told apart is what strikes them
    return CallPlan(
        begins_at=round(position * 0.4 + rng.random(), 3),
        ring_seconds=round(rng.uniform(0.1, 2.0), 3),
        create=rng.choice(CREATES) if odd < 0.06 else "placed",
        outcome=rng.choice(OUTCOMES) if 0.06 <= odd < 0.1 else "answered",
        opening=rng.choice(OPENINGS) if 0.1 <= odd < 0.2 else "spoken",
        callbacks=rng.choice(CALLBACKS),
        opening_seconds=round(rng.uniform(0.4, 2.5), 2),
        turns=tuple(rng.sample(TURNS, rng.randint(0, 3))),
        finish=rng.choice(FINISHES),
        finish_at=round(rng.uniform(0.0, 12.0), 3),
        resumes=rng.random() < 0.5,
        phone=_draw_weather(rng),
        agent=_draw_weather(rng),
    )


def _draw_weather(rng: random.Random) -> Weather:
    return Weather(
        latency_seconds=round(rng.uniform(0.001, 0.12), 4),
        jitter_seconds=round(rng.choice((0.0, 0.005, 0.08)), 4),
        piece_bytes=rng.choice((0,) * 8 + (7, 100)),
        buffer_bytes=rng.choice((8, 16, 64, 256)) * 1024,
    )


def _scattered(rng: random.Random) -> list[Fault]:
    """Anything, anywhere, at any time."""
    return [_any(rng, "time", rng.uniform(0.0, 9.0)) for _ in range(rng.randint(1, 4))]


def _at_parting(rng: random.Random) -> list[Fault]:
    """While a call is being taken down, when its tasks are gone and its sockets are not."""
    return [_any(rng, "parting", rng.uniform(0.0, 0.6)) for _ in range(rng.randint(1, 4))]


def _any(rng: random.Random, moment: Moment, at: float) -> Fault:
    target: Target = rng.choice(("phone", "phone", "agent", "agent", "carrier"))
    return Fault(
        target,
        rng.choice(FAULTS[target]),
        round(at, 3),
        call=rng.randrange(CALLS),
        seconds=round(rng.uniform(0.2, 8.0), 3),
        moment=moment,
    )


def _swizzled(rng: random.Random) -> list[Fault]:
    """Clog some of all links one by one over seconds, and unclog them in another order."""
    links: list[tuple[int, Target]] = [(call, leg) for call in range(CALLS) for leg in ("phone", "agent")]
    chosen = rng.sample(links, rng.randint(2, len(links)))
    begun = [rng.uniform(0.0, 5.0) + 0.3 * order for order in range(len(chosen))]
    return [
        Fault(leg, "clog", round(at, 3), call=call, seconds=round(rng.uniform(0.3, 4.0), 3))
        for (call, leg), at in zip(chosen, begun, strict=True)
    ]


def _of_node(rng: random.Random) -> Fault:
    kind = rng.choice(NODE_FAULTS)
    step = rng.randint(1, 6000) if kind == "cancel" else 0
    return Fault(
        "node", kind, round(rng.uniform(0.0, 9.0), 3), seconds=round(rng.uniform(0.5, 10.0), 3), step=step
    )
