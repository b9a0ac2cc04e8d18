"""Curtailable now and the plan for a limit: live meters, never nameplate; a reason for all that is left out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.curtailment.curtailable import look, reach
from agent.curtailment.forecast import Forecaster
from agent.saon import SaonVolume
from config.nodes import SaonStage
from config.site import SaonDuty
from drivers.capabilities import MinerStatus
from tests.unit.agent_kit import BASE_W, EMERGENCY_W, MACHINE_W, SLEEP_W, Core, running_core, small_site
from wire.errors import WireError
from wire.messages import Live, decode
from wire.quality import Quality
from wire.states import OrderState as S

RACK_W = 4 * MACHINE_W
ALL_W = BASE_W + 2 * RACK_W
GAIN_W = MACHINE_W - SLEEP_W


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


async def now(core: Core) -> Any:
    return await look(core.site, core.fleet, core.gates, core.live)


async def test_it_is_what_the_meters_show(core: Core) -> None:
    found = await now(core)
    assert found.total.sleep_w == 8 * GAIN_W
    assert found.total.switch_w == 2 * RACK_W
    assert found.total.floor_sleep_w == ALL_W - 8 * GAIN_W
    assert found.total.floor_switch_w == BASE_W
    assert found.outputs_w == {"KM1": RACK_W, "KM2": RACK_W}
    assert found.why == {}


async def test_an_output_that_cannot_open_counts_nothing_and_says_why(core: Core) -> None:
    await core.gates.tag("KM1", "A. Serik", "permit 12")
    core.plant.switches["KM2"].trip_circuit_ok = False
    await core.plant.publish(core.live)
    found = await now(core)
    assert found.total.switch_w == 0
    assert found.total.floor_switch_w == ALL_W - 8 * GAIN_W, "its machines can still sleep"
    assert found.why == {"KM1": "tagged by A. Serik: permit 12", "KM2": "trip circuit bad"}
    assert found.outputs_w["KM1"] == RACK_W, "what is behind it is known all the same"


async def test_silence_is_unknown_and_nameplate_is_no_measurement(core: Core) -> None:
    core.plant.meter_silent = True
    core.clock.advance(60)
    await core.plant.publish(core.live)
    found = await now(core)
    assert found.total.model_dump() == dict.fromkeys(("sleep_w", "switch_w", "floor_sleep_w", "floor_switch_w"))
    assert set(found.why) == {"KM1", "KM2"}
    core.plant.meter_silent = False
    await core.plant.publish(core.live)
    core.live.put_miner("rack1/1", MinerStatus("played", sleeping=False), Quality.GOOD, None)
    assert (await now(core)).total.sleep_w == 7 * GAIN_W, "a machine that tells no figure is not counted"


async def test_machines_together_are_believed_no_more_than_the_meter(core: Core) -> None:
    for name in core.plant.machines:
        core.live.put_miner(
            name, MinerStatus("played", sleeping=False, power_w=90_000.0, power_source="estimated"), Quality.GOOD, None
        )
    assert (await now(core)).total.sleep_w == ALL_W
    assert (await now(core)).total.floor_sleep_w == 0


async def test_an_agent_that_is_not_armed_can_take_off_nothing(tmp_path: Path) -> None:
    async with running_core(tmp_path, armed=False) as core:
        found = await now(core)
        assert (found.total.sleep_w, found.total.switch_w, found.total.floor_sleep_w) == (0, 0, ALL_W)
        assert found.why == {"KM1": "not commissioned", "KM2": "not commissioned"}
        assert (await reach(core.site, core.fleet, core.gates, core.live)).total.sleep_w == 8 * GAIN_W


async def test_what_is_held_is_not_offered_again(core: Core) -> None:
    order = await core.give("limit", limit_w=ALL_W - 3 * GAIN_W)
    await core.until_state(order, S.HOLDING)
    assert (await now(core)).total.sleep_w == (8 - len(core.plant.asleep)) * GAIN_W


async def test_the_message_carries_it_and_an_older_one_does_not(core: Core) -> None:
    found = await now(core)
    head: dict[str, Any] = {"site": "kz-small-1", "epoch": core.ledger.epoch, "boot": "b", "at": 1}
    live = Live(**head, curtailable=found.total, outputs_w=found.outputs_w, outputs_why={"KM1": "tagged"})
    back = decode(Live, live.encode())
    assert back == live
    assert decode(Live, json.dumps(head).encode()).curtailable is None


# the plan ------------------------------------------------------------------------------------------------------------


def forecaster(core: Core) -> Forecaster:
    return Forecaster(core.site, core.ledger, core.fleet, core.gates, core.live, core.clock, lambda: EMERGENCY_W)


async def test_the_plan_is_what_the_order_then_does(core: Core) -> None:
    core.plant.forbidden = True
    plan = await forecaster(core).plan(ALL_W - 10_000)
    core.plant.forbidden = False
    assert plan["reached"] is True
    assert plan["switches"] == []
    assert plan["steps"][0]["write_s"] is None, "nobody was ever put to sleep here: not known"
    order = await core.give("limit", limit_w=ALL_W - 10_000)
    await core.until_state(order, S.HOLDING)
    assert {m["id"] for m in plan["machines"]} == core.plant.asleep
    assert core.plant.net_w == plan["after_w"]
    assert (await forecaster(core).plan(ALL_W - 15_000))["steps"][0]["write_s"] is not None


async def test_it_escalates_on_paper_and_never_counts_a_watt_twice(core: Core) -> None:
    plan = await forecaster(core).plan(0)
    assert plan["target_w"] == EMERGENCY_W
    assert plan["reached"] is True, "the reservation is the bound"
    assert plan["expected_w"] <= ALL_W
    for name in core.plant.machines:
        if name.startswith("rack1"):
            core.live.put_miner(name, None, Quality.NO_CONNECTION, "dark")
    plan = await forecaster(core).plan(0)
    assert [s["id"] for s in plan["switches"]] == ["KM1"]
    assert {"group": "rack1", "why": "does not answer", "count": 4} in plan["left_out"]["machines"]
    assert plan["after_w"] == ALL_W - plan["expected_w"]
    assert plan["floors"]["floor_switch_w"] == BASE_W


async def test_it_names_what_is_left_out_in_every_mode(tmp_path: Path) -> None:
    async with running_core(tmp_path, armed=False) as core:
        core.plant.forbidden = True
        plan = await forecaster(core).plan(0)
        assert plan["mode"] == "monitor"
        assert plan["left_out"]["switches"] == [
            {"id": "KM1", "why": "not commissioned"},
            {"id": "KM2", "why": "not commissioned"},
        ]
        assert plan["reached"] is (plan["after_w"] <= EMERGENCY_W)


async def test_without_a_meter_it_knows_nothing(core: Core) -> None:
    core.plant.meter_silent = True
    core.clock.advance(60)
    await core.plant.publish(core.live)
    plan = await forecaster(core).plan(40_000)
    assert (plan["power_w"], plan["after_w"], plan["reached"], plan["machines"]) == (None, None, None, [])


@pytest.mark.parametrize("limit", [-1, True, 1.5, "3MW", None, 10**11])
async def test_a_limit_that_is_none_is_refused(core: Core, limit: Any) -> None:
    with pytest.raises(WireError, match="whole watts"):
        await forecaster(core).answer({"limit_w": limit})


async def test_a_stage_of_emergency_automatics_that_machines_emptied_by_sleeping_is_told(tmp_path: Path) -> None:
    site = small_site()
    nodes = tuple(
        n.model_copy(update={"saon": (SaonStage(stage=2),)}) if n.id in {"KM1", "KM2"} else n for n in site.nodes
    )
    head = site.site.model_copy(update={"saon": (SaonDuty(stage=2, min_kw=20.0),)})
    async with running_core(tmp_path, site=site.model_copy(update={"nodes": nodes, "site": head})) as core:
        volume = SaonVolume(core.site, core.fleet, core.live)
        assert (volume.now(), volume.short()) == ({2: 8 * MACHINE_W}, set())
        order = await core.give("limit", limit_w=45_000)
        await core.until(lambda: order.state is S.HOLDING)
        (watts,) = volume.now().values()
        assert watts is not None
        assert watts < 20_000
        assert volume.short() == {2}
        core.plant.meter_silent = True
        await core.pass_time(30)
        assert (volume.now(), volume.short()) == ({2: None}, set()), "what is not known is not said to be short"
