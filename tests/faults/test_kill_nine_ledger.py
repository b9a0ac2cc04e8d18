"""kill -9 of a process that writes records, again and again: the log never shrinks, forks or leaves a number out."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent.ledger import Ledger
from tests.unit.agent_kit import SimClock
from wire import canonical
from wire.keys import SigningKey
from wire.merkle import Frontier
from wire.records import RecordLine

SITE = "kz-small-1"
WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from agent.clock import SystemClock
from agent.ledger import Ledger, Txn
from wire.keys import SigningKey

async def main():
    key = SigningKey.from_pem(Path(sys.argv[2]).read_bytes())
    ledger = Ledger.open(Path(sys.argv[1]), site=sys.argv[3], key=key, clock=SystemClock("host"), fw="test")
    ledger.start()
    ledger.on_append(lambda done: print(done[-1].idx, flush=True))
    for number in itertools.count():
        streams = ("mp:MAIN", "mp:M1", "bal")[: 1 + number % 3]
        fields = {"ev": "x", "obj": "y" * (number % 200)}
        group = [Txn().record(name, "event", fields) for name in streams for _ in range(8)]
        await asyncio.gather(*(ledger.commit(txn, urgent=True) for txn in group))

asyncio.run(main())
"""
"""Writes for ever, and says what is durable only after it is."""


def write_and_kill(path: Path, key: Path, after_s: float, at_least: int) -> int:
    """Let a process write, kill it in the middle; the last record that it said was durable."""
    command = [sys.executable, "-c", WRITER, str(path), str(key), SITE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told: list[int] = []
        reader = threading.Thread(target=lambda: told.extend(int(line) for line in process.stdout or ()))
        reader.start()
        deadline = time.monotonic() + 30
        while not told:
            assert process.poll() is None
            assert time.monotonic() < deadline, "nothing was written"
            time.sleep(0.005)
        time.sleep(after_s)
        while told[-1] - told[0] < at_least and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        reader.join(10)
    return told[-1]


async def leaves_of(path: Path, key: SigningKey) -> list[bytes]:
    """The log as the next process finds it: numbers, links and root hold."""
    ledger = Ledger.open(path, site=SITE, key=key, clock=SimClock(), fw="test")
    try:
        rows = ledger.read_now("SELECT idx, stream, n, payload, kid, sig, hash FROM record ORDER BY idx")
        ends: dict[str, tuple[int, str | None]] = {}
        edge = Frontier()
        for place, (idx, stream, n, payload, kid, sig, leaf) in enumerate(rows):
            line = RecordLine(bytes(payload), str(kid), bytes(sig))
            count, last = ends.get(stream, (0, None))
            assert (idx, n, canonical.decode(line.payload)["p"]) == (place + 1, count, last)
            assert line.hash == bytes(leaf)
            ends[stream] = (n + 1, bytes(leaf).hex())
            edge.append(bytes(leaf))
        assert await ledger.head() == (len(rows), edge.root())
        return [bytes(row[6]) for row in rows]
    finally:
        await ledger.close()


async def kill_again_and_again(folder: Path, kills: int, records: int) -> None:
    path, key_file, key = folder / "ledger.db", folder / "rec.pem", SigningKey.generate()
    key_file.write_bytes(key.to_pem())
    rng, leaves = random.Random(11), list[bytes]()
    for _ in range(kills):
        told = await asyncio.to_thread(write_and_kill, path, key_file, rng.uniform(0, 0.3), records // kills)
        found = await leaves_of(path, key)
        assert len(found) >= told, "the log is shorter than what was said to be durable"
        assert found[: len(leaves)] == leaves, "another history"
        assert len(found) > len(leaves)
        leaves = found
    assert len(leaves) >= records


async def test_three_kills(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 3, 300)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_twenty_five_kills_in_ten_thousand_records(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 25, 10_000)
