"""САОН inputs, movements by others and the safe state of modules, on the agent's bench and a simulated site."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import simulator
from agent.acquisition import switching
from agent.acquisition.bench import Bench, build
from agent.acquisition.switching import SaonInput, kept_by, saon_inputs
from agent.clock import SystemClock
from agent.errors import AgentError
from agent.live import LiveState
from config.check import check
from config.nodes import SaonStage
from config.site import Site
from drivers.capabilities import Position, WriteStatus
from drivers.profiles.loader import load_profile
from drivers.profiles.model import RelayProfile
from simulator.site import SimulatedSite
from tizgin.commands._agent_check import ProfileCatalogue

SITE_FILE = Path(simulator.__file__).parent / "data" / "two-incomers.yaml"
RAW: dict[str, Any] = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))


def site_with(change: Callable[[dict[str, Any]], None] = lambda _: None) -> Site:
    """The simulated site without machines, meters and PDU: what is left is switches and modules."""
    doc: dict[str, Any] = yaml.safe_load(yaml.safe_dump({**RAW, "miners": []}))
    doc["nodes"] = [n for n in doc["nodes"] if n["id"] not in {"OUT1", "RACK"}]
    doc["devices"] = [d for d in doc["devices"] if d["kind"] != "pdu"]
    doc["links"] = [link for link in doc["links"] if link["id"] != "pdus"]
    change(doc)
    return Site.model_validate(doc)


def node(doc: dict[str, Any], node_id: str) -> dict[str, Any]:
    return next(n for n in doc["nodes"] if n["id"] == node_id)


def device(doc: dict[str, Any], device_id: str) -> dict[str, Any]:
    return next(d for d in doc["devices"] if d["id"] == device_id)


@asynccontextmanager
async def running(
    site: Site, prepare: Callable[[Bench], None] = lambda _: None
) -> AsyncIterator[tuple[SimulatedSite, Bench]]:
    plant = SimulatedSite(site, seed=3, step_s=0.02, ephemeral=True)
    await plant.start()
    at = {link.id: f"modbus://{host}:{port}" for link in site.links for host, port in (plant.addresses[link.id],)}
    real = site.model_copy(update={"links": tuple(x.model_copy(update={"url": at[x.id]}) for x in site.links)})
    clock = SystemClock()
    bench = build(real, LiveState(real, clock), clock, base=Path(), snmp=None)
    prepare(bench)
    workers = asyncio.create_task(run(bench))
    try:
        yield plant, bench
    finally:
        workers.cancel()
        await asyncio.wait({workers})
        await plant.stop()


async def run(bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        bench.start(group, lambda: False)


async def until(condition: Callable[[], bool], what: str, limit_s: float = 20.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {limit_s} s: {what}"
        await asyncio.sleep(0.01)


def latched(doc: dict[str, Any]) -> None:
    node(doc, "QF6")["saon"][0]["operated_by"] = "latched"


# -- САОН ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["counter", "latched"])
async def test_a_contact_of_80_ms_is_recorded_where_it_is_counted_or_latched(kept: str) -> None:
    told: list[tuple[str, int, bool]] = []
    async with running(site_with(latched if kept == "latched" else lambda _: None)) as (plant, bench):
        bench.on_saon = lambda *seen: told.append(seen)
        await until(lambda: bench.saon == {("QF6", 1): False}, "the input is read")
        plant.faults.set("saon", "QF6", contact_s=0.08)
        await until(lambda: bool(told), "the operation is seen")
        assert told == [("QF6", 1, True)]
        assert bench.saon == {("QF6", 1): True}
        if kept == "latched":
            plant.faults.set("saon_reset", "QF6")
            await until(lambda: len(told) == 2, "a person resets the relay")
            assert told[1] == ("QF6", 1, False)


def test_the_same_contact_on_a_plain_input_is_refused_by_the_check_and_by_the_agent() -> None:
    def plain(doc: dict[str, Any]) -> None:
        device(doc, "io-2")["profile"] = "moxa-iologik-e1213"  # counts nothing

    site = site_with(plain)
    seen = [str(p) for p in check(site, profiles=ProfileCatalogue()).errors]
    assert any("which relay profile only shows as it is now" in text for text in seen), seen
    with pytest.raises(AgentError, match=r"switch QF6, САОН stage 1: di_6 of moxa-iologik-e1213 is not counted"):
        build(site, LiveState(site, SystemClock()), SystemClock(), base=Path(), snmp=None)


@pytest.mark.parametrize(
    ("profile", "operated_by", "kept"),
    [
        ("moxa-iologik-e1214", None, "counter"),
        ("wirenboard-wb-mr", None, "counter"),
        ("moxa-iologik-e1214", "latched", "latched"),
        ("moxa-iologik-e1213", "latched", "latched"),  # a latching relay stands before the input
        ("moxa-iologik-e1213", None, "polled"),
        ("moxa-iologik-e1213", "counter", "not counted"),
        ("moxa-iologik-e1214", "timestamped", "timestamped"),
        ("moxa-iologik-e1214", "polled", "polled"),
    ],
)
def test_how_an_operation_is_kept_follows_the_file_and_the_module(
    profile: str, operated_by: str | None, kept: str
) -> None:
    found = load_profile(profile)
    assert isinstance(found, RelayProfile)
    wire = {"device": "io", "input": "di_1"}
    stage = SaonStage.model_validate({"stage": 1, "operated": wire, "operated_by": operated_by})
    if kept in {"counter", "latched"}:
        assert kept_by("F1", stage, found) == kept
    else:
        with pytest.raises(ValueError, match=kept):
            kept_by("F1", stage, found)


async def test_an_operation_while_the_agent_was_away_is_told_by_the_count_it_kept() -> None:
    counts: list[tuple[str, int, int]] = []
    told: list[tuple[str, int, bool]] = []

    def prepare(bench: Bench) -> None:
        bench.saon_counts[("QF6", 1)] = 4
        bench.on_saon_count = lambda *seen: counts.append(seen)
        bench.on_saon = lambda *seen: told.append(seen)

    async with running(site_with(), prepare) as (plant, bench):
        plant.plant.wiring.saon_counts[("io-2", "di_6")] = 5
        await until(lambda: bool(told), "the risen count is seen")
        assert told == [("QF6", 1, True)]
        assert counts[-1] == ("QF6", 1, 5)
        plant.faults.set("saon", "QF6")
        await until(lambda: len(told) == 2, "and each operation after it")
        assert bench.saon_counts == {("QF6", 1): 6}


@pytest.mark.parametrize(
    ("before", "now", "operated"),
    [(None, 0, False), (None, 9, False), (4, 4, False), (4, 5, True), (4, 0, False), (4, 1, True), (65_535, 1, True)],
)
def test_a_count_that_rose_or_began_anew_and_rose_is_an_operation(before: int | None, now: int, operated: bool) -> None:
    assert switching.rose(before, now) is operated


async def test_a_stopped_counter_or_a_dead_module_makes_the_stage_unknown_and_no_operation() -> None:
    told: list[object] = []
    async with running(site_with()) as (plant, bench):
        bench.on_saon = lambda *seen: told.append(seen)
        await until(lambda: bench.saon == {("QF6", 1): False}, "the input is read")
        plant.faults.set("exception", "io-2", code=4)
        await until(lambda: bench.saon == {("QF6", 1): None}, "it cannot be read")
        plant.faults.clear("exception", "io-2")
        await until(lambda: bench.saon == {("QF6", 1): False}, "it is read again")
        assert told == []


def test_saon_has_nothing_that_could_be_commanded() -> None:
    """By construction: no field that names an output, no driver in what the agent keeps of it."""
    assert {f.name for f in dataclasses.fields(SaonInput)} == {
        "feeder", "stage", "device", "input", "inverted", "kept",
    }  # fmt: skip
    assert set(SaonStage.model_fields) == {"stage", "state", "operated", "operated_by"}
    site = site_with()
    bench = build(site, LiveState(site, SystemClock()), SystemClock(), base=Path(), snmp=None)
    (found,) = saon_inputs(site, bench.relays)
    assert not [name for name, value in inspect.getmembers(found) if callable(value) and not name.startswith("_")]
    assert all(isinstance(getattr(found, f.name), str | int | bool) for f in dataclasses.fields(found))
    with pytest.raises(Exception, match="Extra inputs"):
        SaonStage.model_validate({"stage": 1, "output": "relay_1"})


# -- movements -------------------------------------------------------------------------------------------------------


async def test_a_switch_that_somebody_else_moves_is_told_and_our_own_movement_is_not() -> None:
    moved: list[tuple[str, str, str]] = []
    async with running(site_with()) as (plant, bench):
        bench.on_foreign_move = lambda *seen: moved.append(seen)
        await until(lambda: all(s in bench.live.switches for s in ("KM1", "QF5")), "switches are read")
        assert (await bench.switches["KM1"].open()).status is WriteStatus.ACKNOWLEDGED
        await until(lambda: bench.live.switches["KM1"].position is Position.OPEN, "our own opening")
        plant.faults.set("trip", "QF5")
        await until(lambda: bool(moved), "protection opens it")
        assert moved == [("QF5", "closed", "open")]
        plant.faults.set("write", "io-1", output="relay_1", level=True)
        await until(lambda: len(moved) == 2, "another master closes it")
        assert moved[1] == ("KM1", "open", "closed")


async def test_automatic_reclosing_after_our_own_opening_is_somebody_elses_movement() -> None:
    moved: list[tuple[str, str, str]] = []
    async with running(site_with()) as (plant, bench):
        bench.on_foreign_move = lambda *seen: moved.append(seen)
        plant.faults.set("reclose", "QF5", after_s=1.5, times=1)
        await until(lambda: "QF5" in bench.live.switches, "it is read")
        assert (await bench.switches["QF5"].open()).status is WriteStatus.ACKNOWLEDGED
        await until(lambda: bool(moved), "it closes again")
        assert moved == [("QF5", "open", "closed")]


# -- safe state ------------------------------------------------------------------------------------------------------


def wiren_board(doc: dict[str, Any]) -> None:
    """KM1 on a Wiren Board module of its own, whose settings can be read back."""
    doc["devices"].append({**device(doc, "io-1"), "id": "io-9", "unit": 9, "profile": "wirenboard-wb-mr"})
    node(doc, "KM1").update(
        control={"device": "io-9", "output": "relay_1"},
        position={"open": {"device": "io-9", "input": "di_1"}, "closed": {"device": "io-9", "input": "di_2"}},
        readiness={"service_position": [{"device": "io-9", "input": "di_3"}, {"device": "io-9", "input": "di_4"}]},
    )


async def test_a_module_with_wrong_settings_is_named_as_unsafe_and_the_others_are_not() -> None:
    told: list[tuple[str, str | None]] = []
    async with running(site_with(wiren_board)) as (plant, bench):
        bench.on_settings = lambda *seen: told.append(seen)
        assert bench.why_unsafe("KM1") == "settings not read yet"
        await until(lambda: bench.why_unsafe("KM1") is None, "the settings are read")
        plant.faults.set("setting", "io-9", name="power_on", value=2)
        await bench.relays["io-9"].read_settings()
        why = bench.why_unsafe("KM1")
        assert why is not None
        assert why.startswith("io-9: power_on: seen 2, expected 0")
        await until(lambda: bench.why_unsafe("QF5") is None, "the status of the other module is read")
        assert bench.why_unsafe("FANS") == "FANS is no output"
        assert bench.why_unsafe("QF3") == "QF3 is no output"
        plant.faults.set("setting", "io-1", name="watchdog_status", value=1)
        await bench.relays["io-1"].read_settings()
        assert "the communication watchdog has acted" in str(bench.why_unsafe("QF5"))


async def test_readiness_points_come_from_all_their_inputs() -> None:
    async with running(site_with(wiren_board)) as (plant, bench):
        await until(lambda: "KM1" in bench.live.switches, "it is read")
        assert bench.live.switches["KM1"].service_position is True
        plant.faults.set("withdrawn", "KM1")
        await until(lambda: bench.live.switches["KM1"].service_position is False, "the truck is out")


def commanded_breaker(doc: dict[str, Any]) -> None:
    """QF5 as a breaker with a command interface: its own electronics time the impulses of its coils."""
    doc["devices"].append({**device(doc, "io-1"), "id": "cb-5", "unit": 5, "profile": "schneider-micrologic-active"})
    node(doc, "QF5").update(control={"device": "cb-5", "output": "open", "close_output": "close"})


async def test_a_breaker_on_a_command_interface_opens_and_its_contacts_prove_it() -> None:
    site = site_with(commanded_breaker)
    problems = [str(p) for p in check(site, profiles=ProfileCatalogue()).errors if "QF5" in str(p)]
    assert problems == []
    async with running(site) as (plant, bench):
        breaker = bench.switches["QF5"]
        assert (await breaker.read()).position is Position.CLOSED
        outcome = await breaker.open()
        assert (outcome.status, outcome.detail) == (WriteStatus.ACKNOWLEDGED, "command 904: reported as done")
        await until(lambda: not plant.plant.switches["QF5"].closed, "it opens")
        await until(lambda: bench.live.switches["QF5"].position is Position.OPEN, "its contacts say so")
        assert bench.why_unsafe("QF5") is None, "a breaker shows no settings: commissioning proves it"
        plant.plant.switches["QF5"]._spring_s = float("-inf")
        assert (await breaker.close()).status is WriteStatus.ACKNOWLEDGED
        await until(lambda: bench.live.switches["QF5"].position is Position.CLOSED, "and close again")


def counted_trips(doc: dict[str, Any]) -> None:
    node(doc, "KM1")["readiness"] = {"trips_total": {"device": "io-2", "input": "di_5"}}
    node(doc, "QF6").pop("readiness")


async def test_openings_of_a_switch_are_counted_by_the_module() -> None:
    async with running(site_with(counted_trips)) as (plant, bench):
        await until(lambda: "KM1" in bench.live.switches, "it is read")
        assert bench.live.switches["KM1"].trips_total == 0
        plant.faults.set("write", "io-1", output="relay_1", level=False)
        await until(lambda: bench.live.switches["KM1"].trips_total == 1, "the opening is counted")


# -- a process that dies in the middle of a pulse --------------------------------------------------------------------

PULSE_S = 1.5
ONE_PULSE = """
import asyncio, sys
from drivers.modbus.link import ModbusLink
from drivers.modbus.relay import InputRef, RelayDevice, RelaySwitch
from drivers.profiles.loader import load_profile

async def main():
    link = ModbusLink(sys.argv[1], name="io")
    worker = asyncio.create_task(link.run())
    relay = RelayDevice("io-1", int(sys.argv[2]), load_profile(sys.argv[3]), link)
    contacts = InputRef(relay, "di_3"), InputRef(relay, "di_4")
    await RelaySwitch(relay, "relay_2", "shunt_trip", *contacts, pulse_ms=int(sys.argv[4])).open()
    await asyncio.sleep(60)

asyncio.run(main())
"""


def long_pulse(doc: dict[str, Any]) -> None:
    node(doc, "QF5")["control"]["pulse_ms"] = round(1000 * PULSE_S)


async def test_a_process_killed_within_a_pulse_leaves_no_coil_energised_and_the_position_says_what_became_of_it() -> (
    None
):
    async with running(site_with(long_pulse)) as (plant, bench):
        module = plant.plant.relays["io-1"]
        unit = next(d for d in bench.site.devices if d.id == "io-1")
        url = next(link.url for link in bench.site.links if link.id == unit.link)
        told = [url, str(unit.unit), str(unit.profile), str(round(1000 * PULSE_S))]
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", ONE_PULSE, *told)
        try:
            await until(lambda: "relay_2" in module.pulses, "the pulse begins")
            began_s = time.monotonic()
            child.kill()
            await child.wait()
            assert "relay_2" in module.pulses, "it died within the pulse"
            await until(lambda: "relay_2" not in module.pulses, "the module ends it by itself", limit_s=PULSE_S + 1.0)
            assert not module.outputs["relay_2"]
            assert time.monotonic() - began_s <= PULSE_S + 1.0
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        # What the next process reads before anything else; where it is open, nothing is written again.
        assert (await bench.switches["QF5"].read()).position is Position.OPEN
        assert not plant.plant.switches["QF5"].closed
        assert module.pulses == {}
