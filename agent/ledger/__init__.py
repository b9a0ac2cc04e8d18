"""``ledger.db``: signed records, order journal, boundary readings, register, keys' epoch.

SQLite, WAL, ``synchronous=FULL``; one writer thread; one process (``flock``). Nothing here decides anything: it makes
durable what others decided, before they act.
"""

from agent.ledger.store import Appended, Ledger, NewRecord, Txn

__all__ = ["Appended", "Ledger", "NewRecord", "Txn"]
