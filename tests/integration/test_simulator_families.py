"""A simulated site with machines of every family that can be served: each driver reads, puts to sleep and wakes one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ports import free_ports, port_run
from site_kit import site_doc

from config.addresses import machines
from config.loader import load_site
from drivers.asic.credentials import Credentials
from drivers.asic.identify import driver_for
from drivers.capabilities import MinerReader, Sleeper, WriteStatus
from simulator.fleet.kinds import KINDS
from simulator.site import SimulatedSite


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[SimulatedSite]:
    doc: dict[str, Any] = site_doc(luxos=1, stock=1, broker_port=free_ports(1)[0], registrar="A" * 43 + "=")
    plain = next(group for group in doc["miners"] if group["family"] == "luxos")
    for family in KINDS.keys() - {"luxos", "antminer-stock"}:
        group = dict(plain) | {"id": family, "family": family, "rpc": f"127.0.0.1:{port_run(1)}"}
        if KINDS[family].has_web:
            group["http"] = f"127.0.0.1:{port_run(1)}"
        doc["miners"].append(group)
    (tmp_path / "miners.secret").write_text("root")
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(doc, allow_unicode=True, sort_keys=False))
    simulation = SimulatedSite(load_site(path), time_scale=40.0, seed=1, base_dir=tmp_path)
    await simulation.start()
    try:
        yield simulation
    finally:
        await simulation.stop()


async def becomes(driver: MinerReader, *, asleep: bool) -> None:
    """Read until it says so; a firmware needs its time."""
    deadline = asyncio.get_running_loop().time() + 30
    while (seen := (await driver.status()).sleeping) is not asleep:
        assert asyncio.get_running_loop().time() < deadline, f"sleeping is {seen}"
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("family", sorted(KINDS.keys() - {"luxos", "antminer-stock"}))
async def test_a_machine_of_each_family_is_read_put_to_sleep_and_woken(site: SimulatedSite, family: str) -> None:
    group = next(g for g in site.site.miners if g.id == family)
    (at,) = machines(group)
    login = KINDS[family].login
    driver = driver_for(
        family,
        at.rpc_host,
        rpc_port=at.rpc_port,
        http_host=at.http_host,
        http_port=at.http_port,
        credentials=Credentials(*login) if login else None,
        writes_allowed=True,
    )
    status = await driver.status()
    assert status.family == family
    assert (status.hashrate_ths or 0) > 0
    assert isinstance(driver, Sleeper)
    prior = await driver.prior_state()
    assert (await driver.sleep()).status is not WriteStatus.REFUSED
    await becomes(driver, asleep=True)
    assert (await driver.wake(prior)).status is not WriteStatus.REFUSED
    await becomes(driver, asleep=False)
