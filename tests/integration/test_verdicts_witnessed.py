"""Central's log of verdicts: cosigned by witnesses, kept, and refused where it has two histories."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from witness_kit import OwnWitness, listening

from central import witnesses
from central.store.database import Database
from central.store.schema import notes, verdict_logs, verdicts
from central.vee.book import append
from central.vee.carried import LEAVES, LINES, NOTES, carried
from central.vee.daily import DailyJudge, judged
from central.vee.limits import load
from central.vee.witnessing import VerdictWitnesses, stand
from central.witness import note_key
from central.witnesses import WitnessRelay
from tests.integration.test_central_vee import COLLECTOR, DAY0, ENTRY, SITE, fill
from wire.checkpoints import Checkpoint, Submission, cosignatures, log_key, open_checkpoint
from wire.keys import SigningKey
from wire.messages import Cosign
from wire.policy import parse_policy
from wire.registry import Collector, KeysDocument
from wire.verdicts import verdict_origin

ORIGIN = verdict_origin(SITE)
NOW = 1_791_000_000_000


@dataclass
class Bench:
    """A database with two days of records, a witness, and what central has between them."""

    database: Database
    witness: OwnWitness
    relay: WitnessRelay
    carrier: VerdictWitnesses

    def judge(self, day: int, **changes: int) -> None:
        start = DAY0 + day * 86_400
        with self.database.engine.begin() as connection:
            site, verdict = judged(connection, ENTRY, start, start + 86_400)
            append(connection, site, verdict, load(), COLLECTOR, changes.get("now_ms", NOW))

    def read(self, work: Callable[[Connection], object]) -> object:
        with self.database.engine.connect() as connection:
            return work(connection)

    def cosigned(self) -> tuple[int, set[str]]:
        """Size of the newest checkpoint, and who has cosigned it."""
        with self.database.engine.connect() as connection:
            now = stand(connection, SITE)
        assert now is not None
        keys = [self.witness.note_key, note_key(COLLECTOR)]
        open_checkpoint(now.note.encode(), [log_key(ORIGIN, COLLECTOR.public.raw)])
        return now.size, set(cosignatures(now.note, keys))

    async def offered(self) -> tuple[int, set[str]]:
        await self.carrier.offer_all()
        deadline = asyncio.get_running_loop().time() + 10
        while (found := self.cosigned())[1] != {"so.example", note_key(COLLECTOR).name}:
            assert asyncio.get_running_loop().time() < deadline, found
            await asyncio.sleep(0.02)
        return found


def document(witness: OwnWitness, *collectors: Collector) -> KeysDocument:
    policy = f"witness so {witness.note_key.text}\nwitness central {note_key(COLLECTOR).text}\n"
    return KeysDocument(
        v=1, version=1, issued_at=1_790_000_000_000, persons=(), issuers=(), sites=(ENTRY,),
        policy=policy + "group both all so central\nquorum both\n", collectors=collectors,
    )  # fmt: skip


OURS = Collector(name="Central", key=COLLECTOR.public.text)


def to_no_site(said: Cosign) -> None:
    raise AssertionError(f"a site hears nothing of verdicts: {said}")


@contextlib.asynccontextmanager
async def running(database: Database, witness: OwnWitness) -> AsyncIterator[Bench]:
    relay = WitnessRelay((witness.settings,), to_no_site, lambda *_: False)
    carrier = VerdictWitnesses(database, relay, lambda: witness.document, COLLECTOR, lambda: NOW)
    relay.start()
    try:
        yield Bench(database, witness, relay, carrier)
    finally:
        await relay.stop()


@pytest.fixture
async def bench(tmp_path: Path, database_url: str) -> AsyncIterator[Bench]:
    fill(database_url)
    database = Database.open(database_url)
    async with listening(tmp_path) as witness:
        witness.document = document(witness, OURS)
        async with running(database, witness) as made:
            yield made
    database.close()


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.02)


async def test_every_checkpoint_is_cosigned_also_after_a_restart(bench: Bench, tmp_path: Path) -> None:
    bench.judge(0)
    first, _ = await bench.offered()
    bench.judge(1)
    second, _ = await bench.offered()
    assert second > first
    bench.judge(1)
    # A new process knows of no witness's size, and shows that the log only grew.
    async with running(bench.database, bench.witness) as again:
        third, _ = await again.offered()
    assert third > second
    held = bench.witness.store.held(ORIGIN)
    assert held is not None
    assert (held.size, bench.witness.store.splits()) == (third, [])
    rows = bench.read(lambda c: c.execute(sa.select(notes.c.size).where(notes.c.epoch == "vee")).scalars().all())
    assert set(rows) == {first, second, third}, "each checkpoint stays with its cosignatures"  # type: ignore[call-overload] # a list of sizes


async def test_what_a_bundle_carries_is_the_whole_log_with_its_cosignatures(bench: Bench) -> None:
    bench.judge(0)
    await bench.offered()
    bench.judge(1)
    size, _ = await bench.offered()
    with bench.database.engine.connect() as connection:
        keys = parse_policy(bench.witness.document.policy or "").keys if bench.witness.document else []
        first = carried(connection, SITE, DAY0, DAY0 + 86_400, COLLECTOR.public, keys)
        both = carried(connection, SITE, DAY0, DAY0 + 2 * 86_400, COLLECTOR.public, keys)
        none = carried(connection, SITE, DAY0, DAY0 + 86_400, COLLECTOR.public, ())
        assert carried(connection, "nobody", DAY0, DAY0 + 86_400, COLLECTOR.public, keys) == {}
    assert first[LEAVES] == both[LEAVES]
    assert len(first[LEAVES]) == 32 * size
    assert first[NOTES] == both[NOTES]
    assert first[NOTES].count("\u2014 so.example".encode()) == 2
    assert b"so.example" not in none[NOTES], "nobody's line is carried whom the verifier could not check"
    assert [line.count(b'"ty":"vee_run"') for line in (first[LINES], both[LINES])] == [2, 2], "no run is left out"
    assert both[LINES].count(b"\n") == size
    assert first[LINES].count(b"\n") < size, "findings of other times are"


async def test_a_second_history_is_refused_and_kept_as_proof(bench: Bench) -> None:
    bench.judge(0)
    size, _ = await bench.offered()
    root = bench.witness.store.held(ORIGIN)
    # Whoever holds K_col and the database writes the day anew.
    with bench.database.engine.begin() as connection:
        for table in (verdicts, verdict_logs):
            connection.execute(sa.delete(table))
        connection.execute(sa.delete(notes).where(notes.c.epoch == "vee"))
    bench.judge(0, now_ms=NOW + 1)
    await bench.carrier.offer_all()
    await until(bench.witness.store.splits, "the second history is kept")
    assert [origin for origin, _, _ in bench.witness.store.splits()] == [ORIGIN]
    assert bench.cosigned() == (size, {note_key(COLLECTOR).name})
    assert bench.witness.store.held(ORIGIN) == root
    # Grown on from there it is refused too, and the witness stands where it stood.
    bench.judge(1)
    await bench.carrier.offer_all()
    await asyncio.sleep(0.3)
    assert bench.cosigned()[1] == {note_key(COLLECTOR).name}
    assert bench.witness.store.held(ORIGIN) == root


async def test_only_collectors_of_the_register_have_logs_of_verdicts(bench: Bench) -> None:
    stranger = SigningKey.generate()
    other = Collector(name="Somebody", key=stranger.public.text)
    bench.judge(0)
    for collectors in ((), (other,)):
        bench.witness.document = document(bench.witness, *collectors)
        await bench.carrier.offer_all()
        await asyncio.sleep(0.3)
        assert bench.witness.store.logs() == []
        assert bench.cosigned()[1] == {note_key(COLLECTOR).name}
    # A site's own keys say nothing in the collector's log, nor a collector's in a site's.
    bench.witness.document = document(bench.witness, OURS)
    assert {k.name for k in bench.witness.document.log_keys(SITE, "vee")} == {ORIGIN}
    assert bench.witness.document.log_keys("nobody", "vee") == []
    assert all(k.public != COLLECTOR.public.raw for k in bench.witness.document.log_keys(SITE, "e1-0badcafe"))
    await bench.offered()


async def test_a_witness_that_is_away_is_asked_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnesses, "RETRY_S", 0.1)
    bench.judge(0)
    real = witnesses._over_http
    calls = []

    async def away(*arguments: object) -> tuple[int, str]:
        calls.append(1)
        if len(calls) < 3:
            return 503, "not now"
        return await real(*arguments)  # type: ignore[arg-type] # passed through

    monkeypatch.setattr(witnesses, "_over_http", away)
    await bench.offered()
    assert len(calls) == 3


async def test_a_witness_that_names_ever_other_sizes_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.judge(0)
    bench.judge(1)
    calls: list[int] = []

    async def lying(*_: object) -> tuple[int, str]:
        calls.append(1)
        return 409, f"{1 + len(calls) % 2}\n"

    monkeypatch.setattr(witnesses, "_over_http", lying)
    await bench.carrier.offer_all()
    await asyncio.sleep(0.5)
    assert 2 <= len(calls) <= 4
    assert bench.cosigned()[1] == {note_key(COLLECTOR).name}


async def test_the_daily_judge_offers_what_it_wrote(bench: Bench) -> None:
    now = (DAY0 + 2 * 86_400 + 3600) * 1000
    looked: list[Callable[[], Awaitable[None]]] = [bench.carrier.offer_all]
    daily = DailyJudge(
        bench.database, lambda: bench.witness.document, COLLECTOR, lambda _: {}, lambda: now, looked[0]
    )  # fmt: skip
    daily.start()
    await until(bench.witness.store.logs, "the witness has the log")
    await until(lambda: "so.example" in bench.cosigned()[1], "and its word is kept")
    await daily.stop()


def test_a_witness_keeps_the_split_of_one_size(tmp_path: Path) -> None:
    """As a site's log: the same size with another root, both signed by the collector."""
    from grid.witness.store import WitnessStore

    store = WitnessStore(tmp_path / "w.db")
    keys = [log_key(ORIGIN, COLLECTOR.public.raw)]
    one = Submission(0, (), Checkpoint(ORIGIN, 2, b"\1" * 32).sign(COLLECTOR).encode())
    two = Submission(2, (), Checkpoint(ORIGIN, 2, b"\2" * 32).sign(COLLECTOR).encode())
    assert store.decide(one, ORIGIN, keys, 1).error is None
    assert store.decide(two, ORIGIN, keys, 2).misbehaviour
    assert len(store.splits()) == 1
    store.close()
