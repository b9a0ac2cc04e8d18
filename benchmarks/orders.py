"""From an order's bytes entering the agent to its signed ``accepted`` on disk, while machines are being polled.

Orders come at random moments that are fixed beforehand and each is timed from its moment, so that a busy event loop or
an order that waits behind another counts in full. The end is the ledger's word that the signed answer is durable
(``synchronous=FULL``). Transport is not in these figures, neither in ours nor in the floor.

The floor does the least that any agent must do for an order, with nothing else running: verify one Ed25519 signature
over as many bytes, sign two records of the sizes really written, and commit them with the order's row.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from agent.ledger import Appended
from benchmarks.common import log_file, parser, percentile, report, rss_mb
from benchmarks.core import AgentCore
from benchmarks.miners import simulated_miners
from wire.dsse import ORDER_TYPE, RECORD_TYPE, pae
from wire.keys import SigningKey


@dataclass(slots=True)
class Answers:
    """When each order's signed answer became durable, and how large the records were."""

    durable_ns: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, list[int]] = field(default_factory=lambda: {"cmd_rx": [], "cmd_ack": []})

    def take(self, appended: list[Appended]) -> None:
        """Listener of the ledger: called after the commit."""
        now = time.monotonic_ns()
        for record in appended:
            if record.ty in self.sizes:
                self.sizes[record.ty].append(len(record.line.payload))
            if record.ty == "cmd_ack":
                doc = json.loads(record.line.payload)
                self.durable_ns.setdefault(doc["id"], now)
                self.states.setdefault(doc["id"], doc["state"])


@dataclass(frozen=True, slots=True)
class Measured:
    """Raw results of one run."""

    accepted_ms: list[float]
    polls_per_s: float
    order_bytes: int
    rx_bytes: int
    ack_bytes: int


async def measure(folder: Path, *, orders: int, machines: int, period_s: float, rate_per_s: float) -> Measured:
    """One run.

    Raises:
        RuntimeError: an order was not accepted, or machines did not answer: then there is nothing to report.
    """
    async with simulated_miners(machines) as ports:
        core = AgentCore(folder, ports, period_s=period_s)
        answers = Answers()
        core.ledger.on_append(answers.take)
        await core.start()
        try:
            await _all_answered(core, machines, timeout_s=period_s * 4 + 20)
            envelopes = core.orders(orders)
            chance = random.Random(7)
            before, began_ns = core.poller.counters.answered, time.monotonic_ns()
            entered: dict[str, int] = {}
            due_ns = began_ns
            for order, raw in envelopes:
                due_ns += int(chance.expovariate(rate_per_s) * 1e9)
                await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
                entered[order] = due_ns
                # One after another, as the uplink hands them on.
                await core.reception.take(raw, False)
            took_s = (time.monotonic_ns() - began_ns) / 1e9
            polls = (core.poller.counters.answered - before) / took_s
        finally:
            await core.stop()
    lost = [order for order in entered if answers.states.get(order) != "validated"]
    if lost:
        raise RuntimeError(
            f"{len(lost)} of {orders} orders were not accepted; first {lost[0]}: {core.reception.refused}"
        )
    sizes = answers.sizes
    return Measured(
        accepted_ms=[(answers.durable_ns[order] - at) / 1e6 for order, at in entered.items()],
        polls_per_s=round(polls, 1),
        order_bytes=len(envelopes[-1][1]),
        rx_bytes=sum(sizes["cmd_rx"]) // len(sizes["cmd_rx"]),
        ack_bytes=sum(sizes["cmd_ack"]) // len(sizes["cmd_ack"]),
    )


async def _all_answered(core: AgentCore, machines: int, *, timeout_s: float) -> None:
    """Wait until every machine was polled well once: the load is then the steady one."""
    deadline = time.monotonic() + timeout_s
    while sum(m.status is not None for m in core.live.miners.values()) < machines:
        if time.monotonic() > deadline:
            good = sum(m.status is not None for m in core.live.miners.values())
            raise RuntimeError(f"{good} of {machines} simulated machines answered within {timeout_s:.0f} s")
        await asyncio.sleep(0.1)


def floor_ms(folder: Path, measured: Measured, count: int) -> list[float]:
    """Verify, sign twice, commit: milliseconds of each repetition on an idle database in the same folder."""
    dispatcher, record_key = SigningKey.generate(), SigningKey.generate()
    order = pae(ORDER_TYPE, b"o" * measured.order_bytes)
    signature = dispatcher.sign(order)
    records = [pae(RECORD_TYPE, b"r" * n) for n in (measured.rx_bytes, measured.ack_bytes)]
    db = sqlite3.connect(folder / "floor.db", isolation_level=None)
    took: list[float] = []
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE record (n INTEGER PRIMARY KEY, payload BLOB, sig BLOB)")
        db.execute("CREATE TABLE orders (n INTEGER PRIMARY KEY, raw BLOB)")
        for _ in range(count):
            began = time.perf_counter()
            if not dispatcher.public.verifies(order, signature):
                raise RuntimeError("the floor's own signature does not verify")
            db.execute("BEGIN IMMEDIATE")
            for body in records:
                db.execute("INSERT INTO record (payload, sig) VALUES (?, ?)", (body, record_key.sign(body)))
            db.execute("INSERT INTO orders (raw) VALUES (?)", (order,))
            db.execute("COMMIT")
            took.append((time.perf_counter() - began) * 1000)
    finally:
        db.close()
    return took


def main() -> int:
    """Command line."""
    commands = parser(str(__doc__).partition("\n")[0])
    commands.add_argument("--orders", type=int, help="how many orders (at least 500 for a 99th percentile)")
    commands.add_argument("--machines", type=int, help="how many machines are polled meanwhile")
    options = commands.parse_args()
    orders = options.orders or (500 if options.quick else 3000)
    machines = options.machines or (300 if options.quick else 500)
    if not 2 <= machines <= 508 or machines % 2:
        commands.error(f"--machines {machines}: expected an even number from 2 to 508 (two groups of one /24 each)")
    period_s, rate_per_s = 5.0, 15.0
    with tempfile.TemporaryDirectory(prefix="bench-orders-", dir=options.folder) as name:
        folder = Path(name)
        with log_file(folder / "agent.log"):
            measured = asyncio.run(
                measure(folder, orders=orders, machines=machines, period_s=period_s, rate_per_s=rate_per_s)
            )
        least = floor_ms(folder, measured, max(500, orders))
        accepted = measured.accepted_ms
        report(
            "orders",
            folder=folder,
            ours={
                "orders": len(accepted),
                "accepted_p50_ms": round(percentile(accepted, 0.5), 2),
                "accepted_p99_ms": round(percentile(accepted, 0.99), 2),
                "accepted_max_ms": round(max(accepted), 2),
                "orders_per_s": rate_per_s,
                "machines": machines,
                "polls_per_s": measured.polls_per_s,
                "rss_mb": rss_mb(),
            },
            floor={
                "echo_commit_p50_ms": round(percentile(least, 0.5), 2),
                "echo_commit_p99_ms": round(percentile(least, 0.99), 2),
                "via_mqtt": False,
            },
            ratios={
                "accepted_p50_to_floor": round(percentile(accepted, 0.5) / percentile(least, 0.5), 2),
                "accepted_p99_to_floor": round(percentile(accepted, 0.99) / percentile(least, 0.99), 2),
            },
            as_json=options.json,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
