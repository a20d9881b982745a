"""Nobody reads the log any more: lines are lost and counted, and a call does not notice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from relay.rehearsal import open_stage
from relay.telemetry import logs
from relay.telemetry.logs import QUEUE_LINES, open_logs
from tests.e2e.scenes import AGENTS, ending, scene


async def test_a_call_goes_on_although_nobody_reads_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.2)
    reader, writer = os.pipe()
    with (
        os.fdopen(writer, "w") as stream,  # noqa: ASYNC231 - a pipe of ours, opened at once
        open_logs("json", "info,web=debug", stream) as dropped,
    ):
        for _ in range(QUEUE_LINES + 1000):  # the pipe and the queue are full from now on
            structlog.get_logger().info("filling")
        lost_before = dropped()
        assert lost_before > 0
        async with open_stage(tmp_path, seed=1, synthesise=False, RELAY_AGENTS_DIR=str(AGENTS)) as stage:
            performance = await stage.play(scene("unread"))
        assert ending(performance) == ("nobody", "goodbye")
        assert performance.ledger.violations == []
        assert dropped() > lost_before + 5  # what the call and its requests had to say
    os.close(reader)
