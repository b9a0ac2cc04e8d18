"""A power cut at any write of the ledger: what was said to be written is there, the log is a prefix of itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from crash_images import ALL, NONE, SOME, images, lay_down
from recording_vfs import Log, recorded

from agent.checkpoints import Checkpointer
from agent.ledger import Ledger, Txn
from agent.ledger import store as store_module
from tests.unit.agent_kit import SimClock
from wire.checkpoints import cosign, open_checkpoint
from wire.keys import SigningKey
from wire.messages import CheckpointMessage, Cosign
from wire.notes import COSIGNATURE, NoteKey, parse_note
from wire.policy import Policy, parse_policy

SITE = "kz-small-1"
KEY, K_LOG, K_WIT = (SigningKey.generate() for _ in range(3))
WITNESS = NoteKey("so.example", COSIGNATURE, K_WIT.public.raw)
POLICY = parse_policy(f"witness so {WITNESS.text}\nquorum so\n")
STREAMS = ("mp:MAIN", "mp:M1", "bal", "site")
Row = tuple[int, str, int, bytes, str, bytes, bytes]
RECORDS = "SELECT idx, stream, n, payload, kid, sig, hash FROM record ORDER BY idx"


@dataclass
class Run:
    """A whole life of a ledger: what was written, and when somebody was told so."""

    log: Log
    rows: list[Row] = field(default_factory=list)
    epoch: str = ""
    told: list[tuple[int, int]] = field(default_factory=list)
    """(events at that moment, records that were acknowledged by then)."""
    shown: list[tuple[int, int]] = field(default_factory=list)
    """(events, size) of checkpoints that left the agent."""

    def told_at(self, position: int) -> int:
        return max((size for events, size in self.told if events <= position), default=0)

    def shown_at(self, position: int) -> set[int]:
        return {size for events, size in self.shown if events <= position}

    @property
    def boundaries(self) -> set[int]:
        return {0, *(size for _, size in self.told)}


def open_ledger(path: Path, clock: SimClock) -> Ledger:
    path.with_suffix(".ballast").touch()  # or each image would lay down its own
    return Ledger.open(path, site=SITE, key=KEY, clock=clock, fw="test")


async def live(folder: Path, count: int) -> Run:
    """Thousands of records in groups, a checkpoint now and then, each cosigned."""
    path, clock, rng = folder / "ledger.db", SimClock(), random.Random(5)
    with recorded(path) as log, mock.patch.object(store_module, "GROUP_S", 0.001):
        run, ledger = Run(log), open_ledger(path, clock)
        ledger.start()
        run.epoch = ledger.epoch
        ledger.on_append(lambda done: run.told.append((len(log), done[-1].idx)))

        async def publish(message: CheckpointMessage) -> None:
            note = parse_note(message.note.encode())
            size = int(note.text.split("\n")[1])
            run.shown.append((len(log), size))
            line = cosign(note.text, WITNESS.name, K_WIT, clock.now_ms() // 1000).line()
            await pen.taken(
                Cosign(site=SITE, epoch=run.epoch, witness=WITNESS.name, size=size, of_size=size, lines=line)
            )

        def policy() -> Policy:
            return POLICY

        pen = Checkpointer(SITE, ledger, K_LOG, clock, 900, policy, publish)
        written = 0
        while written < count:
            group = rng.choice((1, 3, 20, 60, 90))
            await asyncio.gather(
                *(
                    ledger.commit(
                        Txn().record(rng.choice(STREAMS), "event", {"ev": "x", "obj": "y" * rng.randrange(300)}),
                        urgent=number == group - 1,
                    )
                    for number in range(group)
                )
            )
            written += group
            clock.advance(1)
            if rng.random() < 0.2:
                await pen.make()
                await pen._show()
        assert (await ledger.head())[0] > count
        await ledger.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        run.rows = [tuple(row) for row in db.execute(RECORDS)]
    return run


def root_of(leaves: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1, word for word."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


async def judge(run: Run, position: int, folder: Path, *, go_on: bool) -> None:
    """Open an image and hold it against the whole life."""
    clock = SimClock()
    ledger = open_ledger(folder / "ledger.db", clock)  # the guard of start-up is in here
    try:
        rows = [tuple(row) for row in ledger.read_now(RECORDS)]
        assert len(rows) >= run.told_at(position), "the log is shorter than what was acknowledged"
        assert len(rows) in run.boundaries, "a transaction is there in part"
        assert rows == run.rows[: len(rows)], "another history"
        if not rows:
            return
        assert ledger.epoch == run.epoch
        assert ledger.read_now("PRAGMA integrity_check") == [("ok",)]
        size, root = await ledger.head()
        leaves = [row[6] for row in rows]
        assert (size, root) == (len(rows), root_of(leaves))
        for part in {1, size // 2 or 1, size}:
            assert await ledger.root_at(part) == root_of(leaves[:part])
        ends: dict[str, tuple[int, str]] = {}
        for _, stream, n, *_, leaf in rows:
            assert n == ends.get(stream, (0, ""))[0], "a number is left out"
            ends[stream] = (n + 1, leaf.hex())
        assert await ledger.heads() == ends
        signed = ledger.read_now("SELECT size, note FROM checkpoint")
        assert run.shown_at(position) <= {s for s, _ in signed}, "a checkpoint was shown that is not on disk"
        for _, note in signed[-3:]:
            checkpoint, _ = open_checkpoint(bytes(note), [NoteKey(f"tizgin/{SITE}/{run.epoch}", 1, K_LOG.public.raw)])
            assert checkpoint.root == root_of(leaves[: checkpoint.size])
        if go_on:
            ledger.start()
            (new,) = await ledger.commit(Txn().record("bal", "event", {"ev": "after", "obj": "cut"}), urgent=True)
            assert (new.idx, new.n) == (size + 1, ends.get("bal", (0, ""))[0])
            assert (await ledger.head())[1] == root_of([*leaves, new.line.hash])
    finally:
        await ledger.close()


async def judge_all(run: Run, wanted: set[int], folder: Path, seed: int) -> int:
    judged = 0
    for position, kind, files in images(run.log, wanted, seed):
        place = lay_down(files, folder / "image")
        try:
            await judge(run, position, place, go_on=judged % 7 == 0)
        except Exception as error:
            raise AssertionError(
                f"cut after {position} of {len(run.log)} events, un-synced: {kind}: {error}"
            ) from error
        shutil.rmtree(place)
        judged += 1
    return judged


async def test_a_cut_at_any_write_leaves_a_prefix_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    run = await live(tmp_path, 2000)
    assert len(run.rows) > 2000
    assert len(run.shown) > 3
    rng = random.Random(1)
    # The making of the file is a tenth of the images; the checkpoints into it come among the rest.
    wanted = {*rng.sample(range(200), 5), *rng.sample(range(len(run.log) + 1), 30), len(run.log)}
    assert await judge_all(run, wanted, tmp_path, 2) == 3 * len(wanted)


@pytest.mark.long
@pytest.mark.timeout(3000)
async def test_a_cut_at_every_write(tmp_path: Path) -> None:
    run = await live(tmp_path, 3000)
    assert await judge_all(run, set(range(len(run.log) + 1)), tmp_path, 3) == 3 * (len(run.log) + 1)


async def test_the_images_tell_a_database_that_does_not_sync(tmp_path: Path) -> None:
    """The other way round: without ``synchronous=FULL`` acknowledged rows are lost, and an image shows it."""
    path, told = tmp_path / "careless.db", []
    with recorded(path) as log:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("CREATE TABLE t (x)")
        for number in range(20):
            db.execute("INSERT INTO t VALUES (?)", (number,))
            told.append((len(log), number + 1))
        end = len(log)
        db.close()
    lost = {ALL: 0, NONE: 0, SOME: 0}
    for position, kind, files in images(log, set(range(told[0][0], end)), 4):
        place = lay_down(files, tmp_path / "image")
        with contextlib.closing(sqlite3.connect(place / "careless.db")) as found:
            try:
                count = found.execute("SELECT count(*) FROM t").fetchone()[0]
            except sqlite3.Error:
                count = 0
        lost[kind] += count < max(size for events, size in told if events <= position)
        shutil.rmtree(place)
    assert lost[ALL] == 0
    assert lost[NONE] > 0
    assert lost[SOME] > 0
