"""A meter that stands still while machines that sleep under an order run again: what it shows is not their power."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from agent.clock import Clock
from agent.curtailment.fleet import Fleet
from agent.curtailment.journal import Journal, LiveOrder
from agent.curtailment.proof import NOISE_PERMILLE
from agent.curtailment.shed import Shedder
from agent.live import LiveState
from config.site import Site

log = structlog.get_logger()

STILL_NS = 20_000_000_000
"""So long a meter has to show the same W, in readings that are new: no load is so even."""


@dataclass(slots=True)
class Stillness:
    """Watches the points of orders that hold, and the machines held under them."""

    site: Site
    journal: Journal
    fleet: Fleet
    shedder: Shedder
    live: LiveState
    clock: Clock
    _same: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Point → (W, monotonic time of the first reading that showed it)."""
    _asleep: dict[str, int] = field(default_factory=dict)
    """Machine → when it was last seen asleep (monotonic)."""

    def answer(self, order: LiveOrder) -> str | None:
        """Put machines to sleep again that run behind a meter that has not moved since before they woke.

        Returns:
            Why, where it did; ``None`` where nothing is wrong.
        """
        point, power = order.doc.point, self.live.judged(order.doc.point)
        if power.value_w is None:
            self._same.pop(point, None)
            return None
        shown_w, since = self._same.setdefault(point, (power.value_w, power.mono_ns))
        if shown_w != power.value_w:
            self._same[point] = shown_w, since = power.value_w, power.mono_ns
        awake = self._awake(order, since)
        if power.mono_ns - since < STILL_NS or order.doc.stop_shedding or not awake:
            return None
        work = self.shedder.sleep_all(order, awake)
        self.shedder.launch(order, [lambda: asyncio.create_task(work, name=f"sleep-{order.id}")])
        why = f"{point} stands still at {shown_w / 1000:.1f} kW while {len(awake)} machines run that were asleep"
        log.error("meter_stands_still", order=order.id, point=point, power_w=shown_w, awake=len(awake))
        return why

    def _awake(self, order: LiveOrder, since: int) -> dict[str, int]:
        """Machines held under the order that woke after the meter began to stand still → W that they draw; empty where
        together they are no more than noise."""
        held = [h.target for h in self.journal.held_by(order.id) if h.kind == "machine"]
        for machine in held:
            seen = self.live.miners.get(machine)
            if seen is not None and seen.status is not None and seen.status.sleeping:
                self._asleep[machine] = seen.mono_ns
        known = [self.fleet.machines[m] for m in held if m in self.fleet.machines and self._asleep.get(m, 0) >= since]
        found = {m.id: m.gain_w for m in self.fleet.sleepers(order.doc.attempts, known)} if known else {}
        least_w = round(self.site.site.contracted_kw * NOISE_PERMILLE)
        return found if sum(found.values()) > least_w else {}
