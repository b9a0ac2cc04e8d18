"""What has to be so before an output that is not yet proven is moved; asked again at the moment of each write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import Clock
from agent.curtailment.gates import MUST_BE, Gates
from agent.live import LiveState
from drivers.capabilities import Position

POSITION_AGE_S = 5.0


@dataclass(frozen=True, slots=True)
class Guards:
    """Answers with the reason when not."""

    gates: Gates
    live: LiveState
    clock: Clock
    orders: Callable[[], tuple[str, ...]]
    """Ids of live orders."""
    unsafe: Callable[[str], str | None]
    """Why the device that drives an output must not be used."""

    def may_work(self, *, retest: bool) -> str | None:
        """Why nothing may be tested now; ``None`` if it may."""
        if live := self.orders():
            return f"order {live[0]} is live: it goes first"
        if self.gates.tags:
            return "; ".join(f"a tag hangs at {obj} ({whose})" for obj, whose in sorted(self.gates.tags.items()))
        if self.gates.saon_lock is not None:
            return f"locked after САОН: {self.gates.saon_lock}"
        if self.gates.mode == "armed" and not retest:
            return "the agent is armed; lower its mode, or ask for a retest (--retest)"
        return None

    def may_open(self, switch: str, *, retest: bool) -> str | None:
        """Why this switch may not be opened now; ``None`` if it may. It was just read."""
        node, state = self.gates.switches.get(switch), self.live.switches.get(switch)
        if node is None or node.control is None:
            return f"{switch} is no output"
        if (why := self.may_work(retest=retest)) is not None:
            return why
        if (why := self.unsafe(switch)) is not None:
            return why
        if state is None or state.position is not Position.CLOSED:
            return f"{switch}: position is {state.position if state else 'unknown'}, must be read closed"
        if state.remote is False:
            return f"{switch}: switched to local control"
        if state.trip_circuit_ok is False:
            return f"{switch}: trip circuit bad"
        return None

    def may_close(self, switch: str, *, retest: bool, unbroken: bool) -> str | None:
        """Why the agent may not close this switch now; ``None`` if it may. Doubt never closes.

        Args:
            unbroken: it was opened in this test and read open ever since.
        """
        node, state = self.gates.switches.get(switch), self.live.switches.get(switch)
        if node is None or node.close != "auto":
            return f"{switch}: closed by a person only"
        if (why := self.may_work(retest=retest)) is not None:
            return why
        if not unbroken:
            return f"{switch} was not read open without a break since this test opened it"
        age_s = (self.clock.mono_ns() - state.mono_ns) / 1e9 if state else 1e9
        if state is None or state.position is not Position.OPEN or age_s > POSITION_AGE_S:
            return f"{switch}: position is {state.position if state else 'unknown'}, must be read open"
        for name, (good, reason) in MUST_BE.items():
            found: bool | None = getattr(state, name)
            if found is (not good):
                return f"{switch}: {reason}"
            if found is None and getattr(node.readiness, name) is not None:
                return f"{switch}: {name} cannot be read"
        return None
