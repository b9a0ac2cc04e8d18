"""How orders were obeyed: every figure against numbers worked out by hand, and two implementations against each other.

Each case is asked of both, the agent's (``wire.obedience``) and the verifier's.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obedience_kit import (
    STATES,
    T0,
    Point,
    by_agent,
    by_verifier,
    facts,
    obedient,
    order,
    part,
    steady,
)

from wire.obedience import Facts, Slot, slots_of

HOUR = 3600
T0_S = T0 // 1000


def told(
    known: Facts, parts: Sequence[dict[str, Any]], slots: Sequence[Slot] = (), taken: Iterable[int] = ()
) -> dict[str, Any]:
    """The report, which both sides have to give alike."""
    found = by_agent(known, parts, slots, taken)
    assert by_verifier(known, parts, slots, taken) == found
    return dict(found)


def held(watt: int | None, minutes: int = 20, *, states: list[tuple[int, str]] | None = None) -> list[dict[str, Any]]:
    """100 kW before; at once ``watt``, for so many minutes."""
    ends = [*STATES[:5], (minutes * 60, "restoring"), (minutes * 60, "done")]
    points = steady(-900, 0, 100_000) + steady(0, minutes * 60 + 1, watt)
    return [part(points, ends if states is None else states)]


def test_an_order_obeyed_has_exactly_these_figures() -> None:
    assert told(facts(), obedient()) == {
        "id": order().id,
        "basis": "instant_1min",
        "method": "trace_1min",
        "point": "M0",
        "contracted_w": 200_000,
        "before_w": 100_000,
        "target_w": 40_000,
        "grace_s": 60,
        "begin": T0,
        "end": T0 + 1_200_000,
        "parts": 3,
        "slots_n": 0,
        "baseline": {
            "before_after": {"b_w": 100_000, "n": 120},
            "same_day_3_2": None,
            "high_4_of_5": None,
            "lacking": {"same_day_3_2": "hours_before_missing", "high_4_of_5": "too_few_days"},
        },
        "delivered_permille": 1000,
        "shortfall_wh": 0,
        "t50_ms": 10_000,
        "t90_ms": 20_000,
        "t100_ms": 30_000,
        # (10 s · 100 kW + 10 s · 70 kW + 10 s · 46 kW + 30 s · 40 kW) / 60 s
        "mw": {"m1_w": 56_000, "m5_w": 40_000, "m15_w": 40_000},
        "hold_permille": 1000,
        "overshoot_w": 0,
        "rebound_w": 1_500,
        "missing_permille": 0,
        "excuses": [],
        "verdict": "obeyed",
    }


@pytest.mark.parametrize(
    ("watt", "hold", "delivered", "shortfall", "verdict"),
    [
        (30_000, 1000, 1000, 0, "obeyed"),  # more than ordered counts as ordered
        (40_000, 1000, 1000, 0, "obeyed"),
        # 2 % above the limit: 40.8 kW, and 59.2 of 60 kW are 98.6 %. 0.8 kW · 19 min = 253 Wh above all the same.
        (40_800, 1000, 986, 253, "obeyed"),
        (40_801, 0, 986, 253, "short"),
        (70_000, 0, 500, 9_500, "short"),
        (100_000, 0, 0, 19_000, "short"),
        (120_000, 0, 0, 25_333, "short"),
    ],
)
def test_the_bar_is_two_percent_and_the_shortfall_is_energy(
    watt: int, hold: int, delivered: int, shortfall: int, verdict: str
) -> None:
    found = told(facts(), held(watt))
    assert (found["hold_permille"], found["delivered_permille"], found["shortfall_wh"], found["verdict"]) == (
        hold,
        delivered,
        shortfall,
        verdict,
    )


def test_two_percent_of_a_large_limit_are_too_much_for_a_small_reduction() -> None:
    known = facts(order(limit_w=90_000), target_w=90_000)
    assert told(known, held(90_500))["verdict"] == "obeyed"  # 9.5 of 10 kW
    short = told(known, held(90_501))
    assert (short["verdict"], short["delivered_permille"], short["hold_permille"]) == ("short", 949, 0)


def test_the_orders_own_tolerance_is_allowed_and_is_no_shortfall() -> None:
    found = told(facts(order(tolerance_w=5_000)), held(45_000))
    assert (found["verdict"], found["shortfall_wh"], found["t100_ms"]) == ("obeyed", 0, 0)


def test_depth_below_the_target_and_return_above_what_was() -> None:
    found = told(facts(), held(31_000))
    assert (found["overshoot_w"], found["rebound_w"]) == (9_000, None)


def test_what_was_not_measured_is_missing_and_not_obeyed() -> None:
    hole = [part(steady(-900, 0, 100_000) + steady(0, 300, 40_000) + steady(900, 1201, 40_000), STATES)]
    found = told(facts(), hole)
    # Minutes 5 to 14 of the 19 (the first 15 s of minute 5 stand for the sample before them).
    assert (found["missing_permille"], found["hold_permille"], found["verdict"]) == (526, 1000, "unknown")
    assert found["mw"] == {"m1_w": 40_000, "m5_w": 40_000, "m15_w": None}
    assert found["excuses"] == ["no_meter"]


def test_what_is_known_to_be_short_is_short_however_much_is_missing() -> None:
    points = steady(-900, 0, 100_000) + steady(0, 300, 99_000) + steady(900, 1201, 40_000)
    assert told(facts(), [part(points, STATES)])["verdict"] == "short"


def test_a_minute_needs_45_seconds() -> None:
    for seconds, missing in ((30, 0), (29, 52)):  # 30 s of samples, and the last one stands for 15 s
        cut = [s for s in steady(0, 1201, 40_000, 1) if not 300 + seconds < s[0] < 360]
        found = told(facts(), [part(steady(-900, 0, 100_000) + cut, STATES)])
        assert found["missing_permille"] == missing, seconds


def test_unknown_power_ends_what_a_sample_stands_for() -> None:
    points = steady(-900, 0, 100_000) + steady(0, 300, 40_000) + steady(300, 600, None) + steady(600, 1201, 40_000)
    found = told(facts(), [part(points, STATES)])
    assert found["missing_permille"] == 5 * 1000 // 19


def test_a_blind_site_promises_nothing() -> None:
    found = told(facts(before_w=None), held(None))
    assert found["verdict"] == "unknown"
    assert found["excuses"] == ["no_meter"]
    figures = ("delivered_permille", "shortfall_wh", "t50_ms", "t90_ms", "t100_ms", "hold_permille", "overshoot_w")
    assert {name: found[name] for name in figures} == dict.fromkeys(figures)
    assert found["missing_permille"] == 1000


def test_three_samples_in_a_row_make_a_fall() -> None:
    flicker = [(0, 100_000), (1, 40_000), (2, 40_000), (3, 90_000), (4, 40_000), (5, 40_000), (6, 40_000)]
    found = told(facts(), [part(flicker + steady(7, 1201, 40_000), STATES)])
    assert (found["t50_ms"], found["t90_ms"], found["t100_ms"]) == (4_000, 4_000, 4_000)


def test_never_reached_is_null() -> None:
    found = told(facts(), held(60_000))
    assert (found["t50_ms"], found["t90_ms"], found["t100_ms"]) == (0, None, None)


def test_nothing_was_due_from_an_order_that_never_began() -> None:
    for states in ([(0, "validated"), (5, "cancelled")], [(0, "validated"), (900, "expired")]):
        found = told(facts(), held(100_000, states=states))
        assert found["verdict"] == "not_due"


def test_nothing_was_due_within_the_grace() -> None:
    assert told(facts(), held(100_000, 1))["verdict"] == "not_due"
    assert told(facts(), held(100_000, 2))["verdict"] == "short"


def test_the_ramp_and_a_stops_own_time_are_given() -> None:
    ramp = facts(order(ramp_w_per_min=10_000))
    assert told(ramp, held(40_000))["grace_s"] == 60 + 6 * 60
    stop = facts(order("stop"), technological_s=600)
    assert told(stop, held(40_000))["grace_s"] == 600
    later = facts(order(not_before=T0 + 300_000))
    found = told(later, held(40_000))
    assert (found["begin"], found["mw"]["m1_w"], found["missing_permille"]) == (T0 + 300_000, 40_000, 0)


def test_a_clock_set_back_does_not_count_twice() -> None:
    points = steady(-900, 0, 100_000) + steady(0, 600, 40_000)
    again = part(steady(300, 600, 99_000) + steady(600, 1201, 40_000), STATES, number=1)
    assert told(facts(), [part(points), again])["hold_permille"] == 1000


def test_every_excuse_has_its_own_ground() -> None:
    reasons = [(5, "KM1", "tag"), (6, "", "saon"), (7, "", "unsafe_cooling"), (8, "KM2", "not_commissioned")]
    one = part(steady(-900, 1201, 99_000), STATES, reasons=[*reasons, (9, "KM1", "local_override"), (10, "KM1", "tag")])
    late = facts(order(issued_at=T0 - 60_001, limit_w=39_999))
    assert told(late, [one])["excuses"] == [
        "local_override",
        "not_commissioned",
        "not_delivered",
        "reservation",
        "saon",
        "tag",
        "unsafe_cooling",
    ]
    raised = (
        facts(order(limit_w=None, permille=199)),  # 39.8 kW of 200 kW
        facts(order("reduce", reduce_w=60_001)),
        facts(order("reduce", permille=301)),
    )
    assert [told(known, held(40_000))["excuses"] for known in raised] == [["reservation"]] * 3
    assert told(facts(order("reduce", permille=300)), held(40_000))["excuses"] == []


def test_feeders_are_judged_by_their_positions() -> None:
    known = facts(order("open_feeders", feeders=["KM1", "KM2"]), target_w=None)
    shut = [(-1, "KM1", "closed"), (-1, "KM2", "closed"), (3, "KM1", "open")]
    for more, verdict in (
        ([(4, "KM2", "open")], "obeyed"),
        ([], "short"),
        ([(4, "KM2", "unknown")], "unknown"),
        ([(4, "KM2", "open"), (600, "KM2", "closed")], "short"),
        ([(4, "KM2", "open"), (1300, "KM2", "closed")], "obeyed"),
    ):
        one = part(steady(-900, 1260, 50_000), STATES, positions=shut + more)
        found = told(known, [one])
        assert (found["verdict"], found["hold_permille"], found["delivered_permille"]) == (verdict, None, None), more


# energies ------------------------------------------------------------------------------------------------------------


def slots(first_h: int, last_h: int, watt: int, *, slot_s: int = 900) -> list[Slot]:
    """Slots of steady power over hours relative to the order's."""
    begin, end = T0_S + first_h * HOUR, T0_S + last_h * HOUR
    return [Slot(t, t + slot_s, watt * slot_s // HOUR) for t in range(begin, end, slot_s)]


def test_energy_of_slots_and_hours_is_that_of_the_registers() -> None:
    states = [*STATES[:5], (2 * HOUR, "restoring")]
    trace = held(90_000, 120, states=states)
    after = slots(0, 2, 40_000)
    found = told(facts(order(limit_basis="slot")), trace, after)
    # Seven whole slots after the first minute: the slot in which the order came is not whole.
    assert (found["method"], found["hold_permille"], found["verdict"]) == ("interval_slot", 1000, "obeyed")
    hourly = facts(order(limit_basis="hour_energy", escalation={"to": "none", "after_s": 1}))
    found = told(hourly, trace, after)
    assert (found["method"], found["hold_permille"], found["missing_permille"]) == ("interval_hour", 1000, 0)
    lost = [Slot(s.t0, s.t1, None) if s.t0 == T0_S + HOUR else s for s in after]
    assert told(hourly, trace, lost)["verdict"] == "unknown"
    short = told(facts(order(limit_basis="slot")), trace, slots(0, 2, 50_000))
    assert (short["shortfall_wh"], short["verdict"]) == (7 * 2_500, "short")
    alone = told(facts(order(limit_basis="slot")), trace)
    assert (alone["method"], alone["shortfall_wh"], alone["verdict"]) == ("trace_slot", 7 * 12_500, "short")


def test_same_day_takes_three_hours_before_and_two_after_and_skips_one_on_each_side() -> None:
    # The order took 20 minutes of hour 0; skipped are hours -1 and 1, taken -4 to -2, 2 and 3.
    hours = {-4: 100_000, -3: 101_000, -2: 102_000, -1: 7, 0: 7, 1: 7, 2: 103_000, 3: 94_001}
    found: list[Slot] = []
    for hour, watt in hours.items():
        found += slots(hour, hour + 1, watt, slot_s=HOUR)
    baseline = told(facts(), obedient(), found)["baseline"]
    assert baseline["same_day_3_2"] == {"b_w": 500_001 // 5, "n": 5}
    assert told(facts(), obedient(), found[:-1])["baseline"]["lacking"]["same_day_3_2"] == "hours_after_missing"


def test_the_four_highest_of_five_like_days_without_orders() -> None:
    # T0 is a Monday: like days are 3 (Friday) to 7 and 10 back; 1, 2, 8 and 9 are weekends.
    watts = {3: 10_000, 4: 20_000, 5: 30_000, 6: 40_000, 7: 50_000, 10: 60_000} | dict.fromkeys((1, 2, 8, 9), 99_000)
    found: list[Slot] = []
    for back, watt in watts.items():
        found += slots(-24 * back, -24 * back + 1, watt)
    day = (T0_S + 18_000) // 86_400
    figures = told(facts(), obedient(), found)["baseline"]
    assert figures["high_4_of_5"] == {"b_w": (20_000 + 30_000 + 40_000 + 50_000) // 4, "n": 4}
    figures = told(facts(), obedient(), found, [day - 4])["baseline"]
    assert figures["high_4_of_5"] == {"b_w": (30_000 + 40_000 + 50_000 + 60_000) // 4, "n": 4}
    assert told(facts(), obedient(), found, [day - 4, day - 5])["baseline"]["lacking"]["high_4_of_5"] == "too_few_days"


def test_slots_are_import_minus_export_as_the_meter_is_wired() -> None:
    interval = {"t0": 0, "t1": 900, "wh": 100, "exp_wh": 30, "q": []}
    rows: list[tuple[str, dict[str, Any]]] = [
        ("bind", {"inverted": False}),
        ("interval", interval),
        ("interval", interval | {"t0": 900, "t1": 1800, "exp_wh": None, "q": ["late0"]}),
        ("interval", interval | {"t0": 1800, "t1": 2700, "q": ["frozen"]}),
        ("gap", {"t0": 2700, "t1": 3600}),
        ("bind", {"inverted": True}),
        ("interval", interval | {"t0": 3600, "t1": 4500}),
    ]
    assert [slot.net_wh for slot in slots_of(rows)] == [70, 100, None, None, -70]


# schedules -----------------------------------------------------------------------------------------------------------


def scheduled(limits: Sequence[int], *, floor_w: int = 0, **changes: Any) -> Facts:
    """A schedule whose first hours, from that of T0 on, have these limits; 90 kW in all others."""
    hours = [90_000] * 24
    for after, watt in enumerate(limits):
        hours[(19 + after) % 24] = watt
    return facts(order("schedule", hours=hours, **changes), target_w=None, floor_w=floor_w)


def day_of(*watts: int | None) -> list[dict[str, Any]]:
    """100 kW before, then one power an hour."""
    points = steady(-900, 0, 100_000)
    for hour, watt in enumerate(watts):
        points += steady(hour * HOUR, (hour + 1) * HOUR, watt)
    return [part(points, [(0, "executing"), (30, "holding"), (len(watts) * HOUR, "restoring")])]


@pytest.mark.parametrize(
    ("watts", "verdict", "met"),
    [
        ((40_000, 60_000, 30_000), "obeyed", [59, 60, 59]),
        ((40_000, 60_000, 60_000), "short", [59, 60, 0]),  # the third hour keeps the limit of the second
        ((40_000, None, 30_000), "unknown", [59, 0, 59]),
        ((50_000, None, 30_000), "short", [0, 0, 59]),
        ((30_000, 30_000, 30_000), "obeyed", [59, 60, 59]),
    ],
)
def test_every_hour_of_a_schedule_is_judged_by_its_own_limit(
    watts: tuple[int | None, ...], verdict: str, met: list[int]
) -> None:
    found = told(scheduled([40_000, 60_000, 30_000]), day_of(*watts))
    known = [0 if watt is None else count for watt, count in zip(watts, (59, 60, 59), strict=True)]
    assert found["verdict"] == verdict
    assert found["hours"] == [
        [T0_S + hour * HOUR, limit, count, known[hour], met[hour]]
        for hour, (limit, count) in enumerate(((40_000, 59), (60_000, 60), (30_000, 59)))
    ]
    assert (found["floor_w"], found["target_w"], found["t100_ms"]) == (0, None, None)


def test_a_bad_hour_is_not_hidden_by_many_good_ones() -> None:
    found = told(scheduled([40_000] * 22), day_of(*([40_000] * 21), 60_000))
    assert found["verdict"] == "short"
    assert found["hold_permille"] == (22 * 60 - 1 - 60) * 1000 // (22 * 60 - 1)


def test_the_figures_of_a_schedule_are_sums_over_its_hours() -> None:
    found = told(scheduled([40_000, 60_000]), day_of(40_000, 70_000))
    asked, gave = 59 * 60_000 + 60 * 40_000, 59 * 60_000 + 60 * 30_000
    assert found["delivered_permille"] == gave * 1000 // asked
    assert (found["shortfall_wh"], found["overshoot_w"]) == (10_000, 0)
    assert told(scheduled([40_000, 60_000]), day_of(25_000, 70_000))["overshoot_w"] == 15_000


def test_a_stricter_hour_has_its_grace_by_power_and_none_by_energy() -> None:
    slow = scheduled([90_000, 30_000], ramp_w_per_min=20_000)
    found = told(slow, day_of(90_000, 30_000))
    # One minute to begin with, and the 60 kW of the second hour at 20 kW a minute: three more.
    assert [row[2] for row in found["hours"]] == [59, 56]
    whole = scheduled([90_000, 30_000], limit_basis="hour_energy", escalation={"to": "none", "after_s": 1})
    assert [row[2] for row in told(whole, day_of(90_000, 30_000, 90_000))["hours"]] == [1, 1]


def test_the_reservation_is_the_floor_of_every_hour() -> None:
    found = told(scheduled([20_000, 60_000], floor_w=36_000), day_of(36_000, 60_000))
    assert (found["verdict"], found["excuses"], found["hours"][0][1]) == ("obeyed", ["reservation"], 36_000)
    assert told(scheduled([60_000, 60_000], floor_w=36_000), day_of(36_000, 60_000))["excuses"] == []


def test_a_report_from_before_hours_were_judged_stays_what_it_was() -> None:
    old = facts(scheduled([40_000]).order, target_w=None)
    found = told(old, day_of(90_000))
    assert (found["verdict"], found["hold_permille"], "hours" in found) == ("unknown", None, False)


# agent and verifier --------------------------------------------------------------------------------------------------

WATTS = st.one_of(st.none(), st.integers(-20_000, 130_000), st.sampled_from([40_000, 40_800, 40_801, 46_000, 70_000]))
STATE = st.sampled_from(["validated", "executing", "verifying", "holding", "failed", "restoring", "superseded", "done"])


@st.composite
def traces(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    at = -900
    for number in range(draw(st.integers(1, 4))):
        points: list[Point] = []
        for step, run, watt in draw(
            st.lists(st.tuples(st.integers(-3, 40), st.integers(1, 40), WATTS), min_size=0, max_size=8)
        ):
            for _ in range(run):
                at += step
                points.append((at, watt))
        states = [(draw(st.integers(-5, 2000)), draw(STATE)) for _ in range(draw(st.integers(0, 4)))]
        positions = draw(
            st.lists(st.tuples(st.integers(-9, 2000), st.sampled_from(["KM1", "KM2"]),
                               st.sampled_from(["open", "closed", "unknown", "moving"])), max_size=4)
        )  # fmt: skip
        codes = st.sampled_from(["tag", "saon", "local_override"])
        reasons = [(at, "KM1", code) for code in draw(st.lists(codes, max_size=2))]
        found.append(part(points, states, number=number, positions=positions, reasons=reasons))
        at += draw(st.integers(0, 600))
    return found


@st.composite
def orders(draw: st.DrawFn) -> Facts:
    watt = st.integers(0, 120_000)
    action = draw(st.sampled_from(["limit", "reduce", "stop", "open_feeders", "schedule"]))
    amounts: dict[str, Any] = {
        "limit": draw(st.sampled_from([{"limit_w": 40_000}, {"permille": 150}])),
        "reduce": draw(st.sampled_from([{"reduce_w": 60_000}, {"permille": 700}])),
        "stop": {},
        "open_feeders": {"feeders": ["KM1", "KM2"]},
        "schedule": {"hours": draw(st.lists(st.sampled_from([30_000, 40_000, 90_000]), min_size=24, max_size=24))},
    }[action]
    made = order(
        action,
        limit_basis=draw(st.sampled_from(["instant_1min", "slot", "hour_energy"])),
        tolerance_w=draw(st.sampled_from([0, 2_000])),
        escalation={"to": "none", "after_s": draw(st.integers(1, 200))},
        issued_at=T0 - draw(st.sampled_from([0, 60_000, 60_001])),
        **({"ramp_w_per_min": draw(st.integers(1, 200_000))} if draw(st.booleans()) else {}),
        **({"not_before": T0 + draw(st.integers(0, 500_000))} if draw(st.booleans()) else {}),
        **amounts,
    )
    return facts(
        made,
        before_w=draw(st.one_of(st.none(), watt)),
        target_w=None if action in {"open_feeders", "schedule"} else draw(st.one_of(st.none(), watt)),
        floor_w=draw(st.sampled_from([None, 0, 35_000])) if action == "schedule" else None,
        slot_s=draw(st.sampled_from([60, 300, 900])),
        technological_s=draw(st.sampled_from([0, 600])),
        received_ms=T0 + draw(st.sampled_from([0, 0, 50 * 60_000])) + draw(st.integers(0, 999)),
    )


@settings(max_examples=100, deadline=None)
@given(known=orders(), parts=traces(), seed=st.integers(0, 2**32), hours=st.integers(0, 60))
def test_agent_and_verifier_give_the_same_figures(
    known: Facts, parts: list[dict[str, Any]], seed: int, hours: int
) -> None:
    chances, found = random.Random(seed), []
    for back in [0, *range(1, 12)] if hours else []:
        for t in range(T0_S - back * 86_400 - hours % 7 * HOUR, T0_S - back * 86_400 + 4 * HOUR, known.slot_s):
            chance = chances.random()
            if chance > 0.02:
                found.append(Slot(t, t + known.slot_s, None if chance < 0.03 else chances.randrange(-5, 30_000)))
    day = T0_S // 86_400
    told(known, parts, found, {day - d for d in range(1, 20) if chances.random() < 0.2})
