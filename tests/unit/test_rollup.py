"""Slots put together: signs, qualities, periods of Kazakhstan's time, and nothing invented."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.rollup import (
    LOCAL,
    MISSING,
    Bridge,
    Period,
    Share,
    SlotEnergy,
    SlotQuality,
    Unit,
    bridge_of,
    filled,
    period_of,
    periods,
    share_energy,
    slot_energy,
    total,
    virtual,
    worst,
)

SLOT = 900
Q = SlotQuality


def measured(wh: int, export: int | None = None, quality: SlotQuality = Q.MEASURED) -> SlotEnergy:
    return SlotEnergy(wh, export, quality)


def interval(wh: int, exp: int | None = None, *flags: str) -> dict[str, Any]:
    return {"t0": 0, "t1": SLOT, "wh": wh, "exp_wh": exp, "q": list(flags)}


@pytest.mark.parametrize(
    ("ty", "fields", "inverted", "expected"),
    [
        ("interval", interval(70, 3), False, measured(70, 3)),
        ("interval", interval(70, 3), True, measured(3, 70)),
        ("interval", interval(70), True, MISSING),
        ("interval", interval(70, 3, "late1"), False, measured(70, 3, Q.LATE)),
        ("interval", interval(0, 0, "late0", "frozen"), False, measured(0, 0, Q.DOUBTFUL)),
        ("interval", interval(70, None, "rollover"), False, measured(70)),
        ("gap", {"why": "TIMEOUT"}, False, MISSING),
        ("gap", {"why": "NO_POWER"}, False, MISSING),
        ("gap", {"why": "DE_ENERGISED", "sw": "KM1"}, False, measured(0, 0, Q.DE_ENERGISED)),
        ("gap", {"why": "NO_POWER", "sw": "KM1"}, False, MISSING),
        ("gap", {"why": "NO_POWER", "sw": "KM1", "part_wh": 55}, False, measured(55, None, Q.PARTLY_ENERGISED)),
        ("gap", {"why": "NO_POWER", "sw": "KM1", "part_wh": 55}, True, MISSING),
    ],
)
def test_energy_of_a_record(ty: str, fields: dict[str, Any], inverted: bool, expected: SlotEnergy) -> None:
    assert slot_energy(ty, fields, inverted=inverted) == expected


def test_a_transit_sub_subscriber_is_taken_off() -> None:
    terms = ((1, "M1"), (1, "M2"), (-1, "M7"))
    members = {"M1": measured(1000, 10), "M2": measured(500, 0), "M7": measured(300, 5)}
    assert virtual(terms, members) == SlotEnergy(1200, 5, Q.MEASURED)
    assert virtual(terms, members).net_wh == 1195


@pytest.mark.parametrize(
    ("member", "quality"), [(q, q) for q in Q if q is not Q.MISSING], ids=lambda q: getattr(q, "value", q)
)
def test_the_quality_of_a_sum_is_the_worst_members(member: SlotQuality, quality: SlotQuality) -> None:
    found = virtual(((1, "A"), (1, "B")), {"A": measured(1), "B": measured(2, None, member)})
    assert found.quality is quality
    assert found.import_wh == 3


def test_one_missing_member_makes_the_sum_unknown_and_is_named() -> None:
    found = virtual(((1, "A"), (-1, "B"), (1, "C")), {"A": measured(1), "B": MISSING})
    assert found == SlotEnergy(None, None, Q.MISSING, ("B", "C"))
    assert found.net_wh is None


def test_no_export_register_anywhere_is_no_export_and_not_zero() -> None:
    assert virtual(((1, "A"), (1, "B")), {"A": measured(1), "B": measured(2)}).export_wh is None


def test_worst_of_nothing_is_missing() -> None:
    assert worst([]) is Q.MISSING
    assert worst([Q.LATE, Q.MEASURED]) is Q.LATE


@given(
    st.dictionaries(st.sampled_from("ABCDE"), st.integers(0, 10**9), min_size=1), st.lists(st.booleans(), min_size=5)
)
def test_a_virtual_sum_is_the_signed_sum_exactly(values: dict[str, int], signs: list[bool]) -> None:
    terms = tuple((1 if plus else -1, name) for plus, name in zip(signs, values, strict=False))
    found = virtual(terms, {name: measured(wh) for name, wh in values.items()})
    assert found.import_wh == sum(sign * values[name] for sign, name in terms)


# periods -------------------------------------------------------------------------------------------------------------


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize(
    ("instant", "unit", "start", "end"),
    [
        ("2026-11-21T06:29:59+00:00", "hour", "2026-11-21T06:00:00+00:00", "2026-11-21T07:00:00+00:00"),
        ("2026-11-21T18:59:59+00:00", "day", "2026-11-20T19:00:00+00:00", "2026-11-21T19:00:00+00:00"),
        ("2026-11-21T19:00:00+00:00", "day", "2026-11-21T19:00:00+00:00", "2026-11-22T19:00:00+00:00"),
        ("2026-12-31T19:00:00+00:00", "month", "2026-12-31T19:00:00+00:00", "2027-01-31T19:00:00+00:00"),
        ("2026-12-31T18:59:59+00:00", "quarter", "2026-09-30T19:00:00+00:00", "2026-12-31T19:00:00+00:00"),
        ("2024-02-29T12:00:00+00:00", "day", "2024-02-28T18:00:00+00:00", "2024-02-29T19:00:00+00:00"),
        ("2024-02-29T12:00:00+00:00", "quarter", "2023-12-31T18:00:00+00:00", "2024-03-31T19:00:00+00:00"),
        ("2023-06-01T12:00:00+00:00", "day", "2023-05-31T18:00:00+00:00", "2023-06-01T18:00:00+00:00"),
    ],
)
def test_periods_are_those_of_the_countrys_one_time(instant: str, unit: Unit, start: str, end: str) -> None:
    found = period_of(at(instant), unit)
    assert (found.start_s, found.end_s) == (at(start), at(end))


def test_the_hour_that_came_twice_is_two_hours() -> None:
    hours = list(periods(at("2024-02-29T16:00:00+00:00"), at("2024-02-29T20:00:00+00:00"), "hour"))
    assert len({h.name for h in hours}) == len(hours) == 4
    assert all(h.end_s - h.start_s == 3600 for h in hours)


@given(
    st.integers(at("2022-01-01T00:00:00+00:00"), at("2030-01-01T00:00:00+00:00")),
    st.sampled_from(["day", "month", "quarter"]),
)
def test_periods_follow_each_other_without_a_hole_and_begin_at_local_midnight(t: int, unit: Unit) -> None:
    found = list(periods(t, t + 200 * 86_400, unit))
    assert found[0].start_s <= t < found[0].end_s
    assert all(a.end_s == b.start_s for a, b in pairwise(found))
    for one in found:
        local = datetime.fromtimestamp(one.start_s, UTC).astimezone(LOCAL)
        assert (local.hour, local.minute, local.second) == (0, 0, 0)
        if one.start_s >= at("2024-03-01T00:00:00+05:00"):
            assert local.utcoffset() is not None
            assert one.start_s % 86_400 == 19 * 3600


def test_an_unknown_period_is_refused() -> None:
    with pytest.raises(ValueError, match="week"):
        period_of(0, "week")  # type: ignore[arg-type]  # that is the mistake


# totals --------------------------------------------------------------------------------------------------------------

HOUR = Period("h", 3600, 7200)


def test_a_complete_hour_is_its_slots() -> None:
    slots = {3600 + i * SLOT: measured(10 + i, 1) for i in range(4)}
    found = total(HOUR, SLOT, slots)
    assert (found.import_wh, found.export_wh, found.net_wh) == (46, 4, 42)
    assert found.complete
    assert found.counts[Q.MEASURED] == 4


def test_a_missing_slot_makes_the_hour_unknown_and_the_rest_is_stated() -> None:
    slots = {3600: measured(10), 4500: MISSING, 5400: measured(10)}
    found = total(HOUR, SLOT, slots)
    assert found.import_wh is None
    assert found.known_wh == 20
    assert found.missing == (4500, 6300)
    assert found.counts[Q.MISSING] == 2


def test_a_bridge_within_the_hour_completes_it_and_over_its_edge_it_does_not() -> None:
    slots = {3600: measured(10, 0), 6300: measured(10, 0)}
    inside = total(HOUR, SLOT, slots, [Bridge(4500, 6300, 25)])
    assert inside.import_wh == 45
    assert (inside.bridged_wh, inside.bridged_slots) == (25, 2)
    assert inside.export_wh is None, "nobody bridged the export register"
    across = total(HOUR, SLOT, slots, [Bridge(2700, 6300, 25)])
    assert across.import_wh is None
    assert across.known_wh == 20


def test_an_edge_of_a_switch_off_is_counted_once() -> None:
    slots = {
        3600: measured(40, 0, Q.PARTLY_ENERGISED),
        4500: measured(0, 0, Q.DE_ENERGISED),
        5400: measured(30, 0, Q.PARTLY_ENERGISED),
        6300: measured(90, 0),
    }
    found = total(HOUR, SLOT, slots, [Bridge(3600, 6300, 72)])
    assert found.import_wh == 40 + 30 + 90 + 2
    assert found.bridged_wh == 2, "what flowed between the last reading and the opening"


@given(st.lists(st.none() | st.integers(0, 10**6), min_size=96, max_size=96))
def test_hours_of_a_day_sum_to_the_day(day: list[int | None]) -> None:
    whole = period_of(at("2026-11-21T06:00:00+00:00"), "day")
    slots = {whole.start_s + i * SLOT: MISSING if wh is None else measured(wh) for i, wh in enumerate(day)}
    hours = [total(h, SLOT, slots) for h in periods(whole.start_s, whole.end_s, "hour")]
    found = total(whole, SLOT, slots)
    assert len(hours) == 24
    assert sum(h.known_wh for h in hours) == found.known_wh
    assert (found.import_wh is None) is (None in day)
    if None not in day:
        assert sum(h.import_wh or 0 for h in hours) == found.import_wh
    assert sum(found.counts.values()) == 96


def test_a_period_off_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="grid"):
        total(Period("x", 3601, 7200), SLOT, {})


def test_what_an_interval_states_of_the_gaps_before_it() -> None:
    fields = {"t0": 9000, "bridge_wh": 12, "bridge_rt": 3_600_250}
    assert bridge_of(fields, SLOT) == Bridge(3600, 9000, 12)
    assert bridge_of({"t0": 9000}, SLOT) is None


# shares --------------------------------------------------------------------------------------------------------------


def test_a_share_with_a_load_that_nobody_measures_is_not_known() -> None:
    members = {"A": measured(5), "B": measured(6)}
    assert share_energy(Share("mining", ("A", "B")), members).import_wh == 11
    found = share_energy(Share("mining", ("A", "B"), ("BENCH",)), members)
    assert found.import_wh is None
    assert found.missing == ("BENCH",)


def test_gaps_that_the_meters_profile_tells_are_known_and_the_bridge_is_counted_once() -> None:
    slots = {0: measured(100, 5), 900: MISSING, 1800: MISSING, 2700: measured(100, 5)}
    bridge = Bridge(900, 2700, 300)
    day = Period("x", 0, 3600)
    whole = total(day, 900, filled(slots, [bridge], {900: 120, 1800: 179, 0: 999}, 900, 1), [bridge])
    assert (whole.import_wh, whole.known_wh, whole.profile_wh, whole.bridged_wh) == (500, 499, 299, 1)
    assert whole.missing == ()
    assert whole.counts[Q.PROFILE] == 2
    assert whole.export_wh is None, "a profile tells of import alone"
    half = total(day, 900, filled(slots, [bridge], {900: 120}, 900, 1), [bridge])
    assert (half.import_wh, half.profile_wh, half.bridged_wh, half.bridged_slots) == (500, 120, 180, 1)
    alone = total(day, 900, filled(slots, [], {900: 120, 1800: 179}, 900, 1))
    assert (alone.import_wh, alone.profile_wh) == (499, 299), "no bridge yet"
    unsaid = filled({0: measured(100)}, [], {900: 120}, 900, 1)
    assert 900 not in unsaid, "a slot that no record tells of is not filled"


def test_a_profile_that_has_more_than_the_registers_is_not_believed() -> None:
    slots = {0: measured(100), 900: MISSING, 1800: MISSING, 2700: measured(100)}
    bridge = Bridge(900, 2700, 300)
    found = total(Period("x", 0, 3600), 900, filled(slots, [bridge], {900: 300, 1800: 300}, 900, 1), [bridge])
    assert (found.import_wh, found.profile_wh, found.bridged_wh) == (500, 0, 300)
