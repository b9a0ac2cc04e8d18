"""Physics of a simulated site: what flows, what goes dark, what the registers count, how machines sleep and wake."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator
from config.check import check
from config.loader import load_site
from config.site import Site
from drivers.capabilities import Position
from simulator.latencies import load_latencies
from simulator.machine import MachineState
from simulator.plant import Plant

SITE_FILE = Path(simulator.__file__).parent / "data" / "two-incomers.yaml"
SITE = load_site(SITE_FILE)
LATENCIES = load_latencies()
BREAKER_S = 0.1
"""Longer than any switch of the site travels."""


def plant_of(site: Site = SITE, *, time_scale: float = 1.0, seed: int = 1) -> Plant:
    return Plant(site, rng=random.Random(seed), time_scale=time_scale, latencies=LATENCIES)


def changed_site(change: dict[str, dict[str, object]]) -> Site:
    """The example with some nodes' fields replaced, by node id."""
    raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
    for node in raw["nodes"]:
        node.update(change.get(node["id"], {}))
    return Site.model_validate(raw)


def loads_below(plant: Plant, node: str) -> set[str]:
    return {name for name in plant.graph.downstream(node) if name in plant.loads}


class TestPower:
    def test_sum_of_the_leaves_is_the_power_of_every_node_above(self) -> None:
        plant = plant_of()
        plant.step(3.0)
        for node in ("QF1", "BUS2", "KM1", "QF5", "GRID1"):
            leaves = math.fsum(plant.loads[name].power_w for name in loads_below(plant, node))
            assert plant.node_power_w[node] == pytest.approx(leaves, rel=1e-12), node

    def test_a_load_with_machines_draws_what_its_machines_draw(self) -> None:
        plant = plant_of()
        plant.step(1.0)
        drawn = math.fsum(machine.draw_w for machine in plant.machines_of_group["stock"])
        assert plant.node_power_w["MINERS1"] == pytest.approx(drawn)
        assert drawn == pytest.approx(20 * 3250, rel=0.03)

    def test_a_transformer_adds_its_no_load_and_load_losses(self) -> None:
        site = changed_site(
            {"BOARD1": {"type": "transformer", "rated_kva": 100, "no_load_loss_kw": 0.3, "load_loss_kw": 1.5}}
        )
        plant = plant_of(site)
        plant.step(1.0)
        load_w, load_var = plant.loads["MINERS1"].power_w, plant.loads["MINERS1"].reactive_var
        losses_w = 300 + 1500 * (math.hypot(load_w, load_var) / 100_000) ** 2
        assert plant.node_power_w["BOARD1"] == pytest.approx(load_w + losses_w)

    def test_compensation_takes_reactive_power_off_its_bus(self) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        raw["nodes"].append({"id": "C1", "type": "compensation", "rated_kvar": 15, "fed_from": ["BUS1"]})
        with_it, without = plant_of(Site.model_validate(raw)), plant_of()
        assert with_it.node_reactive_var["QF1"] == pytest.approx(without.node_reactive_var["QF1"] - 15_000)

    def test_generation_beside_the_grid_lowers_the_import_and_can_turn_it_round(self) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        raw["nodes"].append({"id": "GEN", "type": "generator", "rated_kw": 500, "fed_from": ["BUS1"]})
        plant = plant_of(Site.model_validate(raw))
        before_w = plant.node_power_w["QF1"]
        plant.set_generation("GEN", 30_000)
        assert plant.node_power_w["QF1"] == pytest.approx(before_w - 30_000)
        plant.set_generation("GEN", 400_000)
        assert plant.node_power_w["QF1"] < 0
        before_wh = plant.registers["M1"].exported.reading
        plant.step(36.0)
        assert plant.registers["M1"].exported.reading > before_wh + 1000

    def test_a_generator_alone_follows_its_load(self) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        raw["nodes"].append({"id": "GEN", "type": "generator", "rated_kw": 500, "fed_from": ["BUS1"]})
        plant = plant_of(Site.model_validate(raw))
        plant.set_generation("GEN", 100_000)
        plant.blackout("GRID1")
        assert "BUS1" in plant.energised
        assert plant.node_power_w["BUS1"] > 0
        assert "GRID1" not in plant.energised

    def test_equal_seeds_give_equal_plants_and_other_seeds_do_not(self) -> None:
        one, same, other = plant_of(seed=7), plant_of(seed=7), plant_of(seed=8)
        for plant in (one, same, other):
            for now_s in (0.1, 0.25, 5.0):
                plant.step(now_s)
        assert one.node_power_w == same.node_power_w
        assert one.node_power_w != other.node_power_w

    def test_a_fan_that_starts_takes_an_inrush_that_ends(self) -> None:
        plant = plant_of()
        running = math.hypot(plant.node_power_w["FANS"], plant.node_reactive_var["FANS"])
        plant.operate("QF3", False)
        plant.step(1.0)
        assert plant.node_power_w.get("FANS", 0.0) == 0.0
        plant.operate("QF3", True)
        plant.step(1.0 + BREAKER_S)
        starting = math.hypot(plant.node_power_w["FANS"], plant.node_reactive_var["FANS"])
        assert starting == pytest.approx(6 * running, rel=0.05)
        plant.step(4.0)
        assert math.hypot(plant.node_power_w["FANS"], plant.node_reactive_var["FANS"]) == pytest.approx(
            running, rel=0.05
        )


class TestSwitching:
    @pytest.mark.parametrize("switch", ["KM1", "QF5", "KM3", "QF6", "QF3", "QF4", "OUT1"])
    def test_an_opened_switch_darkens_exactly_its_dark_set(self, switch: str) -> None:
        plant = plant_of()
        before = plant.energised
        dark = plant.graph.dark_if_opened(switch, plant.positions)
        assert plant.operate(switch, False)
        plant.step(BREAKER_S)
        assert before - plant.energised == dark
        assert not plant.energised - before
        for node in dark:
            assert plant.node_power_w.get(node, 0.0) == 0.0

    @given(
        st.lists(st.sampled_from(["KM1", "QF5", "KM3", "QF6", "QF3", "QF4", "OUT1", "QS", "QF1", "QF2"]), max_size=8)
    )
    @settings(max_examples=40, deadline=None)
    def test_whatever_is_operated_the_live_nodes_are_those_of_the_graph(self, operated: list[str]) -> None:
        plant = plant_of()
        plant.transfer.enabled = False
        now_s = 0.0
        for name in operated:
            plant.operate(name, not plant.switches[name].closed)
            now_s += 10.0
            plant.step(now_s)
            assert plant.energised == plant.graph.energised(plant.positions)
            served_w = math.fsum(load.power_w for load in plant.loads.values())
            drawn_w = math.fsum(plant.node_power_w.get(source, 0.0) for source in ("GRID1", "GRID2"))
            assert drawn_w == pytest.approx(served_w, rel=1e-9, abs=1e-6)

    def test_contacts_travel_for_tens_of_milliseconds_and_show_it(self) -> None:
        plant = plant_of()
        plant.relays["io-1"].set_output("relay_1", False, plant.now_s)
        plant.step(0.03)
        assert plant.switches["KM1"].position is Position.MOVING
        assert plant.switches["KM1"].aux() == (False, False)
        assert plant.node_power_w["KM1"] > 0
        plant.step(0.06)
        assert plant.switches["KM1"].position is Position.OPEN
        assert plant.node_power_w.get("KM1", 0.0) == 0.0

    def test_power_ends_when_the_contacts_part_not_at_the_next_step(self) -> None:
        plant = plant_of()
        before_wh, power_w = plant.registers["M3"].imported.reading, plant.registers["M3"].power_w
        plant.relays["io-1"].set_output("relay_1", False, plant.now_s)
        plant.step(60.0)
        counted_wh = plant.registers["M3"].imported.reading - before_wh
        open_s = LATENCIES.actuators["contactor_no"].open_s
        assert counted_wh == pytest.approx(power_w * open_s / 3600, rel=0.02)

    @pytest.mark.parametrize(
        ("switch", "output", "level"), [("KM1", "relay_1", False), ("KM3", "relay_3", True), ("QF6", "relay_4", False)]
    )
    def test_a_held_coil_opens_by_the_switch_s_nature(self, switch: str, output: str, level: bool) -> None:
        plant = plant_of()
        assert plant.relays["io-1"].outputs[output] is not level
        plant.relays["io-1"].set_output(output, level, plant.now_s)
        plant.step(1.0)
        assert not plant.switches[switch].closed
        plant.relays["io-1"].set_output(output, not level, plant.now_s)
        plant.step(2.0)
        # Contactors return with their coil; an undervoltage release only permits a closing.
        assert plant.switches[switch].closed is (switch != "QF6")

    def test_a_shunt_trip_opens_on_a_pulse_that_the_module_ends(self) -> None:
        plant = plant_of()
        plant.relays["io-1"].pulse("relay_2", 0.2, plant.now_s)
        plant.step(0.1)
        assert plant.relays["io-1"].outputs["relay_2"]
        assert not plant.switches["QF5"].closed
        plant.step(0.3)
        assert not plant.relays["io-1"].outputs["relay_2"]
        assert not plant.switches["QF5"].closed

    def test_an_undervoltage_release_closes_by_its_closing_coil_once_fed_and_then_charges_its_spring(self) -> None:
        plant = plant_of()
        relay, body = plant.relays["io-1"], plant.switches["QF6"]
        relay.set_output("relay_4", False, plant.now_s)
        plant.step(1.0)
        relay.pulse("relay_5", 0.2, plant.now_s)
        plant.step(2.0)
        assert not body.closed  # the release is not fed
        relay.set_output("relay_4", True, plant.now_s)
        relay.pulse("relay_5", 0.2, plant.now_s)
        plant.step(3.0)
        assert body.closed
        assert not plant.wiring.level("io-2", "di_5")
        plant.step(20.0)
        assert plant.wiring.level("io-2", "di_5")

    def test_a_module_that_loses_its_supply_lets_go_of_what_it_held(self) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        for device in raw["devices"]:
            device["ups_min"] = 0
        plant = plant_of(Site.model_validate(raw))
        plant.transfer.enabled = False
        plant.blackout("GRID1")
        plant.step(1.0)
        assert not plant.switches["KM1"].closed
        assert plant.switches["KM3"].closed  # held open by its coil only
        assert plant.switches["QF5"].closed  # a trip coil needs voltage

    def test_a_section_breaker_carries_power_with_the_sign_of_its_direction(self) -> None:
        plant = plant_of()
        plant.transfer.enabled = False
        before = {bus: plant.node_power_w[bus] for bus in ("BUS1", "BUS2")}
        plant.operate("QF1", False)
        plant.operate("QS", True)
        plant.step(1.0)
        assert plant.node_power_w["QS"] == pytest.approx(-plant.node_power_w["BUS1"])  # from BUS2 to BUS1
        assert plant.node_power_w["QF2"] == pytest.approx(before["BUS2"] + plant.node_power_w["BUS1"], rel=0.02)
        assert plant.node_power_w.get("QF1", 0.0) == 0.0

    def test_automatic_transfer_feeds_a_dead_bus_from_the_other_and_stays(self) -> None:
        plant = plant_of()
        plant.blackout("GRID1")
        plant.step(0.5)
        assert "BUS1" not in plant.energised
        plant.step(5.0)
        assert "BUS1" in plant.energised
        assert plant.switches["QS"].closed
        assert not plant.switches["QF1"].closed
        plant.restore("GRID1")
        plant.step(60.0)
        assert plant.switches["QS"].closed

    def test_automatic_transfer_does_not_undo_an_opening_on_purpose_nor_act_in_a_whole_blackout(self) -> None:
        plant = plant_of()
        plant.operate("QF1", False)
        plant.step(30.0)
        assert not plant.switches["QS"].closed
        dark = plant_of()
        dark.blackout("GRID1")
        dark.blackout("GRID2")
        dark.step(30.0)
        assert not dark.switches["QS"].closed
        assert dark.energised == frozenset()


class TestMachines:
    def test_a_sleeping_machine_s_watts_leave_the_meters_above_it_within_its_ramp(self) -> None:
        plant = plant_of()
        before_w, feeder_w = plant.registers["M1"].power_w, plant.registers["M3"].power_w
        machine = plant.machines["stock/1"]
        saved_w = machine.full_w - machine.sleep_w
        assert machine.request_sleep(plant.now_s)
        plant.step(machine.times.sleep_delay_s * 0.9)
        assert machine.state is MachineState.FALLING
        assert plant.registers["M3"].power_w == pytest.approx(feeder_w, rel=0.005)
        plant.step(machine.times.sleep_delay_s + machine.times.sleep_ramp_s + 0.01)
        assert machine.state is MachineState.ASLEEP
        assert machine.draw_w == machine.sleep_w
        for point, was_w in (("M1", before_w), ("M3", feeder_w)):
            assert plant.registers[point].power_w == pytest.approx(was_w - saved_w, abs=0.005 * was_w), point

    def test_a_stock_machine_takes_more_than_a_minute_and_a_luxos_machine_less_than_five_seconds(self) -> None:
        for name, low_s, high_s in (("stock/1", 50.0, 90.0), ("lux/1", 0.0, 5.0)):
            times = plant_of().machines[name].times
            assert low_s < times.sleep_delay_s + times.sleep_ramp_s <= high_s

    def test_the_time_scale_shortens_machine_delays_and_leaves_the_registers_alone(self) -> None:
        slow, fast = plant_of(time_scale=1.0), plant_of(time_scale=10.0)
        assert fast.machines["stock/1"].times.wake_ramp_s == pytest.approx(
            slow.machines["stock/1"].times.wake_ramp_s / 10
        )
        for plant in (slow, fast):
            before_wh = plant.registers["M1"].imported.reading
            plant.step(3600.0)
            counted_wh = plant.registers["M1"].imported.reading - before_wh
            assert counted_wh == pytest.approx(plant.registers["M1"].power_w, rel=0.01)

    def test_a_woken_machine_boots_ramps_and_mines(self) -> None:
        plant = plant_of()
        machine = plant.machines["lux/1"]
        machine.request_sleep(plant.now_s)
        plant.step(10.0)
        machine.request_wake(plant.now_s)
        seen = []
        for now_s in (10.5, 12.5, 15.0, 30.0):
            plant.step(now_s)
            seen.append(machine.state)
        assert seen == [MachineState.BOOTING, MachineState.RAMPING, MachineState.RAMPING, MachineState.MINING]
        assert machine.hashrate_ths == pytest.approx(machine.nominal_ths, rel=0.02)

    def test_after_a_blackout_machines_come_back_at_full_power_by_themselves_but_sleepers_sleep_on(self) -> None:
        plant = plant_of(time_scale=10.0)
        before_w = plant.registers["M1"].power_w
        sleeper = plant.machines["stock/3"]
        sleeper.request_sleep(plant.now_s)
        plant.step(20.0)
        for source in ("GRID1", "GRID2"):
            plant.blackout(source)
        plant.step(600.0)
        assert sum(m.draw_w for m in plant.machines.values()) == 0.0
        for source in ("GRID1", "GRID2"):
            plant.restore(source)
        plant.step(601.0)
        assert plant.machines["stock/1"].state is MachineState.BOOTING
        assert not plant.machines["stock/1"].api_up(plant.now_s)
        plant.step(700.0)
        assert {m.state for m in plant.machines.values() if m is not sleeper} == {MachineState.MINING}
        assert sleeper.state is MachineState.ASLEEP
        assert plant.registers["M1"].power_w == pytest.approx(before_w - sleeper.full_w, rel=0.02)

    @given(st.lists(st.floats(0.01, 40.0), min_size=1, max_size=30), st.floats(0.0, 20.0))
    @settings(max_examples=60, deadline=None)
    def test_step_widths_do_not_change_where_a_machine_ends(self, widths: list[float], asleep_at_s: float) -> None:
        fine, coarse = (plant_of(time_scale=5.0).machines["stock/1"] for _ in range(2))
        for machine in (fine, coarse):
            machine.advance(asleep_at_s)
            machine.request_sleep(asleep_at_s)
        now_s = asleep_at_s
        for now_s in itertools.accumulate(widths, initial=asleep_at_s):
            fine.advance(now_s)
        coarse.advance(now_s)
        assert fine.state is coarse.state
        assert fine.draw_w == pytest.approx(coarse.draw_w)


class TestRegisters:
    @given(st.lists(st.floats(0.001, 30.0), min_size=2, max_size=40))
    @settings(max_examples=40, deadline=None)
    def test_registers_telescope_with_the_integral_of_power(self, widths: list[float]) -> None:
        plant = plant_of(time_scale=10.0)
        registers = plant.registers["M3"]
        opening_wh, integral_wh, now_s = registers.imported.reading, 0.0, 0.0
        plant.machines["stock/1"].request_sleep(0.0)
        for width in widths:
            integral_wh += registers.power_w * width / 3600
            now_s += width
            plant.step(now_s)
        assert registers.imported.reading - opening_wh == pytest.approx(integral_wh, rel=1e-9, abs=1e-6)

    def test_the_sum_of_the_feeders_is_the_incomer_s_energy(self) -> None:
        plant = plant_of()
        plant.step(1.0)
        before = {name: r.imported.reading for name, r in plant.registers.items()}
        others_wh = 0.0
        for now_s in [1.0 + 0.5 * n for n in range(1, 101)]:
            others_wh += (plant.node_power_w["QF3"] + plant.node_power_w["OUT1"]) * 0.5 / 3600
            plant.step(now_s)
        counted = {name: r.imported.reading - before[name] for name, r in plant.registers.items()}
        assert counted["M1"] == pytest.approx(counted["M3"] + others_wh, rel=1e-9)

    def test_small_energies_are_not_lost_beside_a_large_reading(self) -> None:
        plant = plant_of()
        energy = plant.registers["M1"].imported
        energy.opening = 5e13
        before = energy.added
        for n in range(1, 2001):
            plant.step(n * 0.01)
        assert energy.added - before == pytest.approx(plant.registers["M1"].power_w * 20 / 3600, rel=0.01)

    def test_phases_add_up_and_a_dark_meter_shows_nothing(self) -> None:
        plant = plant_of()
        values = plant.registers["M1"].values(0)
        phases = [values[f"power_{phase}_w"] for phase in ("l1", "l2", "l3")]
        assert sum(p for p in phases if isinstance(p, float)) == pytest.approx(values["power_w"])
        assert values["voltage_l1_l2_v"] == pytest.approx(400, rel=0.02)
        plant.transfer.enabled = False
        plant.blackout("GRID1")
        dark = plant.registers["M1"].values(0)
        assert (dark["power_w"], dark["voltage_l1_n_v"], dark["frequency_hz"]) == (0.0, 0.0, 0.0)
        assert dark["energy_import_wh"] == values["energy_import_wh"]

    def test_a_meter_connected_the_wrong_way_round_counts_export(self) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        raw["metering_points"][0]["inverted"] = True
        plant = plant_of(Site.model_validate(raw))
        before_wh = plant.registers["M1"].exported.reading
        plant.step(36.0)
        assert plant.registers["M1"].power_w < 0
        assert plant.registers["M1"].exported.reading > before_wh

    def test_where_the_agent_applies_the_ratios_the_meter_shows_secondary_values(self) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        raw["metering_points"][0]["passport"] = {"ct": {"num": 400, "den": 5}, "ratio_applied_in": "agent"}
        plant = plant_of(Site.model_validate(raw))
        assert plant.registers["M1"].values(0)["power_w"] == pytest.approx(plant.node_power_w["QF1"] / 80)


def test_every_latency_has_a_source_and_every_load_kind_a_shape() -> None:
    latencies = LATENCIES
    assert {"mining", "cooling", "protected", "tenant", "other"} == set(latencies.loads)
    for family in latencies.families.values():
        for name in ("answer_s", "sleep_delay_s", "sleep_ramp_s", "sleeping_w", "wake_boot_s", "wake_ramp_s"):
            assert len(getattr(family, name).source) >= 8, name
    with pytest.raises(KeyError, match="known:"):
        latencies.family("toaster")


def test_the_shipped_site_file_passes_the_check_of_site_files() -> None:
    found = check(SITE)
    assert [p for p in found.problems if p.severity == "error"] == []
