"""The simulation finds nothing in the relay, all that is planted, and the same again for the same seed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

import relay.call
from relay.chaos.campaign import Findings, run_campaign
from relay.chaos.links import Weather
from relay.chaos.plan import (
    AGENT_FAULTS,
    CARRIER_FAULTS,
    FAULTS,
    NODE_FAULTS,
    PHONE_FAULTS,
    TURNS,
    CallPlan,
    Fault,
    Plan,
    draw,
)
from relay.chaos.run import run_plan, run_seed
from relay.chaos.shrink import shrink
from relay.chaos.world import run_world
from relay.cli import app
from relay.dialogue import Dialogue
from relay.legs import Leg
from relay.outcomes import Blame, Reason
from relay.standing import Stage
from relay.store import Spool

SEED = 20_000
CAMPAIGN_CALLS = 300
BUG_SEEDS = 60  # a planted bug must show within so many
SHRINK_TRIES = 60
LEFT_IN_PEACE = Weather(latency_seconds=0.02)


# ---- nothing is found --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(400)  # a minute on two cores of their own
def test_a_campaign_breaks_no_promise_and_is_not_quiet() -> None:
    findings = run_campaign(SEED, CAMPAIGN_CALLS)
    assert findings.violations == [], findings.failed
    assert findings.calls == CAMPAIGN_CALLS
    assert findings.repeated == 8
    assert findings.calls_per_core_hour > 0


faults = st.one_of(
    [
        st.builds(
            Fault,
            target=st.just(target),
            kind=st.sampled_from(kinds),
            at=st.floats(0, 9),
            call=st.integers(0, 1),
            seconds=st.floats(0, 8),
            moment=st.sampled_from(["time", "parting"]),
            step=st.integers(1, 3000),
        )
        for target, kinds in FAULTS.items()
    ]
)
call_plans = st.builds(
    CallPlan,
    begins_at=st.floats(0, 1),
    turns=st.lists(st.sampled_from(TURNS), max_size=2, unique=True).map(tuple),
    finish=st.sampled_from(["goodbye", "hang-up", "key", "operator"]),
    finish_at=st.floats(0, 9),
    opening_seconds=st.floats(0.4, 2.0),  # longer than a way there and back, as everything that is said
    phone=st.builds(
        Weather, latency_seconds=st.floats(0.001, 0.1), jitter_seconds=st.sampled_from([0.0, 0.05])
    ),
)
plans = st.builds(
    Plan,
    seed=st.integers(0, 2**32),
    calls=st.tuples(call_plans, call_plans),
    faults=st.lists(faults, max_size=4).map(tuple),
)


NEVER_STARTED = Fault("phone", "black-hole", 0.0)  # found by this test: who streams is not known yet

STREAM_FAILED = Fault("carrier", "stream-error", 0.0)  # likewise: before there is a stream

SLOW_FOR_BOTH = (Fault("carrier", "rest-slow", seconds=4.9), Fault("phone", "fin", call=1))  # by a campaign


@pytest.mark.slow
@settings(max_examples=60)
@given(plan=plans)
@example(plan=Plan(0, (CallPlan(), CallPlan()), (NEVER_STARTED,)))
@example(plan=Plan(0, (CallPlan(), CallPlan()), (STREAM_FAILED,)))
@example(plan=Plan(0, (CallPlan(), CallPlan()), SLOW_FOR_BOTH))
def test_no_schedule_that_hypothesis_draws_breaks_a_promise(plan: Plan) -> None:
    assert run_plan(plan).violations == ()


@pytest.mark.parametrize(
    ("finish", "ending"),
    [
        ("goodbye", (Blame.NOBODY, Reason.GOODBYE)),
        ("hang-up", (Blame.CALLEE, Reason.HUNG_UP)),
        ("key", (Blame.CALLEE, Reason.OPTED_OUT)),
        ("words", (Blame.CALLEE, Reason.OPTED_OUT)),
        ("tool-opt-out", (Blame.CALLEE, Reason.OPTED_OUT)),
        ("operator", (Blame.US, Reason.OPERATOR)),
        ("operator-goodbye", (Blame.US, Reason.OPERATOR)),
    ],
)
def test_a_call_left_in_peace_ends_as_its_far_ends_mean_it(finish: str, ending: tuple[Blame, Reason]) -> None:
    call = CallPlan(finish=finish, turns=("reply", "tool", "interrupted"), finish_at=7.0)
    world, _ = run_world(Plan(1, (call,)))
    (story,) = world.stories
    assert story.record is not None
    assert story.record.ending is not None
    assert (story.record.ending.blame, story.record.ending.reason) == ending
    assert story.finals == story.orders == 1
    assert world.trace.violations == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "kind"),
    [
        *(("phone", kind) for kind in sorted(set(PHONE_FAULTS))),
        *(("agent", kind) for kind in sorted(set(AGENT_FAULTS))),
        *(("carrier", kind) for kind in CARRIER_FAULTS),
        *(("node", kind) for kind in NODE_FAULTS),
    ],
)
def test_each_fault_strikes_and_is_lived_through(target: Any, kind: str) -> None:
    """Beside a call that is struck goes one that is not, and that one says goodbye."""
    call = CallPlan(turns=("reply",), finish="goodbye", phone=LEFT_IN_PEACE, agent=LEFT_IN_PEACE)
    for moment in ("time", "parting"):
        fault = Fault(target, kind, 3.0 if moment == "time" else 0.05, seconds=2.0, moment=moment, step=500)
        plan = Plan(7, (call, call), (fault,))
        run = run_plan(plan)
        assert run.violations == ()
        if moment == "time":
            assert run.counts["faults"] == 1
        if target in ("phone", "agent"):
            world, _ = run_world(plan)
            record = world.stories[1].record
            assert record is not None
            assert record.ending is not None
            assert record.ending.reason is Reason.GOODBYE


# ---- every await point -------------------------------------------------------------------------------------


def await_points(plan: Plan) -> dict[tuple[str, ...], int]:
    """The first step at which a task of a call stands at each of its await points."""
    found: dict[tuple[str, ...], int] = {}

    def note(step: int, task: trio.lowlevel.Task) -> None:
        frames: list[str] = []
        awaited: Any = task.coro
        while (frame := getattr(awaited, "cr_frame", None)) is not None:
            frames.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
            awaited = awaited.cr_await
        found.setdefault((task.name.partition("_")[0], *frames), step)

    run_world(plan, on_step=note)
    return found


COURSES = {
    "a tool, an interruption and a goodbye": Plan(
        3, (CallPlan(turns=("tool", "interrupted"), finish="goodbye"),)
    ),
    "an agent that is lost and comes back": Plan(
        3, (CallPlan(resumes=True, turns=("reply", "slow-tool")),), (Fault("agent", "reset", 4.0),)
    ),
    "an agent that never comes": Plan(3, (CallPlan(opening="refuse:503"),)),
    "an opt-out by key": Plan(3, (CallPlan(finish="key", finish_at=4.0),)),
    "an operator's goodbye": Plan(3, (CallPlan(finish="operator-goodbye", finish_at=4.0),)),
    "an order whose answer is lost": Plan(3, (CallPlan(create="ambiguous", outcome="busy"),)),
    "a hang-up that fails": Plan(3, (CallPlan(),), (Fault("carrier", "rest-down", 4.0, seconds=6.0),)),
    "a ledger that is down": Plan(3, (CallPlan(),), (Fault("node", "ledger-down", 4.0, seconds=6.0),)),
    "a telephone that is gone": Plan(3, (CallPlan(),), (Fault("phone", "reset", 4.0),)),
}


@pytest.mark.slow
@pytest.mark.timeout(400)  # half a minute on a core of its own
def test_a_cancellation_at_each_await_point_in_turn_leaves_a_record_and_nothing_open() -> None:
    tried: set[tuple[str, ...]] = set()
    for course, plan in COURSES.items():
        for point, step in await_points(plan).items():
            if point not in tried:
                tried.add(point)
                cancel = Fault("node", "cancel", step=step)
                run = run_plan(Plan(plan.seed, plan.calls, (*plan.faults, cancel)))
                assert run.violations == (), (course, point)
    assert len(tried) > 80


# ---- what is planted is found ------------------------------------------------------------------------------


def plant_no_watchdogs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_leg: Leg) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(relay.call, "MEDIA_SILENCE_SECONDS", float("inf"))
    monkeypatch.setattr(Leg, "beat", never)


def plant_deaf_ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of an interrupted reply is played on."""
    monkeypatch.setattr("relay.replies.Replies.cut", lambda _replies, _reply_id: True)


def plant_open_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async def abort(_leg: Leg) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Leg, "abort", abort)


def plant_early_ear(monkeypatch: pytest.MonkeyPatch) -> None:
    """The callee is forwarded though the opening was not heard."""
    session_ready = Dialogue._session_ready

    def open_at_once(dialogue: Dialogue, message: Any, now: float) -> Any:
        actions = session_ready(dialogue, message, now)
        dialogue._at.stage = Stage.OPEN
        return actions

    monkeypatch.setattr(Dialogue, "_session_ready", open_at_once)


def plant_lost_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that finds the ledger down is not spooled."""
    monkeypatch.setattr(Spool, "_put", lambda _spool, _kind, _content: None)


def plant_unread_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.wire.phone.clear", lambda stream_sid: 1 / 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plant",
    [plant_deaf_ears, plant_open_stream, plant_early_ear, plant_unread_bug],
)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(run_seed(SEED + offset).violations for offset in range(BUG_SEEDS))


def test_a_record_that_is_lost_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(5, (CallPlan(),), (Fault("node", "ledger-down", 6.0, seconds=8.0),))
    assert run_plan(plan).violations == ()
    plant_lost_record(monkeypatch)
    assert "call 0: has 0 final records" in run_plan(plan).violations


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_without_watchdogs_a_dead_telephone_is_found_and_shrunk_to_one_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant_no_watchdogs(monkeypatch)
    drawn = (draw(SEED + offset) for offset in range(BUG_SEEDS))
    failing = next(plan for plan in drawn if run_plan(plan).violations)
    small = shrink(failing, lambda plan: bool(run_plan(plan).violations), tries=SHRINK_TRIES)
    assert len(small.faults) == 1
    assert len(small.calls) == 1
    assert small.faults[0].target == "phone"
    assert run_plan(small).violations
    monkeypatch.undo()
    assert run_plan(small).violations == ()


def test_shrinking_keeps_what_fails_and_drops_the_rest() -> None:
    plan = draw(next(seed for seed in range(100) if len(draw(seed).faults) > 3))
    wanted = plan.faults[1]

    def fails(smaller: Plan) -> bool:
        return any(fault.kind == wanted.kind and fault.target == wanted.target for fault in smaller.faults)

    small = shrink(plan, fails, tries=1000)
    assert [fault.kind for fault in small.faults] == [wanted.kind]
    assert len(small.calls) == 1
    assert small.calls[0].phone == small.calls[0].agent == Weather()
    assert small.faults[0].at == 0.0


def test_a_quiet_campaign_is_a_failure() -> None:
    findings = Findings(calls=400, answered=100, plans=100, counts={"faults": 10, "frames to phones": 10})  # type: ignore[arg-type]
    findings.counts = type(Findings().counts)(findings.counts)
    assert [sentence.partition(":")[0] for sentence in findings.quiet()] == ["too quiet"] * 3


# ---- the same again ----------------------------------------------------------------------------------------

TWICE = "from relay.chaos.run import run_seed; print([run_seed(seed).digest for seed in (3, 8, 21, 3)])"


@pytest.mark.slow
def test_one_seed_is_one_run_in_every_process() -> None:
    runs = {
        subprocess.run(
            [sys.executable, "-c", TWICE],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "77")
    }
    assert len(runs) == 1
    digests = json.loads(runs.pop().replace("'", '"'))
    assert digests[0] == digests[3]
    assert len(set(digests)) == 3


def test_chance_is_what_it_was_once_the_simulation_is_over() -> None:
    import os
    import secrets

    before = secrets.token_bytes, os.urandom, trio.to_thread.run_sync
    run_world(Plan(1, (CallPlan(outcome="busy"),)))
    assert (secrets.token_bytes, os.urandom, trio.to_thread.run_sync) == before


# ---- the command -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_reports_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["chaos", "--seed", "5", "--calls", "8", "--json"], result_action="return_value") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seed"], told["calls"], told["violations"], told["failed"]) == (5, 8, [], None)
    assert told["calls_per_core_hour"] > 0


class InThisProcess(ThreadPoolExecutor):
    """Runs at once what it is given: what is planted here is planted there."""

    def __init__(self, _workers: int | None, **_options: Any) -> None:
        super().__init__(1)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@pytest.mark.slow
def test_the_first_violation_of_a_campaign_is_shrunk_and_printed_with_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("relay.chaos.campaign.ProcessPoolExecutor", InThisProcess)
    plant_open_stream(monkeypatch)
    assert app(["chaos", "--seed", str(SEED), "--calls", "40"], result_action="return_value") == 1
    told = capsys.readouterr().out
    seed, schedule = re.findall(r"^seed (\d+); its schedule.*\n(.*)$", told, flags=re.MULTILINE)[0]
    assert SEED <= int(seed) < SEED + 10
    small = msgspec.json.decode(schedule, type=Plan)
    assert small.seed == int(seed)
    assert len(small.calls) == 1
    assert run_plan(small).violations
    assert f"broken  {run_plan(small).violations[0]}" in told


def test_a_schedule_that_was_printed_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "schedule.json"
    file.write_bytes(msgspec.json.encode(Plan(5, (CallPlan(),))))
    words = ["chaos", "--schedule", str(file)]
    assert app(words, result_action="return_value") == 0
    plant_open_stream(monkeypatch)
    assert app(words, result_action="return_value") == 1
    told = capsys.readouterr().out
    assert "streams are open" in told
    assert msgspec.json.encode(Plan(5, (CallPlan(),))).decode() in told
    file.write_text("{}")
    assert app(words, result_action="return_value") == 2
