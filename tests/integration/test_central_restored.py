"""A central that was put back to yesterday's backup gets everything again, from the sites."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from unittest import mock

import pytest
from postgres_kit import PostgresServer
from site_kit import SITE, SiteKit, until

from central.collector import collector
from central.witness import missing_leaves


class SqliteBackup:
    """The whole data folder, copied while central is stopped."""

    def __init__(self, folder: Path) -> None:
        self.url = None
        self._folder = folder

    def keep(self, data: Path) -> None:
        shutil.copytree(data, self._folder)

    def put_back(self, data: Path) -> None:
        shutil.rmtree(data)
        shutil.copytree(self._folder, data)


class PostgresBackup(SqliteBackup):
    """The same, with the database by pg_dump and pg_restore."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        super().__init__(folder)
        self.url = server.create()
        self._server, self._name = server, self.url.rpartition("/")[2]
        self._dump = server.folder / "dump"

    def keep(self, data: Path) -> None:
        super().keep(data)
        self._dump.write_bytes(self._server.run("pg_dump", "--format=custom", database=self._name))

    def put_back(self, data: Path) -> None:
        super().put_back(data)
        self._server.drop(self.url)
        self._server.create(self._name)
        self._server.run("pg_restore", "--exit-on-error", str(self._dump), database=self._name)


@pytest.fixture(params=["sqlite", "postgresql"])
def backup(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteBackup:
    folder = tmp_path / "backup"
    if request.param == "sqlite":
        return SqliteBackup(folder)
    return PostgresBackup(folder, request.getfixturevalue("postgres"))


@pytest.fixture
async def kit(tmp_path: Path, backup: SqliteBackup) -> AsyncIterator[SiteKit]:
    # The newest records come by themselves; here nobody has to wait for them.
    with mock.patch.object(collector, "WANT_GRACE_S", 0.5):
        made = SiteKit(tmp_path / "site", luxos=1, stock=1, database_url=backup.url)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


async def drained(kit: SiteKit) -> None:
    """Central has what the edge has, byte for byte, and no hole in the log's leaves."""
    deadline = asyncio.get_running_loop().time() + 40
    while await kit.central_lines() != await kit.edge_lines():
        assert asyncio.get_running_loop().time() < deadline, (
            len(await kit.central_lines()),
            len(await kit.edge_lines()),
        )
        await asyncio.sleep(0.2)


async def stop_central(kit: SiteKit) -> Path:
    assert kit.central is not None
    await kit.central.stop()
    kit.central = None
    return kit.paths.data_dir


@pytest.mark.long
async def test_a_central_put_back_to_an_older_day_asks_for_what_it_lost(kit: SiteKit, backup: SqliteBackup) -> None:
    app = kit.app
    assert app is not None
    await drained(kit)
    data = await stop_central(kit)
    backup.keep(data)
    await kit.start_central()
    old = len(await kit.central_lines())

    before = kit.net_w()
    assert before is not None
    order, raw = kit.order("limit", limit_w=round(before * 0.6))
    await until(app.uplink.control.connected.is_set, 30, "agent connected")
    await kit.post_order(raw)
    await kit.wait_state(order, "holding", within_s=40)
    _, release = kit.order("release", target=order)
    await kit.post_order(release)
    await kit.wait_state(order, "done", within_s=40)
    await drained(kit)
    lost = len(await kit.central_lines()) - old
    assert lost >= 4, "an order and its answers at least"
    (newest,) = (await app.ledger.read("SELECT max(idx) FROM record"))[0]
    unconfirmed = "SELECT count(*) FROM record WHERE committed = 0 AND idx <= ?"

    data = await stop_central(kit)
    backup.put_back(data)
    await until(lambda: not app.uplink.control.connected.is_set(), 20, "the agent to see it")
    assert len(await kit.central_lines()) == old, "the day before"
    await kit.start_central()
    await until(app.uplink.control.connected.is_set, 30, "agent connected")
    await drained(kit)
    await until(lambda: app.ledger.read_now(unconfirmed, newest) == [(0,)], 20, "all of it confirmed anew")
    assert kit.central is not None
    central = kit.central
    (size,) = (await app.ledger.read("SELECT max(size) FROM checkpoint"))[0]
    last = app.bulk.next_n - 1
    deadline = asyncio.get_running_loop().time() + 40
    while True:
        hole = await central.database.read(lambda c: missing_leaves(c, SITE, kit.epoch, size))
        batches = await central.telemetry.missing(SITE, kit.epoch, app.bulk.boot, last)
        if hole is None and not batches:
            break
        assert asyncio.get_running_loop().time() < deadline, (hole, batches)
        await asyncio.sleep(0.2)
