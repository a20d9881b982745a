"""Short scenarios for the end-to-end tests, and the stage that they are played on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from relay.rehearsal import Performance, Stage, open_stage
from relay.simulator.scenario import Scenario

AGENTS = Path(__file__).parent / "agents"

EXPLANATION = (
    "Your appointment is on Monday at three in the afternoon. Please bring your insurance card with you."
)


def scene(title: str, **changes: Any) -> Scenario:
    """A call of one question, one tool and a goodbye, with some of its tables replaced."""
    tables: dict[str, Any] = {
        "title": title,
        "carrier": {"ring_seconds": 0.1},
        "callee": {
            "turn": [{"say": "Yes?", "pause_seconds": 0.2}, {"say": "Thank you.", "pause_seconds": 0.2}]
        },
        "agent": {
            "commit_seconds": 0.3,
            "turn": [
                {
                    "tool": {"name": "book_appointment", "arguments": {"day": title, "time": "3"}},
                    "reply": "It is done.",
                },
                {"tool": {"name": "end_call"}, "reply": "Goodbye now."},
            ],
        },
    }
    return Scenario.model_validate(tables | changes)


def broken(leg: str, at: str, kind: str, **changes: Any) -> Scenario:
    """The same call, with one thing that goes wrong."""
    return scene(f"{leg} {kind} {at}", fault=[{"leg": leg, "at": at, "kind": kind}], **changes)


def gone(at: str, kind: str) -> Scenario:
    """The same call, whose agent goes and never comes back."""
    faults: list[dict[str, Any]] = [{"leg": "agent", "at": at, "kind": kind}]
    faults += [{"leg": "agent", "at": "before-ready", "kind": "close:1013", "times": 10}]
    call = scene(f"agent {kind} {at}", fault=faults if at != "before-ready" else [{**faults[0], "times": 10}])
    return call.model_copy(update={"agent": call.agent.model_copy(update={"resumes": False})})


@asynccontextmanager
async def quiet_stage(data_dir: Path, **settings: Any) -> AsyncIterator[Stage]:
    """A stage whose agent is brief and whose speech never varies.

    An error in its log fails the test, and so does a call with two final records.
    """
    with capture_logs([merge_contextvars]) as lines:
        async with open_stage(
            data_dir, seed=1, synthesise=False, **{"RELAY_AGENTS_DIR": str(AGENTS), **settings}
        ) as stage:
            yield stage
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []
    ended = [line["call_id"] for line in lines if line["event"] == "call ended"]
    assert len(ended) == len(set(ended))


def ending(performance: Performance) -> tuple[str, str]:
    """Blame and reason of the record."""
    found = performance.record["ending"]
    return found["blame"], found["reason"]
