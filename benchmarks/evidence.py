"""Evidence: how fast records become durable at the site, and how fast the offline verifier judges a bundle of them.

``append_per_s``: interval records through the agent's ledger (signed, chained, group commit, ``synchronous=FULL``), as
many commits waiting at a time as a slot's end brings. ``ledger_bytes_per_record``: what ``ledger.db`` grows by, indexes
and tree included, with each anchored interval of a meter of two registers; ``ledger_year_gb`` what follows for a year
of 50 meters. ``proof_ms``: an inclusion proof out of the ledger's log, made and checked. ``verify_per_s``: records of a
witnessed bundle that central's own code built, judged by the verifier's own command from its start to the last total;
``verify_jobs2_per_s`` the same with two processes; ``rss_mb`` the largest resident memory of such a process, and
``rss_year_mb`` what follows for a year of 50 meters (1.75 million records) from the memory at two sizes. The floor is a
bare Ed25519 verification of as many bytes, which no verifier of single signatures can do without. ``cpu_to_floor`` and
``year_cpu_s`` are of processor time in one process, which other programs on the machine move less.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from agent.clock import SystemClock
from agent.ledger import Ledger, Txn
from benchmarks.common import log_file, parser, percentile, report
from central import bundle as central_bundle
from central.store import schema
from wire.canonical import Json
from wire.checkpoints import Checkpoint, anchor_of, cosign
from wire.dsse import RECORD_TYPE, pae
from wire.keys import SigningKey
from wire.merkle import Frontier, check_inclusion
from wire.names import origin
from wire.notes import COSIGNATURE, Note, NoteKey
from wire.records import RecordLine
from wire.registry import Epoch, KeysDocument, RegisteredPoint, RegisteredSite, sign_keys

SITE, EPOCH, SLOT_S = "kz-bench-1", "e1-0a0b0c0d", 900
START_S = 1_790_000_100 // SLOT_S * SLOT_S
POINT = "energy_import_wh"
MAP = {"fc": 4, "addr": 100, "words": 2, "order": "big", "enc": "u32", "lsb": {"num": 1, "den": 1}}
STEP_WH = 12_345
PIECE = 20_000
YEAR_RECORDS = 1_752_000
"""Fifty meters, a slot every 15 minutes."""


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


async def append_per_s(folder: Path, total: int, waiting: int) -> tuple[float, float]:
    """Interval records per second through the ledger, ``waiting`` commits open at a time; and ms of a proof.

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
        proof_ms = await _proof_ms(ledger, total)
    finally:
        await ledger.close()
    if rows[0][0] != total:
        raise RuntimeError(f"the ledger holds {rows[0][0]} records, {total} were committed")
    return total / took_s, proof_ms


async def ledger_bytes(folder: Path, total: int) -> float:
    """By how much the ledger grows with each record as an agent writes them."""
    path = folder / "size.db"
    ledger = Ledger.open(path, site=SITE, key=SigningKey.generate(), clock=SystemClock("host"), fw="tizgin/benchmark")
    ledger.start()
    sizes = []
    try:
        await ledger.keep_cosigned(1, b"a note that records are anchored to")
        for part in range(2):
            for i in range(part * total, (part + 1) * total):
                fields = interval(i // 50, "00" * 32)
                export = {"energy_export_wh": [1_000_000, 1_000_123]}
                fields |= {"reg": fields["reg"] | export, "exp_wh": 123, "raw": fields["raw"] * 2}
                fields |= {"sn": "0123456789", "pi": {"wh": STEP_WH, "n": 900, "gap_ms": 1000}}
                await ledger.commit(Txn().record(f"mp:M{i % 50}", "interval", fields), urgent=True)
            await ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append(path.stat().st_size)
    finally:
        await ledger.close()
    return (sizes[1] - sizes[0]) / total


async def _proof_ms(ledger: Ledger, total: int) -> float:
    """Median of 200 inclusion proofs, each made by the ledger and checked."""
    leaves = Frontier()
    hashes: list[bytes] = []
    for first in range(0, total, 10_000):
        hashes += await ledger.leaves(first, min(10_000, total - first))
    leaves.extend(hashes)
    root, took = leaves.root(), []
    for idx in random.Random(1).choices(range(1, total + 1), k=200):
        began = time.perf_counter()
        check_inclusion(hashes[idx - 1], idx - 1, total, await ledger.inclusion(idx, total), root)
        took.append(time.perf_counter() - began)
    return percentile(took, 0.5) * 1000


class Evidence:
    """Signed streams of a site as central would have stored them; its log is cosigned after each slot."""

    def __init__(self, points: int, slots: int) -> None:
        self.rec, self.log, self.registrar, self.collector = (SigningKey.generate() for _ in range(4))
        self.witnesses = {"so": SigningKey.generate(), "col": SigningKey.generate()}
        self.points, self.slots = points, slots
        self.lines: list[tuple[str, int, RecordLine]] = []
        self._previous: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._tree = Frontier()
        self._anchor: Json | None = None

    def _add(self, stream: str, ty: str, at_s: float, fields: Json) -> str:
        n = self._numbers.get(stream, 0)
        payload: Json = {
            "v": 1,
            "log": origin(SITE, EPOCH),
            "st": stream,
            "n": n,
            "p": self._previous.get(stream),
            "a": self._anchor,
            "ty": ty,
            "at": int(at_s * 1000),
            "mono": int((at_s - START_S + 1000) * 1e6),
            "boot": "b0",
            "clk": {"s": "S", "off_us": 5, "src": "kernel"},
            "fw": "benchmark",
        }
        line = RecordLine.sign(payload | fields, self.rec)
        self.lines.append((stream, n, line))
        self._tree.append(line.hash)
        self._numbers[stream], self._previous[stream] = n + 1, line.hash.hex()
        return line.hash.hex()

    def _checkpoint(self, at_s: int) -> None:
        """A checkpoint, cosigned by all; the site keeps it as a record and anchors what follows to it."""
        note = Checkpoint(origin(SITE, EPOCH), self._tree.size, self._tree.root()).sign(self.log)
        lines = [cosign(note.text, name, key, at_s) for name, key in self.witnesses.items()]
        raw = Note(note.text, (*note.signatures, *lines)).encode()
        size = self._tree.size
        fields: Json = {"ev": "cosigned", "obj": origin(SITE, EPOCH), "detail": {"size": size, "note": raw.decode()}}
        self._add("site", "event", at_s + 1, fields)
        self._anchor = dict(anchor_of(raw, size))

    def make(self) -> None:
        """Genesis, for each point a bind, then every slot of all points and a checkpoint."""
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
        bound: list[str] = []
        for number in range(self.points):
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
            bound.append(self._add(f"mp:M{number}", "bind", START_S - 30, bind))
        for slot in range(self.slots):
            end_s = START_S + (slot + 1) * SLOT_S
            for number in range(self.points):
                self._add(f"mp:M{number}", "interval", end_s + 0.4, interval(slot, bound[number]))
            self._checkpoint(end_s + 40)

    def register(self) -> bytes:
        """The registrar's word about the site."""
        document = KeysDocument(
            v=1,
            version=1,
            issued_at=START_S * 1000,
            persons=(),
            issuers=(),
            policy=self._policy(),
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

    def trust(self) -> bytes:
        """The trust file that goes with it."""
        keys = {"registrar": [self.registrar.public.text], "collector": [self.collector.public.text]}
        return json.dumps({"v": 1, **keys}).encode()

    def _policy(self) -> str:
        witnesses = [
            f"witness {name} {NoteKey(name, COSIGNATURE, key.public.raw).text}" for name, key in self.witnesses.items()
        ]
        return "\n".join([*witnesses, f"group all all {' '.join(self.witnesses)}", "quorum all", ""])

    def _rows(self, first: int, last: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for stream, n, line in self.lines[first:last]:
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
        return rows

    def bundle(self, path: Path) -> None:
        """A bundle of everything, built by central's own code from its own tables."""
        engine = sa.create_engine(f"sqlite:///{path}.db")
        schema.metadata.create_all(engine)
        with engine.begin() as connection:
            for first in range(0, len(self.lines), PIECE):
                connection.execute(sa.insert(schema.records), self._rows(first, first + PIECE))
                leaves = enumerate((line.hash for _, _, line in self.lines[first : first + PIECE]), first)
                connection.execute(
                    sa.insert(schema.leaves), [{"site": SITE, "epoch": EPOCH, "idx": i, "hash": h} for i, h in leaves]
                )
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
                folder=path.parent,
            )
            with made:
                central_bundle.write(path, made)
        engine.dispose()
        Path(f"{path}.db").unlink()


class Verified(NamedTuple):
    """One bundle, verified in a process of its own: median seconds with one and two jobs, memory, processor time."""

    records: int
    payload_bytes: int
    alone_s: float
    jobs2_s: float
    rss_mb: float
    cpu_s: float
    """With one job; the least of all runs."""


def verified(folder: Path, points: int, slots: int, runs: int) -> Verified:
    """Verify a witnessed bundle with the verifier's own command.

    Raises:
        RuntimeError: the verifier was not content: then its speed means nothing.
    """
    made = Evidence(points, slots)
    made.make()
    path, trust = folder / "bundle.zip", folder / "trust.json"
    made.bundle(path)
    trust.write_bytes(made.trust())
    words = [str(path), "--trust", str(trust), "--period", f"{START_S}/{START_S + slots * SLOT_S}"]
    alone = [judged(words, folder) for _ in range(runs)]
    two = [judged([*words, "--jobs", "2"], folder) for _ in range(runs)]
    return Verified(
        len(made.lines),
        len(made.lines[-2][2].payload),
        percentile([seconds for seconds, _, _ in alone], 0.5),
        percentile([seconds for seconds, _, _ in two], 0.5),
        max(memory for _, memory, _ in (*alone, *two)),
        min(cpu for _, _, cpu in alone),
    )


MEASURED = """
import resource, sys, time
from pathlib import Path
from verifier.cli import main
memory = Path(sys.argv.pop(1))
status = main()
own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
most = max(int(own.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
memory.write_text(f"{most} {time.process_time()}")
sys.exit(status)
"""
"""Memory is that of the program alone (``VmHWM``): a resource usage would begin with that of who started it."""


def judged(words: list[str], folder: Path) -> tuple[float, float, float]:
    """Seconds, MB and seconds of processor time of one run; with several processes MB are of the largest of them."""
    memory = folder / "memory"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURED, str(memory), *words], capture_output=True, check=False)
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"the verifier was not content: {done.stdout[-600:]!r} {done.stderr[-600:]!r}")
    most, cpu = memory.read_text(encoding="utf-8").split()
    return took, int(most) / 1024, float(cpu)


def ed25519_verify_per_s(payload_bytes: int, count: int) -> tuple[float, float]:
    """Bare verifications per second and per second of processor time, key and message decoded beforehand."""
    key = SigningKey.generate()
    message = pae(RECORD_TYPE, base64.b85encode(bytes(payload_bytes))[:payload_bytes])
    signature = key.sign(message)
    began, cpu = time.perf_counter(), time.process_time()
    if not all(key.public.verifies(message, signature) for _ in range(count)):
        raise RuntimeError("the floor's own signature does not verify")
    return count / (time.perf_counter() - began), count / (time.process_time() - cpu)


def main() -> int:
    """Command line."""
    options = parser(str(__doc__).partition("\n")[0]).parse_args()
    total, waiting = (10_000, 1000) if options.quick else (100_000, 1000)
    points, slots, runs = (50, 240, 3) if options.quick else (50, 2400, 3)
    with tempfile.TemporaryDirectory(prefix="bench-evidence-", dir=options.folder) as name:
        folder = Path(name)
        with log_file(folder / "agent.log"):
            appended, proof_ms = asyncio.run(append_per_s(folder, total, waiting))
            each = asyncio.run(ledger_bytes(folder, 2000))
        small = verified(folder, points, slots // 4, 1)
        found = verified(folder, points, slots, runs)
        floors = [ed25519_verify_per_s(found.payload_bytes, 2000) for _ in range(5)]
        bare, bare_cpu = percentile([wall for wall, _ in floors], 0.5), max(cpu for _, cpu in floors)
        growth = max(0.0, (found.rss_mb - small.rss_mb) / (found.records - small.records))
        report(
            "evidence",
            folder=folder,
            ours={
                "append_per_s": round(appended),
                "records_appended": total,
                "commits_waiting": waiting,
                "proof_ms": round(proof_ms, 3),
                "ledger_bytes_per_record": round(each),
                "ledger_year_gb": round(YEAR_RECORDS * each / 1e9, 2),
                "verify_per_s": round(found.records / found.alone_s),
                "verify_jobs2_per_s": round(found.records / found.jobs2_s),
                "records_verified": found.records,
                "year_s": round(YEAR_RECORDS * found.alone_s / found.records),
                "year_jobs2_s": round(YEAR_RECORDS * found.jobs2_s / found.records),
                "year_cpu_s": round(YEAR_RECORDS * found.cpu_s / found.records),
                "rss_mb": round(found.rss_mb, 1),
                "rss_year_mb": round(found.rss_mb + growth * (YEAR_RECORDS - found.records)),
            },
            floor={"ed25519_verify_per_s": round(bare), "ed25519_verify_per_cpu_s": round(bare_cpu)},
            ratios={
                "verify_to_floor": round(found.records / found.alone_s / bare, 3),
                "cpu_to_floor": round(found.records / found.cpu_s / bare_cpu, 3),
                "jobs2_to_alone": round(found.alone_s / found.jobs2_s, 3),
            },
            as_json=options.json,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
