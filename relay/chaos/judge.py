"""What had to hold when a node has come to rest, whatever struck it; the one place that says what may follow.

Knows the world's account of a run; knows no clock and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from relay.chaos.plan import LIMIT_SECONDS, Fault
from relay.chaos.world import Story, Struck, World
from relay.course import HANG_UP_SECONDS
from relay.outcomes import Blame, Ending, Reason

Verdict = tuple[Blame, Reason]

HARD_SECONDS: Final = 2.0  # past the limit a call may still take to be cancelled
TEARDOWN_SECONDS: Final = 2.0  # from there to both sockets closed, and the record saved
RESET_SECONDS: Final = 2.5  # from a telephone that is gone, and said so, to the end
DEAD_SECONDS: Final = 5.5 + TEARDOWN_SECONDS  # from a telephone that just falls silent: 5 s without a frame
NEVER_BEGUN_SECONDS: Final = 15.0 + TEARDOWN_SECONDS  # before its `start` nobody knows whose socket it is

_CARRIER_LOST = {(Blame.CARRIER, Reason.LOST)}
_CARRIER_DEAD = {(Blame.CARRIER, reason) for reason in (Reason.SILENT, Reason.STALLED, Reason.LOST)}
_CARRIER_BROKEN = {(Blame.CARRIER, Reason.PROTOCOL)}
_NEVER_BEGUN = {(Blame.CARRIER, Reason.NO_STREAM)}  # struck before the `start` of its stream
_AGENT_GONE = {
    (Blame.AGENT, reason)
    for reason in (
        *(Reason.LOST, Reason.SILENT, Reason.STALLED, Reason.NOT_READY, Reason.UNREACHABLE),
        *(Reason.ERROR, Reason.SESSION_ENDED),
    )
}
_AGENT_BROKEN = {(Blame.AGENT, Reason.PROTOCOL), (Blame.AGENT, Reason.ERROR)}

# How a call may end because of what its own far ends do.
_FINISHES: Final[Mapping[str, set[Verdict]]] = {
    "goodbye": {(Blame.NOBODY, Reason.GOODBYE)},
    "hang-up": {(Blame.CALLEE, Reason.HUNG_UP)},
    "key": {(Blame.CALLEE, Reason.OPTED_OUT)},
    "words": {(Blame.CALLEE, Reason.OPTED_OUT)},
    "tool-opt-out": {(Blame.CALLEE, Reason.OPTED_OUT)},
    "operator": {(Blame.US, Reason.OPERATOR)},
    "operator-goodbye": {(Blame.US, Reason.OPERATOR)},
    "nobody": {(Blame.CALLEE, Reason.SILENT), (Blame.CALLEE, Reason.HUNG_UP)},  # who says nothing, and leaves
    "listed": {(Blame.US, Reason.OPTED_OUT), (Blame.US, Reason.NOT_PERMITTED)},
}
_OPENINGS: Final[Mapping[str, set[Verdict]]] = {
    "spoken": set(),
    "refuse:401": {(Blame.AGENT, Reason.UNAUTHORIZED)},
    "refuse:404": {(Blame.AGENT, Reason.REFUSED)},
    "refuse:503": {(Blame.AGENT, Reason.REFUSED)},
    "refuse:200": {(Blame.AGENT, Reason.REFUSED)},
    "never-ready": {(Blame.AGENT, Reason.NOT_READY)},
    "wrong-format": {(Blame.AGENT, Reason.WRONG_FORMAT)},
    "unreachable": {(Blame.AGENT, Reason.UNREACHABLE)},
    "mute-handshake": {(Blame.AGENT, Reason.UNREACHABLE), (Blame.AGENT, Reason.NOT_READY)},
    "silent-opening": {(Blame.AGENT, Reason.SILENT)},
    "failed-opening": {(Blame.AGENT, Reason.SILENT), (Blame.AGENT, Reason.ERROR)},
    "slow-ready": set(),
    "error:unauthorized": {(Blame.AGENT, Reason.UNAUTHORIZED), (Blame.AGENT, Reason.REFUSED)},
}
_CREATES: Final[Mapping[str, set[Verdict]]] = {
    "placed": set(),
    "slow": set(),
    "ambiguous": {(Blame.CARRIER, Reason.NOT_PLACED), (Blame.CARRIER, Reason.NO_STREAM)},
    "lost": {(Blame.CARRIER, Reason.NOT_PLACED)},
    "refused": {(Blame.CARRIER, Reason.REFUSED)},
}
_OUTCOMES: Final[Mapping[str, set[Verdict]]] = {
    "answered": set(),
    "busy": {(Blame.CALLEE, Reason.BUSY)},
    "no-answer": {(Blame.CALLEE, Reason.NO_ANSWER)},
    "failed": {(Blame.CARRIER, Reason.FAILED)},
    "canceled": {(Blame.CARRIER, Reason.CANCELED)},
}

# How a call may end because of what struck it; nothing: it must live through that.
_STRIKES: Final[Mapping[str, set[Verdict]]] = {
    "phone clog": _CARRIER_DEAD,
    "phone black-hole": _CARRIER_DEAD,
    "phone stop-reading": _CARRIER_DEAD,
    "phone mute": _CARRIER_DEAD,
    "phone trickle": _CARRIER_DEAD,
    "phone reset": _CARRIER_LOST,
    "phone fin": _CARRIER_LOST,
    "phone half-close": _CARRIER_LOST,
    "phone close": _CARRIER_LOST,
    "phone garbage-flood": _CARRIER_BROKEN,
    "phone binary": _CARRIER_BROKEN,
    "phone oversize": _CARRIER_BROKEN,
    "phone bad-utf8": _CARRIER_BROKEN,
    "phone foreign-start": _CARRIER_BROKEN,
    "phone lost-marks": {(Blame.CARRIER, Reason.SILENT)},
    "phone stop": {(Blame.CALLEE, Reason.HUNG_UP)},
    "phone no-media": {(Blame.CARRIER, Reason.SILENT)},
    "agent clog": _AGENT_GONE,
    "agent black-hole": _AGENT_GONE,
    "agent stop-reading": _AGENT_GONE,
    "agent mute": _AGENT_GONE,
    "agent trickle": _AGENT_GONE,
    "agent reset": _AGENT_GONE,
    "agent fin": _AGENT_GONE,
    "agent half-close": _AGENT_GONE,
    "agent close": _AGENT_GONE,
    "agent garbage-flood": _AGENT_BROKEN,
    "agent binary": _AGENT_BROKEN,
    "agent oversize": _AGENT_BROKEN,
    "agent bad-utf8": _AGENT_BROKEN,
    "agent error": {*_AGENT_GONE, (Blame.AGENT, Reason.REFUSED)},
    "agent session-ended": _AGENT_GONE,
    "agent silence": {  # one that tells of no word may have been told none
        (Blame.AGENT, Reason.SILENT),
        (Blame.AGENT, Reason.NOT_READY),
        (Blame.CALLEE, Reason.SILENT),
    },
    "agent reply-error": {(Blame.AGENT, Reason.SILENT), (Blame.AGENT, Reason.ERROR)},  # of the opening
    "agent flood": {
        (Blame.AGENT, Reason.FLOOD),
        (Blame.CARRIER, Reason.STALLED),
    },
    "carrier rest-down": {
        (Blame.CARRIER, reason) for reason in (Reason.NOT_PLACED, Reason.NO_STREAM, Reason.FAILED)
    },
    "carrier stream-error": _CARRIER_LOST,
    "carrier amd": {(Blame.CALLEE, Reason.MACHINE)},
    "node ledger-down": {(Blame.US, Reason.NOT_PERMITTED)},
    "node drain": set(),
    "node wind-up": {(Blame.US, Reason.DRAINED)},
    "node cut": {(Blame.US, Reason.CUT)},
    "node cancel": {(Blame.US, Reason.CUT)},
}
# What ends every call that is not ended otherwise, and what ends one whose far end was silenced by a strike.
_ALWAYS: Final[set[Verdict]] = {(Blame.US, Reason.TIME_LIMIT), (Blame.CALLEE, Reason.HUNG_UP)}

# Strikes of a telephone that end the call within a time, and how long that may take.
_DEADLY: Final[Mapping[str, float]] = {
    "reset": RESET_SECONDS,
    "fin": RESET_SECONDS,
    "black-hole": DEAD_SECONDS,
    "mute": DEAD_SECONDS,
    "no-media": DEAD_SECONDS,
    "stop": DEAD_SECONDS,
    "trickle": DEAD_SECONDS,
}

_DEAF: Final = frozenset({"rest-down", "rest-slow"})  # a carrier that answers late or never

# Errors that are logged of things that are expected here; every other one is a bug.
_EXPECTED_ERRORS: Final = frozenset({"hang-up failed", "tool failed"})


def judge(world: World, logged: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every promise that was broken, as a sentence; none: the run is sound."""
    broken = list(world.trace.violations)
    if not world.came_to_rest:
        broken.append("the node never came to rest")
    if world.left_over:
        broken.append(f"tasks are left: {', '.join(world.left_over)}")
    for line in logged:
        if line["log_level"] in ("error", "critical") and line["event"] not in _EXPECTED_ERRORS:
            broken.append(f"logged as an error: {line['event']} {line.get('exc_info', '')!r}")
    for story in world.stories:
        broken += (f"{story.who}: {sentence}" for sentence in _judge_call(story, world))
    return broken


def _judge_call(story: Story, world: World) -> Iterator[str]:
    open_streams = sum(not link.relay.is_closed for link in story.links)
    if open_streams:
        yield f"{open_streams} of {len(story.links)} streams are open"
    if story.call_id is None:
        return
    if story.orders > 1:
        yield f"was dialled {story.orders} times"
    if story.finals != 1:
        yield f"has {story.finals} final records"
    record = story.record
    if record is None or record.ending is None:
        yield "has no ending"
        return
    if record.ended_at is not None and record.answered_at is not None:
        lasted = (record.ended_at - record.answered_at).total_seconds()
        if lasted > LIMIT_SECONDS + HARD_SECONDS + TEARDOWN_SECONDS:
            yield f"lasted {lasted:.1f} s"
    strikes = [*story.struck, *world.struck, *_of_all(story, world)]
    yield from _judge_ending(story, record.ending, [struck.fault for struck in strikes])
    yield from _judge_speed(story, world, strikes)
    yield from _judge_carrier(story, [struck.fault for struck in strikes])


def _judge_ending(story: Story, ending: Ending, faults: list[Fault]) -> Iterator[str]:
    plan = story.plan
    allowed = (
        _FINISHES[plan.finish] | _OPENINGS[plan.opening] | _CREATES[plan.create] | _OUTCOMES[plan.outcome]
    )
    for fault in faults:
        allowed = allowed | _STRIKES.get(f"{fault.target} {fault.kind.partition(':')[0]}", set())
        is_of_stream = fault.target == "phone" or fault.kind == "stream-error"
        if is_of_stream and story.record is not None and story.record.stream_sid is None:
            allowed = allowed | _NEVER_BEGUN
    if (ending.blame, ending.reason) not in allowed | (_ALWAYS if _is_out_of_step(story, faults) else set()):
        yield f"ended as {ending.blame}/{ending.reason} ({ending.detail})"


def _is_out_of_step(story: Story, faults: list[Fault]) -> bool:
    """Whether the far ends may have been kept from ending the call as they had meant to."""
    plan = story.plan
    return bool(faults) or plan.opening != "spoken" or plan.create != "placed" or plan.callbacks != "prompt"


def _of_all(story: Story, world: World) -> Iterator[Struck]:
    """What strikes the carrier's REST interface because of another call strikes this one too."""
    for other in world.stories:
        if other is not story:
            yield from (struck for struck in other.struck if struck.fault.kind in _DEAF)


def _judge_speed(story: Story, world: World, strikes: list[Struck]) -> Iterator[str]:
    """A telephone that is dead ends its call in time."""
    assert story.record is not None
    if story.record.ended_at is None:
        return
    ended_at = (story.record.ended_at - world.now_at(0.0)).total_seconds()
    # With its REST down the carrier is asked in vain, behind closed sockets, before the record is saved.
    is_deaf = any(struck.fault.kind in _DEAF for struck in strikes)
    spare = HANG_UP_SECONDS if is_deaf else 0.0
    for struck in story.struck:
        bound = _bound_of(struck, has_begun=story.record.stream_sid is not None)
        if bound is not None and ended_at - struck.at > bound + spare:
            yield f"ended {ended_at - struck.at:.1f} s after {struck.fault.kind} of its telephone"


def _bound_of(struck: Struck, *, has_begun: bool) -> float | None:
    bound = _DEADLY.get(struck.fault.kind) if struck.fault.target == "phone" else None
    return bound if has_begun or bound is None else NEVER_BEGUN_SECONDS


def _judge_carrier(story: Story, faults: list[Fault]) -> Iterator[str]:
    """The carrier has ended the call, or was told to; its own time limit is for nodes that died."""
    if story.far is None:
        return
    if not story.far.status.is_terminal:
        yield f"is {story.far.status} for the carrier"
    excused = {"rest-down", "cancel", "ledger-down"} & {fault.kind for fault in faults}
    if story.far.ended_by == "time-limit" and not excused:
        yield "only the carrier's time limit has ended it"
