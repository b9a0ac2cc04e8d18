"""The journal of plans: what was started, what was signed, what was named. On disk before anything leaves.

After a power cut or kill -9 the same signed bytes go out again under the same id; nothing is signed twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grid.errors import GridError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS plan(
  id TEXT PRIMARY KEY, digest TEXT NOT NULL, body BLOB NOT NULL, mandate TEXT NOT NULL, declaration TEXT,
  started_ms INTEGER NOT NULL, total_w INTEGER, target_w INTEGER, state TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS issued(
  id TEXT PRIMARY KEY, plan TEXT NOT NULL REFERENCES plan(id), n INTEGER NOT NULL, site TEXT NOT NULL,
  raw BLOB NOT NULL, signed_ms INTEGER NOT NULL, before_w INTEGER NOT NULL, limit_w INTEGER NOT NULL,
  ramp INTEGER NOT NULL, posted INTEGER NOT NULL DEFAULT 0, state TEXT, replaced INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS said(
  n INTEGER PRIMARY KEY, at INTEGER NOT NULL, plan TEXT NOT NULL, site TEXT, code TEXT NOT NULL, text TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """One plan with what it started from."""

    id: str
    digest: str
    body: bytes
    mandate: str
    declaration: str | None
    started_ms: int
    total_w: int | None
    target_w: int | None
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Issued:
    """One signed order of a plan. Powers in W, the ramp in W per minute."""

    id: str
    site: str
    raw: bytes
    signed_ms: int
    before_w: int
    limit_w: int
    ramp: int
    posted: bool = False
    state: str | None = None
    """Newest state by the site's own signed answers."""
    replaced: bool = False
    """A later order of the plan took over what this one holds."""


@dataclass(frozen=True, slots=True)
class Said:
    """Something that a person has to know of, said once."""

    at: int
    site: str | None
    code: str
    text: str


class Journal:
    """One SQLite file, every write durable when the call returns. One thread."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`GridError` where the file cannot be used."""
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise GridError(f"{path}: not a journal of a gateway: {error}; without it nothing is signed") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise GridError(f"{self._path}: cannot be written: {error}; nothing was signed or sent") from None

    def plan(self, plan_id: str) -> StoredPlan | None:
        """One plan."""
        return next(iter(self._plans("WHERE id=?", plan_id)), None)

    def plans(self) -> list[StoredPlan]:
        """All plans, newest first."""
        return self._plans("ORDER BY started_ms DESC, id DESC")

    def _plans(self, where: str, *values: str) -> list[StoredPlan]:
        columns = "id, digest, body, mandate, declaration, started_ms, total_w, target_w, state, text"
        return [StoredPlan(*row) for row in self._db.execute(f"SELECT {columns} FROM plan {where}", values)]  # noqa: S608 - constants of this class

    def begin(self, plan: StoredPlan) -> None:
        """Keep a plan that starts, or one that was refused."""
        with self._write() as db:
            db.execute(
                "INSERT INTO plan VALUES(?,?,?,?,?,?,?,?,?,?)",
                (plan.id, plan.digest, plan.body, plan.mandate, plan.declaration, plan.started_ms, plan.total_w,
                 plan.target_w, plan.state, plan.text),
            )  # fmt: skip

    def set_state(self, plan_id: str, state: str, text: str) -> None:
        """Where a plan stands."""
        with self._write() as db:
            db.execute("UPDATE plan SET state=?, text=? WHERE id=?", (state, text, plan_id))

    def issue(self, plan_id: str, order: Issued) -> None:
        """Keep a signed order before it is sent."""
        with self._write() as db:
            db.execute(
                "INSERT INTO issued(id, plan, n, site, raw, signed_ms, before_w, limit_w, ramp) "
                "VALUES(?,?,(SELECT COUNT(*) FROM issued WHERE plan=?),?,?,?,?,?,?)",
                (order.id, plan_id, plan_id, order.site, order.raw, order.signed_ms, order.before_w, order.limit_w,
                 order.ramp),
            )  # fmt: skip

    def mark(
        self, order_id: str, *, posted: bool | None = None, state: str | None = None, replaced: bool = False
    ) -> None:
        """What became of an order."""
        with self._write() as db:
            if posted is not None:
                db.execute("UPDATE issued SET posted=? WHERE id=?", (int(posted), order_id))
            if state is not None:
                db.execute("UPDATE issued SET state=? WHERE id=?", (state, order_id))
            if replaced:
                db.execute("UPDATE issued SET replaced=1 WHERE id=?", (order_id,))

    def issued(self, plan_id: str) -> list[Issued]:
        """All orders of a plan in the order in which they were signed."""
        rows = self._db.execute(
            "SELECT id, site, raw, signed_ms, before_w, limit_w, ramp, posted, state, replaced "
            "FROM issued WHERE plan=? ORDER BY n",
            (plan_id,),
        )
        return [
            Issued(order, site, raw, signed_ms, before_w, limit_w, ramp, bool(posted), state, bool(replaced))
            for order, site, raw, signed_ms, before_w, limit_w, ramp, posted, state, replaced in rows
        ]

    def say(self, plan_id: str, said: Said) -> bool:
        """Keep a word for people; false where the same was said of that site already."""
        with self._write() as db:
            there = db.execute(
                "SELECT 1 FROM said WHERE plan=? AND site IS ? AND code=? AND text=?",
                (plan_id, said.site, said.code, said.text),
            ).fetchone()
            if there is None:
                db.execute(
                    "INSERT INTO said(at, plan, site, code, text) VALUES(?,?,?,?,?)",
                    (said.at, plan_id, said.site, said.code, said.text),
                )
        return there is None

    def said(self, plan_id: str) -> list[Said]:
        """Everything said of a plan, oldest first."""
        rows = self._db.execute("SELECT at, site, code, text FROM said WHERE plan=? ORDER BY n", (plan_id,))
        return [Said(*row) for row in rows]
