"""Rules between points and over longer times: maps, check meters, orders, machines; and the statistics beneath."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from fractions import Fraction
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.energy import DecodeMap
from verifier.plausible.around import Around
from verifier.plausible.change import changes, spread
from verifier.plausible.feeders import take_off_common
from verifier.plausible.kept import Kept
from verifier.plausible.point import Gather
from verifier.plausible.rules import Window
from verifier.plausible.site import judge_site
from verifier.readings import Bind
from verifier.records import Record

SLOT, START, SLOTS = 900, 1_790_794_800, 192
IMPORT = "energy_import_wh"
HOW = DecodeMap(4, 100, 2, "big", "u32", Fraction(100))
LOAD = 1_500_000
"""Wh of a slot of a feeder of 6 MW."""


def meter(lsb: int = 100, **changes: Any) -> Bind:
    how = DecodeMap(4, 100, 2, "big", "u32", Fraction(lsb))
    return Bind("b" * 64, changes.get("sn", "77"), Fraction(1), Fraction(1), {IMPORT: how})


def around(docs: list[dict[str, Any]] | None = None, names: tuple[str, ...] = ("F1", "C1", "M1")) -> Around:
    made = Around(SLOT, START, START + SLOTS * SLOT, frozenset(names))
    for _ in made.watch(Record(doc, "", "") for doc in [{"ty": "genesis", "at": START * 1000}, *(docs or [])]):
        pass
    return made


def walk(site: Around, name: str = "F1", **bind: Any) -> Gather:
    made = Gather(name, START, SLOTS, SLOT, site.context(1))
    made.bind({"node": "Q1", "device": "em", "role": "technical"} | bind, meter())
    return made


def interval(slot: int, wh: int, **more: Any) -> dict[str, Any]:
    t0 = START + slot * SLOT
    return {"t0": t0, "t1": t0 + SLOT, "wh": wh, "exp_wh": None, "q": [], "mto": None, "reg": {IMPORT: [0, 0]}} | more


def noisy(slot: int) -> int:
    return LOAD + 100 * (slot * 37 % 23)


def kept(made: Gather, wh: Callable[[int], int] = noisy, slots: range = range(SLOTS)) -> Kept:
    for slot in slots:
        made.interval(interval(slot, wh(slot)), 0)
    made.finish()
    return made.kept(bytearray(b"B" * SLOTS), bytes([1]) * SLOTS)


def rules(one: Kept) -> dict[str, int]:
    return {rule: n for rule, n in one.said.counts.items() if n}


# One point


@pytest.mark.parametrize(
    ("energies", "powers", "held"),
    [
        ([LOAD] * 6, [LOAD, LOAD + 900, LOAD, LOAD, LOAD - 900, LOAD], 6),
        ([LOAD] * 3, [LOAD, LOAD + 900, LOAD], 0),  # too few
        ([LOAD] * 6, [LOAD + 50] * 6, 0),  # the power stood still as well
        ([0] * 6, [0, 90, 0, 90, 0, 90], 0),
    ],
)
def test_equal_energies_while_power_moves(energies: list[int], powers: list[int], held: int) -> None:
    made = walk(around())
    for slot, (wh, own) in enumerate(zip(energies, powers, strict=True)):
        made.interval(interval(slot, wh, pi={"wh": own, "gap_ms": 0}), 0)
    made.interval(interval(len(energies), LOAD + 5000, pi={"wh": LOAD + 5000, "gap_ms": 0}), 0)
    made.finish()
    told = [f for f in made.said.findings if f.rule == "V09"]
    assert sum((f.t1 - f.t0) // SLOT for f in told) == held
    assert "V09" in made.said.judged


@pytest.mark.parametrize(
    ("lsb", "changes", "held"),
    [(90, {}, 2), (100, {}, 0), (90, {"sn": "78"}, 0), (90, {"sn": None}, 0)],
)
def test_the_same_meter_read_by_another_map(lsb: int, changes: dict[str, Any], held: int) -> None:
    made = walk(around())
    made.interval(interval(0, LOAD), 0)
    made.bind({"node": "Q1", "device": "em"}, meter(lsb, **changes))
    for slot in (1, 2):
        made.interval(interval(slot, LOAD), 0)
    made.finish()
    assert sum((f.t1 - f.t0) // SLOT for f in made.said.findings if f.rule == "V16") == held


def test_a_load_that_runs_for_an_hour_is_no_spike() -> None:
    one = kept(walk(around()), lambda slot: LOAD if slot in range(90, 94) else 40_000 + slot % 7)
    assert rules(one) == {}
    alone = kept(walk(around()), lambda slot: LOAD if slot == 90 else 40_000 + slot % 7)
    assert rules(alone) == {"V08": 1}


def test_more_than_three_per_cent_of_a_month_is_told_once() -> None:
    made = walk(around())
    for slot in range(SLOTS):
        if slot % 2:
            made.interval(interval(slot, noisy(slot)), 0)
        else:
            made.gap({"t0": START + slot * SLOT, "why": "TIMEOUT"})
    made.finish()
    (found,) = (f for f in made.said.findings if f.rule == "V25")
    assert (found.seen, found.expected, found.unit) == (SLOTS // 2 * 1000 // (31 * 96), 30, "permille")
    assert "2026-10" in found.what


def told(slot: int, wh: int, **more: Any) -> dict[str, Any]:
    return {"t0": START + slot * SLOT, "t1": START + (slot + 1) * SLOT, "wh": wh, "src": "profile"} | more


@pytest.mark.parametrize(("archived", "held"), [([], 6), ([5], 5), ([3], 0), ([0, 1, 2, 3, 4, 5], 0), ([100], 6)])
def test_what_the_meters_own_profile_has_is_not_known_from_registers_alone(archived: list[int], held: int) -> None:
    made = walk(around())
    for slot in range(6):
        made.gap({"t0": START + slot * SLOT, "why": "TIMEOUT"})
    made.interval(interval(6, LOAD), 0)
    for slot in archived:
        made.archive(told(slot, LOAD))
    made.finish()
    assert sum((f.t1 - f.t0) // SLOT for f in made.said.findings if f.rule == "V25") == held


@pytest.mark.parametrize(("away_ms", "held"), [(None, 1), (0, 1), (2000, 1), (-4000, 0), (4000, 0)])
def test_a_profile_may_be_as_far_away_as_its_clock(away_ms: int | None, held: int) -> None:
    made = walk(around())
    for slot in range(4):
        made.interval(interval(slot, LOAD), 0)
    more = {} if away_ms is None else {"mto": away_ms}
    made.archive(told(2, LOAD + 10_500, **more))  # two counts of 100 Wh, and 6.2 s of this load
    made.finish()
    assert ("V12" in made.said.judged, made.said.counts.get("V12", 0)) == (True, held)


# V19


@pytest.mark.parametrize(
    ("share", "told"),
    [(Fraction(1), True), (Fraction(1001, 1000), False), (Fraction(95, 100), True), (Fraction(105, 100), True)],
)
def test_a_check_meter(share: Fraction, told: bool) -> None:
    site = around()
    mine = kept(walk(site))
    other = kept(walk(site, "C1", role="check"), lambda slot: int(noisy(slot) * share))
    judge_site({"F1": mine, "C1": other}, site)
    assert ("V19" in mine.said.judged, "V19" in mine.said.counts) == (True, told)
    assert "V19" not in other.said.judged
    if share == 1:
        assert "identical" in mine.said.findings[0].what


def test_a_check_meter_that_stands_still_is_no_reference() -> None:
    site = around()
    mine, other = kept(walk(site)), walk(site, "C1", role="check")
    for slot in range(SLOTS):
        other.interval(interval(slot, noisy(slot) * 2, q=["frozen"]), 0)
    other.finish()
    judge_site({"F1": mine, "C1": other.kept(bytearray(SLOTS), bytes(SLOTS))}, site)
    assert "V19" not in mine.said.judged
    assert mine.said.unjudged["V19"] == "too few slots that both meters have"


# V22


def ordered(begin: int, end: int, **ack: Any) -> list[dict[str, Any]]:
    """An order that is held between two slots."""
    at = {"id": "o"}
    return [
        {"ty": "cmd_ack", "at": (START + begin * SLOT - 60) * 1000, "state": "validated"} | at | ack,
        {"ty": "cmd_eff", "at": (START + begin * SLOT) * 1000, "state": "holding"} | at,
        {"ty": "cmd_eff", "at": (START + end * SLOT) * 1000, "state": "done"} | at,
    ]


def machines(own: Callable[[int], int]) -> Iterator[dict[str, Any]]:
    for slot in range(SLOTS):
        t0 = START + slot * SLOT
        asic = [{"mp": "F1", "seen": 99, "expected": 100, "wh": own(slot)}]
        yield {"ty": "balance", "at": (t0 + SLOT) * 1000, "t0": t0, "main": ["M1"], "asic": asic}


def residual(left: int, **ack: Any) -> Kept:
    """Machines sleep by order in slots 100 to 120; so much stays."""
    asleep = range(100, 120)
    docs = [*ordered(asleep.start, asleep.stop, **ack), *machines(lambda s: 20_000 if s in asleep else LOAD - 60_000)]
    site = around(docs)
    one = kept(walk(site), lambda s: left if s in asleep else noisy(s))
    judge_site({"F1": one}, site)
    return one


def test_load_that_stays_while_machines_sleep_by_order() -> None:
    assert "V22" not in residual(90_000).said.counts
    assert "V22" in residual(90_000).said.judged
    assert residual(700_000).said.counts["V22"] == 1
    assert residual(700_000).lower()[0] == {"V22": 19}, "the first slot of an order is not judged"


@pytest.mark.parametrize("ack", [{"order_mode": "drill"}, {"agent_mode": "shadow"}, {"agent_mode": "monitor"}])
def test_a_drill_holds_nothing(ack: dict[str, str]) -> None:
    assert "V22" not in residual(700_000, **ack).said.judged


@pytest.mark.parametrize("source", ["event", "cmd_eff"])
def test_load_behind_an_open_switch(source: str) -> None:
    docs: list[dict[str, Any]] = []
    for at, now in ((START + 50 * SLOT + 30, "open"), (START + 60 * SLOT + 30, "closed")):
        position = {"ev": "switch_position", "obj": "Q1", "now": now}
        effect = {"id": "x", "state": "failed", "positions": [["Q1", now]]}
        docs.append({"ty": source, "at": at * 1000} | (position if source == "event" else effect))
    site = around(docs)
    one = kept(walk(site))
    judge_site({"F1": one}, site)
    assert one.lower()[0] == {"V22": 9}, "the slots wholly behind the open switch"
    quiet = kept(walk(site), lambda slot: 0 if slot in range(50, 61) else noisy(slot))
    judge_site({"F1": quiet}, site)
    assert ("V22" in quiet.said.judged, "V22" in quiet.said.counts) == (True, False)


# Statistics


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_the_spread_is_the_median_distance(values: list[float]) -> None:
    values.sort()
    middle = values[len(values) // 2]
    away = sorted(abs(v - middle) for v in values)
    assert spread(values, middle) == away[len(values) // 2]


def test_a_change_that_stays_is_told_until_it_is_the_usual() -> None:
    day = 86_400 // SLOT
    values = array("d", [0.1 if i < 20 * day else 0.2 for i in range(60 * day)])
    for place in range(0, len(values), 7):
        values[place] = float("nan")
    found, judged = changes(values, 14 * day, SLOT, [Window(86_400, 4, 0.005)], 0.001)
    days = {one.last // day for one in found}
    assert judged
    assert min(days) == 20
    assert max(days) in range(34, 37), "half of the history later it is the usual"
    assert changes(values[: 9 * day], 5 * day, SLOT, [Window(86_400, 4, 0.005)], 0.001) == ([], False)


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(-9, 9)), min_size=6, max_size=6), min_size=1, max_size=5))
def test_the_common_movement_is_the_median_of_the_others(columns: list[list[int | None]]) -> None:
    nan = float("nan")
    rows = [array("d", [nan if c[k] is None else float(c[k] or 0) for c in columns]) for k in range(6)]
    take_off_common(rows)
    for place, column in enumerate(columns):
        for k, value in enumerate(column):
            others = [v for j, v in enumerate(column) if j != k and v is not None]
            if value is not None and len(others) >= 4:
                assert rows[k][place] == value - median(others)
            else:
                assert rows[k][place] != rows[k][place]


def test_the_history_begins_with_the_records() -> None:
    early = Around(SLOT, START, START + SLOT, frozenset())
    assert early.since_s == START
    late = Around(SLOT, START, START + SLOT, frozenset())
    for _ in late.watch([Record({"ty": "genesis", "at": 5000}, "", "")]):
        pass
    assert late.since_s == START - 31 * 86_400
