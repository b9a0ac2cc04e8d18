"""The physical plant of one site: pure stepping, no sockets, no waiting.

``step(now_s)`` brings everything to ``now_s``: registers count the power that has been flowing, switches finish their
travel at the exact time it ends (not at the next step), machines follow their ramps, and the power at every node
becomes the sum of what it feeds. Time comes from outside, randomness from the generator passed in: equal calls give
equal plants.

Power at a node is what flows through it downwards, its own losses included (transformers: no-load plus load losses
from the site file). Which node feeds which is :meth:`config.graph.Graph.feeding_tree` with the live positions of the
main contacts, recomputed only when one changes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from config.addresses import MachineAddress
from config.addresses import machines as addresses_of
from config.graph import Graph
from config.nodes import Compensation, Generator, GridConnection, Load, Storage, Switch, Transformer
from config.site import Site
from simulator.cooling import LoopBody
from simulator.latencies import Latencies, load_latencies
from simulator.leaves import MACHINE_WANDER_S, LoadBody
from simulator.machine import Machine, MachineTimes
from simulator.registers import Registers
from simulator.relays import RelayBody, Wiring
from simulator.supply import Supplies
from simulator.switchgear import SwitchBody
from simulator.transfer import Transfer

MAX_EVENTS_PER_STEP = 10_000


class Plant:
    """One site's physics.

    Args:
        site: a checked site file.
        rng: source of all randomness.
        now_s: the plant clock's reading at the beginning (any monotonic zero).
        time_scale: machine delays and ramps are divided by it. Nothing else is.
        latencies: default: the packaged data.
        wall_ms: UTC clock that meters with a clock show.
    """

    def __init__(
        self,
        site: Site,
        *,
        rng: random.Random,
        now_s: float = 0.0,
        time_scale: float = 1.0,
        latencies: Latencies | None = None,
        wall_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        if not time_scale > 0:
            raise ValueError(f"time_scale: saw {time_scale}, expected more than 0 (10: machines ten times faster)")
        self.site = site
        self.time_scale = time_scale
        self.latencies = latencies or load_latencies()
        self.graph = Graph(site)
        self.now_s = now_s
        self.wall_ms = wall_ms
        self.frequency_hz = 50.0
        self.voltage_pu = 1.0
        self._rng = rng
        self.switches: dict[str, SwitchBody] = {
            n.id: SwitchBody.at_normal(n, self.latencies) for n in site.nodes if isinstance(n, Switch)
        }
        self.machines: dict[str, Machine] = {}
        self.machine_addresses: dict[str, MachineAddress] = {}
        self.machines_of_group: dict[str, tuple[Machine, ...]] = {}
        self.loads = self._build_loads()
        self.generation_w: dict[str, float] = {n.id: 0.0 for n in site.nodes if isinstance(n, Generator | Storage)}
        """Output of generators and batteries; a battery that charges has a negative one."""
        self.blacked_out: set[str] = set()
        self.registers: dict[str, Registers] = {p.id: self._build_registers(p.id) for p in site.metering_points}
        self.energised: frozenset[str] = frozenset()
        self.node_power_w: dict[str, float] = {}
        self.node_reactive_var: dict[str, float] = {}
        self._tree: dict[str, str | None] = {}
        self._from_above: list[tuple[str, str | None]] = []
        self._dirty = True
        self._live_since_s: dict[str, float] = {}
        self.on_elapsed: list[Callable[[float], None]] = []
        """Told of every stretch of time, in seconds, before the state at its end is computed."""
        self.transfer = Transfer(self)
        self.supplies = Supplies(site, now_s)
        self.wiring = Wiring(site, self.switches, self.supplies.has_power)
        self.cooling = self._build_loops()
        self._started = False
        self._settle(now_s, 1.0)
        for machine in self.machines.values():
            if machine.powered:
                machine.start_mining(now_s)
        self._started = True
        self._settle(now_s, 1.0)
        for loop in self.cooling.values():
            loop.settle()

    # -- building ---------------------------------------------------------------------------------------------------

    def _build_loads(self) -> dict[str, LoadBody]:
        of_load: dict[str, list[Machine]] = {}
        for group in self.site.miners:
            family = self.latencies.family(group.family)
            made = []
            for address in addresses_of(group):
                times = MachineTimes.of(family, self.time_scale, spread=0.9 + 0.2 * self._rng.random())
                full_w = group.nameplate_w * (0.98 + 0.04 * self._rng.random())
                made.append(Machine(address.id, full_w, group.sleep_w, group.nominal_ths, times, self.now_s))
                self.machine_addresses[address.id] = address
            self.machines.update((machine.id, machine) for machine in made)
            self.machines_of_group[group.id] = tuple(made)
            of_load.setdefault(group.load, []).extend(made)
        shapes = self.latencies.loads
        return {
            node.id: LoadBody(node, shapes[node.kind], tuple(of_load.get(node.id, ())), self._rng)
            for node in self.site.nodes
            if isinstance(node, Load)
        }

    def _build_loops(self) -> dict[str, LoopBody]:
        found: dict[str, LoopBody] = {}
        for spec in self.site.cooling_loops:
            cooled = [b for b in self.loads.values() if b.spec.kind == "mining" and b.spec.cooling_loop == spec.id]
            members = [self.loads[name] for name in spec.members]
            body = LoopBody(spec, self.latencies.cooling_loops[spec.type], members, cooled, self.time_scale)
            found[spec.id] = body
            if spec.flow_ok is not None:
                self.wiring.contact(spec.flow_ok, body.flows)
            if spec.supply_temp is not None:
                self.wiring.sensor(spec.supply_temp, body.measured_c)
        return found

    def _build_registers(self, point_id: str) -> Registers:
        point = next(p for p in self.site.metering_points if p.id == point_id)
        rng = self._rng
        first, second = 1 / 3 + (rng.random() - 0.5) * 0.02, 1 / 3 + (rng.random() - 0.5) * 0.02
        device = next((d for d in self.site.devices if d.id == point.device), None)
        serial = point.passport.meter_serial or (device.serial_number if device else None)
        return Registers(
            point,
            opening_wh=1e6 + rng.random() * 9e6,
            opening_export_wh=rng.random() * 1e5,
            nominal_v=self.nominal_v(point.node),
            shares=(first, second, 1.0 - first - second),
            serial_number=serial or str(rng.randrange(10_000_000, 99_999_999)),
        )

    def nominal_v(self, node: str) -> float:
        """Line-to-line voltage written at the node or the nearest one above it; 400 V where none is."""
        seen: set[str] = set()
        level = [node]
        while level:
            for name in level:
                written = self.graph.nodes[name].voltage_kv
                if written is not None:
                    return written * 1000.0
            seen.update(level)
            level = [p for name in level for p in self.graph.parents(name) if p not in seen]
        return 400.0

    # -- what is asked of it ----------------------------------------------------------------------------------------

    @property
    def relays(self) -> dict[str, RelayBody]:
        """Relay modules by device id."""
        return self.wiring.relays

    def operate(self, switch: str, close: bool) -> bool:
        """A person at the panel opens or closes it; True where it began to move."""
        return self.switches[switch].drive(close, self.now_s, deliberate=True)

    def blackout(self, source: str) -> None:
        """The grid connection loses its voltage.

        Raises:
            KeyError: no grid connection of that id.
        """
        if not isinstance(self.graph.nodes[source], GridConnection):
            raise KeyError(source)
        self.blacked_out.add(source)
        self.touch()

    def restore(self, source: str) -> None:
        """Voltage returns."""
        self.blacked_out.discard(source)
        self.touch()

    def set_generation(self, node: str, output_w: float) -> None:
        """A generator runs at this output (0: stands still); a battery discharges (positive) or charges."""
        if node not in self.generation_w:
            raise KeyError(node)
        self.generation_w[node] = output_w
        self.touch()

    def touch(self) -> None:
        """Positions or sources changed: compute the feeding paths anew, now."""
        self._dirty = True
        self._settle(self.now_s, 0.0)

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def next_event_s(self) -> float | None:
        """When a switch changes by itself next; a step at that time is worth making."""
        due = [t for t in (s.next_s for s in self.switches.values()) if t is not None]
        due += [t for t in (r.next_s for r in self.relays.values()) if t is not None]
        if (transfer := self.transfer.next_s) is not None:
            due.append(transfer)
        return min(due, default=None)

    def step(self, now_s: float) -> None:
        """Bring the plant to ``now_s``. Going back in time is ignored."""
        for _ in range(MAX_EVENTS_PER_STEP):
            event_s = self.next_event_s
            if event_s is None or event_s > now_s:
                break
            self._integrate_to(max(event_s, self.now_s))
            self._run_events()
            self._settle(self.now_s, 0.0)
        elapsed = now_s - self.now_s
        if elapsed < 0:
            return
        self._integrate_to(now_s)
        self._drift(elapsed)
        self._settle(now_s, min(1.0, elapsed / MACHINE_WANDER_S))

    def _integrate_to(self, at_s: float) -> None:
        elapsed = at_s - self.now_s
        if elapsed > 0:
            for registers in self.registers.values():
                registers.integrate(elapsed)
            for observe in self.on_elapsed:
                observe(elapsed)
            for loop in self.cooling.values():
                loop.step(elapsed)
            self.now_s = at_s
        self.wiring.now_s = self.now_s

    def _run_events(self) -> None:
        for relay in self.relays.values():
            relay.advance(self.now_s)
        for switch in self.switches.values():
            due = switch.next_s
            if due is not None and due <= self.now_s and switch.advance(self.now_s):
                self._dirty = True
        if self.transfer.run(self.now_s):
            self._dirty = True

    def _drift(self, elapsed_s: float) -> None:
        pull = min(1.0, elapsed_s / 30.0)
        kick = math.sqrt(min(1.0, elapsed_s))
        self.frequency_hz += (50.0 - self.frequency_hz) * pull + self._rng.gauss(0.0, 0.003) * kick
        self.voltage_pu += (1.0 - self.voltage_pu) * pull + self._rng.gauss(0.0, 0.0005) * kick

    # -- power ------------------------------------------------------------------------------------------------------

    @property
    def positions(self) -> dict[str, bool]:
        """Switch id to closed: the truth of the main contacts."""
        return {name: body.closed for name, body in self.switches.items()}

    @property
    def live_sources(self) -> tuple[str, ...]:
        """Grid connections with voltage, generators and batteries that give power."""
        return (*self._live_grid(), *(name for name, watts in self.generation_w.items() if watts > 0))

    def _live_grid(self) -> tuple[str, ...]:
        nodes = self.site.nodes
        return tuple(n.id for n in nodes if isinstance(n, GridConnection) and n.id not in self.blacked_out)

    def _settle(self, now_s: float, wander_share: float) -> None:
        if self._dirty:
            self._recompute_paths(now_s)
        self.supplies.update(now_s, self.energised)
        for name, relay in self.relays.items():
            relay.set_powered(self.supplies.has_power(name), now_s)
        for load in self.loads.values():
            load.update(now_s, wander_share)
        self._sum_up(now_s)
        for registers in self.registers.values():
            node = registers.point.node
            registers.measure(
                node in self.energised,
                self.node_power_w.get(node, 0.0),
                self.node_reactive_var.get(node, 0.0),
                self.voltage_pu,
                self.frequency_hz,
            )

    def _recompute_paths(self, now_s: float) -> None:
        self._dirty = False
        # What the grid can reach, the grid feeds; generators and batteries carry what is left (islands).
        self._tree = self.graph.feeding_tree(self.positions, self._live_grid())
        if any(watts > 0 for watts in self.generation_w.values()):
            islands = self.graph.feeding_tree(self.positions, self.live_sources)
            self._tree = self._tree | {name: above for name, above in islands.items() if name not in self._tree}
        self._from_above = list(reversed(self._tree.items()))
        live = frozenset(self._tree)
        for name in live - self.energised:
            self._live_since_s[name] = now_s
        self.energised = live
        for name, load in self.loads.items():
            load.set_live(name in live, now_s, started=self._started)
        self.transfer.look(now_s)

    def _sum_up(self, now_s: float) -> None:
        power: dict[str, float] = {}
        reactive: dict[str, float] = {}
        sums_p: dict[str, list[float]] = {}
        sums_q: dict[str, list[float]] = {}
        for name, body in self.loads.items():
            power[name], reactive[name] = body.power_w, body.reactive_var
        self._inject_generation(sums_p)
        for name, parent in self._from_above:
            p = power.get(name, 0.0) + math.fsum(sums_p.get(name, ()))
            q = reactive.get(name, 0.0) + math.fsum(sums_q.get(name, ()))
            node = self.graph.nodes[name]
            if isinstance(node, Transformer):
                p, q = p + self._losses_w(node, p, q), q + self._magnetising_var(node, now_s)
            elif isinstance(node, Compensation):
                q -= node.rated_kvar * 1000.0
            power[name], reactive[name] = p, q
            if parent is not None:
                sums_p.setdefault(parent, []).append(p)
                sums_q.setdefault(parent, []).append(q)
        for name, switch in self.switches.items():
            between = switch.spec.between
            if between is not None and self._tree.get(name) == between[1]:
                power[name], reactive[name] = -power[name], -reactive[name]
        self.node_power_w, self.node_reactive_var = power, reactive

    def _inject_generation(self, sums_p: dict[str, list[float]]) -> None:
        """A running generator beside the grid pushes into the bus it is tied to; alone it follows its load."""
        for name, watts in self.generation_w.items():
            if watts == 0.0 or name not in self._tree:
                continue
            for bus in self.graph.parents(name):
                if bus in self._tree and self._tree[bus] != name:
                    sums_p.setdefault(name, []).append(-watts)
                    if self._tree[name] != bus:
                        sums_p.setdefault(bus, []).append(-watts)
                    break

    @staticmethod
    def _losses_w(node: Transformer, p: float, q: float) -> float:
        no_load_w = (node.no_load_loss_kw or 0.0) * 1000.0
        if not node.rated_kva or not node.load_loss_kw:
            return no_load_w
        return no_load_w + node.load_loss_kw * 1000.0 * (math.hypot(p, q) / (node.rated_kva * 1000.0)) ** 2

    def _magnetising_var(self, node: Transformer, now_s: float) -> float:
        inrush = self.latencies.transformer.magnetising
        into = now_s - self._live_since_s.get(node.id, float("-inf"))
        if not node.rated_kva or not self._started or into >= inrush.seconds:
            return 0.0
        return node.rated_kva * 1000.0 * inrush.multiple * (1.0 - into / inrush.seconds)
