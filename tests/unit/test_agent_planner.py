"""The planner: enough where there is enough, least efficient first, never more switches than needed, САОН last."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.curtailment.planner import (
    MARGIN_PERMILLE,
    Machine,
    Output,
    Return,
    choose_machines,
    choose_outputs,
    stage,
)

machine_lists = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 100), st.floats(10, 60)), min_size=0, max_size=25
).map(lambda rows: [Machine(f"m{i:02}", d, s, j) for i, (d, s, j) in enumerate(rows)])
output_lists = st.lists(st.tuples(st.integers(0, 50_000), st.booleans()), max_size=8).map(
    lambda rows: [Output(f"s{i}", g, saon) for i, (g, saon) in enumerate(rows)]
)


def wanted(excess: int) -> int:
    return excess + excess * MARGIN_PERMILLE // 1000


@given(machine_lists, st.integers(0, 60_000))
def test_machines_suffice_where_they_can_and_none_is_superfluous(machines: list[Machine], excess: int) -> None:
    choice = choose_machines(machines, excess)
    gains = {m.id: m.gain_w for m in machines}
    assert choice.expected_w == sum(gains[t] for t in choice.targets)
    assert all(gains[t] > 0 for t in choice.targets)
    if sum(gains.values()) >= wanted(excess):
        assert choice.expected_w >= wanted(excess)
        assert all(choice.expected_w - gains[t] < wanted(excess) for t in choice.targets), "one could be spared"
    else:
        assert set(choice.targets) == {m for m, g in gains.items() if g > 0}, "all that helps, when all is too little"


@given(st.lists(st.floats(10, 60), min_size=1, max_size=20, unique=True), st.integers(1, 40_000))
def test_the_least_efficient_go_first(joules: list[float], excess: int) -> None:
    machines = [Machine(f"m{i:02}", 3000, 0, j) for i, j in enumerate(joules)]
    chosen = set(choose_machines(machines, excess).targets)
    kept = [m.joule_per_th for m in machines if m.id not in chosen]
    gone = [m.joule_per_th for m in machines if m.id in chosen]
    assert not kept or not gone or min(gone) > max(kept)


@given(machine_lists)
def test_a_stop_takes_every_machine_that_draws(machines: list[Machine]) -> None:
    assert set(choose_machines(machines, 0, everything=True).targets) == {m.id for m in machines if m.gain_w > 0}


@given(machine_lists, st.integers(0, 60_000), st.integers(0, 20_000), st.booleans())
def test_a_step_stays_within_its_budget(machines: list[Machine], excess: int, budget: int, everything: bool) -> None:
    assert choose_machines(machines, excess, everything=everything, budget_w=budget).expected_w <= budget


def fewest(gains: list[int], need: int) -> int | None:
    for size in range(len(gains) + 1):
        if any(sum(c) >= need for c in combinations(gains, size)):
            return size
    return None


@given(output_lists, st.integers(1, 150_000))
def test_outputs_suffice_and_none_is_superfluous(outputs: list[Output], excess: int) -> None:
    choice = choose_outputs(outputs, excess)
    gains = {o.id: o.gain_w for o in outputs}
    if sum(gains.values()) < wanted(excess):
        assert set(choice.targets) == {o for o, g in gains.items() if g > 0}
        return
    assert choice.expected_w >= wanted(excess)
    assert all(choice.expected_w - gains[t] < wanted(excess) for t in choice.targets), "one could stay closed"


@given(output_lists, st.integers(1, 150_000))
def test_without_saon_the_number_of_operations_is_the_least_there_is(outputs: list[Output], excess: int) -> None:
    plain = [Output(o.id, o.gain_w) for o in outputs]
    least = fewest([o.gain_w for o in plain], wanted(excess))
    if least is not None:
        assert len(choose_outputs(plain, excess).targets) == least


@given(output_lists, st.integers(1, 150_000))
def test_a_saon_feeder_goes_only_where_the_others_do_not_suffice(outputs: list[Output], excess: int) -> None:
    others = sum(o.gain_w for o in outputs if not o.saon)
    saon = {o.id for o in outputs if o.saon}
    if others >= wanted(excess):
        assert not saon & set(choose_outputs(outputs, excess).targets)


@pytest.mark.parametrize(
    ("gains", "excess", "chosen"),
    [
        ({"a": 10, "b": 50, "c": 100}, 9, {"a"}),
        ({"a": 10, "b": 50, "c": 100}, 40, {"b"}),
        ({"a": 10, "b": 50, "c": 100}, 120, {"c", "b"}),
        ({"a": 10, "b": 50, "c": 100}, 105, {"c", "a"}),
        ({"a": 10, "b": 0}, 400, {"a"}),
        ({}, 400, set()),
    ],
)
def test_the_smallest_that_suffices_beats_a_larger_one(gains: dict[str, int], excess: int, chosen: set[str]) -> None:
    assert set(choose_outputs([Output(n, g) for n, g in gains.items()], excess).targets) == chosen


def test_two_switches_of_one_branch_are_not_counted_twice() -> None:
    """The same machines behind both: opening the second brings nothing."""
    behind = frozenset({"m1", "m2"})
    outputs = [Output("board", 90, machines=behind), Output("row", 30, machines=frozenset({"m1"})), Output("far", 40)]
    assert set(choose_outputs(outputs, 110).targets) == {"board", "far"}


items = st.lists(st.tuples(st.sampled_from(["switch", "machine"]), st.integers(0, 5000)), max_size=20).map(
    lambda rows: [Return(f"i{n:02}", kind, w) for n, (kind, w) in enumerate(rows)]
)


@given(items, st.integers(0, 20_000), st.none() | st.integers(-5000, 20_000))
def test_a_stage_respects_the_room_and_moves_on(rows: list[Return], stage_w: int, room: int | None) -> None:
    chosen = stage(rows, stage_w=stage_w, room_w=room)
    total = sum(c.expected_w for c in chosen)
    if room is not None:
        assert total <= max(room, 0)
    assert len(chosen) <= 1 or total <= stage_w
    if rows and room is None:
        assert chosen, "at least one thing comes back where there is room"
    kinds = [c.kind for c in chosen]
    assert kinds == sorted(kinds, key=lambda k: k != "switch"), "switches before machines"


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=12),
    st.integers(0, 2000),
    st.integers(0, 600),
)
def test_no_step_of_switches_is_larger_than_ordered(gains: list[int], excess: int, budget: int) -> None:
    outputs = [Output(f"Q{i}", gain) for i, gain in enumerate(gains)]
    chosen = choose_outputs(outputs, excess, budget_w=budget)
    assert chosen.expected_w <= budget


def test_a_switch_larger_than_the_step_is_left_and_smaller_ones_are_taken() -> None:
    outputs = [Output("big", 900), Output("a", 300), Output("b", 200)]
    assert set(choose_outputs(outputs, 800, budget_w=500).targets) == {"a", "b"}
    assert choose_outputs(outputs, 800).targets == ("big",)
