"""The ledger: transactions of records and journal rows, written by one thread.

A :class:`Txn` holds records to sign and chain, and SQL of the journal; it becomes durable as one. Urgent transactions
(orders) are written at once; others wait up to 50 ms for company (group commit).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.clock import Clock, clock_state
from agent.errors import AlreadyRunning, LedgerError, LedgerForeign
from agent.ledger.ballast import give_up_ballast, is_no_space, make_ballast
from agent.ledger.schema import DDL, LATER, VERSION
from agent.ledger.signer import PLANNED, Planned, Signer
from agent.ledger.tree import Tree
from wire.canonical import Json
from wire.checkpoints import anchor_of
from wire.errors import WireError
from wire.keys import SigningKey
from wire.names import origin
from wire.records import RecordLine

log = structlog.get_logger()

GROUP_S = 0.05
POSITIONS = "positions"
"""``meta``: ``unconfirmed`` in a ledger that follows another one, until a person has confirmed them."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to be: the common fields are added by the ledger."""

    stream: str
    ty: str
    fields: Json


@dataclass(slots=True)
class Txn:
    """What becomes durable together."""

    records: list[NewRecord] = field(default_factory=list)
    sql: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def record(self, stream: str, ty: str, fields: Json) -> Txn:
        """Add a record."""
        self.records.append(NewRecord(stream, ty, fields))
        return self

    def run(self, statement: str, *args: Any) -> Txn:
        """Add a journal statement."""
        self.sql.append((statement, args))
        return self

    def set_meta(self, key: str, value: str) -> Txn:
        """Set a value of the meta table."""
        return self.run(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value", key, value
        )


@dataclass(frozen=True, slots=True)
class Appended:
    """A record on disk."""

    idx: int
    stream: str
    n: int
    ty: str
    line: RecordLine


class Ledger:
    """See the module. Create with :meth:`open`."""

    def __init__(self, db: sqlite3.Connection, lock: int, path: Path, key: SigningKey, clock: Clock, fw: str) -> None:
        self._db = db
        self._lock = lock
        self._path = path
        self._signer = Signer(key)
        self._turned: list[Appended] = []
        self._clock = clock
        self._fw = fw
        self._tree = Tree(db)
        self._tree.load()
        self._anchor: Json | None = self._newest_anchor()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._pending: list[tuple[Txn, int, int, asyncio.Future[list[Appended]]]] = []
        self._kick = asyncio.Event()
        self._urgent = asyncio.Event()
        self._listeners: list[Callable[[list[Appended]], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.failing: str | None = None
        """Why the last write failed; ``None`` once one succeeded."""
        self.boot = secrets.token_hex(8)
        self.site = self._meta("site") or ""
        self.epoch = self._meta("epoch") or ""
        self.is_new = self._count("site") == 0

    @classmethod
    def open(
        cls, path: Path, *, site: str, key: SigningKey, clock: Clock, fw: str, successor: SigningKey | None = None
    ) -> Ledger:
        """Open or make the ledger of a site.

        Args:
            path: the file.
            site: id of the site.
            key: its record key.
            clock: the agent's clock.
            fw: version written into records.
            successor: a key that may have taken over from ``key``: which of the two signs, the ledger says.

        Raises:
            AlreadyRunning: another process holds it.
            LedgerForeign: it belongs to another site or key.
            LedgerError: it cannot be opened.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise AlreadyRunning(
                f"{path}: another agent of this site is running (it holds {path.with_suffix('.lock')}); "
                "one agent per site: stop the other one first"
            ) from None
        try:
            try:
                db = cls._connect(path, site, key)
            except sqlite3.OperationalError as error:
                if not is_no_space(error) or not give_up_ballast(path):
                    raise
                db = cls._connect(path, site, key)
            make_ballast(path)
        except (sqlite3.Error, OSError) as error:
            os.close(lock)
            todo = (
                "free space on that disk"
                if is_no_space(error)
                else "check its owner and mode; a damaged ledger is moved away, which begins a new epoch"
            )
            raise LedgerError(f"{path}: the ledger cannot be opened: {error}; {todo}") from error
        found = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('site', 'kid', 'version')").fetchall())
        if successor is not None and found.get("kid") == successor.kid:
            key = successor
        if found.get("site") != site or found.get("kid") != key.kid or found.get("version") != str(VERSION):
            db.close()
            os.close(lock)
            raise LedgerForeign(
                f"{path}: belongs to site {found.get('site')!r} with record key {found.get('kid')} (format "
                f"{found.get('version')}), but the configuration says site {site!r} with key {key.kid}; "
                "restore the key, or move the ledger away to begin a new epoch"
            )
        try:
            return cls(db, lock, path, key, clock, fw)
        except (sqlite3.Error, WireError, LedgerError) as error:
            db.close()
            os.close(lock)
            raise LedgerError(f"{path}: {error}") from None

    @classmethod
    def _connect(cls, path: Path, site: str, key: SigningKey) -> sqlite3.Connection:
        fresh = not path.exists()
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            if fresh or not db.execute("SELECT 1 FROM sqlite_master WHERE name='meta'").fetchone():
                counter = cls._next_epoch(path)
                # Tables and names become durable as one: a ledger without a name would belong to nobody.
                db.executescript("BEGIN;" + DDL)
                db.executemany(
                    "INSERT INTO meta VALUES (?, ?)",
                    [
                        ("version", str(VERSION)),
                        ("site", site),
                        ("epoch", f"e{counter}-{secrets.token_hex(4)}"),
                        ("kid", key.kid),
                        # An older life of this box or of a dead one may have left switches open.
                        *([(POSITIONS, "unconfirmed")] if counter > 1 else []),
                    ],
                )
                db.execute("COMMIT")
            db.executescript(LATER)
        except BaseException:
            db.close()
            raise
        return db

    @staticmethod
    def _next_epoch(path: Path) -> int:
        """Counter of the new epoch: one more than the last this folder has seen."""
        seen = path.with_suffix(".epoch")
        try:
            counter = int(seen.read_text()) + 1
        except (OSError, ValueError):
            counter = 1
        seen.write_text(str(counter))
        return counter

    def tend_ballast(self) -> None:
        """Lay the ballast down again once there is room. Blocking; called now and then."""
        if self.failing is None:
            make_ballast(self._path)

    def start(self) -> None:
        """Start the writer; the loop that calls this owns it until :meth:`close`."""
        self._task = asyncio.get_running_loop().create_task(self._writer(), name="ledger-writer")

    async def close(self) -> None:
        """Write what is pending and close."""
        if self._task is not None:
            self._closing = True
            self._kick.set()
            self._urgent.set()
            await asyncio.gather(self._task, return_exceptions=True)
        self._pool.shutdown(wait=True)
        self._db.close()
        os.close(self._lock)

    def on_append(self, listener: Callable[[list[Appended]], None]) -> None:
        """Call back after records became durable (in the event loop)."""
        self._listeners.append(listener)

    async def commit(self, txn: Txn, *, urgent: bool = False) -> list[Appended]:
        """Make a transaction durable; returns its records.

        Raises:
            LedgerError: it is not durable (disk full, I/O error); nothing of it was written.
        """
        if self._task is None or self._task.done():
            raise LedgerError("the ledger is closed")
        future: asyncio.Future[list[Appended]] = asyncio.get_running_loop().create_future()
        self._pending.append((txn, self._clock.now_ms(), self._clock.mono_ns(), future))
        if urgent:
            self._urgent.set()
        self._kick.set()
        return await future

    async def read(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        """Rows of a query, read in the writer thread."""
        return await self._call(lambda: self._db.execute(query, args).fetchall())

    async def execute(self, query: str, *args: Any) -> int:
        """One bookkeeping statement (delivery marks); returns the number of rows changed."""
        return await self._call(lambda: self._db.execute(query, args).rowcount)

    def read_now(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        """Rows of a query, blocking; for start-up before the writer runs.

        Raises:
            LedgerError: the file is damaged.
        """
        try:
            return self._db.execute(query, args).fetchall()
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"{self._path}: the ledger cannot be read: {error}; nothing moves without it, outputs stay as they "
                "are; a damaged ledger is moved away, which begins a new epoch"
            ) from error

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except sqlite3.Error as error:
            raise LedgerError(f"{self._path}: {error}") from error

    @property
    def key(self) -> SigningKey:
        """The record key that signs now."""
        return self._signer.key

    async def plan(self, change: Planned | None) -> bool:
        """Have a key take over at its place in the log, or forget what was planned.

        Returns:
            False where the log is past that place already: then nothing is planned.
        """

        def work() -> bool:
            if change is not None and self._tree.size > change.from_index - 1:
                return False
            self._signer.planned = change
            return True

        return await self._call(work)

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def meta(self, key: str) -> str | None:
        """A value of the meta table, blocking."""
        return self._meta(key)

    def _count(self, stream: str) -> int:
        row = self._db.execute("SELECT count FROM stream WHERE name = ?", (stream,)).fetchone()
        return int(row[0]) if row else 0

    async def _writer(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._kick.wait()
            if not self._urgent.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GROUP_S):
                        await self._urgent.wait()
            self._kick.clear()
            self._urgent.clear()
            batch, self._pending = self._pending, []
            if not batch:
                if self._closing:
                    return
                continue
            clk = clock_state(self._clock)
            work = loop.run_in_executor(self._pool, self._write, [(t, at, mono) for t, at, mono, _ in batch], clk)
            try:
                results = await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.gather(work, return_exceptions=True)
                raise
            except Exception as error:  # every waiter must hear of it, whatever it is
                results = [LedgerError(f"{self._path}: {error}")] * len(batch)
            self._note(results)
            self._settle([future for *_, future in batch], results)
            if self._closing:
                self._kick.set()

    def _note(self, results: Sequence[list[Appended] | LedgerError]) -> None:
        """Keep why nothing could be written; say it when it begins and when it ends."""
        failed = [r for r in results if isinstance(r, LedgerError)]
        why = str(failed[0]) if failed and len(failed) == len(results) else None
        if (why is None) is not (self.failing is None):
            log.error("ledger_not_written", error=why) if why else log.info("ledger_written_again")
        self.failing = why

    def _settle(
        self, futures: list[asyncio.Future[list[Appended]]], results: Sequence[list[Appended] | LedgerError]
    ) -> None:
        """Tell every waiter what became of its transaction, then the listeners what is new."""
        done, self._turned = self._turned, []
        for future, result in zip(futures, results, strict=True):
            if isinstance(result, LedgerError):
                if not future.done():
                    future.set_exception(result)
                continue
            done.extend(result)
            if not future.done():
                future.set_result(result)
        if done:
            for listener in self._listeners:
                try:
                    listener(done)
                except Exception:  # who listens must not stop who writes
                    log.exception("ledger_listener_failed")

    def _write(self, batch: Sequence[tuple[Txn, int, int]], clk: Json) -> list[list[Appended] | LedgerError]:
        """One SQLite transaction for the batch; a failing member is rolled back alone."""
        edge, signer = self._tree.mark(), self._signer.mark()
        for attempt in (1, 2):
            try:
                return self._write_once(batch, clk)
            except sqlite3.OperationalError as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._tree.back_to(edge)
                self._signer.back_to(signer)
                if attempt == 1 and is_no_space(error) and give_up_ballast(self._path):
                    continue
                return [LedgerError(f"{self._path}: {error}")] * len(batch)
        raise AssertionError("unreachable")

    def _write_once(self, batch: Sequence[tuple[Txn, int, int]], clk: Json) -> list[list[Appended] | LedgerError]:
        results: list[list[Appended] | LedgerError] = []
        turned: list[Appended] = []
        self._db.execute("BEGIN IMMEDIATE")
        for txn, at, mono in batch:
            self._db.execute("SAVEPOINT one")
            edge, signer, count = self._tree.mark(), self._signer.mark(), len(turned)
            try:
                appended: list[Appended] = []
                for record in txn.records:
                    turned += self._turn(at, mono, clk)
                    appended.append(self._append(record, at, mono, clk))
                for statement, args in txn.sql:
                    self._db.execute(statement, args)
            except sqlite3.OperationalError:
                raise
            except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
                self._db.execute("ROLLBACK TO one")
                self._tree.back_to(edge)
                self._signer.back_to(signer)
                del turned[count:]
                results.append(LedgerError(f"{self._path}: {type(error).__name__}: {error}"))
            else:
                results.append(appended)
            self._db.execute("RELEASE one")
        self._tree.save()
        self._db.execute("COMMIT")
        self._turned += turned
        return results

    def _turn(self, at: int, mono: int, clk: Json) -> list[Appended]:
        """Where a change of key is due at this place of the log: its record, by the old key, before the next one."""
        change = self._signer.due(self._tree.size)
        if change is None:
            return []
        appended = self._append(NewRecord("site", "key_rotate", change.fields), at, mono, clk)
        self._db.execute("DELETE FROM meta WHERE key = ?", (PLANNED,))
        for name, value in self._signer.turn(change):
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
        return [appended]

    def _append(self, new: NewRecord, at: int, mono: int, clk: Json) -> Appended:
        row = self._db.execute("SELECT count, last FROM stream WHERE name = ?", (new.stream,)).fetchone()
        n, last = (int(row[0]), row[1]) if row else (0, None)
        payload: Json = {
            "v": 1,
            "log": origin(self.site, self.epoch),
            "st": new.stream,
            "n": n,
            "p": None if last is None else bytes(last).hex(),
            "a": self._anchor,
            "ty": new.ty,
            "at": at,
            "mono": mono // 1000,
            "boot": self.boot,
            "clk": clk,
            "fw": self._fw,
            **new.fields,
        }
        line = RecordLine.sign(payload, self._signer.key)
        cursor = self._db.execute(
            "INSERT INTO record (stream, n, ty, at, payload, kid, sig, hash) VALUES (?,?,?,?,?,?,?,?)",
            (new.stream, n, new.ty, at, line.payload, line.kid, line.signature, line.hash),
        )
        self._db.execute(
            "INSERT INTO stream VALUES (?,?,?) "
            "ON CONFLICT (name) DO UPDATE SET count=excluded.count, last=excluded.last",
            (new.stream, n + 1, line.hash),
        )
        idx = int(cursor.lastrowid or 0)
        if idx != self._tree.size + 1:
            raise ValueError(f"record {idx} would be leaf {self._tree.size} of the tree")
        self._tree.append(line.hash)
        return Appended(idx, new.stream, n, new.ty, line)

    # the tree over all records -------------------------------------------------------------------------------------

    def _newest_anchor(self) -> Json | None:
        row = self._db.execute("SELECT size, note FROM cosigned ORDER BY size DESC LIMIT 1").fetchone()
        return None if row is None else dict(anchor_of(bytes(row[1]), int(row[0])))

    async def head(self) -> tuple[int, bytes]:
        """Number of records and the root over them."""
        return await self._call(lambda: (self._tree.size, self._tree.root()))

    async def root_at(self, size: int) -> bytes | None:
        """Root over the first ``size`` records; ``None`` where there are not so many, or for none."""
        return await self._call(lambda: self._tree.root_at(size) if 0 < size <= self._tree.size else None)

    async def consistency(self, old: int, new: int) -> list[bytes]:
        """Proof that the log of ``new`` records continues that of ``old``."""
        return await self._call(lambda: self._tree.consistency(old, new))

    async def inclusion(self, idx: int, size: int) -> list[bytes]:
        """Proof that a record (by its ``idx``) is in the log of ``size`` records."""
        return await self._call(lambda: self._tree.inclusion(idx - 1, size))

    async def leaves(self, first: int, count: int) -> list[bytes]:
        """Leaf hashes from leaf ``first`` on."""
        return await self._call(lambda: self._tree.leaves(first, count))

    async def keep_cosigned(self, size: int, note: bytes) -> None:
        """Keep a checkpoint that the quorum cosigned; from now on records are anchored to the newest.

        The note is a record too: so it goes the way of evidence, and whoever holds the records holds their anchors.
        """
        txn = Txn().run("INSERT OR IGNORE INTO cosigned VALUES (?, ?, ?)", size, self._clock.now_ms(), note)
        detail = {"size": size, "note": note.decode()}
        name = origin(self.site, self.epoch)
        await self.commit(txn.record("site", "event", {"ev": "cosigned", "obj": name, "detail": detail}))
        self._anchor = await self._call(self._newest_anchor)

    async def heads(self) -> dict[str, tuple[int, str | None]]:
        """Per stream: number of records and last leaf hash (hex)."""
        rows = await self.read("SELECT name, count, last FROM stream")
        return {str(name): (int(count), bytes(last).hex() if last else None) for name, count, last in rows}

    async def lines(self, stream: str, first: int, last: int, limit: int = 500) -> list[Appended]:
        """Records of a stream by number."""
        rows = await self.read(
            "SELECT idx, stream, n, ty, payload, kid, sig FROM record WHERE stream=? AND n BETWEEN ? AND ? "
            "ORDER BY n LIMIT ?",
            stream,
            first,
            last,
            limit,
        )
        return [_row(r) for r in rows]

    async def undelivered(self, after_idx: int, limit: int) -> list[Appended]:
        """Records that central has not confirmed, oldest first."""
        rows = await self.read(
            "SELECT idx, stream, n, ty, payload, kid, sig FROM record WHERE committed=0 AND idx>? ORDER BY idx LIMIT ?",
            after_idx,
            limit,
        )
        return [_row(r) for r in rows]

    async def undelivered_newest(self, limit: int) -> list[Appended]:
        """The newest records that central has not confirmed, newest first."""
        rows = await self.read(
            "SELECT idx, stream, n, ty, payload, kid, sig FROM record WHERE committed=0 ORDER BY idx DESC LIMIT ?",
            limit,
        )
        return [_row(r) for r in rows]

    async def mark_delivered(self, stream: str, first: int, last: int) -> int:
        """Central has these on disk; returns how many this confirmed anew."""
        return await self.execute(
            "UPDATE record SET committed=1 WHERE stream=? AND n BETWEEN ? AND ? AND committed=0", stream, first, last
        )

    async def mark_wanted(self, stream: str, first: int, last: int) -> int:
        """Central asked for these again."""
        return await self.execute(
            "UPDATE record SET committed=0 WHERE stream=? AND n BETWEEN ? AND ? AND committed=1", stream, first, last
        )


def _row(row: tuple[Any, ...]) -> Appended:
    idx, stream, n, ty, payload, kid, sig = row
    return Appended(int(idx), str(stream), int(n), str(ty), RecordLine(bytes(payload), str(kid), bytes(sig)))


def dumps(value: Any) -> str:
    """Compact JSON text for journal columns."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
