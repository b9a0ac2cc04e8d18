"""``bulk.db``: telemetry batches waiting for central's commit. It may lose its tail in a power cut, and says so.

SQLite, WAL, ``synchronous=NORMAL``. Separate from the ledger, so that bulk can never crowd out evidence.
"""

from agent.outbox.bulk import BulkOutbox, StoredBatch

__all__ = ["BulkOutbox", "StoredBatch"]
