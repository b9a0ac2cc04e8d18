"""Metrological status by slot, and what the check of a site file says about papers."""

from __future__ import annotations

from datetime import date, datetime
from fractions import Fraction
from typing import Any

import pytest
import yaml

from config.check import check
from config.devices import Passport
from config.rules.passports import Status, days_left, local_day, ratio_agrees, status
from config.site import Site
from tests.unit.agent_kit import EXAMPLE

DAY = date(2026, 11, 21)
GOOD: dict[str, Any] = {
    "expires": "2028-05-01",
    "ct": {
        "num": 600,
        "den": 5,
        "phases": [
            {"phase": p, "serial": f"T{p}", "accuracy_class": "0.2S", "burden_va": 5, "expires": "2030-01-01"}
            for p in "abc"
        ],
    },
    "ratio_checked": {"date": "2026-01-10", "by": "A. Serik", "act": "17"},
    "seals": [{"no": "0001", "place": "terminal cover", "by": "Energosbyt", "date": "2026-01-10"}],
}


def noon(day: str = "2026-11-21") -> int:
    return int(datetime.fromisoformat(f"{day}T12:00:00+05:00").timestamp())


def changed(**more: Any) -> Passport:
    doc = yaml.safe_load(yaml.safe_dump(GOOD))
    for path, value in more.items():
        target: Any = doc
        *parents, last = path.split("__")
        for key in parents:
            target = target[int(key)] if isinstance(target, list) else target[key]
        target[last] = value
    return Passport.model_validate(doc)


@pytest.mark.parametrize(
    ("change", "asked", "expected"),
    [
        ({}, {}, Status.VALID),
        ({}, {"registered": True, "ratio_agrees": True}, Status.VALID),
        ({"expires": "2026-11-20"}, {}, Status.VERIFICATION_EXPIRED),
        ({"expires": "2026-11-21"}, {}, Status.VALID),
        ({"ct__phases__1__expires": "2026-11-20"}, {}, Status.CT_VT_EXPIRED),
        ({"ct__expires": "2026-11-20"}, {}, Status.CT_VT_EXPIRED),
        ({"seals__0__broken": True}, {}, Status.SEAL_BROKEN),
        ({"seals__0__broken": True, "seals__0__date": "2026-12-01"}, {}, Status.VALID),
        ({"ratio_checked": None}, {}, Status.RATIO_UNCONFIRMED),
        ({"ratio_checked": None}, {"ratio_agrees": True}, Status.VALID),
        ({"ratio_checked": {"date": "2026-12-01", "by": "x"}}, {}, Status.RATIO_UNCONFIRMED),
        ({}, {"ratio_agrees": False}, Status.RATIO_UNCONFIRMED),
        ({}, {"registered": False}, Status.NOT_IN_REGISTER),
        ({"expires": None}, {}, Status.PASSPORT_INCOMPLETE),
        ({"ct__phases__0__expires": None}, {}, Status.PASSPORT_INCOMPLETE),
        ({"expires": "2026-11-20", "seals__0__broken": True}, {"registered": False}, Status.NOT_IN_REGISTER),
    ],
)
def test_status_of_a_slot(change: dict[str, Any], asked: dict[str, Any], expected: Status) -> None:
    found = status(changed(**change), noon(), **asked)
    assert found.status is expected
    assert (found.reasons == ()) is (expected is Status.VALID)


def test_every_reason_is_named_the_worst_first() -> None:
    found = status(changed(expires="2026-11-20", seals__0__broken=True), noon(), registered=False)
    assert [s for s, _ in found.reasons] == [Status.NOT_IN_REGISTER, Status.SEAL_BROKEN, Status.VERIFICATION_EXPIRED]
    assert "2026-11-20" in found.reasons[2][1]


def test_a_certificate_ends_with_its_day_in_kazakhstan() -> None:
    last = int(datetime.fromisoformat("2026-11-20T23:45:00+05:00").timestamp())
    passport = changed(expires="2026-11-20")
    assert status(passport, last).status is Status.VALID
    assert status(passport, last + 900).status is Status.VERIFICATION_EXPIRED
    assert local_day(last) == date(2026, 11, 20)


def test_an_empty_passport_is_not_valid() -> None:
    assert status(Passport(), noon()).status is Status.PASSPORT_INCOMPLETE


@pytest.mark.parametrize(
    ("applied", "ct", "vt", "expected"),
    [
        ("meter", 120, None, True),
        ("meter", 80, None, False),
        ("meter", None, None, None),
        ("meter", 120, 100, True),
        ("meter", 120, 1, False),
        ("agent", 1, 1, True),
        ("agent", 120, 1, False),
        ("both", 120, 1, True),
        ("both", 120, 100, False),
    ],
)
def test_ratios_of_the_meter_are_held_against_the_passport(
    applied: str, ct: int | None, vt: int | None, expected: bool | None
) -> None:
    passport = changed(ratio_applied_in=applied, vt={"num": 10_000, "den": 100})
    read = [None if ratio is None else Fraction(ratio) for ratio in (ct, vt)]
    assert ratio_agrees(passport, read[0], read[1]) is expected


@pytest.mark.parametrize(
    ("expires", "left"),
    [("2026-11-20", -1), ("2026-11-21", 0), ("2027-02-19", 90), ("2027-02-20", None)],
)
def test_papers_that_end_within_ninety_days(expires: str, left: int | None) -> None:
    found = days_left(changed(expires=expires), DAY)
    assert [n for _, n in found] == ([] if left is None else [left])


def test_a_seal_may_be_written_as_its_number_alone() -> None:
    assert [s.no for s in Passport.model_validate({"seals": ["77", {"no": "78"}]}).seals] == ["77", "78"]


def site_with(passport: dict[str, Any], other: dict[str, Any] | None = None) -> Site:
    doc = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    doc["metering_points"][0]["passport"] = passport
    if other is not None:
        doc["metering_points"][1]["passport"] = other
    return Site.model_validate(doc)


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        ("2026-11-01", "a date that has not passed"),
        ("2026-11-27", "more than 7 days"),
        ("2026-12-15", "more than 30 days"),
        ("2027-02-01", "more than 90 days"),
    ],
)
def test_the_check_warns_of_dates_and_never_forbids_the_file(expires: str, expected: str) -> None:
    result = check(site_with({**GOOD, "expires": expires}), today=DAY)
    assert result.ok
    found = [p for p in result.warnings if p.where == "metering_points[0].passport.expires"]
    assert [p.expected for p in found] == [expected]
    assert "M0" in found[0].seen


def test_without_a_day_nothing_is_said_of_dates() -> None:
    result = check(site_with({**GOOD, "expires": "2020-01-01"}))
    assert [p for p in result.warnings if "passport" in p.where] == []


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"ct__phases__1__num": 400}, "phase b with 400:5"),
        ({"ct__phases__1__phase": "a"}, "phase a twice"),
        ({"ct__phases__1__serial": "Tc"}, "transformer Tc at two places"),
    ],
)
def test_transformers_that_cannot_be_are_errors(change: dict[str, Any], seen: str) -> None:
    doc = changed(**change).model_dump(mode="json")
    result = check(site_with(doc))
    assert [p.seen for p in result.errors] == [seen]


def test_one_transformer_at_two_points_is_an_error() -> None:
    result = check(site_with(GOOD, GOOD))
    assert {p.seen for p in result.errors} == {f"transformer T{p} at two places" for p in "abc"}
