"""Each rule of plausibility against slots that break it, slots that do not, and nothing to look at."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from central.pages.findings import explanations
from central.pages.texts import LANGUAGES, load_all
from central.vee.events import TEXTS
from central.vee.judge import RULES, judge
from central.vee.limits import CURRENT, load, versions
from central.vee.model import (
    IMPORT,
    Archived,
    Balance,
    Bind,
    Finding,
    Held,
    Machines,
    Point,
    Reading,
    SiteSlots,
    Slot,
    Spot,
    Switched,
    Unjudged,
)
from config.devices import Passport
from wire.registry import RegisteredPoint

SLOT = 900
START = 1_790_794_800
"""Midnight in Kazakhstan, 1 October 2026."""
MAP = {"fc": 4, "addr": 0, "words": 4, "order": "big", "enc": "u64", "lsb": {"num": 100, "den": 1}}
EXPORT = "energy_export_wh"
LIMITS = load()
PASSPORT = Passport.model_validate(
    {
        "accuracy_class": "0.5S",
        "ct": {"num": 600, "den": 5, "accuracy_class": "0.5"},
        "vt": {"num": 10000, "den": 100, "accuracy_class": "0.5"},
    }
)
BIND = Bind(
    "b" * 64, 0, "77", "control", "QF1", True, False, Fraction(120), Fraction(100), None, None, {IMPORT: MAP}, PASSPORT
)  # fmt: skip
REGISTERED = RegisteredPoint(id="F1", role="control", boundary=True, serial="77", ct_num=120, vt_num=100)


def digest(name: str, place: int) -> str:
    return f"{sum(name.encode()):0>4x}{place:060x}"


def slots(name: str, count: int = 96, wh: Callable[[int], int] | int = 1_600_000, **more: Any) -> list[Slot]:
    """Intervals from START on whose registers continue; energies wander a little."""
    made = []
    register = 5_000_000
    for i in range(count):
        energy = wh(i) if callable(wh) else wh + 100 * ((i * 37) % 23)
        after = register + energy // 100
        t0 = START + i * SLOT
        facts = {"flags": frozenset(), "cfg": BIND.hash, "sn": "77", "mto": 300, "pi_wh": energy + 700}
        facts |= {"reg": {IMPORT: (register, after)}} | more
        made.append(Slot(t0, t0 + SLOT, digest(name, i), "interval", energy, **facts))
        register = after
    return made


def gap(i: int, why: str = "TIMEOUT") -> Slot:
    return Slot(START + i * SLOT, START + (i + 1) * SLOT, digest("gap", i), "gap", why=why)


def site(found: list[Slot], *, bind: Bind = BIND, **more: Any) -> SiteSlots:
    point = Point("F1", tuple(found), {bind.hash: bind}, more.pop("archived", ()), more.pop("registered", REGISTERED))
    facts: dict[str, Any] = {"contracted_w": 10_000_000, "registered": True, "since": START, "start": START}
    others = more.pop("points", {})
    return SiteSlots(site="s-1", slot_s=SLOT, end=START + 96 * SLOT, points={"F1": point} | others, **(facts | more))


def of(rule: str, what: SiteSlots) -> list[Finding]:
    return [f for f in RULES[rule](what, LIMITS) if isinstance(f, Finding)]


def silent(rule: str, what: SiteSlots) -> list[str]:
    return [u.why for u in RULES[rule](what, LIMITS) if isinstance(u, Unjudged) and u.point in {"F1", "-"}]


def changed(found: list[Slot], i: int, **facts: Any) -> list[Slot]:
    return [*found[:i], replace(found[i], **facts), *found[i + 1 :]]


def test_a_good_day_has_no_finding_and_says_what_it_could_not_judge() -> None:
    verdict = judge(site(slots("a")), LIMITS)
    assert verdict.findings == ()
    assert set(RULES) == {f"V{i:02d}" for i in range(1, 27)}
    unjudged = {u.rule for u in verdict.unjudged}
    assert unjudged == {"V12", "V16", "V17", "V18", "V19", "V20", "V21", "V22", "V23", "V26"}
    assert {rule for rule, count in verdict.judged.items() if count == 0} == unjudged, "never passed without a look"


@pytest.mark.parametrize(
    ("rule", "found", "severity", "seen", "expected"),
    [
        ("V01", [*slots("a")[:10], gap(10), gap(11), *slots("a")[12:]], "warn", 2, 0),
        ("V01", [*slots("a")[:10], *slots("a")[13:]], "fail", 3, 0),
        ("V02", [*slots("a"), replace(slots("a")[5], hash=digest("b", 5))], "fail", 2, 1),
        ("V03", changed(slots("a"), 4, t1=START + 6 * SLOT), "fail", 1800, 900),
        ("V04", changed(slots("a"), 4, wh=-5), "fail", -5, 0),
        ("V04", [*slots("a")[:10], gap(10, "COUNTER_RESET"), *slots("a")[11:]], "fail", None, None),
        ("V05", changed(slots("a"), 4, wh=10_000_001, flags=frozenset({"rollover"})), "fail", 10_000_001, 10_000_000),
        ("V06", changed(slots("a"), 4, wh=2_750_001), "fail", 2_750_001, 2_750_000),
        ("V07", changed(slots("a"), 4, wh=0), "suspect", 0, 1_601_700),
        ("V08", changed(slots("a"), 40, wh=2_600_000), "suspect", 2_600_000, None),
        ("V09", changed(slots("a"), 4, wh=0, flags=frozenset({"frozen"})), "suspect", 0, 1_601_700),
        ("V10", changed(slots("a"), 4, wh=1_600_000), "fail", None, None),
        ("V11", changed(slots("a"), 4, pi_wh=1_700_000), "suspect", 1_601_000, 1_700_000),
        ("V13", changed(slots("a"), 4, mto=6_000), "warn", 6_000, 5_000),
        ("V13", changed(slots("a"), 4, mto=61_000), "fail", 61_000, 60_000),
        ("V14", changed(slots("a"), 4, sn="78"), "fail", None, None),
        ("V25", [*slots("a")[:10], *(gap(i) for i in range(10, 15)), *slots("a")[15:]], "suspect", 4500, 3600),
    ],
)
def test_a_rule_finds_what_breaks_it(
    rule: str, found: list[Slot], severity: str, seen: int | None, expected: int | None
) -> None:
    told = next(f for f in of(rule, site(found)) if f.severity == severity)
    assert (told.point, told.severity) == ("F1", severity)
    if seen is not None:
        assert told.seen == seen
    if expected is not None:
        assert told.expected == expected
    assert of(rule, site(slots("a"))) == []


def test_too_much_of_a_month_known_from_its_ends_alone_fails_it() -> None:
    day = 24 * 3600 // SLOT
    for lost, fails in ((day * 31 * 3 // 100, False), (day * 31 * 32 // 1000 + 1, True)):
        # Gaps before the judged day count as well: it is the month that fails.
        found = [gap(i) for i in range(lost)]
        what = replace(site(found, start=START + day * SLOT), end=START + 31 * day * SLOT)
        assert [f.severity for f in of("V25", what) if f.severity == "fail"] == (["fail"] if fails else [])


def test_a_zone_is_told_from_a_drift() -> None:
    (told,) = of("V13", site(changed(slots("a"), 4, mto=-3_602_000)))
    assert (told.severity, told.text) == ("fail", "clock_zone")
    (told,) = of("V13", site(changed(slots("a"), 4, mto=1_800_000)))
    assert told.text == "clock"


def test_a_step_that_an_order_explains_is_no_spike() -> None:
    found = changed(slots("a"), 40, wh=2_600_000)
    near, far = (START + 41 * SLOT) * 1000, (START + 60 * SLOT) * 1000
    assert of("V08", site(found, disturbed_ms=(near,))) == []
    assert len(of("V08", site(found, disturbed_ms=(far,)))) == 1


def test_equal_energies_count_only_against_a_power_that_moved() -> None:
    same = slots("a", wh=lambda i: 1_600_000)
    moving = [replace(s, pi_wh=1_600_000 + 5_000 * (i % 7)) for i, s in enumerate(same)]
    assert of("V09", site([replace(s, pi_wh=1_600_000) for s in same])) == [], "a steady load is steady"
    (told,) = of("V09", site(moving))
    assert (told.text, told.seen) == ("equal", 96)
    assert silent("V09", site([replace(s, pi_wh=None) for s in same])) == ["no_data"]


def test_sums_hold_over_a_bridged_gap_and_not_over_an_invented_one() -> None:
    found = slots("a")
    bridge = sum(s.wh or 0 for s in found[10:13])
    good = [*found[:10], *(gap(i) for i in range(10, 13)), replace(found[13], bridge_wh=bridge), *found[14:]]
    assert of("V10", site(good)) == []
    bad = [*good[:13], replace(good[13], bridge_wh=bridge + 1), *good[14:]]
    assert {f.params["period"] for f in of("V10", site(bad))} == {"2026-10-01", "2026-10"}
    assert silent("V10", site([replace(s, reg={}) for s in found])) == ["no_data"]


def test_the_meters_own_profile_is_the_check() -> None:
    found = slots("a")
    true = tuple(Archived(s.t0, digest("p", i), s.wh or 0) for i, s in enumerate(found))
    assert of("V12", site(found, archived=true)) == []
    assert silent("V12", site(found)) == ["no_data"]
    false = (*true[:3], replace(true[3], wh=true[3].wh + 9_000), *true[4:])
    (told,) = of("V12", site(found, archived=false))
    assert told.t0 == START + 3 * SLOT
    apart = tuple(replace(a, mto=5_000) for a in false)
    assert of("V12", site(found, archived=apart)) == [], "its clock was 5 s away, and so is its slot"


def test_ratios_of_bind_register_and_meter_have_to_agree() -> None:
    assert of("V15", site(slots("a"))) == []
    (told,) = of("V15", site(slots("a"), bind=replace(BIND, ct=Fraction(60))))
    assert told.params["registered"] == "120 100"
    assert of("V15", site(slots("a"), bind=replace(BIND, ct_read=Fraction(60), vt_read=Fraction(100)))) != []
    assert silent("V15", site(slots("a"), registered=None)) == ["no_register"]


def test_another_map_for_the_same_meter_is_told() -> None:
    later = replace(BIND, hash="c" * 64, n=9, pts={IMPORT: {**MAP, "lsb": {"num": 10, "den": 1}}})
    found = [replace(s, cfg=later.hash) if i >= 50 else s for i, s in enumerate(slots("a"))]
    what = site(found)
    what = replace(what, points={"F1": replace(what.points["F1"], binds={BIND.hash: BIND, later.hash: later})})
    (told,) = of("V16", what)
    assert (told.t0, told.params["registers"]) == (START + 50 * SLOT, IMPORT)


def test_export_of_a_feeder_and_a_missing_sibling() -> None:
    feeder = replace(BIND, boundary=False, pts={IMPORT: MAP, EXPORT: MAP})
    found = [replace(s, exp_wh=0, reg=s.reg | {EXPORT: (1, 1)}) for s in slots("a")]
    assert of("V18", site(found, bind=feeder)) == []
    assert of("V24", site(found, bind=feeder)) == []
    (told,) = of("V18", site(changed(found, 7, exp_wh=5_000), bind=feeder))
    assert (told.seen, told.t0) == (5_000, START + 7 * SLOT)
    (told,) = of("V24", site(changed(found, 7, reg=slots("a")[7].reg), bind=feeder))
    assert (told.severity, told.params["registers"]) == ("warn", EXPORT)


def test_a_check_meter_is_believed_only_if_it_measures_by_itself() -> None:
    twin = replace(BIND, hash="d" * 64, role="check")

    def against(wh: Callable[[int], int]) -> SiteSlots:
        other = [replace(s, cfg=twin.hash) for s in slots("k", wh=wh)]
        return site(slots("a"), points={"K": Point("K", tuple(other), {twin.hash: twin})})

    base = [s.wh or 0 for s in slots("a")]
    assert of("V19", against(lambda i: base[i] + 1_000 + i)) == []
    (told,) = of("V19", against(lambda i: base[i] * 97 // 100))
    assert told.text == "check_differs"
    (told,) = of("V19", against(lambda i: base[i]))
    assert told.text == "check_identical"
    assert silent("V19", site(slots("a"))) == ["no_data"]


def balances(
    residual: Callable[[int], int] | int = 0, asic: Callable[[int], Machines] | None = None
) -> tuple[Balance, ...]:
    return tuple(
        Balance(
            START + i * SLOT, START + (i + 1) * SLOT, digest("bal", i), ("M0",), 5_000_000, 4_950_000, 50_000,
            residual(i) if callable(residual) else residual, 60_000, (),
            {"F1": asic(i)} if asic else {},
        )
        for i in range(96)
    )  # fmt: skip


def test_the_balance_by_its_own_tolerance() -> None:
    assert of("V20", site(slots("a"), balances=balances(60_000))) == []
    assert silent("V20", site(slots("a"), balances=balances(60_000))) == ["tolerance_only"]
    (told,) = of("V20", site(slots("a"), balances=balances(lambda i: -60_001 if 10 <= i < 20 else 0)))
    assert (told.point, told.seen, told.expected, told.params["slots"]) == ("M0", -60_001, 60_000, 10)
    assert len(told.evidence) == 10
    unknown = tuple(replace(b, residual_wh=None) for b in balances())
    assert silent("V20", site(slots("a"), balances=unknown)) == ["no_data"], "a hole is not a balance"


def asleep(i: int) -> Machines:
    return Machines(100, 100, 1_500_000 if i < 40 or i >= 60 else 10_000)


def test_what_is_left_under_an_order_is_compared_with_the_base_load() -> None:
    found = slots("a", wh=lambda i: 1_600_000 + 100 * (i % 9) if i < 40 or i >= 60 else 90_000)
    order = Held("o-1", START + 40 * SLOT, START + 60 * SLOT, digest("cmd", 1))
    what = site(found, balances=balances(asic=asleep), held=(order,))
    assert silent("V22", what) == ["unknown_base"], "a base load that nobody knows is no reproach"
    assert of("V22", replace(what, base_w={"F1": 300_000})) == []
    (told,) = of("V22", replace(what, base_w={"F1": 100_000}))
    assert (told.t0, told.t1, told.params["order"]) == (START + 41 * SLOT, START + 60 * SLOT, "o-1")
    assert silent("V22", replace(what, held=(), base_w={"F1": 100_000})) == ["no_data"]


def test_energy_behind_a_switch_that_is_open_is_told() -> None:
    events = (
        Switched((START + 10 * SLOT) * 1000, "QF1", "open", digest("ev", 1)),
        Switched((START + 20 * SLOT) * 1000, "QF1", "closed", digest("ev", 2)),
    )
    dark = [replace(s, wh=0) if 10 <= i < 20 else s for i, s in enumerate(slots("a"))]
    assert of("V22", site(dark, switched=events)) == []
    (told,) = of("V22", site(changed(dark, 15, wh=20_000), switched=events))
    assert (told.t0, told.seen, told.expected) == (START + 15 * SLOT, 20_000, 7_500)
    other = tuple(replace(e, switch="QF2") for e in events)
    assert of("V22", site(changed(dark, 15, wh=20_000), switched=other)) == []


def test_zero_with_machines_that_run_is_told_although_power_is_not_read() -> None:
    found = [replace(s, wh=0, pi_wh=None) if 5 <= i < 9 else s for i, s in enumerate(slots("a"))]
    what = site(found, balances=balances(asic=lambda i: Machines(100, 100, 1_500_000)))
    (told,) = of("V07", what)
    assert (told.t1 - told.t0, told.expected) == (4 * SLOT, 1_500_000)
    assert of("V07", site([replace(s, pi_wh=None) for s in found])) == []


def test_somebody_elses_reading_of_the_same_meter() -> None:
    found = slots("a")
    whole = sum(s.wh or 0 for s in found)
    reading = Reading("F1", START, START + 96 * SLOT, whole, "system_operator", "118", "e" * 64)
    assert of("V26", site(found, readings=(reading,))) == []
    (told,) = of("V26", site(found, readings=(replace(reading, wh=whole * 10 // 9),)))
    assert (told.seen, told.expected, told.params["source"]) == (whole, whole * 10 // 9, "system_operator")
    assert told.evidence[-1] == "e" * 64
    holes = [*found[:10], gap(10), *found[11:]]
    assert silent("V26", site(holes, readings=(reading,))) == ["no_data"], "a hole is not compared as nothing"
    spot = Spot("F1", START * 1000 + 5_000, 400_000, 12_000, "f" * 64)
    (told,) = of("V26", site(found, spots=(spot,)))
    assert (told.text, told.seen) == ("display", 400_000)
    assert of("V26", site(found, spots=(replace(spot, diff_wh=50_000),))) == []


def test_thresholds_are_shipped_by_version_and_whole() -> None:
    assert CURRENT in versions()
    assert load(CURRENT).version == CURRENT
    with pytest.raises(ValueError, match="saw version 99"):
        load(99)


def test_every_explanation_of_a_finding_is_there_in_three_languages() -> None:
    keys: set[str] = set()
    for path in (Path(__file__).parents[2] / "central" / "vee").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"of_run", "Finding"}:
                last = [a for a in node.args if not isinstance(a, ast.Dict | ast.Tuple)][-1]
                keys |= {c.value for c in ast.walk(last) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
    keys |= set(TEXTS.values())
    catalogues = load_all()
    assert keys == set(explanations(catalogues["en"]))
    for language in LANGUAGES:
        words = explanations(catalogues[language])
        assert len(set(words.values())) == len(words)
        assert language == "en" or not set(words.values()) & set(explanations(catalogues["en"]).values())
