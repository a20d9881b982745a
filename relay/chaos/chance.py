"""Everything that happens by chance in this process follows from one seed, and nothing waits for a thread.

Knows where Trio, websockets and wsproto take their chance from; a test holds that two processes agree.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
import trio._core._run as scheduler


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Until left: the order of tasks, frame masks, ids and salts repeat themselves for the same seed.

    Trio offers no public way to this but importing Hypothesis, hence the two private names; it is pinned.
    """
    rng = random.Random(seed)
    patches: list[tuple[Any, str, Any]] = [
        (scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        (scheduler, "_r", random.Random(rng.random())),  # shuffles the tasks that are ready
        (secrets, "token_bytes", rng.randbytes),  # frame masks and keys of websockets; token_hex: our ids
        (os, "urandom", rng.randbytes),  # frame masks of wsproto
        (trio.to_thread, "run_sync", _run_here),  # the spool's way to the disk
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


async def _run_here(work: Callable[..., Any], *arguments: Any, **_options: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return work(*arguments)
