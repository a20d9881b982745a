"""What is remembered of calls: the records and the interface to whatever keeps them.

Knows nothing of how a call is made; who keeps the records is behind `Store`.
"""

from relay.store.books import Account, Books, Callback, Slot
from relay.store.ledger import (
    LEASE_SECONDS,
    PAST_LIMIT_SECONDS,
    ListEntry,
    Listing,
    Retention,
    Store,
    Wish,
    WishKind,
    Written,
)
from relay.store.memory import MemoryStore
from relay.store.records import CallRecord, Entry, Kind, Status, StoreError, TranscriptLine
from relay.store.spool import Spool, open_spool

__all__ = [
    "LEASE_SECONDS",
    "PAST_LIMIT_SECONDS",
    "Account",
    "Books",
    "CallRecord",
    "Callback",
    "Entry",
    "Kind",
    "ListEntry",
    "Listing",
    "MemoryStore",
    "Retention",
    "Slot",
    "Spool",
    "Status",
    "Store",
    "StoreError",
    "TranscriptLine",
    "Wish",
    "WishKind",
    "Written",
    "open_spool",
]
