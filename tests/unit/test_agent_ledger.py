"""The ledger: what is acknowledged is on disk, chained and signed; what is refused left no trace."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import AlreadyRunning, LedgerError, LedgerForeign
from agent.ledger import Ledger, Txn
from agent.ledger import store as store_module
from agent.ledger.ballast import BALLAST_BYTES
from tests.unit.agent_kit import SimClock
from wire import canonical
from wire.keys import SigningKey
from wire.names import check_epoch, origin
from wire.records import leaf_hash, parse_line

KEY = SigningKey.generate()
SITE = "kz-small-1"


def open_ledger(path: Path, *, key: SigningKey = KEY, site: str = SITE) -> Ledger:
    ledger = Ledger.open(path, site=site, key=key, clock=SimClock(), fw="1.0-test")
    ledger.start()
    return ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[Ledger]:
    found = open_ledger(path)
    yield found
    await found.close()


def junk(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database at all" * 100)


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def event(number: int = 0, **more: Any) -> Txn:
    return Txn().record("site", "event", {"ev": "alarm", "obj": f"o{number}", **more})


def rows(path: Path, query: str, *args: Any) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query, args).fetchall()
    finally:
        db.close()


def check_chain(path: Path, key: SigningKey = KEY) -> dict[str, int]:
    """Every record verified and chained; number of records per stream."""
    seen: dict[str, bytes | None] = {}
    counts: dict[str, int] = {}
    for stream, n, payload, kid, sig, digest in rows(
        path, "SELECT stream, n, payload, kid, sig, hash FROM record ORDER BY idx"
    ):
        line = b"|".join((b"TZR1", payload, kid.encode(), base64.b64encode(sig)))
        record, doc = parse_line(line)
        assert record.verified_by(key.public)
        assert record.encode() == line
        assert digest == record.hash == leaf_hash(payload)
        assert (doc["st"], doc["n"]) == (stream, n) == (stream, counts.get(stream, 0))
        last = seen.get(stream)
        assert doc["p"] == (None if last is None else last.hex())
        seen[stream], counts[stream] = digest, n + 1
    for name, count, last in rows(path, "SELECT name, count, last FROM stream"):
        assert counts[name] == count
        assert seen[name] == last
    return counts


async def test_records_are_signed_numbered_and_chained_per_stream(ledger: Ledger, path: Path) -> None:
    for number in range(3):
        await ledger.commit(event(number), urgent=True)
        await ledger.commit(Txn().record("cmd", "cmd_rx", {"id": None, "rx": number}), urgent=True)
    assert check_chain(path) == {"site": 3, "cmd": 3}


async def test_a_record_carries_the_common_fields(ledger: Ledger) -> None:
    done = await ledger.commit(event(7), urgent=True)
    doc = canonical.decode(done[0].line.payload)
    assert doc["log"] == origin(SITE, ledger.epoch)
    assert doc["clk"] == {"s": "S", "src": "host", "off_us": None}
    assert (doc["boot"], doc["fw"], doc["a"], doc["ev"], doc["obj"]) == (ledger.boot, "1.0-test", None, "alarm", "o7")
    assert (done[0].stream, done[0].n, done[0].ty) == ("site", 0, "event")


async def test_an_urgent_commit_does_not_wait_for_company(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GROUP_S", 60.0)
    await asyncio.wait_for(ledger.commit(event(), urgent=True), 5)


async def test_others_wait_and_become_durable_together(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GROUP_S", 60.0)
    seen: list[int] = []
    ledger.on_append(lambda done: seen.append(len(done)))
    lazy = [asyncio.create_task(ledger.commit(event(n))) for n in range(5)]
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in lazy), "a lazy commit alone waits for the group"
    await asyncio.wait_for(ledger.commit(event(9), urgent=True), 5)
    await asyncio.wait_for(asyncio.gather(*lazy), 5)
    assert seen == [6], "one transaction carried all six"


async def test_lazy_commits_become_durable_without_an_urgent_one(ledger: Ledger, path: Path) -> None:
    await asyncio.wait_for(asyncio.gather(*(ledger.commit(event(n)) for n in range(20))), 5)
    assert check_chain(path) == {"site": 20}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE record SET payload = x'00' WHERE n = 0",
        "UPDATE record SET sig = x'00'",
        "UPDATE record SET stream = 'cmd'",
        "UPDATE record SET n = 7",
        "UPDATE record SET hash = x'00'",
        "UPDATE record SET at = 0",
        "UPDATE record SET ty = 'gap'",
        "UPDATE record SET kid = 'x'",
        "DELETE FROM record",
        "DELETE FROM record WHERE n = 0",
    ],
)
async def test_evidence_is_neither_changed_nor_deleted(ledger: Ledger, path: Path, statement: str) -> None:
    await ledger.commit(event(), urgent=True)
    with pytest.raises(LedgerError, match="evidence is never"):
        await ledger.commit(Txn().run(statement), urgent=True)
    assert check_chain(path) == {"site": 1}


async def test_delivery_marks_are_the_one_thing_that_changes(ledger: Ledger, path: Path) -> None:
    for number in range(4):
        await ledger.commit(event(number), urgent=True)
    assert await ledger.mark_delivered("site", 0, 2) == 3
    assert await ledger.mark_delivered("site", 0, 2) == 0
    assert [r.n for r in await ledger.undelivered(0, 10)] == [3]
    assert await ledger.mark_wanted("site", 1, 1) == 1
    assert [r.n for r in await ledger.undelivered(0, 10)] == [1, 3]
    assert [r.n for r in await ledger.lines("site", 1, 2)] == [1, 2]
    assert check_chain(path) == {"site": 4}


async def test_the_lines_read_back_are_the_lines_that_were_signed(ledger: Ledger) -> None:
    done = await ledger.commit(event(1).record("cmd", "cmd_rx", {"id": None}), urgent=True)
    again = [*await ledger.lines("site", 0, 0), *await ledger.lines("cmd", 0, 0)]
    assert again == done
    heads = await ledger.heads()
    assert heads == {"site": (1, done[0].line.hash.hex()), "cmd": (1, done[1].line.hash.hex())}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (event(0, power=1.5), "float"),
        (Txn().record("site", "nonsense", {}), "nonsense"),
        (Txn().record("elsewhere", "event", {}), "elsewhere"),
        (event(0, text="x" * 70_000), "bytes"),
        (event(0).run("INSERT INTO held VALUES (NULL,NULL,NULL,NULL,NULL,NULL)"), "NOT NULL"),
        (event(0).run("INSERT INTO meta VALUES ('n', ?)", 2**70), "too large"),
        (event(0).run("INSERT INTO meta VALUES ('n', ?)", object()), "type"),
        (event(0, text="\ud800"), "surrogate"),
    ],
    ids=["float", "type", "stream", "size", "constraint", "integer", "argument", "surrogate"],
)
async def test_a_failing_member_is_rolled_back_alone(ledger: Ledger, path: Path, bad: Txn, why: str) -> None:
    results = await asyncio.gather(
        ledger.commit(event(1)), ledger.commit(bad), ledger.commit(event(2), urgent=True), return_exceptions=True
    )
    assert isinstance(results[1], LedgerError)
    assert why in str(results[1])
    good = [r for r in (results[0], results[2]) if not isinstance(r, BaseException)]
    assert len(good) == 2, results
    assert check_chain(path) == {"site": 2}
    await ledger.commit(event(3), urgent=True)
    assert check_chain(path) == {"site": 3}


async def test_records_and_journal_rows_of_one_transaction_stand_or_fall_together(ledger: Ledger, path: Path) -> None:
    await ledger.commit(Txn().run("INSERT INTO meta VALUES ('a', '1')"), urgent=True)
    with pytest.raises(LedgerError):
        await ledger.commit(
            Txn().run("INSERT INTO meta VALUES ('b', '1')").run("INSERT INTO meta VALUES ('a', '2')"), urgent=True
        )
    assert ledger.meta("a") == "1"
    assert ledger.meta("b") is None
    assert check_chain(path) == {}


# one owner -----------------------------------------------------------------------------------------------------------


async def test_a_second_opener_is_told_that_another_agent_runs(ledger: Ledger, path: Path) -> None:
    with pytest.raises(AlreadyRunning, match=r"ledger\.lock"):
        open_ledger(path)


async def test_a_second_process_is_told_too_and_may_open_once_the_first_has_ended(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agent.ledger import Ledger; from agent.clock import SystemClock;"
        "from agent.errors import AlreadyRunning; from wire.keys import SigningKey\n"
        "key = SigningKey.generate()\n"
        "try: Ledger.open(Path(sys.argv[1]), site='kz-small-1', key=key, clock=SystemClock(), fw='t')\n"
        "except AlreadyRunning: sys.exit(42)\n"
    )
    first = open_ledger(path)
    root = Path(__file__).parents[2]
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(path)], cwd=root, check=False, timeout=30
    )
    assert done.returncode == 42
    await first.close()
    await open_ledger(path).close()


@pytest.mark.parametrize("what", ["key", "site"])
async def test_the_ledger_of_another_site_or_key_is_refused_and_left_as_it_was(path: Path, what: str) -> None:
    first = open_ledger(path)
    await first.commit(event(), urgent=True)
    epoch = first.epoch
    await first.close()
    other: dict[str, Any] = {"key": SigningKey.generate()} if what == "key" else {"site": "kz-other"}
    with pytest.raises(LedgerForeign, match="begin a new epoch"):
        open_ledger(path, **other)
    again = open_ledger(path)
    assert again.epoch == epoch
    await again.close()


async def test_a_file_that_is_no_database_is_an_error_that_names_it(path: Path) -> None:
    junk(path)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        open_ledger(path)
    remove(path)
    await open_ledger(path).close()


@pytest.mark.parametrize("where", ["tables", "names"])
async def test_a_kill_while_the_file_is_being_made_leaves_one_that_can_be_opened(path: Path, where: str) -> None:
    """Tables and names become durable as one: a ledger without a name would belong to nobody."""
    code = (
        "import os, sqlite3, sys; from pathlib import Path; from agent.clock import SystemClock\n"
        "from agent.ledger import Ledger; from wire.keys import SigningKey\n"
        "real = sqlite3.connect\n"
        "class Db(sqlite3.Connection):\n"
        "    def executescript(self, text):\n"
        "        super().executescript(text)\n"
        "        if sys.argv[2] == 'tables': os._exit(9)\n"
        "    def executemany(self, *a):\n"
        "        if sys.argv[2] == 'names': os._exit(9)\n"
        "        return super().executemany(*a)\n"
        "sqlite3.connect = lambda *a, **k: real(*a, **k, factory=Db)\n"
        "Ledger.open(Path(sys.argv[1]), site='kz-small-1', key=SigningKey.generate(), clock=SystemClock(), fw='t')\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, str(path), where],
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=30,
    )
    assert done.returncode == 9
    ledger = open_ledger(path)
    assert check_epoch(ledger.epoch)
    assert ledger.is_new
    await ledger.close()


async def test_a_new_file_is_the_next_epoch_and_an_old_one_keeps_its_own(path: Path) -> None:
    epochs = []
    for _ in range(3):
        ledger = open_ledger(path)
        epochs.append(ledger.epoch)
        assert ledger.is_new
        await ledger.commit(event(), urgent=True)
        await ledger.close()
        again = open_ledger(path)
        assert again.epoch == ledger.epoch
        assert not again.is_new
        assert again.boot != ledger.boot
        await again.close()
        remove(path)
    assert [e.split("-")[0] for e in epochs] == ["e1", "e2", "e3"]
    assert len(set(epochs)) == 3


async def test_streams_go_on_after_reopening(path: Path) -> None:
    for _ in range(3):
        ledger = open_ledger(path)
        await ledger.commit(event(), urgent=True)
        await ledger.commit(Txn().record("mp:M0", "gap", {"t0": 0, "t1": 1, "why": "TIMEOUT", "tries": 1}))
        await ledger.close()
    assert check_chain(path) == {"site": 3, "mp:M0": 3}


async def test_nobody_else_may_read_the_file(ledger: Ledger, path: Path) -> None:
    assert mode(path) & 0o077 == 0
    assert mode(path.parent) & 0o077 == 0


# closing -------------------------------------------------------------------------------------------------------------


async def test_closing_writes_what_is_pending_and_then_refuses(path: Path) -> None:
    ledger = open_ledger(path)
    waiting = [asyncio.create_task(ledger.commit(event(n))) for n in range(10)]
    await asyncio.sleep(0)
    await ledger.close()
    done = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert all(not isinstance(d, BaseException) for d in done), done
    assert check_chain(path) == {"site": 10}
    with pytest.raises(LedgerError, match="closed"):
        await ledger.commit(event(), urgent=True)


async def test_whoever_waits_while_it_closes_hears_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is being written when the writer is told to stop still answers its waiters."""
    ledger = open_ledger(path)
    slow = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = ledger._write_once

    def write(*args: Any) -> Any:
        loop.call_soon_threadsafe(slow.set)
        time.sleep(0.2)
        return real(*args)

    monkeypatch.setattr(ledger, "_write_once", write)
    waiting = asyncio.create_task(ledger.commit(event(), urgent=True))
    await slow.wait()
    await ledger.close()
    done = await asyncio.wait_for(waiting, 2)
    assert done[0].n == 0
    assert check_chain(path) == {"site": 1}


async def test_a_listener_that_fails_does_not_stop_the_writer(ledger: Ledger, path: Path) -> None:
    def bad(_done: object) -> None:
        raise RuntimeError("listener")

    ledger.on_append(bad)
    for number in range(3):
        await asyncio.wait_for(ledger.commit(event(number), urgent=True), 5)
    assert check_chain(path) == {"site": 3}


# a full disk ---------------------------------------------------------------------------------------------------------


async def test_a_full_disk_frees_the_ballast_then_refuses_and_later_recovers(ledger: Ledger, path: Path) -> None:
    """The file may grow to so many pages; more is "database or disk is full", as from a full disk."""
    ballast = path.with_suffix(".ballast")
    assert ballast.stat().st_size == BALLAST_BYTES
    await ledger.commit(event(0), urgent=True)
    pages = int((await ledger.read("PRAGMA page_count"))[0][0])
    await ledger.read(f"PRAGMA max_page_count={pages + 8}")
    kept = 1
    refused: LedgerError | None = None
    for number in range(1, 60):
        try:
            await ledger.commit(event(number, text="x" * 3000).set_meta(f"k{number}", "v"), urgent=True)
            kept += 1
        except LedgerError as error:
            refused = error
            break
    assert refused is not None
    assert "full" in str(refused)
    assert not ballast.exists(), "the ballast is given up before anything is refused"
    assert 1 < kept < 60
    assert check_chain(path) == {"site": kept}, "nothing is half-written"
    assert ledger.meta(f"k{kept}") is None
    await ledger.read("PRAGMA max_page_count=1000000")
    await ledger.commit(event(99, text="x" * 3000), urgent=True)
    assert check_chain(path) == {"site": kept + 1}


async def test_what_the_ballast_frees_is_used_before_anything_is_refused(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ledger._write_once
    calls: list[bool] = []

    def write(*args: Any) -> Any:
        calls.append(path.with_suffix(".ballast").exists())
        if calls[-1]:
            raise sqlite3.OperationalError("database or disk is full")
        return real(*args)

    monkeypatch.setattr(ledger, "_write_once", write)
    done = await ledger.commit(event(), urgent=True)
    assert done[0].n == 0
    assert calls == [True, False]


async def test_the_ballast_is_laid_again_at_the_next_start(path: Path) -> None:
    await open_ledger(path).close()
    path.with_suffix(".ballast").unlink()
    await open_ledger(path).close()
    assert path.with_suffix(".ballast").stat().st_size == BALLAST_BYTES


# a kill --------------------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from pathlib import Path
from agent.clock import SystemClock
from agent.ledger import Ledger, Txn
from wire.keys import SigningKey

async def main():
    key = SigningKey.from_pem(Path(sys.argv[2]).read_bytes())
    ledger = Ledger.open(Path(sys.argv[1]), site="kz-small-1", key=key, clock=SystemClock(), fw="t")
    ledger.start()
    async def one(stream):
        while True:
            urgent = stream == "cmd"
            done = await ledger.commit(Txn().record(stream, "event", {"ev": "x", "obj": stream}), urgent=urgent)
            print(stream, done[0].n, done[0].line.hash.hex(), flush=True)
    await asyncio.gather(one("cmd"), one("site"), one("site"), one("mp:M0"))

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged_and_leaves_the_chain_whole(path: Path, tmp_path: Path) -> None:
    pem = tmp_path / "key.pem"
    pem.write_bytes(KEY.to_pem())
    acknowledged: dict[tuple[str, int], str] = {}
    for life in range(2):
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WRITER,
            str(path),
            str(pem),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        told = 0
        while told < 40:
            line = await asyncio.wait_for(child.stdout.readline(), 30)
            stream, n, digest = line.decode().split()
            acknowledged[stream, int(n)] = digest
            told += 1
        os.kill(child.pid, signal.SIGKILL)
        for line in (await child.stdout.read()).splitlines():
            if len(parts := line.decode().split()) == 3 and len(parts[2]) == 64:
                acknowledged[parts[0], int(parts[1])] = parts[2]
        await child.wait()
        assert len(acknowledged) >= 40 * (life + 1)
    counts = check_chain(path)
    for (stream, n), digest in acknowledged.items():
        found = rows(path, "SELECT hash FROM record WHERE stream=? AND n=?", stream, n)
        assert found, f"{stream} {n} was acknowledged and is lost"
        assert found[0][0].hex() == digest
    ledger = open_ledger(path)
    await ledger.commit(Txn().record("cmd", "event", {"ev": "x", "obj": "after"}), urgent=True)
    await ledger.close()
    assert check_chain(path)["cmd"] == counts["cmd"] + 1
    assert json.loads(rows(path, "SELECT payload FROM record ORDER BY idx DESC LIMIT 1")[0][0])["obj"] == "after"
