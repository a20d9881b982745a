"""Reads what happens into metrics: most of it from the diaries of the calls.

Knows no HTTP and decides nothing; a frame never comes by: calls count their own, and are asked at a scrape,
which may be in a thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import trio

from relay.line import Line
from relay.outcomes import Blame, Ending, Reason, Refusal
from relay.store import Spool, Status
from relay.telemetry import metrics as catalogue
from relay.telemetry.metrics import Metrics, Reading

LOOP_SECONDS = 0.25  # between two looks at how late a timer rings

_TALLIED: Final = {
    "frames_to_agent": (catalogue.FRAMES, ("to_agent",)),
    "frames_to_phone": (catalogue.FRAMES, ("to_phone",)),
    "early_frames": (catalogue.FRAMES_WITHHELD, ("early",)),
    "late_frames": (catalogue.FRAMES_WITHHELD, ("late",)),
    "unreadable_messages": (catalogue.UNREADABLE, ()),
}
_DIALS: Final = {"sid learnt": "placed", "refused by the carrier": "refused", "ambiguous": "ambiguous"}
_PICKUPS: Final = {
    "machine answered": "machine",
    "call screened": "screening",
    "taken for a machine": "person",
}
_ASKED: Final = frozenset(
    {catalogue.UNREADABLE, catalogue.LOG_DROPPED, catalogue.TRACES_LOST}
)  # counted elsewhere
_FINDINGS: Final = ("settled", "waiting", "lost", "overdue")


class Board(Protocol):
    """What the switchboard shows."""

    @property
    def lines(self) -> list[Line]: ...
    @property
    def refusal(self) -> Refusal | None: ...


class Meter:
    """Watches the calls of this node."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._past: Counter[str] = Counter()  # what calls that are gone had counted
        for blame in Blame:
            for reason in Reason:
                metrics.begin(catalogue.CALLS_ENDED, blame, reason)
        for outcome in _DIALS.values():
            metrics.begin(catalogue.DIALS, outcome)
        for what in _PICKUPS.values():
            metrics.begin(catalogue.PICKUPS, what)
        for finding in _FINDINGS:
            metrics.begin(catalogue.FINDINGS, finding)
        for metric in catalogue.CATALOGUE:
            if metric.kind != "gauge" and not metric.labels and metric not in _ASKED:
                metrics.begin(metric)

    # ---- calls ---------------------------------------------------------------------------------------------

    def noted(self, line: Line, event: str, fields: Mapping[str, Any]) -> None:
        """Something was written into the timeline of a call."""
        count, observe = self.metrics.count, self.metrics.observe
        match event:
            case "started":
                count(catalogue.CALLS_STARTED)
            case "answered":
                count(catalogue.CALLS_ANSWERED)
            case "taken over":
                count(catalogue.CALLS_ADOPTED)
            case "ended" if not line.yielded:
                count(catalogue.CALLS_ENDED, fields["blame"], fields["reason"])
            case "dialing":
                count(catalogue.DIAL_ATTEMPTS)
            case "sid learnt" | "refused by the carrier" | "ambiguous":
                count(catalogue.DIALS, _DIALS[event])
            case "not permitted":
                count(catalogue.FORBIDDEN, fields["code"])
            case "stream admitted":
                count(catalogue.STREAMS)
            case "opening started" if line.answered_at is not None:
                queued_seconds = fields.get("queued_seconds", 0.0)
                observe(catalogue.FIRST_AUDIO, trio.current_time() - line.answered_at + queued_seconds)
            case "barge-in":
                count(catalogue.BARGE_INS, fields["by"])
                observe(catalogue.SILENCE, fields["seconds"])
            case "tool":
                name = fields["tool"] if fields["tool"] in line.tools else "unknown"  # an agent may invent
                count(catalogue.TOOL_RUNS, name, "ok" if fields["ok"] else "error")
                observe(catalogue.TOOL_SECONDS, fields["seconds"], name)
            case "machine answered" | "call screened" | "taken for a machine":
                count(catalogue.PICKUPS, _PICKUPS[event])
            case "opted out":
                count(catalogue.OPT_OUTS, fields["how"])

    def turn_answered(self, agent_seconds: float, relay_seconds: float, wait_seconds: float | None) -> None:
        """A turn of the callee's was answered; `wait_seconds` is what he waited, where that is known."""
        if wait_seconds is not None:
            self.metrics.observe(catalogue.TURN_WAIT, wait_seconds)
        self.metrics.observe(catalogue.TURN_AGENT, agent_seconds)
        self.metrics.observe(catalogue.TURN_RELAY, relay_seconds)

    def gone(self, line: Line) -> None:
        """A call has left the switchboard: its counts are kept, or the sums would fall."""
        self._past.update(_counts(line))

    def refused(self, code: str) -> None:
        """A call that was asked for was not begun."""
        self.metrics.count(catalogue.REFUSED, code)

    # ---- the ledger ----------------------------------------------------------------------------------------

    def found(self, finding: str, ending: Ending | None = None) -> None:
        """The reconciler found a disagreement, and perhaps ended the call by it."""
        self.metrics.count(catalogue.FINDINGS, finding)
        if ending is not None:
            self.metrics.count(catalogue.CALLS_ENDED, ending.blame, ending.reason)

    def operated(self, seconds: float, is_done: bool) -> None:
        """The ledger has carried out an operation, or not."""
        self.metrics.observe(catalogue.STORE_SECONDS, seconds, "ok" if is_done else "failed")

    # ---- what is asked at a scrape -------------------------------------------------------------------------

    def watch_calls(self, board: Board, limit: int, spool: Spool) -> None:
        """Read the calls of this node, and what waits for the ledger, at each scrape."""

        def read() -> Iterator[Reading]:
            here = board.lines
            statuses = Counter(line.record.status for line in here)
            for status in Status:
                if status is not Status.ENDED:
                    yield catalogue.CALLS, (status.value,), statuses[status]
            yield catalogue.CALLS_LIMIT, (), limit
            yield catalogue.READY, (), board.refusal is None
            counts = Counter(self._past)
            for line in here:
                counts.update(_counts(line))
            for name, (metric, labels) in _TALLIED.items():
                yield metric, labels, counts[name]
            yield catalogue.STORE_UP, (), spool.problem is None
            yield catalogue.SPOOL_BYTES, (), spool.bytes_on_disk
            yield catalogue.SPOOL_LINES, (), spool.lines_waiting
            yield catalogue.SPOOL_LOST, ("torn",), spool.torn
            yield catalogue.SPOOL_LOST, ("refused",), spool.refused

        self.metrics.ask(read)

    def watch_process(
        self, version: str, commit: str, log_lines_dropped: Callable[[], int], traces_lost: Callable[[], int]
    ) -> None:
        """Read what is true of the process at each scrape."""

        def read() -> Iterator[Reading]:
            yield catalogue.BUILD, (version, commit), 1
            yield catalogue.LOG_DROPPED, (), log_lines_dropped()
            yield catalogue.TRACES_LOST, (), traces_lost()

        self.metrics.ask(read)

    async def watch_loop(self) -> None:
        """See how late timers ring, until cancelled."""
        while True:
            due_at = trio.current_time() + LOOP_SECONDS
            await trio.sleep_until(due_at)
            self.metrics.observe(catalogue.LOOP_LAG, trio.current_time() - due_at)


def _counts(line: Line) -> Mapping[str, int]:
    return {} if line.call is None else line.call.counts
