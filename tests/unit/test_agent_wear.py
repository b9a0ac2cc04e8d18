"""Switches are spared where nothing is urgent, and of two tenants the one who gave least gives next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from config.devices import Tenant
from config.nodes import Switch
from tests.unit.agent_kit import MACHINE_W, Core, running_core, small_site
from wire.orders import Escalation
from wire.states import OrderState

S = OrderState


def site_with(**switch: Any) -> Any:
    site = small_site()
    nodes = tuple(
        n.model_copy(update=switch) if isinstance(n, Switch) and n.control is not None else n for n in site.nodes
    )
    return site.model_copy(update={"nodes": nodes})


@pytest.fixture
async def spared(tmp_path: Path) -> AsyncIterator[Core]:
    site = site_with(min_on_s=120.0, min_off_s=30.0, max_operations_per_hour=4, reclose_guard_s=1.0)
    async with running_core(tmp_path, site=site) as found:
        yield found


async def cycle(core: Core) -> None:
    """Open KM1 by an order and have it closed again after its release."""
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    await core.until_state(order, S.HOLDING)
    await core.release(order)
    await core.until(lambda: order.id not in core.journal.live)


async def test_a_switch_stays_open_and_closed_its_least_time(spared: Core) -> None:
    core = spared
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    await core.until(lambda: ("open", "KM1") in core.plant.writes)
    opened_ns = core.clock.mono_ns()
    await core.until_state(order, S.HOLDING)
    await core.release(order)
    await core.until(lambda: ("close", "KM1") in core.plant.writes)
    closed_ns = core.clock.mono_ns()
    assert (closed_ns - opened_ns) / 1e9 >= 29
    again = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    await core.until(lambda: core.plant.writes.count(("open", "KM1")) == 2)
    assert (core.clock.mono_ns() - closed_ns) / 1e9 >= 119
    await core.until_state(again, S.HOLDING)


async def test_what_is_urgent_does_not_wait(spared: Core) -> None:
    core = spared
    await cycle(core)
    assert "stays so 120 s at least" in str(core.gates.may_open("KM1"))
    await core.give("emergency_trip")
    await core.step()
    assert core.plant.writes.count(("open", "KM1")) == 2


async def test_more_operations_an_hour_than_allowed_wait_and_a_restart_forgets_none(spared: Core) -> None:
    core = spared
    await cycle(core)
    await core.pass_time(130, step_s=10)
    await cycle(core)
    await core.pass_time(130, step_s=10)
    await core.reboot()
    assert "4 operations within the hour, 4 allowed" in str(core.gates.may_open("KM1"))
    assert core.gates.may_open("KM2") is None
    core.clock.advance(3600)
    await core.step()
    assert core.gates.may_open("KM1") is None


async def test_a_limit_takes_the_switch_that_need_not_be_spared(spared: Core) -> None:
    core = spared
    for machine in core.plant.machines.values():
        machine.refuses = True
    await cycle(core)
    order = await core.give("limit", limit_w=50_000, escalation=Escalation(to="switch", after_s=5))
    await core.until_state(order, S.HOLDING)
    assert ("open", "KM2") in core.plant.writes
    assert core.plant.writes.count(("open", "KM1")) == 1


async def test_of_equal_machines_those_of_the_tenant_who_gave_least_go_first(tmp_path: Path) -> None:
    site = small_site()
    groups = tuple(g.model_copy(update={"tenant": t}) for g, t in zip(site.miners, ("alfa", "beta"), strict=True))
    tenants = (Tenant(id="alfa", name="Alfa"), Tenant(id="beta", name="Beta"))
    site = site.model_copy(update={"miners": groups, "tenants": tenants})
    async with running_core(tmp_path, site=site) as core:
        gave: list[set[str]] = []
        for _ in range(4):
            order = await core.give("limit", limit_w=60_000 - 2 * MACHINE_W)
            await core.until_state(order, S.HOLDING)
            gave.append({m.partition("/")[0] for m in core.plant.asleep})
            await core.pass_time(1800, step_s=30)
            await core.release(order)
            await core.until(lambda: not core.journal.live)
            await core.reboot()  # what was given outlives a restart
        assert gave[1] != gave[0]
        assert gave[2] == gave[0]
        assert gave[3] == gave[1]
        alfa, beta = core.fleet.shed_wh("alfa"), core.fleet.shed_wh("beta")
        assert abs(alfa - beta) < 0.05 * alfa
        assert alfa == pytest.approx(2 * 0.52 * 3 * MACHINE_W, rel=0.1)
