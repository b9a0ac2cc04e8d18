"""Evidence: how fast records become durable at the site, and how fast the offline verifier judges a bundle of them.

``append_per_s``: interval records through the agent's ledger (signed, chained, group commit, ``synchronous=FULL``), as
many commits waiting at a time as a slot's end brings. ``verify_per_s``: records of a bundle that central's own code
built, judged by the verifier from the zip to the last total, in one process. The floor is a bare Ed25519 verification
of as many bytes, which no verifier of single signatures can do without.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from agent.clock import SystemClock
from agent.ledger import Ledger, Txn
from benchmarks.common import log_file, parser, percentile, report, rss_mb
from central import bundle as central_bundle
from central.store import schema
from verifier.metering import Period
from verifier.verify import verify
from wire.canonical import Json
from wire.dsse import RECORD_TYPE, pae
from wire.keys import SigningKey
from wire.records import RecordLine
from wire.registry import Epoch, KeysDocument, RegisteredPoint, RegisteredSite, sign_keys

SITE, EPOCH, SLOT_S = "kz-bench-1", "e1-0a0b0c0d", 900
START_S = 1_790_000_100 // SLOT_S * SLOT_S
POINT = "energy_import_wh"
MAP = {"fc": 4, "addr": 100, "words": 2, "order": "big", "enc": "u32", "lsb": {"num": 1, "den": 1}}
STEP_WH = 12_345


def _frames(bits: int) -> list[list[str]]:
    return [["010400640002", "010404" + bits.to_bytes(4, "big").hex()]]


def interval(slot: int, config: str) -> Json:
    """Fields of one interval record: a meter with whole Wh in two registers."""
    t0 = START_S + slot * SLOT_S
    before, after = 1_000_000 + slot * STEP_WH, 1_000_000 + (slot + 1) * STEP_WH
    fields: Json = {
        "t0": t0,
        "t1": t0 + SLOT_S,
        "rt0": t0 * 1000 + 210,
        "rt1": (t0 + SLOT_S) * 1000 + 210,
        "reg": {POINT: [before, after]},
        "cfg": config,
        "wh": STEP_WH,
        "exp_wh": None,
        "sn": "A1",
        "mto": 12,
        "q": [],
        "raw": _frames(after),
    }
    return fields | ({"raw0": _frames(before)} if slot == 0 else {})


async def append_per_s(folder: Path, total: int, waiting: int) -> float:
    """Interval records per second through the ledger, ``waiting`` commits open at a time.

    Raises:
        RuntimeError: the ledger does not hold them all.
    """
    ledger = Ledger.open(
        folder / "ledger.db", site=SITE, key=SigningKey.generate(), clock=SystemClock("host"), fw="benchmark"
    )
    ledger.start()
    numbers = iter(range(total))

    async def produce() -> None:
        for i in numbers:
            await ledger.commit(Txn().record(f"mp:M{i % 200}", "interval", interval(i // 200, "00" * 32)))

    try:
        began = time.perf_counter()
        await asyncio.gather(*(produce() for _ in range(waiting)))
        took_s = time.perf_counter() - began
        rows = await ledger.read("SELECT count(*) FROM record")
    finally:
        await ledger.close()
    if rows[0][0] != total:
        raise RuntimeError(f"the ledger holds {rows[0][0]} records, {total} were committed")
    return total / took_s


class _Evidence:
    """Signed streams of a site as central would have stored them."""

    def __init__(self, points: int, slots: int) -> None:
        self.rec, self.log, self.registrar, self.collector = (SigningKey.generate() for _ in range(4))
        self.points, self.slots = points, slots
        self.lines: list[tuple[str, int, RecordLine]] = []
        self._previous: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def _add(self, stream: str, ty: str, at_s: float, fields: Json) -> str:
        n = self._numbers.get(stream, 0)
        payload: Json = {
            "v": 1,
            "log": f"tizgin/{SITE}/{EPOCH}",
            "st": stream,
            "n": n,
            "p": self._previous.get(stream),
            "a": None,
            "ty": ty,
            "at": int(at_s * 1000),
            "mono": int((at_s - START_S + 1000) * 1e9),
            "boot": "b0",
            "clk": {"s": "S", "off_us": 5, "src": "kernel"},
            "fw": "benchmark",
        }
        line = RecordLine.sign(payload | fields, self.rec)
        self.lines.append((stream, n, line))
        self._numbers[stream], self._previous[stream] = n + 1, line.hash.hex()
        return line.hash.hex()

    def make(self) -> None:
        """Genesis, and for each point a bind and every slot."""
        genesis: Json = {
            "site": SITE,
            "slot_s": SLOT_S,
            "k_rec": self.rec.public.text,
            "k_log": self.log.public.text,
            "prev": None,
            "simulation": False,
            "contracted_w": 100_000_000,
            "emergency_w": 1_500_000,
        }
        self._add("site", "genesis", START_S - 60, genesis)
        one = {"num": 1, "den": 1}
        for number in range(self.points):
            stream = f"mp:M{number}"
            bind: Json = {
                "device": f"em-{number}",
                "profile": "benchmark",
                "sn": "A1",
                "role": "commercial",
                "owner": "grid",
                "boundary": True,
                "node": "QF0",
                "inverted": False,
                "ct": one,
                "vt": one,
                "ratio_applied_in": "meter",
                "seals": [],
                "pts": {POINT: MAP},
            }
            leaf = self._add(stream, "bind", START_S - 30, bind)
            for slot in range(self.slots):
                self._add(stream, "interval", START_S + (slot + 1) * SLOT_S + 0.4, interval(slot, leaf))

    def register(self) -> bytes:
        """The registrar's word about the site."""
        document = KeysDocument(
            v=1,
            version=1,
            issued_at=START_S * 1000,
            persons=(),
            issuers=(),
            sites=(
                RegisteredSite(
                    id=SITE,
                    zone="north",
                    contracted_w=100_000_000,
                    emergency_w=1_500_000,
                    slot_s=900,
                    epochs=(Epoch(epoch=EPOCH, k_rec=self.rec.public.text, k_log=self.log.public.text),),
                    points=tuple(RegisteredPoint(id=f"M{i}", role="commercial") for i in range(self.points)),
                ),
            ),
        )
        return sign_keys(document, self.registrar)

    def bundle(self) -> bytes:
        """A bundle of everything, built by central's own code from its own tables."""
        engine = sa.create_engine("sqlite://")
        schema.metadata.create_all(engine)
        rows: list[dict[str, Any]] = []
        for stream, n, line in self.lines:
            doc = json.loads(line.payload)
            rows.append(
                {
                    "site": SITE,
                    "epoch": EPOCH,
                    "stream": stream,
                    "n": n,
                    "ty": doc["ty"],
                    "at": doc["at"],
                    "hash": line.hash.hex(),
                    "prev": doc["p"],
                    "line": line.encode(),
                    "verified": True,
                    "received_at": doc["at"],
                }
            )
        with engine.begin() as connection:
            connection.execute(sa.insert(schema.records), rows)
            connection.execute(
                sa.insert(schema.registers), [{"version": 1, "envelope": self.register(), "received_at": 1}]
            )
            made = central_bundle.build(
                connection,
                SITE,
                central_bundle.Period(START_S, START_S + self.slots * SLOT_S),
                self.collector,
                {self.registrar.kid: self.registrar.public},
                tool="tizgin/benchmark",
                now_ms=(START_S + self.slots * SLOT_S) * 1000,
            )
        engine.dispose()
        return made.data


def verify_per_s(folder: Path, points: int, slots: int, runs: int) -> tuple[float, int]:
    """Records per second of the whole verification (median of the runs), and how many bytes a signature covers.

    Raises:
        RuntimeError: the verifier was not content: then its speed means nothing.
    """
    made = _Evidence(points, slots)
    made.make()
    path, trust = folder / "bundle.zip", folder / "trust.json"
    path.write_bytes(made.bundle())
    keys = {"registrar": [made.registrar.public.text], "collector": [made.collector.public.text]}
    trust.write_text(json.dumps({"v": 1, **keys}), encoding="utf-8")
    period = Period(START_S, START_S + slots * SLOT_S)
    took: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        judged = verify(path, trust_path=trust, period=period)
        took.append(time.perf_counter() - began)
        if judged.errors:
            raise RuntimeError(f"the verifier found {len(judged.errors)} errors; first: {judged.errors[0]}")
        if judged.exit != 0:
            raise RuntimeError(f"the verifier ended with {judged.exit}, expected 0")
    return len(made.lines) / percentile(took, 0.5), len(made.lines[-1][2].payload)


def ed25519_verify_per_s(payload_bytes: int, count: int) -> float:
    """Bare verifications per second, key and message decoded beforehand."""
    key = SigningKey.generate()
    message = pae(RECORD_TYPE, base64.b85encode(bytes(payload_bytes))[:payload_bytes])
    signature = key.sign(message)
    began = time.perf_counter()
    if not all(key.public.verifies(message, signature) for _ in range(count)):
        raise RuntimeError("the floor's own signature does not verify")
    return count / (time.perf_counter() - began)


def main() -> int:
    """Command line."""
    options = parser(str(__doc__).partition("\n")[0]).parse_args()
    total, waiting = (10_000, 1000) if options.quick else (100_000, 1000)
    points, slots, runs = (10, 1000, 3) if options.quick else (40, 2880, 3)
    with tempfile.TemporaryDirectory(prefix="bench-evidence-", dir=options.folder) as name:
        folder = Path(name)
        with log_file(folder / "agent.log"):
            appended = asyncio.run(append_per_s(folder, total, waiting))
        verified, payload_bytes = verify_per_s(folder, points, slots, runs)
        bare = percentile([ed25519_verify_per_s(payload_bytes, 2000) for _ in range(5)], 0.5)
        report(
            "evidence",
            folder=folder,
            ours={
                "append_per_s": round(appended),
                "records_appended": total,
                "commits_waiting": waiting,
                "verify_per_s": round(verified),
                "records_verified": 1 + points * (slots + 1),
                "rss_mb": rss_mb(),
            },
            floor={"ed25519_verify_per_s": round(bare)},
            ratios={"verify_to_floor": round(verified / bare, 3)},
            as_json=options.json,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
