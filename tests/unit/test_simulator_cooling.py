"""Physics of cooling loops: what flows, what warms, and how fast it gets cold when nothing mines."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator
from config.site import Site
from simulator.cooling import LoopBody
from simulator.faults import FaultError, Faults
from simulator.latencies import load_latencies
from simulator.plant import Plant

RAW: dict[str, Any] = yaml.safe_load(
    (Path(simulator.__file__).parent / "data" / "two-incomers.yaml").read_text(encoding="utf-8")
)
LATENCIES = load_latencies()
HOUR_S = 3600.0


def site_of(kind: str = "hydro", **loop: Any) -> Site:
    """The example with its one loop of that type."""
    raw = {**RAW, "cooling_loops": [{**RAW["cooling_loops"][0], "type": kind, **loop}]}
    return Site.model_validate(raw)


def plant_of(kind: str = "hydro", *, time_scale: float = 1.0, **loop: Any) -> tuple[Plant, LoopBody]:
    plant = Plant(site_of(kind, **loop), rng=random.Random(1), time_scale=time_scale, latencies=LATENCIES)
    return plant, plant.cooling["AIR"]


def all_asleep(plant: Plant) -> None:
    """Every machine sleeps and has fallen to its sleeping draw."""
    for machine in plant.machines.values():
        machine.request_sleep(plant.now_s)
    plant.step(plant.now_s + 120.0)


@pytest.mark.parametrize("kind", ["air", "immersion", "hydro"])
def test_a_plant_that_has_mined_for_days_begins_at_its_set_point_and_stays_there(kind: str) -> None:
    plant, loop = plant_of(kind)
    assert loop.supply_c == LATENCIES.cooling_loops[kind].set_c  # type: ignore[index]  # one of the three
    plant.step(HOUR_S)
    assert loop.supply_c == pytest.approx(LATENCIES.cooling_loops[kind].set_c)  # type: ignore[index]  # checked by the test itself


def test_with_machines_asleep_it_gets_cold_and_the_sooner_the_colder_it_is_outside() -> None:
    reached: dict[float, float] = {}
    for outside_c in (5.0, -10.0, -35.0):
        plant, loop = plant_of()
        loop.outside_c = outside_c
        all_asleep(plant)
        begin_c = loop.supply_c
        plant.step(plant.now_s + 2 * HOUR_S)
        reached[outside_c] = loop.supply_c
        assert outside_c < loop.supply_c < begin_c
    assert reached[-35.0] < reached[-10.0] < reached[5.0] - 1.0


def test_a_few_machines_that_mine_keep_it_from_freezing() -> None:
    def after_a_day(awake: int) -> float:
        plant, loop = plant_of()
        loop.outside_c = -30.0
        all_asleep(plant)
        for machine in list(plant.machines.values())[:awake]:
            machine.request_wake(plant.now_s)
        plant.step(plant.now_s + 600.0)
        plant.step(plant.now_s + 24 * HOUR_S)
        return loop.supply_c

    assert after_a_day(0) < 0.0 < after_a_day(1)


def test_woken_machines_warm_it_up_to_the_set_point_and_no_further() -> None:
    plant, loop = plant_of()
    loop.outside_c, loop.supply_c = -20.0, 2.0
    plant.step(plant.now_s + 120.0)
    assert 2.0 < loop.supply_c < 35.0
    plant.step(plant.now_s + HOUR_S)
    assert loop.supply_c == pytest.approx(35.0)


def test_in_a_heat_wave_it_stays_above_the_outside_by_what_the_heat_needs() -> None:
    plant, loop = plant_of()
    loop.outside_c = 42.0
    plant.step(HOUR_S)
    assert 49.0 < loop.supply_c < 53.0


def test_without_flow_the_heat_of_the_machines_does_not_reach_it() -> None:
    plant, loop = plant_of()
    loop.outside_c = -35.0
    plant.operate("QF3", False)
    plant.step(1.0)
    assert not loop.flows()
    plant.step(plant.now_s + 2 * HOUR_S)
    assert loop.supply_c < 30.0, "the machines mine at full power all the while"
    assert sum(load.power_w for load in loop.machines) > 90_000


def test_its_contact_tells_the_flow_and_a_break_contact_the_opposite() -> None:
    made, broken = plant_of()[0], plant_of(flow_ok={"device": "io-3", "input": "di_1", "inverted": True})[0]
    for plant, idle in ((made, False), (broken, True)):
        assert plant.wiring.level("io-3", "di_1") is not idle
        plant.operate("QF3", False)
        plant.step(1.0)
        assert plant.wiring.level("io-3", "di_1") is idle
        plant.operate("QF3", True)
        plant.step(2.0)
        assert plant.wiring.level("io-3", "di_1") is not idle


def test_every_member_has_to_run_for_it_to_flow() -> None:
    raw = {**RAW, "nodes": [*RAW["nodes"], {"id": "PUMP", "type": "load", "kind": "cooling", "rated_kw": 2}]}
    raw["nodes"][-1] |= {"cooling_loop": "AIR", "fed_from": ["BUS1"]}
    raw["cooling_loops"] = [{**RAW["cooling_loops"][0], "members": ["FANS", "PUMP"]}]
    plant = Plant(Site.model_validate(raw), rng=random.Random(1), latencies=LATENCIES)
    assert plant.cooling["AIR"].flows()
    plant.operate("QF3", False)
    plant.step(1.0)
    assert plant.loads["PUMP"].power_w > 0
    assert not plant.cooling["AIR"].flows()


def test_the_time_scale_makes_it_cool_as_much_faster_as_machines_ramp() -> None:
    slow, fast = plant_of()[1], plant_of(time_scale=60.0)[1]
    for loop, seconds in ((slow, HOUR_S), (fast, 60.0)):
        loop.blocked, loop.outside_c = True, -20.0
        loop.step(seconds)
    assert fast.supply_c == pytest.approx(slow.supply_c)


@settings(max_examples=40, deadline=None)
@given(
    outside_c=st.floats(-50, 45),
    begin_c=st.floats(-20, 70),
    flows=st.booleans(),
    cuts=st.lists(st.floats(0.01, 20_000), max_size=6),
)
def test_any_step_width_gives_the_same_temperature_between_where_it_was_and_where_it_goes(
    outside_c: float, begin_c: float, flows: bool, cuts: list[float]
) -> None:
    one, many = plant_of()[1], plant_of()[1]
    for loop in (one, many):
        loop.outside_c, loop.supply_c, loop.blocked = outside_c, begin_c, not flows
    for seconds in cuts:
        many.step(seconds)
    one.step(sum(cuts))
    assert many.supply_c == pytest.approx(one.supply_c, abs=0.05)
    if not flows:
        assert min(begin_c, outside_c) - 1e-6 <= one.supply_c <= max(begin_c, outside_c) + 1e-6


def test_faults_in_plain_words() -> None:
    plant, loop = plant_of()
    faults = Faults(plant)
    faults.set("outside", "*", temp_c=-35)
    faults.set("supply_temp", "AIR", temp_c=3.5)
    assert (loop.outside_c, loop.supply_c) == (-35.0, 3.5)
    faults.set("no_flow", "AIR")
    faults.set("sensor_broken", "AIR")
    assert not loop.flows()
    assert plant.wiring.celsius("ti-1", "ti_1") is None
    faults.clear_all()
    assert loop.flows()
    assert plant.wiring.celsius("ti-1", "ti_1") == 3.5
    assert plant.wiring.celsius("ti-1", "ti_2") is None, "nothing is wired there"


@pytest.mark.parametrize(
    ("kind", "target", "given", "message"),
    [
        ("outside", "WATER", {"temp_c": 1}, "expected a cooling loop"),
        ("supply_temp", "*", {"temp_c": 1}, "expected a cooling loop"),
        ("outside", "*", {}, "temp_c: saw None"),
        ("supply_temp", "AIR", {"temp_c": 500}, "temp_c: saw 500"),
        ("no_flow", "FANS", {}, "no such kind for such a target"),
    ],
)
def test_a_fault_that_cannot_be(kind: str, target: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(FaultError, match=message):
        Faults(plant_of()[0]).set(kind, target, **given)
