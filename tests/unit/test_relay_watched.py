"""A movement is ours only where we commanded it, and not for ever."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from agent.acquisition.switching import OUR_MOVE_S, WatchedSwitch, outlet_number
from drivers.capabilities import Position, SwitchState, WriteOutcome, WriteStatus


@dataclass
class Breaker:
    """A switch that does what a test says."""

    shows: Position = Position.CLOSED
    answers: WriteStatus = WriteStatus.ACKNOWLEDGED
    now_ns: int = 10**12
    moved: list[tuple[str, str, str]] = field(default_factory=list)

    async def read(self) -> SwitchState:
        return SwitchState(self.shows, 0, self.now_ns)

    async def open(self) -> WriteOutcome:
        return WriteOutcome(self.answers, 0)

    async def close(self) -> WriteOutcome:
        return WriteOutcome(self.answers, 0)

    def watched(self) -> WatchedSwitch:
        return WatchedSwitch("F1", self, lambda: self.now_ns, lambda *seen: self.moved.append(seen))


async def see(switch: WatchedSwitch, breaker: Breaker, *positions: Position) -> None:
    for position in positions:
        breaker.shows = position
        await switch.read()


async def test_our_own_opening_is_not_told_and_reclosing_after_it_is() -> None:
    breaker = Breaker()
    switch = breaker.watched()
    await see(switch, breaker, Position.CLOSED)
    await switch.open()
    await see(switch, breaker, Position.CLOSED, Position.MOVING, Position.OPEN, Position.OPEN)
    assert breaker.moved == []
    await see(switch, breaker, Position.CLOSED)
    assert breaker.moved == [("F1", "open", "closed")]


@pytest.mark.parametrize("status", [WriteStatus.ACKNOWLEDGED, WriteStatus.UNKNOWN])
async def test_a_command_whose_fate_is_not_known_may_still_be_ours(status: WriteStatus) -> None:
    breaker = Breaker(answers=status)
    switch = breaker.watched()
    await see(switch, breaker, Position.CLOSED)
    await switch.open()
    await see(switch, breaker, Position.OPEN)
    assert breaker.moved == []


async def test_a_refused_command_moves_nothing_so_a_movement_after_it_is_foreign() -> None:
    breaker = Breaker(answers=WriteStatus.REFUSED)
    switch = breaker.watched()
    await see(switch, breaker, Position.CLOSED)
    await switch.open()
    await see(switch, breaker, Position.OPEN)
    assert breaker.moved == [("F1", "closed", "open")]


async def test_a_movement_long_after_our_command_is_foreign() -> None:
    breaker = Breaker()
    switch = breaker.watched()
    await see(switch, breaker, Position.CLOSED)
    await switch.open()
    breaker.now_ns += int((OUR_MOVE_S + 1) * 1e9)
    await see(switch, breaker, Position.OPEN)
    assert breaker.moved == [("F1", "closed", "open")]


async def test_the_first_position_and_what_cannot_be_read_are_no_movement() -> None:
    breaker = Breaker()
    switch = breaker.watched()
    await see(switch, breaker, Position.OPEN, Position.UNKNOWN, Position.FAULTY, Position.OPEN)
    assert breaker.moved == []
    await see(switch, breaker, Position.UNKNOWN, Position.CLOSED)
    assert breaker.moved == [("F1", "open", "closed")], "seen through a gap"


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("07", 7), ("outlet_12", 12), ("outlet-3", 3)])
def test_an_outlet_is_named_by_its_number(text: str, number: int) -> None:
    assert outlet_number(text) == number


@pytest.mark.parametrize("text", ["", "relay_1", "outlet_", "7a", "-1", "outlet_12345", "1.2"])
def test_what_is_no_outlet_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of an outlet"):
        outlet_number(text)
