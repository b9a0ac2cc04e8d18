"""The count of edge against central sees what it must see: a dropped batch, a doubled row, a changed value.

Both sides are made by the product's own stores; then one side is damaged on disk, as no running program could.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from agent.clock import SystemClock
from agent.ledger import Ledger, Txn
from agent.outbox import BulkOutbox
from central.store import evidence
from central.store.database import Database
from central.telemetry.duck import DuckStore
from tizgin.demo.count import EdgeFiles, count
from wire.batch import Batch, PartBuilder, decode, encode
from wire.keys import SigningKey
from wire.names import origin
from wire.records import parse_line

SITE = "kz-demo-01"
BATCHES, ROWS = 3, 4
CELLS = BATCHES * ROWS * 2


@dataclass(frozen=True)
class Pair:
    """The databases of one site and of central."""

    folder: Path

    @property
    def edge(self) -> EdgeFiles:
        return EdgeFiles(SITE, self.folder / "ledger.db", self.folder / "bulk.db")

    @property
    def central(self) -> Path:
        return self.folder / "central.db"

    @property
    def telemetry(self) -> Path:
        return self.folder / "telemetry.duckdb"

    def sql(self, statement: str) -> None:
        with sqlite3.connect(self.central) as db:
            changed = db.execute(statement).rowcount
        assert changed > 0

    def duck(self, statement: str) -> None:
        with duckdb.connect(":memory:") as db:
            db.execute(f"ATTACH '{self.telemetry}' AS store")
            db.execute("USE store")
            db.execute(statement)


def batch(epoch: str, boot: str, n: int, now_ms: int) -> Batch:
    part = PartBuilder("meter", 12)
    for row in range(ROWS):
        power = None if row == 1 else 1000.5 * n + row
        at = now_ms + 1000 * (ROWS * n + row)
        part.add("em-1", at, {"power_w": (power, 12 if power is None else 0), "frequency_hz": (50.01, 0)})
    return Batch(v=1, site=SITE, epoch=epoch, boot=boot, n=n, t0=now_ms, clk="S", parts=[part.build(now_ms)])


async def fill(folder: Path) -> None:
    now_ms = time.time_ns() // 1_000_000 - 60_000
    clock = SystemClock("host")
    ledger = Ledger.open(folder / "ledger.db", site=SITE, key=SigningKey.generate(), clock=clock, fw="test")
    ledger.start()
    bulk = BulkOutbox(folder / "bulk.db", boot=ledger.boot, max_bytes=1 << 24)
    order = "01a1fc55-d304-7181-b0e8-472a16142bb4"
    rx = {"id": order, "digest": None, "raw": None, "rx": now_ms}
    ack = {"id": order, "state": "rejected", "code": "replay", "text": "", "order_mode": None, "agent_mode": "armed",
           "kids": [], "seq": 1}  # fmt: skip
    await ledger.commit(Txn().record("site", "event", {"ev": "alarm", "obj": "x"}), urgent=True)
    await ledger.commit(Txn().record("cmd", "cmd_rx", rx).record("cmd", "cmd_ack", ack), urgent=True)
    packed = [encode(batch(ledger.epoch, ledger.boot, n, now_ms)) for n in range(BATCHES)]
    for n, raw in enumerate(packed):
        assert await bulk.put(raw, n=n, t0=now_ms, rows=ROWS, cells=ROWS * 2)
    lines = [r.line.encode() for r in [*await ledger.lines("site", 0, 9), *await ledger.lines("cmd", 0, 9)]]
    epoch = ledger.epoch
    await bulk.close()
    await ledger.close()
    database = await asyncio.to_thread(Database.open, f"sqlite:///{folder / 'central.db'}")
    incoming = []
    for line in lines:
        record, doc = parse_line(line)
        assert doc["log"] == origin(SITE, epoch)
        incoming.append(evidence.Incoming(SITE, epoch, line, record, doc, None))
    await database.write(lambda c: evidence.store(c, incoming, now_ms))
    database.close()
    store = DuckStore(folder / "telemetry.duckdb")
    await store.write([(decode(raw), raw) for raw in packed], now_ms)
    await store.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    asyncio.run(fill(folder))
    return folder


@pytest.fixture
def pair(made: Path, tmp_path: Path) -> Pair:
    return Pair(Path(shutil.copytree(made, tmp_path / "pair")))


def test_equal_sides_count_clean(pair: Pair) -> None:
    found = count([pair.edge], pair.central, pair.telemetry)
    assert found.clean
    assert (found.lost, found.duplicated) == (0, 0)
    assert (found.evidence.edge, found.evidence.central) == (3, 3)
    assert (found.answers.edge, found.answers.central) == (2, 2)
    assert (found.telemetry.edge, found.telemetry.central, found.telemetry_rows) == (CELLS, CELLS, CELLS)
    assert found.readings == BATCHES * ROWS


DAMAGES: list[tuple[str, Callable[[Pair], None], dict[str, int]]] = [
    (
        "a dropped batch",
        lambda p: p.duck("DELETE FROM telemetry WHERE batch = (SELECT id FROM batches WHERE n = 1)"),
        {"lost": ROWS * 2},
    ),
    (
        "one dropped value",
        lambda p: p.duck("DELETE FROM telemetry WHERE rowid = (SELECT min(rowid) FROM telemetry)"),
        {"lost": 1},
    ),
    (
        "one doubled value",
        lambda p: p.duck("INSERT INTO telemetry SELECT * FROM telemetry WHERE rowid = 0"),
        {"duplicated": 1},
    ),
    (
        "a batch stored twice",
        lambda p: p.duck("INSERT INTO telemetry SELECT * FROM telemetry WHERE batch = 1"),
        {"duplicated": ROWS * 2},
    ),
    (
        "a changed value",
        lambda p: p.duck("UPDATE telemetry SET value = value + 1 WHERE rowid = 0"),
        {"altered": 1},
    ),
    (
        "a null that became 0",
        lambda p: p.duck("UPDATE telemetry SET value = 0 WHERE value IS NULL"),
        {"altered": BATCHES},
    ),
    (
        "a value from nowhere",
        lambda p: p.duck("UPDATE telemetry SET at_ms = at_ms + 1 WHERE rowid = 0"),
        {"lost": 1, "unexplained": 1},
    ),
    ("a dropped record", lambda p: p.sql("DELETE FROM records WHERE stream = 'site'"), {"lost": 1}),
    ("a dropped answer", lambda p: p.sql("DELETE FROM order_answers WHERE ty = 'cmd_ack'"), {"lost": 1}),
    ("a changed record", lambda p: p.sql("UPDATE records SET hash = '00' WHERE stream = 'site'"), {"altered": 1}),
    (
        "a record from nowhere",
        lambda p: p.sql("UPDATE records SET n = 7 WHERE stream = 'site'"),
        {"lost": 1, "unexplained": 1},
    ),
]


@pytest.mark.parametrize(("damage", "expected"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_every_damage_is_counted(pair: Pair, damage: Callable[[Pair], None], expected: dict[str, int]) -> None:
    damage(pair)
    found = count([pair.edge], pair.central, pair.telemetry)
    total = found.total
    seen = {name: getattr(total, name) for name in ("lost", "duplicated", "altered", "unexplained")}
    assert seen == {"lost": 0, "duplicated": 0, "altered": 0, "unexplained": 0} | expected
    assert not found.clean
    assert (found.lost, found.duplicated) == (seen["lost"], seen["duplicated"])


def test_a_database_that_is_missing_is_an_error_and_not_an_empty_one(pair: Pair) -> None:
    pair.central.unlink()
    with pytest.raises(sqlite3.OperationalError):
        count([pair.edge], pair.central, pair.telemetry)
    assert not pair.central.exists()
