"""What somebody else wishes of a call that this node has, as the ledger brought it.

Knows no store, no HTTP and no other call; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog

from relay.line import Document, Line
from relay.outcomes import Blame, Ending, Reason, Refusal
from relay.parting import TRANSFER
from relay.store import Wish, WishKind
from relay.store.diary import from_fields
from relay.wire.callbacks import CarrierStatus, StreamEvent

log = structlog.get_logger(subsystem="calls")


def grant(line: Line, wish: Wish) -> None:
    """Do what somebody left in the ledger for the node that has this call."""
    fields = wish.fields
    match wish.kind:
        case WishKind.GOODBYE | WishKind.HANG_UP:
            line.hang_up(goodbye=wish.kind is WishKind.GOODBYE)
        case WishKind.STOP:
            line.stop()
        case WishKind.KEY:
            line.key_pressed(Document.OPTED_OUT if fields["is_opt_out"] else Document.HANG_UP)
        case WishKind.NOTED:
            line.record.take_in(from_fields(fields["entries"]))
        case WishKind.ANSWERED:
            line.answered(datetime.fromisoformat(fields["at"]))
        case _ if not line.learn_sid(fields["sid"]):
            log.warning("callback for another call", call_id=wish.call_id)
        case WishKind.FETCHED:
            line.record.take_in(from_fields(fields["entries"]))
            refusal = Refusal(*fields["refusal"]) if fields["refusal"] else None
            line.fetched_elsewhere(fields["attempt"], datetime.fromisoformat(fields["at"]), refusal)
        case WishKind.CALLBACK:
            line.noted("carrier", {"status": fields["status"]})
            line.carrier_said(CarrierStatus(fields["status"]), datetime.fromisoformat(fields["at"]))
        case WishKind.ANSWERED_BY:
            line.machine_detected(fields["who"])
        case WishKind.STREAM:
            follow_stream(line, fields)
        case WishKind.TRANSFERRED:
            blame, reason, detail = fields["ending"]
            line.noted(TRANSFER, fields["news"])
            line.transfer_over(Ending(Blame(blame), Reason(reason), detail))


def follow_stream(line: Line, told: Mapping[str, Any]) -> None:
    """The carrier's word on a stream. One that it gave up ends the call, unless a later one is there.

    Of one that never came it may say so before it fetches the next document.
    """
    line.noted("stream", {"what": told["what"]})
    if told["what"] == StreamEvent.ERROR and told["attempt"] == line.record.attempt:
        reason = Reason.NO_STREAM if line.stream is None else Reason.LOST
        line.end(Ending(Blame.CARRIER, reason, told["error"] or "stream-error"))
