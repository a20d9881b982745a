"""What a spool promises: live calls go on without the store, and nothing is lost when it is back.

Must not know what the store is made of; the one here is real, and only its plug is pulled.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from relay.compliance.case import Suppression
from relay.outcomes import Blame, Ending, Reason
from relay.store import CallRecord, MemoryStore, StoreError, Written
from relay.store.chain import Integrity
from relay.store.ledger import ListEntry, Listing
from relay.store.records import ENDED, Progress, StoreRefused
from relay.store.spool import WAITING_LINES, Spool, open_spool
from tests.store.conftest import NOW, NUMBER, a_call


class Plug(MemoryStore):
    """A ledger that can be unplugged."""

    is_up = True

    def look(self) -> None:
        if not self.is_up:
            raise StoreError("unplugged")

    async def write(self, progress: Progress) -> Written:
        self.look()
        return await super().write(progress)

    async def add(self, record: CallRecord) -> CallRecord:
        self.look()
        return await super().add(record)

    async def get(self, call_id: str) -> CallRecord | None:
        self.look()
        return await super().get(call_id)

    async def suppress(self, entries: object) -> None:
        self.look()
        await super().suppress(entries)  # type: ignore[arg-type]


@pytest.fixture
def plug() -> Plug:
    return Plug()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def on_disk(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


async def test_while_the_store_is_up_nothing_is_spooled(plug: Plug, path: Path) -> None:
    async with open_spool(plug, path) as spool:
        record = await plug.add(a_call())
        record.note(NOW, "dialing")
        assert await spool.save(record) is Written.KEPT
        assert spool.problem is None
    assert on_disk(path) == b""


async def test_a_call_goes_on_and_ends_without_the_store_and_is_whole_when_it_is_back(
    plug: Plug, path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(plug, path) as spool:
        record = await plug.add(a_call())
        plug.is_up = False
        record.note(NOW, "one", said="\0 \ud800")
        assert await spool.save(record) is Written.SPOOLED
        record.note(NOW, "two")
        record.ending, record.ended_at = Ending(Blame.CALLEE, Reason.HUNG_UP), NOW
        assert await spool.save(record) is Written.SPOOLED
        await spool.suppress([ListEntry(NUMBER, Listing.ADDED, "callee", "callee", NOW)])
        await spool.confirm(record.id, NOW)
        assert spool.problem == "unplugged"
        plug.is_up = True
        await spool.wait_written()
        assert on_disk(path) == b""
    found = await plug.get(record.id)
    assert found is not None
    assert found.entries == record.entries
    assert (found.ending, found.carrier_confirmed_at) == (record.ending, NOW)
    assert (await plug.facts(NUMBER, NOW)).suppressions == (Suppression("own", NOW),)


async def test_what_was_kept_of_a_call_that_another_node_took_meanwhile_stands_behind_its_end(
    plug: Plug, path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(plug, path) as spool:
        record = await plug.add(a_call(owner="a"))
        plug.is_up = False
        record.note(NOW, "said meanwhile")
        for item in ("twilio-voice", "assemblyai-session"):
            record.charge(NOW, item, "0.1", "USD")
        record.note(NOW, ENDED)
        record.ending, record.ended_at = Ending(Blame.CALLEE, Reason.HUNG_UP), NOW
        assert await spool.save(record) is Written.SPOOLED
        assert await plug.take_over(record.id, 1, "b", 30) == 1
        theirs = await MemoryStore.get(plug, record.id)
        assert theirs is not None
        theirs.ending, theirs.ended_at = Ending(Blame.US, Reason.CUT), NOW
        assert await MemoryStore.write(plug, theirs.progress()) is Written.KEPT
        plug.is_up = True
        await spool.wait_written()
    found = await plug.get(record.id)
    assert found is not None
    assert found.ending == theirs.ending
    assert [event["event"] for event in found.events] == ["said meanwhile"]
    assert [cost["item"] for cost in found.as_json()["costs"]] == ["assemblyai-session"]
    word = await plug.verify(record.id)
    assert word is not None
    assert word.integrity is Integrity.INTACT


async def test_an_intent_to_dial_is_not_spooled(plug: Plug, path: Path) -> None:
    plug.is_up = False
    async with open_spool(plug, path):
        with pytest.raises(StoreError):
            await plug.add(a_call())


async def test_what_a_process_leaves_is_written_by_the_next_and_torn_lines_are_counted(
    plug: Plug, path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    records = [await plug.add(a_call()) for _ in range(4)]
    plug.is_up = False
    async with open_spool(plug, path) as spool:
        for record in records:
            record.note(NOW, "kept")
            await spool.save(record)
    lines = on_disk(path).splitlines(keepends=True)
    spoilt = [line.replace(b"kept", b"kepd") if records[1].id.encode() in line else line for line in lines]
    await trio.Path(path).write_bytes(b"".join(spoilt)[:-7])
    plug.is_up = True
    async with open_spool(plug, path) as spool:
        assert spool.problem is not None
        await spool.wait_written()
        assert spool.torn == 2
    found = [await plug.get(record.id) for record in records]
    assert [[event["event"] for event in record.events] for record in found if record] == [
        ["kept"],
        [],
        ["kept"],
        [],
    ]


async def test_a_line_that_the_store_refuses_does_not_block_the_others(
    plug: Plug, path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    class Picky(Plug):
        async def write(self, progress: Progress) -> Written:
            if self.is_up and progress.call_id == "call_of_nobody":
                raise StoreRefused("cannot be kept")
            return await super().write(progress)

    picky = Picky()
    record = await picky.add(a_call())
    async with open_spool(picky, path) as spool:
        picky.is_up = False
        await spool.save(a_call(id="call_of_nobody"))
        record.note(NOW, "kept")
        await spool.save(record)
        picky.is_up = True
        await spool.wait_written()
        assert spool.refused == 1
    found = await picky.get(record.id)
    assert found is not None
    assert len(found.events) == 1


async def test_a_ledger_that_reads_but_cannot_write_loses_nothing(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    class Full(Plug):
        async def write(self, progress: Progress) -> Written:
            self.look()
            return await super().write(progress)

        async def get(self, call_id: str) -> CallRecord | None:
            return await MemoryStore.get(self, call_id)  # a full disk is read as well as ever

    full = Full()
    record = await full.add(a_call())
    async with open_spool(full, path) as spool:
        full.is_up = False
        record.note(NOW, "said while the disk was full")
        await spool.save(record)
        await spool.suppress([ListEntry("+12025550143", Listing.ADDED, "call:key", record.id, NOW)])
        await trio.sleep(60)
        assert spool.problem is not None
        full.is_up = True
        await spool.wait_written()
        assert spool.refused == 0
    found = await full.get(record.id)
    assert found is not None
    assert [event["event"] for event in found.events] == ["said while the disk was full"]
    assert len(await full.suppressions(0, 10)) == 1


async def test_a_full_spool_says_so(plug: Plug, path: Path) -> None:
    plug.is_up = False
    spool = Spool(plug, path)  # nobody empties it
    progress = a_call().progress()
    for _ in range(WAITING_LINES):
        assert await spool.write(progress) is Written.SPOOLED
    with pytest.raises(StoreError, match="full"):
        await spool.write(progress)
