"""The bulk outbox: one row per batch, numbered within this process start (``boot``)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.errors import LedgerError
from agent.ledger.ballast import BALLAST_BYTES, free_bytes

log = structlog.get_logger()
T = TypeVar("T")

DDL = """
CREATE TABLE IF NOT EXISTS batch (
  id INTEGER PRIMARY KEY, boot TEXT NOT NULL, n INTEGER NOT NULL, t0 INTEGER NOT NULL, cells INTEGER NOT NULL,
  n_rows INTEGER NOT NULL, packed BLOB NOT NULL, committed_ms INTEGER, UNIQUE (boot, n)
);
CREATE INDEX IF NOT EXISTS batch_open ON batch (id) WHERE committed_ms IS NULL;
"""
KEEP_MS = 24 * 3600 * 1000
LEAVE_FREE_BYTES = 2 * BALLAST_BYTES
"""Telemetry stops before the disk is full: what is left, and what the ballast frees, is for evidence and orders."""


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """One batch on disk."""

    id: int
    boot: str
    n: int
    packed: bytes


class BulkOutbox:
    """Store of batches; all work in one thread of its own."""

    def __init__(self, path: Path, *, boot: str, max_bytes: int) -> None:
        self._path = path
        self.boot = boot
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bulk")
        self.next_n = 0
        self.rows = 0
        self.cells = 0
        self.refused = 0
        self.failing: str | None = None
        """Why the last batch was refused; ``None`` once one was stored."""
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError as error:  # the disk, not the file: what waits in it must not be put away
            raise LedgerError(f"{self._path}: cannot be opened: {error}; free space, or check its owner") from error
        except sqlite3.DatabaseError as error:
            aside = self._path.with_name(f"{self._path.name}.corrupt")
            log.error("bulk_corrupt", path=str(self._path), error=str(error), moved_to=str(aside))
            for suffix in ("", "-wal", "-shm"):
                part = Path(f"{self._path}{suffix}")
                if part.exists():
                    part.replace(f"{aside}{suffix}")
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._path.chmod(0o600)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(DDL)
        return db

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except sqlite3.Error as error:
            raise LedgerError(f"{self._path}: {error}") from error

    async def put(self, packed: bytes, *, n: int, t0: int, rows: int, cells: int) -> bool:
        """Store batch ``n``. False when the disk or the byte cap refuses it: counted, never silent."""

        def work() -> str | None:
            try:
                if free_bytes(self._path) < LEAVE_FREE_BYTES:
                    return f"less than {LEAVE_FREE_BYTES} bytes free on the disk"
                used = self._used_bytes()
                if used + len(packed) > self._max_bytes:
                    self._db.execute(
                        "DELETE FROM batch WHERE committed_ms IS NOT NULL AND id IN "
                        "(SELECT id FROM batch WHERE committed_ms IS NOT NULL ORDER BY id LIMIT 200)"
                    )
                    if self._used_bytes() + len(packed) > self._max_bytes:
                        return f"the cap of {self._max_bytes} bytes is reached"
                self._db.execute(
                    "INSERT INTO batch (boot, n, t0, cells, n_rows, packed) VALUES (?,?,?,?,?,?)",
                    (self.boot, n, t0, cells, rows, packed),
                )
            except (sqlite3.Error, OSError) as error:
                return str(error)
            return None

        why = await self._call(work)
        if (why is None) is not (self.failing is None):
            log.error("bulk_refused", path=str(self._path), reason=why) if why else log.info("bulk_stored_again")
        self.failing = why
        if why is None:
            self.next_n = n + 1
            self.rows += rows
            self.cells += cells
        else:
            self.refused += 1
        return why is None

    def _used_bytes(self) -> int:
        pages, free, size = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    async def open_batches(self, after_id: int, limit: int) -> list[StoredBatch]:
        """Batches central has not confirmed, oldest first."""
        rows = await self._call(
            lambda: self._db.execute(
                "SELECT id, boot, n, packed FROM batch WHERE committed_ms IS NULL AND id > ? ORDER BY id LIMIT ?",
                (after_id, limit),
            ).fetchall()
        )
        return [StoredBatch(int(i), str(b), int(n), bytes(p)) for i, b, n, p in rows]

    async def newest_open(self) -> StoredBatch | None:
        """The youngest unconfirmed batch."""
        rows = await self._call(
            lambda: self._db.execute(
                "SELECT id, boot, n, packed FROM batch WHERE committed_ms IS NULL ORDER BY id DESC LIMIT 1"
            ).fetchall()
        )
        return StoredBatch(int(rows[0][0]), str(rows[0][1]), int(rows[0][2]), bytes(rows[0][3])) if rows else None

    async def mark(self, boot: str, first: int, last: int, at_ms: int) -> int:
        """Central has these; they are kept 24 h more. Returns how many were newly confirmed."""

        def work() -> int:
            changed = self._db.execute(
                "UPDATE batch SET committed_ms=? WHERE boot=? AND n BETWEEN ? AND ? AND committed_ms IS NULL",
                (at_ms, boot, first, last),
            ).rowcount
            self._db.execute("DELETE FROM batch WHERE committed_ms < ?", (at_ms - KEEP_MS,))
            return int(changed)

        return await self._call(work)

    async def reopen(self, boot: str, first: int, last: int) -> int:
        """Central asked for these again."""
        return await self._call(
            lambda: int(
                self._db.execute(
                    "UPDATE batch SET committed_ms=NULL WHERE boot=? AND n BETWEEN ? AND ?", (boot, first, last)
                ).rowcount
            )
        )

    async def backlog(self) -> tuple[int, int]:
        """(unconfirmed batches, all stored batches)."""
        row: tuple[Any, Any] = await self._call(
            lambda: self._db.execute("SELECT count(*) - count(committed_ms), count(*) FROM batch").fetchone()
        )
        return int(row[0]), int(row[1])

    async def close(self) -> None:
        """Close after the last write."""
        await self._call(self._db.close)
        self._pool.shutdown(wait=True)
