"""Loads as bodies: what a leaf of the graph draws, in W and var."""

from __future__ import annotations

import math
import random

from config.nodes import Load
from simulator.latencies import LoadShape
from simulator.machine import Machine

MACHINE_WANDER_S = 2.0
"""Each machine's draw takes a new small deviation about this often."""


class LoadBody:
    """One load: its machines where it has any, a share of its rating otherwise."""

    def __init__(self, spec: Load, shape: LoadShape, machines: tuple[Machine, ...], rng: random.Random) -> None:
        self.spec = spec
        self.shape = shape
        self.machines = machines
        self.share = shape.share
        """Share of the rating it draws while fed; tests may change it."""
        self.power_w = 0.0
        self.reactive_var = 0.0
        self._rng = rng
        self._live = False
        self._live_since_s = float("-inf")
        self._noise = 0.0
        self._next_wander = 0
        self._tan = math.tan(math.acos(shape.power_factor))

    def set_live(self, live: bool, now_s: float, *, started: bool) -> None:
        """The node got or lost its feed. ``started``: the plant runs already, so this is a switching-on."""
        if live == self._live:
            return
        self._live = live
        if live and started:
            self._live_since_s = now_s
        for machine in self.machines:
            machine.set_powered(live, now_s)

    def update(self, now_s: float, wander_share: float) -> None:
        """Draw at ``now_s``; ``wander_share`` of the machines get a new small deviation."""
        if not self._live:
            self.power_w = self.reactive_var = 0.0
            return
        if self.machines:
            self._wander_some(wander_share)
            for machine in self.machines:
                machine.advance(now_s)
            self.power_w = math.fsum([machine.draw_w for machine in self.machines])
            self.reactive_var = self.power_w * self._tan
            return
        if self._rng.random() < wander_share:
            self._noise = (self._rng.random() - 0.5) * 0.01
        self.power_w = self.spec.rated_kw * 1000.0 * self.share * (1.0 + self._noise)
        self.reactive_var = self.power_w * self._tan
        if now_s < self._live_since_s + self.shape.inrush_s:
            # A motor that starts takes many times its current at a poor power factor: mostly reactive.
            apparent = math.hypot(self.power_w, self.reactive_var) * self.shape.inrush
            self.power_w *= min(2.0, self.shape.inrush)
            self.reactive_var = math.sqrt(max(0.0, apparent**2 - self.power_w**2))

    def _wander_some(self, share: float) -> None:
        count = len(self.machines)
        some = min(count, math.ceil(count * share))
        for _ in range(some):
            self.machines[self._next_wander % count].wander(self._rng)
            self._next_wander += 1
