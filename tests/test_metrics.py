"""What Prometheus reads is what happened: no more, no less, and about nobody in particular."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from relay.actions import TurnAnswered
from relay.meter import LOOP_SECONDS, Meter
from relay.outcomes import Blame, Ending, Reason, Refusal
from relay.store.sql import open_store
from relay.telemetry.metrics import CALLS_LIMIT, CATALOGUE, CONTENT_TYPE, Metrics, Reading
from relay.web.metrics import metrics_routes
from tests.test_switchboard import SID, Desk, open_desk
from tests.web.api import client_of


def read(metrics: Metrics) -> dict[str, float]:
    """Every series by its text, `name{label="value"}`."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


class Bridge:
    """A call that has counted this much."""

    def __init__(self) -> None:
        self.counts = {"frames_to_agent": 7, "frames_to_phone": 5, "early_frames": 3, "late_frames": 2}
        self.ending: Ending | None = None

    def end(self, ending: Ending) -> None:
        self.ending = ending


async def over(desk: Desk) -> None:
    with trio.fail_after(120):
        await desk.board.wait_idle()


# ---- calls -------------------------------------------------------------------------------------------------


async def test_a_call_is_counted_from_its_intent_to_its_ending(autojump_clock: trio.abc.Clock) -> None:
    async with open_desk() as desk:
        desk.meter.watch_calls(desk.board, 10, desk.spool)
        before = read(desk.metrics)
        assert before["relay_calls_started_total"] == before["relay_calls_answered_total"] == 0
        assert before["relay_first_audio_seconds_count"] == 0
        line = await desk.placed()
        assert read(desk.metrics)['relay_calls{status="dialing"}'] == 1
        line.answered()
        line.answered()
        line.end(Ending(Blame.CALLEE, Reason.HUNG_UP))
        await over(desk)
        after = read(desk.metrics)
        assert after["relay_calls_started_total"] == after["relay_calls_answered_total"] == 1
        assert after["relay_dial_attempts_total"] == 1
        assert after['relay_dials_total{outcome="placed"}'] == 1
        assert after['relay_calls_ended_total{blame="callee",reason="hung-up"}'] == 1
        ended = {name: value for name, value in after.items() if name.startswith("relay_calls_ended_total")}
        assert sum(ended.values()) == 1
        assert sum(value for name, value in after.items() if name.startswith("relay_calls{")) == 0


async def test_a_call_that_another_node_has_by_now_has_not_ended_here(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        line.give_way()
        await over(desk)
        ended = {name: value for name, value in read(desk.metrics).items() if "calls_ended_total" in name}
        assert set(ended.values()) == {0}


async def test_a_call_that_is_not_begun_is_counted_by_its_code(autojump_clock: trio.abc.Clock) -> None:
    async with open_desk(max_calls=1) as desk:
        desk.meter.watch_calls(desk.board, 1, desk.spool)
        assert read(desk.metrics)["relay_ready"] == 1
        line = await desk.placed()
        assert read(desk.metrics)["relay_ready"] == 0
        with pytest.raises(AssertionError, match="full"):
            await desk.place()
        assert read(desk.metrics)['relay_admissions_refused_total{code="full"}'] == 1
        line.end(Ending(Blame.US, Reason.OPERATOR))
        await over(desk)


async def test_frames_are_asked_of_live_calls_and_never_become_fewer(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_desk() as desk:
        desk.meter.watch_calls(desk.board, 10, desk.spool)
        line = await desk.placed()
        line.call = Bridge()  # type: ignore[assignment]
        expected = {
            'relay_frames_total{direction="to_agent"}': 7,
            'relay_frames_total{direction="to_phone"}': 5,
            'relay_frames_withheld_total{why="early"}': 3,
            'relay_frames_withheld_total{why="late"}': 2,
        }
        for _ in range(2):
            assert expected.items() <= read(desk.metrics).items()
        line.end(Ending(Blame.US, Reason.OPERATOR))
        await over(desk)
        assert expected.items() <= read(desk.metrics).items()


async def test_what_the_timeline_says_is_counted(autojump_clock: trio.abc.Clock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        line.answered()
        await trio.sleep(1.2)
        line.noted("opening started", {"queued_seconds": 0.25})
        line.turn_answered(TurnAnswered(0.6, commit_seconds=1.9, queued_seconds=0.1), 0.0002)
        line.noted("barge-in", {"by": "interrupted", "seconds": 0.4})
        line.noted("tool", {"tool": "made-up-by-the-agent", "seconds": 0.03, "ok": False})
        line.noted("stream admitted", {"signed_form": "wss"})
        line.opted_out("key")
        line.forbid(Refusal("quiet-hours", "not now"))
        line.noted("not permitted", {"code": "quiet-hours"})
        await over(desk)
        after = read(desk.metrics)
        assert after["relay_first_audio_seconds_sum"] == pytest.approx(1.45)
        assert after['relay_first_audio_seconds_bucket{le="1.0"}'] == 0
        assert after['relay_first_audio_seconds_bucket{le="1.5"}'] == 1
        assert after["relay_turn_wait_seconds_sum"] == 2.6
        assert after["relay_turn_agent_seconds_sum"] == 0.6
        assert after["relay_turn_relay_seconds_sum"] == 0.0002
        assert after['relay_barge_ins_total{by="interrupted"}'] == 1
        assert after["relay_time_to_silence_seconds_sum"] == 0.4
        assert after['relay_tool_runs_total{outcome="error",tool="unknown"}'] == 1
        assert after['relay_tool_run_seconds_count{tool="unknown"}'] == 1
        assert after["relay_streams_admitted_total"] == 1
        assert after['relay_opt_outs_total{how="key"}'] == 1
        assert after['relay_gate_refusals_total{rule="quiet-hours"}'] == 1


# ---- the rest of the node ----------------------------------------------------------------------------------


async def test_the_ledger_and_the_spool_are_watched(tmp_path: Path) -> None:
    metrics = Metrics()
    async with open_store(
        f"sqlite:///{tmp_path / 'relay.db'}", b"of the tests", Meter(metrics).operated
    ) as store:
        await store.get("call_0")
        assert read(metrics)['relay_store_operation_seconds_count{outcome="ok"}'] == 1
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.get("call_0")
    assert read(metrics)['relay_store_operation_seconds_count{outcome="failed"}'] == 1


async def test_findings_of_the_reconciler_are_counted_with_the_calls_that_they_end() -> None:
    metrics = Metrics()
    meter = Meter(metrics)
    meter.found("settled", Ending(Blame.US, Reason.CUT))
    meter.found("lost")
    after = read(metrics)
    assert after['relay_reconciler_findings_total{finding="settled"}'] == 1
    assert after['relay_reconciler_findings_total{finding="lost"}'] == 1
    assert after['relay_reconciler_findings_total{finding="waiting"}'] == 0
    assert after['relay_calls_ended_total{blame="us",reason="cut"}'] == 1


async def test_a_loop_that_is_held_up_shows(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    metrics = Metrics()
    nursery.start_soon(Meter(metrics).watch_loop)
    await trio.testing.wait_all_tasks_blocked()
    autojump_clock.jump(LOOP_SECONDS + 0.3)
    await trio.sleep(0.01)
    after = read(metrics)
    assert after["relay_loop_lag_seconds_sum"] == pytest.approx(0.3)
    assert after['relay_loop_lag_seconds_bucket{le="0.25"}'] == 0
    nursery.cancel_scope.cancel()


# ---- the answer --------------------------------------------------------------------------------------------


async def test_whoever_comes_through_a_proxy_is_told_nothing() -> None:
    client = client_of(metrics_routes(Metrics()))
    for name in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via"):
        assert (await client.get("/metrics", headers={name: "192.0.2.1"})).status_code == 404
    answer = await client.get("/metrics")
    assert (answer.status_code, answer.content_type) == (200, CONTENT_TYPE)


async def test_a_scrape_does_not_hold_up_the_loop() -> None:
    metrics, has_begun, may_end = Metrics(), threading.Event(), threading.Event()

    def read_slowly() -> Iterator[Reading]:
        has_begun.set()
        yield CALLS_LIMIT, (), may_end.wait(5)

    metrics.ask(read_slowly)
    client, answers = client_of(metrics_routes(metrics)), []

    async def scrape() -> None:
        answers.append(await client.get("/metrics"))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scrape)
            while not has_begun.is_set():  # noqa: ASYNC110 - a thread's event
                await trio.sleep(0.001)
            may_end.set()
    assert b"relay_calls_limit 1.0" in await answers[0].get_data()


async def test_every_answer_is_counted_by_its_route_and_never_by_its_path() -> None:
    metrics = Metrics()
    client = client_of(metrics_routes(metrics))
    for path in ("/metrics", "/call_0123/+12025550143", "/other"):
        await client.get(path)
    after = read(metrics)
    assert after['relay_http_requests_total{route="/metrics",status="200"}'] == 1
    assert after['relay_http_requests_total{route="unmatched",status="404"}'] == 2
    assert after['relay_http_request_seconds_count{route="unmatched"}'] == 2
    assert "call_" not in metrics.text().decode()


async def test_no_series_is_about_anybody(autojump_clock: trio.abc.Clock) -> None:
    async with open_desk() as desk:
        desk.meter.watch_calls(desk.board, 10, desk.spool)
        line = await desk.placed(to="+12025550143")
        line.end(Ending(Blame.CALLEE, Reason.HUNG_UP, "of +12025550143"))
        await over(desk)
        text = desk.metrics.text().decode()
    for told in ("2025550143", line.record.id, SID):
        assert told not in text


# ---- the catalogue -----------------------------------------------------------------------------------------


def test_names_follow_the_conventions_of_prometheus() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names))
    for metric in CATALOGUE:
        assert re.fullmatch(r"relay(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") is (metric.kind == "counter")
        assert metric.name.endswith("_seconds") is (metric.kind == "histogram")
        assert bool(metric.buckets) is (metric.kind == "histogram")
        assert metric.help.endswith(".")


async def test_a_request_is_a_line_without_its_path_at_debug() -> None:
    client = client_of(metrics_routes(Metrics()))
    with capture_logs() as lines:
        await client.get(
            "/subjects/+12025550143?token=Sw0rdfish", headers={"Authorization": "Bearer Sw0rdfish"}
        )
        await client.get("/metrics?x=Sw0rdfish")
    assert [(line["log_level"], line["event"], line["route"], line["status"]) for line in lines] == [
        ("debug", "request", "unmatched", 404),
        ("debug", "request", "/metrics", 200),
    ]
    assert "Sw0rdfish" not in str(lines)
    assert "2025550143" not in str(lines)


@pytest.mark.needs_promtool
def test_promtool_finds_nothing_to_object_to_in_any_name_or_help() -> None:
    metrics = Metrics()
    gauges = [metric for metric in CATALOGUE if metric.kind == "gauge"]
    for metric in CATALOGUE:
        if metric.kind != "gauge":
            metrics.begin(metric, *metric.labels)
    metrics.ask(lambda: [(metric, metric.labels, 1) for metric in gauges])
    assert {metric.name for metric in CATALOGUE} <= {name.partition("{")[0] for name in texts(metrics)}
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.text(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def texts(metrics: Metrics) -> set[str]:
    """What each series is called, a histogram by its own name."""
    return {re.sub("_(bucket|count|sum)(?={|$)", "", name) for name in read(metrics)}
