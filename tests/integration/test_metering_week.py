"""Seven simulated days with outages of every kind, for every point: each slot one record, every Wh in a register.

The truth is the plant's own counters, read at the instants at which the meters were read; the judge is the offline
verifier, which knows only what was recorded.
"""

from __future__ import annotations

import asyncio
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.unit.metering_kit import SLOT, START_S, MeteringKit, metering, metering_site
from wire.energy import primary_wh
from wire.rollup import Period, bridge_of, period_of, periods, slot_energy, total, virtual

IMPORT = "energy_import_wh"
DAY = 86_400 // SLOT
MOST_W = 100_000
"""More than the small site draws."""


class Trouble:
    """Random faults; each ends by itself."""

    def __init__(self, kit: MeteringKit, rng: random.Random) -> None:
        self.kit, self.rng = kit, rng
        self.ends: dict[tuple[str, str], int] = {}
        self.open_until: int | None = None
        self.down_until: int | None = None
        self.swapped: dict[str, int] = {}

    async def before(self, slot: int) -> None:
        """What happens in the slot that ends at boundary ``slot``."""
        kit, rng = self.kit, self.rng
        for (kind, target), until in list(self.ends.items()):
            if slot >= until:
                kit.faults.clear(kind, target)
                del self.ends[kind, target]
        for device in kit.units:
            roll = rng.random()
            kind = "dead" if roll < 0.02 else "exception" if roll < 0.03 else "nonsense" if roll < 0.035 else None
            if kind is not None and (kind, device) not in self.ends:
                kit.faults.set(kind, device, **({"code": 4} if kind == "exception" else {}))
                self.ends[kind, device] = slot + rng.randrange(1, 6)
            elif roll > 0.997:
                self.swapped[device] = self.swapped.get(device, 0) + 1
                serial = str(60_000_000 + rng.randrange(10**6))
                kit.faults.set("exchange", device, serial=serial, reading_wh=rng.randrange(10**8))
        inside = START_S + (slot - 1) * SLOT + rng.randrange(60, SLOT - 60)
        if self.open_until is None and rng.random() < 0.02:
            await kit.go_to(inside)
            await kit.operate("KM1", close=False)
            self.open_until = slot + rng.randrange(0, 12)
        elif self.open_until is not None and slot >= self.open_until:
            await kit.go_to(inside)
            await kit.operate("KM1", close=True)
            self.open_until = None
        if self.down_until is None and rng.random() < 0.01:
            await kit.shut()
            self.down_until = slot + rng.randrange(1, 5)


async def week(kit: MeteringKit, days: int, rng: random.Random) -> Trouble:
    """Live through it."""
    trouble = Trouble(kit, rng)
    await kit.close_slot(START_S)
    for slot in range(1, days * DAY + 1):
        if trouble.down_until is None:
            await trouble.before(slot)
        if trouble.down_until is not None:
            if slot < trouble.down_until:
                kit.clock.advance(START_S + slot * SLOT + 100 - kit.clock.now_ms() / 1000)
                kit.step()
                continue
            await kit.boot()
            trouble.down_until = None
        if kit.clock.now_ms() / 1000 <= START_S + slot * SLOT:
            await kit.close_slot(START_S + slot * SLOT)
    if trouble.down_until is not None:
        await kit.boot()
    for kind, target in list(trouble.ends):
        kit.faults.clear(kind, target)
    end = days * DAY + 1
    while kit.clock.now_ms() / 1000 > START_S + end * SLOT:
        end += 1
    if trouble.open_until is not None:
        await kit.operate("KM1", close=True)
    for slot in range(end, end + 3):
        await kit.close_slot(START_S + slot * SLOT)
    return trouble


def energies(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int, int]:
    """Slots of a stream, Σ of what is stated, and Σ of what the registers moved by under each reading's own map."""
    stated = spanned = 0
    maps: dict[str, Any] = {}

    def wh(bits: int) -> int:
        found = primary_wh(bits, maps[IMPORT])
        assert found is not None
        return math.floor(found)

    for record in records:
        if record["ty"] == "bind":
            maps = record["pts"]
        if record["ty"] == "interval":
            opening = record["bridge_reg"][IMPORT] if "bridge_wh" in record else record["reg"][IMPORT][0]
            spanned += wh(record["reg"][IMPORT][1]) - wh(opening)
            stated += record["wh"] + record.get("bridge_wh", 0)
    return [r for r in records if r["ty"] in {"interval", "gap"}], stated, spanned


async def judged(kit: MeteringKit, point: str, end: int, trouble: Trouble) -> None:
    records = await kit.records(f"mp:{point}")
    found, stated, spanned = energies(records)
    assert [r["t0"] for r in found] == list(range(START_S, end, SLOT)), "each slot is one record"
    assert stated == spanned, "what is stated is what the registers span"
    if not trouble.swapped.get("em-" + point[-1]):
        truth = kit.plant.registers[point].imported.reading - kit.began_wh[point]
        assert abs(stated - truth) <= MOST_W * 60 / 3600, "the registers of one meter miss nothing"
    walk = await kit.verified(point, START_S, end)
    assert walk.errors == []
    counts = walk.counts()
    assert set(counts) <= set("CZRM")
    assert counts["C"] == sum(r["ty"] == "interval" for r in found)
    assert walk.asked_totals.wh + walk.asked_totals.bridged_wh == stated
    # Central's view of the same: hours, days and the week agree to the Wh.
    slots = {r["t0"]: slot_energy(r["ty"], r) for r in found}
    bridges = [b for r in found if r["ty"] == "interval" and (b := bridge_of(r, SLOT)) is not None]
    whole = total(Period("all", START_S, end), SLOT, slots, bridges)
    assert whole.known_wh + whole.bridged_wh == stated
    first, last = period_of(START_S, "day").end_s, period_of(end - 1, "day").start_s
    for day in periods(first, last, "day"):
        of_day = total(day, SLOT, slots, bridges)
        hours = [total(hour, SLOT, slots) for hour in periods(day.start_s, day.end_s, "hour")]
        assert sum(h.known_wh for h in hours) == of_day.known_wh
        assert of_day.slots == 96


@pytest.mark.parametrize("seed", [2])
async def test_two_days_of_random_outages(tmp_path: Path, seed: int) -> None:
    async with metering(tmp_path, seed=seed) as kit:
        trouble = await week(kit, 2, random.Random(seed))
        end = kit.clock.now_ms() // 1000 // SLOT * SLOT
        for point in ("M0", "M1", "M2"):
            await judged(kit, point, end, trouble)


@pytest.mark.long
@pytest.mark.parametrize("seed", [3, 4, 5])
async def test_seven_days_of_random_outages(tmp_path: Path, seed: int) -> None:
    async with metering(tmp_path, seed=seed) as kit:
        trouble = await week(kit, 7, random.Random(seed))
        end = kit.clock.now_ms() // 1000 // SLOT * SLOT
        for point in ("M0", "M1", "M2"):
            await judged(kit, point, end, trouble)


async def test_a_section_breaker_in_the_middle_of_a_slot_moves_load_and_loses_nothing(tmp_path: Path) -> None:
    """Two incomers, a section breaker: the sum of both incomers is the site, whoever feeds which half."""
    site = metering_site(
        nodes=[
            {"id": "GRID", "type": "grid_connection", "permitted_kw": 250, "voltage_kv": 0.4},
            {"id": "GRID2", "type": "grid_connection", "permitted_kw": 250, "voltage_kv": 0.4},
            {"id": "QF0", "type": "switch", "role": "incomer", "fed_from": ["GRID"]},
            {"id": "QF9", "type": "switch", "role": "incomer", "fed_from": ["GRID2"]},
            {"id": "MAIN", "type": "bus", "fed_from": ["QF0"], "voltage_kv": 0.4},
            {"id": "MAIN2", "type": "bus", "fed_from": ["QF9"], "voltage_kv": 0.4},
            {"id": "QS", "type": "switch", "role": "section", "between": ["MAIN", "MAIN2"], "normal": "open"},
            {"id": "MINERS1", "type": "load", "kind": "mining", "rated_kw": 84, "fed_from": ["MAIN"]},
            {"id": "MINERS2", "type": "load", "kind": "mining", "rated_kw": 84, "fed_from": ["MAIN2"]},
            {"id": "FANS", "type": "load", "kind": "cooling", "rated_kw": 24, "fed_from": ["MAIN2"]},
        ],
        metering_points=[
            {"id": "I1", "device": "em-0", "node": "QF0", "role": "control", "owner": "x", "boundary": True},
            {"id": "I2", "device": "em-1", "node": "QF9", "role": "control", "owner": "x", "boundary": True},
            {"id": "T7", "device": "em-2", "node": "FANS", "role": "technical", "owner": "x"},
        ],
        virtual_points=[
            {"id": "NET", "formula": "+I1 +I2", "role": "control", "boundary": True},
            {"id": "OWN", "formula": "+I1 +I2 -T7", "role": "control"},
        ],
        measured_at={"net_import": "NET"},
        cooling_loops=[],
        devices__2__fed_from=None,
        devices__1__fed_from=None,
        devices__3__fed_from=None,
    )
    async with metering(tmp_path, site=site) as kit:
        for n in range(3):
            await kit.close_slot(START_S + n * SLOT)
        await kit.go_to(START_S + 2 * SLOT + 400)
        await kit.operate("QF0", close=False)
        await kit.operate("QS", close=True)
        for n in range(3, 6):
            await kit.close_slot(START_S + n * SLOT)
        streams = {p: await kit.records(f"mp:{p}") for p in ("I1", "I2", "T7")}
        virtuals = {v.id: v.terms() for v in kit.site.virtual_points}
        by_slot = {
            p: {r["t0"]: slot_energy(r["ty"], r) for r in records if r["ty"] != "bind"}
            for p, records in streams.items()
        }
        assert {len(s) for s in by_slot.values()} == {5}
        switched, after = START_S + 2 * SLOT, START_S + 3 * SLOT
        first = by_slot["I1"][START_S].import_wh or 0
        assert 0 < (by_slot["I1"][switched].import_wh or 0) < first, "part of the slot"
        assert by_slot["I1"][after].import_wh == 0
        for t in by_slot["I1"]:
            members = {p: slots[t] for p, slots in by_slot.items()}
            net, own = (virtual(virtuals[name], members) for name in ("NET", "OWN"))
            assert net.import_wh == (members["I1"].import_wh or 0) + (members["I2"].import_wh or 0)
            assert own.import_wh == (net.import_wh or 0) - (members["T7"].import_wh or 0)
        spans = {p: [r["reg"][IMPORT] for r in records if r["ty"] == "interval"] for p, records in streams.items()}
        for p, pairs in spans.items():
            assert all(a[1] == b[0] for a, b in pairwise(pairs))
            maps = streams[p][0]["pts"][IMPORT]
            ends = [primary_wh(bits, maps) for bits in (pairs[0][0], pairs[-1][1])]
            assert None not in ends
            moved = math.floor(ends[1] or 0) - math.floor(ends[0] or 0)
            assert sum(e.import_wh or 0 for e in by_slot[p].values()) == moved
        report = kit.closer.newest_slot()
        assert report is not None
        assert report["virtual"]["NET"]["import_wh"] == sum(report["points"][p]["import_wh"] for p in ("I1", "I2"))
        await asyncio.sleep(0)
