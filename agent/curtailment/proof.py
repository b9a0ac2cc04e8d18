"""Is an order met? Judged by fresh samples of the meter and by positions that lasted."""

from __future__ import annotations

from dataclasses import dataclass

from agent.clock import Clock
from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Journal, LiveOrder
from agent.live import LiveState
from config.site import Site
from drivers.capabilities import Position
from wire.quality import Quality
from wire.states import Flag

BLIND_S = 10.0
CREEP_SAMPLES = 3
"""So many samples above the limit in a row are no noise."""
STRANGE_PERMILLE = 200
"""More than this of a fall that no output of ours explains is named."""
NOISE_PERMILLE = 20
"""Less than this of the contracted power is noise."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Reads meter and positions; moves nothing."""

    site: Site
    journal: Journal
    gates: Gates
    fleet: Fleet
    live: LiveState
    clock: Clock

    def observe(self, order: LiveOrder) -> bool:
        """Count fresh samples below and above the limit; false while the meter says nothing."""
        power = self.live.judged(order.doc.point)
        unread = power.age_s(self.clock.mono_ns()) > BLIND_S or power.quality is Quality.SUSPECT
        blind = power.value_w is None and unread
        (order.flags.add if blind else order.flags.discard)(Flag.BLIND)
        if power.value_w is None or order.limit_w is None:
            return False
        if power.mono_ns > order.seen_ns and power.mono_ns > order.wave_ns:
            order.seen_ns = power.mono_ns
            below = power.value_w <= order.limit_w
            order.good = order.good + 1 if below else 0
            order.bad = 0 if below else order.bad + 1
        return True

    def reclose_guard_s(self, order: LiveOrder) -> float:
        """An opening is believed only when it outlasted what could close it again (АПВ, ЧАПВ, АВР).

        Where a switch was closed again or never opened, machines behind it may still boot and draw: low power is
        believed only after they had the time to come back.
        """
        held = {h.target for h in self.journal.held_by(order.id) if h.kind == "switch"} - set(order.doc.not_open)
        guard = max((self.gates.switches[s].reclose_guard_s for s in held), default=0.0)
        lost = set(order.doc.escalated) - held
        return max(guard, self.site.agent.timing.sleep_confirm_s) if lost else guard

    def positions_agree(self, order: LiveOrder) -> bool:
        """Every switch held by this order is read open."""
        for held in self.journal.held_by(order.id):
            if held.kind == "switch" and held.target not in order.doc.not_open:
                state = self.live.switches.get(held.target)
                if state is None or state.position is not Position.OPEN:
                    return False
        return True

    def confirmed(self, order: LiveOrder) -> str | None:
        """What proves that the order is met: the meter, or where no power was ordered the feeders' positions."""
        if order.order.action == "open_feeders":
            states = (self.live.switches.get(f) for f in order.order.feeders or ())
            every = all(state is not None and state.position is Position.OPEN for state in states)
            return "confirmed by the positions" if every and self._told_by_meters(order) else None
        met = order.good >= self.site.agent.timing.fresh_samples and self.positions_agree(order)
        if not met:
            return None
        dark = self.live.power(order.doc.point).value_w is None
        by = "by the meter above the dark branch" if dark else "by the meter"
        return f"confirmed {by}{self._not_ours(order)}"

    def flows(self, order: LiveOrder) -> list[str]:
        """Named feeders that are read open while their own meter shows load: a contact that lies, or welded poles."""
        found: list[str] = []
        for feeder in order.order.feeders or ():
            point, state = self.fleet.meter_of(feeder), self.live.switches.get(feeder)
            power = None if point is None else self.live.power(point)
            if power is None or power.value_w is None or state is None or state.position is not Position.OPEN:
                continue
            if power.mono_ns > order.wave_ns and abs(power.value_w) > self._noise_w(feeder):
                found.append(f"{feeder} is read open, and {point} shows {power.value_w / 1000:.1f} kW")
        return found

    def _noise_w(self, feeder: str) -> int:
        """What a meter may still show behind an open switch: a share of the loads' rated power."""
        loads = self.fleet.graph.loads_behind(feeder, self.fleet.positions())
        return round(sum(self.fleet.graph.loads[name].rated_kw for name in loads) * NOISE_PERMILLE)

    def _told_by_meters(self, order: LiveOrder) -> bool:
        """Every named feeder whose meter speaks was read since it opened, and carries nothing."""
        for feeder in order.order.feeders or ():
            point = self.fleet.meter_of(feeder)
            power = None if point is None else self.live.power(point)
            if power is not None and power.value_w is not None and power.mono_ns <= order.wave_ns:
                return False
        return not self.flows(order)

    def _not_ours(self, order: LiveOrder) -> str:
        """Load that fell by itself (a pool, a dip, a person) is no obedience: it may be back at any moment."""
        power = self.live.judged(order.doc.point).value_w
        if power is None or order.doc.before_w is None:
            return ""
        fell = order.doc.before_w - power
        ours = sum(h.expected_w for h in self.journal.held_by(order.id))
        alone = fell - ours
        if alone <= max(fell * STRANGE_PERMILLE, round(self.site.site.contracted_kw * 1000) * NOISE_PERMILLE) // 1000:
            return ""
        return f"; {alone / 1000:.1f} of {fell / 1000:.1f} kW fell without our doing"

    def _why_closed(self, switch: str) -> str | None:
        keep = self.fleet.loops.would_freeze(self.fleet.dark(switch, self.fleet.positions()))
        return self.gates.may_open(switch) or keep

    def shortfall(self, order: LiveOrder, excess_w: int | None) -> str:
        """What is missing, and which outputs could not be used and why; for people."""
        amount = "unknown" if excess_w is None else f"{max(0, excess_w) / 1000:.1f} kW"
        reasons = [
            f"{s}: {why}"
            for s in self.fleet.switches
            if (why := self._why_closed(s)) is not None and why != "already open"
        ]
        tail = f"; outputs not available: {'; '.join(reasons)}" if reasons else ""
        lies = "".join(f"; {text}" for text in self.flows(order))
        return f"everything allowed was done; missing {amount}{lies}{tail}"[:480]
