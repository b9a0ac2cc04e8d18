"""Tampering at a meter, from its registers to the verdict: agent's records → central's store → V17 and V23.

The meters are register images that the agent's own closer reads; only the wire between is played. The verifier reads
the same records.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.ledger import Txn
from central.store import evidence
from central.store.database import Database
from central.vee.daily import judged
from central.vee.judge import Verdict
from tests.unit.metering_kit import SLOT, START_S, MeteringKit, metering, metering_site
from wire.keys import SigningKey
from wire.record_types import PhaseValues
from wire.records import parse_line
from wire.registry import Epoch, RegisteredSite

PROFILE = Path(__file__).parents[2] / "simulator" / "data" / "simulated_meter.yaml"
POINT, METER = "M2", "em-2"


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[MeteringKit]:
    async with metering(tmp_path, site=metering_site(devices__3__profile=str(PROFILE))) as made:
        await made.close_slot(START_S)
        yield made


async def until(kit: MeteringKit, last: int) -> None:
    """Close the slots up to boundary ``last``."""
    done = kit.clock.now_ms() // 1000
    for t in range(START_S + ((done - START_S) // SLOT + 1) * SLOT, START_S + last * SLOT + 1, SLOT):
        await kit.close_slot(t)


async def verdict(kit: MeteringKit, tmp_path: Path, slots: int) -> Verdict:
    """What central holds against the site, from the lines that the agent signed."""
    lines = [
        done.line.encode() for stream in (f"mp:{POINT}", "site") for done in await kit.ledger.lines(stream, 0, 999)
    ]
    epoch = str(parse_line(lines[0])[1]["log"]).rsplit("/", 1)[1]
    name = kit.site.site.id
    keys = (Epoch(epoch=epoch, k_rec=kit.key.public.text, k_log=SigningKey.generate().public.text),)
    entry = RegisteredSite(id=name, zone="north", contracted_w=1_000_000, emergency_w=1, slot_s=SLOT, epochs=keys)
    items = []
    for line in lines:
        record, doc = parse_line(line)
        items.append(evidence.Incoming(name, epoch, line, record, doc, record.verified_by(kit.key.public)))
    database = Database.open(f"sqlite:///{tmp_path / 'central.db'}")
    with database.engine.begin() as connection:
        evidence.store(connection, items, kit.clock.now_ms())
        _, found = judged(connection, entry, START_S, START_S + slots * SLOT)
    database.close()
    return found


def told(found: Verdict) -> list[tuple[str, str, str, int]]:
    """(rule, severity, text, slots from the start) of V17 and V23, by time."""
    return [(f.rule, f.severity, f.text, (f.t0 - START_S) // SLOT) for f in found.findings if f.rule in {"V17", "V23"}]


async def intervals(kit: MeteringKit) -> list[dict[str, Any]]:
    return [r for r in await kit.records(f"mp:{POINT}") if r["ty"] == "interval"]


async def test_an_honest_meter_is_judged_and_nothing_is_held_against_it(kit: MeteringKit, tmp_path: Path) -> None:
    await until(kit, 6)
    found = await verdict(kit, tmp_path, 6)
    assert (told(found), found.judged["V17"], found.judged["V23"]) == ([], 1, 1)
    for record in await intervals(kit):
        values: PhaseValues = record["ph"]
        assert values["n"] >= 3
        assert (values["iu"], values["neg"]) == ([0, 0, 0], [0, 0, 0])
        assert all(mv is not None and 225_000 < mv < 240_000 for mv in values["u"])
        assert sum(w or 0 for w in values["p"]) * SLOT / 3600 == pytest.approx(record["wh"], rel=0.1)
        assert set(record["ev"]) == {"power_off", "clock_set", "programmed", "cover_open", "phase_loss", "reset"}


async def test_tampering_at_the_meter_is_told_by_the_rule_it_breaks(kit: MeteringKit, tmp_path: Path) -> None:
    await until(kit, 4)
    kit.faults.set("phase_lost", METER, phase=2)
    await until(kit, 8)
    kit.faults.clear("phase_lost", METER)
    kit.faults.set("ct_reversed", METER, phase=3)
    await until(kit, 12)
    kit.faults.clear("ct_reversed", METER)
    await until(kit, 13)
    kit.faults.set("cover_opened", METER)
    await until(kit, 14)
    kit.faults.set("clock_set", METER, seconds=-7200)
    await until(kit, 15)

    records = await intervals(kit)
    honest, lost, backwards = records[2], records[5], records[9]
    assert lost["wh"] == pytest.approx(honest["wh"] * 2 / 3, rel=0.06), "a third is not counted"
    assert backwards["wh"] == pytest.approx(honest["wh"] / 3, rel=0.06), "two thirds are not counted"
    assert (lost["ph"]["u"][1], lost["ph"]["iu"]) == (0, [0, lost["ph"]["n"], 0])
    assert (backwards["ph"]["neg"], backwards["ph"]["iu"]) == ([0, 0, backwards["ph"]["n"]], [0, 0, 0])
    assert records[14]["mto"] < -7_000_000
    assert told(await verdict(kit, tmp_path, 15)) == [
        ("V17", "suspect", "phase_unfed", 4),
        ("V23", "warn", "event_phase_loss", 4),
        ("V17", "suspect", "phase_backwards", 8),
        ("V23", "suspect", "event_cover_open", 13),
        ("V23", "suspect", "event_clock_set", 14),
    ]
    walk = await kit.verified(POINT, START_S, START_S + 15 * SLOT)
    assert walk.errors == []


async def test_declared_work_explains_an_opened_cover_and_an_open_switch_a_lost_supply(
    kit: MeteringKit, tmp_path: Path
) -> None:
    await until(kit, 3)
    now = kit.clock.now_ms()
    detail = {"who": "A. Serik", "permit": "12", "reason": "seals", "from": now, "until": now + 3_600_000}
    work = {"ev": "maintenance", "obj": METER, "now": "begun", "detail": detail}
    await kit.ledger.commit(Txn().record("site", "event", work))
    await kit.go_to(START_S + 3 * SLOT + 300)
    kit.faults.set("cover_opened", METER)
    await until(kit, 4)
    await kit.go_to(START_S + 4 * SLOT + 200)
    await kit.operate("KM2", close=False)
    await kit.go_to(START_S + 4 * SLOT + 500)
    await kit.operate("KM2", close=True)
    await until(kit, 8)
    last = (await intervals(kit))[-1]
    assert (last["ev"]["cover_open"], last["ev"]["power_off"]) == (1, 1)
    assert [one for one in told(await verdict(kit, tmp_path, 8)) if one[0] == "V23"] == []


async def test_a_restart_loses_the_phases_of_its_slot_and_no_event(kit: MeteringKit, tmp_path: Path) -> None:
    await until(kit, 2)
    await kit.go_to(START_S + 2 * SLOT + 400)
    kit.faults.set("cover_opened", METER)
    await kit.shut()
    await kit.boot()
    await until(kit, 4)
    records = await intervals(kit)
    assert ["ph" in r for r in records] == [True, True, False, True]
    assert [r["ev"]["cover_open"] for r in records] == [0, 0, 1, 1]
    assert told(await verdict(kit, tmp_path, 4)) == [("V23", "suspect", "event_cover_open", 2)]
