"""An evidence pack holds all that is on record of a call, and says whether the record is whole.

Must not know which ledger keeps it.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.compliance import DialRequest, Facts, Permit, Purpose, Refused, check, load_rulebook
from relay.outcomes import Blame, Ending, Reason
from relay.store import CallRecord, Store, TranscriptLine
from relay.store.chain import Integrity, SealedEntry, Verification, verify
from relay.store.records import stamp
from relay.web.evidence import evidence_routes, pack
from tests.store.conftest import a_call
from tests.web.api import BEARER, KNOWN, NOW, NUMBER, OTHER, ApiClient, client_of


@pytest.fixture
def client(store: Store) -> ApiClient:
    return client_of(evidence_routes(store, KNOWN))


@pytest.fixture
async def call(store: Store) -> CallRecord:
    """A call that was judged, held and ended."""
    record = await store.add(a_call(to=NUMBER))
    rulebook = load_rulebook()
    asked = DialRequest(record.id, 1, NUMBER, OTHER, Purpose.INFORMATIONAL, "Acme")

    def judge(facts: Facts) -> Permit | Refused:
        return check(asked, facts, rulebook, NOW)

    await store.permit(asked, judge)
    record.note(NOW, "ringing")
    record.transcribe(TranscriptLine("callee", "My name is Ada.", NOW, interrupted=False))
    record.ending, record.ended_at = Ending(Blame.NOBODY, Reason.GOODBYE), NOW + timedelta(seconds=9)
    await store.save(record)
    return record


async def fetch(client: ApiClient, call_id: str) -> bytes:
    answer = await client.get(f"/v1/calls/{call_id}/evidence", headers=BEARER)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/gzip"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{call_id}.tar.gz"'
    content = await answer.get_data(as_text=False)
    assert isinstance(content, bytes)
    return content


def unpack(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = [(member, tar.extractfile(member)) for member in tar.getmembers()]
        return {member.name.partition("/")[2]: file.read() for member, file in members if file is not None}


def chain_of(files: dict[str, bytes]) -> list[SealedEntry]:
    return [
        SealedEntry(
            **{
                **entry,
                "at": datetime.fromisoformat(entry["at"]),
                "salt": entry["salt"] and bytes.fromhex(entry["salt"]),
            }
        )
        for entry in json.loads(files["chain.json"])["entries"]
    ]


async def test_the_archive_holds_all_that_is_on_record(
    client: ApiClient, store: Store, call: CallRecord
) -> None:
    files = unpack(await fetch(client, call.id))
    assert set(files) == {
        "record.json",
        "verdicts.json",
        "script.json",
        "disclosure.json",
        "transcript.json",
        "events.jsonl",
        "chain.json",
        "verification.json",
        "SHA256SUMS",
    }
    kept = await store.get(call.id)
    assert kept is not None
    assert json.loads(files["record.json"]) == kept.as_json()
    assert [line["text"] for line in json.loads(files["transcript.json"])] == ["My name is Ada."]
    assert [json.loads(line)["event"] for line in files["events.jsonl"].splitlines()] == ["ringing"]
    assert json.loads(files["verification.json"]) == {"integrity": "intact", "where": ""}


async def test_the_verdict_is_there_with_every_rule(client: ApiClient, call: CallRecord) -> None:
    (verdict,) = json.loads(unpack(await fetch(client, call.id))["verdicts.json"])
    told = {finding["rule"] for finding in verdict["findings"]}
    assert {rule.id for rule in load_rulebook().rules} <= told


OURS = {"event": "script", "profile": "p", "session": "s"}
FIRST, SECOND = {**OURS, "opening": "o1"}, {**OURS, "opening": "o2"}
HEARD = {"event": "opening heard", "mark": "opening.1.0"}
SAID_FIRST = {**OURS, "opening": "o1", "disclosure": "d1"}
STREAM, REDIRECT = ({"event": "disclosure heard", "by": by} for by in ("stream", "redirect"))


def files_of(events: list[dict[str, str]]) -> dict[str, bytes]:
    """The pack of a call of which these events are on record."""
    record = a_call()
    for event in events:
        record.note(NOW, event["event"], **{key: event[key] for key in event if key != "event"})
    return unpack(pack(record, [], [], Verification(Integrity.INTACT)))


@pytest.mark.parametrize(
    ("events", "text", "mark"),
    [
        ([], None, None),
        ([FIRST], "o1", None),
        ([FIRST, HEARD], "o1", "opening.1.0"),
        ([FIRST, SECOND, HEARD], "o2", "opening.1.0"),
        ([FIRST, HEARD, OURS], "o1", "opening.1.0"),
    ],
)
def test_the_disclosure_is_proven_by_the_echo_of_its_mark(
    events: list[dict[str, str]], text: str | None, mark: str | None
) -> None:
    files = files_of(events)
    heard_at = None if mark is None else stamp(NOW)
    proof = {"mode": "greeting", "text_sha256": text, "heard_at": heard_at, "mark": mark, "followed_by": None}
    assert json.loads(files["disclosure.json"]) == proof
    scripts = [event for event in events if event["event"] == "script"]
    assert json.loads(files["script.json"]) == [{"at": stamp(NOW), **script} for script in scripts]


@pytest.mark.parametrize(
    ("events", "followed_by"),
    [
        ([SAID_FIRST], None),
        ([SAID_FIRST, HEARD], None),  # the greeting is not the disclosure
        ([SAID_FIRST, STREAM, HEARD], "stream"),
        ([SAID_FIRST, REDIRECT, SAID_FIRST, HEARD], "redirect"),
    ],
)
def test_what_the_carrier_speaks_is_proven_by_what_it_does_only_afterwards(
    events: list[dict[str, str]], followed_by: str | None
) -> None:
    heard_at = None if followed_by is None else stamp(NOW)
    proof = {"mode": "carrier", "text_sha256": "d1", "heard_at": heard_at, "mark": None}
    found = json.loads(files_of(events)["disclosure.json"])
    assert found == {**proof, "followed_by": followed_by}


async def test_the_chain_can_be_verified_by_whoever_has_the_archive(
    client: ApiClient, call: CallRecord
) -> None:
    chain = chain_of(unpack(await fetch(client, call.id)))
    assert verify(call.id, chain, len(chain), chain[-1].link) == Verification(Integrity.INTACT)


async def test_the_sums_are_those_that_sha256sum_checks(
    client: ApiClient, call: CallRecord, tmp_path: Path
) -> None:
    with tarfile.open(fileobj=io.BytesIO(await fetch(client, call.id))) as tar:
        tar.extractall(tmp_path, filter="data")
    checked = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = await trio.run_process(checked, cwd=tmp_path / call.id, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


async def test_the_same_record_gives_the_same_archive(client: ApiClient, call: CallRecord) -> None:
    assert await fetch(client, call.id) == await fetch(client, call.id)


async def test_what_was_erased_is_said_to_be_erased_and_not_broken(
    client: ApiClient, store: Store, call: CallRecord
) -> None:
    await store.erase(NUMBER, "ada", NOW)
    archive = await fetch(client, call.id)
    files = unpack(archive)
    assert json.loads(files["verification.json"])["integrity"] == "erased"
    assert not [name for name, file in files.items() if b"Ada" in file or NUMBER.encode() in file]
    chain = chain_of(files)
    assert verify(call.id, chain, len(chain), chain[-1].link).integrity is Integrity.ERASED


def test_a_record_that_was_altered_is_packed_with_that_word() -> None:
    word = Verification(Integrity.BROKEN, "entry 1 is missing")
    files = unpack(pack(a_call(), [], [], word))
    assert json.loads(files["verification.json"]) == {"integrity": "broken", "where": "entry 1 is missing"}


async def test_a_call_can_be_verified_alone(client: ApiClient, call: CallRecord) -> None:
    answer = await client.get(f"/v1/calls/{call.id}/verification", headers=BEARER)
    assert await answer.get_json() == {"id": call.id, "integrity": "intact", "where": ""}


@pytest.mark.parametrize("what", ["evidence", "verification"])
async def test_there_is_no_evidence_of_a_call_that_never_was(client: ApiClient, what: str) -> None:
    answer = await client.get(f"/v1/calls/call_0/{what}", headers=BEARER)
    assert answer.status_code == 404
    found: dict[str, Any] = await answer.get_json()
    assert found["error"]["code"] == "unknown-call"


@pytest.mark.parametrize("what", ["evidence", "verification"])
async def test_evidence_is_for_who_has_the_token(client: ApiClient, call: CallRecord, what: str) -> None:
    assert (await client.get(f"/v1/calls/{call.id}/{what}")).status_code == 401
