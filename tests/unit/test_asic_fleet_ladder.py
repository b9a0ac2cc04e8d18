"""How far a command has come: a word is not a sign, and a sign is not proof."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.asic.ladder import Climb, Goal, Rung, Verdict, answered, commanded, metered, seen, verdict
from drivers.asic.timing import OTHERS_SLEEP_WITHIN_S, OTHERS_WAKE_WITHIN_S, seen_within_s
from drivers.capabilities import MinerStatus, WriteOutcome, WriteStatus

MINING = MinerStatus("f", hashrate_ths=95.0, hashrate_nominal_ths=100.0, sleeping=False)
STILL = MinerStatus("f", hashrate_ths=0.0, hashrate_nominal_ths=100.0)
YES, NO, LOST = WriteStatus.ACKNOWLEDGED, WriteStatus.REFUSED, WriteStatus.UNKNOWN


def told(goal: Goal = Goal.ASLEEP, answer: WriteStatus | None = YES, before: MinerStatus | None = MINING) -> Climb:
    climb = commanded(goal, 1000, within_s=10, before=before)
    return climb if answer is None else answered(climb, WriteOutcome(answer, 0), 2000)


def test_each_rung_is_reached_by_its_own_evidence_alone() -> None:
    climb = told(answer=None)
    assert climb.rung is Rung.COMMANDED
    climb = answered(climb, WriteOutcome(YES, 0), 2000)
    assert climb.rung is Rung.ACKNOWLEDGED
    climb = seen(climb, STILL, 3000)
    assert climb.rung is Rung.DEVICE_CONFIRMED
    climb = metered(climb, 4000)
    assert climb.rung is Rung.METER_CONFIRMED
    assert (climb.device_ms, climb.meter_ms) == (3000, 4000)


@pytest.mark.parametrize(
    ("answer", "looks", "now_ms", "expected"),
    [
        (YES, [], 5000, Verdict.PENDING),
        (YES, [(MINING, 5000)], 11_000, Verdict.PENDING),
        (YES, [(MINING, 5000), (STILL, 9000)], 20_000, Verdict.OBEYED),
        (YES, [(MINING, 13_000)], 13_001, Verdict.LIED),
        (YES, [(MINING, 5000)], 13_000, Verdict.UNKNOWN),  # nothing seen of it since its time was over
        (YES, [(STILL, 5000), (MINING, 60_000)], 60_001, Verdict.LIED),  # came back by itself
        (YES, [(STILL, 900)], 20_000, Verdict.UNKNOWN),  # asked before the command: says nothing
        (NO, [(MINING, 3000)], 3001, Verdict.REFUSED),
        (NO, [(STILL, 3000)], 3001, Verdict.OBEYED),  # whatever it said, it does not mine
        (LOST, [(STILL, 3000)], 3001, Verdict.OBEYED),
        (LOST, [(MINING, 30_000)], 30_001, Verdict.UNKNOWN),  # it never said yes, so it did not lie
        (None, [], 30_000, Verdict.UNKNOWN),
    ],
)
def test_the_verdict_weighs_the_word_against_what_was_seen(
    answer: WriteStatus | None, looks: list[tuple[MinerStatus, int]], now_ms: int, expected: Verdict
) -> None:
    climb = told(answer=answer)
    for status, at_ms in looks:
        climb = seen(climb, status, at_ms)
    assert verdict(climb, now_ms) is expected


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (MinerStatus("f", sleeping=True), True),  # socket closed, its own web page says so
        (MinerStatus("f", hashrate_ths=90.0, sleeping=True), False),  # configured to sleep, mining on
        (MinerStatus("f", hashrate_ths=0.05, sleeping=None), True),
        (MinerStatus("f", hashrate_ths=0.9, hashrate_nominal_ths=100.0), True),
        (MinerStatus("f", hashrate_ths=0.0, sleeping=False), None),  # booting, or without a pool
        (MinerStatus("f"), None),
    ],
)
def test_the_hash_rate_is_the_sign_and_the_firmwares_word_only_helps_out(
    status: MinerStatus, shown: bool | None
) -> None:
    climb = seen(told(), status, 5000)
    assert climb.device_ms == (5000 if shown else None)
    assert climb.contrary_ms == (5000 if shown is False else None)


def test_measured_power_has_to_fall_too_and_estimated_power_proves_nothing() -> None:
    measured = MinerStatus("f", hashrate_ths=95.0, power_w=3000.0, power_source="measured")
    no_pool = MinerStatus("f", hashrate_ths=0.0, power_w=2900.0, power_source="measured")
    asleep = MinerStatus("f", hashrate_ths=0.0, power_w=90.0, power_source="measured")
    assert seen(told(before=measured), no_pool, 5000).device_ms is None
    assert seen(told(before=measured), asleep, 5000).device_ms == 5000
    estimated = MinerStatus("f", hashrate_ths=95.0, power_w=3000.0, power_source="estimated")
    assert told(before=estimated).baseline_w is None
    claimed = MinerStatus("f", hashrate_ths=95.0, power_w=30.0, power_source="estimated")
    assert seen(told(before=estimated), claimed, 5000).device_ms is None


def test_waking_is_confirmed_at_half_of_the_rate_and_a_ramp_is_neither_yes_nor_no() -> None:
    climb = told(Goal.AWAKE, before=STILL)
    ramp = MinerStatus("f", hashrate_ths=20.0, hashrate_nominal_ths=100.0)
    assert seen(climb, ramp, 3000) == climb
    assert seen(climb, MINING, 3000).rung is Rung.DEVICE_CONFIRMED
    late = seen(climb, STILL, 20_000)
    assert verdict(late, 20_001) is Verdict.LIED


def test_a_meter_that_confirmed_is_overruled_by_a_machine_that_mines_again() -> None:
    climb = metered(seen(told(), STILL, 3000), 4000)
    assert seen(climb, MINING, 50_000).rung is Rung.ACKNOWLEDGED


def test_every_family_has_a_time_and_unknown_ones_have_the_longest() -> None:
    assert seen_within_s("luxos", asleep=True) < seen_within_s("whatsminer-v2", asleep=True) < OTHERS_SLEEP_WITHIN_S
    assert seen_within_s("never-heard-of", asleep=True) == OTHERS_SLEEP_WITHIN_S
    assert seen_within_s("antminer-stock", asleep=False) == OTHERS_WAKE_WITHIN_S


rates = st.none() | st.floats(0, 200)
statuses = st.builds(
    MinerStatus,
    st.just("f"),
    hashrate_ths=rates,
    hashrate_nominal_ths=st.none() | st.just(100.0),
    sleeping=st.none() | st.booleans(),
    power_w=st.none() | st.floats(0, 4000),
    power_source=st.sampled_from(["measured", "estimated", "none"]),
)


@given(
    st.sampled_from(list(Goal)),
    st.none() | st.sampled_from(list(WriteStatus)),
    st.none() | statuses,
    st.lists(st.tuples(statuses, st.integers(0, 100_000)), max_size=6),
    st.integers(0, 200_000),
)
def test_no_history_makes_a_machine_that_was_only_seen_mining_obedient(
    goal: Goal,
    answer: WriteStatus | None,
    before: MinerStatus | None,
    looks: list[tuple[MinerStatus, int]],
    now_ms: int,
) -> None:
    climb = told(goal, answer, before)
    for status, at_ms in looks:
        climb = seen(climb, status, at_ms)
    found = verdict(climb, now_ms)
    after = [status for status, at_ms in looks if at_ms > climb.commanded_ms]
    if goal is Goal.ASLEEP and all(status.hashrate_ths is not None and status.hashrate_ths > 2 for status in after):
        assert found is not Verdict.OBEYED
    if found is Verdict.LIED:
        assert answer is YES
        assert climb.contrary_ms is not None
    if found is Verdict.OBEYED:
        assert climb.device_ms is not None
