"""What the gate said of each attempt, for the ledger in memory: by call, by number, and by the hour.

Knows no clock and no call; nothing in it is searched through, so that a campaign of thousands stays quick.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay.compliance.case import DialRequest
from relay.compliance.gate import Permit, Refused
from relay.compliance.verdict import Verdict


@dataclass(slots=True)
class _Attempt:
    verdict: Verdict
    permitted_at: datetime | None


class Permits:
    """The newest answer for each attempt; one that was permitted stays counted."""

    def __init__(self) -> None:
        self._of_call: defaultdict[str, dict[int, _Attempt]] = defaultdict(dict)
        self._calls_to: defaultdict[str, dict[str, None]] = defaultdict(dict)  # a set that keeps its order
        self._dials: list[datetime] = []  # all permits, sorted

    def keep(self, request: DialRequest, answer: Permit | Refused) -> None:
        """Store one answer."""
        earlier = self._of_call[request.call_id].get(request.attempt)
        permitted_at = earlier.permitted_at if earlier else None
        if isinstance(answer, Permit):
            if permitted_at is not None:
                self._dials.remove(permitted_at)
            permitted_at = answer.issued_at
            bisect.insort(self._dials, permitted_at)
        self._of_call[request.call_id][request.attempt] = _Attempt(answer.verdict, permitted_at)
        self._calls_to[request.to][request.call_id] = None

    def count_since(self, at: datetime) -> int:
        """How many permits there were."""
        return len(self._dials) - bisect.bisect_right(self._dials, at)

    def attempts(self, number: str, besides: str) -> list[datetime]:
        """When each call to a number was last permitted."""
        permitted = (
            [attempt.permitted_at for attempt in self._of_call[call_id].values() if attempt.permitted_at]
            for call_id in self._calls_to.get(number, ())
            if call_id != besides
        )
        return [max(instants) for instants in permitted if instants]

    def verdicts(self, call_id: str) -> list[dict[str, Any]]:
        """The newest of each attempt of a call."""
        return [attempt.verdict.as_json() for _, attempt in sorted(self._of_call.get(call_id, {}).items())]

    def verdicts_on(self, number: str) -> list[dict[str, Any]]:
        """Those of all calls to a number."""
        return [verdict for call_id in self._calls_to.get(number, ()) for verdict in self.verdicts(call_id)]

    def detach(self, number: str, *, besides: Collection[str] = ()) -> None:
        """Forget that a number was meant, besides in these calls."""
        meant = self._calls_to.pop(number, {})
        self._calls_to[number] = {call_id: None for call_id in meant if call_id in besides}
