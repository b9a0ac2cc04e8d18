"""Slots at the edges of a darkness: what is proven dead, what is known only from registers, and what is forged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_kit import (
    EXPORT_MAP,
    IMPORT,
    MAP,
    SLOT,
    SLOTS,
    START,
    Doc,
    Site,
    codes,
    doubts,
    f32,
    frames,
    fresh,
    gap,
    good_site,
    judged,
)

from tests.unit.metering_kit import START_S
from tests.unit.test_metering_dark import Judge, dark_day
from verifier.canonical import read_canonical
from verifier.metering import MeteringPoint, Period
from verifier.records import Record
from verifier.switches import Switches
from wire import canonical
from wire.energy import interval_wh
from wire.records import leaf_hash

POINT, FIRST, LAST = "mp:M2", 3, 6
"""The branch of M2 goes dark in slot 3 and comes back in slot 6."""
OPENED_S, CLOSED_S = START + FIRST * SLOT + 400, START + LAST * SLOT + 300


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


@pytest.fixture
def site(template: Site) -> Site:
    made = fresh(template)
    darkness(made)
    return made


def edge(at_s: float, imported: int, exported: int, w: int | None = 12_000) -> Doc:
    reg = {IMPORT: imported, "energy_export_wh": exported}
    return {"rt": int(at_s * 1000), "reg": reg, "raw": frames(imported, exported), "w": w}


def darkness(site: Site) -> None:
    """Registers stand from the opening of Q1 to its closing; both edges of it were read."""
    docs = site.streams[POINT]
    start = docs[FIRST]["reg"]
    held = (f32(1011.0), start["energy_export_wh"][1])
    back = (f32(1011.005), held[1])  # 5 Wh between the last reading and the parting of the contacts
    after = (f32(1014.0), held[1])
    for number, doc in enumerate(docs[LAST + 2 :]):
        opening, closing = f32(1014.0 + 3.3 * number), f32(1014.0 + 3.3 * (number + 1))
        doc["reg"] = {IMPORT: [opening, closing], "energy_export_wh": [held[1], held[1]]}
        doc["wh"] = interval_wh(opening, closing, MAP)
        doc["exp_wh"] = interval_wh(held[1], held[1], EXPORT_MAP)
        doc["raw"] = frames(closing, held[1])
    gap(site, POINT, range(FIRST, LAST + 1), why="DE_ENERGISED", sw="Q1")
    begun = start[IMPORT][1], start["energy_export_wh"][1]
    edges: list[tuple[Doc, Doc, Doc]] = [
        (docs[FIRST + 1], edge(START + FIRST * SLOT + 0.2, *begun), edge(OPENED_S - 3, *held)),
        (docs[LAST + 1], edge(CLOSED_S + 3, *back), edge(START + (LAST + 1) * SLOT + 0.2, *after)),
    ]
    for doc, e0, e1 in edges:
        part = interval_wh(e0["reg"][IMPORT], e1["reg"][IMPORT], MAP)
        doc |= {"why": "NO_POWER", "e0": e0, "e1": e1, "part_wh": part}
    for at_s, was, now in ((OPENED_S, "closed", "open"), (CLOSED_S, "open", "closed")):
        site.add("site", "event", at_s, {"ev": "switch_position", "obj": "Q1", "was": was, "now": now})


def test_dead_slots_are_proven_and_their_edges_are_known_from_registers(site: Site, tmp_path: Path) -> None:
    report = judged(tmp_path, site)
    assert (report.errors, report.exit) == ([], 1)
    assert report.points["M2"].grades == {"B": SLOTS - 4, "Z": 2, "R": 2}
    docs = site.streams[POINT]
    first, last = docs[1]["reg"][IMPORT][0], docs[-1]["reg"][IMPORT][1]
    point = report.points["M2"]
    assert point.wh + point.bridged_wh == interval_wh(first, last, MAP), "intervals and bridges add up to the registers"


def first_gap(site: Site) -> Doc:
    return site.streams[POINT][FIRST + 1]


def no_power(site: Site) -> None:
    first_gap(site)["e1"]["w"] = None


def too_much(site: Site) -> None:
    first_gap(site)["e1"] |= edge(OPENED_S - 3, f32(1010.9), first_gap(site)["e1"]["reg"]["energy_export_wh"])
    first_gap(site)["part_wh"] = interval_wh(first_gap(site)["e0"]["reg"][IMPORT], f32(1010.9), MAP)


def never_opened(site: Site) -> None:
    del site.streams["site"][-2:]


def another_switch(site: Site) -> None:
    for doc in site.streams[POINT][FIRST + 2 : LAST + 1]:
        doc["sw"] = "Q2"


def closed_in_between(site: Site) -> None:
    for at_s, was, now in ((START + 4 * SLOT + 100, "open", "closed"), (START + 5 * SLOT + 500, "closed", "open")):
        site.add("site", "event", at_s, {"ev": "switch_position", "obj": "Q1", "was": was, "now": now})
    site.streams["site"].sort(key=lambda doc: int(doc["at"]))


@pytest.mark.parametrize("change", [no_power, too_much, never_opened, another_switch, closed_in_between])
def test_a_darkness_that_is_not_shown_is_known_only_from_registers(
    site: Site, tmp_path: Path, change: Callable[[Site], None]
) -> None:
    change(site)
    report = judged(tmp_path, site)
    assert report.errors == []
    assert report.points["M2"].grades == {"B": SLOTS - 4, "R": 4}


def test_registers_that_did_not_move_need_no_power(site: Site, tmp_path: Path) -> None:
    no_power(site)
    held = first_gap(site)["e1"]["reg"]
    back = site.streams[POINT][LAST + 1]
    back["e0"] = edge(CLOSED_S + 3, held[IMPORT], held["energy_export_wh"])
    back["part_wh"] = interval_wh(held[IMPORT], back["e1"]["reg"][IMPORT], MAP)
    assert judged(tmp_path, site).points["M2"].grades == {"B": SLOTS - 4, "Z": 2, "R": 2}


def test_without_a_bridge_it_is_missing(site: Site, tmp_path: Path) -> None:
    after = site.streams[POINT][LAST + 2]
    for name in ("bridge_wh", "bridge_rt", "bridge_reg"):
        del after[name]
    assert judged(tmp_path, site).points["M2"].grades == {"B": SLOTS - 4, "M": 4}


def forged_register(gap_doc: Doc) -> None:
    gap_doc["e1"]["reg"][IMPORT] += 1


def forged_frames(gap_doc: Doc) -> None:
    gap_doc["e1"]["raw"] = gap_doc["e0"]["raw"]


def forged_part(gap_doc: Doc) -> None:
    gap_doc["part_wh"] += 1


def part_of_nothing(gap_doc: Doc) -> None:
    del gap_doc["e0"]


def before_the_slot(gap_doc: Doc) -> None:
    gap_doc["e0"]["rt"] -= 5_000


def after_the_slot(gap_doc: Doc) -> None:
    gap_doc["e1"]["rt"] += SLOT * 1000


def dark_and_read(gap_doc: Doc) -> None:
    gap_doc["why"] = "DE_ENERGISED"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (forged_register, "DECODE"),
        (forged_frames, "DECODE"),
        (forged_part, "DELTA"),
        (part_of_nothing, "DELTA"),
        (before_the_slot, "SLOT"),
        (after_the_slot, "SLOT"),
        (dark_and_read, "DECODE"),
    ],
)
def test_a_forged_edge_fails(site: Site, tmp_path: Path, change: Callable[[Doc], None], code: str) -> None:
    change(first_gap(site))
    report = judged(tmp_path, site)
    assert code in codes(report), [error.line() for error in report.errors]
    assert report.points["M2"].grades["X"] >= 1


def test_a_cut_that_the_meter_above_did_not_see_is_asked_about(site: Site, tmp_path: Path) -> None:
    first_gap(site)["up"] = {"mp": "M1", "was_w": 50_000, "now_w": 49_500, "own_w": 12_000, "seen": False}
    assert "SUSPECT" in doubts(judged(tmp_path, site))


def test_an_opening_reading_of_the_bind_is_what_the_first_slot_continues(site: Site, tmp_path: Path) -> None:
    docs = site.streams["mp:M1"]
    first = docs[1]["reg"]
    opening = {"rt": docs[1]["rt0"], "reg": {name: pair[0] for name, pair in first.items()}, "raw": docs[1]["raw0"]}
    docs[0]["open"] = opening
    assert judged(tmp_path, site).errors == []
    docs[0]["open"] = opening | {"rt": opening["rt"] + 1}
    assert "REGISTER_DISCONTINUITY" in codes(judged(tmp_path, site))
    docs[0]["open"] = opening | {"raw": docs[1]["raw"]}
    assert "DECODE" in codes(judged(tmp_path, site))


@pytest.mark.parametrize(
    ("act", "known", "exit_code"), [(True, "B2", 1), (True, "C3", 2), (False, "B2", 2), (False, None, 1)]
)
def test_an_exchange_is_told_and_the_register_has_the_meter_that_is_in_service(
    site: Site, tmp_path: Path, act: bool, known: str | None, exit_code: int
) -> None:
    """Slot 5 of M1 is a gap in which meter A1 is exchanged for B2, whose register begins elsewhere."""
    point = site.register["sites"][0]["points"][0]
    if known is not None:
        point["serial"] = known
    docs = site.streams["mp:M1"]
    exported = docs[6]["reg"]["energy_export_wh"][1]
    gap(site, "mp:M1", range(5, 6), why="SERIAL_CHANGED")
    for number, doc in enumerate(docs[7:]):
        opening, closing = f32(10.0 + 9.75 * number), f32(10.0 + 9.75 * (number + 1))
        doc["reg"] = {IMPORT: [opening, closing], "energy_export_wh": [exported, exported]}
        doc |= {"wh": interval_wh(opening, closing, MAP), "exp_wh": 0, "sn": "B2", "raw": frames(closing, exported)}
        doc.pop("cfg")
    after = docs[7]
    for name in ("bridge_wh", "bridge_rt", "bridge_reg"):
        del after[name]
    after["raw0"] = frames(after["reg"][IMPORT][0], exported)
    opening_reading = {"rt": after["rt0"], "reg": {n: p[0] for n, p in after["reg"].items()}, "raw": after["raw0"]}
    swap = {"person": "p", "reason": "worn", "was_sn": "A1", "now_sn": "B2", "closing_wh": 1, "opening_wh": 10_000}
    bind = docs[0] | {"sn": "B2", "at": after["rt0"] + 100, "open": opening_reading}
    docs.insert(7, bind | ({"swap": swap} if act else {}))
    for doc in docs[8:]:
        doc["cfg"] = "BIND"
    report = judged(tmp_path, site)
    assert report.exit == exit_code, report.to_text()
    assert "SERIAL" in doubts(report)
    assert report.points["M1"].grades == {"B": SLOTS - 1, "M": 1}
    assert codes(report) == ({"RATIO"} if exit_code == 2 else set())


def record(doc: Doc, number: int) -> Record:
    payload = canonical.encode(doc)
    return Record(read_canonical(payload, max_bytes=65_536), leaf_hash(payload).hex(), f"{doc['st']}/{number}")


def test_what_an_agent_records_of_a_switched_branch_is_graded_as_the_protocol_says(tmp_path: Path) -> None:
    """The agent's own records of a day of switching; the rule written a second time is the oracle."""
    records, events = asyncio.run(dark_day(tmp_path, 4))
    switches = Switches()
    switches.feed(record(doc, n) for n, doc in enumerate(events))
    slots: list[Any] = [doc for doc in records if doc["ty"] in {"interval", "gap"}]
    period = Period(START_S, slots[-1]["t1"])
    walk = MeteringPoint("M1", SLOT, period, period, None, switches)
    walk.feed(record(doc, n) for n, doc in enumerate(records))
    walk.end_epoch(last=True)
    walk.finish()
    assert walk.errors == []
    grades = Judge(records, events).grades()
    proven = sum(grade == "Z" for grade in grades.values())
    assert proven >= 1
    counts = walk.counts()
    assert (counts.get("Z"), counts.get("R")) == (proven, len(grades) - proven)
    assert counts["C"] == sum(doc["ty"] == "interval" for doc in slots)
