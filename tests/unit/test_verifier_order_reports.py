"""Attack 41: a report of an order that does not follow from its trace and the meter's slots, whoever signed it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_kit import EPOCH, SITE, SLOT, SLOTS, START, Site, codes, doubts, f32, fresh, good_site, interval, judged

from wire import canonical
from wire.dsse import ORDER_TYPE, seal
from wire.keys import b64
from wire.obedience import Facts, report, slots_of
from wire.orders import Order

ID = "01912345-0000-7000-8000-0000000000bb"
RX = START + 2 * SLOT - 100
WATT = 36_000
"""About what the meter of the kit counts: 9.75 kWh in a slot."""


def make_order(**changes: Any) -> Order:
    fields: dict[str, Any] = {
        "v": 1,
        "id": ID,
        "site": SITE,
        "epoch": EPOCH,
        "seq": 2,
        "action": "limit",
        "limit_w": 40_000,
        "limit_basis": "slot",
        "issued_at": RX * 1000 - 500,
        "execute_by": RX * 1000 + 60_000,
        "expires_at": RX * 1000 + 7_200_000,
        "hold": {"until_released": True},
        "basis": {"code": "test"},
    }
    return Order.model_validate_json(canonical.encode(fields | changes))


def with_order(site: Site, *, order: Order | None = None, end: int = RX + 4 * SLOT) -> Site:
    """An order on M1 that held from RX to ``end``, with its trace and its report."""
    made = order or make_order()
    raw = seal(ORDER_TYPE, made.encode(), site.dispatcher).encode()
    digest = hashlib.sha256(made.encode()).hexdigest()
    site.add("cmd", "cmd_rx", RX, {"id": ID, "digest": digest, "raw": b64(raw), "rx": RX * 1000})
    ack = {"id": ID, "state": "validated", "code": None, "text": "", "order_mode": "live", "agent_mode": "armed"}
    ack |= {"kids": [site.dispatcher.kid], "seq": 2, "before_w": 50_000, "target_w": 40_000}
    site.add("cmd", "cmd_ack", RX, ack)
    states = [[0, "validated"], [0, "executing"], [2000, "holding"]]
    parts = []
    for number, begin in enumerate(range(RX, end, 600)):
        count = min(120, (end - begin) // 5)
        fields = {
            "id": ID,
            "point": "M1",
            "part": number,
            "t0": begin * 1000,
            "dt": [0] + [5000] * (count - 1),
            "w": [WATT] * count,
            "q": [],
            "pos": [],
            "states": states if number == 0 else [],
            "why": [],
        }
        if begin + 600 >= end:
            fields["states"] = [[(end - begin) * 1000, "restoring"], [(end - begin) * 1000, "done"]]
        parts.append(fields)
        site.add("cmd", "cmd_trace", begin + 5 * count, fields)
    known = Facts(
        order=made,
        received_ms=RX * 1000,
        point="M1",
        contracted_w=100_000_000,
        before_w=50_000,
        target_w=40_000,
        slot_s=SLOT,
        technological_s=0,
    )
    records = [(doc["ty"], doc) for doc in site.streams["mp:M1"] if doc["at"] <= end * 1000]
    said = report(known, parts, slots_of(records), (), len(records))
    site.add("cmd", "cmd_report", end + 1, dict(said))
    return site


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
