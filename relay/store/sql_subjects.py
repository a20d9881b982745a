"""The statements about phone numbers: what they asked of us, what we did to them, and how they are forgotten.

Knows no thread, no deadline, no engine and no key: a number comes with its subject, the keyed hash of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from relay.compliance.case import (
    OWN_LIST,
    SPENDING,
    Consent,
    ConsentForm,
    DialRequest,
    Facts,
    ListCopy,
    Purpose,
    Revocation,
)
from relay.compliance.gate import Permit, Refused
from relay.compliance.verdict import refused
from relay.outcomes import Refusal
from relay.store import sql_books, sql_calls, sql_holds
from relay.store.chain import canonical
from relay.store.ledger import Erasure, Judge, ListEntry, Listing, Purge, Retention
from relay.store.records import Kind, Status
from relay.store.subjects import REMEMBERED, recordings_in, standing, subject_as_json
from relay.store.tables import (
    attempts,
    calls,
    consents,
    entries,
    list_copies,
    nonces,
    revocations,
    suppressions,
    wishes,
)

_ENDED = calls.c.rank >= Status.ENDED.rank
CLOCKS_APART_SECONDS = 2.0  # a permit is good for one; a clock that is further off may be off by hours
_PERMITS = 0x7065726D  # PostgreSQL's lock under which permits are given: any number, the same on every node


# ---- what is on record -----------------------------------------------------------------------------------


def facts(connection: sa.Connection, number: str, subject: str, now: datetime, besides: str) -> Facts:
    """All that a gate may ask about a number."""
    since = now - REMEMBERED
    dialled = sa.select(sa.func.max(attempts.c.permitted_at)).where(
        attempts.c.subject == subject, attempts.c.permitted_at > since, attempts.c.call_id != besides
    )
    conversed = sa.select(calls.c.conversed_at).where(
        calls.c.subject == subject, calls.c.conversed_at > since, calls.c.id != besides
    )
    return Facts(
        number=number,
        suppressions=standing(listings(connection, subject)),
        consents=tuple(_consents(connection, subject)),
        revocations=tuple(_revocations(connection, subject)),
        lists=tuple(ListCopy(row.list, row.as_of) for row in connection.execute(sa.select(list_copies))),
        attempts=tuple(sorted(connection.execute(dialled.group_by(attempts.c.call_id)).scalars())),
        conversations=tuple(sorted(connection.execute(conversed).scalars())),
        dials=sql_calls.dials_since(connection, now - SPENDING),
    )


def _consents(connection: sa.Connection, subject: str) -> list[Consent]:
    given = sa.select(consents).where(consents.c.subject == subject).order_by(consents.c.id)
    return [
        Consent(
            ConsentForm(row.form),
            Purpose(row.purpose),
            row.seller,
            row.given_at,
            row.text_shown,
            row.source,
            row.expires_at,
        )
        for row in connection.execute(given)
    ]


def _revocations(connection: sa.Connection, subject: str) -> list[Revocation]:
    taken = sa.select(revocations).where(revocations.c.subject == subject).order_by(revocations.c.id)
    return [
        Revocation(row.at, row.purpose and Purpose(row.purpose), row.seller)
        for row in connection.execute(taken)
    ]


def listings(connection: sa.Connection, subject: str) -> list[ListEntry]:
    """All entries about one number."""
    of_subject = sa.select(suppressions).where(suppressions.c.subject == subject)
    return [_list_entry(row) for row in connection.execute(of_subject.order_by(suppressions.c.id))]


def _list_entry(row: Any) -> ListEntry:
    return ListEntry(
        row.number, Listing(row.listing), row.source, row.who, row.at, row.list, row.subject, row.id
    )


# ---- the gate --------------------------------------------------------------------------------------------


def permit(
    connection: sa.Connection, request: DialRequest, subject: str, judge: Judge, clock: Callable[[], datetime]
) -> Permit | Refused:
    """Judge and store in one step, one permit at a time: some caps are of a number, one is of all."""
    _take_turn(connection)
    now = clock()
    answer = _by_one_clock(judge(facts(connection, request.to, subject, now, besides=request.call_id)), now)
    values = {
        "subject": subject,
        "judged_at": answer.verdict.checked_at,
        "verdict": canonical(answer.verdict.as_json()),
    }
    if isinstance(answer, Permit):
        values["permitted_at"] = answer.issued_at
    here = (attempts.c.call_id == request.call_id) & (attempts.c.attempt == request.attempt)
    if not connection.execute(attempts.update().where(here).values(values)).rowcount:
        key = {"call_id": request.call_id, "attempt": request.attempt}
        connection.execute(attempts.insert().values(key | values))
    return answer


def _by_one_clock(answer: Permit | Refused, now: datetime) -> Permit | Refused:
    """Refuse where hours and caps were held against another clock than that which all nodes share."""
    apart_seconds = abs((answer.verdict.checked_at - now).total_seconds())
    if apart_seconds <= CLOCKS_APART_SECONDS:
        return answer
    why = f"The clock of this node is {apart_seconds:.0f} s apart from the ledger's; set it right."
    finding = refused("clock", "clock-apart", why)
    verdict = replace(answer.verdict, findings=(finding, *answer.verdict.findings))
    return Refused(Refusal(finding.code, finding.explanation), verdict)


def _take_turn(connection: sa.Connection) -> None:
    """One at a time of what gives permits and what takes the ground from under them.

    Without it a number could be listed while a call to it is being permitted: neither would see the other.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer anyway
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PERMITS)))


def verdicts(connection: sa.Connection, call_id: str) -> list[dict[str, Any]]:
    """The newest verdict of each attempt."""
    judged = sa.select(attempts.c.verdict).where(attempts.c.call_id == call_id).order_by(attempts.c.attempt)
    return [json.loads(verdict) for verdict in connection.execute(judged).scalars()]


# ---- lists and consents ----------------------------------------------------------------------------------


def suppress(connection: sa.Connection, listed: Sequence[ListEntry]) -> None:
    """Add entries, whose subjects are set, and stop the live calls to what was added."""
    _take_turn(connection)
    columns = ("subject", "number", "list", "listing", "source", "who", "at")
    rows = [{name: getattr(entry, name) for name in columns} for entry in listed]
    if rows:
        connection.execute(suppressions.insert(), rows)
    # Our own list is somebody's word to us; an imported one counts before a dial, for purposes that ask.
    added = {e.subject for e in listed if e.listing is Listing.ADDED and e.list == OWN_LIST}
    if added:
        sql_holds.stop_subjects(connection, added, Revocation(listed[0].at))


def list_page(connection: sa.Connection, after: int, limit: int) -> list[ListEntry]:
    """Entries in order, behind a position."""
    page = sa.select(suppressions).where(suppressions.c.id > after).order_by(suppressions.c.id).limit(limit)
    return [_list_entry(row) for row in connection.execute(page)]


def renew_list(connection: sa.Connection, name: str, as_of: datetime) -> None:
    """Set the date of a list's copy."""
    renewed = list_copies.update().where(list_copies.c.list == name).values(as_of=as_of)
    if not connection.execute(renewed).rowcount:
        connection.execute(list_copies.insert().values(list=name, as_of=as_of))


def consent(connection: sa.Connection, subject: str, given: Consent) -> None:
    """Insert a consent."""
    fields = {name: getattr(given, name) for name in Consent.__dataclass_fields__}
    connection.execute(consents.insert().values(subject=subject, **fields))


def revoke(connection: sa.Connection, subject: str, taken: Revocation) -> None:
    """Insert a revocation, and stop the live calls that it concerns."""
    _take_turn(connection)
    fields = {name: getattr(taken, name) for name in Revocation.__dataclass_fields__}
    connection.execute(revocations.insert().values(subject=subject, **fields))
    sql_holds.stop_subjects(connection, {subject}, taken)


# ---- privacy ---------------------------------------------------------------------------------------------


def export_subject(connection: sa.Connection, number: str, subject: str) -> dict[str, Any]:
    """Everything about one number."""
    ids = connection.execute(
        sa.select(calls.c.id).where(calls.c.subject == subject).order_by(calls.c.started_at)
    ).scalars()
    records = [sql_calls.get(connection, call_id) for call_id in list(ids)]
    judged = sa.select(attempts.c.verdict).where(attempts.c.subject == subject).order_by(attempts.c.judged_at)
    told = subject_as_json(
        number,
        [record.as_json() for record in records if record is not None],
        [json.loads(verdict) for verdict in connection.execute(judged).scalars()],
        listings(connection, subject),
        _consents(connection, subject),
        _revocations(connection, subject),
    )
    return told | sql_books.about(connection, subject)


def erase(connection: sa.Connection, subject: str, who: str, at: datetime) -> Erasure:
    """Forget a person. Consents stay, which name nobody: they prove that what was done was allowed."""
    of_subject = sa.select(calls.c.id, calls.c.rank).where(calls.c.subject == subject).with_for_update()
    found = connection.execute(of_subject.order_by(calls.c.started_at)).all()
    deferred = tuple(row.id for row in found if row.rank < Status.ENDED.rank)
    erased = tuple(row.id for row in found if row.rank >= Status.ENDED.rank)
    recordings = _recordings(connection, erased)
    _empty(connection, erased)
    forgotten = attempts.c.subject == subject, attempts.c.call_id.not_in(deferred)
    connection.execute(attempts.update().where(*forgotten).values(subject=None))
    sql_books.forget(connection, subject)
    if not deferred:  # a live call still needs its number, and the list its own
        mine = suppressions.c.subject == subject, suppressions.c.number.is_not(None)
        connection.execute(suppressions.update().where(*mine).values(number=None))
        entry = ListEntry(None, Listing.ADDED, "erasure", who, at, subject=subject)
        suppress(connection, [entry])
    return Erasure(erased, deferred, recordings)


def _recordings(connection: sa.Connection, ids: Sequence[str]) -> tuple[str, ...]:
    theirs = entries.c.call_id.in_(ids) & (entries.c.kind == Kind.EVENT.value)
    named = sa.select(entries.c.body).where(theirs, entries.c.body.contains("recording_sid"))
    return recordings_in(json.loads(body) for body in connection.execute(named).scalars())


def erased(connection: sa.Connection, ids: Collection[str]) -> set[str]:
    """Which of these calls hold nothing of anybody any more."""
    return set(connection.execute(sa.select(calls.c.id).where(calls.c.id.in_(ids), calls.c.erased)).scalars())


def _empty(connection: sa.Connection, ids: Sequence[str]) -> None:
    nothing = {"subject": None, "number": None, "intent": "{}", "details": "{}", "detail": None}
    nothing |= {
        "idempotency_key": None,
        "request_digest": None,
    }  # a number may be in the one, and shine through
    connection.execute(calls.update().where(calls.c.id.in_(ids)).values(erased=True, **nothing))
    connection.execute(wishes.delete().where(wishes.c.call_id.in_(ids)))
    sql_calls.blank(connection, ids)


def purge(connection: sa.Connection, retention: Retention, now: datetime) -> Purge:
    """One pass of the retention job; bounded, so that it is run again until it finds nothing."""
    spoken = _past(connection, calls.c.transcript_purged, now, retention.transcript_seconds)
    sql_calls.blank(connection, spoken, (Kind.LINE, Kind.TOOL))
    connection.execute(calls.update().where(calls.c.id.in_(spoken)).values(transcript_purged=True))
    whole = _past(connection, calls.c.erased, now, retention.evidence_seconds)
    _empty(connection, whole)
    connection.execute(attempts.update().where(attempts.c.call_id.in_(whole)).values(subject=None))
    sql_books.forget_calls(connection, whole)
    old = nonces.c.spent_at <= now - timedelta(seconds=retention.nonce_seconds)
    spent = connection.execute(nonces.delete().where(old)).rowcount
    connection.execute(wishes.delete().where(wishes.c.call_id.in_(sa.select(calls.c.id).where(_ENDED))))
    return Purge(len(spoken), len(whole), spent)


PURGED_AT_ONCE = 500  # calls in one pass: it holds the one writer of an SQLite file for some 50 ms


def _past(connection: sa.Connection, done: sa.Column[Any], now: datetime, seconds: float) -> list[str]:
    old = calls.c.ended_at <= now - timedelta(seconds=seconds)
    past = sa.select(calls.c.id).where(_ENDED, old, done.is_(False)).limit(PURGED_AT_ONCE)
    return list(connection.execute(past).scalars())
