"""What can be shed now: machines that draw and can sleep, switches that may open, with the power each would bring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.curtailment.compensation import Banks
from agent.curtailment.cooling import Loops
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Journal, limit_of
from agent.curtailment.planner import Machine, Output, Throttle
from agent.live import LiveState, Miner
from config.devices import MinerGroup
from config.graph import Graph
from config.nodes import Generator, Load, Storage
from config.site import Site
from drivers.capabilities import MinerStatus, Position, PowerLimiter, Sleeper, Switch

ALIVE = (Load, Generator, Storage)
"""What draws or gives power."""
MAX_ATTEMPTS = 2
STALE_PERIODS = 4.0
MAX_SCHEMES = 64
"""Switching schemes for which what goes dark is remembered."""


@dataclass(frozen=True, slots=True)
class KnownMachine:
    """A configured machine; ``sleeper`` is ``None`` where its family cannot sleep or the owner did not allow it."""

    id: str
    group: MinerGroup
    sleeper: Sleeper | None
    limiter: PowerLimiter | None = None
    """``None`` where its family cannot limit power, or the owner named no lowest limit (``lowest_power_w``)."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """What follows from one set of positions: what is live, and what goes dark with each switch."""

    live: frozenset[str]
    dark: dict[str, frozenset[str]] = field(default_factory=dict)


def draw_w(status: MinerStatus, group: MinerGroup) -> int:
    """What a machine draws now as far as is known: its own figure, else nameplate by hash rate.

    A machine that is awake and does not hash yet is about to draw its nameplate.
    """
    if status.sleeping:
        return round(group.sleep_w)
    if status.power_w is not None:
        return round(status.power_w)
    if status.hashrate_ths:
        return round(group.nameplate_w * min(1.1, status.hashrate_ths / group.nominal_ths))
    return round(group.nameplate_w)


@dataclass(slots=True)
class Fleet:
    """Candidates for the planner."""

    site: Site
    graph: Graph
    live: LiveState
    gates: Gates
    journal: Journal
    clock: Clock
    machines: dict[str, KnownMachine]
    switches: Mapping[str, Switch]
    expect: Callable[[Iterable[str]], None] = lambda _machines: None
    """Told which machines are about to answer again, so that they are asked soon."""
    loops: Loops = field(init=False)
    banks: Banks = field(init=False)
    _by_group: dict[str, list[KnownMachine]] = field(default_factory=dict)
    _meter_of: dict[str, str | None] = field(default_factory=dict)
    _schemes: dict[frozenset[str], Scheme] = field(default_factory=dict)
    """By the switches that are open: the graph is walked once for each switching scheme."""

    def __post_init__(self) -> None:
        for machine in self.machines.values():
            self._by_group.setdefault(machine.group.id, []).append(machine)
        self._meter_of = {s: self._feeder_point(s) for s in self.switches}
        self.journal.tenant_of = self.tenant_of
        self.journal.is_battery = self.is_battery
        self.loops = Loops(self.site, self.clock)
        self.banks = Banks(self.site, self.clock)
        self.gates.darkens = self.darkens

    def take(self, device: str, inputs: Mapping[str, bool | None], temperatures: Mapping[str, float | None]) -> None:
        """A module was read: signals of cooling loops, contacts of compensation; ``None`` is not known."""
        self.loops.take(device, inputs, temperatures)
        self.banks.take(device, inputs)

    def shed_wh(self, tenant: str | None) -> int:
        """What a tenant gave under orders so far, Wh; the owner's own machines are a tenant without a name."""
        return self.journal.shed_wh.get(tenant or "", 0)

    def tenant_of(self, target: str) -> str | None:
        """Whose machine it is, or the machines behind a switch where they are one tenant's."""
        known = self.machines.get(target)
        if known is not None:
            return known.group.tenant
        if target not in self.switches:
            return None
        tenants = {m.group.tenant for m in self.machines_behind(target, self.graph.normal_positions())}
        return tenants.pop() if len(tenants) == 1 else None

    def positions(self) -> dict[str, bool]:
        """Closed? per switch: as read; the normal position where it has never been read."""
        found = self.graph.normal_positions()
        for switch, state in self.live.switches.items():
            if state.position in {Position.OPEN, Position.CLOSED}:
                found[switch] = state.position is Position.CLOSED
        return found

    def groups(self) -> list[list[KnownMachine]]:
        """All machines by group, for work that is to be done in parts."""
        return list(self._by_group.values())

    def sleepers(self, attempts: Mapping[str, int], among: Iterable[KnownMachine] | None = None) -> list[Machine]:
        """Machines (of all, or among some) that answer, draw, are not ours already, and may be put to sleep."""
        found: list[Machine] = []
        out_of_service = {group for group in self._by_group if self.gates.maintained(group) is not None}
        for machine in self.machines.values() if among is None else among:
            if machine.group.id in out_of_service:
                continue
            seen = self.live.miners.get(machine.id)
            if machine.sleeper is None or seen is None or seen.status is None or seen.status.sleeping:
                continue
            if attempts.get(machine.id, 0) >= MAX_ATTEMPTS or not self._fresh(machine, seen, machine.id):
                continue
            draw = draw_w(seen.status, machine.group)
            rate = seen.status.hashrate_nominal_ths or machine.group.nominal_ths
            found.append(
                Machine(
                    machine.id,
                    draw,
                    round(machine.group.sleep_w),
                    machine.group.nameplate_w / rate,
                    self.shed_wh(machine.group.tenant),
                )
            )
        return found

    def forgive(self, attempts: dict[str, int]) -> None:
        """Attempts at machines that do sleep were no failures: what wakes them later is answered anew."""
        for machine in attempts.keys() & self.machines.keys():
            seen = self.live.miners.get(machine)
            if seen is not None and seen.status is not None and seen.status.sleeping:
                attempts[machine] = 0

    def _fresh(self, machine: KnownMachine, seen: Miner, target: str) -> bool:
        """True where its newest answer is neither old nor from before our own last word to it."""
        held = self.journal.held.get(target)
        if held is not None and seen.at_ms <= held.since_ms + 1000:
            return False
        age_s = (self.clock.mono_ns() - seen.mono_ns) / 1e9
        return age_s <= STALE_PERIODS * machine.group.period_s + 10

    def throttles(self, attempts: Mapping[str, int]) -> list[Throttle]:
        """Machines that answer, draw more than their lowest limit, and may be limited."""
        found: list[Throttle] = []
        for machine in self.machines.values():
            seen, lowest = self.live.miners.get(machine.id), machine.group.lowest_power_w
            if machine.limiter is None or lowest is None or seen is None or seen.status is None:
                continue
            target = limit_of(machine.id)
            if seen.status.sleeping or self.gates.maintained(machine.group.id) is not None:
                continue
            if attempts.get(target, 0) >= MAX_ATTEMPTS or not self._fresh(machine, seen, target):
                continue
            found.append(Throttle(machine.id, draw_w(seen.status, machine.group), round(lowest)))
        return found

    def dark(self, switch: str, positions: Mapping[str, bool]) -> frozenset[str]:
        """What goes dark with a switch as positions are now; what is dark behind it already is in it too."""
        known = self._scheme(positions)
        if switch not in known.dark:
            known.dark[switch] = self.graph.behind(switch, positions)
        return known.dark[switch]

    def energised(self, positions: Mapping[str, bool]) -> frozenset[str]:
        """What is live as positions are now."""
        return self._scheme(positions).live

    def _scheme(self, positions: Mapping[str, bool]) -> Scheme:
        key = frozenset(name for name, closed in positions.items() if not closed)
        if key not in self._schemes:
            if len(self._schemes) >= MAX_SCHEMES:
                self._schemes.clear()
            self._schemes[key] = Scheme(self.graph.energised(positions))
        return self._schemes[key]

    def darkens(self, switch: str) -> str | None:
        """Why this switch must not open as the plant stands now, whoever orders it: it feeds what must not go dark."""
        positions = self.positions()
        dark = self.dark(switch, positions)
        for name in sorted(dark & self.graph.loads.keys()):
            load = self.graph.loads[name]
            if load.kind == "protected" or load.emergency:
                return f"it feeds {name}, which is never shed"
        return self.loops.still_hot(dark, self.energised(positions))

    def machines_behind(self, switch: str, positions: Mapping[str, bool]) -> list[KnownMachine]:
        """Machines that an opening would cut off."""
        dark = self.dark(switch, positions)
        return [m for g in self.site.miners if g.load in dark for m in self._by_group.get(g.id, ())]

    def fed(self, machine: str, positions: Mapping[str, bool]) -> bool:
        """True where the machine's load node is energised."""
        known = self.machines.get(machine)
        return known is not None and known.group.load in self.energised(positions)

    def outputs(self, attempts: Mapping[str, int], *, urgent: bool = False) -> list[Output]:
        """Switches that may open now, with the live power behind them. ``urgent``: those to be spared too."""
        positions = self.positions()
        found: list[Output] = []
        for switch in self.switches:
            why = self.gates.may_open(switch, urgent=urgent)
            if attempts.get(switch, 0) >= self.max_attempts(switch) or why is not None:
                continue
            behind = self.machines_behind(switch, positions)
            battery = self.batteries_alone(self.dark(switch, positions))
            gain = max(0, self._charging_w(switch, battery)) if battery else self._gain(switch, behind)
            node = self.gates.switches[switch]
            tenants = {m.group.tenant for m in behind}
            dark = self.dark(switch, positions)
            found.append(
                Output(
                    switch,
                    gain,
                    saon=any(s.state == "in" for s in node.saon),
                    outlet=node.role == "outlet",
                    tenant_shed_wh=max((self.shed_wh(t) for t in tenants), default=0),
                    machines=frozenset(m.id for m in behind),
                    run_on_s=self.loops.run_on_s(dark),
                    battery=bool(battery),
                    keep=self.loops.would_freeze(dark),
                )
            )
        return found

    def max_attempts(self, switch: str) -> int:
        """How often this switch may be told to open under one order."""
        control = self.gates.switches[switch].control
        return MAX_ATTEMPTS if control is None else control.max_attempts

    def meter_of(self, switch: str) -> str | None:
        """The metering point that sees just this switch; ``None`` where there is none."""
        if switch not in self._meter_of:
            self._meter_of[switch] = self._feeder_point(switch)
        return self._meter_of[switch]

    def batteries_alone(self, nodes: frozenset[str]) -> tuple[Storage, ...]:
        """The batteries among these nodes, where they are all that draws or gives there."""
        found = [node for name in sorted(nodes) if isinstance(node := self.graph.nodes[name], ALIVE)]
        batteries = tuple(node for node in found if isinstance(node, Storage))
        return batteries if len(batteries) == len(found) else ()

    def is_battery(self, target: str) -> bool:
        """True of a switch with nothing but batteries behind it."""
        return target in self.switches and bool(self.batteries_alone(self.dark(target, self.positions())))

    def battery_point(self, battery: Storage) -> str | None:
        """Where a battery is metered; ``None`` where it is not."""
        above = (p for p in self.graph.parents(battery.id) if p in self.graph.switches)
        return battery.metering_point or next((m for p in above if (m := self._feeder_point(p)) is not None), None)

    def _charging_w(self, switch: str, batteries: tuple[Storage, ...]) -> int:
        """What batteries behind a switch draw, by the switch's meter or their own; 0 where one of them is not known."""
        own = self._meter_of.get(switch)
        points = [own] if own is not None else [self.battery_point(battery) for battery in batteries]
        powers = [None if point is None else self.live.power(point).value_w for point in points]
        return 0 if None in powers else sum(watt for watt in powers if watt is not None)

    def _gain(self, switch: str, behind: list[KnownMachine]) -> int:
        point = self._meter_of.get(switch)
        if point is not None:
            power = self.live.power(point)
            if power.value_w is not None:
                return max(0, power.value_w)
        total = 0
        for machine in behind:
            seen = self.live.miners.get(machine.id)
            if seen is None or seen.status is None:
                total += round(machine.group.nameplate_w)
            else:
                total += draw_w(seen.status, machine.group)
        return total

    def _feeder_point(self, switch: str) -> str | None:
        """The metering point that sees just this switch: at it, or at its only child."""
        nodes = {switch}
        children = [n for n in self.graph.nodes if self.graph.parents(n) == (switch,)]
        if len(children) == 1:
            nodes.add(children[0])
        return next((p.id for p in self.site.metering_points if p.node in nodes and p.read_by == "agent"), None)
