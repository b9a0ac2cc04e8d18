"""Judgement of an opening, the plan it is compared with, and what a person may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import SystemClock
from agent.commissioning.judge import Seen, judge, mute, needed_w, seen, too_small
from agent.commissioning.papers import check_meter, wrong
from agent.commissioning.plan import Plan, above, make_plan, owner_of
from agent.commissioning.request import read_wish, what
from agent.live import LiveState
from config.check import check
from config.graph import Graph
from config.site import Site
from drivers.capabilities import Reading, Sample
from wire.errors import WireError
from wire.quality import Quality

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
PLAN = Plan("KM1", "auto", "0" * 64, ("KM1",), 84_000, "M1", "M1", ("M0", "M1"), ("M2", "M3"), (), 10.0)
BEFORE = {"M0": Seen(100_000), "M1": Seen(10_000), "M2": Seen(20_000), "M3": Seen(5000)}


def after(**powers: int | None) -> dict[str, Seen]:
    return BEFORE | {"M1": Seen(0)} | {p: Seen(w) for p, w in powers.items()}


@pytest.mark.parametrize(
    ("changed", "fell", "moved", "why"),
    [
        ({}, 10_000, (), ""),
        ({"M0": 90_000}, 10_000, (), ""),
        ({"M0": 0}, 10_000, (), ""),
        ({"M1": 2000}, 8000, (), ""),
        ({"M1": 2001}, 7999, (), "fell by 7999 W, expected 10000 W"),
        ({"M1": 10_500}, 0, (), "fell by 0 W"),
        ({"M1": None}, 0, (), "M1 does not say"),
        ({"M2": 19_000}, 10_000, (), ""),
        ({"M2": 18_999}, 10_000, ("M2",), "M2 fell by 1001 W"),
        ({"M3": 6001}, 10_000, ("M3",), "M3 rose by 1001 W"),
        ({"M2": None}, 10_000, ("M2",), "M2 went silent"),
        ({"M1": 10_000, "M2": 10_000}, 0, ("M2",), "M1 fell by 0 W"),
    ],
)
def test_what_the_meters_do_is_judged(
    changed: dict[str, int | None], fell: int, moved: tuple[str, ...], why: str
) -> None:
    verdict = judge(PLAN, 10_000, BEFORE, after(**changed))
    assert (verdict.seen_w, verdict.moved) == (fell, moved)
    assert why in "; ".join(verdict.why)
    assert bool(verdict.why) is bool(why)


@given(
    expected=st.integers(50, 10**9),
    share=st.floats(0, 3, allow_nan=False),
    other=st.integers(-(10**9), 10**9),
)
def test_only_a_fall_that_the_gate_takes_passes(expected: int, share: float, other: int) -> None:
    fall = round(expected * share)
    before = {"M1": Seen(2 * expected), "M2": Seen(0), "M3": Seen(0)}
    verdict = judge(PLAN, expected, before, {"M1": Seen(2 * expected - fall), "M2": Seen(other), "M3": Seen(0)})
    good = 0.8 * expected <= fall <= 1.2 * expected and abs(other) <= 0.1 * expected
    assert (not verdict.why) is good


def test_a_load_that_drowns_in_what_meters_do_by_themselves_proves_nothing() -> None:
    calm = BEFORE
    restless = BEFORE | {"M2": Seen(20_000, 300)}
    assert too_small(PLAN, 60, calm) is None
    assert "too little" in (too_small(PLAN, 49, calm) or "")
    assert "M2 moves by 300 W" in (too_small(PLAN, 2999, restless) or "")
    assert too_small(PLAN, needed_w(PLAN, restless), restless) is None
    assert too_small(PLAN, 60, BEFORE | {"M0": Seen(100_000, 9000)}) is None, "what is above may move as it likes"


def test_samples_are_their_median() -> None:
    assert seen((5, 900, 7)) == Seen(7, 895)
    assert seen(()) == Seen(None)
    assert mute(PLAN, {"M1": Seen(5), "M2": Seen(None)}) == ("M2", "M3")


# the plan ------------------------------------------------------------------------------------------------------------


def small(**changes: Any) -> Site:
    doc = yaml.safe_load((EXAMPLES / "small.yaml").read_text(encoding="utf-8"))
    return Site.model_validate(doc | changes)


def plan_of(site: Site, output: str, **how: Any) -> Plan:
    graph = Graph(site)
    return make_plan(site, graph, check(site), graph.normal_positions(), output, fingerprint="", **how)


def test_the_plan_says_which_meters_may_move() -> None:
    plan = plan_of(small(), "KM1")
    assert (plan.meter, plan.feeder) == ("M1", "M1")
    assert "M0" in plan.falls
    assert plan.still == ("M2", "M3", "M4")
    assert {"KM1", "BOARD1", "MINERS1"} <= set(plan.dark)


def test_a_meter_is_left_out_only_by_name_and_never_the_one_that_proves() -> None:
    assert plan_of(small(), "KM1", without=("M2", "M4")).still == ("M3",)
    for wrong_one in ("M1", "M9"):
        with pytest.raises(ValueError, match=wrong_one):
            plan_of(small(), "KM1", without=(wrong_one,))


@pytest.mark.parametrize("output", ["QF0", "QF3", "nothing"])
def test_what_is_no_output_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match=output):
        plan_of(small(), output)


def test_every_output_of_the_large_site_has_a_plan_and_its_meter_an_owner() -> None:
    site = Site.model_validate(yaml.safe_load((EXAMPLES / "mw100.yaml").read_text(encoding="utf-8")))
    graph, verdict = Graph(site), check(site)
    positions = graph.normal_positions()
    usable = [o for o in verdict.outputs if o.usable and o.proved_by]
    assert usable
    for known in usable:
        plan = make_plan(site, graph, verdict, positions, known.id, fingerprint="")
        assert not set(plan.still) & set(plan.falls)
        assert set(above(graph, known.id, positions)) <= graph.energised(positions)
        if plan.feeder is not None:
            assert owner_of(site, graph, verdict, plan.feeder) == known.id


# meters and papers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("display_wh", "paper", "said"),
    [
        (None, None, None),
        (12_345_900, "S1", None),
        (12_500_000, None, "display 12500000 Wh, register 12345600 Wh"),
        (None, "S2", "serial S1, on paper S2"),
    ],
)
def test_a_meter_is_compared_with_display_and_paper(
    display_wh: int | None, paper: str | None, said: str | None
) -> None:
    site = small()
    point = next(p for p in site.metering_points if p.id == "M1")
    point = point.model_copy(update={"passport": point.passport.model_copy(update={"meter_serial": paper})})
    live = LiveState(site, SystemClock("host"))
    readings = {"energy_import_wh": Reading(12_345_600.0, Quality.GOOD), "serial_number": Reading("S1", Quality.GOOD)}
    live.put_sample(Sample(point.device, 1, 1, readings))
    found = check_meter(site, live, point, None, display_wh)
    assert found["phase_sequence"] is None
    told = wrong(found)
    assert (told is None) is (said is None)
    assert (said or "") in (told or "")


# requests ------------------------------------------------------------------------------------------------------------

GOOD = {"do": "begin", "output": "KM1", "persons": ["A", "B"]}


def test_a_request_is_read() -> None:
    wish = read_wish(GOOD | {"awake": 3, "displays": [["M1", 5]], "without": ["M2"]})
    assert (wish.output, wish.persons, wish.awake, wish.displays) == ("KM1", ("A", "B"), 3, (("M1", 5),))


@pytest.mark.parametrize(
    "changes",
    [
        {"output": ""},
        {"output": "K" * 65},
        {"output": 5},
        {"persons": ["A"]},
        {"persons": ["A", " A "]},
        {"persons": "AB"},
        {"persons": ["A"] * 9},
        {"awake": -1},
        {"awake": True},
        {"awake": 1.5},
        {"live_load": "yes"},
        {"without": [1]},
        {"displays": [["M1"]]},
        {"displays": [["M1", -1]]},
        {"displays": [["M1", True]]},
        {"displays": "M1"},
        {"patience_s": 0},
        {"return_s": 10**9},
        {"note": "n" * 301},
    ],
)
def test_a_request_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="commission"):
        read_wish(GOOD | changes)


@given(st.dictionaries(st.sampled_from([*GOOD, "awake", "displays", "without"]), st.none() | st.text() | st.integers()))
def test_hostile_requests_end_in_a_refusal(doc: dict[str, Any]) -> None:
    try:
        if what(doc) != "plan":
            read_wish(doc)
    except WireError:
        pass
