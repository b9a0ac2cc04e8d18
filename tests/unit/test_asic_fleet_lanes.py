"""Who may go next: never too many, never too many of one subnet, nobody forgotten."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.asic.lanes import Lane


@dataclass(frozen=True)
class Waiter:
    number: int
    subnet: str


@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.lists(st.sampled_from("abc"), max_size=30),
    st.lists(st.sampled_from(["take", "back", "adopt"]), max_size=80),
)
def test_limits_hold_and_everybody_has_his_turn(
    limit: int, per_subnet: int, subnets: list[str], steps: list[str]
) -> None:
    lane: Lane[Waiter] = Lane(limit, per_subnet)
    for number, subnet in enumerate(subnets):
        lane.put(Waiter(number, subnet))
    out: list[str] = []
    served: list[int] = []
    for step in steps:
        if step == "take":
            before = Counter(out)
            waiter = lane.take()
            if waiter is None:
                continue
            assert len(out) < limit
            assert before[waiter.subnet] < per_subnet
            out.append(waiter.subnet)
            served.append(waiter.number)
        elif step == "adopt":
            lane.adopt("a")
            out.append("a")
        elif out:
            lane.give_back(out.pop())
        assert lane.running == len(out)
    while out:
        lane.give_back(out.pop())
    while (waiter := lane.take()) is not None:
        served.append(waiter.number)
        lane.give_back(waiter.subnet)
    assert sorted(served) == list(range(len(subnets)))
    for subnet in "abc":
        mine = [number for number in served if subnets[number] == subnet]
        assert mine == sorted(mine)


def test_subnets_take_turns_however_long_one_queue_is() -> None:
    lane: Lane[Waiter] = Lane(100, 100)
    for number in range(50):
        lane.put(Waiter(number, "long"))
    lane.put(Waiter(50, "short"))
    first = [lane.take() for _ in range(3)]
    assert any(waiter is not None and waiter.subnet == "short" for waiter in first)


def test_those_sent_home_are_told_and_those_out_still_come_back() -> None:
    lane: Lane[Waiter] = Lane(1, 1)
    for number in range(3):
        lane.put(Waiter(number, "a"))
    assert lane.take() == Waiter(0, "a")
    assert [waiter.number for waiter in lane.drain()] == [1, 2]
    lane.give_back("a")
    assert lane.take() is None
    assert lane.running == 0


def test_no_room_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Lane[Waiter](0, 1)
