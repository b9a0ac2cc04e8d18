"""The demo's generated site files and register: what they must hold whatever their size."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.addresses import machines
from config.check import check
from config.nodes import Load
from config.site import Site
from grid.registrar.register import build
from simulator.latencies import load_latencies
from simulator.plant import Plant
from tizgin.commands._agent_check import ProfileCatalogue
from tizgin.demo.plan import OUTPUTS, Plan, plan_site, shares
from tizgin.demo.ports import Ports
from tizgin.demo.register import GRID_COMPANY, SYSTEM_OPERATOR, Enrolled, build_register, central_settings, engineer_of
from tizgin.demo.sites import PDU_OUTPUT, SitePorts, allocate, build_site
from wire.keys import SigningKey

LATENCIES = load_latencies()
KEY = SigningKey.generate().public.text


def any_ports(seed: int = 1) -> Ports:
    return Ports(random.Random(seed), free=lambda _port: True)


def site_of(machine_count: int, number: int = 1) -> tuple[Plan, Site, dict[str, Any]]:
    plan = plan_site(number, machine_count, LATENCIES)
    data = build_site(plan, allocate(any_ports().block, plan), broker_port=18883, registrar_key=KEY)
    return plan, Site.model_validate(data), data


@pytest.mark.parametrize("machine_count", [4, 5, 7, 50, 100, 250, 1000])
def test_every_size_passes_the_check_without_errors_and_all_outputs_are_usable(machine_count: int) -> None:
    _, site, _ = site_of(machine_count)
    result = check(site, profiles=ProfileCatalogue())
    assert [str(problem) for problem in result.errors] == []
    usable = {output.id: output for output in result.outputs if output.usable}
    assert set(usable) == {*OUTPUTS, PDU_OUTPUT}
    assert [usable[name].proved_by for name in OUTPUTS] == ["M11", "M12", "M13", "M14"]
    assert result.balance is not None
    assert (result.balance.possible, result.balance.without_data) == (True, ())
    assert (result.balance.main, result.balance.between) == (("M1", "M2"), ("T1", "T2"))


@pytest.mark.parametrize("machine_count", [4, 100, 1000])
def test_a_stop_needs_some_boards_to_open_and_not_all(machine_count: int) -> None:
    """The reservation lies between what sleep leaves and what is left with every board open, in the plant itself."""
    plan, site, _ = site_of(machine_count)
    plant = Plant(
        site, rng=random.Random(1), now_s=0.0, time_scale=1000.0, latencies=LATENCIES, wall_ms=lambda: 1_800_000_000_000
    )

    def net_kw() -> float:
        return (plant.node_power_w["QF1"] + plant.node_power_w["QF2"]) / 1000

    def settle(now_s: float) -> None:
        for step in range(30):
            plant.step(now_s + step)

    full = net_kw()
    for machine in plant.machines.values():
        machine.request_sleep(plant.now_s)
    settle(1.0)
    asleep = net_kw()
    for output in OUTPUTS:
        plant.operate(output, False)
    settle(40.0)
    opened = net_kw()
    assert opened * 1.005 < plan.emergency_kw < asleep * 0.98 < full < plan.contracted_kw


def test_cooling_and_the_protected_load_stay_live_whatever_opens() -> None:
    _, site, _ = site_of(100)
    dark = {node for output in check(site, profiles=ProfileCatalogue()).outputs for node in output.dark}
    kept = {n.id for n in site.nodes if isinstance(n, Load) and n.kind in {"cooling", "protected"}}
    assert kept == {"FANS", "GUARD"}
    assert not kept & dark
    assert not {"UPS", "COOLING"} & dark


def test_meters_of_metering_points_are_on_the_ups_and_one_technical_meter_is_not() -> None:
    _, site, _ = site_of(100)
    points = {point.device for point in site.metering_points}
    meters = {device.id: device for device in site.devices if device.kind == "meter"}
    assert {meters[name].fed_from for name in points} == {"UPS"}
    assert {name for name in meters if name not in points} == {"em-board1"}
    assert meters["em-board1"].fed_from == "BOARD1"
    assert len({meters[name].profile for name in points}) >= 3


def test_half_of_the_machines_are_of_each_family_and_every_machine_has_an_address_of_its_own() -> None:
    _, site, _ = site_of(101)
    counts: dict[str, int] = {}
    addresses: list[tuple[str, int]] = []
    for group in site.miners:
        found = machines(group)
        counts[group.family] = counts.get(group.family, 0) + len(found)
        addresses += [(m.rpc_host, m.rpc_port) for m in found]
        addresses += [(m.http_host, m.http_port) for m in found if m.http_host and m.http_port]
    assert sum(counts.values()) == 101
    assert abs(counts["luxos"] - counts["antminer-stock"]) <= 1
    assert len(set(addresses)) == len(addresses)


@given(total=st.integers(0, 5000), parts=st.integers(1, 40))
def test_shares_add_up_and_differ_by_one_at_most(total: int, parts: int) -> None:
    found = shares(total, parts)
    assert sum(found) == total
    assert max(found) - min(found) <= 1


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_port_blocks_never_overlap_and_avoid_what_is_taken(seed: int, sizes: list[int]) -> None:
    taken = set(range(12_000, 32_000, 97))
    ports = Ports(random.Random(seed), free=lambda port: port not in taken)
    blocks = [(ports.block(size), size) for size in sizes]
    given_out = [port for first, size in blocks for port in range(first, first + size)]
    assert len(set(given_out)) == len(given_out)
    assert not taken & set(given_out)


def test_the_register_is_accepted_and_gives_each_person_what_the_demo_needs() -> None:
    plans = [plan_site(number, 40, LATENCIES) for number in (1, 2)]
    ports = SitePorts(1, 2, 3, 4, 5, (6, 7, 8, 9), (0, 10, 0, 11))
    sites = {p.id: build_site(p, ports, broker_port=1, registrar_key=KEY) for p in plans}
    persons = [SYSTEM_OPERATOR, GRID_COMPANY, *(engineer_of(p.id) for p in plans)]
    keys = {person: SigningKey.generate().public.text for person in persons}
    enrolled = {
        p.id: Enrolled("e1-00c0ffee", SigningKey.generate().public.text, SigningKey.generate().public.text)
        for p in plans
    }
    now = datetime.now(UTC)
    document = build(
        build_register(plans, sites, enrolled, keys, now=now), now_ms=round(now.timestamp() * 1000), source="register"
    )
    assert {issuer.person for issuer in document.issuers} == set(persons)
    for plan in plans:
        entry = document.site(plan.id)
        assert entry is not None
        assert (entry.slot_s, entry.simulation) == (10, True)
        assert entry.emergency_w == round(plan.emergency_kw * 1000)
        assert {p.id for p in entry.points} == {"M1", "M2", "M11", "M12", "M13", "M14", "M3", "M4", "M5"}
        assert next((p.ct_num, p.ct_den, p.vt_num) for p in entry.points if p.id == "M1") == (100, 5, 10_000)
        chief = next(i for i in document.issuers if i.person == engineer_of(plan.id))
        assert chief.sites == (plan.id,)
        assert set(chief.rights) == {"mode", "commission"}
    alone = {issuer.person: issuer.solo_w for issuer in document.issuers}
    assert alone[SYSTEM_OPERATOR] >= 2 * max(p.contracted_kw for p in plans) * 1000
    assert {alone[engineer_of(p.id)] for p in plans} == {0}


def test_central_knows_every_site() -> None:
    from config.central import Central

    plans = [plan_site(number, 40, LATENCIES) for number in (1, 2, 3)]
    settings_ = Central.model_validate(central_settings(plans, port=0, broker_port=18883, registrar_key=KEY))
    assert [site.id for site in settings_.sites] == ["kz-demo-01", "kz-demo-02", "kz-demo-03"]
