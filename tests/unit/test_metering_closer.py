"""The slot closer over real register images in simulated time; the offline verifier agrees with all of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from drivers.capabilities import Position, Reading, Sample
from simulator.registers import Value
from tests.unit.metering_kit import SLOT, START_S, MeteringKit, metering, metering_site
from wire.energy import primary_wh
from wire.quality import Quality
from wire.record_types import GAP_REASONS

IMPORT = "energy_import_wh"


def slots(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in records if r["ty"] in {"interval", "gap"}]


def energy(bind: dict[str, Any], bits: int) -> int:
    found = primary_wh(bits, bind["pts"][IMPORT])
    assert found is not None
    return math.floor(found)


async def through(kit: MeteringKit, first: int, last: int) -> None:
    """Close the slots up to boundaries ``first`` … ``last`` (numbers from the start)."""
    for n in range(first, last + 1):
        await kit.close_slot(START_S + n * SLOT)


async def test_a_quiet_hour_is_four_intervals_per_point(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await through(kit, 0, 4)
        for point in ("M0", "M1", "M2"):
            records = await kit.records(f"mp:{point}")
            assert [r["ty"] for r in records] == ["bind"] + ["interval"] * 4
            assert all(r["wh"] > 0 and r["q"] == [] for r in records[1:])
            walk = await kit.verified(point, START_S, START_S + 4 * SLOT)
            assert walk.errors == []
            assert walk.counts() == {"C": 4}


async def test_the_integral_of_power_stands_beside_the_registers(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await through(kit, 0, 3)
        found = slots(await kit.records("mp:M0"))[1:]
        for record in found:
            assert record["pi"]["n"] >= 3
            assert record["pi"]["gap_ms"] <= 301_000
            assert record["pi"]["wh"] == pytest.approx(record["wh"], rel=0.1)


async def test_a_register_that_stands_while_power_flows_is_flagged_and_its_number_kept(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await through(kit, 0, 1)
        kit.faults.set("frozen", "em-0")
        await through(kit, 2, 4)
        found = slots(await kit.records("mp:M0"))
        assert "frozen" not in found[0]["q"]
        for record in found[2:]:
            assert record["q"] == ["frozen"]
            assert record["wh"] == 0
        walk = await kit.verified("M0", START_S, START_S + 4 * SLOT)
        assert walk.errors == []


async def test_a_meter_behind_an_opened_switch_leaves_proven_darkness_and_priced_edges(tmp_path: Path) -> None:
    """Open in the middle of a slot, close in the middle of another: every Wh is in a register difference."""
    async with metering(tmp_path) as kit:
        await through(kit, 0, 2)
        await kit.go_to(START_S + 2 * SLOT + 400)
        await kit.operate("KM1", close=False)
        await through(kit, 3, 6)
        await kit.go_to(START_S + 6 * SLOT + 300)
        await kit.operate("KM1", close=True)
        await through(kit, 7, 9)
        records = await kit.records("mp:M1")
        found = slots(records)
        assert [(r["ty"], r.get("why"), r.get("sw")) for r in found] == [
            ("interval", None, None),
            ("interval", None, None),
            ("gap", "NO_POWER", "KM1"),
            ("gap", "DE_ENERGISED", "KM1"),
            ("gap", "DE_ENERGISED", "KM1"),
            ("gap", "DE_ENERGISED", "KM1"),
            ("gap", "NO_POWER", "KM1"),
            ("interval", None, None),
            ("interval", None, None),
        ]
        opened, closed, after = found[2], found[6], found[7]
        assert opened["e0"]["reg"][IMPORT] == found[1]["reg"][IMPORT][1], "the slot begins with the last boundary"
        assert opened["up"]["mp"] == "M0"
        assert opened["up"]["seen"] is True
        assert opened["part_wh"] > 0
        assert closed["e1"]["reg"][IMPORT] == after["reg"][IMPORT][0], "the slot ends with the next boundary"
        residual = energy(records[0], closed["e0"]["reg"][IMPORT]) - energy(records[0], opened["e1"]["reg"][IMPORT])
        assert 0 <= residual <= 2 * 14_000 * 1.2 / 3600 + 2, "at most what flowed between poll and switching"
        assert after["bridge_wh"] == opened["part_wh"] + residual + closed["part_wh"]
        assert all("e0" not in r and "part_wh" not in r for r in found[3:6])
        upstream = slots(await kit.records("mp:M0"))
        assert {r["ty"] for r in upstream} == {"interval"}
        walk = await kit.verified("M1", START_S, START_S + 9 * SLOT)
        assert walk.errors == []
        assert walk.asked_totals.wh + walk.asked_totals.bridged_wh == (
            energy(records[0], found[-1]["reg"][IMPORT][1]) - energy(records[0], found[0]["reg"][IMPORT][0])
        )


async def test_a_switch_that_opens_and_closes_within_a_slot_leaves_a_plain_interval(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await through(kit, 0, 1)
        await kit.go_to(START_S + SLOT + 200)
        await kit.operate("KM1", close=False)
        await kit.go_to(START_S + SLOT + 500)
        await kit.operate("KM1", close=True)
        await through(kit, 2, 3)
        found = slots(await kit.records("mp:M1"))
        assert [r["ty"] for r in found] == ["interval"] * 3
        assert found[1]["wh"] < found[0]["wh"]


async def test_no_drop_seen_from_above_is_no_proof_of_darkness(tmp_path: Path) -> None:
    """The contacts say open and the meter is dead, but the meter above shows the same power as before."""
    async with metering(tmp_path) as kit:
        await through(kit, 0, 1)
        kit.faults.set("welded", "KM1")
        kit.faults.set("aux_lies", "KM1", shows="open")
        kit.faults.set("dead", "em-1")
        await kit.go_to(START_S + SLOT + 100)
        state = kit.live.switches["KM1"]
        kit.live.put_switch("KM1", type(state)(kit_open(), state.at_ms, state.mono_ns))
        kit.closer.watch_supply()
        await through(kit, 2, 4)
        found = slots(await kit.records("mp:M1"))
        assert [r["why"] for r in found if r["ty"] == "gap"] == ["NO_POWER"] * 3
        assert found[1]["up"]["seen"] is False


def kit_open() -> Any:
    return Position.OPEN


async def test_a_restart_while_dark_keeps_the_proof_of_how_it_began(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await through(kit, 0, 1)
        await kit.go_to(START_S + SLOT + 100)
        await kit.operate("KM1", close=False)
        await through(kit, 2, 3)
        await kit.shut()
        await kit.go_to(START_S + 3 * SLOT + 200)
        await kit.boot()
        await through(kit, 4, 6)
        await kit.operate("KM1", close=True)
        await through(kit, 7, 8)
        found = slots(await kit.records("mp:M1"))
        assert [r.get("why") for r in found] == [
            None,
            "NO_POWER",
            "DE_ENERGISED",
            "NO_POWER",  # the agent was not there for the whole of it
            "DE_ENERGISED",
            "DE_ENERGISED",
            "NO_POWER",
            None,
        ]
        assert found[4]["up"]["seen"] is True
        walk = await kit.verified("M1", START_S, START_S + 8 * SLOT)
        assert walk.errors == []


async def test_another_meter_is_bound_anew_with_a_gap_in_between(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await through(kit, 0, 2)
        kit.faults.set("exchange", "em-2", serial="55555555", reading_wh=1_234_560)
        await through(kit, 3, 5)
        records = await kit.records("mp:M2")
        assert [(r["ty"], r.get("why")) for r in records] == [
            ("bind", None),
            ("interval", None),
            ("interval", None),
            ("gap", "SERIAL_CHANGED"),
            ("bind", None),
            ("interval", None),
            ("interval", None),
        ]
        assert records[4]["sn"] == "55555555"
        assert "bridge_wh" not in records[5]
        assert records[4]["open"]["reg"][IMPORT] == records[5]["reg"][IMPORT][0]
        walk = await kit.verified("M2", START_S, START_S + 5 * SLOT)
        assert walk.errors == []
        assert walk.counts() == {"C": 4, "M": 1}


async def test_the_gap_and_the_new_binding_are_one_transaction(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await through(kit, 0, 1)
        kit.faults.set("exchange", "em-2", serial="55555555", reading_wh=1000)
        await kit.close_slot(START_S + 2 * SLOT)
        await kit.shut()
        await kit.boot()
        assert kit.closer.states["M2"].sn == "55555555"
        await kit.close_slot(START_S + 3 * SLOT)
        walk = await kit.verified("M2", START_S, START_S + 3 * SLOT)
        assert walk.errors == []
        assert walk.counts() == {"C": 2, "M": 1}


async def test_a_counter_set_to_zero_is_a_gap_and_never_energy(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await through(kit, 0, 1)
        kit.faults.set("counter_reset", "em-2")
        await through(kit, 2, 3)
        found = slots(await kit.records("mp:M2"))
        assert [(r["ty"], r.get("why")) for r in found] == [
            ("interval", None),
            ("gap", "COUNTER_RESET"),
            ("interval", None),
        ]
        walk = await kit.verified("M2", START_S, START_S + 3 * SLOT)
        assert walk.errors == []


@pytest.mark.parametrize("outage", [False, True], ids=["within a slot", "within a gap"])
async def test_a_counter_that_runs_over_is_energy_where_its_width_is_known(tmp_path: Path, outage: bool) -> None:
    """Six digits of 10 Wh: it starts again at 10 MWh."""
    doc = {"ct": None, "register_digits": 6}
    site = metering_site(metering_points__2__passport=doc)
    span = 10_000_000

    def shown(device: str, values: dict[str, Value]) -> dict[str, Value]:
        if device != "em-2":
            return values
        return values | {IMPORT: float(values[IMPORT] or 0) % span}

    async with metering(tmp_path, site=site, shown=shown) as kit:
        registers = kit.plant.registers["M2"]
        registers.imported.opening = 9_996_000.0 - registers.imported.added
        await through(kit, 0, 0)
        before = registers.imported.reading
        if outage:
            await through(kit, 1, 1)
            kit.faults.set("dead", "em-2")
            await through(kit, 2, 2)
            kit.faults.clear("dead", "em-2")
        await through(kit, 3 if outage else 1, 5)
        kit.step()
        used = registers.imported.reading - before
        found = slots(await kit.records("mp:M2"))
        wrapped = [r for r in found if "rollover" in r.get("q", [])]
        assert len(wrapped) == 1
        assert ("bridge_wh" in wrapped[0]) is outage
        assert {r["ty"] for r in found} == ({"interval", "gap"} if outage else {"interval"})
        total = sum(r.get("wh", 0) + r.get("bridge_wh", 0) for r in found)
        assert abs(total - used) <= 14_000 * 1.1 / 3600 + 20
        walk = await kit.verified("M2", START_S, START_S + 5 * SLOT)
        assert walk.errors == []
        assert walk.asked_totals.wh + walk.asked_totals.bridged_wh == total


async def test_other_ratios_in_the_meter_are_a_gap_and_a_new_binding(tmp_path: Path) -> None:
    """Played at the closer's own door: the ratios are read after the registers, at every boundary."""
    async with metering(tmp_path) as kit:
        state = kit.closer.states["M0"]
        state.settings = ("ct_ratio", "vt_ratio")
        ratio = {"ct_ratio": 80.0, "vt_ratio": 1.0}
        plain = kit.link.read

        async def read(device: Any, points: Any, **more: Any) -> Sample:
            if tuple(points) == state.settings:
                readings = {name: Reading(value, Quality.GOOD) for name, value in ratio.items()}
                return Sample(device.id, kit.clock.now_ms(), kit.clock.mono_ns(), readings)
            return await plain(device, points, **more)

        kit.link.read = read  # type: ignore[method-assign]  # the played wire, for one device
        await through(kit, 0, 1)
        ratio["ct_ratio"] = 120.0
        await through(kit, 2, 3)
        records = await kit.records("mp:M0")
        assert [(r["ty"], r.get("why")) for r in records] == [
            ("bind", None),
            ("interval", None),
            ("gap", "RATIO_CHANGED"),
            ("bind", None),
            ("interval", None),
        ]
        assert [r["ct_read"] for r in records if r["ty"] == "bind"] == [{"num": 80, "den": 1}, {"num": 120, "den": 1}]
        assert "bridge_wh" not in records[-1]
        await kit.shut()
        await kit.boot()
        assert kit.closer.states["M0"].ratios == "ct 120 vt 1"


async def test_ratios_that_the_agent_applies_are_in_the_decode_map(tmp_path: Path) -> None:
    passport = {"ct": {"num": 400, "den": 5}, "ratio_applied_in": "agent", "nominal_kw": 220}
    site = metering_site(metering_points__0__passport=passport)
    async with metering(tmp_path, site=site) as kit:
        await through(kit, 0, 0)
        before = kit.plant.registers["M0"].imported.reading
        await through(kit, 1, 2)
        used = kit.plant.registers["M0"].imported.reading - before
        found = slots(await kit.records("mp:M0"))
        assert sum(r["wh"] for r in found) == pytest.approx(used, rel=0.02)
        assert found[-1]["pi"]["wh"] == pytest.approx(found[-1]["wh"], rel=0.1)
        shown = kit.live.power("M0").value_w
        assert shown == pytest.approx(kit.plant.registers["M0"].power_w, rel=0.05), "power is primary too"


async def test_a_meters_clock_is_told_when_it_goes_wrong_and_never_set(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        state = kit.closer.states["M0"]
        state.settings = ("clock",)
        away_ms = 0
        plain = kit.link.read

        async def read(device: Any, points: Any, **more: Any) -> Sample:
            if tuple(points) != state.settings:
                return await plain(device, points, **more)
            at = kit.clock.now_ms()
            return Sample(device.id, at, kit.clock.mono_ns(), {"clock": Reading(float(at + away_ms), Quality.GOOD)})

        kit.link.read = read  # type: ignore[method-assign]  # the played wire, for one device
        for n, away_ms in enumerate([0, 0, 7000, 3_600_000, 3_600_100, 100]):  # noqa: B007 - read by the wire
            await kit.close_slot(START_S + n * SLOT)
        assert [r["mto"] for r in slots(await kit.records("mp:M0"))] == [0, 7000, 3_600_000, 3_600_100, 100]
        events = [r for r in await kit.records("site") if r.get("ev") == "meter_clock"]
        assert [(e["was"], e["now"]) for e in events] == [("good", "warn"), ("warn", "zone"), ("zone", "good")]
        assert [r["mto"] for r in slots(await kit.records("mp:M2"))] == [None] * 5


@pytest.mark.parametrize("outage", [False, True], ids=["meter answers", "meter silent at first"])
async def test_a_renewed_certificate_is_recorded_without_a_gap(tmp_path: Path, outage: bool) -> None:
    papers = {"expires": "2026-12-01", "nominal_kw": 220.5, "seals": ["1", {"no": "2", "date": "2026-01-01"}]}
    async with metering(tmp_path, site=metering_site(metering_points__2__passport=papers)) as kit:
        await through(kit, 0, 2)
        await kit.shut()
        kit.site = metering_site(metering_points__2__passport=papers | {"expires": "2030-12-01"})
        await kit.boot()
        if outage:
            kit.faults.set("dead", "em-2")
            await through(kit, 3, 3)
            kit.faults.clear("dead", "em-2")
        await through(kit, 4 if outage else 3, 6)
        records = await kit.records("mp:M2")
        binds = [r for r in records if r["ty"] == "bind"]
        assert [b["passport"]["expires"] for b in binds] == ["2026-12-01", "2030-12-01"]
        assert binds[0]["passport"]["nominal_kw"] == "220.5"
        assert binds[0]["seals"] == ["1", "2"]
        gaps = [r["why"] for r in records if r["ty"] == "gap"]
        assert gaps == (["TIMEOUT"] * 2 if outage else [])
        walk = await kit.verified("M2", START_S, START_S + 6 * SLOT)
        assert walk.errors == []
        assert walk.counts() == ({"C": 4, "R": 2} if outage else {"C": 6})


async def test_a_silent_meter_is_a_gap_that_the_next_reading_bridges(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await through(kit, 0, 1)
        kit.faults.set("dead", "em-0")
        await through(kit, 2, 3)
        kit.faults.clear("dead", "em-0")
        await through(kit, 4, 5)
        found = slots(await kit.records("mp:M0"))
        assert [(r["ty"], r.get("why")) for r in found] == [
            ("interval", None),
            ("gap", "TIMEOUT"),
            ("gap", "TIMEOUT"),
            ("gap", "TIMEOUT"),
            ("interval", None),
        ]
        assert all("sw" not in r for r in found)
        assert {r["why"] for r in found if r["ty"] == "gap"} <= GAP_REASONS
        walk = await kit.verified("M0", START_S, START_S + 5 * SLOT)
        assert walk.errors == []
        assert walk.counts() == {"C": 2, "R": 3}
