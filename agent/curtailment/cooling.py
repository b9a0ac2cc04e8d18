"""Cooling loops: they outlive the machines they cool, precede them on their way back, and must not freeze.

What is not known is not good: without a flow signal no machine of a hydro or immersion loop is woken, and a signal that
was not read lately is no signal. The agent starts no pump and wakes no machine for warmth; it says how long a loop can
stay cold, and keeps its pumps fed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.clock import Clock
from config.devices import CoolingLoop
from config.nodes import Load
from config.site import Site

STALE_S = 10.0
MEDIUM = frozenset({"hydro", "immersion"})


@dataclass(slots=True)
class LoopState:
    """What was read of one loop."""

    flow: bool | None = None
    flow_ns: int = 0
    temp_c: float | None = None
    temp_ns: int = 0
    good_ns: int | None = None
    """Since when flow and temperature are good without a break (monotonic)."""


@dataclass(slots=True)
class Loops:
    """All loops of a site; fed by the images of the modules that read them."""

    site: Site
    clock: Clock
    _seen: dict[str, LoopState] = field(default_factory=dict)
    _by_id: dict[str, CoolingLoop] = field(default_factory=dict)
    _of_load: dict[str, str] = field(default_factory=dict)
    """Load, mining or cooling → its loop."""
    _members: dict[str, frozenset[str]] = field(default_factory=dict)
    _cooled: dict[str, frozenset[str]] = field(default_factory=dict)
    """Loop → mining loads that it cools."""

    def __post_init__(self) -> None:
        loads = [n for n in self.site.nodes if isinstance(n, Load)]
        for loop in self.site.cooling_loops:
            self._by_id[loop.id] = loop
            self._seen[loop.id] = LoopState()
            self._members[loop.id] = frozenset(loop.members)
            self._cooled[loop.id] = frozenset(n.id for n in loads if n.kind == "mining" and n.cooling_loop == loop.id)
            self._of_load |= dict.fromkeys((*loop.members, *self._cooled[loop.id]), loop.id)

    def take(self, device: str, inputs: Mapping[str, bool | None], temperatures: Mapping[str, float | None]) -> None:
        """A module was read: its inputs and its temperatures in °C; ``None`` is not known."""
        now = self.clock.mono_ns()
        for loop in self._by_id.values():
            state, flow, temp = self._seen[loop.id], loop.flow_ok, loop.supply_temp
            if flow is not None and flow.device == device:
                read = inputs.get(flow.input)
                state.flow, state.flow_ns = None if read is None else read is not flow.inverted, now
            if temp is not None and temp.device == device:
                state.temp_c, state.temp_ns = temperatures.get(temp.point), now
            good = self._bad(loop) is None
            state.good_ns = (state.good_ns or now) if good else None

    def loop_of(self, load: str) -> str | None:
        """The loop that cools a load, or that it belongs to."""
        return self._of_load.get(load)

    def temp_c(self, loop: str) -> float | None:
        """Supply temperature; ``None`` where it is not read, or not lately."""
        state = self._seen[loop]
        fresh = (self.clock.mono_ns() - state.temp_ns) / 1e9 <= STALE_S
        return state.temp_c if fresh else None

    def _bad(self, loop: CoolingLoop) -> str | None:
        """Why machines of a loop must not start now."""
        state = self._seen[loop.id]
        if loop.flow_ok is None:
            return "it has no flow signal: a person starts its machines" if loop.type in MEDIUM else None
        if state.flow is None or (self.clock.mono_ns() - state.flow_ns) / 1e9 > STALE_S:
            return "its flow is not known"
        if not state.flow:
            return "there is no flow"
        if loop.supply_temp is None or loop.min_temp_c is None:
            return None
        temp = self.temp_c(loop.id)
        if temp is None:
            return "its temperature is not known"
        return f"{temp:.1f} °C, needs {loop.min_temp_c:g} °C" if temp < loop.min_temp_c else None

    def why_not_wake(self, load: str) -> str | None:
        """Why machines at this load must not start now; ``None`` if they may: flow and temperature are good, and were
        for the loop's settling time."""
        loop = self._by_id.get(self._of_load.get(load, ""))
        if loop is None:
            return None
        bad = self._bad(loop)
        if bad is not None:
            return f"cooling loop {loop.id}: {bad}"
        good_ns = self._seen[loop.id].good_ns
        if loop.flow_ok is None:
            return None
        good_s = 0.0 if good_ns is None else (self.clock.mono_ns() - good_ns) / 1e9
        if good_s < loop.settle_s:
            return f"cooling loop {loop.id}: good for {good_s:.0f} s, needs {loop.settle_s:g} s"
        return None

    def darkened(self, dark: frozenset[str]) -> tuple[CoolingLoop, ...]:
        """Loops that lose a pump or a fan with these nodes."""
        return tuple(loop for loop in self._by_id.values() if self._members[loop.id] & dark)

    def still_hot(self, dark: frozenset[str], energised: frozenset[str]) -> str | None:
        """Why these nodes must not go dark: they cool machines that stay powered."""
        for loop in self.darkened(dark):
            powered = sorted((self._cooled[loop.id] & energised) - dark)
            if powered:
                return f"it feeds cooling loop {loop.id} of {', '.join(powered)}, which stay powered"
        return None

    def run_on_s(self, dark: frozenset[str]) -> float:
        """How long cooling that these nodes feed has to run after its last machine."""
        return max((loop.run_on_s for loop in self.darkened(dark)), default=0.0)

    def would_freeze(self, dark: frozenset[str]) -> str | None:
        """Why these nodes should stay fed: a loop that is cold, or whose temperature is not known, needs its pumps."""
        for loop in self.darkened(dark):
            if loop.min_temp_c is None or loop.type == "air":
                continue
            temp = self.temp_c(loop.id)
            if temp is None:
                return f"it feeds the pumps of {loop.id}, whose temperature is not known"
            if temp < loop.min_temp_c:
                return f"it feeds the pumps of {loop.id} at {temp:.1f} °C, below {loop.min_temp_c:g} °C"
        return None

    def advice(self) -> str | None:
        """The longest time that cold loops can be without heat, for whoever decides how long an order holds."""
        found = [
            f"cooling loop {loop.id} at {temp:.1f} °C can stay off for {loop.max_off_min_below:g} min"
            for loop in self._by_id.values()
            if loop.min_temp_c is not None
            and loop.max_off_min_below is not None
            and (temp := self.temp_c(loop.id)) is not None
            and temp < loop.min_temp_c
        ]
        return "; ".join(found) or None
