"""The disclosure before the stream: what proves it, and what a key does that stops it, on whichever node."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from relay.compliance import OPT_OUT_KEY
from relay.line import ANNOUNCEMENTS, DISCLOSED, STREAM_SECONDS, Line, document_after_key
from relay.outcomes import Blame, Reason
from relay.script import Announcement
from relay.store import CallRecord, Listing, Status, StoreError
from relay.switchboard import Document
from relay.wire.callbacks import CarrierStatus
from tests.test_gatekeeper import open_spooled
from tests.test_switchboard import NUMBER, SID, Desk, instant_disk, open_desk
from tests.test_takeover import open_pair

__all__ = ["instant_disk"]

SENTENCE = "This is an automated call from the clinic. Press 9 to stop it."
CLOSED_SECONDS = 5.0
NOT_OPT_OUT = "5"


def proofs(record: CallRecord) -> list[object]:
    """By what the disclosure was proven, each time that it was noted."""
    return [event["by"] for event in record.as_json()["events"] if event["event"] == DISCLOSED]


async def announcing(desk: Desk) -> Line:
    """A call in which the carrier has begun to speak."""
    line = await desk.placed(agent="announced")
    assert await desk.board.document(line.record.id, 0) is Document.ANNOUNCE
    return line


async def pressed(desk: Desk, line: Line, digit: str = OPT_OUT_KEY, *, times_said: int = 1) -> Document:
    return await desk.board.key_pressed(line.record.id, line.record.to, digit, times_said)


async def listed(desk: Desk) -> list[tuple[str | None, Listing]]:
    return [(entry.number, entry.listing) for entry in await desk.store.suppressions(0, 10)]


@pytest.mark.parametrize(
    ("digit", "times_said", "follows"),
    [
        ("9", 1, Document.OPTED_OUT),
        ("9", ANNOUNCEMENTS, Document.OPTED_OUT),
        ("#", 1, Document.ANNOUNCE),
        ("99", 1, Document.ANNOUNCE),
        ("1", ANNOUNCEMENTS, Document.HANG_UP),
    ],
)
def test_a_key_opts_out_or_has_the_disclosure_said_again_once(
    digit: str, times_said: int, follows: Document
) -> None:
    assert document_after_key(digit, times_said) is follows


# ---- the proof ------------------------------------------------------------------------------------


async def test_the_start_of_the_stream_proves_that_nothing_has_stopped_it(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await announcing(desk)
        assert await desk.board.announcement(line.record.id) == Announcement(SENTENCE)
        assert proofs(line.record) == []
        await desk.joins(line.record.id, 0)
        assert proofs(line.record) == ["stream"]
        desk.board.cut_all()


async def test_so_does_the_redirect_behind_it_and_it_is_not_said_again(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        line = await announcing(pair.first)
        await pair.first.reconciler.save_live()
        assert await pair.second.board.document(line.record.id, 1) is Document.CONNECT
        resumed = pair.second.board.line(line.record.id)
        assert resumed is not None
        assert proofs(resumed.record) == ["redirect"]
        await pair.second.joins(line.record.id, 1)
        assert proofs(resumed.record) == ["redirect"]
        line.give_way()
        pair.second.board.cut_all()


@pytest.mark.parametrize(("waited", "ends"), [(STREAM_SECONDS + 10, False), (STREAM_SECONDS + 30, True)])
async def test_the_stream_is_waited_for_until_the_sentence_was_said_twice(
    waited: float, ends: bool, autojump_clock: MockClock
) -> None:
    async with open_desk() as desk:
        line = await announcing(desk)
        await trio.sleep(waited)
        assert (line.ending is not None) is ends
        desk.board.cut_all()
        if ends:
            record = await desk.ended(line, Blame.CARRIER, Reason.NO_STREAM)
            assert proofs(record) == []


async def test_an_agent_that_is_gone_has_nothing_said_for_it(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        record = CallRecord(
            id="call_1",
            to="+12025550143",
            agent="gone",
            started_at=pair.store._clock(),
            time_limit_seconds=60,
        )
        await pair.store.add(record)
        assert await pair.second.board.announcement("call_1") is None
        assert await pair.second.board.announcement("call_2") is None


# ---- the opt-out key ------------------------------------------------------------------------------


async def test_the_key_is_recorded_at_once_and_the_line_closed_in_time(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await announcing(desk)
        pressed_at = trio.current_time()
        assert await pressed(desk, line) is Document.OPTED_OUT
        await trio.testing.wait_all_tasks_blocked()
        assert await listed(desk) == [(line.record.to, Listing.ADDED)]
        assert desk.carrier.hung_up == []  # the carrier is speaking
        record = await desk.ended(line, Blame.CALLEE, Reason.OPTED_OUT)
        ((sid, hung_up_at),) = desk.carrier.hung_up
        assert sid == SID
        assert 4 < hung_up_at - pressed_at < CLOSED_SECONDS
        assert proofs(record) == []
        assert await desk.board.document(record.id, 1) is Document.HANG_UP


async def test_a_carrier_that_hangs_up_by_itself_is_not_told_to(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await announcing(desk)
        assert await pressed(desk, line) is Document.OPTED_OUT
        await trio.sleep(2)
        await desk.says(line, CarrierStatus.COMPLETED)
        await desk.ended(line, Blame.CALLEE, Reason.OPTED_OUT)
        assert desk.carrier.hung_up == []


async def test_a_key_posted_to_another_node_counts_there_and_reaches_the_owner(
    autojump_clock: MockClock,
) -> None:
    async with open_pair() as pair:
        line = await announcing(pair.first)
        pressed_at = trio.current_time()
        assert await pressed(pair.second, line) is Document.OPTED_OUT
        assert (line.record.to, Listing.ADDED) in await listed(pair.second)
        await pair.first.reconciler.grant_wishes()
        record = await pair.first.ended(line, Blame.CALLEE, Reason.OPTED_OUT)
        assert record.status is Status.ENDED
        ((_, hung_up_at),) = pair.carrier.hung_up
        assert hung_up_at - pressed_at < CLOSED_SECONDS


async def test_a_key_counts_also_while_the_ledger_is_down(
    autojump_clock: MockClock, instant_disk: None, tmp_path: Path
) -> None:
    async with open_spooled(tmp_path) as desk:
        desk.store.fails = StoreError("disk full")
        assert await desk.board.key_pressed("call_1", NUMBER, "9", 1) is Document.OPTED_OUT
        assert await desk.board.announcement("call_1") is None
        desk.store.fails = None
        await desk.spool.wait_written()
        assert await listed(desk) == [(NUMBER, Listing.ADDED)]


# ---- any other key --------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_disclosure_that_is_stopped_each_time_ends_the_call(
    elsewhere: bool, autojump_clock: MockClock
) -> None:
    async with open_pair() as pair:
        line = await announcing(pair.first)
        asked = pair.second if elsewhere else pair.first
        assert await pressed(asked, line, NOT_OPT_OUT) is Document.ANNOUNCE
        assert line.ending is None
        assert await pressed(asked, line, NOT_OPT_OUT, times_said=2) is Document.HANG_UP
        await pair.first.reconciler.grant_wishes()
        record = await pair.first.ended(line, Blame.CALLEE, Reason.UNDISCLOSED)
        assert await listed(pair.first) == []
        assert NOT_OPT_OUT not in [event.get("digit") for event in record.as_json()["events"]]


async def test_a_call_that_has_ended_meanwhile_is_not_announced_again(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await announcing(desk)
        desk.board.cut_all()
        assert await pressed(desk, line, NOT_OPT_OUT) is Document.HANG_UP
