"""What the verifier finds by itself in the records of a simulated site, and whether central says the same."""

from __future__ import annotations

import pytest
from plant_kit import judge_plant

from benchmarks.detection import RULES, SEEDS, STATED_H, on_day, seed_of, told
from benchmarks.vee_plant import ATTACKS, DAY, FEEDERS, SLOT_S, T0, WARM_UP_DAYS, Attack, plant
from central.vee.limits import load
from verifier.plausible.rules import RULES as TABLE

LIMITS = load()
DAY_S = DAY * SLOT_S
START = T0 + WARM_UP_DAYS * DAY_S
SITE_WIDE: tuple[Attack, ...] = ("before", "behind", "ct", "bypass")


def days_for(attack: Attack) -> int:
    """Days after the warm-up in which an attack that begins on the first has to be told."""
    return 1 + -(-STATED_H[attack] // 24)


def found(seed: int, attack: Attack) -> set[str]:
    """Rules that tell of an attack at its place, in records that end its time after it began; nothing else is told."""
    made = plant(seed, attack, days=WARM_UP_DAYS + days_for(attack))
    said = judge_plant(made, START, made.begun + STATED_H[attack] * 3600)
    right = {"M", *([made.feeder] if made.feeder else [])}
    assert {point for _, point in said.flags()} <= right, said.flags()
    first = said.first(RULES[attack], right, made.begun)
    assert first is not None, "not found"
    lowered, lost_wh = said.points[first.point].lower()
    assert sum(lowered.values()) > 0, "what is told lowers the slots it is told of"
    assert lost_wh > 0
    return {rule for rule, _ in said.flags()} & RULES[attack]


@pytest.mark.parametrize("attack", SITE_WIDE)
def test_the_verifier_alone_finds_what_is_hidden(attack: Attack) -> None:
    found(seed_of(0, LIMITS), attack)


def test_an_honest_week_has_no_finding() -> None:
    made = plant(seed_of(1, LIMITS), days=WARM_UP_DAYS + 7)
    said = judge_plant(made, START, made.site.end)
    assert said.flags() == set()
    assert said.partly is None
    for name, kept in said.points.items():
        assert {"V08", "V13", "V17", "V23"} | ({"V20"} if name == "M" else {"V21"}) <= kept.said.judged
        assert kept.lower() == ({}, 0)


def test_without_ten_days_of_past_a_change_is_not_judged_and_says_so() -> None:
    made = plant(seed_of(2, LIMITS), "ct", days=WARM_UP_DAYS + 1)
    said = judge_plant(made, T0, T0 + 6 * DAY_S)
    assert said.partly == "against the past: short history"
    assert {said.points[f"F{i + 1}"].said.unjudged["V21"] for i in range(FEEDERS)} == {"short history"}


@pytest.mark.parametrize("attack", ["none", "bypass", "cover"])
def test_central_and_the_verifier_agree_on_a_plant(attack: Attack) -> None:
    days = days_for(attack) if attack != "none" else 3
    made = plant(seed_of(3, LIMITS), attack, days=WARM_UP_DAYS + days)
    ours = judge_plant(made, START, made.site.end).flags()
    days_told = (told(on_day(made.site, day), LIMITS) for day in range(WARM_UP_DAYS, WARM_UP_DAYS + days))
    theirs = {(f.rule, f.point) for day in days_told for f in day}
    # Central tells a balance at the first main meter, the verifier at each; here there is one. Of V21 the last slot of
    # each day is judged a day later there. Both by the same history: the same rules at the same points.
    assert ours == theirs
    assert {rule for rule, _ in ours} <= TABLE.keys()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_seed_is_found_and_honest_months_are_left_alone() -> None:
    """20 seeds of each attack; 20 honest months of 15 feeders: 300 feeder-months."""
    flags: list[tuple[int, str, str]] = []
    for number in range(SEEDS):
        seed = seed_of(number, LIMITS)
        for attack in ATTACKS:
            assert found(seed, attack), (seed, attack)
        made = plant(seed, days=WARM_UP_DAYS + 30)
        flags += [(seed, *flag) for flag in judge_plant(made, START, made.site.end).flags()]
    assert flags == []
