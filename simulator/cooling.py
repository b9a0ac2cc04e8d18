"""Cooling loops as bodies: does the medium flow, and how warm is what goes to the machines.

One body of water, oil or air per loop. Machines heat it while it flows; a cooler with a thermostat keeps it at its set
point, or as near to the outside as it can; the rest is lost to the outside, more the colder it is there. Without flow
no heat of the machines reaches it, and it goes towards the outside temperature. Integrated exactly over any stretch in
which heat and outside stay the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from config.devices import CoolingLoop
from simulator.latencies import LoopShape
from simulator.leaves import LoadBody

DEFAULT_OUTSIDE_C = 10.0


class LoopBody:
    """One cooling loop.

    Args:
        spec: from the site file.
        shape: its thermal data.
        members: pumps, fans and coolers; it flows while all of them run.
        machines: the loads it cools.
        time_scale: thermal time constants are divided by it, as the machines' ramps are.
    """

    def __init__(
        self,
        spec: CoolingLoop,
        shape: LoopShape,
        members: Sequence[LoadBody],
        machines: Sequence[LoadBody],
        time_scale: float,
    ) -> None:
        self.spec = spec
        self.shape = shape
        self.members = tuple(members)
        self.machines = tuple(machines)
        self.outside_c = DEFAULT_OUTSIDE_C
        self.blocked = False
        """Fault: the pumps run and nothing flows."""
        self.sensor_broken = False
        """Fault: the temperature sensor shows nothing."""
        self.supply_c = self.outside_c
        self._rated_w = sum(load.spec.rated_kw for load in self.machines) * 1000.0
        self._loss_s = 1000.0 * shape.capacity_kj_per_k_kw / shape.loss_w_per_k_kw / time_scale
        self._cooler_s = shape.capacity_kj_per_k_kw * shape.approach_k / time_scale

    def flows(self) -> bool:
        """Every pump or fan runs and nothing is in the way."""
        return bool(self.members) and not self.blocked and all(load.power_w > 0.0 for load in self.members)

    def measured_c(self) -> float | None:
        """What the sensor says."""
        return None if self.sensor_broken else self.supply_c

    def settle(self) -> None:
        """Be where it would be after days like this: how a plant looks when the simulation begins."""
        self.supply_c = min(self._unchecked_c(), self._held_c()) if self.flows() else self.outside_c

    def step(self, elapsed_s: float) -> None:
        """Let time run with the present heat, flow and outside temperature."""
        free_c = self._unchecked_c()
        warm_c = free_c + (self.supply_c - free_c) * math.exp(-elapsed_s / self._loss_s)
        if self.flows():
            held_c = self._held_c()
            above_k = max(0.0, self.supply_c - held_c)
            warm_c = min(warm_c, held_c + above_k * math.exp(-elapsed_s / self._cooler_s))
        self.supply_c = warm_c

    def _heat(self) -> float:
        """Heat taken up from the machines, as a share of what they give at their rating."""
        if not self.flows() or self._rated_w <= 0.0:
            return 0.0
        return sum(load.power_w for load in self.machines) / self._rated_w

    def _unchecked_c(self) -> float:
        """Where it would end with the cooler shut: its losses balance the heat."""
        return self.outside_c + 1000.0 * self._heat() / self.shape.loss_w_per_k_kw

    def _held_c(self) -> float:
        """Where the cooler holds it: the set point, or above the outside by what the heat needs."""
        return max(self.shape.set_c, self.outside_c + self.shape.approach_k * self._heat())
