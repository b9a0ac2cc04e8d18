"""Each rule of plausibility that the verifier judges, on whole bundles: doubt, grade and table; and hostile figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from bundle_kit import IMPORT, MAP, SLOT, SLOTS, START, Doc, Site, codes, doubts, frames, fresh, gap, good_site, judged
from vouch_kit import balance, papers

from verifier.plausible import around, said
from verifier.plausible.rules import RULES
from verifier.report import Report
from wire.energy import interval_wh

STEP = 25_000
Change = Callable[[Site], None]


@pytest.fixture(scope="module")
def template() -> Site:
    made = good_site(witnessed=True)
    for point in ("M1", "M2"):
        papers(made, point)
        registers(made, [STEP] * SLOTS, point)
    return made


@pytest.fixture
def site(template: Site) -> Site:
    return fresh(template)


def registers(site: Site, steps: list[int], point: str = "M1") -> None:
    """An integer register that moves by these Wh, a few more or less in each slot."""
    docs = site.streams[f"mp:{point}"]
    how = MAP | {"enc": "u32", "lsb": {"num": 1, "den": 1}}
    docs[0]["pts"] = docs[0]["pts"] | {IMPORT: how}
    stand = 1_000_000
    for number, step in enumerate(steps):
        doc = docs[number + 1]
        exported = doc["reg"]["energy_export_wh"]
        after = stand + (step + 37 * (number % 5) if step else 0)
        doc["reg"] = {IMPORT: [stand, after], "energy_export_wh": exported}
        doc["raw"], doc["wh"] = frames(after, exported[1]), interval_wh(stand, after, how)
        if "raw0" in doc:
            doc["raw0"] = frames(stand, exported[0])
        stand = after


def intervals(site: Site, slots: Iterable[int], point: str = "M1") -> list[Doc]:
    return [site.streams[f"mp:{point}"][slot + 1] for slot in slots]


def table(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.to_json())["plausibility"]
    return found


def with_steps(**steps: int) -> list[int]:
    return [steps.get(f"s{slot}", STEP) for slot in range(SLOTS)]


# what is changed, each in a bundle that is otherwise intact


def high_by_contract(site: Site) -> None:
    site.register["sites"][0]["contracted_w"] = 110_000  # 30,250 Wh a slot
    registers(site, with_steps(s5=31_000, s6=31_000))


def high_by_ratings(site: Site) -> None:
    bind = site.streams["mp:M1"][0]
    bind["passport"] = bind["passport"] | {"nominal_kw": "90.5"}  # 27,150 Wh a slot
    registers(site, with_steps(s5=27_100, s6=27_200))


def zero_while_power_flows(site: Site) -> None:
    registers(site, with_steps(s6=0))
    for slot, doc in enumerate(intervals(site, range(SLOTS))):
        doc["pi"] = {"wh": STEP + 10 * slot, "n": 900, "gap_ms": 0}


def zero_while_machines_draw(site: Site) -> None:
    registers(site, with_steps(s6=0), "M2")
    balance(site, 6, tol_wh=30_000, asic=[{"mp": "M2", "seen": 2, "expected": 2, "wh": 24_000}])


def spike(site: Site) -> None:
    registers(site, with_steps(s6=90_000))


def stands_still(site: Site) -> None:
    for doc in intervals(site, (3, 4)):
        doc["q"] = ["frozen"]


def profile_differs(site: Site) -> None:
    site.anchored = False
    cfg = site.signed().lines["mp:M1"][0].hash.hex()
    slot = intervals(site, [4])[0]
    told = {"t0": slot["t0"], "t1": slot["t1"], "wh": slot["wh"] + 500, "src": "profile", "cfg": cfg}
    site.add("mp:M1", "archive", START + SLOTS * SLOT + 10, told)


def clock_is_off(site: Site) -> None:
    for doc in intervals(site, (2, 3)):
        doc["mto"] = -61_000


def clock_of_another_zone(site: Site) -> None:
    for doc in intervals(site, range(SLOTS)):
        doc["mto"] = 3_600_300


PH: Doc = {"n": 90, "u": [230_000, 231_000, 229_000], "i": [5000, 5100, 4900], "p": [1100, 1100, 1100]}
PH |= {"iu": [0, 0, 0], "neg": [0, 0, 0]}


def phases(site: Site, slots: Iterable[int], **changes: Any) -> None:
    for doc in intervals(site, range(SLOTS)):
        doc["ph"] = dict(PH)
    for doc in intervals(site, slots):
        doc["ph"] = PH | changes


def phase_lost(site: Site) -> None:
    phases(site, (4, 5, 6), u=[230_000, 0, 229_000])


def current_alone(site: Site) -> None:
    phases(site, [4], iu=[0, 9, 0])


def phase_backwards(site: Site) -> None:
    phases(site, [4], neg=[0, 45, 0], p=[1100, -1100, 1100])


def export(site: Site) -> None:
    site.streams["mp:M1"][0]["boundary"] = False


def out_of_balance(site: Site) -> None:
    # residual: what is left of 90 Wh of losses
    registers(site, with_steps(s6=20_000), "M2")
    for slot in range(SLOTS):
        balance(site, slot, tol_wh=1000)


def counters(site: Site, before: Doc, after: Doc) -> None:
    for slot, doc in enumerate(intervals(site, range(SLOTS))):
        doc["ev"] = before if slot < 5 else after


def cover_opened(site: Site) -> None:
    counters(site, {"cover_open": 3, "power_off": 1}, {"cover_open": 4, "power_off": 1})


def counter_falls(site: Site) -> None:
    counters(site, {"power_off": 7}, {"power_off": 0})


def long_gap(site: Site) -> None:
    docs = site.streams["mp:M1"]
    steps = [doc["reg"][IMPORT] for doc in docs[1:]]
    gap(site, "mp:M1", range(3, 8))
    docs[9]["bridge_wh"] = steps[8][0] - steps[2][1]


CASES: list[tuple[Change, str, str, str, dict[str, int]]] = [
    (high_by_contract, "V06", "V06", "M1", {"V06": 2}),
    (high_by_ratings, "V06", "V06", "M1", {"V06": 1}),
    (zero_while_power_flows, "V07", "V07", "M1", {"V07": 1}),
    (zero_while_machines_draw, "V07", "V07", "M2", {"V07": 1}),
    (spike, "V08", "V08", "M1", {"V08": 1}),
    (stands_still, "V09", "FROZEN", "M1", {"V09": 2}),
    (profile_differs, "V12", "V12", "M1", {"V12": 1}),
    (clock_is_off, "V13", "V13", "M1", {}),
    (clock_of_another_zone, "V13", "V13", "M1", {}),
    (phase_lost, "V17", "V17", "M1", {"V17": 3}),
    (current_alone, "V17", "V17", "M1", {"V17": 1}),
    (phase_backwards, "V17", "V17", "M1", {"V17": 1}),
    (export, "V18", "V18", "M1", {"V18": 12}),
    (out_of_balance, "V20", "SUSPECT", "M1", {"V20": 1}),
    (cover_opened, "V23", "V23", "M1", {"V23": 1}),
    (counter_falls, "V23", "V23", "M1", {"V23": 1}),
    (long_gap, "V25", "V25", "M1", {}),
]


@pytest.mark.parametrize(
    ("change", "rule", "word", "point", "lowered"), CASES, ids=lambda c: getattr(c, "__name__", "")
)
def test_a_rule_that_is_broken_is_a_doubt_and_lowers_its_slots(
    site: Site, tmp_path: Path, change: Change, rule: str, word: str, point: str, lowered: dict[str, int]
) -> None:
    change(site)
    report = judged(tmp_path, site)
    assert (report.errors, report.exit, doubts(report) - {"UNWITNESSED"}) == ([], 1, {word}), report.to_text()
    found = table(report)
    told = [f for f in found["findings"] if f["severity"] != "warn"]
    assert {(f["rule"], f["point"]) for f in told} == {(rule, point)}
    assert found["table"][rule]["findings"] == len(told)
    assert found["table"][rule]["judged"] >= 1
    after = report.points[point]
    assert after.lowered == lowered
    if not lowered:
        return
    (count,) = lowered.values()
    whole = good_whole(site, tmp_path, point)
    assert after.grades.get("C", 0) == count
    assert after.grades.get("B", 0) == SLOTS - count
    docs = [doc for doc in site.streams[f"mp:{point}"] if doc["ty"] == "interval"]
    held = {t for f in told for t in range(f["from"], f["to"], SLOT)}
    assert after.verified_wh == sum(doc["wh"] for doc in docs if doc["t0"] not in held)
    assert after.wh == whole, "what is doubted stays counted"
    assert f"lowered to C: {count} slots by {rule}" in report.to_text()


def good_whole(site: Site, folder: Path, point: str) -> int:
    return sum(doc["wh"] for doc in site.streams[f"mp:{point}"] if doc["ty"] == "interval")


def test_an_ordinary_bundle_keeps_its_grades_and_says_what_was_not_judged(site: Site, tmp_path: Path) -> None:
    report = judged(tmp_path, site)
    assert (report.exit, report.doubts) == (0, [])
    assert {name: point.grades for name, point in report.points.items()} == {"M1": {"B": SLOTS}, "M2": {"B": SLOTS}}
    found = table(report)
    assert found["rules"] == 1
    assert set(found["table"]) == set(RULES)
    assert found["findings"] == []
    for rule, row in found["table"].items():
        left = sum(why["n"] for why in row["not_judged"].values())
        assert row["judged"] + left == (1 if rule == "V20" else 2), "no rule passes by silence"
    assert found["table"]["V17"]["not_judged"] == {"no values by phase": {"n": 2, "points": ["M1", "M2"]}}
    assert found["table"]["V20"]["not_judged"] == {"no balance": {"n": 1, "points": ["-"]}}
    assert "not judged: no values by phase: 2 (M1, M2)" in report.to_text()


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("V13", {"mto": 6000}),
        ("V23", {"ev": {"power_off": 2, "phase_loss": 1}}),
        ("V24", {"reg": None}),
    ],
)
def test_a_warning_is_shown_and_changes_nothing(site: Site, tmp_path: Path, rule: str, change: Doc) -> None:
    for doc in intervals(site, range(SLOTS)):
        doc["ev"] = {"power_off": 1, "phase_loss": 1}
    for doc in intervals(site, range(5, SLOTS)):
        if "reg" in change:
            doc["reg"], doc["exp_wh"] = {IMPORT: doc["reg"][IMPORT]}, None
        else:
            doc.update(change)
    report = judged(tmp_path, site)
    assert (report.exit, report.doubts) == (0, [])
    assert report.points["M1"].grades == {"B": SLOTS}
    assert [(f["rule"], f["severity"]) for f in table(report)["findings"]] == [(rule, "warn")]


def test_work_that_was_recorded_explains_a_counter(site: Site, tmp_path: Path) -> None:
    cover_opened(site)
    at = START + 5 * SLOT + 100
    site.add(
        "site", "event", at, {"ev": "maintenance", "obj": "d", "now": "begun", "detail": {"until": (at + 60) * 1000}}
    )
    report = judged(tmp_path, site)
    assert (report.exit, report.doubts) == (0, [])
    site.streams["site"].pop()
    site.add("site", "event", at, {"ev": "maintenance", "obj": "other", "now": "begun", "detail": {}})
    assert doubts(judged(tmp_path, site)) == {"V23"}


def test_what_is_signed_near_it_explains_a_step(site: Site, tmp_path: Path) -> None:
    spike(site)
    site.add("site", "event", START + 6 * SLOT, {"ev": "switch_position", "obj": "Q9", "was": "open", "now": "closed"})
    assert judged(tmp_path, site).doubts == []


def test_one_dip_of_a_phase_is_no_lost_phase(site: Site, tmp_path: Path) -> None:
    phases(site, [4], u=[230_000, 90_000, 229_000])
    phases_of = intervals(site, [8])[0]
    phases_of["ph"] = PH | {"u": [230_000, 90_000, 229_000]}
    report = judged(tmp_path, site)
    assert (report.exit, table(report)["table"]["V17"]["judged"]) == (0, 1)


def test_a_register_found_set_back_is_told(site: Site, tmp_path: Path) -> None:
    gap(site, "mp:M1", range(3, 4), why="COUNTER_RESET")
    for name in ("bridge_wh", "bridge_rt", "bridge_reg"):
        del site.streams["mp:M1"][5][name]
    report = judged(tmp_path, site)
    assert (report.exit, doubts(report), codes(report)) == (1, {"V04"}, set())


def test_errors_of_other_checks_are_counted_in_the_table(site: Site, tmp_path: Path) -> None:
    intervals(site, [4])[0]["wh"] += 1
    intervals(site, [4], "M2")[0]["sn"] = "B7"
    report = judged(tmp_path, site)
    assert report.exit == 2
    found = table(report)["table"]
    assert (found["V04 V05"]["findings"], found["V14 V15"]["findings"]) == (1, 1)


def test_the_report_does_not_depend_on_the_number_of_processes(site: Site, tmp_path: Path) -> None:
    for change in (spike, phase_lost, cover_opened, out_of_balance):
        change(site)
    alone, two = judged(tmp_path, site), judged(tmp_path, site, jobs=2)
    assert len(table(alone)["findings"]) >= 4
    assert (alone.to_json(), alone.to_text()) == (two.to_json(), two.to_text())


# Hostile


@pytest.mark.parametrize(
    "asic",
    [
        {"mp": "M2"},
        [1],
        [{"mp": 5, "seen": 1, "expected": 1, "wh": 1}],
        [{"mp": "M2", "seen": "1", "expected": 1, "wh": 1}],
        [{"mp": "M2", "seen": -1, "expected": 1, "wh": 1}],
        [{"mp": "M2", "seen": 1, "expected": 1, "wh": []}],
        [{"mp": "M2", "seen": 1, "expected": 1, "wh": -5}],
    ],
)
def test_other_figures_of_machines_are_an_error(site: Site, tmp_path: Path, asic: Any) -> None:
    balance(site, 6, asic=asic)
    report = judged(tmp_path, site)
    assert (report.exit, codes(report)) == (2, {"BALANCE"})


@pytest.mark.parametrize(
    ("name", "value"), [("mto", "12"), ("mto", True), ("pi", []), ("pi", {"wh": None, "gap_ms": 0})]
)
def test_other_fields_are_an_error(site: Site, tmp_path: Path, name: str, value: Any) -> None:
    intervals(site, [4])[0][name] = value
    report = judged(tmp_path, site)
    assert (report.exit, codes(report)) == (2, {"DECODE"})
    assert report.points["M1"].grades["X"] == 1


def test_the_largest_numbers_are_judged_like_others(site: Site, tmp_path: Path) -> None:
    largest = 2**53 - 1
    balance(site, 6, asic=[{"mp": "M2", "seen": largest, "expected": largest, "wh": largest}])
    for doc in intervals(site, range(SLOTS)):
        doc["ph"] = {"n": largest, **{k: [largest] * 3 for k in ("u", "i", "p", "iu", "neg")}}
        doc["ev"] = dict.fromkeys(("reset", "programmed"), largest)
        doc["pi"] = {"wh": -largest, "n": 1, "gap_ms": largest}
        doc["mto"] = -largest
    report = judged(tmp_path, site)
    assert report.exit == 1
    assert {"V13", "V17"} <= doubts(report)


@pytest.mark.parametrize(
    ("name", "asic", "mains"),
    [("MOST_FEEDERS", ["M1", "M2"], [["M1"]]), ("MOST_BALANCES", [], [["M1"], ["M1", "X"]]), ("MOST_SLOTS", [], [])],
)
def test_what_would_exhaust_a_machine_ends_the_run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, asic: list[str], mains: list[list[str]]
) -> None:
    monkeypatch.setattr(around, name, 1)
    for slot, main in enumerate(mains):
        balance(site, slot, main=main, asic=[{"mp": mp, "seen": 1, "expected": 1, "wh": 1} for mp in asic])
    report = judged(tmp_path, site)
    assert (report.exit, codes(report)) == (3, {"LIMIT"})


def test_many_findings_are_counted_and_few_are_listed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(said, "LISTED", 2)
    for doc in intervals(site, range(0, SLOTS, 2)):
        doc["mto"] = 100_000
    report = judged(tmp_path, site)
    found = table(report)
    assert found["table"]["V13"]["findings"] == SLOTS // 2
    assert len(found["findings"]) == 2
    assert len(report.doubts) == 1
    assert report.doubts[0].endswith(f"; {SLOTS // 2 - 1} more")


def test_machines_behind_unknown_points_are_not_kept(site: Site, tmp_path: Path) -> None:
    many = [{"mp": f"Z{i}", "seen": 1, "expected": 1, "wh": 1} for i in range(800)]
    balance(site, 6, asic=many)
    assert judged(tmp_path, site).exit == 0
