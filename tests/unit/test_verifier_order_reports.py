"""Attack 41: a report of an order that does not follow from its trace and the meter's slots, whoever signed it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_kit import SLOT, SLOTS, Site, codes, doubts, f32, fresh, good_site, interval, judged
from order_kit import ID, RX, WATT, make_order, with_order

from wire.obedience import Facts, report


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


@pytest.fixture
def site(template: Site) -> Site:
    return with_order(fresh(template))


def told(site: Site) -> dict[str, Any]:
    found = site.streams["cmd"][-1]
    assert found["ty"] == "cmd_report"
    return found


def errors(folder: Path, site: Site) -> list[str]:
    report = judged(folder, site)
    assert (report.exit, codes(report)) == (2, {"COMMAND"}), [error.line() for error in report.errors]
    return [str(error) for error in report.errors]


def test_a_report_that_follows_is_recomputed(site: Site, tmp_path: Path) -> None:
    assert (told(site)["method"], told(site)["verdict"]) == ("interval_slot", "obeyed")
    found = judged(tmp_path, site)
    assert (found.exit, found.reports, codes(found)) == (0, 1, set()), found.to_text()
    assert "1 reports recomputed" in found.to_text()
    assert judged(tmp_path, site, jobs=2).to_json() == found.to_json()


IMPROVED: dict[str, Any] = {
    "basis": "instant_1min",
    "method": "trace_1min",
    "point": "M2",
    "before_w": 60_000,
    "target_w": 30_000,
    "grace_s": 900,
    "begin": RX * 1000 + 1,
    "end": RX * 1000 + 60_000,
    "parts": 1,
    "slots_n": 1,
    "baseline": {"before_after": {"b_w": 1, "n": 1}, "same_day_3_2": None, "high_4_of_5": None, "lacking": {}},
    "delivered_permille": 1001,
    "shortfall_wh": 1,
    "t50_ms": 1,
    "t90_ms": 1,
    "t100_ms": 1,
    "mw": {"m1_w": 1, "m5_w": WATT, "m15_w": WATT},
    "hold_permille": True,
    "overshoot_w": 1,
    "rebound_w": 1,
    "missing_permille": False,
    "excuses": ["saon"],
    "verdict": "not_due",
}


@pytest.mark.parametrize("name", IMPROVED)
def test_attack_41_a_report_improved_by_hand_and_signed_with_the_sites_own_key(
    site: Site, tmp_path: Path, name: str
) -> None:
    """The kit signs every record anew with K_rec, as a thief of that key would: chain and signatures are good."""
    assert told(site)[name] != IMPROVED[name] or isinstance(IMPROVED[name], bool)
    told(site)[name] = IMPROVED[name]
    assert len(errors(tmp_path, site)) == 1


def test_attack_41_every_field_of_a_report_is_covered(site: Site) -> None:
    common = {"v", "log", "st", "n", "p", "a", "ty", "at", "mono", "boot", "clk", "fw"}
    assert told(site).keys() - common == IMPROVED.keys() | {"id", "contracted_w"}


def spoil(site: Site, change: Callable[[list[dict[str, Any]]], object]) -> None:
    change(site.streams["cmd"])


OTHERS: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "a report twice": lambda docs: docs.append(dict(docs[-1])),
    "of another order": lambda docs: docs[-1].update(id="01912345-0000-7000-8000-0000000000cc"),
    "of an order refused": lambda docs: next(d for d in docs if d["ty"] == "cmd_ack" and d["id"] == ID).update(
        state="rejected"
    ),
    "a part left out": lambda docs: docs.remove(next(d for d in docs if d.get("part") == 3)),
    "a part of another point": lambda docs: next(d for d in docs if d.get("part") == 3).update(point="M2"),
    "no trace": lambda docs: docs.__setitem__(slice(None), [d for d in docs if d["ty"] != "cmd_trace"]),
    "a power that is no number": lambda docs: next(d for d in docs if d.get("part") == 3)["w"].__setitem__(0, "1"),
    "a state of its own": lambda docs: next(d for d in docs if d.get("part") == 0)["states"].append([5, "good"]),
    "a field too many": lambda docs: docs[-1].update(note="obeyed"),
    "a field too few": lambda docs: docs[-1].pop("rebound_w"),
    "a duty of ages": lambda docs: next(d for d in reversed(docs) if d["ty"] == "cmd_trace").update(
        states=[[10**14, "done"]]
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_attack_41_what_is_no_report_of_this_order_is_refused(site: Site, tmp_path: Path, name: str) -> None:
    spoil(site, OTHERS[name])
    assert errors(tmp_path, site)


UQ = [{"mp": "M1", "of": "phase", "dt": [-5000, 10_000, 15_000], "qlo": [900, -300, None], "qhi": [950, -250, None]}]
UQ[0] |= {"lo": [229_000, 230_500, None], "hi": [231_000, 243_000, None]}


def test_voltage_and_reactive_power_are_recomputed_from_the_trace(template: Site, tmp_path: Path) -> None:
    site = with_order(fresh(template), uq=UQ)
    assert told(site)["uq"][0]["during"] == {"lo_mv": 230_500, "hi_mv": 243_000, "lo_var": -300, "hi_var": -250}
    found = judged(tmp_path, site)
    assert (found.exit, found.reports, codes(found)) == (0, 1, set()), found.to_text()


SUPPLY: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "an overvoltage made smaller": lambda docs: docs[-1]["uq"][0]["during"].update(hi_mv=231_000),
    "reactive export made none": lambda docs: docs[-1]["uq"][0]["during"].update(lo_var=0),
    "unknown told as a figure": lambda docs: docs[-1]["uq"][0]["after"].update(hi_mv=230_000),
    "left out of the report": lambda docs: docs[-1].pop("uq"),
    "true for one": lambda docs: docs[-1]["uq"][0]["during"].update(lo_var=True),
    "a least above the greatest": lambda docs: part0(docs)["uq"][0]["lo"].__setitem__(1, 250_000),
    "columns of two lengths": lambda docs: part0(docs)["uq"][0]["hi"].pop(),
    "a voltage that is no number": lambda docs: part0(docs)["uq"][0]["hi"].__setitem__(0, "231000"),
    "nothing, told as a list": lambda docs: part0(docs).update(uq=[]),
    "of nobody": lambda docs: part0(docs)["uq"][0].update(mp=None),
}


def part0(docs: list[dict[str, Any]]) -> dict[str, Any]:
    return next(doc for doc in docs if doc.get("part") == 0)


@pytest.mark.parametrize("name", SUPPLY)
def test_attack_41_an_altered_voltage_is_found(template: Site, tmp_path: Path, name: str) -> None:
    site = with_order(fresh(template), uq=copy.deepcopy(UQ))
    spoil(site, SUPPLY[name])
    assert errors(tmp_path, site)


def test_slots_that_were_on_record_cannot_be_left_out(template: Site, tmp_path: Path) -> None:
    """Fewer slots would let the trace speak instead of the register."""
    site = with_order(fresh(template))
    short = with_order(fresh(template))
    told(site).update(told(short))
    known = Facts(
        order=make_order(),
        received_ms=RX * 1000,
        point="M1",
        contracted_w=100_000_000,
        before_w=50_000,
        target_w=40_000,
        slot_s=SLOT,
        technological_s=0,
    )
    parts = [doc for doc in site.streams["cmd"] if doc["ty"] == "cmd_trace"]
    told(site).update(report(known, parts, [], (), 1))
    assert told(site)["method"] == "trace_slot"
    assert "left out" in errors(tmp_path, site)[0]


def test_a_meter_that_says_more_than_the_trace_is_believed(template: Site, tmp_path: Path) -> None:
    """The registers of the judged slots are higher than the trace: the report is short, and says so itself."""
    site = fresh(template)
    docs = site.streams["mp:M1"]
    registers = [(f32(1000.1 + 20 * i), 70 + 7 * i) for i in range(SLOTS + 1)]
    for slot in range(SLOTS):
        docs[slot + 1].update(interval(slot, registers, opening=slot == 0))
    with_order(site, order=make_order())
    assert told(site)["verdict"] == "short"
    found = judged(tmp_path, site)
    assert (found.exit, found.reports) == (0, 1), found.to_text()


def test_another_contract_in_the_register_is_a_doubt(site: Site, tmp_path: Path) -> None:
    site.register["sites"][0]["contracted_w"] = 90_000_000
    found = judged(tmp_path, site)
    assert (found.exit, codes(found)) == (1, set())
    assert any("this register says 90000000 W" in doubt for doubt in found.doubts), doubts(found)


def scheduled(template: Site) -> Site:
    return with_order(fresh(template), order=make_order(action="schedule", limit_w=None, hours=[40_000] * 24))


def test_a_schedule_is_recomputed_hour_by_hour(template: Site, tmp_path: Path) -> None:
    site = scheduled(template)
    assert (told(site)["verdict"], told(site)["target_w"]) == ("obeyed", None)
    assert told(site)["hours"]
    found = judged(tmp_path, site)
    assert (found.exit, found.reports, codes(found)) == (0, 1, set()), found.to_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hours", []),
        ("hours", [[RX, 90_000, 1, 1, 1]]),
        ("floor_w", 90_000),
        ("floor_w", -1),
        ("floor_w", "0"),
        ("floor_w", None),
        ("verdict", "short"),
    ],
)
def test_attack_41_a_schedule_cannot_raise_its_own_limits(
    template: Site, tmp_path: Path, name: str, value: object
) -> None:
    site = scheduled(template)
    told(site)[name] = value
    assert errors(tmp_path, site)


def test_another_reservation_in_the_register_is_a_doubt(template: Site, tmp_path: Path) -> None:
    """A floor that follows through all figures is consistent; that the register knows no such reservation is told."""
    site = scheduled(template)
    told(site).update(floor_w=39_000)
    site.register["sites"][0]["emergency_w"] = 36_000
    found = judged(tmp_path, site)
    assert (found.exit, codes(found)) == (1, set())
    assert any("made above 39000 W" in doubt for doubt in found.doubts), doubts(found)
