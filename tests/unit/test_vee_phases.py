"""V17 and V23 against slots that break them, slots that do not, and nothing to look at."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from central.vee.events import SEVERITY
from central.vee.judge import RULES, judge
from central.vee.limits import load
from central.vee.model import Bind, Finding, Phases, Point, SiteSlots, Slot, Switched, Unjudged, Work
from central.vee.parts import events_of, phases_of, works_of
from wire.points import EVENTS

SLOT = 900
START = 1_790_794_800
LIMITS = load()
BIND = Bind(
    "b" * 64, 0, "77", "technical", "QF1", False, False, *([Fraction(1)] * 2), None, None, pts={}, passport=None,
    device="em-1",
)  # fmt: skip
GOOD = Phases(90, (229_000, 230_000, 231_000), (9_800, 10_000, 10_200), (2_250, 2_300, 2_350), (0,) * 3, (0,) * 3)


def slots(count: int = 12, **more: Any) -> list[Slot]:
    facts: dict[str, Any] = {"cfg": BIND.hash, "phases": GOOD, "events": dict.fromkeys(EVENTS, 4)} | more
    return [
        Slot(START + i * SLOT, START + (i + 1) * SLOT, f"{i:064x}", "interval", 1_700, **facts) for i in range(count)
    ]


def site(found: list[Slot], *binds: Bind, **more: Any) -> SiteSlots:
    point = Point("F1", tuple(found), {b.hash: b for b in (BIND, *binds)})
    facts: dict[str, Any] = {"since": START, "start": START, "end": START + 96 * SLOT}
    return SiteSlots(site="s-1", slot_s=SLOT, points={"F1": point}, **(facts | more))


def of(rule: str, what: SiteSlots) -> list[Finding]:
    return [f for f in RULES[rule](what, LIMITS) if isinstance(f, Finding)]


def silent(rule: str, what: SiteSlots, version: int = LIMITS.version) -> list[str]:
    return [u.why for u in RULES[rule](what, load(version)) if isinstance(u, Unjudged)]


def from_slot(found: list[Slot], i: int, j: int | None = None, **facts: Any) -> list[Slot]:
    return [replace(s, **facts) if i <= k < (j or len(found)) else s for k, s in enumerate(found)]


def test_good_phases_and_still_counters_are_judged_and_silent() -> None:
    verdict = judge(site(slots()), LIMITS)
    assert [f for f in verdict.findings if f.rule in {"V17", "V23"}] == []
    assert (verdict.judged["V17"], verdict.judged["V23"]) == (1, 1)


@pytest.mark.parametrize(
    ("changed", "severity", "text", "seen", "phase"),
    [
        ({"unfed": (0, 9, 0), "u_mv": (229_000, 0, 231_000)}, "suspect", "phase_unfed", 100, 2),
        ({"unfed": (0, 8, 0), "u_mv": (229_000, 0, 231_000)}, "suspect", "phase_lost", 0, 2),
        ({"u_mv": (229_000, 230_000, 114_000)}, "suspect", "phase_lost", 496, 3),
        ({"u_mv": (229_000, 230_000, 115_000)}, None, "", 0, 0),
        ({"u_mv": (0, 0, 0)}, None, "", 0, 0),
        ({"u_mv": (None, None, 0)}, None, "", 0, 0),
        ({"backwards": (45, 0, 0), "p_w": (-2_000, 2_300, 2_350)}, "suspect", "phase_backwards", 500, 1),
        ({"backwards": (44, 0, 0), "p_w": (-2_000, 2_300, 2_350)}, None, "", 0, 0),
        ({"backwards": (90, 0, 0), "p_w": (-50, 2_300, 2_350)}, None, "", 0, 0),
        ({"i_ma": (0, 10_000, 10_000)}, "warn", "phase_unbalance", 1000, None),
        ({"i_ma": (6_000, 10_000, 10_000)}, "warn", "phase_unbalance", 307, None),
        ({"i_ma": (6_500, 10_000, 10_000)}, None, "", 0, 0),
        ({"i_ma": (None, 1_000, 10_000)}, None, "", 0, 0),
    ],
)
def test_a_fault_of_a_phase_over_an_hour(
    changed: dict[str, Any], severity: str | None, text: str, seen: int, phase: int | None
) -> None:
    found = of("V17", site(from_slot(slots(), 4, 8, phases=replace(GOOD, **changed))))
    if severity is None:
        assert found == []
        return
    (one,) = found
    assert (one.severity, one.text, one.seen, one.params.get("phase")) == (severity, text, seen, phase)
    assert ((one.t0 - START) // SLOT, (one.t1 - START) // SLOT, len(one.evidence)) == (4, 8, 4)


def test_one_slot_is_enough_for_a_lost_phase_and_not_for_unbalance() -> None:
    lost = replace(GOOD, u_mv=(229_000, 0, 231_000))
    assert [f.text for f in of("V17", site(from_slot(slots(), 4, 5, phases=lost)))] == ["phase_lost"]
    unlike = replace(GOOD, i_ma=(0, 10_000, 10_000))
    assert of("V17", site(from_slot(slots(), 4, 7, phases=unlike))) == []


def test_nothing_flows_or_little_flows() -> None:
    dead = replace(GOOD, u_mv=(229_000, 0, 231_000), i_ma=(0, 0, 0))
    assert of("V17", site(from_slot(slots(), 4, 8, phases=dead, wh=0))) == []
    standby = replace(GOOD, i_ma=(0, 100, 100), backwards=(90, 0, 0), p_w=(-20, 50, 50))
    assert of("V17", site(from_slot(slots(), 4, 8, phases=standby, wh=160))) == [], "a tenth of the load is judged"
    assert len(of("V17", site(from_slot(slots(), 4, 8, phases=standby, wh=170)))) == 2


def test_what_was_not_read_by_phase_is_not_judged() -> None:
    assert silent("V17", site(slots(phases=None))) == ["no_data"]
    assert silent("V17", site(slots(phases=replace(GOOD, n=2)))) == ["no_data"]
    one = replace(GOOD, u_mv=(230_000, None, None), i_ma=(10_000, None, None), p_w=(None,) * 3)
    assert silent("V17", site(slots(phases=one))) == ["no_data"], "one phase has nothing to be held against"
    assert silent("V17", site(slots()), version=1) == ["no_threshold"]
    assert silent("V23", site(slots(events={}))) == ["no_data"]
    assert silent("V23", site(slots(1))) == ["no_data"], "one reading is no jump"


@pytest.mark.parametrize("event", EVENTS)
def test_a_counter_that_moves_is_told_once(event: str) -> None:
    moved = dict.fromkeys(EVENTS, 4) | {event: 6}
    (one,) = of("V23", site(from_slot(slots(), 5, events=moved)))
    assert (one.severity, one.text, one.seen, one.expected) == (SEVERITY[event], f"event_{event}", 6, 4)
    assert one.severity == ("warn" if event in {"power_off", "phase_loss"} else "suspect")
    assert one.evidence == (f"{4:064x}", f"{5:064x}")
    (one,) = of("V23", site(from_slot(slots(), 5, events=dict.fromkeys(EVENTS, 4) | {event: 3})))
    assert (one.severity, one.text) == ("suspect", "event_fell")


def test_a_jump_over_slots_without_the_counter_and_out_of_history_is_seen() -> None:
    moved = dict.fromkeys(EVENTS, 4) | {"cover_open": 5}
    found = from_slot(slots(), 5, events=moved)
    found[3:5] = [replace(found[3], events={}), Slot(found[4].t0, found[4].t1, "9" * 64, "gap", why="TIMEOUT")]
    (one,) = of("V23", site(found))
    assert (one.t0, one.params["since"]) == (found[5].t0, found[2].t1)
    assert len(of("V23", site(found, start=found[5].t0))) == 1
    assert of("V23", site(found, start=found[6].t0)) == [], "told by the run of its own day"


def test_another_meter_begins_anew_and_the_same_meter_bound_again_does_not() -> None:
    fewer = dict.fromkeys(EVENTS, 4) | {"reset": 5}
    for serial, count in (("78", 0), (None, 0), ("77", 1)):
        other = replace(BIND, hash="c" * 64, n=1, sn=serial)
        found = from_slot(slots(), 5, events=fewer, cfg=other.hash)
        assert len(of("V23", site(found, other))) == count, serial


@pytest.mark.parametrize(
    ("object_", "begin", "end", "explained"),
    [
        ("em-1", 4 * SLOT + 10, 4 * SLOT + 700, True),
        ("QF1", 0, 5 * SLOT, True),
        ("F1", 4 * SLOT + 10, 9 * SLOT, True),
        ("em-2", 0, 9 * SLOT, False),
        ("em-1", 0, 4 * SLOT, False),
        ("em-1", 6 * SLOT + 61, 9 * SLOT, False),
    ],
)
def test_declared_work_in_that_time_explains_a_counter(object_: str, begin: int, end: int, explained: bool) -> None:
    found = from_slot(slots(), 5, events=dict.fromkeys(EVENTS, 4) | {"programmed": 5})
    found = [s for s in found if s.t0 != START + 4 * SLOT]
    work = Work(object_, (START + begin) * 1000, (START + end) * 1000, "a" * 64)
    assert (of("V23", site(found, works=(work,))) == []) is explained


@pytest.mark.parametrize(
    ("gap", "why", "switch", "event", "explained"),
    [
        (True, "DE_ENERGISED", "QF7", "power_off", True),
        (True, "NO_POWER", None, "power_off", True),
        (True, "TIMEOUT", "QF7", "power_off", True),
        (True, "TIMEOUT", None, "power_off", False),
        (True, "DE_ENERGISED", "QF7", "cover_open", False),
        (False, "QF1", None, "power_off", True),
        (False, "QF2", None, "power_off", False),
    ],
)
def test_darkness_explains_a_lost_supply_and_nothing_else(
    gap: bool, why: str, switch: str | None, event: str, explained: bool
) -> None:
    found = from_slot(slots(), 5, events=dict.fromkeys(EVENTS, 4) | {event: 5})
    opened: tuple[Switched, ...] = ()
    if gap:
        found[4] = Slot(found[4].t0, found[4].t1, "9" * 64, "gap", why=why, switch=switch)
    else:
        opened = (Switched((START + 5 * SLOT + 100) * 1000, why, "open", "e" * 64),)
    assert (of("V23", site(found, switched=opened)) == []) is explained


def test_works_are_read_from_begun_to_their_end() -> None:
    def event(at: int, ev: str, now: str | None, **detail: Any) -> tuple[dict[str, Any], str]:
        return {"ev": ev, "obj": "em-1", "at": at, "now": now, "detail": detail}, f"{at:064x}"

    read = list(
        works_of(
            [
                event(10, "maintenance", "begun", until=100),
                event(50, "maintenance", "renewed", until=200),
                event(150, "maintenance", "ended", healthy=True),
                event(160, "maintenance", "healthy"),
                event(300, "replaced", "78", since=250),
                event(400, "maintenance", "begun", until=500),
                ({"ev": "maintenance", "obj": [], "at": 1, "now": "begun", "detail": None}, "f" * 64),
                event(1, "switch_position", "open"),
            ]
        )
    )
    assert [(w.from_ms, w.to_ms) for w in read] == [(10, 150), (250, 300), (400, 500)]


WIRE: dict[str, Any] = {
    "n": 3, "u": [1, None, 2], "i": [0, 0, None], "p": [-5, 0, None], "iu": [0, 3, 0], "neg": [1, 0, 0]
}  # fmt: skip


def test_phases_are_read_from_a_record() -> None:
    assert phases_of(WIRE) == Phases(3, (1, None, 2), (0, 0, None), (-5, 0, None), (0, 3, 0), (1, 0, 0))
    assert events_of({"reset": 1, "cover_open": True, "power_off": -1, "x": 3}) == {"reset": 1}
    assert events_of([1]) == {}


@pytest.mark.parametrize(
    "changed",
    [{"n": 0}, {"n": True}, {"u": [1, 2]}, {"u": [1, 2, "3"]}, {"u": [-1, 2, 3]}, {"iu": [0, 4, 0]},
     {"neg": [None, 0, 0]}, {"i": None}, {"p": [1.5, 0, 0]}, {"iu": [0, -1, 0]}, {"u": [2**60, 1, 1]}],
)  # fmt: skip
def test_what_is_no_shape_of_phases_is_not_judged(changed: dict[str, Any]) -> None:
    assert phases_of(WIRE | changed) is None
