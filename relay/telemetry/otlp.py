"""Speaks OTLP over HTTP with what OpenTelemetry ships: spans of ours become theirs, and are posted.

Knows no record and no queue; runs in a thread that may wait. Imported only where traces are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from relay.telemetry.spans import CALL, TOOL, Span, span_id, trace_id
from relay.telemetry.traces import Send

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS = {CALL: SpanKind.PRODUCER, TOOL: SpanKind.CLIENT, "dial": SpanKind.CLIENT, "twiml": SpanKind.SERVER}


@contextmanager
def open_otlp(url: str, version: str, send_seconds: float) -> Iterator[Send]:
    """What delivers a trace to `url`, `/v1/traces` of a collector and the like."""
    session = requests.Session()
    session.trust_env = False  # a proxy of the environment is nobody's setting here
    exporter = OTLPSpanExporter(endpoint=url, timeout=send_seconds, session=session)
    resource = Resource({"service.name": "relay", "service.version": version})
    scope = InstrumentationScope("relay", version)

    def send(call_id: str, spans: Sequence[Span]) -> bool:
        theirs = [_translated(call_id, span, resource, scope) for span in spans]
        return exporter.export(theirs) is SpanExportResult.SUCCESS

    with ExitStack() as stack:
        stack.callback(exporter.shutdown)  # wakes what pauses between two attempts
        yield send


def _translated(call_id: str, span: Span, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    def context(key: str) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(trace_id(call_id), span_id(call_id, key), is_remote=False, trace_flags=flags)

    return ReadableSpan(
        span.name,
        context=context(span.key),
        parent=None if span.parent is None else context(span.parent),
        resource=resource,
        attributes=span.attributes,
        events=[Event(each.name, each.attributes, _nanoseconds(each.at)) for each in span.moments],
        kind=_KINDS.get(span.name, SpanKind.INTERNAL),
        status=Status(StatusCode.ERROR, span.failure) if span.failure else Status(StatusCode.UNSET),
        start_time=_nanoseconds(span.began_at),
        end_time=_nanoseconds(span.ended_at),
        instrumentation_scope=scope,
    )


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
