"""When a call is recorded: not at all, once the disclosure was heard, or from the answer on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock

from relay.carrier import Unavailable
from relay.line import Line
from relay.outcomes import Blame, Ending, Reason
from relay.recordings import Recordings, open_recordings
from relay.store import CallRecord
from tests.store.conftest import a_call
from tests.test_switchboard import PROFILE, SID, STREAM, Desk, open_desk

REFERENCE = "RE" + "0" * 32


@pytest.fixture
async def recordings(tmp_path: Path) -> AsyncIterator[Recordings]:
    async with open_recordings(tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def instant_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that jumps hours would pass while one waits for a thread."""

    async def run_sync(work: Callable[..., Any], *given: Any, **_options: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*given)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


async def talk(desk: Desk, **request: object) -> tuple[Line, CallRecord]:
    """A call whose opening is heard, and in which the callee hangs up."""
    line = await desk.placed(**request)
    phone = await desk.streams_in(line)
    assert desk.carrier.recorded == []  # nobody has heard anything yet
    await desk.opens(phone)
    await trio.sleep(1)
    await phone.say(event="stop", streamSid=STREAM, stop={})
    return line, await desk.ended(line, Blame.CALLEE, Reason.HUNG_UP)


def noted(record: CallRecord, event: str) -> list[dict[str, object]]:
    return [{**each, "at": None} for each in record.events if each["event"] == event]


def profile(recording: Literal["off", "disclosed", "call"]) -> dict[str, object]:
    return {"profile": PROFILE.model_copy(update={"recording": recording})}


async def test_a_call_is_not_recorded_unless_somebody_says_so(
    autojump_clock: MockClock, recordings: Recordings, tmp_path: Path
) -> None:
    async with open_desk(recordings=recordings) as desk:
        line, record = await talk(desk)
    assert (line.order.record, desk.carrier.recorded) == (False, [])
    assert os.listdir(tmp_path) == []
    assert [event for event in record.events if "record" in event["event"]] == []


async def test_after_the_disclosure_both_begin_to_record(
    autojump_clock: MockClock, recordings: Recordings, tmp_path: Path
) -> None:
    async with open_desk(recordings=recordings, **profile("disclosed")) as desk:
        line, record = await talk(desk)
    assert not line.order.record
    assert desk.carrier.recorded == [(SID, f"https://relay.test/twilio/recording?call={record.id}")]
    assert noted(record, "recording started") == [
        {"at": None, "event": "recording started", "recording_sid": REFERENCE}
    ]
    order = [event["event"] for event in record.events]
    assert order.index("opening heard") < order.index("recording started")
    (own,) = noted(record, "recorded")
    assert own["file"] == f"{record.id}.0.wav"
    recorded_seconds = next(c for c in record.as_json()["costs"] if c["item"] == "twilio-recording")[
        "seconds"
    ]
    assert 0 < recorded_seconds < record.duration_seconds


@pytest.mark.parametrize("asked", ["by the profile", "by the request"])
async def test_a_recording_with_the_call_is_ordered_with_it(
    asked: str, autojump_clock: MockClock, recordings: Recordings
) -> None:
    settings = profile("call") if asked == "by the profile" else {}
    async with open_desk(recordings=recordings, **settings) as desk:
        line, record = await talk(desk, record=asked == "by the request")
    assert line.order.record
    assert record.record
    assert desk.carrier.recorded == []  # Twilio was told with the order
    assert len(noted(record, "recorded")) == 1


async def test_a_carrier_that_does_not_record_costs_the_recording_and_not_the_call(
    autojump_clock: MockClock,
) -> None:
    async with open_desk(**profile("disclosed")) as desk:
        desk.carrier.record_answer = Unavailable(21220, 400, "Not in progress.")
        _, record = await talk(desk)
    assert noted(record, "not recorded") == [{"at": None, "event": "not recorded", "code": 21220}]


async def test_a_call_that_ends_before_the_disclosure_is_not_recorded(
    autojump_clock: MockClock, recordings: Recordings, tmp_path: Path
) -> None:
    async with open_desk(recordings=recordings, **profile("disclosed")) as desk:
        line = await desk.placed()
        phone = await desk.streams_in(line)
        await phone.say(event="stop", streamSid=STREAM, stop={})
        await desk.ended(line, Blame.CALLEE, Reason.HUNG_UP)
    assert desk.carrier.recorded == []
    assert os.listdir(tmp_path) == []


async def test_recordings_of_who_was_erased_go_on_every_node(recordings: Recordings, tmp_path: Path) -> None:
    async with open_desk(recordings=recordings) as desk:
        kept, erased = await desk.store.add(a_call()), await desk.store.add(a_call(to="+12025550199"))
        for record in (kept, erased):
            (tmp_path / f"{record.id}.0.wav").write_bytes(b"RIFF")
        assert await desk.reconciler.erase_recordings() == 0
        erased.ending, erased.ended_at = Ending(Blame.CALLEE, Reason.HUNG_UP), erased.started_at
        await desk.store.save(erased)  # as another node would
        await desk.store.erase("+12025550199", "a clerk", erased.started_at)
        assert await desk.reconciler.erase_recordings() == 1
    assert os.listdir(tmp_path) == [f"{kept.id}.0.wav"]
