"""What can be shed now: machines that draw and can sleep, switches that may open, with the power each would bring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Journal
from agent.curtailment.planner import Machine, Output
from agent.live import LiveState
from config.devices import MinerGroup
from config.graph import Graph
from config.site import Site
from drivers.capabilities import MinerStatus, Position, Sleeper, Switch

MAX_ATTEMPTS = 2
STALE_PERIODS = 4.0


@dataclass(frozen=True, slots=True)
class KnownMachine:
    """A configured machine; ``sleeper`` is ``None`` where its family cannot sleep or the owner did not allow it."""

    id: str
    group: MinerGroup
    sleeper: Sleeper | None


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
    _by_group: dict[str, list[KnownMachine]] = field(default_factory=dict)
    _meter_of: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for machine in self.machines.values():
            self._by_group.setdefault(machine.group.id, []).append(machine)
        self._meter_of = {s: self._feeder_point(s) for s in self.switches}

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
            if attempts.get(machine.id, 0) >= MAX_ATTEMPTS:
                continue
            held = self.journal.held.get(machine.id)
            if held is not None and seen.at_ms <= held.since_ms + 1000:
                continue  # its newest answer is older than our order to sleep
            age = (self.clock.mono_ns() - seen.mono_ns) / 1e9
            if age > STALE_PERIODS * machine.group.period_s + 10:
                continue
            draw = draw_w(seen.status, machine.group)
            rate = seen.status.hashrate_nominal_ths or machine.group.nominal_ths
            found.append(
                Machine(
                    machine.id,
                    draw,
                    round(machine.group.sleep_w),
                    machine.group.nameplate_w / rate,
                    machine.group.tenant,
                )
            )
        return found

    def machines_behind(self, switch: str, positions: Mapping[str, bool]) -> list[KnownMachine]:
        """Machines that an opening would cut off."""
        groups = self.graph.miners_behind(switch, positions)
        return [m for g in groups for m in self._by_group.get(g.id, ())]

    def fed(self, machine: str, positions: Mapping[str, bool]) -> bool:
        """True where the machine's load node is energised."""
        known = self.machines.get(machine)
        return known is not None and known.group.load in self.graph.energised(positions)

    def outputs(self, attempts: Mapping[str, int]) -> list[Output]:
        """Switches that may open now, with the live power behind them. A second switch in one branch is left out."""
        positions = self.positions()
        found: list[Output] = []
        for switch in self.switches:
            if attempts.get(switch, 0) >= self.max_attempts(switch) or self.gates.may_open(switch) is not None:
                continue
            behind = self.machines_behind(switch, positions)
            gain = self._gain(switch, behind)
            node = self.gates.switches[switch]
            found.append(Output(switch, gain, any(s.state == "in" for s in node.saon), frozenset(m.id for m in behind)))
        return found

    def max_attempts(self, switch: str) -> int:
        """How often this switch may be told to open under one order."""
        control = self.gates.switches[switch].control
        return MAX_ATTEMPTS if control is None else control.max_attempts

    def meter_of(self, switch: str) -> str | None:
        """The metering point that sees just this switch; ``None`` where there is none."""
        return self._meter_of.get(switch)

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
