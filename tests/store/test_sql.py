"""What holds of the databases alone: who may open one, how tables come about, and what the database refuses.

Must not know more of a call than that there is one.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from relay.compliance.case import DialRequest, Facts, Purpose, Revocation
from relay.compliance.gate import Permit, Refused
from relay.compliance.verdict import Verdict, passed
from relay.outcomes import Blame, Ending, Reason, Refusal
from relay.store import (
    Books,
    CallRecord,
    Slot,
    StoreError,
    Written,
    migrations,
    open_spool,
    sql_calls,
    sql_holds,
)
from relay.store import sql as sql_store
from relay.store.chain import Integrity
from relay.store.ledger import ListEntry, Listing, WishKind
from relay.store.sql import SqlStore, open_store
from relay.store.tables import metadata
from tests.postgres import fresh_database
from tests.store.conftest import KEY, NUMBER, a_call

ENDED = Ending(Blame.NOBODY, Reason.GOODBYE)
TOP = Path(__file__).parents[2]

# What a node that is another process does; it is told the URL.
CLAIM_ALL = """
import sys, trio
from relay.store.sql import open_store

async def main(url, node):
    async with open_store(url, b"of the tests") as store:
        sys.stdin.readline()
        while found := await store.orphans(node, 60, 3):
            print(*(record.id for record in found), flush=True)

trio.run(main, *sys.argv[1:])
"""


def node(url: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM_ALL, url, name],
        cwd=TOP,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'relay.db'}"
    return fresh_database(request.getfixturevalue("postgres_server"))


@pytest.fixture
def behind_its_back(url: str) -> Iterator[sa.Engine]:
    """The database without the ledger's own manners."""
    engine = sa.create_engine(url)
    yield engine
    engine.dispose()


async def test_what_was_kept_is_there_when_the_ledger_is_opened_again(url: str) -> None:
    async with open_store(url, KEY) as store:
        record = await store.add(a_call(idempotency_key="k"))
    async with open_store(url, KEY) as store:
        found = await store.get(record.id)
        assert found is not None
        assert found.as_json() == record.as_json()
        assert (await store.add(a_call(idempotency_key="k"))).id == record.id


async def test_the_migrations_make_the_tables_that_the_code_knows(
    url: str, behind_its_back: sa.Engine
) -> None:
    async with open_store(url, KEY):
        pass
    with behind_its_back.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


async def test_a_database_of_a_newer_version_is_left_alone(url: str, behind_its_back: sa.Engine) -> None:
    async with open_store(url, KEY):
        pass
    with behind_its_back.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer version"):
        async with open_store(url, KEY):
            pass


async def test_a_database_of_an_earlier_version_keeps_what_is_in_it(
    url: str, behind_its_back: sa.Engine
) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with behind_its_back.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        given = {"subject": "s", "list": "own", "listing": "added", "source": "letter", "who": "ada"}
        row = {**given, "at": datetime(2026, 3, 2, tzinfo=UTC)}
        connection.execute(metadata.tables["suppressions"].insert().values(row))
    async with open_store(url, KEY) as store:
        [entry] = await store.suppressions(0, 10)
        assert (entry.subject, entry.source) == ("s", "letter")
        await store.add(a_call())
    with behind_its_back.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.needs_postgres
@pytest.mark.parametrize(("losses", "carried_out"), [(1, True), (2, True), (3, False)])
async def test_a_transaction_that_lost_a_race_is_tried_again_whole_and_not_for_ever(
    postgres_url: str, losses: int, carried_out: bool
) -> None:
    record, left = a_call(), [losses]

    def work(connection: sa.Connection) -> None:
        now = datetime.now(UTC)
        sql_calls.add(connection, record, record.progress(), "subject", now)
        if left[0]:
            left[0] -= 1
            connection.execute(sa.text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$"))

    async with open_store(postgres_url, KEY) as store:
        if carried_out:
            await store._run(work)
        else:
            with pytest.raises(StoreError):
                await store._run(work)
        assert left == [0]
        found = await store.get(record.id)
        assert (found is not None) == carried_out
        assert found is None or found.kept == 1


async def test_a_migration_that_fails_in_the_middle_leaves_nothing_of_itself(
    url: str, behind_its_back: sa.Engine
) -> None:
    with behind_its_back.begin() as connection:
        connection.execute(sa.text("CREATE TABLE slots (mine INTEGER)"))  # the name that a later one wants
    with pytest.raises(StoreError):
        async with open_store(url, KEY):
            pass
    assert sa.inspect(behind_its_back).get_table_names() == ["slots"]
    with behind_its_back.begin() as connection:
        connection.execute(sa.text("DROP TABLE slots"))
    async with open_store(url, KEY) as store:
        await store.add(a_call())


async def test_a_full_disk_takes_no_new_call_and_loses_no_word_of_a_live_one(tmp_path: Path) -> None:
    def room_for(connection: sa.Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    async def fill(store: SqlStore) -> None:
        while True:
            await store.add(a_call(variables={"name": "Ada" * 500}))

    url = f"sqlite:///{tmp_path / 'relay.db'}"
    async with open_store(url, KEY) as store, open_spool(store, tmp_path / "spool") as spool:
        record = await store.add(a_call())
        await store._run(lambda c: room_for(c, 1))  # as many as there are already: SQLite raises it to that
        with pytest.raises(StoreError, match="full"):
            await fill(store)
        for number in range(200):
            record.note(record.started_at, f"word {number}", said="Ada" * 100)
        record.ending, record.ended_at = ENDED, record.started_at
        assert await spool.save(record) is Written.SPOOLED
        assert "full" in (spool.problem or "")
        await store._run(lambda c: room_for(c, 100_000))
        with trio.fail_after(10):
            await spool.wait_written()
        found = await store.get(record.id)
        assert found is not None
        assert (found.ending, found.entries) == (ENDED, record.entries)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = '{}'",
        "UPDATE entries SET seal = 'x', body = NULL, salt = NULL",
        "DELETE FROM entries",
        "UPDATE suppressions SET listing = 'removed'",
        "DELETE FROM suppressions",
    ],
)
async def test_the_database_itself_keeps_diaries_and_lists(
    url: str, behind_its_back: sa.Engine, statement: str
) -> None:
    async with open_store(url, KEY) as store:
        record = await store.add(a_call())
        await store.suppress([ListEntry(NUMBER, Listing.ADDED, "operator", "ada", record.started_at)])
    with (
        behind_its_back.connect() as connection,
        pytest.raises(sa.exc.DBAPIError, match="only ever added to"),
        connection.begin(),
    ):
        connection.execute(sa.text(statement))
    async with open_store(url, KEY) as store:
        verification = await store.verify(record.id)
        assert verification is not None
        assert verification.integrity is Integrity.INTACT


async def test_a_number_is_nowhere_in_a_database_that_forgot_it(url: str, behind_its_back: sa.Engine) -> None:
    async with open_store(url, KEY) as store:
        record = await store.add(a_call(idempotency_key=f"monday {NUMBER}"))
        await store.wish(record.id, WishKind.KEY, {"to": NUMBER})
        record.note(record.started_at, "dialing", to=NUMBER)
        record.ending, record.ended_at = ENDED, record.started_at
        await store.save(record)
        await store.erase(NUMBER, "ada", record.started_at)
    with behind_its_back.connect() as connection:
        for table in metadata.tables.values():
            assert NUMBER not in str(connection.execute(sa.select(table)).all())


async def test_a_second_process_on_one_sqlite_file_is_told_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'relay.db'}"
    async with open_store(url, KEY):
        with pytest.raises(StoreError, match=r"relay\.db is open in another process: .*PostgreSQL"):
            async with open_store(url, KEY):
                pass
        other = node(url, "b")
        _, said = await trio.to_thread.run_sync(other.communicate)
        assert other.returncode == 1
        assert "is open in another process" in said
    async with open_store(url, KEY):
        pass


@pytest.mark.parametrize(
    "bad",
    [
        "relay.db",
        "mysql://localhost/relay",
        "sqlite://",
        "sqlite:////nowhere/at/all.db",
        "postgresql+psycopg:///x?host=/nowhere",
    ],
)
async def test_a_database_that_cannot_be_used_is_an_error_of_ours(bad: str) -> None:
    with pytest.raises(StoreError):
        async with open_store(bad, KEY):
            pass


@pytest.mark.needs_postgres
async def test_nodes_that_start_together_and_claim_together_share_no_call(postgres_url: str) -> None:
    nodes = [node(postgres_url, name) for name in ("a", "b")]  # both find an empty database
    async with open_store(postgres_url, KEY) as store:
        ids = [(await store.add(a_call())).id for _ in range(60)]
        said = await trio.to_thread.run_sync(lambda: _let_go(nodes))
        claimed = " ".join(said).split()
        assert len(claimed) == len(set(claimed))
        claimed += [record.id for record in await store.orphans("c", 60, 60)]
        assert sorted(claimed) == sorted(ids)


def _let_go(nodes: list[subprocess.Popen[str]]) -> list[str]:
    for process in nodes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate() for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0], answers
    return [said for said, _ in answers]


async def test_an_operation_that_takes_too_long_fails_and_is_not_done_later(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    add = sql_calls.add

    def slow_add(*words: Any) -> CallRecord | None:
        outcome = add(*words)
        released.wait()
        return outcome

    async with open_store(url, KEY) as store:
        record = a_call()
        monkeypatch.setattr(sql_calls, "add", slow_add)
        monkeypatch.setattr(sql_store, "OPERATION_SECONDS", 0.3)
        with pytest.raises(StoreError, match="did not answer"):
            await store.add(record)
        monkeypatch.setattr(sql_store, "OPERATION_SECONDS", 5.0)
        released.set()
        assert await store.get(record.id) is None


@pytest.mark.parametrize(("ahead_seconds", "code"), [(0, None), (-3600, "clock-apart"), (3, "clock-apart")])
async def test_a_node_whose_clock_is_not_the_ledgers_dials_nothing(
    url: str, ahead_seconds: float, code: str | None
) -> None:
    def judge(_: Facts) -> Permit | Refused:
        now = datetime.now(UTC) + timedelta(seconds=ahead_seconds)
        verdict = Verdict("call", 1, "informational", now, now, "", (passed("all", "All is well."),))
        return Permit("call", 1, NUMBER, now, verdict)

    asked = DialRequest("call", 1, NUMBER, "+12025550100", Purpose.INFORMATIONAL, "Acme")
    async with open_store(url, KEY) as store:
        answer = await store.permit(asked, judge)
        assert (answer.refusal.code if isinstance(answer, Refused) else None) == code
        [kept] = await store.verdicts("call")
        assert [finding["code"] for finding in kept["findings"] if "code" in finding] == [code] * bool(code)
        assert await store.dials_since(datetime.now(UTC) - timedelta(days=1)) == (code is None)


@pytest.mark.parametrize("how", ["listed", "revoked"])
async def test_who_is_listed_while_being_permitted_is_not_dialled_or_the_call_is_told_to_stop(
    url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    has_looked, may_commit = threading.Event(), threading.Event()
    stop_subjects = sql_holds.stop_subjects

    def slow_stop(*words: Any) -> None:  # it has looked for live calls, and its own word is not committed
        stop_subjects(*words)
        has_looked.set()
        may_commit.wait(3)

    monkeypatch.setattr(sql_holds, "stop_subjects", slow_stop)
    answers: list[Permit | Refused] = []

    def judge(facts: Facts) -> Permit | Refused:
        now = datetime.now(UTC)
        verdict = Verdict("call", 1, "informational", now, now, "", (passed("all", "All is well."),))
        if facts.suppressions or facts.revocations:
            return Refused(Refusal("dnc-listed", "listed"), verdict)
        return Permit("call", 1, NUMBER, now, verdict)

    async def dial(store: SqlStore) -> None:
        record = await store.add(a_call(owner="node"))
        asked = DialRequest(record.id, 1, NUMBER, "+12025550100", Purpose.INFORMATIONAL, "Acme")
        answers.append(await store.permit(asked, judge))

    async with open_store(url, KEY) as store:
        async with trio.open_nursery() as nursery:
            if how == "listed":
                entry = ListEntry(NUMBER, Listing.ADDED, "operator", "ada", datetime.now(UTC))
                nursery.start_soon(store.suppress, [entry])
            else:
                nursery.start_soon(store.revoke, NUMBER, Revocation(datetime.now(UTC)))
            await trio.to_thread.run_sync(has_looked.wait)
            nursery.start_soon(dial, store)
            await trio.sleep(0.3)  # time enough to permit it, where nothing holds that back
            may_commit.set()
        [answer] = answers
        told = [wish.kind for wish in await store.wishes("node")]
        assert isinstance(answer, Refused) or told == [WishKind.STOP]


@pytest.mark.needs_postgres
async def test_a_server_that_dropped_its_connections_is_asked_again(
    postgres_url: str, postgres_control: Callable[[str], None]
) -> None:
    async with open_store(postgres_url, KEY) as store:
        record = await store.add(a_call())
        ours = "datname <> 'postgres' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        postgres_control(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
        assert await store.get(record.id) is not None


@pytest.mark.needs_postgres
async def test_two_nodes_never_book_one_slot_twice(postgres_server: Any) -> None:
    url = fresh_database(postgres_server)
    begin = datetime(2030, 1, 7, 9, tzinfo=UTC)
    hours = [begin + timedelta(hours=hour) for hour in range(20)]
    booked: list[datetime] = []

    async def book_all(books: Books, name: str) -> None:
        for hour in hours:
            call_id = f"call_{name}_{hour.isoformat()}"
            if await books.book("lakeside", hour, call_id=call_id, number=NUMBER, at_most=1):
                booked.append(hour)

    async with open_store(url, KEY) as one, open_store(url, KEY) as other:
        await one.books.open_slots([Slot("lakeside", hour) for hour in hours])
        async with trio.open_nursery() as nursery:
            for books in (one.books, other.books):
                for guest in ("a", "b"):
                    nursery.start_soon(book_all, books, f"{id(books)}_{guest}")
    assert sorted(booked) == hours
