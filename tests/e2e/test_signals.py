"""`relay serve` as a process of its own: signals in a live call, and a rig that shares nothing with us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import orjson
import pytest
import trio

from relay.rehearsal import ACCOUNT_SID, Performance, Stage, Unplayed, open_stage
from relay.service import LAST_WORD_SECONDS, WAITED_FOR_SECONDS
from relay.simulator.ledger import Entry, Ledger
from relay.store.sql import open_store
from tests.e2e.scenes import AGENTS, EXPLANATION, scene

TALK = {"turn": [{"say": "Yes?", "pause_seconds": 0.2}]}
AT_ONCE_SECONDS = 0.5  # from the signal to the first answer of readyz that counts
MONOLOGUE = {"commit_seconds": 0.3, "turn": [{"reply": EXPLANATION}]}


@asynccontextmanager
async def live_call(
    tmp_path: Path, **settings: str
) -> AsyncIterator[tuple[Stage, trio.Process, list[Performance]]]:
    """A served call in which the callee has been heard; the list is filled when the call is over."""
    heard = trio.Event()
    played: list[Performance] = []

    def watch(entry: Entry) -> None:
        if entry.event == "input.audio":
            heard.set()

    options = {"RELAY_AGENTS_DIR": str(AGENTS), **settings}
    async with open_stage(tmp_path, seed=1, synthesise=False, own_process=True, **options) as stage:
        assert stage.process is not None
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                with suppress(Unplayed):  # the service may be gone before the last look at the record
                    played.append(
                        await stage.play(scene("signals", callee=TALK, agent=MONOLOGUE), on_entry=watch)
                    )

            nursery.start_soon(play)
            await heard.wait()
            yield stage, stage.process, played
            nursery.cancel_scope.cancel()


def lines(tmp_path: Path) -> list[dict[str, object]]:
    """What the service logged."""
    return [orjson.loads(line) for line in (tmp_path / "relay.log").read_bytes().splitlines()]


@pytest.mark.slow
async def test_a_second_sigterm_during_a_call_ends_it_with_a_goodbye_and_the_process_with_0(
    tmp_path: Path,
) -> None:
    async with live_call(tmp_path, RELAY_DRAIN_SECONDS="600") as (stage, process, _):
        process.send_signal(signal.SIGTERM)
        while (await stage.http.get("/readyz")).status_code != 503:  # noqa: ASYNC110
            await trio.sleep(0.02)
        refused = await stage.http.post("/v1/calls", json={"to": "+12025550199"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert (await stage.http.get("/livez")).status_code == 200
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(20):
            assert await process.wait() == 0
    ended = [line for line in lines(tmp_path) if line["event"] == "call ended"]
    assert [(line["blame"], line["reason"]) for line in ended] == [("us", "drained")]


@pytest.mark.slow
async def test_a_third_signal_cuts_the_call_and_the_process_is_gone_within_seconds(tmp_path: Path) -> None:
    async with live_call(tmp_path, RELAY_DRAIN_SECONDS="600") as (_, process, _played):
        for stage in ("draining", "winding up", "cutting"):
            process.send_signal(signal.SIGINT)
            while stage not in [line["event"] for line in lines(tmp_path)]:  # noqa: ASYNC110
                await trio.sleep(0.02)
        with trio.fail_after(10):
            assert await process.wait() == 0
    ended = [line for line in lines(tmp_path) if line["event"] == "call ended"]
    assert [(line["blame"], line["reason"]) for line in ended] == [("us", "cut")]


@pytest.mark.slow
async def test_a_drain_lets_the_live_call_run_to_its_own_end(tmp_path: Path) -> None:
    async with open_stage(
        tmp_path,
        seed=1,
        synthesise=False,
        own_process=True,
        RELAY_AGENTS_DIR=str(AGENTS),
        RELAY_DRAIN_SECONDS="60",
    ) as stage:
        assert stage.process is not None
        process = stage.process

        def stop(entry: Entry) -> None:
            if entry.event == "start":
                process.send_signal(signal.SIGTERM)

        with suppress(Unplayed):  # the process may be gone before the last look at the record
            await stage.play(scene("drain"), on_entry=stop)
        with trio.fail_after(20):
            assert await process.wait() == 0
    ended = [line for line in lines(tmp_path) if line["event"] == "call ended"]
    assert [(line["blame"], line["reason"]) for line in ended] == [("nobody", "goodbye")]


@pytest.mark.slow
async def test_a_drain_cuts_no_call_in_any_phase_and_answers_all_that_is_asked_about_them(
    tmp_path: Path,
) -> None:
    told: list[tuple[float, int, int]] = []  # when; what readyz and livez said
    settings = {"RELAY_AGENTS_DIR": str(AGENTS), "RELAY_DRAIN_SECONDS": "60"}
    async with open_stage(tmp_path, seed=1, synthesise=False, own_process=True, **settings) as stage:
        assert stage.process is not None
        process = stage.process
        placed = {title: Ledger() for title in ("live", "opening", "ringing")}

        async def play(title: str, ring_seconds: float) -> None:
            call = scene(title, carrier={"ring_seconds": ring_seconds})
            with suppress(Unplayed):  # the process may be gone before the last look at the record
                await stage.play(call, on_entry=placed[title].entries.append)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, "live", 0.1)
            await _until(lambda: bool(placed["live"].select("agent", "received", "input.audio")))
            nursery.start_soon(play, "opening", 0.1)
            await _until(lambda: bool(placed["opening"].select("phone", "sent", "start")))
            nursery.start_soon(play, "ringing", 6.0)
            await _until(lambda: "ringing" in _statuses(placed["ringing"]))
            stopped_at = trio.current_time()
            process.send_signal(signal.SIGTERM)
            with suppress(httpx.TransportError):  # until nobody listens any more
                while True:
                    ready, live = await stage.http.get("/readyz"), await stage.http.get("/livez")
                    told.append((trio.current_time() - stopped_at, ready.status_code, live.status_code))
                    await trio.sleep(0.1)
            drained_seconds = trio.current_time() - stopped_at - LAST_WORD_SECONDS
            with trio.fail_after(20):
                assert await process.wait() == 0
    assert {(ready, live) for at, ready, live in told if at > AT_ONCE_SECONDS} == {(503, 200)}
    ended = [line for line in lines(tmp_path) if line["event"] == "call ended"]
    assert [(line["blame"], line["reason"]) for line in ended] == [("nobody", "goodbye")] * 3
    for title, ledger in placed.items():
        assert [entry for entry in ledger.entries if entry.event in ("violation", "notification")] == [], (
            title
        )
        assert _statuses(ledger)[-2:] == ["in-progress", "completed"], title
    waited = [line["some"] for line in lines(tmp_path) if line["event"] == "waiting for calls"]
    assert all(isinstance(some, list) and some for some in waited)
    assert len(waited) >= 2
    assert abs(len(waited) - drained_seconds / WAITED_FOR_SECONDS) <= 1


async def _until(is_true: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not is_true():  # noqa: ASYNC110 - a ledger is no event
            await trio.sleep(0.02)


def _statuses(ledger: Ledger) -> list[str]:
    """What the carrier has told of the call, and had acknowledged."""
    return [entry.fields["told"] for entry in ledger.entries if entry.event == "status-callback"]


@pytest.mark.slow
@pytest.mark.needs_outside_rig
def test_the_outside_rig_finds_nothing_to_object_to(tmp_path: Path) -> None:
    relay = tmp_path / "relay"
    root = Path(__file__).parents[2]
    relay.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -m relay "$@"\n')
    relay.chmod(0o755)
    done = subprocess.run(
        [sys.executable, os.environ["RELAY_OUTSIDE_RIG"], "--relay", str(relay)],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("bind", ["127.0.0.1:{taken}", "nowhere.invalid:80"])
def test_serve_says_why_it_cannot_listen_and_exits_with_2(bind: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve(tmp_path, RELAY_BIND=bind.format(taken=taken.getsockname()[1]))
    assert done.returncode == 2
    assert "RELAY_BIND: cannot listen there" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["sqlite:///relay.db", "sqlite:///../{folder}/relay.db"])
async def test_a_second_process_on_one_sqlite_file_says_what_to_do_and_exits_with_2(
    url: str, tmp_path: Path
) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'relay.db'}", b"of the tests"):
        url = url.format(folder=tmp_path.name)
        done = await trio.to_thread.run_sync(partial(serve, tmp_path, RELAY_DATABASE_URL=url))
    assert done.returncode == 2
    assert "relay.db is open in another process" in done.stderr
    assert "PostgreSQL" in done.stderr
    assert "Traceback" not in done.stderr


def serve(folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """A service that is not expected to live."""
    settings = {
        "PUBLIC_URL": "http://127.0.0.1:1",
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": "token",
        "TWILIO_FROM_NUMBER": "+12025550100",
        "ASSEMBLYAI_API_KEY": "key",
        "RELAY_BIND": "127.0.0.1:0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    return subprocess.run(
        [sys.executable, "-m", "relay", "serve"],
        env=settings | changes,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
