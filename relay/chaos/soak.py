"""Call after call in one process: what it holds on to when they are over.

Knows runs, and what the kernel and Python say of this process; judges by count, not by time.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec

from relay.call import Call
from relay.chaos.plan import CALLS, draw
from relay.chaos.world import World, run_world
from relay.dialogue import Dialogue
from relay.legs import Leg
from relay.line import Line

CALLS_BETWEEN = 20  # from one sample to the next
WARM_UP_CALLS = 100  # caches fill: nothing is compared with before
# At most so much for each 1,000 calls after that. What is judged is what is held, not what the process takes
# of the machine: that grows by a step of some MB when a flood leaves the allocators full of holes, and shows.
GROWTH_KIB = 1024
NOISE_KIB = 128  # a task of Trio's, a line of the log: between two samples of a node that is at rest
BLOCK_BYTES = 96  # of one of Python's objects, on the average, as its allocator tells
_OF_A_CALL = (Call, Dialogue, Leg, Line)  # of which none may be left when every call is over

_STATUS = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")
_PAGE_KIB = 4


class Sample(msgspec.Struct, frozen=True):
    """What this process held after so many calls, all of them over."""

    calls: int
    memory_kib: int  # of the machine's, as the kernel counts
    held_kib: int  # what of it is in use, as Python's allocator and the C library's count
    descriptors: int
    threads: int
    tasks_left: int
    calls_held: int  # parts of calls that are over, which their node has not let go
    objects: int  # that Python's collector knows of


def run_soak(
    seed: int,
    *,
    seconds: float = float("inf"),
    calls: float = float("inf"),
    on_sample: Callable[[Sample], None] = lambda _sample: None,
) -> tuple[list[Sample], list[str]]:
    """Run plans from this seed on until the time is up or the calls are made; what broke the promise."""
    stop_at = time.monotonic() + seconds
    samples: list[Sample] = []
    made = tasks_left = 0
    is_over = False
    while not is_over:
        world, _ = run_world(draw(seed + made // CALLS))
        made += CALLS
        tasks_left += len(world.left_over)
        is_over = made >= calls or time.monotonic() >= stop_at
        if made % CALLS_BETWEEN == 0 or is_over:
            samples.append(_sample(made, tasks_left, world))
            on_sample(samples[-1])
        del world
    return samples, _judge(samples)


def _sample(calls: int, tasks_left: int, world: World) -> Sample:
    gc.collect()
    objects = gc.get_objects()
    return Sample(
        calls=calls,
        memory_kib=int(_STATUS.read_text().split()[1]) * _PAGE_KIB,
        held_kib=_held_kib(),
        descriptors=len(list(_DESCRIPTORS.iterdir())),
        threads=threading.active_count(),
        tasks_left=tasks_left,
        calls_held=sum(isinstance(each, _OF_A_CALL) for each in objects),
        objects=len(objects),
    )


class _Heap(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "free", "fast", "maps", "mapped", "_", "fast_free", "used", "unused", "top")
    ]


def _held_kib() -> int:
    blocks = sys.getallocatedblocks() * BLOCK_BYTES
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return blocks // 1024  # another C library: Python's own objects are most of it
    mallinfo.restype = _Heap
    return (blocks + int(mallinfo().used)) // 1024


def _judge(samples: list[Sample]) -> list[str]:
    settled = [each for each in samples if each.calls >= WARM_UP_CALLS]
    if len(settled) < 2:
        return []
    first, last = settled[0], settled[-1]
    # The last of many samples may be a high one, so halves are compared: a leak shows in each of them.
    half = len(settled) // 2
    grown = _middle(settled[half:]) - _middle(settled[:half])
    allowed = NOISE_KIB + GROWTH_KIB * (last.calls - first.calls) / 2 / 1000
    broken = []
    if grown > allowed:
        broken.append(
            f"what is held grew by {grown:.0f} KiB between the halves, at most {allowed:.0f} may be"
        )
    for name in ("descriptors", "threads", "tasks_left", "calls_held"):
        if getattr(last, name) > getattr(first, name):
            broken.append(f"{name} grew from {getattr(first, name)} to {getattr(last, name)}")
    return broken


def _middle(samples: list[Sample]) -> float:
    return median(sample.held_kib for sample in samples)
