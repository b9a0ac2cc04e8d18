"""Random fleets and targets through the whole core: the load ends at or below the limit, and not far below it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.unit.agent_kit import BASE_W, EMERGENCY_W, SLEEP_W, Core, PlayedMachine, running_core, small_site
from wire.orders import Escalation
from wire.states import OrderState

S = OrderState


def fleet(core: Core, rng: random.Random) -> None:
    """Machines of any size, some of which refuse to sleep; the site's other load is of any size too."""
    plant = core.plant
    plant.machines.clear()
    for rack, switch in (("rack1", "KM1"), ("rack2", "KM2")):
        for number in range(1, rng.randint(2, 14) + 1):
            name = f"{rack}/{number}"
            plant.machines[name] = PlayedMachine(
                name, plant, switch, draw_w=rng.randint(700, 5500), refuses=rng.random() < 0.1
            )
    plant.extra_w = rng.choice((0, 0, 20_000, 150_000))


async def one(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    core = Core(folder, site=small_site())
    fleet(core, rng)
    async with running_core(folder, site=core.site, core=core):
        machines = list(core.plant.machines.values())
        before = core.plant.net_w
        escalates = rng.random() < 0.4
        limit = round(before * rng.uniform(0.2, 1.05))
        order = await core.give(
            "limit", limit_w=limit, escalation=Escalation(to="switch" if escalates else "none", after_s=5)
        )
        await core.until(lambda: order.state in {S.HOLDING, S.FAILED}, within_s=600)
        target = max(limit, EMERGENCY_W)
        asleep = sum(m.draw_w - SLEEP_W for m in machines if not m.refuses)
        story = f"seed {seed}: {before} W, limit {limit} W, now {core.plant.net_w} W, {order.state}"
        if order.state is S.FAILED:
            reachable = BASE_W + core.plant.extra_w if escalates else before - asleep
            assert reachable > target, f"{story}: it could have been met"
            assert core.plant.net_w <= reachable + 50, f"{story}: more could have gone"
            return
        assert core.plant.net_w <= target, story
        if order.doc.escalated:
            grain = max(core.plant.feeder_w(s) for s in order.doc.escalated) or max(
                sum(m.draw_w for m in machines if m.switch == s) for s in order.doc.escalated
            )
        else:
            grain = max(m.draw_w for m in machines)
        floor = min(before, 0.95 * target, target - grain)
        assert core.plant.net_w >= floor - 50, f"{story}: more went than had to"


@pytest.mark.parametrize("seed", range(20))
async def test_the_load_ends_at_the_limit(tmp_path: Path, seed: int) -> None:
    await one(tmp_path, seed)


@pytest.mark.long
@pytest.mark.parametrize("block", range(20))
async def test_two_hundred_fleets_end_at_their_limits(tmp_path: Path, block: int) -> None:
    for seed in range(1000 + 10 * block, 1010 + 10 * block):
        folder = tmp_path / str(seed)
        folder.mkdir()
        await one(folder, seed)
