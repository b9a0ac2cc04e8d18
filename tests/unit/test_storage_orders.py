"""Batteries under orders: one that charges goes before any machine, one that gives stays, and none is mining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from storage_kit import CHARGING_W, battery_core, battery_doc

from agent.curtailment.forecast import Forecaster
from config.check import check
from config.site import Site
from tests.unit.agent_kit import BASE_W, EMERGENCY_W, MACHINE_W, SLEEP_W, Core
from wire.orders import Escalation, Restore
from wire.states import OrderState

S = OrderState
MACHINES_W = 8 * MACHINE_W
ALL_W = BASE_W + MACHINES_W + CHARGING_W
SWITCHES = {"methods": ("sleep", "switch")}


async def test_a_battery_that_charges_goes_before_any_machine(tmp_path: Path) -> None:
    async with battery_core(tmp_path, CHARGING_W) as core:
        order = await core.give("limit", limit_w=ALL_W - 8_000, **SWITCHES)
        await core.until_state(order, S.HOLDING)
        assert core.plant.writes == [("open", "KM3")]
        assert core.plant.net_w == ALL_W - CHARGING_W


async def test_machines_sleep_only_for_the_rest_and_at_once(tmp_path: Path) -> None:
    async with battery_core(tmp_path, CHARGING_W) as core:
        order = await core.give("limit", limit_w=ALL_W - CHARGING_W - 6_000, **SWITCHES)
        await core.pass_time(3)
        assert {kind for kind, _ in core.plant.writes} == {"open", "sleep"}, "one wave: nobody waits for the battery"
        await core.until_state(order, S.HOLDING)
        assert len(core.plant.asleep) == 2
        assert [t for kind, t in core.plant.writes if kind == "open"] == ["KM3"]


async def test_machines_keep_their_time_to_fall_asleep_beside_a_battery(tmp_path: Path) -> None:
    """A switch shows at the meter in seconds; a machine that was told a moment ago must not be taken for a refusal."""
    async with battery_core(tmp_path, CHARGING_W) as core:
        for machine in core.plant.machines.values():
            machine.deaf = True  # as one that takes its time
        await core.give("limit", limit_w=ALL_W - CHARGING_W - 6_000, **SWITCHES)
        await core.pass_time(12)
        assert [kind for kind, _ in core.plant.writes].count("sleep") == 2
        assert [t for kind, t in core.plant.writes if kind == "open"] == ["KM3"]


async def test_it_is_no_reduction_of_mining(tmp_path: Path) -> None:
    async with battery_core(tmp_path, CHARGING_W) as core:
        order = await core.give("limit", limit_w=MACHINES_W - 6_000, measured_at="gross_mining", **SWITCHES)
        await core.until_state(order, S.HOLDING)
        assert core.plant.switches["KM3"].closed
        assert len(core.plant.asleep) == 2
        for machine in core.plant.machines.values():
            machine.deaf, machine.asleep = True, False
        deeper = await core.give("limit", limit_w=0, measured_at="gross_mining", **SWITCHES)
        await core.until(lambda: not core.plant.switches["KM1"].closed and not core.plant.switches["KM2"].closed)
        await core.pass_time(60)
        assert core.plant.switches["KM3"].closed, "not with all other means used up either"
        assert deeper.state in {S.HOLDING, S.VERIFYING}


async def test_an_order_that_allows_no_switch_leaves_it_alone(tmp_path: Path) -> None:
    async with battery_core(tmp_path, CHARGING_W) as core:
        order = await core.give("limit", limit_w=ALL_W - 8_000)
        await core.until_state(order, S.HOLDING)
        assert core.plant.switches["KM3"].closed
        assert len(core.plant.asleep) == 3


async def test_where_switches_are_the_escalation_it_is_the_first_of_them(tmp_path: Path) -> None:
    async with battery_core(tmp_path, CHARGING_W) as core:
        for machine in core.plant.machines.values():
            machine.refuses = True
        order = await core.give("limit", limit_w=ALL_W - 8_000, escalation=Escalation(to="switch", after_s=5))
        await core.until_state(order, S.HOLDING)
        assert [t for kind, t in core.plant.writes if kind == "open"] == ["KM3"]


GIVING: list[tuple[str, dict[str, Any]]] = [
    ("limit", {"limit_w": 45_000, **SWITCHES}),
    ("stop", {}),
    ("emergency_trip", {}),
]


@pytest.mark.parametrize(("action", "fields"), GIVING, ids=[action for action, _ in GIVING])
@pytest.mark.parametrize("silent", [False, True])
async def test_one_that_gives_or_is_not_read_is_not_opened(
    tmp_path: Path, action: str, fields: dict[str, Any], silent: bool
) -> None:
    """Without it more would be drawn; and who does not know whether it gives must not find out like that."""
    async with battery_core(tmp_path, CHARGING_W if silent else -5_000) as core:
        core.plant.battery_silent = silent
        core.clock.advance(60)
        await core.plant.publish(core.live)
        await core.give(action, **fields)
        await core.pass_time(150)
        assert ("open", "KM3") not in core.plant.writes
        assert core.plant.writes, "everything else goes"


async def test_a_stop_takes_a_charging_one_and_its_own_name_does_always(tmp_path: Path) -> None:
    async with battery_core(tmp_path, CHARGING_W) as core:
        await core.give("stop")
        await core.pass_time(5)
        assert ("open", "KM3") in core.plant.writes
    other = tmp_path / "other"
    other.mkdir()
    async with battery_core(other, -5_000) as core:
        await core.give("open_feeders", feeders=("KM3",))
        await core.pass_time(5)
        assert core.plant.writes == [("open", "KM3")], "a dispatcher who names a feeder has it"


async def test_a_ramp_holds_for_it_too(tmp_path: Path) -> None:
    async with battery_core(tmp_path, CHARGING_W) as core:
        await core.give("limit", limit_w=ALL_W - 14_000, max_step_w=8_000, **SWITCHES)
        await core.pass_time(30)
        assert core.plant.switches["KM3"].closed, "more than one step allows"
        assert core.plant.asleep


@pytest.mark.parametrize("close", ["by_person", "auto"])
async def test_it_closes_by_the_rule_of_its_switch(tmp_path: Path, close: str) -> None:
    async with battery_core(tmp_path, CHARGING_W, close=close, min_off_s=0) as core:
        order = await core.give("limit", limit_w=ALL_W - 8_000, restore=Restore(stage_delay_s=1), **SWITCHES)
        await core.until_state(order, S.HOLDING)
        await core.release(order)
        await core.pass_time(30)
        assert core.plant.switches["KM3"].closed is (close == "auto")
        assert (("close", "KM3") in core.plant.writes) is (close == "auto")
        assert order.waiting == (() if close == "auto" else ("KM3",))
        if close == "by_person":
            core.plant.switches["KM3"].closed = True
            await core.until(lambda: order.id not in core.journal.live)
        assert core.journal.shed_wh.get("", 0) == 0, "what a battery did not charge is nobody's mining"


async def test_the_plan_has_it_first(tmp_path: Path) -> None:
    async with battery_core(tmp_path, CHARGING_W) as core:
        plan = await forecaster(core).plan(ALL_W - CHARGING_W - 6_000)
        assert [(step["kind"], step["count"]) for step in plan["steps"]] == [("switch", 1), ("sleep", 2)]
        assert [(s["id"], s["why"]) for s in plan["switches"]] == [("KM3", "a battery that charges")]
        assert plan["after_w"] == ALL_W - CHARGING_W - 2 * (MACHINE_W - SLEEP_W)
        core.plant.battery_w = -5_000
        await core.step()
        assert (await forecaster(core).plan(ALL_W - CHARGING_W - 6_000))["switches"] == []


def forecaster(core: Core) -> Forecaster:
    return Forecaster(core.site, core.ledger, core.fleet, core.gates, core.live, core.clock, lambda: EMERGENCY_W)


@pytest.mark.parametrize(
    ("formula", "wrong"), [("+M1 +M2", False), ("+M0", True), ("+M0 -M3", False), ("+M1 +M3", True)]
)
def test_a_point_of_mining_counts_no_battery(formula: str, wrong: bool) -> None:
    doc = battery_doc()
    doc["virtual_points"] = [{"id": "MINING", "formula": formula, "role": "technical"}]
    found = [problem for problem in check(Site.model_validate(doc)).errors if "battery BESS" in problem.seen]
    assert bool(found) is wrong


def test_an_output_of_a_battery_is_usable_and_is_not_said_to_shed_nothing() -> None:
    result = check(Site.model_validate(battery_doc()))
    assert next(o for o in result.outputs if o.id == "KM3").usable
    assert not [p for p in result.warnings if "KM3 with no load" in p.seen]
