"""Wear of switches: what was moved when, and whether one more movement is allowed now.

A contactor or breaker has a least time closed, a least time open and a number of operations an hour that its maker
allows (``min_on_s min_off_s max_operations_per_hour`` of the site file). They spare the switch; they never weigh more
than people or the grid: an order that is urgent opens all the same (:func:`urgent`). Nothing closes against them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.ledger import Ledger
from config.nodes import Switch
from drivers.capabilities import Position, SwitchState
from wire.orders import Order

HOUR_NS = 3_600_000_000_000
ENDS = frozenset({Position.OPEN, Position.CLOSED})


def urgent(order: Order) -> bool:
    """True for orders that do not wait for a switch to be spared: a stop, a trip, anything under «Авария»."""
    return order.action in {"stop", "emergency_trip"} or order.declaration is not None


@dataclass(slots=True)
class Wear:
    """Movements of every switch within the last hour, as positions showed them."""

    clock: Clock
    switches: dict[str, Switch] = field(default_factory=dict)
    _moves: dict[str, deque[int]] = field(default_factory=dict)
    """Switch → monotonic times of its movements, oldest first; negative ones are from before this process."""

    def load(self, ledger: Ledger, switches: dict[str, Switch]) -> None:
        """Movements by the agent's own hand that an earlier run wrote down."""
        self.switches = switches
        now_ms, now_ns = self.clock.now_ms(), self.clock.mono_ns()
        rows = ledger.read_now(
            "SELECT target, outcome_ms FROM step WHERE kind IN ('open', 'close') AND status IN ('open', 'closed') "
            "AND outcome_ms > ? ORDER BY outcome_ms",
            now_ms - HOUR_NS // 1_000_000,
        )
        for target, at_ms in rows:
            self._moved(str(target), now_ns - max(0, now_ms - int(at_ms)) * 1_000_000)

    def heard(self, switch: str, was: SwitchState | None, now: SwitchState) -> None:
        """A switch was read; counted where it went from one end to the other, whoever moved it."""
        if was is not None and was.position is not now.position and now.position in ENDS:
            self._moved(switch, now.mono_ns)

    def _moved(self, switch: str, at_ns: int) -> None:
        moves = self._moves.setdefault(switch, deque(maxlen=256))
        moves.append(at_ns)

    def within_hour(self, switch: str) -> int:
        """Movements within the last hour."""
        since = self.clock.mono_ns() - HOUR_NS
        moves = self._moves.get(switch)
        while moves and moves[0] < since:
            moves.popleft()
        return len(moves or ())

    def _still_s(self, switch: str) -> float | None:
        """Seconds since it moved last; ``None`` where that is longer than an hour, or was not seen."""
        return (self.clock.mono_ns() - self._moves[switch][-1]) / 1e9 if self.within_hour(switch) else None

    def spared(self, switch_id: str, *, closed: bool) -> str | None:
        """Why this switch should not be moved now, for its own sake.

        Args:
            switch_id: which.
            closed: where it stands; from there it would move.
        """
        switch = self.switches[switch_id]
        still, least = self._still_s(switch_id), switch.min_on_s if closed else switch.min_off_s
        if still is not None and still < least:
            word = "closed" if closed else "open"
            return f"{word} for {still:.0f} s, stays so {least:g} s at least"
        most, moves = switch.max_operations_per_hour, self.within_hour(switch_id)
        # Opening takes one more to come back: the last allowed movement is kept for closing.
        if most is not None and moves + (2 if closed else 1) > most:
            return f"{moves} operations within the hour, {most} allowed"
        return None
