"""Central's log of verdicts: cosigned by witnesses, kept, and refused where it has two histories."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from witness_kit import OwnWitness, listening

from central import witnesses
from central.errors import CentralError
from central.store.database import Database
from central.store.schema import notes, verdict_logs, verdicts
from central.vee.book import append, check, stand_of
from central.vee.carried import LEAVES, LINES, NOTES, carried
from central.vee.copies import Copies
from central.vee.daily import DailyJudge, judged
from central.vee.limits import load
from central.vee.witnessing import PATIENCE_MS, VerdictWitnesses, hashes, kept, stand
from central.witness import note_key
from central.witnesses import Heard, Offer, WitnessRelay
from tests.integration.test_central_vee import COLLECTOR, DAY0, ENTRY, SITE, fill
from wire.checkpoints import Checkpoint, Submission, cosignatures, log_key, open_checkpoint
from wire.keys import SigningKey
from wire.merkle import Frontier
from wire.messages import Cosign
from wire.notes import NoteKey
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


def files_of(
    connection: Connection, end: int, keys: Sequence[NoteKey], key: SigningKey = COLLECTOR
) -> dict[str, bytes]:
    """What a bundle from the first day on carries."""
    found = carried(connection, SITE, DAY0, end, key, keys)
    return {name: b"".join(chunks) for name, chunks in found.items()}


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
        first = files_of(connection, DAY0 + 86_400, keys)
        both = files_of(connection, DAY0 + 2 * 86_400, keys)
        none = files_of(connection, DAY0 + 86_400, ())
        assert carried(connection, "nobody", DAY0, DAY0 + 86_400, COLLECTOR, keys) == {}
    assert first[LEAVES] == both[LEAVES]
    assert len(first[LEAVES]) == 32 * size
    assert first[NOTES] == both[NOTES]
    assert first[NOTES].count("\u2014 so.example".encode()) == 2
    assert b"so.example" not in none[NOTES], "nobody's line is carried whom the verifier could not check"
    assert [line.count(b'"ty":"vee_run"') for line in (first[LINES], both[LINES])] == [2, 2], "no run is left out"
    assert both[LINES].count(b"\n") == size
    assert first[LINES].count(b"\n") < size, "findings of other times are"


async def test_with_a_new_key_of_central_the_newest_checkpoint_is_still_carried_and_cosigned(bench: Bench) -> None:
    bench.judge(0)
    size, _ = await bench.offered()
    newer = SigningKey.generate()
    with bench.database.engine.connect() as connection:
        files = files_of(connection, DAY0 + 86_400, [bench.witness.note_key], newer)
    _, _, raw = files[NOTES].partition(b"\n")
    checkpoint, note = open_checkpoint(raw, [log_key(ORIGIN, newer.public.raw)])
    assert (checkpoint.size, 32 * size) == (size, len(files[LEAVES]))
    assert set(cosignatures(note, [bench.witness.note_key])) == {"so.example"}


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


async def test_the_daily_judge_offers_what_it_wrote(bench: Bench, tmp_path: Path) -> None:
    now = (DAY0 + 2 * 86_400 + 3600) * 1000
    daily = DailyJudge(
        bench.database, lambda: bench.witness.document, COLLECTOR, lambda _: {}, lambda: now, Copies(tmp_path / "vee"),
        offer=bench.carrier.offer_all,
    )  # fmt: skip
    daily.start()
    await until(lambda: [size for _, size, _ in bench.witness.store.logs() if size], "the witness has the log")
    await until(lambda: "so.example" in bench.cosigned()[1], "and its word is kept")
    await daily.stop()


@dataclass
class Day:
    """Central's clock and judge, as after a start of central."""

    bench: Bench
    judge: DailyJudge
    now_ms: list[int]

    def lines(self) -> int:
        with self.bench.database.engine.connect() as connection:
            return check(connection, SITE, COLLECTOR.public)


def started(bench: Bench, copies: Path, days: int = 1) -> Day:
    now = [(DAY0 + days * 86_400 + 3600) * 1000]
    bench.carrier = VerdictWitnesses(
        bench.database, bench.relay, lambda: bench.witness.document, COLLECTOR, lambda: now[0]
    )
    judge = DailyJudge(
        bench.database, lambda: bench.witness.document, COLLECTOR, lambda _: {}, lambda: now[0], Copies(copies),
        offer=bench.carrier.offer_all, hold=bench.carrier.hold,
    )  # fmt: skip
    return Day(bench, judge, now)


def put_back(bench: Bench, size: int) -> None:
    """The database of the day on which the log had so many lines."""
    with bench.database.engine.begin() as connection:
        note = kept(connection, SITE, size).get(size)
        frontier, last = Frontier(), None
        for leaf in hashes(connection, SITE, size):
            frontier.append(leaf)
            last = leaf.hex()
        connection.execute(sa.delete(verdicts).where(verdicts.c.n >= size))
        connection.execute(sa.delete(notes).where(notes.c.epoch == "vee", notes.c.size > size))
        connection.execute(sa.delete(verdict_logs))
        if note is not None:
            row = {"site": SITE, "size": size, "frontier": frontier.encode(), "last_hash": last, "note": note.encode()}
            connection.execute(sa.insert(verdict_logs), [row])


async def two_days(bench: Bench, copies: Path) -> tuple[int, int, bytes]:
    """Sizes after the first and the second day, and the root of the second; all of it cosigned."""
    day = started(bench, copies)
    await bench.carrier.offer_all()
    await until(lambda: bench.carrier.hold(SITE) is None, "the witness said that it knows nothing")
    assert len(await day.judge.look()) == 1
    first, _ = await bench.offered()
    day.now_ms[0] += 86_400_000
    assert len(await day.judge.look()) == 1
    second, _ = await bench.offered()
    held = bench.witness.store.held(ORIGIN)
    assert held is not None
    assert held.size == second > first
    return first, second, held.root


@pytest.mark.parametrize("whole", [True, False])
async def test_a_database_put_back_takes_its_lines_from_the_copy_and_goes_on(
    bench: Bench, tmp_path: Path, whole: bool
) -> None:
    first, second, _ = await two_days(bench, tmp_path / "vee")
    put_back(bench, first if whole else 0)
    again = started(bench, tmp_path / "vee", days=2)
    with (tmp_path / "vee" / f"{SITE}.tzr").open("ab") as file:
        file.write(b"TZR1|{torn" + b"\0" * 200_000)  # and the power went while the copy was written
    await again.judge._level()
    assert again.lines() == second
    await bench.offered()
    await until(lambda: bench.carrier.hold(SITE) is None, "the witness agrees")
    # A line does not say how many slots were stored: a day whose run was taken back hours later is judged once more.
    assert len(await again.judge.look()) == (0 if whole else 1)
    assert await again.judge.look() == []
    bench.judge(1)
    again.judge._copies.add(bench.database.engine.connect(), SITE)
    third, _ = await bench.offered()
    assert third > second
    assert bench.witness.store.splits() == []
    assert (tmp_path / "vee" / f"{SITE}.tzr").read_bytes().count(b"\n") == third


async def test_a_run_of_a_central_that_stopped_before_it_was_copied_is_copied_at_the_next_look(
    bench: Bench, tmp_path: Path
) -> None:
    bench.judge(0)
    bench.judge(1)
    path = tmp_path / "vee" / f"{SITE}.tzr"
    again = started(bench, tmp_path / "vee", days=2)
    assert not path.exists()
    await again.judge.look()
    size, lines = again.lines(), path.read_bytes().splitlines()
    with bench.database.engine.connect() as connection:
        stored = connection.execute(sa.select(verdicts.c.line).order_by(verdicts.c.n)).scalars().all()
    assert lines == [bytes(line) for line in stored]
    assert len(lines) == size


@pytest.mark.parametrize("whole", [True, False])
async def test_without_the_copy_nothing_is_added_to_a_log_of_which_a_witness_knows_more(
    bench: Bench, tmp_path: Path, whole: bool
) -> None:
    first, second, root = await two_days(bench, tmp_path / "vee")
    put_back(bench, first if whole else 0)
    again = started(bench, tmp_path / "lost", days=2)
    assert "has not said yet" in (bench.carrier.hold(SITE) or "")
    assert await again.judge.look() == [], "not before the witness has spoken"
    await bench.carrier.offer_all()
    await until(lambda: "know more lines" in (bench.carrier.hold(SITE) or ""), "the witness has more")
    assert f"so.example {second}" in (bench.carrier.hold(SITE) or "")
    again.now_ms[0] += 2 * PATIENCE_MS
    assert await again.judge.look() == [], "nor ever after"
    assert bench.witness.store.splits() == []
    held = bench.witness.store.held(ORIGIN)
    assert held is not None
    assert (held.size, held.root) == (second, root)
    with bench.database.engine.connect() as connection:
        assert stand_of(connection, SITE)[0].size == (first if whole else 0)


async def test_a_witness_that_never_answers_holds_the_log_for_a_day_and_no_longer(bench: Bench, tmp_path: Path) -> None:
    alone = started(bench, tmp_path / "vee")
    await bench.relay.stop()
    await bench.carrier.offer_all()
    assert await alone.judge.look() == []
    alone.now_ms[0] += PATIENCE_MS
    assert len(await alone.judge.look()) == 2


async def test_logs_of_sites_that_send_nothing_here_are_left_to_their_own_central(bench: Bench) -> None:
    assert bench.witness.document is not None
    other = bench.witness.document.sites[0].model_copy(update={"id": "elsewhere-1"})
    bench.witness.document = bench.witness.document.model_copy(update={"sites": (*bench.witness.document.sites, other)})
    await bench.carrier.offer_all()
    await until(lambda: bench.carrier.hold(SITE) is None, "the witness spoke of ours")
    await asyncio.sleep(0.2)
    assert [origin for origin, _, _ in bench.witness.store.logs()] == [ORIGIN]


async def test_a_copy_of_another_history_lets_nothing_be_added(bench: Bench, tmp_path: Path) -> None:
    first, _, _ = await two_days(bench, tmp_path / "vee")
    path = tmp_path / "vee" / f"{SITE}.tzr"
    for size, change in ((first, b'"severity":"warn"'), (0, b"")):
        put_back(bench, size)
        bench.judge(1, now_ms=NOW + 7)
        with bench.database.engine.connect() as connection, pytest.raises(CentralError, match=r"two histories|is not"):
            Copies(tmp_path / "vee").level(connection, SITE, COLLECTOR, NOW)
        assert change in path.read_bytes()
    path.write_bytes(b"no verdict\n")
    with bench.database.engine.connect() as connection, pytest.raises(CentralError, match="move the file away"):
        Copies(tmp_path / "vee").level(connection, SITE, COLLECTOR, NOW)


async def test_an_answer_that_cannot_be_taken_does_not_end_the_carrying(bench: Bench) -> None:
    bench.judge(0)

    async def broken(_: Heard) -> None:
        raise RuntimeError("anything")

    with bench.database.engine.connect() as connection:
        now = stand(connection, SITE)
    assert now is not None
    bench.relay.offer(Offer((SITE, "vee"), now.note.encode().decode(), (), broken))
    await until(bench.witness.store.logs, "it was asked")
    await asyncio.sleep(0.1)
    await bench.offered()


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
