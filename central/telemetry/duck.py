"""Telemetry in an embedded DuckDB file.

One narrow table of numbers; devices and points are numbered once in tables of their own. A batch's identity is
inserted in the same transaction as its values, so that a batch sent twice is stored once. All work runs in one thread
with its own connection: DuckDB lets one process open the file, and exactly one collector writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from central.errors import CentralError
from central.telemetry.columns import flatten
from central.telemetry.protocol import MAX_STEPS, BatchId, Counts, Latest, Step, TooManyNames, Written
from wire.batch import Batch
from wire.messages import Range
from wire.quality import BY_CODE, CODES, Quality

T = TypeVar("T")
STORAGE_VERSION = "v1.5.0"
"""Files stay readable for DuckDB 1.5, so that a site can step back."""
GOOD = CODES[Quality.GOOD]
MAX_RANGES = 50
DISK_ERRORS = (duckdb.IOException, duckdb.FatalException, duckdb.TransactionException, duckdb.OutOfMemoryException)
"""The file or its disk, not the data: after the first two DuckDB answers nothing more until the file is opened anew."""
MAX_DEVICES_PER_SITE = 120_000
MAX_POINTS = 5000
"""Bounds on names a site may make up: each is kept in memory."""

_TABLES = (
    """CREATE TABLE IF NOT EXISTS batches (id BIGINT NOT NULL, site VARCHAR, epoch VARCHAR, boot VARCHAR, n BIGINT,
       sha256 VARCHAR NOT NULL, t0_ms BIGINT NOT NULL, clock VARCHAR NOT NULL, cells BIGINT NOT NULL,
       received_ms BIGINT NOT NULL, PRIMARY KEY (site, epoch, boot, n))""",
    "CREATE TABLE IF NOT EXISTS devices (id UINTEGER PRIMARY KEY, site VARCHAR, kind VARCHAR, name VARCHAR)",
    "CREATE TABLE IF NOT EXISTS points (id UINTEGER PRIMARY KEY, name VARCHAR)",
    """CREATE TABLE IF NOT EXISTS telemetry (device UINTEGER NOT NULL, point UINTEGER NOT NULL, at_ms BIGINT NOT NULL,
       value DOUBLE, quality UTINYINT NOT NULL, batch BIGINT NOT NULL)""",
)


class DuckStore:
    """:class:`central.telemetry.protocol.TelemetryStore` in one file."""

    def __init__(self, path: Path, *, memory_limit: str = "512MB", threads: int = 2) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="central-telemetry")
        self._devices: dict[tuple[str, str, str], int] = {}
        self._points: dict[str, int] = {}
        self._per_site: Counter[str] = Counter()
        self._next_batch = 1
        self._db: duckdb.DuckDBPyConnection | None = None
        self._reopen: Callable[[], None] = lambda: self._open(path, memory_limit, threads)
        self._broken = False
        try:
            self._thread.submit(self._open, path, memory_limit, threads).result()
        except duckdb.Error as error:
            self._thread.shutdown()
            raise CentralError(
                f"telemetry file {path}: {error}; exactly one central may open it, and it needs DuckDB 1.5.6 or newer"
            ) from None

    def _open(self, path: Path, memory_limit: str, threads: int) -> None:
        db = duckdb.connect(":memory:", config={"memory_limit": memory_limit, "threads": threads})
        literal = str(path).replace("'", "''")
        db.execute(f"ATTACH '{literal}' AS store (STORAGE_VERSION '{STORAGE_VERSION}')")
        db.execute("USE store")
        for statement in _TABLES:
            db.execute(statement)
        self._devices = {
            (s, k, n): i for i, s, k, n in db.execute("SELECT id, site, kind, name FROM devices").fetchall()
        }
        self._per_site = Counter(site for site, _, _ in self._devices)
        self._points = {n: i for i, n in db.execute("SELECT id, name FROM points").fetchall()}
        self._next_batch = self._one(db, "SELECT coalesce(max(id), 0) + 1 FROM batches")
        self._db = db

    @staticmethod
    def _one(db: duckdb.DuckDBPyConnection, sql: str, args: Sequence[Any] = ()) -> int:
        # fetchall: fetchone leaves the result open, and the next statement on the connection may then be refused.
        rows = db.execute(sql, list(args)).fetchall()
        return int(rows[0][0]) if rows and rows[0][0] is not None else 0

    async def _run(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    def _do(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        if self._db is None:
            raise CentralError("telemetry store is closed")
        try:
            if self._broken:
                with contextlib.suppress(duckdb.Error):
                    self._db.close()
                self._reopen()
                self._broken = False
            return work(self._db)
        except DISK_ERRORS as error:
            self._broken = True
            raise OSError(f"telemetry file: {error}") from error

    # -- writing ---------------------------------------------------------------------------------------------------

    async def write(self, batches: Sequence[tuple[Batch, bytes]], now_ms: int) -> Written:
        """Store decoded batches with their packed bytes in one transaction, each at most once.

        Raises:
            OSError: the disk is full or the file cannot be written now; try again, nothing of it was stored.
        """
        return await self._run(lambda db: self._write(db, batches, now_ms))

    def _write(self, db: duckdb.DuckDBPyConnection, batches: Sequence[tuple[Batch, bytes]], now_ms: int) -> Written:
        new: dict[BatchId, str] = {}
        duplicates: list[BatchId] = []
        conflicting: list[BatchId] = []
        rows: list[tuple[int, Batch]] = []
        devices, points = len(self._devices), len(self._points)
        first_batch = self._next_batch
        db.execute("BEGIN")
        try:
            for batch, packed in batches:
                identity = BatchId(batch.site, batch.epoch, batch.boot, batch.n)
                digest = hashlib.sha256(packed).hexdigest()
                seen = new.get(identity) or self._digest(db, identity)
                if seen is not None:
                    duplicates.append(identity)
                    if seen != digest:
                        conflicting.append(identity)
                    continue
                new[identity] = digest
                number, self._next_batch = self._next_batch, self._next_batch + 1
                rows.append((number, batch))
                db.execute(
                    "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [number, batch.site, batch.epoch, batch.boot, batch.n, digest, batch.t0, batch.clk[:8],
                     batch.values(), now_ms],
                )  # fmt: skip
            cells = flatten(rows, self._device, self._point)
            self._insert_names(db, devices, points)
            if len(cells.at_ms):
                db.register("incoming", cells.as_dict())
                db.execute(
                    "INSERT INTO telemetry SELECT device, point, at_ms, "
                    "CASE WHEN isnan(value) THEN NULL ELSE value END, quality, batch FROM incoming"
                )
                db.unregister("incoming")
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):  # a commit that failed has ended its transaction
                db.execute("ROLLBACK")
            self._devices = {name: number for name, number in self._devices.items() if number <= devices}
            self._points = {name: number for name, number in self._points.items() if number <= points}
            self._per_site = Counter(site for site, _, _ in self._devices)
            self._next_batch = first_batch
            raise
        return Written(tuple(new), tuple(duplicates), tuple(conflicting))

    @staticmethod
    def _digest(db: duckdb.DuckDBPyConnection, identity: BatchId) -> str | None:
        rows = db.execute(
            "SELECT sha256 FROM batches WHERE site = ? AND epoch = ? AND boot = ? AND n = ?",
            [identity.site, identity.epoch, identity.boot, identity.n],
        ).fetchall()
        return str(rows[0][0]) if rows else None

    def _device(self, site: str, kind: str, name: str) -> int:
        number = self._devices.get((site, kind, name))
        if number is None:
            if self._per_site[site] >= MAX_DEVICES_PER_SITE:
                raise TooManyNames(f"site {site} names more than {MAX_DEVICES_PER_SITE} devices; {name[:60]!r} is new")
            self._per_site[site] += 1
            number = self._devices[site, kind, name] = len(self._devices) + 1
        return number

    def _point(self, name: str) -> int:
        number = self._points.get(name)
        if number is None:
            if len(self._points) >= MAX_POINTS:
                raise TooManyNames(f"more than {MAX_POINTS} different points; {name!r} is new")
            number = self._points[name] = len(self._points) + 1
        return number

    def _insert_names(self, db: duckdb.DuckDBPyConnection, devices: int, points: int) -> None:
        added = [[i, *key] for key, i in list(self._devices.items())[devices:]]
        named = [[i, name] for name, i in list(self._points.items())[points:]]
        # Statements of many rows, because one statement per row is a hundred times slower.
        for table, rows, width in (("devices", added, 4), ("points", named, 2)):
            for start in range(0, len(rows), 500):
                some = rows[start : start + 500]
                marks = ", ".join(["(" + ", ".join("?" * width) + ")"] * len(some))
                db.execute(f"INSERT INTO {table} VALUES {marks}", [v for row in some for v in row])  # noqa: S608 - names above

    # -- reading ---------------------------------------------------------------------------------------------------

    async def latest(self, site: str, *, kind: str | None = None, since: int = 0) -> list[Latest]:
        """Newest value of every point of a site that has one after ``since`` (ms)."""

        def work(db: duckdb.DuckDBPyConnection) -> list[Latest]:
            rows = db.execute(
                """SELECT d.kind, d.name, p.name, max(t.at_ms), arg_max(coalesce(t.value, 'nan'::DOUBLE), t.at_ms),
                          arg_max(t.quality, t.at_ms)
                   FROM telemetry t JOIN devices d ON d.id = t.device JOIN points p ON p.id = t.point
                   WHERE d.site = ? AND (? IS NULL OR d.kind = ?) AND t.at_ms >= ?
                   GROUP BY ALL ORDER BY ALL""",
                [site, kind, kind, since],
            ).fetchall()
            return [Latest(k, d, p, at, _number(v), _quality(q)) for k, d, p, at, v, q in rows]

        return await self._run(work)

    async def series(
        self, site: str, kind: str, device: str, point: str, first: int, last: int, step_s: int
    ) -> list[Step]:
        """Steps of [first, last) in ms; steps without a sample are absent."""
        step = _step_ms(first, last, step_s)

        def work(db: duckdb.DuckDBPyConnection) -> list[Step]:
            ids = self._devices.get((site, kind, device)), self._points.get(point)
            if None in ids:
                return []
            rows = db.execute(
                """SELECT at_ms // ?::BIGINT * ?::BIGINT AS slot, avg(value) FILTER (quality = ?),
                          min(value) FILTER (quality = ?), max(value) FILTER (quality = ?),
                          count(value) FILTER (quality = ?), count(*)
                   FROM telemetry WHERE device = ? AND point = ? AND at_ms >= ? AND at_ms < ?
                   GROUP BY slot ORDER BY slot""",
                [step, step, GOOD, GOOD, GOOD, GOOD, *ids, first, last],
            ).fetchall()
            return [Step(*row) for row in rows]

        return await self._run(work)

    async def energy(self, site: str, device: str, point: str, first: int, last: int, step_s: int) -> list[Step]:
        """Growth of a counter per step, in its own unit, as ``mean``; null where it fell or has no two readings."""
        step = _step_ms(first, last, step_s)

        def work(db: duckdb.DuckDBPyConnection) -> list[Step]:
            ids = self._devices.get((site, "meter", device)), self._points.get(point)
            if None in ids:
                return []
            rows = db.execute(
                """SELECT at_ms // ?::BIGINT * ?::BIGINT AS slot, arg_min(value, at_ms), arg_max(value, at_ms),
                          count(value), max(at_ms) > min(at_ms)
                   FROM telemetry WHERE device = ? AND point = ? AND at_ms >= ? AND at_ms < ?
                          AND quality = ? AND value IS NOT NULL
                   GROUP BY slot ORDER BY slot""",
                [step, step, *ids, first, last, GOOD],
            ).fetchall()
            return [
                Step(slot, high - low if two and high >= low else None, low, high, count, count)
                for slot, low, high, count, two in rows
            ]

        return await self._run(work)

    async def missing(self, site: str, epoch: str, boot: str, last: int) -> list[Range]:
        """Batch numbers of one boot up to ``last`` that are not stored."""

        def work(db: duckdb.DuckDBPyConnection) -> list[Range]:
            rows = db.execute(
                """SELECT n, after FROM (
                     SELECT n, lead(n, 1, ?) OVER (ORDER BY n) AS after FROM (
                       SELECT n FROM batches WHERE site = ? AND epoch = ? AND boot = ? AND n <= ?
                       UNION ALL SELECT -1))
                   WHERE after > n + 1 ORDER BY n LIMIT ?""",
                [last + 1, site, epoch, boot, last, MAX_RANGES],
            ).fetchall()
            return [Range(first=n + 1, last=after - 1) for n, after in rows]

        return await self._run(work)

    async def counts(self, site: str | None = None) -> Counts:
        """Rows and distinct identities."""

        def work(db: duckdb.DuckDBPyConnection) -> Counts:
            where = [site, site]
            batches = self._one(db, "SELECT count(*) FROM batches WHERE ? IS NULL OR site = ?", where)
            ((values, distinct),) = db.execute(
                """SELECT count(*), count(DISTINCT (t.device, t.point, t.at_ms)) FROM telemetry t
                   JOIN devices d ON d.id = t.device WHERE ? IS NULL OR d.site = ?""",
                where,
            ).fetchall()
            return Counts(batches, int(values), int(distinct))

        return await self._run(work)

    async def close(self) -> None:
        """Write everything out and let go of the files."""

        def work(db: duckdb.DuckDBPyConnection) -> None:
            self._db = None
            db.close()

        if self._db is not None:
            await self._run(work)
        self._thread.shutdown(wait=True)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _quality(code: int) -> str:
    return str(BY_CODE.get(code, f"code {code}"))


def _step_ms(first: int, last: int, step_s: int) -> int:
    """A step that gives at most ``MAX_STEPS`` points, and never less than what was asked for."""
    return max(step_s * 1000, 1000, -(-(last - first) // MAX_STEPS // 1000) * 1000)
