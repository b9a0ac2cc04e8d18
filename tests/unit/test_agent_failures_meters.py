"""Meters that freeze, restart, change their ratio or see what is not ours: what they show is weighed, not believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.capabilities import Reading, Sample
from tests.unit.agent_kit import BASE_W, MACHINE_W, Core, running_core
from wire.orders import Escalation, Restore
from wire.states import Flag, OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
LIMIT_W = 50_000
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


def shows(core: Core, device: str, of: Callable[[float], float | None]) -> None:
    """A meter shows this instead of the power that flows; ``None``: it does not answer."""
    real = core.live.put_sample

    def put(sample: Sample) -> None:
        reading = sample.readings.get("power_w")
        if sample.device == device and reading is not None and isinstance(reading.value, int | float):
            value = of(float(reading.value))
            if value is None:
                return
            sample = replace(sample, readings=dict(sample.readings) | {"power_w": Reading(value, reading.quality)})
        real(sample)

    core.live.put_sample = put  # type: ignore[method-assign]  # between the meter and whoever believes it


async def test_a_meter_that_stands_still_never_proves_an_order(core: Core) -> None:
    stuck = float(core.plant.net_w)
    shows(core, "em-0", lambda _true: stuck)
    order = await core.give("limit", limit_w=LIMIT_W, escalation=Escalation(to="switch", after_s=5))
    for _ in range(120):
        await core.step()
        assert order.state is not S.HOLDING
    assert order.state is S.FAILED
    assert core.plant.net_w <= LIMIT_W, "doubt sheds on"
    await core.release(order)
    await core.pass_time(5)


async def test_a_meter_that_stands_still_while_it_is_held_hides_no_machine_that_woke(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    stuck = float(core.plant.net_w)
    shows(core, "em-0", lambda _true: stuck)
    await core.pass_time(30)
    slept = set(core.plant.asleep)
    for _ in range(3):
        for name in slept:
            core.plant.machines[name].asleep = False
        await core.until(lambda: core.plant.asleep >= slept, within_s=40)
        await core.until_state(order, S.HOLDING, within_s=40)
        await core.pass_time(5)
    assert core.plant.net_w <= LIMIT_W
    told = [e["text"] for e in await core.effects(order.id) if e["state"] == "executing"]
    assert told == ["M0 stands still at 49.6 kW while 3 machines run that were asleep"] * 3


async def test_a_meter_that_moves_is_no_meter_that_stands_still(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    core.plant.extra_w = -8_000  # room for the machines that wake
    await core.pass_time(30)
    writes = len(core.plant.writes)
    for name in sorted(core.plant.asleep)[:2]:
        core.plant.machines[name].asleep = False
    await core.pass_time(120)
    assert len(core.plant.writes) == writes, "the meter showed them, and the limit leaves them room"
    assert order.state is S.HOLDING


@pytest.mark.parametrize("jump_w", [20_000, 60_000])
async def test_a_jump_within_the_possible_is_load_until_it_is_read_otherwise(core: Core, jump_w: int) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    core.plant.extra_w = jump_w
    await core.pass_time(60)
    assert len(core.plant.asleep) == 8, "doubt sheds"
    core.plant.extra_w = 0
    await core.pass_time(60)
    assert (order.state, core.plant.net_w <= LIMIT_W) == (S.HOLDING, True)
    assert "wake" not in {kind for kind, _ in core.plant.writes}, "and gives nothing back by itself"


@pytest.mark.parametrize("share", [0.5, 0.8])
async def test_a_changed_ratio_is_a_fall_that_is_not_ours_and_is_named(core: Core, share: float) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    shows(core, "em-0", lambda true: true * share)  # somebody changed the transformers' ratio
    await core.until_state(order, S.HOLDING)
    (told,) = [e["text"] for e in await core.effects(order.id) if e["state"] == "holding"]
    assert "kW fell without our doing" in told


async def test_a_meter_that_restarts_makes_it_blind_moves_nothing_and_gives_nothing_back(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    writes = len(core.plant.writes)
    core.plant.meter_silent = True
    await core.pass_time(30)
    assert Flag.BLIND in order.flags
    assert order.state is S.HOLDING
    await core.release(order)
    await core.pass_time(30)
    assert len(core.plant.writes) == writes, "nothing comes back while nobody can see what it does"
    assert "not known" in (order.block or "")
    core.plant.meter_silent = False
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_the_time_of_confirmation_is_never_inside_a_gap(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until(lambda: core.plant.net_w <= LIMIT_W)
    core.plant.meter_silent = True
    began = order.rx_mono
    await core.pass_time(40)
    assert order.state in {S.VERIFYING, S.FAILED}
    assert Flag.BLIND in order.flags
    core.plant.meter_silent = False
    back_ms = (core.clock.mono_ns() - began) // 1_000_000
    await core.until_state(order, S.HOLDING)
    effect = (await core.effects(order.id))[-1]
    assert effect["ms"]["confirmed"] > back_ms, "it is proved when it is seen, not when it may have been"


async def test_own_generation_meets_a_limit_of_import_and_is_not_machines_put_down(core: Core) -> None:
    core.plant.extra_w = -15_000  # a gas engine runs behind the boundary
    await core.plant.publish(core.live)
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    assert core.plant.writes == []
    core.plant.extra_w = 0  # it stops
    await core.until(lambda: core.plant.net_w <= LIMIT_W, within_s=60)
    await core.until_state(order, S.HOLDING)
    assert {kind for kind, _ in core.plant.writes} == {"sleep"}
