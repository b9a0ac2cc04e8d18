"""Slot arithmetic over any sequence of readings, gaps, rollovers, resets and exchanges of meters: sums telescope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.metering.counter import counted, stands_still
from agent.metering.integral import PowerIntegral
from agent.metering.meterclock import ClockState, judge
from agent.metering.registers import (
    evidence_maps,
    merged_ratios,
    ratio_set,
    ratios_differ,
    read_ratios,
)
from agent.metering.slots import IMPORT, Boundary, Drop, Edge, SlotChain, SlotRecord
from config.devices import Passport
from drivers.capabilities import Reading
from drivers.profiles.loader import load_profile
from drivers.profiles.model import MeterProfile
from verifier.energy import energies_between, read_map
from wire.energy import interval_wh, primary_wh, quantum_wh, span_wh
from wire.errors import BadRecord
from wire.quality import Quality
from wire.record_types import GAP_REASONS

SLOT = 900
T0 = 1_790_000_100 // SLOT * SLOT
LIMIT_W = 400_000
ROLL = 10**8
MOST = LIMIT_W * SLOT // 3600
"""Wh that the connection carries in a slot, which is less than a tenth of what the register holds."""
DECODE: dict[str, dict[str, Any]] = {
    IMPORT: {"fc": 4, "addr": 72, "words": 2, "order": "big", "enc": "u32", "lsb": {"num": 10, "den": 3}, "roll": ROLL}
}
HOW = DECODE[IMPORT]
COUNTS = MOST * 3 // 10
"""Counts that the register may move by in a slot."""


def exact(bits: int) -> Fraction:
    found = primary_wh(bits, HOW)
    assert found is not None
    return found


def chain(**more: Any) -> SlotChain:
    return SlotChain(SLOT, 1000, DECODE, "cfg", LIMIT_W, **more)


@dataclass(frozen=True)
class Step:
    """One boundary: read or not, counts used since the last one, boundaries missed, and what happened to the meter."""

    ok: bool
    used: int
    missed: int
    event: str
    serial_read: bool


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from([True, True, True, False]),
        st.integers(0, COUNTS // 2),
        st.sampled_from([0, 0, 0, 1, 3]),
        st.sampled_from(["", "", "", "", "swap", "reset", "ratio"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(steps, st.integers(0, ROLL - 1), st.integers(0, COUNTS))
def test_intervals_and_bridges_telescope_between_incomparable_readings(plan: list[Step], first: int, near: int) -> None:
    """Truth is a counter without an end; the register shows it modulo its width. No Wh is lost, doubled or invented."""
    truth = ROLL - 1 - near if first % 2 else first
    slot, serial, ratio, offset, life = 0, 0, 80, 0, 0
    lives: dict[int, int] = {}
    boundaries: list[Boundary] = []
    truths: dict[int, int] = {}
    for step in plan:
        slot += 1 + step.missed
        truth += step.used
        if step.event == "swap":
            serial, life, offset = serial + 1, life + 1, truth
        elif step.event == "ratio":
            ratio, life = ratio + 1, life + 1
        elif step.event == "reset" and (truth - offset) % ROLL > ROLL // 2 and (truth - offset) % ROLL < ROLL - COUNTS:
            life, offset = life + 1, truth
        t = T0 + slot * SLOT
        lives[t], truths[t] = life, truth - offset
        if step.ok:
            sn = f"S{serial}"
            bits = {IMPORT: (truth - offset) % ROLL}
            boundaries.append(Boundary(t, t * 1000 + 200, bits, (("00", "00"),), sn, ratios=f"ct {ratio} vt ?"))
        else:
            boundaries.append(Boundary(t, t * 1000 + 30_000, why="TIMEOUT", tries=9))
    found = chain()
    records: list[SlotRecord] = [r for b in boundaries for r in found.close(b)]
    start, end = boundaries[0].t, boundaries[-1].t
    assert [(r.fields["t0"], r.fields["t1"]) for r in records] == [(t, t + SLOT) for t in range(start, end, SLOT)]
    by_life: dict[int, int] = {}
    opened: dict[int, int] = {}
    closed: dict[int, int] = {}
    for record in records:
        f = record.fields
        if record.ty == "gap":
            assert f["why"] in GAP_REASONS
            continue
        assert lives[f["t0"]] == lives[f["t1"]], "an interval never spans an exchange, a reset or another ratio"
        here = lives[f["t0"]]
        by_life[here] = by_life.get(here, 0) + f["wh"] + f.get("bridge_wh", 0)
        begun = f["t0"]
        if "bridge_wh" in f:
            begun = next(b.t for b in boundaries if b.good and b.rt_ms == f["bridge_rt"])
            assert lives[begun] == here, "nothing is bridged over it either"
        opened.setdefault(here, truths[begun])
        closed[here] = truths[f["t1"]]
        # The verifier, which knows only registers, finds the same numbers.
        options = energies_between(*f["reg"][IMPORT], read_map(HOW), rollover="rollover" in f["q"])
        plain = energies_between(*f["reg"][IMPORT], read_map(HOW), rollover=False)
        assert f["wh"] in (plain if plain[0] >= 0 else options)
    for here, total in by_life.items():
        wraps = closed[here] // ROLL - opened[here] // ROLL
        span = exact(1) * ROLL
        expected = math.floor(exact(closed[here] % ROLL)) - math.floor(exact(opened[here] % ROLL))
        # A whole register of 10^8 thirds of 10 Wh is not whole Wh: each rollover is floored once.
        assert abs(total - (expected + wraps * span)) <= wraps
        if wraps == 0:
            assert total == expected


@pytest.mark.parametrize(
    ("before", "after", "seconds", "roll", "limit_w", "why"),
    [
        (ROLL - 10, 5, 900, ROLL, LIMIT_W, None),
        (ROLL - 10, 5, 900, None, LIMIT_W, "COUNTER_RESET"),
        (ROLL - 10, 5, 900, ROLL, None, "COUNTER_RESET"),
        (ROLL // 2, 5, 900, ROLL, LIMIT_W, "COUNTER_RESET"),
        (ROLL - 10, COUNTS + 100, 900, ROLL, LIMIT_W, "COUNTER_RESET"),
        (ROLL - 10, COUNTS + 100, 1800, ROLL, LIMIT_W, None),
        (ROLL + 10, 5, 900, ROLL, LIMIT_W, "COUNTER_RESET"),
        (ROLL // 20, 5, 10**7, ROLL, LIMIT_W, "COUNTER_RESET"),
        (2**32 - 10, 5, 900, 2**32, LIMIT_W, None),
        (2**31 - 10, 5, 900, 2**31, LIMIT_W, "COUNTER_RESET"),
    ],
)
def test_a_fall_is_a_rollover_only_where_the_width_is_known_and_the_energy_could_have_flowed(
    before: int, after: int, seconds: float, roll: int | None, limit_w: int | None, why: str | None
) -> None:
    how = {k: v for k, v in HOW.items() if k != "roll"} | ({} if roll is None else {"roll": roll})
    found = counted(before, after, how, seconds=seconds, limit_w=limit_w)
    assert found.why == why
    assert found.wrapped is (why is None)
    if why is None:
        assert found.wh in energies_between(before, after, read_map(how), rollover=True)


# decode maps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"enc": "u32", "words": 2},
        {"enc": "u32", "words": "2", "lsb": {"num": 1, "den": 1}},
        {"enc": 7, "words": 2, "lsb": {"num": 1, "den": 1}},
        {"enc": "u32", "words": 2, "lsb": {"num": 1}},
        {"enc": "u32", "words": 2, "lsb": {"num": 1, "den": 0}},
        {"enc": "u32", "words": 2, "lsb": {"num": 0, "den": 1}},
        {"enc": "u32", "words": 2, "lsb": {"num": 1.5, "den": 1}},
        {"enc": "u32", "words": 2, "lsb": {"num": True, "den": 1}},
        {"enc": "u32", "words": 2, "lsb": 10},
        {"enc": "u32", "words": 99, "lsb": {"num": 1, "den": 1}},
        {"enc": "u64", "words": 2, "lsb": {"num": 1, "den": 1}},
    ],
    ids=str,
)
def test_a_malformed_decode_map_is_a_clear_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match=r"decode map|encoding"):
        primary_wh(0, wrong)


@pytest.mark.parametrize("roll", [0, 1, -5, "100", 10.0, True], ids=str)
def test_a_malformed_width_is_a_clear_error(roll: Any) -> None:
    with pytest.raises(BadRecord, match="roll"):
        span_wh(HOW | {"roll": roll})


def test_a_rollover_of_unknown_width_is_refused() -> None:
    with pytest.raises(BadRecord, match="roll"):
        interval_wh(5, 1, {k: v for k, v in HOW.items() if k != "roll"}, wrapped=True)


def test_the_least_step_of_a_register() -> None:
    assert quantum_wh(5, HOW) == Fraction(10, 3)
    single = {"enc": "f32", "words": 2, "lsb": {"num": 1000, "den": 1}}
    assert quantum_wh(0x449A522B, single) == Fraction(1000, 2**13)
    assert quantum_wh(0x7FC00000, single) is None


@pytest.mark.parametrize(
    ("applied", "factor"), [("meter", 1), ("agent", Fraction(600, 5) * 100), ("both", Fraction(100))]
)
def test_ratios_that_the_agent_applies_are_multiplied_into_the_map(applied: str, factor: Fraction) -> None:
    profile = load_profile("abb-b23-b24")
    assert isinstance(profile, MeterProfile)
    doc = {"ct": {"num": 600, "den": 5}, "vt": {"num": 10000, "den": 100}, "ratio_applied_in": applied}
    plain = evidence_maps(profile, Passport(), profile.point_ids)
    found = evidence_maps(profile, Passport.model_validate(doc), profile.point_ids)
    for name, how in found.items():
        lsb, base = (Fraction(m["lsb"]["num"], m["lsb"]["den"]) for m in (how, plain[name]))
        assert lsb == base * factor


def test_the_width_comes_from_the_passports_digits_where_the_profile_has_none() -> None:
    profile = load_profile("abb-b23-b24")
    assert isinstance(profile, MeterProfile)
    maps = evidence_maps(profile, Passport(register_digits=8), profile.point_ids)
    if profile.point(IMPORT).modulus is None:
        assert maps[IMPORT]["roll"] == 10**8
    else:
        assert maps[IMPORT].get("roll") == profile.point(IMPORT).modulus


# ratios, clock, power ------------------------------------------------------------------------------------------------


def test_ratios_are_compared_only_where_both_were_read() -> None:
    def read(ct: float | None, vt: float | None) -> str | None:
        readings = {"ct_ratio": ct, "vt_ratio": vt}
        return read_ratios({k: Reading(v, Quality.GOOD) for k, v in readings.items() if v is not None})

    assert read(None, None) is None
    assert read(120.0, None) == "ct 120 vt ?"
    assert not ratios_differ(read(120.0, None), read(120.0, 100.0))
    assert ratios_differ(read(120.0, 100.0), read(120.0, 110.0))
    assert not ratios_differ(None, read(120.0, 100.0))
    assert merged_ratios("ct 120 vt 100", "ct ? vt 110") == "ct 120 vt 110"
    assert ratio_set(read(66.5, None), "ct") == {"num": 133, "den": 2}
    assert ratio_set(read(66.5, None), "vt") is None


@pytest.mark.parametrize(
    ("offset_ms", "expected"),
    [
        (None, ClockState.UNKNOWN),
        (0, ClockState.GOOD),
        (-5000, ClockState.GOOD),
        (5001, ClockState.WARN),
        (-60_000, ClockState.WARN),
        (60_001, ClockState.FAIL),
        (3_600_000, ClockState.ZONE),
        (-3_600_000 + 20_000, ClockState.ZONE),
        (6 * 3_600_000 + 59_000, ClockState.ZONE),
        (1_800_000, ClockState.FAIL),
        (15 * 3_600_000, ClockState.FAIL),
    ],
)
def test_what_a_meters_clock_is_worth(offset_ms: int | None, expected: ClockState) -> None:
    assert judge(offset_ms) is expected


def test_power_is_integrated_between_readings_that_stand_close_enough() -> None:
    integral = PowerIntegral(10.0)
    integral.add(0, 3600.0)
    assert integral.close(0) is None
    for second in range(10, 101, 10):
        integral.add(second * 10**9, 3600.0 + second)
    found = integral.close(100 * 10**9)
    assert found is not None
    assert found.wh == round(
        sum(
            (3600 + 3600 + a + b) / 2 * 10 / 3600
            for a, b in zip([0, *range(10, 100, 10)], range(10, 101, 10), strict=True)
        )
    )
    assert (found.n, found.gap_ms) == (10, 10_000)
    integral.add(150 * 10**9, 1.0)
    integral.add(155 * 10**9, 1.0)
    integral.add(160 * 10**9, 1.0)
    assert integral.close(200 * 10**9) is None, "too little of the slot is covered"


@pytest.mark.parametrize(
    ("moved", "power_wh", "expected"),
    [(0, 9, False), (0, 10, True), (1, 1000, False), (0, None, False), (0, -11, True)],
)
def test_a_register_is_frozen_only_where_power_says_it_must_have_moved(
    moved: int, power_wh: int | None, expected: bool
) -> None:
    assert stands_still({IMPORT: 70}, {IMPORT: 70 + moved}, DECODE, power_wh, 3) is expected


# edges ---------------------------------------------------------------------------------------------------------------


def edge(slot: float, bits: int) -> Edge:
    return Edge(round((T0 + slot * SLOT) * 1000), {IMPORT: bits}, (("00", "00"),), 100)


def good(slot: int, bits: int, **more: Any) -> Boundary:
    t = T0 + slot * SLOT
    return Boundary(t, t * 1000 + 200, {IMPORT: bits}, (("00", "00"),), "A", **more)


def dark(slot: int, since: float, **more: Any) -> Boundary:
    t = T0 + slot * SLOT
    since_ms = round((T0 + since * SLOT) * 1000)
    return Boundary(t, t * 1000 + 30_000, why="NO_POWER", sw="KM1", dark_since_ms=since_ms, tries=9, **more)


FELL = Drop("M0", 1000, 100, 900, True)


@pytest.mark.parametrize(
    ("drop", "why"),
    [
        (FELL, "DE_ENERGISED"),
        (Drop("M0", 1000, 990, 4, None), "DE_ENERGISED"),
        (Drop("M0", 1000, 990, 900, False), "NO_POWER"),
        (None, "NO_POWER"),
    ],
    ids=["seen", "too small to be seen", "not seen", "nobody looked"],
)
def test_darkness_needs_the_fall_from_above(drop: Drop | None, why: str) -> None:
    found = chain()
    records = [r for b in (good(0, 10), dark(1, 0.5, drop=drop), dark(2, 0.5, drop=drop)) for r in found.close(b)]
    assert [r.fields["why"] for r in records] == ["NO_POWER", why]


def test_edges_and_what_lies_between_them_make_up_the_bridge() -> None:
    found = chain()
    parts = [
        good(0, 1000),
        dark(1, 0.5, last=edge(0.49, 1600), drop=FELL),
        dark(2, 0.5, drop=FELL),
        good(3, 2500, first=edge(2.4, 1603)),
        good(4, 3000),
    ]
    records = [r for b in parts for r in found.close(b)]
    opened, closed, after = records[0].fields, records[2].fields, records[3].fields
    assert opened["e0"]["reg"] == {IMPORT: 1000}
    assert opened["part_wh"] == interval_wh(1000, 1600, HOW)
    assert "e0" not in records[1].fields
    assert closed["part_wh"] == interval_wh(1603, 2500, HOW)
    residual = interval_wh(1600, 1603, HOW)
    assert residual is not None
    assert after["bridge_wh"] == opened["part_wh"] + residual + closed["part_wh"]


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        (edge(0.4, 1600), True),
        (edge(-0.1, 1600), False),
        (edge(1.2, 1600), False),
        (edge(0.4, 900), False),
        (edge(0.4, 1000 + 2 * COUNTS), False),
        (None, False),
    ],
    ids=["fits", "before the slot", "after the slot", "below the last boundary", "more than can flow", "none"],
)
def test_an_edge_that_cannot_be_is_not_evidence(last: Edge | None, kept: bool) -> None:
    found = chain()
    found.close(good(0, 1000))
    fields = found.close(dark(1, 0.5, last=last, drop=FELL))[0].fields
    assert ("e1" in fields) is kept
    assert ("part_wh" in fields) is kept


def test_lateness_without_a_power_is_not_zero_energy() -> None:
    found = chain()
    found.close(good(0, 1000))
    t = T0 + SLOT
    fields = found.close(Boundary(t, t * 1000 + 4000, {IMPORT: 1010}, (("00", "00"),), "A"))[0].fields
    assert fields["q"] == ["late1"]
    assert fields["late_ms"] == 4000
    assert fields["late_wh"] is None
