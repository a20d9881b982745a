"""A call as a trace: what it shows, that nobody waits for it, and that it is nothing where none is wanted."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from relay import service
from relay.outcomes import Blame, Ending, Reason
from relay.rehearsal import open_stage
from relay.settings import ConfigurationError
from relay.simulator.http import Request, Response, serve_http
from relay.store import CallRecord, Status
from relay.telemetry import traces as sender
from relay.telemetry.spans import PARTS, Span, span_id, spans_of, trace_id, traceparent
from relay.telemetry.traces import QUEUE_CALLS, Traces, open_traces
from tests.e2e.scenes import AGENTS, ending, scene
from tests.test_check import settings

GOODBYE = Ending(Blame.NOBODY, Reason.GOODBYE)
BEGAN = datetime(2026, 3, 10, 18, tzinfo=UTC)


def record(*told: tuple[float, str, dict[str, Any]], end: Ending = GOODBYE) -> CallRecord:
    """A call of 30 s with this timeline."""
    call = CallRecord("call_1", "+12025550143", "default", BEGAN, 600)
    for seconds, event, fields in told:
        call.note(BEGAN + timedelta(seconds=seconds), event, **fields)
    call.raise_status(Status.ENDED)
    call.ending, call.ended_at = end, BEGAN + timedelta(seconds=30)
    call.progress()
    return call


def named(spans: Sequence[Span], name: str) -> list[tuple[float, float]]:
    """When the spans of a name began and ended, in seconds."""
    return [
        ((span.began_at - BEGAN).total_seconds(), (span.ended_at - BEGAN).total_seconds())
        for span in spans
        if span.name == name
    ]


# ---- what a trace shows ------------------------------------------------------------------------------------


def test_each_part_of_a_call_begins_and_ends_with_a_line_of_its_timeline() -> None:
    call = record(
        (1, "dialing", {}),
        (2, "sid learnt", {}),
        (5, "answered", {}),
        (6, "document fetched", {"attempt": 0}),
        (7, "stream admitted", {}),
        (8, "session", {"session_id": "sess_1"}),
        (9, "opening started", {}),
        (12, "opening heard", {}),
        (20, "tool", {"tool": "end_call", "run": "run_1", "seconds": 0.5, "ok": True}),
        (20, "goodbye begun", {}),
        (24, "goodbye heard", {}),
        (25, "leaving", {}),
    )
    call.measure(BEGAN + timedelta(seconds=15), agent_seconds=0.9, relay_seconds=0.1, commit_seconds=None)
    spans = spans_of(call)
    whole = spans[0]
    assert (whole.name, whole.parent, named(spans, "call")) == ("call", None, [(0, 30)])
    assert named(spans, "dial") == [(1, 2)]
    assert named(spans, "ring") == [(2, 5)]
    assert named(spans, "twiml") == [(6, 7)]
    assert named(spans, "stream") == [(7, 25)]
    assert named(spans, "session") == [(7, 25)]
    assert named(spans, "opening") == [(9, 12)]
    assert named(spans, "turn") == [(14, 15)]
    assert named(spans, "tool") == [(19.5, 20)]
    assert named(spans, "farewell") == [(20, 24)]
    by_key = {span.key: span for span in spans}
    assert len(by_key) == len(spans)
    (session,) = [span for span in spans if span.name == "session"]
    assert session.attributes == {"session.id": "sess_1"}
    assert by_key[session.parent or ""].name == "stream"
    assert by_key["tool/run_1"].parent == session.key
    assert {span.parent for span in spans if span.name in ("dial", "twiml", "stream", "farewell")} == {"call"}
    assert [span for span in spans if span.failure] == []


def test_an_agent_that_is_lost_ends_its_session_and_begins_another() -> None:
    call = record(
        (1, "stream admitted", {}),
        (5, "agent lost", {"reason": "lost"}),
        (9, "leaving", {}),
        end=Ending(Blame.AGENT, Reason.LOST),
    )
    spans = spans_of(call)
    assert named(spans, "session") == [(1, 5), (5, 9)]
    assert [span.failure for span in spans if span.name == "session"] == ["agent lost", ""]
    assert spans[0].failure == "agent lost"


def test_a_call_that_was_never_answered_rings_to_its_end_and_did_not_fail() -> None:
    spans = spans_of(
        record((1, "dialing", {}), (2, "sid learnt", {}), end=Ending(Blame.CALLEE, Reason.NO_ANSWER))
    )
    assert named(spans, "ring") == [(2, 30)]
    assert [span.failure for span in spans if span.failure] == []


def test_what_takes_no_time_is_a_moment_of_the_call_and_numbers_are_in_none_of_it() -> None:
    spans = spans_of(
        record((3, "barge-in", {"by": "interrupted", "seconds": 0.1}), (4, "listed", {"of": ["x"]}))
    )
    moments = [(each.name, dict(each.attributes)) for each in spans[0].moments]
    assert moments == [("barge-in", {"by": "interrupted", "seconds": 0.1}), ("listed", {})]
    assert "2025550143" not in repr(spans)


def test_a_tools_service_is_told_of_the_very_span_that_the_trace_will_have() -> None:
    version, trace, span, flags = traceparent("call_1", "run_1").split("-")
    assert (version, flags) == ("00", "01")
    assert int(trace, 16) == trace_id("call_1")
    assert int(span, 16) == span_id("call_1", "tool/run_1")


def test_the_spans_told_are_those_that_are_made() -> None:
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)
    assert sorted(rows) == sorted([*PARTS, "call", "turn", "tool"])


# ---- nobody waits for it -----------------------------------------------------------------------------------


def test_nothing_is_loaded_where_nobody_wants_traces() -> None:
    program = (
        "import sys, relay.service, relay.cli; from relay.telemetry.traces import open_traces\n"
        "with open_traces(None, '1') as traces: pass\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_sender_that_is_stuck_costs_the_calls_nothing_but_their_traces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "FLUSH_SECONDS", 0.1)
    gate = threading.Event()
    traces = Traces(lambda _call_id, _spans: gate.wait(30))
    call = record()
    began = time.monotonic()
    for _ in range(QUEUE_CALLS + 10):
        traces.take(call)
    traces.close()
    assert time.monotonic() - began < 5
    assert 9 <= traces.count_lost() <= 10  # one is in the sender's hands
    gate.set()


def test_a_diary_that_cannot_be_read_costs_its_own_trace_alone() -> None:
    sent: list[str] = []

    def send(call_id: str, _spans: Sequence[Span]) -> bool:
        sent.append(call_id)
        return True

    traces = Traces(send)
    odd = record()
    odd.note(BEGAN, "tool", tool="of another version")
    for call in (odd, record()):
        traces.take(call)
    traces.close()
    assert (sent, traces.count_lost()) == (["call_1"], 1)


def test_a_trace_that_was_not_taken_is_counted() -> None:
    traces = Traces(lambda _call_id, _spans: False)
    traces.take(record())
    traces.close()
    assert traces.count_lost() == 1


@pytest.mark.needs_tracing
def test_a_collector_that_is_down_holds_the_end_of_the_service_up_no_longer_than_said() -> None:
    with open_traces("http://127.0.0.1:9/v1/traces", "1") as traces:
        traces.take(record())
        began = time.monotonic()
    assert time.monotonic() - began < sender.FLUSH_SECONDS + 2


async def test_traces_that_are_wanted_and_cannot_be_sent_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "relay.telemetry.otlp", raising=False)
    ours = settings(RELAY_TRACES_URL="http://127.0.0.1:9/v1/traces", RELAY_DATA_DIR=str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"RELAY_TRACES_URL: .*relay\[tracing\]"):
        await service.serve(ours)


# ---- over the wire -----------------------------------------------------------------------------------------


AGENT = """
purpose = "informational"
disclosure = "This is an automated call."
greeting = "Hello?"
system_prompt = "You are the assistant of {{business}}. Be brief."
tools = ["end_call"]

[[http_tools]]
name = "book_appointment"
description = "Book an appointment."
method = "POST"
url = "http://127.0.0.1:PORT/appointments"

[http_tools.parameters.day]
description = "the day"

[http_tools.parameters.time]
description = "the time"
"""


@asynccontextmanager
async def collecting(posted: list[Request]) -> AsyncIterator[int]:
    """A collector of traces, and the service of a tool; yields its port."""

    def answer(request: Request) -> Response:
        posted.append(request)
        return Response(200, "application/json", b"{}")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, partial(serve_http, answer=answer), listeners)
        yield int(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def exported(posted: list[Request]) -> list[Any]:
    """The spans that were posted, as the protocol has them."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    batches = [
        ExportTraceServiceRequest.FromString(each.body) for each in posted if each.path == "/v1/traces"
    ]
    resources = [resource for batch in batches for resource in batch.resource_spans]
    assert {pair.value.string_value for each in resources for pair in each.resource.attributes} >= {"relay"}
    return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


@pytest.mark.slow
@pytest.mark.needs_tracing
async def test_a_call_is_one_trace_at_the_collector_and_its_tools_service_has_its_place_in_it(
    tmp_path: Path,
) -> None:
    posted: list[Request] = []
    async with collecting(posted) as port:
        agents = tmp_path / "agents"
        agents.mkdir()
        (agents / "default.toml").write_text(AGENT.replace("PORT", str(port)), "utf-8")
        async with open_stage(
            tmp_path,
            seed=1,
            synthesise=False,
            RELAY_AGENTS_DIR=str(agents),
            RELAY_TOOL_HOSTS="127.0.0.1",
            RELAY_TOOL_NETWORKS="127.0.0.0/8",
            RELAY_TRACES_URL=f"http://127.0.0.1:{port}/v1/traces",
        ) as stage:
            performance = await stage.play(scene("traced"))
            assert ending(performance) == ("nobody", "goodbye")
            with trio.fail_after(10):
                while not exported(posted):  # noqa: ASYNC110
                    await trio.sleep(0.05)
    spans = exported(posted)
    (whole,) = [span for span in spans if not span.parent_span_id]
    assert {span.trace_id for span in spans} == {whole.trace_id}
    assert {"call", "dial", "twiml", "stream", "session", "turn", "tool", "farewell"} <= {
        span.name for span in spans
    }
    ids = {span.span_id for span in spans}
    assert len(ids) == len(spans)
    assert {span.parent_span_id for span in spans if span.parent_span_id} <= ids
    attributes = {pair.key: pair.value.string_value for pair in whole.attributes}
    assert attributes["call.id"] == performance.record["id"]
    assert attributes["ending.reason"] == "goodbye"
    (asked,) = [request for request in posted if request.path == "/appointments"]
    _, trace, parent, _ = asked.headers["traceparent"].split("-")
    assert trace == whole.trace_id.hex()
    assert parent in {span.span_id.hex() for span in spans if span.name == "tool"}
    assert b"2025550" not in b"".join(each.body for each in posted if each.path == "/v1/traces")


@pytest.mark.slow
@pytest.mark.needs_tracing
async def test_a_collector_that_is_down_costs_a_call_its_trace_and_nothing_else(tmp_path: Path) -> None:
    async with open_stage(
        tmp_path,
        seed=1,
        synthesise=False,
        RELAY_AGENTS_DIR=str(AGENTS),
        RELAY_TRACES_URL="http://127.0.0.1:9/v1/traces",
    ) as stage:
        for number in range(2):
            performance = await stage.play(scene(f"untraced {number}"))
            assert ending(performance) == ("nobody", "goodbye")
            assert performance.ledger.violations == []
        lost = re.compile(r"^relay_traces_lost_total ([1-9])", re.MULTILINE)
        with trio.fail_after(sender.SEND_SECONDS + 10):
            while not lost.search((await stage.http.get("/metrics")).text):  # noqa: ASYNC110
                await trio.sleep(0.1)
