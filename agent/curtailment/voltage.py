"""Is the voltage fit for load to come back? Capacitors and cables that stay lift it, a weak grid lowers it.

Read at the meters of the point that an order is judged by and at every live bus with compensation, against the nominal
voltage of the nearest node that states one. Reactive power is recorded at the same points and holds nothing up: load
that returns takes it back. The agent regulates nothing; it waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.live import LiveState
from config.graph import Graph
from config.nodes import Bus, Compensation, Switch
from config.site import Site

BAND_PERCENT = 10
"""Of the nominal voltage, up and down: the limit of ГОСТ 32144 for supply voltage."""
LINES = ("voltage_l1_l2_v", "voltage_l2_l3_v", "voltage_l3_l1_v")
PHASES = ("voltage_l1_n_v", "voltage_l2_n_v", "voltage_l3_n_v")


@dataclass(frozen=True, slots=True)
class VoltageGuard:
    """Pure but for the newest readings."""

    site: Site
    graph: Graph
    live: LiveState
    energised: Callable[[], Collection[str]]
    """Nodes that are live now: a dead bus says nothing about the voltage at which load would return."""

    def members(self, point: str) -> tuple[str, ...]:
        """Metering points of an order's point, in the order of the site file."""
        names = {name for v in self.site.virtual_points if v.id == point for _, name in v.terms()} or {point}
        return tuple(known.id for known in self.site.metering_points if known.id in names)

    def buses(self) -> dict[str, str]:
        """Metering point → bus with compensation whose voltage it reads: at the bus, else at a switch that feeds it."""
        found: dict[str, str] = {}
        for node in self.site.nodes:
            bus = self._bus_of(node.id) if isinstance(node, Compensation) else None
            if bus is None:
                continue
            feeders = {n for n in self.graph.parents(bus) if isinstance(self.graph.nodes[n], Switch)}
            for nodes in ({bus}, {n for n in feeders if self.graph.switches[n].role != "section"}):
                read = [p.id for p in self.site.metering_points if p.node in nodes and p.read_by == "agent"]
                if read:
                    found |= dict.fromkeys(read, bus)
                    break
        return found

    def _bus_of(self, node: str) -> str | None:
        """The bus that a node hangs at, through switches alone."""
        above = self.graph.parents(node)
        while above and not isinstance(self.graph.nodes[above[0]], Bus):
            above = self.graph.parents(above[0]) if isinstance(self.graph.nodes[above[0]], Switch) else ()
        return above[0] if above else None

    def unfit(self, point: str) -> str | None:
        """Why no load may return at a point for its voltage or that of a bus with compensation; ``None`` where it is
        fit, or no meter there reads it."""
        members, buses, live = set(self.members(point)), self.buses(), self.energised()
        for known in self.site.metering_points:
            if known.id not in members and (known.id not in buses or not {known.node, buses[known.id]} <= set(live)):
                continue
            nominal = self._nominal_v(known.node)
            ratio = known.passport.vt
            # Where the agent applies the transformers' ratio the meter shows secondary volts.
            factor = ratio.num / ratio.den if ratio is not None and known.passport.ratio_applied_in != "meter" else 1.0
            for names, rated in ((LINES, nominal), (PHASES, None if nominal is None else nominal / math.sqrt(3))):
                for name in names:
                    value = self.live.reading(known.device, name)
                    if rated is None or not value.quality.usable or not isinstance(value.value, int | float):
                        continue
                    volts = value.value * factor
                    if abs(volts - rated) > rated * BAND_PERCENT / 100:
                        return (
                            f"voltage at {known.id} is {volts / 1000:.2f} kV, "
                            f"needed {rated / 1000:.2f} kV ± {BAND_PERCENT} %"
                        )
        return None

    def _nominal_v(self, node: str) -> float | None:
        """Nominal line voltage of a node, or of what feeds it up to the next transformer, or of what it feeds."""
        current: str | None = node
        while current is not None:
            found = self.graph.nodes[current]
            if found.voltage_kv is not None:
                return found.voltage_kv * 1000
            above = self.graph.parents(current)
            current = above[0] if above and found.type != "transformer" else None
        below = [n for n in self.graph.nodes.values() if node in self.graph.parents(n.id) and n.voltage_kv is not None]
        same = [n for n in below if self.graph.nodes[node].type != "transformer"]
        return same[0].voltage_kv * 1000 if same and same[0].voltage_kv is not None else None
