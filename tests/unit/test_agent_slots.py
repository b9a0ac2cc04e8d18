"""Slots: whatever the meter does, each slot is exactly one record and the sums telescope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metering.slots import EXPORT, IMPORT, Boundary, Drop, SlotChain, SlotRecord, energy_points
from wire.energy import primary_wh
from wire.record_types import GAP_REASONS

SLOT = 900
T0 = 1_790_000_100 // SLOT * SLOT
FELL = Drop("M0", 100_000, 20_000, 80_000, True)
DECODE: dict[str, dict[str, Any]] = {
    IMPORT: {"fc": 4, "addr": 72, "words": 2, "order": "big", "enc": "u32", "lsb": {"num": 10, "den": 3}}
}


def chain(decode: dict[str, dict[str, Any]] = DECODE, late_ms: int = 1000) -> SlotChain:
    return SlotChain(SLOT, late_ms, decode, "cfg")


def good(slot: int, bits: int, *, sn: str | None = "A", delay_ms: int = 200, **more: Any) -> Boundary:
    t = T0 + slot * SLOT
    export = more.pop("export", None)
    registers = {IMPORT: bits} | ({} if export is None else {EXPORT: export})
    return Boundary(t, t * 1000 + delay_ms, registers, (("0103", f"{bits:08x}"),), sn, **more)


def bad(slot: int, why: str = "TIMEOUT", **more: Any) -> Boundary:
    t = T0 + slot * SLOT
    return Boundary(t, t * 1000 + 30_000, why=why, tries=12, **more)


def exact(bits: int) -> Fraction:
    found = primary_wh(bits, DECODE[IMPORT])
    assert found is not None
    return found


def close_all(boundaries: list[Boundary], into: SlotChain | None = None) -> list[SlotRecord]:
    found = into or chain()
    return [record for b in boundaries for record in found.close(b)]


@dataclass(frozen=True)
class Step:
    """What one boundary is: read or not, how much was used since the last one, and whether boundaries were missed."""

    ok: bool
    used: int
    missed: int


steps = st.lists(
    st.builds(Step, st.booleans(), st.integers(0, 100_000), st.sampled_from([0, 0, 0, 1, 5])), min_size=1, max_size=40
)


@given(steps)
def test_each_slot_is_one_record_and_the_sums_telescope(plan: list[Step]) -> None:
    slot, register = 0, 1000
    boundaries: list[Boundary] = []
    for step in plan:
        slot += 1 + step.missed
        register += step.used
        boundaries.append(good(slot, register) if step.ok else bad(slot))
    records = close_all(boundaries)
    first, last = boundaries[0].t, boundaries[-1].t
    assert [(r.fields["t0"], r.fields["t1"]) for r in records] == [(t, t + SLOT) for t in range(first, last, SLOT)]
    by_t = {b.t: b for b in boundaries}
    total, end = 0, None
    for record in records:
        f = record.fields
        pair = [by_t.get(f["t0"]), by_t.get(f["t1"])]
        both = all(b is not None and b.good for b in pair)
        assert (record.ty == "interval") is both
        if record.ty == "gap":
            assert f["why"] in GAP_REASONS
            assert f["why"] == "AGENT_DOWN" or f["t0"] in by_t or f["t1"] in by_t
            continue
        total += f["wh"] + f.get("bridge_wh", 0)
        end = f["t1"]
        assert f["reg"][IMPORT] == [b.bits[IMPORT] for b in pair if b is not None]
        assert f["wh"] == math.floor(exact(f["reg"][IMPORT][1])) - math.floor(exact(f["reg"][IMPORT][0]))
    if end is not None:
        start = next(b for b in boundaries if b.good)
        assert total == math.floor(exact(by_t[end].bits[IMPORT])) - math.floor(exact(start.bits[IMPORT]))


@given(steps, st.integers(0, 40))
def test_a_restart_in_between_changes_no_number(plan: list[Step], at: int) -> None:
    """The chain as the ledger keeps it: the newest boundary and the anchor, each through its document."""
    slot, register = 0, 1000
    boundaries: list[Boundary] = []
    for step in plan:
        slot += 1 + step.missed
        register += step.used
        boundaries.append(good(slot, register) if step.ok else bad(slot))
    whole = close_all(boundaries)
    before = chain()
    records = close_all(boundaries[:at], before)
    after = chain()
    after.last = Boundary.from_doc(before.last.doc()) if before.last else None
    after.anchor = Boundary.from_doc(before.anchor.doc()) if before.anchor else None
    records += close_all(boundaries[at:], after)

    def bare(rows: list[SlotRecord]) -> list[tuple[str, dict[str, Any]]]:
        return [(r.ty, {k: v for k, v in r.fields.items() if k != "raw0"}) for r in rows]

    assert bare(records) == bare(whole)


def test_the_frames_of_both_boundaries_are_carried_exactly_once_more_than_needed() -> None:
    records = close_all([good(0, 10), good(1, 20), good(2, 30), bad(3), good(4, 40), good(5, 50)])
    assert [r.ty for r in records] == ["interval", "interval", "gap", "gap", "interval"]
    assert "raw0" in records[0].fields
    assert "raw0" not in records[1].fields, "the interval before carries them"
    assert "raw0" in records[4].fields
    assert records[4].fields["bridge_wh"] == math.floor(exact(40)) - math.floor(exact(30))
    assert records[4].fields["bridge_reg"] == {IMPORT: 30}


def test_another_meter_is_never_bridged_over() -> None:
    records = close_all([good(0, 10), good(1, 20), good(2, 5000, sn="B"), good(3, 5100, sn="B")])
    assert [(r.ty, r.fields.get("why")) for r in records] == [
        ("interval", None),
        ("gap", "SERIAL_CHANGED"),
        ("interval", None),
    ]
    assert "bridge_wh" not in records[2].fields
    assert "raw0" in records[2].fields


def test_another_meter_that_appears_after_a_gap_is_not_bridged_either() -> None:
    records = close_all([good(0, 10), good(1, 20), bad(2), good(3, 5000, sn="B"), good(4, 5100, sn="B")])
    assert records[-1].ty == "interval"
    assert "bridge_wh" not in records[-1].fields


def test_a_register_that_falls_is_a_reset_and_nothing_is_claimed_for_the_slot() -> None:
    records = close_all([good(0, 1000), good(1, 5), good(2, 15)])
    assert [(r.ty, r.fields.get("why")) for r in records] == [("gap", "COUNTER_RESET"), ("interval", None)]
    assert records[1].fields["wh"] == math.floor(exact(15)) - math.floor(exact(5))
    assert "bridge_wh" not in records[1].fields


def test_a_register_that_fell_during_a_gap_is_not_bridged() -> None:
    records = close_all([good(0, 1000), good(1, 2000), bad(2), good(3, 5), good(4, 15)])
    assert records[-1].ty == "interval"
    assert "bridge_wh" not in records[-1].fields


@pytest.mark.parametrize(
    ("start", "dark_since_slot", "why"),
    [
        (bad(1, "NO_POWER"), 1.0, "DE_ENERGISED"),
        (bad(1, "TIMEOUT"), 0.5, "DE_ENERGISED"),
        (bad(1, "TIMEOUT"), 1.01, "NO_POWER"),
        (good(1, 20), 1.0, "NO_POWER"),
        (good(1, 20), 0.5, "NO_POWER"),
    ],
    ids=["whole slot", "longer", "opened within the slot", "meter answered at its start", "answered while dark"],
)
def test_de_energised_is_said_only_where_the_switch_was_open_for_the_whole_slot(
    start: Boundary, dark_since_slot: float, why: str
) -> None:
    since = round((T0 + dark_since_slot * SLOT) * 1000)
    records = close_all([good(0, 10), start, bad(2, "NO_POWER", sw="KM1", dark_since_ms=since, drop=FELL)])
    assert records[1].fields["why"] == why
    if why == "DE_ENERGISED":
        assert records[1].fields["sw"] == "KM1"


@pytest.mark.parametrize(
    ("delays", "flags"),
    [((1000, 1000), []), ((1001, 200), ["late0"]), ((200, 1001), ["late1"]), ((5000, 5000), ["late0", "late1"])],
)
def test_late_readings_are_flagged_with_what_they_may_have_moved(delays: tuple[int, int], flags: list[str]) -> None:
    first, second = (good(n, 10 + n, delay_ms=d, power_w=-360_000) for n, d in enumerate(delays))
    fields = close_all([first, second])[0].fields
    assert fields["q"] == flags
    if flags:
        late = [d for d, f in zip(delays, ("late0", "late1"), strict=True) if f in flags]
        assert fields["late_wh"] == sum(360_000 * d // 3_600_000 for d in late)
    else:
        assert "late_wh" not in fields


def test_export_is_counted_on_its_own_and_null_where_there_is_none() -> None:
    both = DECODE | {EXPORT: DECODE[IMPORT]}
    records = close_all([good(0, 10, export=100), good(1, 20, export=103), good(2, 30)], chain(both))
    assert records[0].fields["exp_wh"] == math.floor(exact(103)) - math.floor(exact(100))
    assert records[1].fields["exp_wh"] is None
    assert close_all([good(0, 10), good(1, 20)])[0].fields["exp_wh"] is None


def test_a_boundary_off_the_grid_or_out_of_order_is_a_mistake_of_the_caller() -> None:
    found = chain()
    found.close(good(3, 10))
    with pytest.raises(ValueError, match="grid"):
        found.close(Boundary(T0 + 4 * SLOT + 1, 0))
    with pytest.raises(ValueError, match="after"):
        found.close(good(3, 10))
    with pytest.raises(ValueError, match="after"):
        found.close(good(2, 10))


@pytest.mark.parametrize(
    ("bits", "enc", "known"),
    [(0x7FC00000, "f32", False), (0x7F800000, "f32", False), (0x3F800000, "f32", True), (0xA, "bcd", False)],
)
def test_bits_that_are_no_number_are_no_reading(bits: int, enc: str, known: bool) -> None:
    decode = {IMPORT: DECODE[IMPORT] | {"enc": enc}}
    assert energy_points({IMPORT: bits}, decode) is known
    assert not energy_points({}, decode)
