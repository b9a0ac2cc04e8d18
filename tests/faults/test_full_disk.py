"""A full disk: telemetry gives way first, what cannot be written down is not done, all goes on when there is room."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
from postgres_kit import PostgresServer
from site_kit import SITE, SiteKit, until
from small_disk import SmallDisk

from agent.ledger.ballast import BALLAST_BYTES
from agent.outbox.bulk import LEAVE_FREE_BYTES
from wire.keys import VerifyKey
from wire.records import leaf_hash, parse_line

MB = 1024 * 1024


@pytest.fixture
def disk_of_agent(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "site" / "state", 32)
    yield disk
    disk.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def disk_of_central(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SmallDisk, str | None]]:
    """Central's own disk, or that of its PostgreSQL server's tables with the URL."""
    if request.param == "sqlite":
        disk, url = SmallDisk(tmp_path / "central" / "data", 24), None
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        disk = SmallDisk(server.folder / "small", 24)
        url = server.create(disk=disk.path)
    yield disk, url
    if url is not None:
        server.drop(url)
    disk.close()


async def start(root: Path, database_url: str | None = None) -> SiteKit:
    kit = await asyncio.to_thread(SiteKit, root, database_url=database_url)
    try:
        await kit.start()
    except BaseException:
        await kit.stop()
        raise
    return kit


@pytest.fixture
async def kit(tmp_path: Path, disk_of_agent: SmallDisk) -> AsyncIterator[SiteKit]:
    made = await start(tmp_path)
    try:
        yield made
    finally:
        disk_of_agent.free()
        await made.stop()


@pytest.fixture
async def other(tmp_path: Path, disk_of_central: tuple[SmallDisk, str | None]) -> AsyncIterator[SiteKit]:
    disk, url = disk_of_central
    made = await start(tmp_path, url)
    try:
        yield made
    finally:
        disk.free()
        await made.stop()


def check_chains(kit: SiteKit, lines: list[tuple[str, int, bytes]]) -> None:
    """Every record is signed by the site, numbered without holes, and names the one before."""
    key = VerifyKey.from_text(kit.enrolment["k_rec"])
    last: dict[str, tuple[int, str | None]] = {}
    for stream, n, raw in lines:
        line, doc = parse_line(raw)
        before, before_hash = last.get(stream, (-1, None))
        assert line.verified_by(key)
        assert (n, doc["p"]) == (before + 1, before_hash)
        last[stream] = n, leaf_hash(line.payload).hex()


async def delivered(kit: SiteKit, within_s: float) -> None:
    app = kit.app
    assert app is not None
    deadline = asyncio.get_running_loop().time() + within_s
    while await app.ledger.undelivered(0, 1) or await app.bulk.open_batches(0, 1):
        assert asyncio.get_running_loop().time() < deadline, "not delivered"
        await asyncio.sleep(0.1)


def events(logs: list[Any]) -> set[str]:
    return {str(line["event"]) for line in logs}


async def test_on_the_agents_full_disk_nothing_moves_that_is_not_journalled_and_all_goes_on_later(
    kit: SiteKit, disk_of_agent: SmallDisk
) -> None:
    app, plant = kit.app, kit.simulation
    assert app is not None
    assert plant is not None
    ballast = disk_of_agent.path / "ledger.ballast"
    assert ballast.stat().st_size == BALLAST_BYTES
    await until(lambda: all(s.chain and s.chain.last for s in app.closer.states.values()), 20, "points in service")

    # Nearly full: telemetry is refused and counted, the evidence goes on.
    disk_of_agent.fill(leave_bytes=LEAVE_FREE_BYTES - MB)
    await until(lambda: app.bulk.refused > 0, 10, "telemetry refused")
    assert app.batcher.dropped_rows > 0
    assert app.ledger.failing is None
    assert app.reports.status()["ok"] is False
    assert "storage" in app.reports.alarms()
    await app.gates.tag("KM2", "A. Engineer", "permit 1")
    await app.gates.untag("KM2", "A. Engineer")
    assert ballast.exists()

    # Full: a reader keeps the write-ahead log from being used again, so that each write needs new space.
    reader = sqlite3.connect(disk_of_agent.path / "ledger.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM record").fetchall()
    with structlog.testing.capture_logs() as logs:
        disk_of_agent.fill()
        await until(lambda: not ballast.exists(), 40, "ballast given up")
        disk_of_agent.fill()
        await until(lambda: app.closer.unwritten > 0, 40, "a slot that could not be written")
        disk_of_agent.fill()
        before, net = len(await kit.edge_lines()), kit.net_w()
        assert net is not None
        order, raw = kit.order("limit", limit_w=round(net * 0.6))
        await kit.post_order(raw)
        await until(lambda: app.reception.refused.get("no_journal"), 10, "refused")
        await asyncio.sleep(3)
        assert len(await kit.edge_lines()) == before
        assert order not in app.journal.states
        assert not app.journal.held
        assert all(machine.state.value != "asleep" for machine in plant.plant.machines.values())
        assert all(plant.plant.positions.values())
        assert kit.central is not None
        told = kit.central.live.sites[SITE].progress[order][-1]
        assert (told.state.value, (told.text or "")[:10]) == ("rejected", "no_journal")
        assert app.reports.status()["storage"] is not None
        assert not kit.agent_task or not kit.agent_task.done(), "it lives"

        # Room again: central has kept sending the order.
        reader.close()
        disk_of_agent.free()
        await kit.wait_state(order, "holding", within_s=60)
    assert {"disk_full_ballast_given_up", "ledger_not_written", "order_refused_no_journal", "ledger_written_again"} <= (
        events(logs)
    )
    _, release = kit.order("release", target=order)
    await kit.give(release)
    await kit.wait_state(order, "done", within_s=40)
    await until(lambda: app.reports.status()["ok"], 15, "well again")
    await until(
        lambda: all((s.chain and s.chain.last and s.chain.last.good) for s in app.closer.states.values()), 25, ""
    )
    await until(ballast.exists, 45, "a new ballast")
    await delivered(kit, 40)
    lines = await kit.edge_lines()
    assert await kit.central_lines() == lines
    check_chains(kit, lines)
    slots = sorted(
        (r["t0"], r["t1"]) for r in [*await kit.records("interval"), *await kit.records("gap")] if r["st"] == "mp:M0"
    )
    assert all(a[1] == b[0] for a, b in pairwise(slots)), "each slot once, none left out"
    assert [g for g in await kit.records("gap") if g["st"] == "mp:M0"], "what was not recorded is a gap"


async def test_an_agent_that_starts_on_a_full_disk_uses_its_ballast_and_holds_what_it_held(
    kit: SiteKit, disk_of_agent: SmallDisk
) -> None:
    net = kit.net_w()
    assert net is not None
    order, raw = kit.order("limit", limit_w=round(net * 0.6))
    await kit.give(raw)
    await kit.wait_state(order, "holding", within_s=40)
    await kit.stop_agent()
    waiting = (disk_of_agent.path / "bulk.db").stat().st_size
    disk_of_agent.fill()
    await kit.start_agent()
    app = kit.app
    assert app is not None
    assert app.journal.live[order].state.value in {"holding", "verifying"}
    await kit.wait_state(order, "holding", within_s=20)
    assert not (disk_of_agent.path / "bulk.db.corrupt").exists(), "a full disk is no reason to put telemetry away"
    assert (disk_of_agent.path / "bulk.db").stat().st_size >= waiting
    assert [r["ty"] for r in await kit.records("start")] == ["start", "start"]


@pytest.mark.long
async def test_on_centrals_full_disk_nothing_is_confirmed_and_nothing_is_lost(
    other: SiteKit, disk_of_central: tuple[SmallDisk, str | None]
) -> None:
    app, central = other.app, other.central
    disk, _ = disk_of_central
    assert app is not None
    assert central is not None
    await delivered(other, 20)
    confirmed = app.uplink.delivery.counters.evidence_confirmed
    disk.fill()
    await until(
        lambda: (central.metrics.registry.get_sample_value("tizgin_store_errors_total") or 0) > 0,
        30,
        "central cannot store",
    )
    disk.fill()
    assert not central.collector.store_up
    held = app.uplink.delivery.counters
    await asyncio.sleep(5)
    assert await app.ledger.undelivered(0, 1) or await app.bulk.open_batches(0, 1), "central confirms what it has"
    assert held.evidence_confirmed >= confirmed
    order, raw = other.order("limit", limit_w=round((other.net_w() or 0) * 0.6))
    await other.give(raw)
    await other.wait_state(order, "holding", within_s=40)
    disk.free()
    _, release = other.order("release", target=order)
    await other.give(release)
    await other.wait_state(order, "done", within_s=40)
    await delivered(other, 60)
    lines = await other.edge_lines()
    assert await other.central_lines() == lines
    check_chains(other, lines)
    # Telemetry goes on meanwhile: compare what both sides count at one moment.
    await other.stop_agent()
    counts = await central.telemetry.counts(SITE)
    assert counts.values == counts.distinct_values == app.bulk.cells
    assert app.bulk.refused == 0
