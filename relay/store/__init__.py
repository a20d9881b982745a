"""What is remembered of calls: the records and the interface to whatever keeps them.

Knows nothing of how a call is made; who keeps the records is behind `Store`.
"""

from relay.store.ledger import Store, Written
from relay.store.memory import MemoryStore
from relay.store.records import CallRecord, Status, StoreError, TranscriptLine

__all__ = ["CallRecord", "MemoryStore", "Status", "Store", "StoreError", "TranscriptLine", "Written"]
