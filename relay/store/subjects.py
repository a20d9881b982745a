"""What the records about one phone number add up to.

Knows no database and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from relay.compliance.case import Consent, Revocation, Suppression
from relay.store.ledger import ListEntry, Listing
from relay.store.records import stamp

REMEMBERED = timedelta(days=7)  # the longest period that a rule looks back


def standing(history: Iterable[ListEntry]) -> tuple[Suppression, ...]:
    """What a history of entries about one number adds up to, the newest word of each list."""
    newest = {entry.list: entry for entry in history}
    return tuple(Suppression(e.list, e.at) for e in newest.values() if e.listing is Listing.ADDED)


def recordings_in(events: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The carrier's recordings that these lines name: one that was begun is named again when it is ready."""
    named = (str(event["recording_sid"]) for event in events if event.get("recording_sid"))
    return tuple(dict.fromkeys(named))


def subject_as_json(
    number: str,
    of_calls: list[dict[str, Any]],
    of_attempts: list[dict[str, Any]],
    listed: Iterable[ListEntry],
    given: Iterable[Consent],
    taken: Iterable[Revocation],
) -> dict[str, Any]:
    """What a person is told who asks what we know of them."""
    return {
        "number": number,
        "calls": of_calls,
        "attempts": of_attempts,
        "suppressions": listings_as_json(listed),
        **consents_as_json(given, taken),
    }


def listings_as_json(listed: Iterable[ListEntry]) -> list[dict[str, Any]]:
    """What the lists said of a number."""
    return [
        {"list": e.list, "listing": e.listing.value, "source": e.source, "who": e.who, "at": stamp(e.at)}
        for e in listed
    ]


def consents_as_json(
    given: Iterable[Consent], taken: Iterable[Revocation]
) -> dict[str, list[dict[str, Any]]]:
    """What it agreed to, and what of that was taken back."""
    return {
        "consents": [
            {
                "form": c.form.value,
                "purpose": c.purpose.value,
                "seller": c.seller,
                "given_at": stamp(c.given_at),
                "text_shown": c.text_shown,
                "source": c.source,
                "expires_at": c.expires_at and stamp(c.expires_at),
            }
            for c in given
        ],
        "revocations": [{"at": stamp(r.at), "purpose": r.purpose, "seller": r.seller} for r in taken],
    }
