"""The Merkle tree over all records of a ledger, kept in the same transactions as the records.

Leaf number = ``record.idx`` − 1. On disk are the right edge (one row) and the roots of complete subtrees of 256^level
leaves (``tile``): any proof is made from at most 255 hashes per level. The writer's thread alone touches this.
"""

from __future__ import annotations

import sqlite3

from agent.errors import LedgerError
from wire.merkle import Frontier, consistency_proof, inclusion_proof, node_hash, root_of

TILE_HEIGHT = 8

DDL = """
CREATE TABLE IF NOT EXISTS tree (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, roots BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tile (level INTEGER NOT NULL, n INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, n))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoint (size INTEGER PRIMARY KEY, at INTEGER NOT NULL, note BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cosignature (
  size INTEGER NOT NULL, name TEXT NOT NULL, at_s INTEGER NOT NULL, line TEXT NOT NULL, PRIMARY KEY (size, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cosigned (size INTEGER PRIMARY KEY, at INTEGER NOT NULL, note BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS tile_fixed BEFORE UPDATE ON tile
  BEGIN SELECT RAISE(ABORT, 'the tree only grows'); END;
CREATE TRIGGER IF NOT EXISTS checkpoint_fixed BEFORE UPDATE ON checkpoint
  BEGIN SELECT RAISE(ABORT, 'a signed checkpoint is never changed'); END;
CREATE TRIGGER IF NOT EXISTS checkpoint_keep BEFORE DELETE ON checkpoint
  BEGIN SELECT RAISE(ABORT, 'a signed checkpoint is never deleted'); END;
"""


class Tree:
    """Right edge in memory, tiles on disk.

    Args:
        db: the ledger's connection.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._edge = Frontier()

    def load(self) -> None:
        """Read the edge; a ledger written before there was a tree gets its tree here, as one transaction.

        Raises:
            LedgerError: the tree holds more leaves than there are records.
        """
        self._db.executescript(DDL)
        row = self._db.execute("SELECT size, roots FROM tree").fetchone()
        self._edge = Frontier.decode(int(row[0]), bytes(row[1])) if row else Frontier()
        count = int(self._db.execute("SELECT COALESCE(MAX(idx), 0) FROM record").fetchone()[0])
        if self._edge.size > count:
            raise LedgerError(
                f"the ledger's tree has {self._edge.size} leaves and the ledger {count} records: records are missing; "
                "move the ledger away to begin a new epoch, and keep it for the inspector"
            )
        if self._edge.size < count:
            self._db.execute("BEGIN IMMEDIATE")
            rows = self._db.execute("SELECT hash FROM record WHERE idx > ? ORDER BY idx", (self._edge.size,))
            for (leaf,) in rows.fetchall():
                self.append(bytes(leaf))
            self.save()
            self._db.execute("COMMIT")

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._edge.size

    def root(self) -> bytes:
        """Root over all leaves."""
        return self._edge.root()

    def mark(self) -> Frontier:
        """The edge as it is now, to come back to when a transaction fails."""
        return Frontier(self._edge.size, list(self._edge.roots))

    def back_to(self, mark: Frontier) -> None:
        """Forget leaves whose transaction was rolled back."""
        self._edge = Frontier(mark.size, list(mark.roots))

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash; writes the tiles it completes."""
        for height, n, node in self._edge.append(leaf):
            if height and height % TILE_HEIGHT == 0:
                self._db.execute("INSERT INTO tile VALUES (?, ?, ?)", (height // TILE_HEIGHT, n, node))

    def save(self) -> None:
        """Write the edge; once per transaction."""
        self._db.execute(
            "INSERT INTO tree VALUES (1, ?, ?) "
            "ON CONFLICT (one) DO UPDATE SET size=excluded.size, roots=excluded.roots",
            (self._edge.size, self._edge.encode()),
        )

    def node(self, height: int, index: int) -> bytes:
        """Root of the complete subtree of 2^height leaves that begins at leaf index·2^height."""
        level, above = divmod(height, TILE_HEIGHT)
        hashes = self._level(level, index << above, 1 << above)
        while len(hashes) > 1:
            hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
        return hashes[0]

    def _level(self, level: int, first: int, count: int) -> list[bytes]:
        if level == 0:
            rows = self.leaves(first, count)
        else:
            found = self._db.execute(
                "SELECT hash FROM tile WHERE level = ? AND n >= ? AND n < ? ORDER BY n", (level, first, first + count)
            )
            rows = [bytes(row[0]) for row in found]
        if len(rows) != count:
            raise LedgerError(f"the ledger's tree misses hashes at level {level} from {first}: the file is damaged")
        return rows

    def leaves(self, first: int, count: int) -> list[bytes]:
        """Leaf hashes from number ``first`` on, as many as there are."""
        found = self._db.execute(
            "SELECT hash FROM record WHERE idx > ? AND idx <= ? ORDER BY idx", (first, first + count)
        )
        return [bytes(row[0]) for row in found]

    def root_at(self, size: int) -> bytes:
        """Root of the first ``size`` leaves (at least one)."""
        return root_of(self.node, 0, size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """See :func:`wire.merkle.inclusion_proof`."""
        return inclusion_proof(self.node, index, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """See :func:`wire.merkle.consistency_proof`."""
        return consistency_proof(self.node, old, new)
