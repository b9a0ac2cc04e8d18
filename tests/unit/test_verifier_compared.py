"""What the collector's verdicts hold against points, beside what the verifier finds itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundle_kit import SLOT, SLOTS, START, Doc, Site, fresh, good_site, judged, ordered
from verdict_kit import VerdictLog, finding
from vouch_kit import balance, papers

from verifier.report import Report

END, HALF = START + SLOTS * SLOT, START + SLOTS // 2 * SLOT
NOBODY = "neither the collector nor this verifier holds more than a warning against any point"


@pytest.fixture(scope="module")
def template() -> Site:
    made = good_site(witnessed=True)
    papers(made, "M1")
    papers(made, "M2")
    return made


@pytest.fixture
def site(template: Site) -> Site:
    return fresh(template)


def verify(folder: Path, site: Site, findings: list[Doc], end: int = END) -> Report:
    log = VerdictLog(site)
    log.run(START, end, findings)
    log.checkpoint(END + 1000)
    report = judged(folder, site, ordered(site.files() | log.files()))
    assert report.errors == [], report.to_text()
    return report


def compared(report: Report) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = json.loads(report.to_json())["compared"]
    return {name: pairs for name, pairs in found.items() if pairs}


def stands_still(site: Site, *slots: int, point: str = "M2") -> None:
    for slot in slots:
        site.streams[f"mp:{point}"][slot + 1]["q"] = ["frozen"]


def test_nothing_is_held_against_anybody(site: Site, tmp_path: Path) -> None:
    report = verify(tmp_path, site, [finding(START, START + SLOT, severity="warn")])
    assert (compared(report), report.exit) == ({}, 0)
    assert NOBODY in report.to_text()


def test_without_verdicts_there_is_nothing_to_compare(site: Site, tmp_path: Path) -> None:
    stands_still(site, 2)
    report = judged(tmp_path, site)
    assert "compared" not in json.loads(report.to_json())
    assert "told" not in report.to_text()


def test_each_side_is_named_with_what_it_alone_tells(site: Site, tmp_path: Path) -> None:
    site.register["sites"][0]["contracted_w"] = 30_000
    stands_still(site, 2)
    at = START + 3 * SLOT, START + 4 * SLOT
    rules = ["V06", "V13", "V21", "V99"]
    report = verify(tmp_path, site, [finding(*at, rule=rule, severity="fail") for rule in rules])
    assert compared(report) == {
        "both": [["V06", "M1"]],
        "collector": [["V13", "M1"]],
        "not_judged_here": [["V21", "M1"], ["V99", "M1"]],
        "here": [["V09", "M2"]],
    }
    text = report.to_text()
    assert "told by both: V06 M1" in text
    assert "told by the collector alone: V13 M1" in text
    assert "told by the collector alone, not judged here: V21 M1, V99 M1" in text
    assert "told here alone: V09 M2" in text


def test_the_word_of_the_collector_changes_no_grade_and_its_silence_lifts_none(site: Site, tmp_path: Path) -> None:
    stands_still(site, 2)
    silent = verify(tmp_path, site, [])
    assert silent.points["M2"].grades == {"B": SLOTS - 1, "C": 1}
    assert compared(silent) == {"here": [["V09", "M2"]]}
    loud = verify(tmp_path, site, [finding(START, END, rule="V09", point="M1", severity="fail")])
    assert {name: p.grades for name, p in loud.points.items()} == {name: p.grades for name, p in silent.points.items()}


@pytest.mark.parametrize(("slot", "told"), [(2, {"here": [["V09", "M2"]]}), (SLOTS - 2, {})])
def test_no_silence_is_told_of_time_that_no_run_judged(
    site: Site, tmp_path: Path, slot: int, told: dict[str, list[list[str]]]
) -> None:
    stands_still(site, slot)
    report = verify(tmp_path, site, [], end=HALF)
    assert report.points["M2"].lowered == {"V09": 1}
    assert compared(report) == told


def test_a_balance_is_one_thing_whichever_meter_it_is_told_at(site: Site, tmp_path: Path) -> None:
    for slot in range(SLOTS):
        balance(site, slot, **({"tol_wh": 10} if slot == 5 else {}))
    report = verify(tmp_path, site, [finding(START, END, rule="V20", point="M1")])
    assert compared(report) == {"both": [["V20", "-"]]}
