"""What stays of reactive power when load goes: the plan's estimate, by hand, and when it warns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.acquisition.switching import used_of
from agent.curtailment.forecast import Forecaster
from config.site import Site
from drivers.profiles.loader import load_profile
from tests.unit.agent_kit import BASE_W, EMERGENCY_W, MACHINE_W, Core, running_core, small_site
from tizgin.commands import _agent_plan

ALL_W = BASE_W + 8 * MACHINE_W
CONTACTS = {"open": {"device": "io-1", "input": "di_5"}, "closed": {"device": "io-1", "input": "di_6"}}


def banked(bus: str = "MAIN", **bank: Any) -> Site:
    doc = small_site().model_dump(mode="json", by_alias=True, exclude_unset=True)
    doc["nodes"].append({"id": "BSK", "type": "compensation", "fed_from": [bus], "rated_kvar": 20} | bank)
    return Site.model_validate(doc)


async def plan_of(core: Core, limit_w: int = EMERGENCY_W) -> dict[str, Any]:
    core.plant.forbidden = True
    found = await Forecaster(
        core.site, core.ledger, core.fleet, core.gates, core.live, core.clock, lambda: EMERGENCY_W
    ).plan(limit_w)
    core.plant.forbidden = False
    return found


async def test_capacitors_that_stay_make_reactive_export_and_the_plan_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_core(tmp_path, site=banked()) as core:
        core.plant.meter_var = {"em-0": 4_000.0}
        await core.step()
        plan = await plan_of(core)
        # Loads draw 4 + 20 kvar at all of the power; the bank keeps its 20.
        wanted = 24_000 * plan["after_w"] // ALL_W - 20_000
        assert plan["reactive"]["after_var"] == wanted < -5_000
        assert plan["reactive"]["banks"] == [{"id": "BSK", "rated_var": 20_000, "on": True, "stays": True}]
        (warning,) = plan["reactive"]["warnings"]
        assert f"reactive export of {-wanted / 1000:.0f} kvar expected" in warning
        assert "20 kvar of capacitors and filters stay on" in warning
        _agent_plan._print(plan)
        shown = " ".join(capsys.readouterr().out.split())
        assert "reactive power 4.0 kvar drawn, expected after it" in shown
        assert f"WARNING: {warning}" in shown


async def test_a_small_cut_leaves_enough_load_and_nothing_is_warned_of(tmp_path: Path) -> None:
    async with running_core(tmp_path, site=banked()) as core:
        core.plant.meter_var = {"em-0": 4_000.0}
        await core.step()
        plan = await plan_of(core, ALL_W - MACHINE_W + 500)
        assert plan["reactive"]["after_var"] == 24_000 * plan["after_w"] // ALL_W - 20_000 > 0
        assert plan["reactive"]["warnings"] == []


async def test_a_bank_behind_the_switch_that_opens_goes_with_it(tmp_path: Path) -> None:
    async with running_core(tmp_path, site=banked("BOARD1")) as core:
        core.plant.meter_var = {"em-0": 4_000.0}
        await core.step()
        for name in core.plant.machines:
            if name.startswith("rack1"):
                core.live.put_miner(name, None, core.live.miners[name].quality, "dark")
        plan = await plan_of(core)
        assert [s["id"] for s in plan["switches"]] == ["KM1"]
        assert plan["reactive"]["banks"][0]["stays"] is False
        assert plan["reactive"]["after_var"] == 24_000 * plan["after_w"] // ALL_W


async def test_what_is_no_bank_and_gives_reactive_power_stays_whole(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        core.plant.meter_var = {"em-0": -9_000.0}
        await core.step()
        told = (await plan_of(core))["reactive"]
        assert (told["after_var"], told["banks"]) == (-9_000, [])
        assert "now 9 kvar given" in told["warnings"][0]


async def test_unknown_is_not_zero(tmp_path: Path) -> None:
    async with running_core(tmp_path, site=banked()) as core:
        told = (await plan_of(core))["reactive"]
        assert (told["var"], told["after_var"]) == (None, None)
        assert told["warnings"] == [
            "20 kvar of compensation stay on; what that makes is not known: reactive power is not read at the net point"
        ]


@pytest.mark.parametrize(
    ("inputs", "on", "left"),
    [
        ({"di_5": False, "di_6": True}, True, 20_000),
        ({"di_5": True, "di_6": False}, False, 0),
        ({"di_5": True, "di_6": True}, None, None),
        ({"di_5": None, "di_6": True}, None, None),
        ({}, None, None),
    ],
)
async def test_contacts_say_whether_a_bank_is_on(
    tmp_path: Path, inputs: dict[str, bool | None], on: bool | None, left: int | None
) -> None:
    async with running_core(tmp_path, site=banked(position=CONTACTS)) as core:
        core.plant.meter_var = {"em-0": 4_000.0}
        await core.step()
        core.fleet.take("io-1", inputs, {})
        plan = await plan_of(core)
        assert plan["reactive"]["banks"][0]["on"] is on
        if left is None:
            assert plan["reactive"]["after_var"] is None
            assert "position of BSK is not known" in plan["reactive"]["warnings"][0]
        else:
            assert plan["reactive"]["after_var"] == (4_000 + left) * plan["after_w"] // ALL_W - left
        core.clock.advance(60)
        await core.plant.publish(core.live)
        assert (await plan_of(core))["reactive"]["banks"][0]["on"] is None, "an old contact says nothing"


def test_the_contacts_of_a_bank_are_read() -> None:
    site = banked(position=CONTACTS)
    profile = next(d.profile for d in site.devices if d.id == "io-1")
    assert {"di_5", "di_6"} <= used_of(site, "io-1", load_profile(profile)).inputs  # type: ignore[arg-type]
