"""The catalogue of metrics, and the one registry that Prometheus reads.

Knows no call: names, kinds, labels and help stand here; what happens is counted by whoever sees it.

Labels come from closed lists or from the configuration; a number, an id or a far end's word is never one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

# A second series for each one, which nobody asks for.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_LATEST

_TURN_BUCKETS: Final = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_OURS_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)
_ANSWER_BUCKETS: Final = (0.01, 0.05, 0.25, 1.0, 5.0)  # few: there are many routes
_WORK_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `buckets` are the upper bounds of a histogram, in seconds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "counter", help, labels)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "gauge", help, labels)


def _histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name, "histogram", help, labels, buckets)


BUILD = _gauge("relay_build_info", "Always 1; the labels say what runs.", "version", "commit")

CALLS_STARTED = _counter("relay_calls_started_total", "Calls whose intent was stored here.")
CALLS_ANSWERED = _counter("relay_calls_answered_total", "Calls that somebody picked up.")
CALLS_ENDED = _counter("relay_calls_ended_total", "Calls over, by whose doing and why.", "blame", "reason")
CALLS_ADOPTED = _counter("relay_calls_taken_over_total", "Calls that went on here after their node died.")
CALLS = _gauge("relay_calls", "Calls of this node that have not ended.", "status")
CALLS_LIMIT = _gauge("relay_calls_limit", "Calls that this node admits at once (RELAY_MAX_CALLS).")
READY = _gauge("relay_ready", "1 while new calls may be placed on this node, as /readyz says.")
REFUSED = _counter(
    "relay_admissions_refused_total", "Calls that were asked for and not begun, by the code of /v1.", "code"
)

DIAL_ATTEMPTS = _counter("relay_dial_attempts_total", "Requests to the carrier to place a call.")
DIALS = _counter("relay_dials_total", "What became of dials: placed, refused or ambiguous.", "outcome")
FORBIDDEN = _counter("relay_gate_refusals_total", "Calls that the gate forbade, by rule.", "rule")

FRAMES = _counter("relay_frames_total", "Audio messages passed on, to_agent and to_phone.", "direction")
FRAMES_WITHHELD = _counter(
    "relay_frames_withheld_total",
    "Audio messages not passed on: early (callee, before the opening was heard), late (of a cut reply).",
    "why",
)
UNREADABLE = _counter("relay_unreadable_messages_total", "Messages of a far end that could not be read.")

FIRST_AUDIO = _histogram(
    "relay_first_audio_seconds", "From the answer to the first sound of the opening.", _TURN_BUCKETS
)
TURN_WAIT = _histogram(
    "relay_turn_wait_seconds",
    "What the callee waited: from the end of what he said to the agent's first sound at the phone.",
    _TURN_BUCKETS,
)
TURN_AGENT = _histogram(
    "relay_turn_agent_seconds", "From the end of the callee's turn to the agent's first sound.", _TURN_BUCKETS
)
TURN_RELAY = _histogram(
    "relay_turn_relay_seconds", "Our share of a turn: from reading that sound to sending it.", _OURS_BUCKETS
)
BARGE_INS = _counter("relay_barge_ins_total", "Times that the callee's speech silenced the phone.", "by")
SILENCE = _histogram(
    "relay_time_to_silence_seconds", "From the callee's speech being noticed to our clear.", _TURN_BUCKETS
)
TOOL_RUNS = _counter("relay_tool_runs_total", "Tools run for the agent; ok or error.", "tool", "outcome")
TOOL_SECONDS = _histogram("relay_tool_run_seconds", "How long tools ran.", _WORK_BUCKETS, "tool")
PICKUPS = _counter(
    "relay_pickups_total",
    "What picked up, where it was in doubt: machine, screening, or a person who was taken for a machine.",
    "what",
)
OPT_OUTS = _counter("relay_opt_outs_total", "Callees who want no more calls, by how they said so.", "how")
STREAMS = _counter("relay_streams_admitted_total", "Media streams of the carrier that were let in.")

HTTP_REQUESTS = _counter("relay_http_requests_total", "Requests answered, webhooks too.", "route", "status")
HTTP_SECONDS = _histogram("relay_http_request_seconds", "How long answers took.", _ANSWER_BUCKETS, "route")

FINDINGS = _counter(
    "relay_reconciler_findings_total",
    "Disagreements: settled (a dead node's call was ended), waiting (it cannot be yet), "
    "lost (ours is another node's by now), overdue (ours was not renewed in time).",
    "finding",
)
STORE_SECONDS = _histogram(
    "relay_store_operation_seconds", "Operations of the ledger; ok or failed.", _WORK_BUCKETS, "outcome"
)
STORE_UP = _gauge("relay_store_up", "1 while the ledger takes what live calls write.")
SPOOL_BYTES = _gauge("relay_spool_bytes", "What waits on this machine's disk for the ledger.")
SPOOL_LINES = _gauge("relay_spool_waiting_lines", "What waits in memory for that disk.")
SPOOL_LOST = _counter(
    "relay_spool_lost_lines_total", "Lines of the spool that were torn, or refused by the ledger.", "why"
)
LOOP_LAG = _histogram(
    "relay_loop_lag_seconds", "How late a timer of the event loop rang, four times a second.", _WORK_BUCKETS
)
LOG_DROPPED = _counter("relay_log_lines_dropped_total", "Log lines lost because nobody read the log.")
TRACES_LOST = _counter(
    "relay_traces_lost_total", "Calls without a trace: too many waited, or it was not taken."
)

CATALOGUE: Final = tuple(metric for metric in list(globals().values()) if isinstance(metric, Metric))

Reading = tuple[Metric, tuple[str, ...], float]
"""A metric, the values of its labels, and its value now."""


class Metrics:
    """What was counted, and who is asked at each scrape for the rest."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def begin(self, metric: Metric, *labels: str) -> None:
        """Let a series stand at 0 from now on, so that its first increase is seen as one."""
        series = self._counter(metric) if metric.kind == "counter" else self._histogram(metric)
        if labels:
            series.labels(*labels)

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter."""
        counter = self._counter(metric)
        (counter.labels(*labels) if labels else counter).inc()

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Add to a histogram."""
        histogram = self._histogram(metric)
        (histogram.labels(*labels) if labels else histogram).observe(seconds)

    def _counter(self, metric: Metric) -> Counter:
        if metric.name not in self._counters:
            self._counters[metric.name] = Counter(
                metric.name, metric.help, metric.labels, registry=self.registry
            )
        return self._counters[metric.name]

    def _histogram(self, metric: Metric) -> Histogram:
        if metric.name not in self._histograms:
            self._histograms[metric.name] = Histogram(
                metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self.registry
            )
        return self._histograms[metric.name]

    def ask(self, source: Callable[[], Iterable[Reading]]) -> None:
        """Have `source` say at each scrape what it counts itself. A metric has one source."""
        self.registry.register(_Source(source))

    def text(self) -> bytes:
        """The text that Prometheus reads (CONTENT_TYPE)."""
        return prometheus_client.generate_latest(self.registry)


class _Source(Collector):
    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Family]:
        return ()  # without it the registry would ask for readings when it is built

    def collect(self) -> Iterator[Family]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for metric, labels, reading in self._read():
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            if metric.name not in families:
                families[metric.name] = kind(metric.name, metric.help, labels=metric.labels)
            families[metric.name].add_metric(labels, reading)
        yield from families.values()
