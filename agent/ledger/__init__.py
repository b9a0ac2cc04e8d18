"""``ledger.db``: signed records, order journal, boundary readings, register, keys' epoch.

SQLite, WAL, ``synchronous=FULL``; one writer thread; one process (``flock``). Nothing here decides anything: it makes
durable what others decided, before they act.
"""

from agent.ledger.store import POSITIONS, Appended, Ledger, NewRecord, Txn

__all__ = ["POSITIONS", "Appended", "Ledger", "NewRecord", "Txn"]
