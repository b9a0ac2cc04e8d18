"""The scheduler in made-up time: order, health of units, and what silent ones may cost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.scheduler import Answer, Job, Klass, Scheduler

READ = bytes.fromhex("0400340002")


def scheduler(*, short_probes: bool = False) -> Scheduler:
    return Scheduler(timeout_s=0.5, probe_share=0.05, rng=random.Random(7), short_probes=short_probes)


def job(unit: int, klass: Klass = Klass.POLL, due: float = 0.0, deadline: float | None = None) -> Job:
    return Job(
        klass=klass,
        unit=unit,
        pdus=(READ,),
        allowed=frozenset({4}),
        due=due,
        deadline=due + 1 if deadline is None else deadline,
        timeout_s=0.5,
        gap_s=0.0,
        turnaround_s=0.0,
        on_done=_nothing,
    )


def _nothing(answers: tuple[Answer, ...]) -> None:
    """Jobs of these tests have nobody waiting."""


def proven(sched: Scheduler, *units: int) -> Scheduler:
    for unit in units:
        sched.answered(unit, 0.0, 0.003, 0.0)
    return sched


def test_class_goes_before_deadline_and_deadline_before_arrival() -> None:
    sched = proven(scheduler(), *range(10))
    wanted = [
        job(1, Klass.CONTROL, deadline=9),
        job(2, Klass.BOUNDARY, deadline=8),
        job(3, Klass.VERIFICATION, deadline=7),
        job(4, Klass.POLL, deadline=2),
        job(5, Klass.POLL, deadline=5),
    ]
    for item in reversed(wanted):
        sched.add(item)
    assert [sched.pick(0.0) for _ in wanted] == wanted
    assert sched.pick(0.0) is None


def test_a_unit_that_has_never_answered_stands_behind_those_that_have() -> None:
    sched = proven(scheduler(), 2)
    new, known = job(1, deadline=1.0), job(2, deadline=1.5)
    sched.add(new)
    sched.add(known)
    assert sched.pick(0.0) is known
    assert sched.pick(0.0) is new


def test_control_on_a_silent_unit_is_tried_at_once_but_after_control_on_one_that_answers() -> None:
    sched = proven(scheduler(), 1, 2)
    for _ in range(8):
        sched.silent(1, 0.0, 0.5, short=False)
    dead, alive = job(1, Klass.CONTROL, deadline=1), job(2, Klass.CONTROL, deadline=5)
    sched.add(dead)
    sched.add(alive)
    assert sched.pick(0.0) is alive
    assert sched.pick(0.0) is dead


def test_a_boundary_read_of_a_silent_unit_does_not_hold_up_those_of_others() -> None:
    sched = proven(scheduler(), 1, 2)
    sched.silent(1, 0.0, 0.5, short=False)
    dead, alive = job(1, Klass.BOUNDARY), job(2, Klass.BOUNDARY, deadline=30)
    sched.add(dead)
    sched.add(alive)
    assert sched.pick(0.0) is alive


@settings(max_examples=25, deadline=None)
@given(dead=st.sets(st.integers(0, 39), min_size=1, max_size=12), seed=st.integers(0, 1000))
def test_in_the_long_run_silent_units_cost_about_their_share_and_nobody_else_is_late(dead: set[int], seed: int) -> None:
    sched = Scheduler(timeout_s=0.5, probe_share=0.05, rng=random.Random(seed), short_probes=False)
    period, answer_s, units = 1.0, 0.005, range(40)
    due = {unit: unit / len(units) * period for unit in units}
    now = lost = 0.0
    after = 60.0  # the first contact with each unit is over by then
    late = healthy = 0
    while now < 360.0:
        for unit in units:
            if due[unit] <= now:
                at = due[unit]
                due[unit] += period * (1 + int((now - at) / period))
                if sched.may_poll(unit, now):
                    sched.add(job(unit, due=at, deadline=at + period))
        sched.expired(now)
        picked = sched.pick(now)
        if picked is None:
            now = min([*due.values(), now + 0.05])
        elif picked.unit in dead:
            now += 0.5
            lost += 0.5 if now > after else 0.0
            sched.silent(picked.unit, now, 0.5, short=False)
        else:
            now += answer_s
            sched.answered(picked.unit, now, answer_s, 0.0)
            if now > after:
                healthy += 1
                late += now > picked.deadline
    assert lost / 300.0 <= 0.06
    assert late == 0
    assert healthy >= 0.99 * 300 * (len(units) - len(dead))


def test_a_unit_that_returns_is_asked_at_its_normal_pace_after_one_answer() -> None:
    sched = proven(scheduler(), 1, 2)
    for _ in range(5):
        sched.silent(1, 10.0, 0.1, short=False)
    assert not sched.may_poll(1, 10.0)
    assert sched.may_poll(1, 10.0 + 61 * 1.25)
    sched.answered(1, 100.0, 0.003, 0.0)
    assert sched.may_poll(1, 100.0)


def test_probes_are_short_only_where_that_does_no_harm() -> None:
    sched = scheduler(short_probes=True)
    for _ in range(10):
        sched.answered(2, 0.0, 0.01, 0.0)
    new = job(1)
    assert sched.timeout_for(new, 0.0) == pytest.approx(0.1)
    assert sched.timeout_for(job(1, Klass.CONTROL), 0.0) == 0.5
    assert sched.timeout_for(job(2), 0.0) == 0.5
    sched.health(1).silent = 7
    assert sched.timeout_for(new, 0.0) == 0.5  # now and then the whole time-out, for units that are slow and not dead
    sched.health(1).silent = 0
    sched.silent(1, 1.0, 0.1, short=True)
    sched.silent(2, 1.6, 0.5, short=False)  # a good unit failed right after …
    assert sched.timeout_for(job(3), 1.6) == pytest.approx(0.1)
    sched.answered(2, 2.0, 0.01, 0.0)  # … and is well: a gateway was still busy
    assert sched.timeout_for(job(3), 2.0) == 0.5


def test_two_units_that_die_together_do_not_end_short_probes() -> None:
    sched = proven(scheduler(short_probes=True), *range(1, 13))
    sched.silent(1, 1.0, 0.1, short=True)
    sched.silent(2, 1.1, 0.1, short=True)
    sched.silent(2, 2.0, 0.5, short=False)
    sched.answered(2, 60.0, 0.003, 0.0)  # came back a minute later, which says nothing about gateways
    assert sched.timeout_for(job(99), 60.0) == pytest.approx(0.1)


def test_after_one_unit_fell_silent_polls_of_the_others_wait_less_for_a_while() -> None:
    sched = proven(scheduler(short_probes=True), *range(1, 13))
    assert sched.timeout_for(job(2), 0.0) == 0.5
    sched.silent(1, 5.0, 0.5, short=False)
    assert sched.timeout_for(job(2), 5.1) == pytest.approx(0.1)
    assert sched.timeout_for(job(2, Klass.BOUNDARY), 5.1) == 0.5
    assert sched.timeout_for(job(2, Klass.CONTROL), 5.1) == 0.5
    sched.silent(2, 5.2, 0.1, short=True)
    assert sched.timeout_for(job(2), 5.3) == 0.5  # the second time at full length
    assert sched.timeout_for(job(3), 16.0) == 0.5


def test_a_late_answer_tells_a_slow_unit_from_a_dead_one() -> None:
    sched = proven(scheduler(short_probes=True), *range(1, 13))
    for _ in range(4):
        sched.silent(20, 5.0, 0.1, short=True)
    assert sched.timeout_for(job(20), 6.0) == pytest.approx(0.1)
    assert not sched.may_poll(20, 6.0)
    sched.late(20)
    assert sched.timeout_for(job(20), 6.0) == 0.5
    assert sched.may_poll(20, 6.0)


def test_a_busy_unit_is_passed_over_and_does_not_wake_the_worker() -> None:
    sched = proven(scheduler(), 1, 2)
    first, second = job(1, deadline=1), job(2, deadline=2)
    sched.add(first)
    sched.add(second)
    sched.health(1).busy = True
    assert sched.pick(0.0) is second
    assert sched.pick(0.0) is None
    assert sched.next_wake(0.0) is None
    sched.health(1).busy = False
    assert sched.pick(0.0) is first


def test_a_unit_that_needs_quiet_is_passed_over_and_not_waited_for() -> None:
    sched = proven(scheduler(), 1, 2)
    sched.answered(1, 0.0, 0.003, gap_s=0.2)
    first, second = job(1, deadline=1), job(2, deadline=2)
    sched.add(first)
    sched.add(second)
    assert sched.pick(0.0) is second
    assert sched.pick(0.0) is None
    wake = sched.next_wake(0.0)
    assert wake == pytest.approx(0.2)
    assert sched.pick(0.2) is first


def test_work_whose_deadline_passed_is_handed_back() -> None:
    sched = proven(scheduler(), 1)
    expired = job(1, Klass.VERIFICATION, deadline=1.0)
    sched.add(expired)
    assert sched.expired(0.9) == []
    assert sched.expired(1.0) == [expired]
    assert sched.pick(1.0) is None
