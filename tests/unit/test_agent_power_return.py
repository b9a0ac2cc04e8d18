"""A blackout while a limit is held: the dispatcher is told before, and the load is below the limit again in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.agent_kit import MACHINE_W, Core, running_core, small_site
from wire.states import OrderState

S = OrderState
LIMIT_W = 42_000


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path, site=small_site(return_s=120)) as found:
        yield found


async def blackout(core: Core, seconds: float) -> None:
    core.plant.blackout = True
    await core.pass_time(seconds, step_s=2)


async def supply_back(core: Core) -> None:
    """Machines forgot that they slept. They start one after the other, and draw in full half a minute later."""
    core.plant.blackout = False
    for number, machine in enumerate(core.plant.machines.values()):
        machine.asleep = False
        machine.answers_at_ns = core.clock.mono_ns() + number * 4_000_000_000
        machine.full_at_ns = core.clock.mono_ns() + number * 4_000_000_000 + 30_000_000_000


async def test_after_ten_minutes_without_supply_the_load_is_below_the_limit_in_time(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    held = dict.fromkeys(core.journal.held)
    await blackout(core, 600)
    told = [e["text"] for e in await core.effects(order.id) if "supply lost" in e["text"]]
    assert told == ["supply lost; on its return up to 28 kW start by themselves, for about 120 s"]
    assert core.progress[-1].text == told[0], "and the dispatcher sees it before it happens"
    await supply_back(core)
    began = core.clock.mono_ns()
    over_s = 0.0
    while (core.clock.mono_ns() - began) / 1e9 < 120:
        over_s += core.plant.net_w > LIMIT_W
        await core.step()
    assert core.plant.net_w <= LIMIT_W
    assert over_s <= 30, "machines were met as they answered, before they drew in full"
    assert order.state is S.HOLDING
    assert core.plant.net_w >= LIMIT_W - 2 * MACHINE_W, "and no more of them than had to be"
    assert all(kind == "sleep" for kind, _ in core.plant.writes)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert core.plant.asleep == set()
    assert held


async def test_a_third_blackout_is_answered_like_the_first(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    for _ in range(3):
        await blackout(core, 60)
        await supply_back(core)
        await core.pass_time(120)
        assert core.plant.net_w <= LIMIT_W
        await core.pass_time(60)
    assert order.state is S.HOLDING


async def test_a_meter_that_falls_silent_is_no_blackout(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    core.plant.meter_silent = True
    await core.pass_time(60)
    assert not [e for e in await core.effects(order.id) if "supply" in e["text"]]


async def test_what_was_held_open_stays_open(core: Core) -> None:
    order = await core.give("emergency_trip")
    await core.until_state(order, S.HOLDING)
    await blackout(core, 60)
    assert "up to 0 kW" in (await core.effects(order.id))[-1]["text"]
    await supply_back(core)
    await core.pass_time(120)
    assert all(not s.closed for s in core.plant.switches.values())


async def test_an_agent_that_starts_after_the_supply_came_back_enforces_the_limit(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    core.clock.advance(600)
    await core.shut()
    await supply_back(core)
    await core.boot()
    await core.pass_time(180)
    assert core.plant.net_w <= LIMIT_W
    assert core.journal.live[order.id].state is S.HOLDING
