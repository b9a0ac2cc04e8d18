"""Cooling outlives machines, precedes them, and is not left to freeze; what is not known is not good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from config.devices import CoolingLoop, TemperaturePoint
from config.nodes import Input, Load
from config.site import Site
from tests.unit.agent_kit import ALL_PER_RACK, Core, running_core, small_site
from wire.orders import Escalation
from wire.states import OrderState

S = OrderState
STOP = Escalation(to="switch", after_s=5)


def hydro_site(**loop: Any) -> Site:
    """Rack 2 is cooled by water, whose pump hangs behind the same contactor; signals come from a module apart."""
    site = small_site(cooldown_s=10)
    fields: dict[str, Any] = {
        "id": "WATER",
        "type": "hydro",
        "members": ("PUMP2",),
        "run_on_s": 90.0,
        "min_temp_c": 5.0,
        "max_off_min_below": 40.0,
        "flow_ok": Input(device="io-1", input="di_7"),
        "supply_temp": TemperaturePoint(device="io-1", point="ti_1"),
    } | loop
    nodes = [
        n.model_copy(update={"cooling_loop": "WATER"}) if isinstance(n, Load) and n.id == "MINERS2" else n
        for n in site.nodes
    ]
    board = next(n for n in site.nodes if n.id == "MINERS2").fed_from
    nodes.append(Load(id="PUMP2", type="load", kind="cooling", rated_kw=1, cooling_loop="WATER", fed_from=board))
    return site.model_copy(
        update={"nodes": tuple(nodes), "cooling_loops": (*site.cooling_loops, CoolingLoop(**fields))}
    )


class Water:
    """The signals of the loop, read with every step."""

    def __init__(self, core: Core, *, flow: bool | None = True, temp_c: float | None = 20.0) -> None:
        self.core, self.flow, self.temp_c = core, flow, temp_c

    async def step(self, seconds: float = 1.0) -> None:
        self.core.fleet.loops.take("io-1", {"di_7": self.flow}, {"ti_1": self.temp_c})
        await self.core.step(seconds)

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            await self.step()

    async def until(self, condition: Any, within_s: int = 400) -> None:
        for _ in range(within_s):
            if condition():
                return
            await self.step()
        raise AssertionError([(o.state, o.block, o.doc.text) for o in self.core.journal.live.values()])


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path, site=hydro_site()) as found:
        yield found


def woken(core: Core) -> set[str]:
    return {target for kind, target in core.plant.writes if kind == "wake"}


async def test_machines_of_a_loop_wake_only_after_a_minute_of_good_flow(core: Core) -> None:
    water = Water(core)
    await water.pass_time(70)
    order = await core.give("limit", limit_w=34_000)
    await water.until(lambda: order.state is S.HOLDING)
    assert len(core.plant.asleep) == 2 * ALL_PER_RACK
    water.flow = False
    await core.release(order)
    await water.pass_time(120)
    assert woken(core) == {f"rack1/{n}" for n in range(1, ALL_PER_RACK + 1)}
    assert order.block == "cooling loop WATER: there is no flow"
    water.flow = True
    began = core.clock.mono_ns()
    await water.until(lambda: "rack2/1" in woken(core))
    assert 59 <= (core.clock.mono_ns() - began) / 1e9 <= 70
    await water.until(lambda: not core.journal.live)


@pytest.mark.parametrize(
    ("flow", "temp_c", "why"),
    [(None, 20.0, "flow is not known"), (True, None, "temperature is not known"), (True, 4.9, "4.9 °C, needs 5 °C")],
)
async def test_what_is_not_known_or_too_cold_wakes_nothing(
    core: Core, flow: bool | None, temp_c: float | None, why: str
) -> None:
    water = Water(core)
    await water.pass_time(70)
    order = await core.give("limit", limit_w=34_000)
    await water.until(lambda: order.state is S.HOLDING)
    water.flow, water.temp_c = flow, temp_c
    await core.release(order)
    await water.pass_time(200)
    assert all(m.startswith("rack1/") for m in woken(core))
    assert why in str(order.block)


async def test_a_signal_that_is_no_longer_read_is_no_signal(core: Core) -> None:
    water = Water(core)
    await water.pass_time(70)
    assert core.fleet.loops.why_not_wake("MINERS2") is None
    core.clock.advance(11)
    assert "flow is not known" in str(core.fleet.loops.why_not_wake("MINERS2"))


async def test_a_hydro_loop_without_a_flow_signal_is_a_person_s(tmp_path: Path) -> None:
    async with running_core(tmp_path, site=hydro_site(flow_ok=None)) as core:
        assert "a person starts its machines" in str(core.fleet.loops.why_not_wake("MINERS2"))
        assert core.fleet.loops.why_not_wake("MINERS1") is None


async def test_cooling_runs_on_before_the_switch_that_feeds_it_opens(core: Core) -> None:
    water = Water(core)
    core.plant.extra_w = 6_000  # so that sleep alone does not suffice
    await water.pass_time(5)
    await core.give("stop")
    await water.until(lambda: ("sleep", "rack2/4") in core.plant.writes)
    asleep_ns = core.clock.mono_ns()
    await water.until(lambda: ("open", "KM2") in core.plant.writes)
    assert (core.clock.mono_ns() - asleep_ns) / 1e9 >= 88


async def test_six_hours_of_stop_at_thirty_below(core: Core) -> None:
    """The planner answers with the longest safe time, keeps the pumps, and wakes nothing before there is flow."""
    water = Water(core, temp_c=3.0)
    core.plant.extra_w = 6_000
    await water.pass_time(70)
    answer = await core.send(core.order("stop"))
    assert "cooling loop WATER at 3.0 °C can stay off for 40 min" in answer["text"]
    (order,) = core.journal.live.values()
    await water.until(lambda: order.state is S.FAILED)
    assert core.plant.switches["KM2"].closed, "its pump keeps the water moving"
    assert not core.plant.switches["KM1"].closed
    assert "KM2: it feeds the pumps of WATER at 3.0 °C, below 5 °C" in order.doc.text
    await water.pass_time(600)
    assert core.plant.switches["KM2"].closed
    water.flow = False
    await core.release(order)
    await water.pass_time(300)
    assert not {m for m in woken(core) if m.startswith("rack2/")}


async def test_nothing_that_cools_powered_machines_opens_whatever_the_plan_said(tmp_path: Path) -> None:
    """The pump of rack 1 hangs behind KM2 as well; by the file alone nobody could know which way it is fed today."""
    site = hydro_site()
    nodes = tuple(
        n.model_copy(update={"cooling_loop": "WATER"}) if isinstance(n, Load) and n.id == "MINERS1" else n
        for n in site.nodes
    )
    async with running_core(tmp_path, site=site, armed=False) as core:
        core.fleet.loops = type(core.fleet.loops)(site.model_copy(update={"nodes": nodes}), core.clock)
        assert core.fleet.darkens("KM2") == "it feeds cooling loop WATER of MINERS1, which stay powered"
        core.plant.switches["KM1"].closed = False
        await core.step()
        assert core.fleet.darkens("KM2") is None


async def test_a_protected_load_that_is_fed_through_an_output_today_forbids_it(core: Core) -> None:
    graph = core.fleet.graph
    guard = graph.loads["PUMP2"].model_copy(update={"kind": "protected"})
    graph.loads["PUMP2"] = guard
    assert core.fleet.darkens("KM2") == "it feeds PUMP2, which is never shed"
    await core.give("emergency_trip")
    await core.step()
    assert ("open", "KM2") not in core.plant.writes
    assert ("open", "KM1") in core.plant.writes
