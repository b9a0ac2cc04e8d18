"""Lost and duplicated: what the agents hold on their disks against what central holds on its own.

Looks at the databases themselves and at nothing that a program says about them. Identities:

* evidence: (site, epoch, stream, number), with the hash of the record;
* answers: (site, epoch, number) of each ``cmd_*`` record, in central's table of answers;
* telemetry: (site, kind, device, point, time) of each value, out of the batches in the outbox.

``lost`` counts identities that the edge has and central has not, ``duplicated`` counts rows of central beyond its
distinct identities. What is there on both sides but differs is ``altered``; what only central has is ``unexplained``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wire.batch import Batch, decode

if TYPE_CHECKING:
    import duckdb

KEYS = "site, kind, device, point, at_ms"
"""Identity of a telemetry value."""
ANSWERS = ("cmd_rx", "cmd_ack", "cmd_eff", "cmd_report")


@dataclass(frozen=True, slots=True)
class EdgeFiles:
    """The databases of one agent."""

    site: str
    ledger: Path
    bulk: Path


@dataclass(frozen=True, slots=True)
class Difference:
    """Edge against central, for one kind of thing."""

    edge: int = 0
    central: int = 0
    lost: int = 0
    duplicated: int = 0
    altered: int = 0
    unexplained: int = 0

    def __add__(self, other: Difference) -> Difference:
        return Difference(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Count:
    """The whole count."""

    evidence: Difference
    answers: Difference
    telemetry: Difference
    readings: int
    """Rows of the agents' batches: one poll of one device each."""
    telemetry_rows: int
    checkpoints: int
    """Sizes of logs that central holds a signed checkpoint of."""
    cosigned: int
    """Checkpoints of the agents' logs that the register's quorum cosigned."""

    @property
    def total(self) -> Difference:
        """All kinds together."""
        return self.evidence + self.answers + self.telemetry

    @property
    def lost(self) -> int:
        """Identities that central has not, of all kinds."""
        return self.total.lost

    @property
    def duplicated(self) -> int:
        """Rows of central beyond their distinct identities, of all kinds."""
        return self.total.duplicated

    @property
    def clean(self) -> bool:
        """Nothing lost, doubled, changed on the way, or come from nowhere."""
        total = self.total
        return not (total.lost or total.duplicated or total.altered or total.unexplained)


class Record(NamedTuple):
    """Identity of one record."""

    site: str
    epoch: str
    stream: str
    n: int


def count(edges: Sequence[EdgeFiles], central_db: Path, telemetry: Path) -> Count:
    """Compare the edge's databases with central's. All programs must have stopped; nothing is written.

    Args:
        edges: the agents' databases.
        central_db: central's SQLite file.
        telemetry: central's DuckDB file.

    Raises:
        sqlite3.Error, duckdb.Error: a file is not such a database.
        WireError: a stored batch cannot be decoded.
    """
    records: dict[Record, str] = {}
    answers: set[tuple[str, str, int]] = set()
    batches: list[Batch] = []
    for edge in edges:
        of_site, types = _ledger(edge)
        records |= of_site
        answers |= {(key.site, key.epoch, key.n) for key in of_site if types[key] in ANSWERS}
        batches += _batches(edge.bulk)
    stored = _rows(central_db, "SELECT site, epoch, stream, n, hash FROM records")
    answered = _rows(central_db, "SELECT site, epoch, n FROM order_answers")
    checkpoints = _rows(central_db, "SELECT count(DISTINCT site || epoch || size) FROM notes")
    cosigned = sum(int(_rows(edge.ledger, "SELECT count(*) FROM cosigned")[0][0]) for edge in edges)
    values, rows = _telemetry(batches, telemetry)
    return Count(
        evidence=_compare(records, [(Record(*row[:4]), str(row[4])) for row in stored]),
        answers=_compare(dict.fromkeys(answers), [((str(s), str(e), int(n)), None) for s, e, n in answered]),
        telemetry=values,
        readings=sum(batch.rows() for batch in batches),
        telemetry_rows=rows,
        checkpoints=int(checkpoints[0][0]),
        cosigned=cosigned,
    )


def _rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    # Read-only, so that a missing file is an error and not a new empty database.
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _ledger(edge: EdgeFiles) -> tuple[dict[Record, str], dict[Record, str]]:
    """(record → hash in hex, record → type) of one ledger."""
    epoch = str(_rows(edge.ledger, "SELECT value FROM meta WHERE key = 'epoch'")[0][0])
    hashes: dict[Record, str] = {}
    types: dict[Record, str] = {}
    for stream, n, ty, digest in _rows(edge.ledger, "SELECT stream, n, ty, hash FROM record"):
        key = Record(edge.site, epoch, str(stream), int(n))
        hashes[key], types[key] = bytes(digest).hex(), str(ty)
    return hashes, types


def _batches(bulk: Path) -> list[Batch]:
    return [decode(bytes(packed)) for (packed,) in _rows(bulk, "SELECT packed FROM batch ORDER BY id")]


def _compare(edge: dict[Any, Any], central: Iterable[tuple[Any, Any]]) -> Difference:
    rows = list(central)
    there = dict(rows)
    return Difference(
        edge=len(edge),
        central=len(rows),
        lost=len(edge.keys() - there.keys()),
        duplicated=len(rows) - len(there),
        altered=sum(1 for key, value in edge.items() if key in there and there[key] != value),
        unexplained=len(there.keys() - edge.keys()),
    )


def _telemetry(batches: Sequence[Batch], telemetry: Path) -> tuple[Difference, int]:
    """Every value of the batches against central's table. Returns the difference and central's rows."""
    import duckdb

    with duckdb.connect(":memory:") as db:
        literal = str(telemetry).replace("'", "''")
        db.execute(f"ATTACH '{literal}' AS store (READ_ONLY)")
        _load_edge(db, batches)
        db.execute(
            """CREATE TABLE here AS
               SELECT d.site, d.kind, d.name AS device, p.name AS point, t.at_ms, t.value, t.quality
               FROM store.telemetry t JOIN store.devices d ON d.id = t.device JOIN store.points p ON p.id = t.point"""
        )
        rows = _one(db, "SELECT count(*) FROM store.telemetry")
        edge = _one(db, f"SELECT count(*) FROM (SELECT DISTINCT {KEYS} FROM edge)")  # noqa: S608 - constants alone
        distinct = _one(db, f"SELECT count(*) FROM (SELECT DISTINCT {KEYS} FROM here)")  # noqa: S608 - the same
        lost = _one(db, _only_in("edge", "here"))
        strange = _one(db, _only_in("here", "edge"))
        altered = _one(
            db,
            f"""SELECT count(*) FROM (
                  SELECT {KEYS}, bool_or(e.value IS NOT DISTINCT FROM h.value AND e.quality = h.quality) AS equal
                  FROM edge e JOIN here h USING ({KEYS}) GROUP BY {KEYS})
                WHERE NOT equal""",  # noqa: S608 - constants alone
        )
    return Difference(edge, rows, lost, rows - distinct, altered, strange), rows


def _only_in(one: str, other: str) -> str:
    return f"SELECT count(*) FROM (SELECT DISTINCT {KEYS} FROM {one}) ANTI JOIN {other} USING ({KEYS})"  # noqa: S608 - names above


def _load_edge(db: duckdb.DuckDBPyConnection, batches: Sequence[Batch]) -> None:
    """Table ``edge``: one row per value, exactly as the batches say."""
    import numpy as np

    names: dict[tuple[str, str, str], int] = {}
    points: dict[str, int] = {}
    device: list[int] = []
    point: list[int] = []
    at_ms: list[int] = []
    value: list[float] = []
    quality: list[int] = []
    for batch in batches:
        for part in batch.parts:
            ids = [names.setdefault((batch.site, part.kind, name), len(names)) for name in part.dev]
            rows = [ids[index] for index in part.row]
            times = [batch.t0 + dt for dt in part.dt]
            for name, column in part.cols.items():
                device += rows
                at_ms += times
                point += [points.setdefault(name, len(points))] * len(rows)
                value += [float("nan") if v is None else float(v) for v in column.v]
                quality += column.q if isinstance(column.q, list) else [column.q] * len(rows)
    db.execute("CREATE TABLE edge_device (id BIGINT, site VARCHAR, kind VARCHAR, name VARCHAR)")
    db.execute("CREATE TABLE edge_point (id BIGINT, name VARCHAR)")
    if names:
        db.executemany("INSERT INTO edge_device VALUES (?, ?, ?, ?)", [[i, *key] for key, i in names.items()])
        db.executemany("INSERT INTO edge_point VALUES (?, ?)", [[i, name] for name, i in points.items()])
    db.register(
        "cells",
        {
            "device": np.array(device, dtype=np.int64),
            "point": np.array(point, dtype=np.int64),
            "at_ms": np.array(at_ms, dtype=np.int64),
            "value": np.array(value, dtype=np.float64),
            "quality": np.array(quality, dtype=np.uint8),
        },
    )
    db.execute(
        """CREATE TABLE edge AS
           SELECT d.site, d.kind, d.name AS device, p.name AS point, c.at_ms,
                  CASE WHEN isnan(c.value) THEN NULL ELSE c.value END AS value, c.quality
           FROM cells c JOIN edge_device d ON d.id = c.device JOIN edge_point p ON p.id = c.point"""
    )


def _one(db: duckdb.DuckDBPyConnection, query: str) -> int:
    row = db.execute(query).fetchone()
    return int(row[0]) if row else 0
