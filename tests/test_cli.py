"""What a person who types `relay dnc`, `calls` or `check --number` is told, and with what exit status.

The commands talk to the operator's routes over a real socket; none of them sees the ledger.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from relay.cli import run
from relay.cli.batches import BATCH_LINES
from relay.compliance import load_rulebook
from relay.outcomes import Blame, Ending, Reason
from relay.placing import Agent, Cast
from relay.profiles import Profile
from relay.store import Callback, CallRecord, MemoryStore, Store
from relay.store.chain import Integrity, Verification
from relay.web.app import BODY_BYTES, create_app
from relay.web.books import book_routes
from relay.web.edge import serve
from relay.web.evidence import evidence_routes
from relay.web.explain import explain_routes
from relay.web.numbers import numbers_routes
from tests.store.conftest import a_call
from tests.web.api import KNOWN, NUMBER, OTHER, TOKEN

NOON = datetime(2027, 3, 9, 17, 0, tzinfo=UTC)  # a Tuesday in the review period of the packaged rules
AGENTS = Cast(
    {
        purpose: Agent(
            Profile.model_validate(
                {
                    "name": purpose,
                    "purpose": purpose,
                    "disclosure": "Hello, this is the automated assistant of Acme.",
                    "system_prompt": "Be brief.",
                }
            )
        )
        for purpose in ("informational", "telemarketing")
    }
)
AGENTS["default"] = AGENTS["informational"]


class AlteredStore(MemoryStore):
    """A ledger in which somebody changed a row."""

    async def verify(self, call_id: str) -> Verification | None:
        return Verification(Integrity.BROKEN, "entry 2 has another content than was sealed")


Relay: TypeAlias = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def store() -> Store:
    return MemoryStore()


@pytest.fixture
async def relay(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Relay]:
    """Runs a command against a service over this store; its exit status, stdout and stderr."""
    explain = explain_routes(
        store, load_rulebook(), KNOWN, agents=AGENTS, from_number=OTHER, clock=lambda: NOON
    )
    evidence = evidence_routes(store, KNOWN)
    books = book_routes(store.books, KNOWN, clock=lambda: NOON)
    app = create_app(numbers_routes(store, KNOWN, clock=lambda: NOON), books, evidence, explain)
    stop = trio.Event()

    async def command(*words: str) -> tuple[int, str, str]:
        status = await trio.to_thread.run_sync(run, words)
        said = capsys.readouterr()
        return status, said.out, said.err

    monkeypatch.chdir(tmp_path)
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(partial(serve, app, "127.0.0.1:0", stop=stop))
        monkeypatch.setenv("RELAY_URL", f"http://{host}:{port}")
        monkeypatch.setenv("RELAY_API_TOKEN", TOKEN)
        yield command
        stop.set()


# ---- relay dnc ---------------------------------------------------------------------------------------------


async def test_a_number_can_be_added_looked_up_and_removed(relay: Relay) -> None:
    since = "2027-03-09T17:00:00.000Z"
    added = await relay("dnc", "add", NUMBER, "--source", "letter", "--note", "of Monday", "--who", "ada")
    assert added == (0, f"{NUMBER}  listed since {since}\n", "")
    told = f"{NUMBER}  listed since {since} (letter: of Monday; lists: own)\n"
    assert await relay("dnc", "check", NUMBER) == (0, told, "")
    assert await relay("dnc", "remove", NUMBER, "--why", "a mistake") == (0, f"{NUMBER}  removed\n", "")
    assert await relay("dnc", "check", NUMBER) == (0, f"{NUMBER}  not listed\n", "")


async def test_every_word_of_the_list_is_there_for_scripts(relay: Relay) -> None:
    status, out, _ = await relay("dnc", "add", NUMBER, "--json")
    assert (status, json.loads(out)["listing"]) == (0, "added")
    assert json.loads((await relay("dnc", "check", NUMBER, "--json"))[1])["listed"] is True
    exported = json.loads((await relay("dnc", "export", "--json"))[1])
    assert [entry["number"] for entry in exported] == [NUMBER]
    assert (
        json.loads((await relay("dnc", "remove", NUMBER, "--why", "x", "--json"))[1])["listing"] == "removed"
    )


async def test_what_the_service_refuses_is_exit_status_1_with_its_reason_on_stderr(relay: Relay) -> None:
    status, out, err = await relay("dnc", "add", "2025550143")
    assert (status, out) == (1, "")
    assert err.startswith("relay: bad-value: number: ")
    status, _, err = await relay("dnc", "remove", NUMBER, "--why", "a mistake")
    assert (status, err) == (1, "relay: not-listed: the number is not on our own list\n")


async def test_the_wrong_token_is_named_with_its_remedy(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_API_TOKEN", "guess")
    status, _, err = await relay("dnc", "export")
    assert status == 1
    assert "unauthorized" in err
    assert "RELAY_API_TOKEN" in err


async def test_a_token_that_is_not_set_is_named_and_nobody_is_asked(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELAY_API_TOKEN")
    monkeypatch.setenv("RELAY_URL", "http://127.0.0.1:9")
    status, _, err = await relay("dnc", "export")
    assert status == 2
    assert "RELAY_API_TOKEN: is not set" in err


async def test_without_a_service_the_remedy_is_named(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_URL", "http://127.0.0.1:9")  # the port that discards: nobody listens there
    status, _, err = await relay("dnc", "export")
    assert status == 1
    assert "is 'relay serve' running there?" in err


async def test_a_long_list_goes_in_many_requests_and_comes_back_as_it_was(
    relay: Relay, store: Store, tmp_path: Path
) -> None:
    numbers = [f"+1202{n:07}" for n in range(2 * BATCH_LINES + 5)]
    words = "a long source; " * 20  # so long that fewer lines fit into one request than the service takes
    lines = "".join(f"{number},{words.strip()}\n" for number in numbers)
    (tmp_path / "list.csv").write_text(f"number,source\n{lines}", encoding="utf-8")
    assert len(lines) > 8 * BODY_BYTES
    status, out, err = await relay("dnc", "import", "list.csv", "--who", "ada")
    assert (status, out, err) == (0, "2005 added, 0 removed\n", "")
    assert await relay("dnc", "export", "--output", "again.csv") == (0, "", "")
    assert (await relay("dnc", "import", "again.csv", "--json"))[:1] == (0,)
    entries = await store.suppressions(0, 10_000)
    assert [entry.number for entry in entries] == numbers * 2
    assert {(entry.source, entry.who, entry.at) for entry in entries} == {(words.strip(), "ada", NOON)}


async def test_a_file_with_a_mistake_is_not_imported_in_part(
    relay: Relay, store: Store, tmp_path: Path
) -> None:
    lines = [f"+1202{n:07}" for n in range(BATCH_LINES + 5)]
    (tmp_path / "list.csv").write_text("\n".join(["number", *lines, "oops"]), encoding="utf-8")
    status, _, err = await relay("dnc", "import", "list.csv")
    assert status == 1
    assert err.startswith(f"relay: list.csv, line {BATCH_LINES + 7}, column number: must be E.164")
    assert "nothing was imported" in err
    assert await store.suppressions(0, 10) == []


async def test_a_copy_of_an_official_list_is_dated_by_its_last_request(
    relay: Relay, store: Store, tmp_path: Path
) -> None:
    lines = [f"+1202{n:07}" for n in range(BATCH_LINES + 1)]
    (tmp_path / "tx.csv").write_text("\n".join(["number", *lines]), encoding="utf-8")
    words = ("dnc", "import", "tx.csv", "--list", "US-TX", "--as-of", "2027-03-01T00:00:00+00:00")
    assert (await relay(*words))[0] == 0
    (copy,) = (await store.facts(NUMBER, NOON)).lists or ()
    assert (copy.list, copy.as_of) == ("US-TX", datetime(2027, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "words", [("--as-of", "2027-03-01T00:00:00+00:00"), ("--list", "US", "--as-of", "2027-03-01T00:00:00")]
)
async def test_a_date_that_dates_nothing_is_a_mistake_of_usage(
    relay: Relay, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "list.csv").write_text("number\n", encoding="utf-8")
    assert (await relay("dnc", "import", "list.csv", *words))[0] == 2


async def test_a_file_that_cannot_be_read_is_named(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("number,source\n+12025550143,caf\xe9\n".encode("latin-1"))
    for name in ("latin.csv", "absent.csv"):
        status, _, err = await relay("dnc", "import", name)
        assert status == 1
        assert err.startswith(f"relay: {name} cannot be read")


# ---- relay calls -------------------------------------------------------------------------------------------


@pytest.fixture
async def call(store: Store) -> CallRecord:
    record = await store.add(a_call(to=NUMBER))
    record.ending, record.ended_at = Ending(Blame.NOBODY, Reason.GOODBYE), NOON + timedelta(seconds=9)
    await store.save(record)
    return record


def names_in(archive: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return set(tar.getnames())


async def test_evidence_is_a_file_named_like_the_call(relay: Relay, call: CallRecord, tmp_path: Path) -> None:
    assert await relay("calls", "export", call.id) == (0, f"{call.id}.tar.gz\n", "")
    assert f"{call.id}/record.json" in names_in((tmp_path / f"{call.id}.tar.gz").read_bytes())


async def test_evidence_goes_where_it_is_told_to(relay: Relay, call: CallRecord, tmp_path: Path) -> None:
    assert (await relay("calls", "export", call.id, "--output", "pack.tar.gz"))[0] == 0
    assert f"{call.id}/chain.json" in names_in((tmp_path / "pack.tar.gz").read_bytes())
    status, _, err = await relay("calls", "export", call.id, "--output", "nowhere/pack.tar.gz")
    assert (status, err) == (1, "relay: nowhere/pack.tar.gz cannot be written (No such file or directory)\n")


async def test_a_whole_record_is_said_to_be_intact(relay: Relay, call: CallRecord) -> None:
    assert await relay("calls", "verify", call.id) == (0, f"{call.id}  intact\n", "")
    found = json.loads((await relay("calls", "verify", call.id, "--json"))[1])
    assert found == {"id": call.id, "integrity": "intact", "where": ""}


async def test_an_erased_record_is_not_a_broken_one(relay: Relay, call: CallRecord, store: Store) -> None:
    await store.erase(NUMBER, "ada", NOON)
    assert await relay("calls", "verify", call.id) == (0, f"{call.id}  erased\n", "")


@pytest.mark.parametrize("store", [AlteredStore()])
async def test_an_altered_record_is_exit_status_1_and_the_place_on_stderr(relay: Relay, store: Store) -> None:
    status, out, err = await relay("calls", "verify", "call_1")
    assert (status, out) == (1, "")
    assert "entry 2 has another content than was sealed" in err


@pytest.mark.parametrize("word", ["export", "verify"])
async def test_a_call_that_never_was_has_no_evidence(relay: Relay, word: str) -> None:
    status, out, err = await relay("calls", word, "call_0")
    assert (status, out, err) == (1, "", "relay: unknown-call: there is no call call_0\n")


# ---- relay check --number ----------------------------------------------------------------------------------


async def test_a_number_that_may_be_dialled_is_explained_rule_by_rule(relay: Relay) -> None:
    status, out, err = await relay("check", "--number", NUMBER)
    assert (status, err) == (0, "")
    assert "caller-id" in out
    assert "not-applicable" not in out
    assert re.search(r"^\d\d other rules do not concern this call", out, re.MULTILINE)
    found = json.loads((await relay("check", "--number", NUMBER, "--json"))[1])
    told: list[dict[str, Any]] = found["verdict"]["findings"]
    assert found["allowed"] is True
    assert {rule.id for rule in load_rulebook().rules} <= {finding["rule"] for finding in told}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--agent", "telemarketing"), "consent-missing"),
        (("--purpose", "telemarketing"), "consent-missing"),
        (("--zone", "Asia/Tokyo"), "outside-hours"),
        (("--state", "US-HI"), "outside-hours"),
    ],
)
async def test_a_number_that_may_not_be_dialled_is_exit_status_1(
    relay: Relay, words: tuple[str, ...], code: str
) -> None:
    status, out, err = await relay("check", "--number", NUMBER, *words)
    assert status == 1
    assert "refuse" in out
    assert err.startswith(f"relay: {code}: ")


async def test_an_agent_without_a_number_is_a_mistake_of_usage(relay: Relay) -> None:
    status, _, err = await relay("check", "--agent", "default")
    assert status == 2
    assert "--number" in err


# ---- relay appointments, accounts, callbacks ---------------------------------------------------------------


async def test_times_are_imported_listed_and_released(relay: Relay, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "slots.csv"
    file.write_text("starts_at,note\n2027-03-10T10:00:00-05:00,Doctor Lee\n")
    imported = await relay("appointments", "import", "slots.csv", "--calendar", "lakeside")
    assert imported == (0, "1 added, 0 known already\n", "")
    at = datetime(2027, 3, 10, 15, tzinfo=UTC)
    slot = await store.books.book("lakeside", at, call_id="call_1", number=NUMBER, at_most=1)
    assert slot is not None
    listed = json.loads((await relay("appointments", "list", "--json"))[1])
    assert [(each["note"], each["confirmation"]) for each in listed] == [("Doctor Lee", slot.confirmation)]
    released = await relay("appointments", "release", str(slot.confirmation))
    assert released == (0, "2027-03-10T10:00:00-05:00  free again\n", "")


async def test_a_book_with_a_mistake_is_not_imported_at_all(
    relay: Relay, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "patients.csv").write_text(f"id,number\nA1,{NUMBER}\nA2,12\n")
    status, _, err = await relay("accounts", "import", "patients.csv", "--book", "patients")
    assert (status, "patients.csv, line 3, column number: must be E.164" in err) == (1, True)
    assert await store.books.accounts(0, 10) == []


async def test_accounts_are_imported_listed_and_removed(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text(f"id,number,name\nA1,{NUMBER},Ada\n")
    assert await relay("accounts", "import", "patients.csv", "--book", "patients") == (0, "1 kept\n", "")
    assert "name: Ada" in (await relay("accounts", "list"))[1]
    assert await relay("accounts", "remove", "A1", "--book", "patients") == (0, "A1  removed\n", "")
    assert json.loads((await relay("accounts", "list", "--json"))[1]) == []


async def test_a_wish_to_be_called_back_is_listed_until_it_is_done(relay: Relay, store: Store) -> None:
    await store.books.wish_callback(Callback("callback_1", "call_1", "default", NUMBER, NOON, "crown", NOON))
    (listed,) = json.loads((await relay("callbacks", "list", "--json"))[1])
    assert (listed["id"], listed["note"]) == ("callback_1", "crown")
    assert await relay("callbacks", "done", "callback_1", "--who", "ada") == (
        0,
        "callback_1  done by ada\n",
        "",
    )
    assert json.loads((await relay("callbacks", "list", "--json"))[1]) == []
    assert len(json.loads((await relay("callbacks", "list", "--every", "--json"))[1])) == 1


# ---- how fast it starts --------------------------------------------------------------------------------


def test_words_alone_load_nothing_of_the_service() -> None:
    program = (
        "import sys, relay.cli\n"
        "own = {name.split('.')[1] for name in sys.modules if name.startswith('relay.')}\n"
        "assert own == {'cli', 'settings', 'shapes', 'telemetry'}, own"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
