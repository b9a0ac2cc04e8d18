"""Central's store: how many records a second become durable at the collector.

``stored_per_s``: interval records as sites send them, in messages of ``LINES`` lines, through the collector's own
sorting (every signature checked against the register) and storing, in its own groups, each one transaction.
``again_per_s``: the same messages once more, as after a lost acknowledgement. Without ``--database`` on SQLite in
``--folder``; with it on that empty PostgreSQL database. The floor is the sorting alone: nothing is stored faster than
it is checked.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.common import parser, report
from benchmarks.evidence import EPOCH, SITE, SLOT_S, START_S, interval
from central.collector.collector import GROUP
from central.collector.link import Arrived
from central.collector.sorting import Sorter
from central.collector.storing import Storer
from central.store.database import Database
from central.store.schema import metadata, records
from central.telemetry.duck import DuckStore
from central.witness import Witness
from wire.keys import SigningKey
from wire.names import origin, topic
from wire.records import RecordLine

POINTS, LINES = 50, 10


def messages(key: SigningKey, slots: int) -> list[Arrived]:
    """Slots of ``POINTS`` meters, signed and chained, in the order in which a site sends them."""
    client = Client(CallbackAPIVersion.VERSION2)
    prev: dict[int, str | None] = {}
    lines: list[bytes] = []
    for slot in range(slots):
        for point in range(POINTS):
            head = {
                "v": 1,
                "log": origin(SITE, EPOCH),
                "st": f"mp:M{point}",
                "n": slot,
                "p": prev.get(point),
                "a": None,
            }
            head |= {"ty": "interval", "at": (START_S + (slot + 1) * SLOT_S) * 1000, "mono": slot, "boot": "b"}
            head |= {"clk": {"s": "S", "off_us": 10, "src": "ntp"}, "fw": "benchmark"}
            line = RecordLine.sign(head | interval(slot, "00" * 32), key)
            prev[point] = line.hash.hex()
            lines.append(line.encode())
    now = (START_S + slots * SLOT_S) * 1000
    return [
        Arrived(topic(SITE, "evidence"), b"\n".join(lines[i : i + LINES]), 1, False, 0, client, now)
        for i in range(0, len(lines), LINES)
    ]


async def stored_per_s(url: str, folder: Path, key: SigningKey, arrived: list[Arrived]) -> tuple[float, float, float]:
    """Records a second: the first time, the second time, and sorted without being stored.

    Raises:
        RuntimeError: the database was not empty, or does not hold them all.
    """
    database = await asyncio.to_thread(Database.open, url)
    telemetry = await asyncio.to_thread(DuckStore, folder / "telemetry.duckdb")
    total = sum(a.payload.count(b"\n") + 1 for a in arrived)

    def held() -> int:
        with database.engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(records)).scalar_one())

    try:
        if held():
            raise RuntimeError("the database is not empty: give an empty one, this would mix with its records")
        sorter = Sorter(lambda: [SITE], lambda _site: {EPOCH: {key.kid: key.public}})
        storer = Storer(database, telemetry, Witness(SigningKey.generate(), lambda _site, _epoch: []))
        took: list[float] = []
        for _ in range(2):
            began = time.perf_counter()
            for i in range(0, len(arrived), GROUP):
                await storer.store([sorter.sort(a) for a in arrived[i : i + GROUP]], arrived[i].received_ms)
            took.append(time.perf_counter() - began)
        if held() != total:
            raise RuntimeError(f"the database holds {held()} records, {total} were stored")
        began = time.perf_counter()
        for a in arrived:
            sorter.sort(a)
        took.append(time.perf_counter() - began)
        with database.engine.begin() as connection:
            for table in metadata.tables.values():
                connection.execute(sa.delete(table))
    finally:
        await telemetry.close()
        database.close()
    return total / took[0], total / took[1], total / took[2]


def main() -> None:
    """Print one result."""
    line = parser(__doc__ or "")
    line.add_argument("--database", help="URL of an empty PostgreSQL database (default: SQLite)")
    args = line.parse_args()
    key = SigningKey.generate()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="benchmark-") as name:
        folder = Path(name)
        arrived = messages(key, 100 if args.quick else 800)
        url = args.database or f"sqlite:///{folder / 'central.db'}"
        first, again, floor = asyncio.run(stored_per_s(url, folder, key, arrived))
        report(
            "store",
            folder=folder,
            ours={
                "database": "postgresql" if args.database else "sqlite",
                "records": sum(a.payload.count(b"\n") + 1 for a in arrived),
                "stored_per_s": round(first),
                "again_per_s": round(again),
            },
            floor={"sorted_per_s": round(floor)},
            ratios={"of_floor": round(first / floor, 2)},
            as_json=args.json,
        )


if __name__ == "__main__":
    main()
