"""What lifts a slot to A, the metrological axis, and balances that have to be the sums of their slots."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import bundle_kit
import pytest
from bundle_kit import SLOT, SLOTS, START, Site, codes, doubts, fresh, gap, good_site, judged
from vouch_kit import PAPERS, balance, enrol, papers, reading, spot

from config.devices import Passport as ConfigPassport
from config.rules.passports import Status
from config.rules.passports import status as config_status
from verifier.metrology import STATUSES, Passport, quarter
from wire.keys import SigningKey

DAY = 86_400
PHASE = {"phase": "a", "serial": "1"}


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


@pytest.fixture
def site(template: Site) -> Site:
    made = fresh(template)
    papers(made)
    return made


@pytest.fixture
def inspector(site: Site) -> SigningKey:
    key = SigningKey.generate()
    enrol(site, key)
    return key


# A


def test_an_inspectors_reading_makes_the_quarter_a(site: Site, inspector: SigningKey, tmp_path: Path) -> None:
    spot(site, inspector)
    report = judged(tmp_path, site)
    assert (report.exit, codes(report), report.doubts) == (0, set(), [])
    assert report.points["M1"].grades == {"A": SLOTS}
    assert report.points["M2"].grades == {"B": SLOTS}
    assert report.points["M1"].without_spot == []
    assert report.points["M2"].without_spot == [quarter(START)]
    assert report.points["M1"].verified_wh == report.points["M1"].wh
    assert "Б. Инспектор" in report.to_text()
    assert f"no spot reading from outside the site in {quarter(START)}" in report.to_text()
    assert judged(tmp_path, site, jobs=2).to_json() == report.to_json()


@pytest.mark.parametrize(
    ("role", "change", "signed"),
    [
        ("site", {}, True),
        ("gateway", {}, True),
        ("regulator", {"rights": ["mode"]}, False),
        ("regulator", {"sites": ["other"]}, False),
        ("regulator", {"valid_to": START * 1000}, False),
        ("grid_company", {"sites": [], "zones": ["south"]}, False),
    ],
)
def test_whoever_belongs_to_the_site_or_has_no_right_lifts_nothing(
    site: Site, tmp_path: Path, role: str, change: dict[str, Any], signed: bool
) -> None:
    key = SigningKey.generate()
    enrol(site, key, role=role, **change)
    spot(site, key)
    report = judged(tmp_path, site)
    assert report.points["M1"].grades == {"B": SLOTS}
    assert report.points["M1"].spots[0]["signed"] is signed
    assert report.points["M1"].spots[0]["independent"] is False
    assert report.points["M1"].without_spot != []
    assert doubts(report) == (set() if signed else {"SPOT"})


def test_the_zone_is_enough_and_a_revoked_key_is_not(site: Site, tmp_path: Path) -> None:
    key = SigningKey.generate()
    enrol(site, key, role="grid_company", sites=[], zones=["north"])
    spot(site, key)
    assert judged(tmp_path, site).points["M1"].grades == {"A": SLOTS}
    site.register["revoked"] = [{"kid": key.kid, "at": START * 1000, "reason": "lost"}]
    assert judged(tmp_path, site).points["M1"].grades == {"B": SLOTS}


def test_an_unsigned_reading_is_shown_as_such_and_lifts_nothing(site: Site, tmp_path: Path) -> None:
    spot(site, None)
    report = judged(tmp_path, site)
    assert (report.exit, report.points["M1"].grades) == (0, {"B": SLOTS})
    assert "UNSIGNED" in report.to_text()


def test_a_display_that_the_register_contradicts_lifts_nothing(
    site: Site, inspector: SigningKey, tmp_path: Path
) -> None:
    spot(site, inspector, display_wh=8_100)
    report = judged(tmp_path, site)
    assert (codes(report), doubts(report), report.exit) == (set(), {"SPOT"}, 1)
    assert report.points["M1"].grades == {"B": SLOTS}


def test_a_reading_of_another_quarter_lifts_nothing(site: Site, inspector: SigningKey, tmp_path: Path) -> None:
    record = spot(site, inspector)
    site.streams["mp:M1"].remove(record)
    assert judged(tmp_path, site).points["M1"].grades == {"B": SLOTS}
    assert quarter(START) != quarter(START + 100 * DAY)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"diff_wh": 7}, "SPOT"),
        ({"cfg": "0" * 64}, "BIND"),
        ({"point": "M2"}, "BIND"),
        ({"seals": ["9999"]}, "SPOT"),
        ({"seen": START * 1000 + 1}, "SPOT"),
        ({"sn": "B2"}, "SPOT"),
        ({"photo_sha256": None}, "SPOT"),
        ({"act": "bm8="}, "SPOT"),
        ({"raw": []}, "DECODE"),
    ],
)
def test_a_record_that_says_otherwise_than_its_proofs_fails(
    site: Site, inspector: SigningKey, tmp_path: Path, change: dict[str, Any], code: str
) -> None:
    spot(site, inspector)
    next(doc for doc in site.streams["mp:M1"] if doc["ty"] == "spot").update(change)
    report = judged(tmp_path, site)
    assert codes(report) == {code}
    assert report.points["M1"].grades.get("A") is None


def test_a_register_that_does_not_lie_between_its_neighbours_fails(
    site: Site, inspector: SigningKey, tmp_path: Path
) -> None:
    docs = site.streams["mp:M1"]
    record = spot(site, inspector, after=4)
    docs.remove(record)
    docs.insert(9, record)  # read with the time of the fifth slot, written after the eighth
    assert "REGISTER_DISCONTINUITY" in codes(judged(tmp_path, site))
    docs.remove(record)
    docs.insert(2, record | {"rt": (START + SLOT + 100) * 1000, "at": (START + SLOT + 101) * 1000})
    assert "REGISTER_DISCONTINUITY" in codes(judged(tmp_path, site))


# V26


def judged_with(folder: Path, site: Site, *readings: bytes) -> Any:
    files = []
    for number, data in enumerate(readings):
        files.append(folder / f"independent-{number}.json")
        files[-1].write_bytes(data)
    return judged(folder, site, independent=files)


@pytest.fixture
def operator(site: Site) -> SigningKey:
    key = SigningKey.generate()
    enrol(site, key, role="system_operator")
    return key


def energy(site: Site, slots: range) -> int:
    return sum(d["wh"] for d in site.streams["mp:M1"] if d["ty"] == "interval" and (d["t0"] - START) // SLOT in slots)


def test_the_operators_own_reading_lifts_the_slots_it_covers(site: Site, operator: SigningKey, tmp_path: Path) -> None:
    span = {"from": START + 2 * SLOT, "to": START + 8 * SLOT}
    report = judged_with(tmp_path, site, reading(operator, wh=energy(site, range(2, 8)) + 3, **span))
    assert (report.exit, report.doubts) == (0, [])
    assert report.points["M1"].grades == {"A": 6, "B": SLOTS - 6}
    (told,) = report.points["M1"].independent
    assert (told["agrees"], told["source"]) == (True, "ASKUE")


def test_a_reading_that_differs_is_a_doubt_and_lifts_nothing(site: Site, operator: SigningKey, tmp_path: Path) -> None:
    span = {"from": START, "to": START + SLOTS * SLOT}
    report = judged_with(tmp_path, site, reading(operator, wh=energy(site, range(SLOTS)) * 10 // 9, **span))
    assert (report.exit, doubts(report)) == (1, {"INDEPENDENT"})
    assert report.points["M1"].grades == {"B": SLOTS}
    assert "DIFFERS" in report.to_text()


def test_over_a_gap_the_bridge_counts_and_a_missing_slot_cannot_be_compared(
    site: Site, operator: SigningKey, tmp_path: Path
) -> None:
    span = {"from": START, "to": START + SLOTS * SLOT}
    whole = energy(site, range(SLOTS))
    gap(site, "mp:M1", range(4, 6))
    report = judged_with(tmp_path, site, reading(operator, wh=whole, **span))
    assert report.points["M1"].grades == {"A": SLOTS - 2, "R": 2}
    assert doubts(report) == set()
    half = {"from": START, "to": START + 5 * SLOT}
    report = judged_with(tmp_path, site, reading(operator, wh=1, **half))
    assert doubts(report) == {"INDEPENDENT"}
    assert report.points["M1"].independent[0]["agrees"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"site": "other"},
        {"point": "M9"},
        {"from": START + 1},
        {"to": START},
        {"wh": -1},
        {"wh": "1"},
        {"v": 2},
        {"x": 1},
    ],
)
def test_a_reading_of_something_else_cannot_be_believed(
    site: Site, operator: SigningKey, tmp_path: Path, change: dict[str, Any]
) -> None:
    assert judged_with(tmp_path, site, reading(operator, **change)).exit == 3


def test_only_the_system_operator_gives_such_readings(site: Site, inspector: SigningKey, tmp_path: Path) -> None:
    for key in (inspector, SigningKey.generate()):
        assert judged_with(tmp_path, site, reading(key)).exit == 3
    assert judged_with(tmp_path, site, b"{").exit == 3


# The other axis


def test_expired_transformers_change_the_status_on_that_day_and_no_energy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate ends in the middle: kWh as before, the status changes at midnight, the verified sum falls."""
    slots = 48
    monkeypatch.setattr(bundle_kit, "SLOTS", slots)
    site = good_site(witnessed=True, slots=range(slots))
    site.last = START + slots * SLOT
    key = SigningKey.generate()
    enrol(site, key)
    papers(site)
    spot(site, key)
    before = judged(tmp_path, site).points["M1"]
    assert before.status == {"valid": {"slots": slots, "wh": before.wh}}
    assert (before.grades, before.verified_wh) == ({"A": slots}, before.wh)

    midnight = datetime(2026, 9, 22, tzinfo=ZoneInfo("Asia/Almaty"))
    good = (int(midnight.timestamp()) - START) // SLOT
    assert 0 < good < slots
    papers(site, ct=PAPERS["ct"] | {"expires": "2026-09-21"})
    report = judged(tmp_path, site)
    after = report.points["M1"]
    assert (after.wh, after.exp_wh, after.bridged_wh) == (before.wh, before.exp_wh, before.bridged_wh)
    wh = energy(site, range(good))
    assert after.status == {
        "ct_vt_expired": {"slots": slots - good, "wh": after.wh - wh},
        "valid": {"slots": good, "wh": wh},
    }
    assert (after.grades, after.verified_wh) == ({"A": good, "B": slots - good}, wh)
    assert (report.exit, report.doubts) == (0, [])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "valid"),
        ({"expires": "2026-01-01"}, "verification_expired"),
        ({"expires": None}, "passport_incomplete"),
        ({"ct": {"num": 600, "den": 5, "expires": "2026-01-01"}}, "ct_vt_expired"),
        ({"ct": {"num": 600, "den": 5}}, "passport_incomplete"),
        ({"ct": {"num": 600, "den": 5, "phases": [PHASE | {"expires": "2026-01-01"}]}}, "ct_vt_expired"),
        ({"ct": {"num": 600, "den": 5, "phases": [PHASE]}}, "passport_incomplete"),
        ({"vt": {"num": 10, "den": 1, "expires": "2030-01-01"}}, "valid"),
        ({"ratio_checked": None}, "ratio_unconfirmed"),
        ({"ratio_checked": {"date": "2030-01-01", "by": "x"}}, "ratio_unconfirmed"),
        ({"seals": [{"no": "1", "broken": True}]}, "seal_broken"),
        ({"seals": [{"no": "1", "broken": True, "date": "2030-01-01"}]}, "valid"),
        ({"seals": [{"no": "1", "broken": True}], "expires": "2026-01-01"}, "seal_broken"),
    ],
)  # fmt: skip
def test_status_is_what_the_site_file_s_own_rule_says(change: dict[str, Any], status: str) -> None:
    """Two implementations of one rule: the verifier's and the one that agents and reports use."""
    doc = {name: value for name, value in (PAPERS | change).items() if value is not None}
    written = {name: value for name, value in doc.items() if name != "passport"}
    own = ConfigPassport.model_validate_json(json.dumps(written))
    assert config_status(own, START, registered=True).status == status
    assert Passport({"passport": doc, "ratio_applied_in": "agent"}, registered=True).status(START) == status
    assert Passport({"passport": doc}, registered=False).status(START) == "not_in_register"


def test_the_names_are_those_of_the_site_file() -> None:
    assert tuple(str(status) for status in Status) == STATUSES


def test_a_meter_that_is_set_to_other_ratios_is_unconfirmed(site: Site, tmp_path: Path) -> None:
    site.streams["mp:M1"][0]["ct_read"] = {"num": 120, "den": 1}  # the agent applies it too
    report = judged(tmp_path, site)
    assert set(report.points["M1"].status) == {"ratio_unconfirmed"}
    assert report.points["M1"].verified_wh == 0


# Balances


def test_balances_that_add_up_say_nothing(site: Site, tmp_path: Path) -> None:
    gap(site, "mp:M2", range(3, 4))
    for slot in range(SLOTS):
        balance(site, slot)
    assert site.streams["bal"][3]["missing"] == ["M2"]
    report = judged(tmp_path, site)
    assert (codes(report), doubts(report)) == (set(), set())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"main_wh": 1}, "DELTA"),
        ({"main_wh": 20_000, "residual_wh": 20_000 - 3_297 - 90}, "BALANCE"),
        ({"missing": ["M1"]}, "BALANCE"),
        ({"missing": ["M9"]}, "BALANCE"),
        ({"missing": ["M2"], "feeders_wh": None, "loss_wh": None, "residual_wh": None, "tol_wh": None}, "BALANCE"),
        ({"feeders": ["M1"]}, "BALANCE"),
        ({"feeders": "M2"}, "BALANCE"),
        ({"tol_wh": None}, "DELTA"),
        ({"tol_wh": -1}, "DELTA"),
        ({"loss_wh": "90"}, "DELTA"),
        ({"loss_wh": None}, "DELTA"),
        ({"t0": START + 1}, "SLOT"),
        ({"t0": START + 2 * SLOT, "t1": START + 3 * SLOT}, "SLOT"),
    ],
)
def test_a_balance_that_its_slots_contradict_fails(
    site: Site, tmp_path: Path, change: dict[str, Any], code: str
) -> None:
    for slot in (2, 3):
        balance(site, slot)
    site.streams["bal"][1].update(change)
    report = judged(tmp_path, site)
    assert code in codes(report), report.errors
    assert report.exit == 2


def test_a_transit_point_is_taken_off(site: Site, tmp_path: Path) -> None:
    body = balance(site, 2)
    main = body["main_wh"] - body["feeders_wh"]
    body.update({"transit": ["M2"], "feeders": [], "main_wh": main, "feeders_wh": 0, "residual_wh": main - 90})
    assert codes(judged(tmp_path, site)) == set()


def test_what_no_meter_sees_is_asked_about_once(site: Site, tmp_path: Path) -> None:
    for slot in range(SLOTS):
        balance(site, slot, tol_wh=150)
    report = judged(tmp_path, site)
    (doubt,) = report.doubts
    assert doubt.startswith(f"SUSPECT balance: {SLOTS} of {SLOTS} slots")
