"""The bench measures what it says: its frames, its arithmetic, and a short run through every process."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from bench import report
from bench.summary import Run, Summary, cpu, read_run
from bench.targets import Target, targets
from relay.bench import frames
from relay.bench.capacity import RELAY, bytes_per_call
from relay.bench.endurance import Churn, Interruptions, churn, interrupt
from relay.bench.rig import (
    Measurement,
    lag_percentile_ms,
    lags_between,
    percentile,
    read_lags,
    read_measurement,
    share_cores,
)

KEY = b"\x01\x02\x03\x04"

QUIET = Measurement(
    relay="relay",
    calls=100,
    cpu_us_per_frame=50.0,
    core_share=0.25,
    p50_ms=0.4,
    p95_ms=0.8,
    p99_ms=1.0,
    p999_ms=2.0,
    frames=5000,
    lost=0,
    hung_up=0,
    resident_bytes=100_000_000,
    agent_share=0.1,
    carriers_share=0.2,
    load_late_p99_ms=0.1,
)


# ---- frames ------------------------------------------------------------------------------------------


@given(text=st.binary(max_size=70_000), is_masked=st.booleans(), cut=st.integers(1, 500))
def test_frames_come_out_as_they_went_in_whatever_the_pieces(text: bytes, is_masked: bool, cut: int) -> None:
    def frame(content: bytes) -> bytes:
        return frames.client_frame(content, KEY) if is_masked else frames.server_frame(content)

    stream = frame(text) + frame(b"next")
    reader = frames.FrameReader()
    pieces = [stream[:cut], stream[cut : cut + 7], stream[cut + 7 :]]
    found = [each for piece in pieces for each in reader.feed(piece)]
    assert found == [(frames.TEXT, text), (frames.TEXT, b"next")]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frames_are_those_of_an_independent_implementation(size: int) -> None:
    text = b"a" * size
    assert frames.server_frame(text) == Frame(Opcode.TEXT, text).serialize(mask=False)
    masked = Frame(Opcode.TEXT, text).serialize(mask=True)
    assert frames.FrameReader().feed(masked) == [(frames.TEXT, text)]


def test_a_payload_says_when_it_was_sent_and_is_valid_base64_of_its_length() -> None:
    import base64

    callee, agent = frames.callee_payload(123_456_789, 42), frames.agent_payload(1, 2)
    assert frames.read_stamp(callee) == (123_456_789, 42)
    assert len(base64.b64decode(callee, validate=True)) == 160
    assert len(base64.b64decode(agent, validate=True)) == 300
    assert frames.read_stamp(frames.GREETING) is None


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_value_is_found_however_a_relay_lays_its_json_out(separators: tuple[str, str]) -> None:
    text = json.dumps({"event": "media", "media": {"payload": "AAAA"}}, separators=separators).encode()
    assert frames.value_of(b'"payload"', text) == b"AAAA"
    assert frames.value_of(b'"audio"', text) is None


def test_the_messages_are_json() -> None:
    media = json.loads(frames.media(b"MZ1", 7, frames.callee_payload(1, 7)))
    assert (media["event"], media["streamSid"], media["media"]["timestamp"]) == ("media", "MZ1", "140")
    assert json.loads(frames.mark(b"MZ1", b"reply.1"))["mark"] == {"name": "reply.1"}
    assert json.loads(frames.reply_audio(b"resp_1", b"AAAA"))["data"] == "AAAA"
    assert json.loads(frames.start("AC1", "CA1", "MZ1", {"token": "t"}))["start"]["customParameters"] == {
        "token": "t"
    }
    for message in (
        *frames.SESSION_READY,
        frames.SESSION_ENDED,
        frames.reply_started(b"r"),
        frames.reply_done(b"r"),
    ):
        json.loads(message)


# ---- arithmetic --------------------------------------------------------------------------------------


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    values = list(range(1, 1001))
    assert [percentile(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1000]
    assert percentile([7], 0.01) == 7
    assert math.isnan(percentile([], 0.5))


def test_figures_of_the_kernel_become_microseconds_per_frame() -> None:
    measured = read_measurement(
        "relay",
        100,
        {
            "seconds": 2.0,
            "cpu_seconds": {"relay": 0.5, "agent": 0.1, "carriers": 0.2},
            "sent": 10_000,
            "lost": 0,
            "hung_up": 0,
            "resident_bytes": 1,
            "ways_us": [1000] * 99 + [3000],
            "late_us": [10],
        },
    )
    assert (measured.cpu_us_per_frame, measured.core_share) == (50.0, 0.25)
    assert (measured.p50_ms, measured.p99_ms, measured.p999_ms) == (1.0, 1.0, 3.0)
    assert measured.is_carried


@pytest.mark.parametrize(
    "worse",
    [{"lost": 1}, {"hung_up": 1}, {"p99_ms": 5.0}, {"core_share": 0.95}],
    ids=lambda worse: next(iter(worse)),
)
def test_calls_that_are_lost_late_or_too_many_are_not_carried(worse: dict[str, float]) -> None:
    assert QUIET.is_carried
    assert not replace(QUIET, **worse).is_carried  # type: ignore[arg-type]


METRICS = b"""
relay_loop_lag_seconds_bucket{le="0.01"} 98.0
relay_loop_lag_seconds_bucket{le="0.02"} 100.0
relay_loop_lag_seconds_bucket{le="+Inf"} 100.0
relay_tool_run_seconds_bucket{le="0.01",tool="x"} 7.0
"""


def test_the_lag_of_the_loop_is_read_from_what_it_says_itself() -> None:
    lags = read_lags(METRICS)
    assert lags == ((0.01, 98), (0.02, 100), (math.inf, 100))
    assert lag_percentile_ms([lags], 0.99) == pytest.approx(15)
    assert lag_percentile_ms([lags, ((0.01, 100), (0.02, 100), (math.inf, 100))], 0.99) == pytest.approx(10)
    assert lag_percentile_ms([((0.01, 0), (math.inf, 3))], 0.99) == math.inf
    assert math.isnan(lag_percentile_ms([lags_between(lags, lags)], 0.99))


def test_the_relay_has_a_core_of_its_own_where_there_are_two() -> None:
    assert share_cores([0, 1, 2]).relay == {2}
    assert share_cores([0, 1, 2]).load == {0, 1}
    assert share_cores([3]).load == share_cores([3]).relay == {3}


def test_memory_of_a_call_is_what_one_more_takes() -> None:
    more = replace(QUIET, calls=200, resident_bytes=110_000_000)
    assert bytes_per_call([QUIET, more]) == 100_000
    assert bytes_per_call([QUIET]) is None


@pytest.fixture
def summary() -> Summary:
    def rounds() -> Iterator[Run]:
        for round_, (ours, theirs) in enumerate([(60, 40), (90, 45), (64, 40)]):
            yield Run("plain", round_, replace(QUIET, cpu_us_per_frame=ours))
            yield Run("plain", round_, replace(QUIET, relay="node", cpu_us_per_frame=theirs))

    full = Run("plain", 0, replace(QUIET, calls=400, core_share=1.0, lost=9))
    return Summary([*rounds(), full])


def test_a_ratio_is_taken_within_a_round_and_the_median_of_rounds(summary: Summary) -> None:
    ratio = summary.ratio("plain", "relay", "node", 100, cpu)
    assert ratio is not None
    assert (ratio.median, ratio.least, ratio.most) == (1.6, 1.5, 2.0)


def test_a_full_core_gives_no_ratio_and_counts_as_no_loss(summary: Summary) -> None:
    assert summary.ratio("plain", "relay", "node", 400, cpu) is None
    assert summary.capacity("plain", "relay") == 100
    assert summary.lost("relay") == 0


def test_the_findings_replace_what_stands_between_the_marks_and_nothing_else(
    summary: Summary, tmp_path: Path
) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Ours\n\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    machine = {"processor": "P", "cores": 2, "kernel": "6", "python": "3"}
    ratios = {"plain": {"node": {"calls": 100, "median": 1.6, "least": 1.5, "most": 2.0}}}
    found = {
        "date": "2026-01-01",
        "machine": machine,
        "versions": {},
        "missing": {},
        "failed": {},
        "ratios": ratios,
    }
    report.write(tmp_path, summary, found)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Ours\n\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    assert "**1.60**" in text
    assert "1.50–2.00" in text
    assert "| CPU per frame ÷ node, plain | ≤ 0.9 | **1.60 (1.50–2.00, 100 calls)** | ✗ |" in text
    assert "**not measured**" in text
    assert (tmp_path / "performance.svg").read_text(encoding="utf-8").startswith("<svg")
    assert json.loads((tmp_path / "performance.json").read_text(encoding="utf-8"))["ratios"] == ratios


# ---- the whole of it ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.needs_linux
@pytest.mark.parametrize("options", [[], ["--speech"], ["--tls"]], ids=["echo", "speech", "tls"])
def test_relay_bench_carries_a_few_calls_through_the_production_path_and_loses_nothing(
    options: list[str],
) -> None:
    command = [
        sys.executable,
        "-m",
        "relay",
        "bench",
        "--json",
        "--calls",
        "2",
        "4",
        "--seconds",
        "1",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)
    assert [step["calls"] for step in findings["steps"]] == [2, 4]
    assert findings["lost"] == 0
    assert all(step["frames"] > 40 and step["p50_ms"] > 0 for step in findings["steps"])


@pytest.mark.slow
@pytest.mark.needs_linux
def test_every_interruption_clears_the_phone_and_nothing_of_the_reply_follows() -> None:
    came = interrupt(RELAY, calls=5, times=60)
    assert came.clears == came.interruptions >= 60
    assert came.late_chunks == 0
    assert came.p50_ms > 0
    assert came.lags


@pytest.mark.slow
@pytest.mark.needs_linux
def test_calls_come_and_go_and_memory_is_read_in_between() -> None:
    came = churn(RELAY, (6, 10))
    assert [calls for calls, _ in came.resident_bytes] == [6, 10]
    assert all(size > 1_000_000 for _, size in came.resident_bytes)


# ---- the targets -------------------------------------------------------------------------------------


def test_each_target_is_met_missed_or_not_measured(summary: Summary) -> None:
    lags = ((0.01, 99), (0.025, 100), (math.inf, 100))
    cut = Interruptions(200, 10_000, 10_000, late_chunks=0, p50_ms=0.5, p99_ms=2.0, most_ms=9.0, lags=lags)
    left = Churn(((2_000, 100 << 20), (10_000, 101 << 20)))
    many = [Run("plain", 1, replace(QUIET, calls=400, cpu_us_per_frame=60.0, lags=lags))]
    found = {"ratios": {}, "interruptions": asdict(cut), "churn": asdict(left)}
    rows = {each.name: each for each in targets(Summary([*summary.runs[:6], *many]), found)}
    assert {name: each.is_met for name, each in rows.items()} == {
        "CPU per frame ÷ node, plain": None,
        "CPU per frame ÷ node, tls": None,
        "CPU per frame ÷ epoll, plain": None,
        "CPU per frame ÷ fastapi, plain": None,
        "p99 at 200 calls on one core": None,
        "CPU per frame at 400 ÷ at 100 calls": True,
        "memory of a live call": True,
        "memory after thousands of calls": True,
        "`clear` after an interruption, p99": True,
        "lag of the loop at full load, p99": True,
    }
    assert rows["memory after thousands of calls"].found.startswith("0.13 KiB a call")
    assert (
        rows["CPU per frame at 400 ÷ at 100 calls"].found == "0.94 (1 of 1 rounds left a fifth of the core)"
    )
    for worse in ({"late_chunks": 1}, {"clears": 9_999}, {"p99_ms": 10.1}):
        missed = targets(summary, {**found, "interruptions": asdict(replace(cut, **worse))})
        assert [each.is_met for each in missed if each.name.startswith("`clear`")] == [False]


def test_growth_is_told_by_the_rounds_that_left_a_fifth_of_the_core(summary: Summary) -> None:
    def found(*shares: float) -> Target:
        many = [
            Run("plain", round_, replace(QUIET, calls=400, cpu_us_per_frame=200 * share, core_share=share))
            for round_, share in enumerate(shares)
        ]
        rows = targets(Summary([*summary.runs[:6], *many]), {"ratios": {}})
        return next(each for each in rows if each.name.startswith("CPU per frame at 400"))

    assert found(0.2, 0.3, 0.9).found == "0.78 (2 of 3 rounds left a fifth of the core)"
    assert found(0.5, 0.9).is_met is False
    assert found(0.9, 0.9).is_met is None


def test_a_run_is_read_again_as_it_was_written() -> None:
    run = Run("plain", 2, replace(QUIET, lags=((0.001, 3), (math.inf, 4))))
    written = json.dumps({"profile": run.profile, "round": run.round, **asdict(run.measured)})
    assert read_run(json.loads(written)) == run
