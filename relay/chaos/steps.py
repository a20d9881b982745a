"""Counts the steps that the tasks of all calls make, and cancels them at one: an await point like any other.

Knows Trio's instruments; knows nothing of calls but the nursery that they are in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio
from trio.abc import Instrument

OnStep: TypeAlias = Callable[[int, trio.lowlevel.Task], None]


class Steps(Instrument):
    """With a `target` of 0 nothing is ever cancelled."""

    def __init__(self, target: int, on_step: OnStep | None = None) -> None:
        self.target = target
        self._on_step = on_step
        self.taken = 0
        self.reached: trio.Event
        self._calls: trio.Nursery | None = None

    def watch(self, calls: trio.Nursery) -> None:
        """From now on the tasks under this nursery count."""
        self.reached = trio.Event()
        self._calls = calls

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called by Trio when a task has arrived at its next await point."""
        if self._calls is None or not self._is_of_a_call(task):
            return
        self.taken += 1
        if self._on_step is not None:
            self._on_step(self.taken, task)
        if self.taken == self.target:
            self._calls.cancel_scope.cancel(reason="chaos")
            self.reached.set()

    def _is_of_a_call(self, task: trio.lowlevel.Task) -> bool:
        nursery = task.parent_nursery
        while nursery is not None and nursery is not self._calls:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None
