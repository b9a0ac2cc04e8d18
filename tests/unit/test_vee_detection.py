"""Detection on a site with stated noise: a few seeds here, all of them among the long tests."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.detection import SEEDS, STATED_H, attacked, measure, on_day, seed_of, summary, told
from benchmarks.vee_plant import ATTACKS, DAY, FEEDERS, WARM_UP_DAYS, Attack, plant
from central.vee.judge import judge
from central.vee.limits import ShiftLimits, Window, load
from central.vee.model import Unjudged
from central.vee.shift import shifts

LIMITS = load()


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_told_within_its_time_and_at_its_place(attack: Attack, number: int) -> None:
    made = plant(seed_of(number, LIMITS), attack, days=WARM_UP_DAYS + 6)
    found = attacked(made, LIMITS)
    assert found.delay_h is not None, "not found"
    assert found.delay_h <= STATED_H[attack]
    assert found.strangers == ()


def test_an_honest_week_is_quiet() -> None:
    made = plant(seed_of(1, LIMITS), days=WARM_UP_DAYS + 7)
    for day in range(WARM_UP_DAYS, WARM_UP_DAYS + 7):
        assert told(on_day(made.site, day), LIMITS) == []


def test_without_a_past_a_change_is_not_judged_and_says_so() -> None:
    made = plant(seed_of(2, LIMITS), "ct", days=WARM_UP_DAYS)
    verdict = judge(on_day(made.site, 5), LIMITS)
    said = {(u.rule, u.point): u.why for u in verdict.unjudged}
    assert said["V20", "-"] == "tolerance_only"
    assert {said["V21", f"F{i + 1}"] for i in range(FEEDERS)} == {"short_history"}
    assert verdict.judged["V21"] == 0
    assert Unjudged("V12", "M", "no_data") in verdict.unjudged
    assert (verdict.judged["V17"], verdict.judged["V23"]) == (FEEDERS + 1, FEEDERS + 1)


def test_a_change_that_stays_is_told_until_it_is_the_usual() -> None:
    rules = ShiftLimits(history_days=30, history_min_days=10, known=800, seen=980, peers=4)
    window = Window(slots=96, sigmas=4, floor=5.0)
    values = np.full(60 * DAY, 0.1)
    values[20 * DAY :] = 0.2
    values[::7] = np.nan
    found = shifts(values, 14 * DAY, 900, [window], rules, 0.001)
    days = {s.last // DAY for s in found.shifts}
    assert min(days) == 20
    assert max(days) in range(34, 40), "half of the history later it is the usual level"
    assert shifts(values[: 9 * DAY], 5 * DAY, 900, [window], rules, 0.001).judged is False


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_seed_is_found_in_time_and_honest_sites_are_left_alone() -> None:
    found = summary(measure(range(SEEDS), LIMITS, processes=2))
    assert found["false_flags"] * 240 <= found["honest_feeder_months"], found["false_flags_at"]
    for attack in ATTACKS:
        assert found[attack]["within_stated"] == SEEDS, found[attack]
