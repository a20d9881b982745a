"""What a ledger promises of phone numbers: nothing is forgotten until it must be, and then all of it.

Must not know which ledger it is talking to, nor any rule of the gate.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trio

from relay.compliance.case import (
    Consent,
    ConsentForm,
    DialRequest,
    Facts,
    ListCopy,
    Purpose,
    Revocation,
    Suppression,
)
from relay.compliance.gate import Permit, Refused
from relay.compliance.verdict import Verdict, passed, refused
from relay.outcomes import Blame, Ending, Reason, Refusal
from relay.store import CallRecord, Store, TranscriptLine
from relay.store.chain import Integrity
from relay.store.ledger import Judge, ListEntry, Listing, Purge, Retention, Wish, WishKind
from relay.store.records import Entry, Kind
from tests.store.conftest import NOW, NUMBER, a_call

OTHER = "+12025550199"
ADDED = ListEntry(NUMBER, Listing.ADDED, "operator", "ada", NOW)
REMOVED = ListEntry(NUMBER, Listing.REMOVED, "operator", "ada", NOW + timedelta(seconds=1))
CONSENT = Consent(ConsentForm.WRITTEN, Purpose.TELEMARKETING, "Acme", NOW, "You agree.", "form 7")


def request(call_id: str = "call_1", attempt: int = 1, to: str = NUMBER) -> DialRequest:
    return DialRequest(call_id, attempt, to, OTHER, Purpose.INFORMATIONAL, "Acme")


def at_most(attempts: int, asked: DialRequest) -> Judge:
    """A gate with one rule."""

    def judge(facts: Facts) -> Permit | Refused:
        now = datetime.now(UTC)
        full = len(facts.attempts or ()) >= attempts
        finding = refused("cap", "cap-reached", "Enough.") if full else passed("cap", "There is room.")
        verdict = Verdict(asked.call_id, asked.attempt, "informational", now, now, "digest", (finding,))
        if full:
            return Refused(Refusal("cap-reached", "Enough."), verdict)
        return Permit(asked.call_id, asked.attempt, asked.to, now, verdict)

    return judge


async def finish(store: Store, record: CallRecord, ended_at: datetime = NOW) -> None:
    record.transcribe(TranscriptLine("callee", "My name is Ada.", ended_at, interrupted=False))
    record.ran(ended_at, "lookup", run="t1", arguments={"name": "Ada"}, result="Ada owes nothing")
    record.ending, record.ended_at = Ending(Blame.NOBODY, Reason.GOODBYE, "Ada said so"), ended_at
    await store.save(record)


async def test_an_unknown_number_has_no_history(store: Store) -> None:
    assert await store.facts(NUMBER, NOW) == Facts(NUMBER, (), (), (), (), (), (), 0)


async def test_the_newest_word_of_each_list_counts(store: Store) -> None:
    state = ListEntry(NUMBER, Listing.ADDED, "import", "ada", NOW, "US-TX")
    await store.suppress([ADDED, state])
    assert set((await store.facts(NUMBER, NOW)).suppressions or ()) == {
        Suppression("own", NOW),
        Suppression("US-TX", NOW),
    }
    await store.suppress([REMOVED])
    assert (await store.facts(NUMBER, NOW)).suppressions == (Suppression("US-TX", NOW),)
    assert (await store.facts(OTHER, NOW)).suppressions == ()
    ever = [(entry.list, entry.listing) for entry in await store.listings(NUMBER)]
    assert ever == [("own", Listing.ADDED), ("US-TX", Listing.ADDED), ("own", Listing.REMOVED)]
    assert await store.listings(OTHER) == []


async def test_a_list_is_exported_as_it_grew_page_by_page(store: Store) -> None:
    await store.suppress([ADDED, REMOVED])
    await store.suppress([ListEntry(OTHER, Listing.ADDED, "import", "bob", NOW)])
    first = await store.suppressions(0, 2)
    rest = await store.suppressions(first[-1].position, 2)
    assert [(e.number, e.listing, e.source, e.who, e.at) for e in first + rest] == [
        (NUMBER, Listing.ADDED, "operator", "ada", NOW),
        (NUMBER, Listing.REMOVED, "operator", "ada", REMOVED.at),
        (OTHER, Listing.ADDED, "import", "bob", NOW),
    ]


async def test_a_number_that_is_added_stops_its_live_calls_on_every_node(store: Store) -> None:
    one, two = await store.add(a_call(owner="a")), await store.add(a_call(owner="b"))
    over = await store.add(a_call(owner="a"))
    await finish(store, over)
    await store.add(a_call(owner="a", to=OTHER))
    await store.suppress([ADDED])
    assert await store.wishes("a") == [Wish(one.id, WishKind.STOP)]
    assert await store.wishes("b") == [Wish(two.id, WishKind.STOP)]
    await store.suppress([REMOVED])
    assert await store.wishes("a") == []


async def test_consents_and_revocations_are_kept(store: Store) -> None:
    live = await store.add(a_call(owner="a"))
    await store.consent(NUMBER, CONSENT)
    await store.revoke(NUMBER, Revocation(NOW, Purpose.TELEMARKETING))
    assert await store.wishes("a") == []
    await store.revoke(NUMBER, Revocation(NOW))
    assert await store.wishes("a") == [Wish(live.id, WishKind.STOP)]
    facts = await store.facts(NUMBER, NOW)
    assert facts.consents == (CONSENT,)
    assert facts.revocations == (Revocation(NOW, Purpose.TELEMARKETING), Revocation(NOW))


@pytest.mark.parametrize(
    ("revocation", "stopped"),
    [
        (Revocation(NOW), True),
        (Revocation(NOW, purpose=Purpose.INFORMATIONAL), True),
        (Revocation(NOW, purpose=Purpose.COLLECTIONS), True),
        (Revocation(NOW, purpose=Purpose.TELEMARKETING), False),
        (Revocation(NOW, seller="Acme"), True),
        (Revocation(NOW, seller="Somebody Else"), False),
        (Revocation(NOW, purpose=Purpose.COLLECTIONS, seller="Acme"), True),
    ],
)
async def test_a_revocation_stops_the_live_calls_that_it_concerns(
    store: Store, revocation: Revocation, stopped: bool
) -> None:
    await store.add(a_call(owner="a", purpose="collections", seller="Acme"))
    await store.revoke(OTHER, revocation)
    assert await store.wishes("a") == []
    await store.revoke(NUMBER, revocation)
    assert [wish.kind for wish in await store.wishes("a")] == ([WishKind.STOP] if stopped else [])


async def test_lists_say_as_of_when_they_are_true(store: Store) -> None:
    await store.renew_list("US", NOW)
    await store.renew_list("US", NOW + timedelta(days=1))
    assert (await store.facts(NUMBER, NOW)).lists == (ListCopy("US", NOW + timedelta(days=1)),)


async def test_a_conversation_is_when_the_person_last_spoke(store: Store) -> None:
    record = await store.add(a_call())
    record.transcribe(TranscriptLine("callee", "Hello?", NOW, interrupted=False))
    record.transcribe(TranscriptLine("agent", "Hi.", NOW + timedelta(seconds=2), interrupted=False))
    await store.save(record)
    assert (await store.facts(NUMBER, NOW + timedelta(days=1))).conversations == (NOW,)
    assert (await store.facts(NUMBER, NOW + timedelta(days=1), besides=record.id)).conversations == ()
    assert (await store.facts(NUMBER, NOW + timedelta(days=8))).conversations == ()


async def test_permits_count_and_refusals_do_not(store: Store) -> None:
    first, second = request(), request("call_2")
    assert isinstance(await store.permit(first, at_most(1, first)), Permit)
    assert isinstance(await store.permit(second, at_most(1, second)), Refused)
    facts = await store.facts(NUMBER, datetime.now(UTC))
    assert len(facts.attempts or ()) == 1
    assert await store.dials_since(NOW - timedelta(days=1)) == 1
    assert [verdict["findings"] for verdict in await store.verdicts("call_2")] == [
        [
            {
                "rule": "cap",
                "outcome": "refuse",
                "explanation": "Enough.",
                "source": "relay",
                "code": "cap-reached",
            }
        ]
    ]


async def test_asking_again_for_one_attempt_does_not_count_it_twice(store: Store) -> None:
    asked = request()
    for _ in range(2):
        assert isinstance(await store.permit(asked, at_most(1, asked)), Permit)
    assert isinstance(await store.permit(asked, at_most(0, asked)), Refused)
    facts = await store.facts(NUMBER, datetime.now(UTC))
    assert len(facts.attempts or ()) == 1


async def test_requests_at_once_do_not_pass_a_cap_together(store: Store) -> None:
    answers: list[Permit | Refused] = []

    async def ask(number: int) -> None:
        asked = request(f"call_{number}")
        answers.append(await store.permit(asked, at_most(3, asked)))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(ask, number)
    assert sum(isinstance(answer, Permit) for answer in answers) == 3


async def test_requests_to_many_numbers_at_once_do_not_pass_the_spend_cap_together(store: Store) -> None:
    answers: list[Permit | Refused] = []

    async def ask(number: int) -> None:
        asked = request(f"call_{number}", to=f"+120255501{number:02}")

        def judge(facts: Facts) -> Permit | Refused:
            assert facts.dials is not None
            return at_most(3 if facts.dials < 3 else 0, asked)(facts)

        answers.append(await store.permit(asked, judge))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(ask, number)
    assert sum(isinstance(answer, Permit) for answer in answers) == 3
    now = datetime.now(UTC)
    assert (await store.facts(NUMBER, now)).dials == 3
    assert (await store.facts(NUMBER, now + timedelta(hours=1))).dials == 0


async def test_a_call_that_took_several_permits_is_one_attempt_and_as_many_dials(store: Store) -> None:
    for attempt in (1, 2):
        asked = request(attempt=attempt)
        assert isinstance(await store.permit(asked, at_most(1, asked)), Permit)
    facts = await store.facts(NUMBER, datetime.now(UTC))
    assert (len(facts.attempts or ()), facts.dials) == (1, 2)


async def test_a_person_is_told_everything_and_then_forgotten(store: Store) -> None:
    record = await store.add(a_call(variables={"name": "Ada"}))
    await store.suppress([ADDED])
    asked = request(record.id)
    await store.permit(asked, at_most(1, asked))
    await finish(store, record)
    told = await store.export_subject(NUMBER)
    assert [call["transcript"][0]["text"] for call in told["calls"]] == ["My name is Ada."]
    assert (len(told["attempts"]), len(told["suppressions"])) == (1, 1)

    erasure = await store.erase(NUMBER, "ada", NOW)
    assert (erasure.erased, erasure.deferred) == ((record.id,), ())
    found = await store.get(record.id)
    assert found is not None
    assert "Ada" not in str(found)
    assert NUMBER not in str(found)
    assert all(entry.body is None for entry in found.entries)
    assert (await store.export_subject(NUMBER))["calls"] == []
    verification = await store.verify(record.id)
    assert verification is not None
    assert verification.integrity is Integrity.ERASED


async def test_whoever_erases_is_told_what_the_carrier_still_has(store: Store) -> None:
    record = await store.add(a_call(record=True))
    record.note(NOW, "recording started", recording_sid="RE1")
    await finish(store, record)
    await store.tell(record.id, [Entry(Kind.EVENT, NOW, {"event": "recording", "recording_sid": "RE1"})])
    assert (await store.erase(NUMBER, "ada", NOW)).recordings == ("RE1",)
    assert (await store.erase(NUMBER, "ada", NOW)).recordings == ()


async def test_a_key_that_may_name_a_person_is_forgotten_with_them(store: Store) -> None:
    record = await store.add(a_call(idempotency_key=f"monday {NUMBER}", request_digest="of its body"))
    await finish(store, record)
    await store.erase(NUMBER, "ada", NOW)
    assert await store.under_key(f"monday {NUMBER}") is None
    found = await store.get(record.id)
    assert found is not None
    assert (found.idempotency_key, found.request_digest) == (None, None)


async def test_who_was_forgotten_is_still_not_called(store: Store) -> None:
    await store.suppress([ADDED])
    await store.erase(NUMBER, "ada", NOW)
    assert [entry.number for entry in await store.suppressions(0, 10)] == [None, None]
    assert (await store.facts(NUMBER, NOW)).suppressions == (Suppression("own", NOW),)


async def test_an_erased_entry_that_is_exported_and_imported_again_still_counts(store: Store) -> None:
    await store.erase(NUMBER, "ada", NOW)
    [entry] = await store.suppressions(0, 10)
    await store.suppress([entry])
    assert (await store.facts(NUMBER, NOW)).suppressions == (Suppression("own", NOW),)


async def test_a_live_call_is_erased_when_it_is_over(store: Store) -> None:
    record = await store.add(a_call())
    assert (await store.erase(NUMBER, "ada", NOW)).deferred == (record.id,)
    assert (await store.facts(NUMBER, NOW)).suppressions == ()
    await finish(store, record)
    assert (await store.erase(NUMBER, "ada", NOW)).erased == (record.id,)


async def test_each_class_is_kept_for_its_own_time(store: Store) -> None:
    old, new = await store.add(a_call()), await store.add(a_call())
    await finish(store, old, NOW - timedelta(days=2))
    await finish(store, new, NOW)
    await store.spend("token")
    days = Retention(transcript_seconds=86_400, evidence_seconds=3 * 86_400, nonce_seconds=3600)
    assert await store.purge(days, NOW) == Purge(transcripts=1, evidence=0, nonces=0)
    assert await store.purge(days, NOW) == Purge(0, 0, 0)
    found = await store.get(old.id)
    assert found is not None
    assert {entry.kind for entry in found.entries if entry.body is None} == {Kind.LINE, Kind.TOOL}
    assert found.to == NUMBER
    assert await store.purge(days, NOW + timedelta(days=2)) == Purge(1, 1, 0)
    assert (await store.purge(days, datetime.now(UTC) + timedelta(days=365))).nonces == 1
    found = await store.get(old.id)
    assert found is not None
    assert (found.to, found.transcript) == ("", [])


async def test_a_call_that_nobody_touched_is_intact(store: Store) -> None:
    record = await store.add(a_call())
    await finish(store, record)
    verification = await store.verify(record.id)
    assert verification is not None
    assert verification.integrity is Integrity.INTACT
    sealed = await store.sealed(record.id)
    assert [entry.kind for entry in sealed] == [entry.kind for entry in record.entries]
    assert await store.verify("call_of_nobody") is None
