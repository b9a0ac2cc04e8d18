"""What an order does next: which machines sleep or are limited, which switches open, and what only has to wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Journal, LiveOrder
from agent.curtailment.planner import Choice, Output, choose_limits, choose_machines, choose_outputs
from agent.curtailment.power_return import PowerReturn
from agent.curtailment.shed import Shedder
from agent.curtailment.targets import Targets
from agent.curtailment.wear import urgent
from agent.live import LiveState
from config.site import Site


@dataclass(frozen=True, slots=True)
class Waves:
    """Starts waves of outputs: sleep, power limits, PDU outlets, switches; each as tasks of the order."""

    site: Site
    journal: Journal
    gates: Gates
    fleet: Fleet
    shedder: Shedder
    live: LiveState
    targets: Targets
    ahead: PowerReturn

    def excess_w(self, order: LiveOrder) -> int | None:
        """Power above the target, W, with what is still to come; ``None`` where one of them is not known."""
        power, aim = self.live.judged(order.doc.point).value_w, order.aim_w
        return None if power is None or aim is None else power + self.ahead.ahead_w() - aim

    def next(self, order: LiveOrder) -> bool:
        """Start the next wave, of the mildest means that is left. False when there is nothing left to do."""
        if order.doc.stop_shedding:
            return False
        o = order.order
        if o.action == "open_feeders":
            return self._opennext(order, Choice(tuple(o.feeders or ()), dict.fromkeys(o.feeders or (), 0)))
        if o.action == "emergency_trip":
            outputs = [x for x in self.fleet.outputs(order.doc.attempts, urgent=True) if x.gain_w > 0 or not x.battery]
            return self._opennext(order, Choice(tuple(x.id for x in outputs), {x.id: x.gain_w for x in outputs}))
        excess = self.excess_w(order)
        stops = self.stops(order)
        everything = stops or excess is None
        if excess is not None and excess <= 0 and not stops:
            return False
        unloaded = self._unload(order, excess) if "switch" in o.methods or o.action == "stop" else 0
        rest = None if excess is None else excess - unloaded
        if unloaded and not stops and ((rest is not None and rest <= 0) or self._budget_w(order) is not None):
            return True
        begun = self._machines_next(order, rest or 0, everything)
        if unloaded or begun is not None:
            return bool(unloaded or begun)
        return self._may_outlet(order) and self._switches_next(order, excess)

    def _machines_next(self, order: LiveOrder, excess_w: int, everything: bool) -> bool | None:
        """Start a wave of machines; ``False`` where only the ramp holds them back, ``None`` where none is left."""
        o = order.order
        if ("sleep" in o.methods or o.action == "stop") and self._sleep_next(order, excess_w, everything):
            return True
        if self._machines_paced(order):
            return False
        limited = "power_limit" in o.methods or o.action == "stop"
        return True if limited and self._limit_next(order, excess_w, everything) else None

    def _switches_next(self, order: LiveOrder, excess: int | None) -> bool:
        # While a process ends, no switch takes away what it needs.
        if self.targets.ends_process(order) and excess is None:
            return False
        if self._may_switch(order) and self._unload(order, excess):
            return True
        ready = [x for x in self._outputs(order) if x.keep is None and self._cooled(x) and not x.battery]
        outlets = [x for x in ready if x.outlet]
        if excess is None:  # no meter to judge by: a stop opens all it may, anything else goes no further
            excess = sum(x.gain_w for x in ready) if self.stops(order) else 0
        pick = partial(choose_outputs, excess_w=excess, target_w=order.aim_w, budget_w=self._budget_w(order))
        if self._opennext(order, pick(outlets)):
            return True
        return self._may_switch(order) and self._opennext(order, pick(x for x in ready if not x.outlet))

    def stops(self, order: LiveOrder) -> bool:
        """True where everything that may go has to: a stop, once it leaves no process its time any more."""
        return order.order.action == "stop" and not self.targets.ends_process(order)

    def _unload(self, order: LiveOrder, excess_w: int | None) -> int:
        """Open switches of batteries that charge, before any machine goes; what that should bring, W, 0 where there is
        nothing to open. A battery that gives is left alone: without it more would be drawn."""
        charging = [x for x in self._outputs(order) if x.battery and x.keep is None]
        if self.stops(order):
            excess_w = max(excess_w or 0, sum(x.gain_w for x in charging))
        if excess_w is None or excess_w <= 0:
            return 0
        choice = choose_outputs(charging, excess_w, target_w=order.aim_w, budget_w=self._budget_w(order))
        return choice.expected_w if self._opennext(order, choice) else 0

    def _sleep_next(self, order: LiveOrder, excess_w: int, everything: bool) -> bool:
        choice = choose_machines(
            self.fleet.sleepers(order.doc.attempts),
            excess_w,
            target_w=order.aim_w,
            everything=everything,
            budget_w=self._budget_w(order),
            largest_first=self.ahead.awaited(),
        )
        if not choice.targets:
            return False
        work = self.shedder.sleep_all(order, choice.expected)
        self.shedder.launch(order, [lambda: asyncio.create_task(work, name=f"sleep-{order.id}")])
        return True

    def _limit_next(self, order: LiveOrder, excess_w: int, everything: bool) -> bool:
        machines = self.fleet.throttles(order.doc.attempts)
        limits = choose_limits(
            machines, excess_w, target_w=order.aim_w, everything=everything, budget_w=self._budget_w(order)
        )
        if not limits:
            return False
        work = self.shedder.limit_all(order, limits, {m.id: m.draw_w for m in machines})
        self.shedder.launch(order, [lambda: asyncio.create_task(work, name=f"limit-{order.id}")])
        return True

    def _outputs(self, order: LiveOrder) -> list[Output]:
        found = self.fleet.outputs(order.doc.attempts, urgent=urgent(order.order))
        return [x for x in found if not x.battery or self._judges(order, x.id)]

    def _judges(self, order: LiveOrder, switch: str) -> bool:
        """Is what a battery behind this switch draws part of the order's point? Of mining it never is."""
        if order.order.measured_at in {"net_import", "gross_mining"}:
            return order.order.measured_at == "net_import"
        node = next((p.node for p in self.site.metering_points if p.id == order.doc.point), None)
        return node in self.fleet.graph.upstream_path(switch, self.fleet.positions())

    def _budget_w(self, order: LiveOrder) -> int | None:
        """Most that may go in one step, from the order's ramp and step limits."""
        o = order.order
        if o.ramp_w_per_min is None:
            return o.max_step_w
        already = sum(h.expected_w for h in self.journal.held_by(order.id))
        elapsed_min = self.shedder.since_ms(order) / 60_000
        allowed = int(o.ramp_w_per_min * (elapsed_min + 1 / 6)) - already
        return max(0, allowed if o.max_step_w is None else min(allowed, o.max_step_w))

    def paced(self, order: LiveOrder) -> bool:
        """True while loads are left that only the ordered ramp holds back: no shortfall, no reason to escalate."""
        if self._machines_paced(order):
            return True
        o = order.order
        if o.ramp_w_per_min is None or order.doc.stop_shedding or not self._may_switch(order):
            return False
        left = self._outputs(order)
        return any(x.gain_w > 0 and (o.max_step_w is None or x.gain_w <= o.max_step_w) for x in left)

    def _machines_paced(self, order: LiveOrder) -> bool:
        o = order.order
        if o.ramp_w_per_min is None or order.doc.stop_shedding or not ("sleep" in o.methods or o.action == "stop"):
            return False
        return any(m.gain_w > 0 for m in self.fleet.sleepers(order.doc.attempts))

    def _may_outlet(self, order: LiveOrder) -> bool:
        return "outlet" in order.order.methods or self._may_switch(order)

    def _may_switch(self, order: LiveOrder) -> bool:
        o = order.order
        return o.action == "stop" or "switch" in o.methods or o.escalation.to == "switch"

    def _cooled(self, output: Output) -> bool:
        """True once every machine behind had its cool-down after we put it to sleep, and its cooling ran on."""
        wait_ms = max(self.site.agent.timing.cooldown_s, output.run_on_s) * 1000
        held = [self.journal.held[m] for m in output.machines if m in self.journal.held]
        return all(not 0 <= self.journal.held_ms(h) < wait_ms for h in held)

    def _opennext(self, order: LiveOrder, choice: Choice) -> bool:
        work = [
            t
            for t in choice.targets
            if t in self.fleet.switches
            and order.doc.attempts.get(t, 0) < self.fleet.max_attempts(t)
            and self.gates.may_open(t, urgent=urgent(order.order)) is None
        ]
        if not work:
            return False
        order.doc.escalated.extend(t for t in work if t not in order.doc.escalated)
        self.shedder.launch(
            order,
            [
                lambda s=s: asyncio.create_task(  # type: ignore[misc]  # defaults bind the loop variable
                    self.shedder.open(order, s, choice.expected.get(s, 0)), name=f"open-{s}"
                )
                for s in work
            ],
        )
        return True

    def sleep_left(self, order: LiveOrder) -> bool:
        """True while machines are left that could be put to sleep."""
        return bool(self.fleet.sleepers(order.doc.attempts))

    def cooling(self, order: LiveOrder) -> bool:
        """True while an output only waits for its machines to cool down."""
        if not self._may_outlet(order) or order.doc.stop_shedding:
            return False
        return any(not self._cooled(x) for x in self._outputs(order) if x.gain_w > 0 and x.keep is None)
