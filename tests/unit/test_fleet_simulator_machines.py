"""Machines of a simulated fleet: who stands where, what a mix means, what faults do to the body."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.devices.models import Mode, Nameplate
from simulator.fleet.fleet import SimulatedFleet
from simulator.fleet.kinds import KINDS, parse_mix
from simulator.fleet.machine import FleetMachine
from simulator.latencies import load_latencies
from simulator.loopback import SimulationError
from simulator.machine import MachineState, MachineTimes


class Clock:
    """Seconds that a test owns."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def machine(clock: Clock, family: str = "luxos") -> FleetMachine:
    return FleetMachine(7, Nameplate(), MachineTimes.of(load_latencies().family(family), 1.0), clock)


@given(
    st.integers(1, 5000),
    st.lists(st.sampled_from(sorted(KINDS)), min_size=1, unique=True),
    st.lists(st.floats(0.1, 1000), min_size=len(KINDS), max_size=len(KINDS)),
)
def test_a_mix_gives_exactly_as_many_machines_as_asked_for(
    machines: int, names: list[str], shares: list[float]
) -> None:
    pairs = list(zip(names, shares, strict=False))
    counts = parse_mix(",".join(f"{name}={share}" for name, share in pairs), machines)
    assert sum(count for _, count in counts) == machines
    assert [kind.family for kind, _ in counts] == [name for name, _ in pairs]
    whole = sum(share for _, share in pairs)
    for (_, count), (_, share) in zip(counts, pairs, strict=True):
        assert abs(count - machines * share / whole) <= 1


@pytest.mark.parametrize("mix", ["", "nothing=1", "luxos=0", "luxos=-1", "luxos=x", "luxos=1,luxos=2", "luxos=nan"])
def test_a_mix_that_means_nothing_is_refused(mix: str) -> None:
    with pytest.raises(ValueError, match="mix: saw"):
        parse_mix(mix, 10)


@pytest.mark.parametrize("machines", [0, -1, 65_537])
def test_a_number_of_machines_out_of_range_is_refused(machines: int) -> None:
    with pytest.raises(ValueError, match="machines: saw"):
        parse_mix("luxos=1", machines)


@pytest.mark.parametrize("first", ["10.0.0.1", "127.255.255.250", "::1", "x"])
def test_addresses_outside_the_loopback_network_are_refused(first: str) -> None:
    with pytest.raises(SimulationError):
        SimulatedFleet(parse_mix("luxos=1", 100), first_host=first)


def test_every_machine_has_an_address_a_serial_number_and_a_mac_of_its_own() -> None:
    fleet = SimulatedFleet(parse_mix("antminer-stock=1,luxos=1", 600), first_host="127.16.0.1")
    assert fleet.host_of(0) == "127.16.0.1"
    assert fleet.host_of(599) == "127.16.2.88"
    assert fleet.server_at("127.16.2.89") is None
    assert fleet.server_at("127.16.0.0") is None
    assert fleet.server_at("127.16.0.5") is fleet.server(4)
    assert len({m.nameplate.serial for m in fleet.machines}) == 600
    assert len({m.nameplate.mac for m in fleet.machines}) == 600
    assert fleet.server(0).description == "bmminer"
    assert fleet.server(599).description.startswith("LUXminer")
    assert [group["rpc"] for group in fleet.addresses()] == ["127.16.0.1-127.16.1.44:0", "127.16.1.45-127.16.2.88:0"]


def test_sleep_and_wake_follow_the_familys_delays() -> None:
    clock = Clock()
    body = machine(clock)
    assert (body.hashrate_ths(), body.state) == (95.0, MachineState.MINING)
    body.request_sleep()
    assert body.asleep()
    clock.now_s += 10
    assert (body.hashrate_ths(), body.power_w(), body.state) == (0.0, 30.0, MachineState.ASLEEP)
    body.request_wake()
    assert not body.asleep()
    clock.now_s += 30
    assert body.power_w() == 3250.0


def test_a_reboot_is_silence_and_then_an_uptime_that_begins_anew() -> None:
    clock = Clock()
    body = machine(clock)
    before_s = body.uptime_s()
    body.reboot()
    assert not body.powered()
    clock.now_s += 90
    assert body.powered()
    assert body.uptime_s() < before_s
    assert body.state in {MachineState.RAMPING, MachineState.MINING}


def test_a_machine_that_only_says_so_reads_as_asleep_and_draws_on() -> None:
    clock = Clock()
    body = machine(clock)
    body.mode_only = True
    body.request_sleep()
    clock.now_s += 600
    assert body.asleep()
    assert body.mode == Mode.SLEEP
    assert (body.hashrate_ths(), body.power_w()) == (95.0, 3250.0)


def test_without_a_pool_it_hashes_nothing_draws_on_and_says_that_the_pool_is_dead() -> None:
    fleet = SimulatedFleet(parse_mix("luxos=1", 2))
    fleet.fault("pool_lost", [1])
    lost = fleet.machines[1]
    assert (lost.hashrate_ths(), lost.power_w()) == (0.0, 2760.0)
    assert fleet.server(1).answer("pools", "")["POOLS"][0]["Status"] == "Dead"
    assert fleet.server(0).answer("pools", "")["POOLS"][0]["Status"] == "Alive"
    fleet.fault("pool_lost", [1], on=False)
    assert lost.hashrate_ths() == 120.0


@pytest.mark.parametrize(
    ("kind", "numbers", "seconds"),
    [("nonsense", [0], 5.0), ("silent", [2], 5.0), ("silent", [-1], 5.0), ("slow", [0], -1.0)],
)
def test_a_fault_that_cannot_be_is_refused_and_changes_nothing(kind: str, numbers: list[int], seconds: float) -> None:
    fleet = SimulatedFleet(parse_mix("luxos=1", 2))
    with pytest.raises(SimulationError):
        fleet.fault(kind, [0, *numbers], seconds=seconds)
    assert not fleet.server(0).faults.silent


def test_shares_are_picked_by_chance_that_the_seed_owns() -> None:
    fleets = [SimulatedFleet(parse_mix("luxos=1", 200), seed=seed) for seed in (3, 3, 4)]
    picked = [fleet.choose(0.1) for fleet in fleets]
    assert picked[0] == picked[1] != picked[2]
    assert len(picked[0]) == 20
