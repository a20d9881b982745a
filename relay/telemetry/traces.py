"""Sends what became of calls to a collector of traces, by a thread: one that is down costs no call anything.

Knows no OpenTelemetry: what sends is in `otlp`, which is read only where traces are wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Final

from relay.store.records import CallRecord
from relay.telemetry.spans import Span, spans_of

# Calls whose trace may wait: a minute of a busy node. When it is full the newest is dropped, and counted.
QUEUE_CALLS: Final = 200
SEND_SECONDS: Final = 10.0  # for one call's trace, attempts and pauses together
FLUSH_SECONDS: Final = 2.0  # how long the end of the service waits for what is still to be sent

Send = Callable[[str, Sequence[Span]], bool]
"""Delivers the trace of a call, for at most SEND_SECONDS; whether it was taken."""


class TracesUnavailable(Exception):
    """What sends traces is not installed."""


class Traces:
    """Takes calls that have ended. Without anything to send them with it does nothing."""

    def __init__(self, send: Send | None = None) -> None:
        self.lost = 0  # only grows; written by the loop and by the thread, each for itself
        self._unsent = 0
        self._waiting: SimpleQueue[CallRecord | None] = SimpleQueue()  # bounded in `take`
        self._thread: threading.Thread | None = None
        if send is not None:
            # A daemon: it may be stuck in a request that nobody answers.
            self._thread = threading.Thread(target=self._run, args=[send], name="traces", daemon=True)
            self._thread.start()

    def take(self, record: CallRecord) -> None:
        """Never waits: a call that finds the queue full is dropped and counted. Its diary is closed."""
        if self._thread is None:
            return
        if self._waiting.qsize() >= QUEUE_CALLS:
            self.lost += 1
        else:
            self._waiting.put(record)

    def count_lost(self) -> int:
        """How many calls have no trace: too many waited, or the collector did not take it."""
        return self.lost + self._unsent

    def close(self) -> None:
        """Send what waits, for at most FLUSH_SECONDS; then give up on it."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(FLUSH_SECONDS)

    def _run(self, send: Send) -> None:
        while (record := self._waiting.get()) is not None:
            try:
                spans = spans_of(record)
            except (LookupError, TypeError, ValueError):  # a diary that another version has begun
                self._unsent += 1
                continue
            if not send(record.id, spans):
                self._unsent += 1


@contextmanager
def open_traces(url: str | None, version: str) -> Iterator[Traces]:
    """While open, traces go to `url`; nowhere without one. Raises TracesUnavailable.

    Nothing of OpenTelemetry is imported before it is needed.
    """
    if url is None:
        yield Traces()
        return
    try:
        from relay.telemetry.otlp import open_otlp  # noqa: PLC0415 - an extra, which may not be installed
    except ImportError as problem:
        raise TracesUnavailable(
            f"needs what is not installed ({problem.name}): pip install 'relay[tracing]'"
        ) from None
    with open_otlp(url, version, SEND_SECONDS) as send:
        traces = Traces(send)
        try:
            yield traces
        finally:
            traces.close()
