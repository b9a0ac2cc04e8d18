"""What a witness remembers: one size and root per log, and every proof of two histories. On disk before it answers."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from grid.errors import GridError
from wire.checkpoints import Submission
from wire.notes import NoteKey
from wire.witness import Held, Verdict, judge

DDL = """
CREATE TABLE IF NOT EXISTS held (
  origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS split (
  id INTEGER PRIMARY KEY, origin TEXT NOT NULL, why TEXT NOT NULL, note BLOB NOT NULL, held BLOB NOT NULL,
  at INTEGER NOT NULL, UNIQUE (origin, note)
);
CREATE TRIGGER IF NOT EXISTS held_grows BEFORE UPDATE ON held WHEN NEW.size < OLD.size
  BEGIN SELECT RAISE(ABORT, 'a witness never goes back'); END;
"""


class WitnessStore:
    """One SQLite file; checking and keeping are one transaction.

    Raises:
        GridError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(DDL)
            path.chmod(0o600)
        except (sqlite3.Error, OSError) as error:
            raise GridError(f"{path}: the witness's store cannot be opened: {error}") from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def held(self, origin: str) -> Held | None:
        """Newest checkpoint cosigned of a log."""
        with self._lock:
            return self._held(origin)

    def _held(self, origin: str) -> Held | None:
        row = self._db.execute("SELECT size, root FROM held WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else Held(int(row[0]), bytes(row[1]))

    def note(self, origin_sha256: str, sha256_of: dict[str, str]) -> bytes | None:
        """The newest note of the log whose origin has this hash."""
        origin = sha256_of.get(origin_sha256)
        with self._lock:
            row = self._db.execute("SELECT note FROM held WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else bytes(row[0])

    def logs(self) -> list[tuple[str, int, int]]:
        """``(origin, size, at_ms)`` of every log."""
        with self._lock:
            return self._db.execute("SELECT origin, size, at FROM held ORDER BY origin").fetchall()

    def splits(self) -> list[tuple[str, str, int]]:
        """``(origin, why, at_ms)`` of every proof of two histories."""
        with self._lock:
            return self._db.execute("SELECT origin, why, at FROM split ORDER BY id").fetchall()

    def decide(self, submission: Submission, origin: str, keys: Sequence[NoteKey], now_ms: int) -> Verdict:
        """Judge a submission and keep what follows, as one transaction.

        Raises:
            sqlite3.Error: it could not be kept; nothing may be cosigned.
        """
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                verdict = judge(self._held(origin), submission, keys)
                if verdict.error is None and verdict.checkpoint is not None:
                    self._db.execute(
                        "INSERT INTO held VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE SET "
                        "size=excluded.size, root=excluded.root, note=excluded.note, at=excluded.at",
                        (origin, verdict.checkpoint.size, verdict.checkpoint.root, submission.note, now_ms),
                    )
                elif verdict.misbehaviour:
                    self._db.execute(
                        "INSERT OR IGNORE INTO split (origin, why, note, held, at) "
                        "SELECT ?, ?, ?, note, ? FROM held WHERE origin = ?",
                        (origin, verdict.text, submission.note, now_ms, origin),
                    )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            return verdict
