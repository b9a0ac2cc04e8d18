"""Curtailable now: what an order could take off, by live meters and machines' own figures, never by nameplate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.planner import Machine, Output, choose_outputs
from agent.live import LiveState
from config.site import Site
from drivers.capabilities import Position
from wire.messages import Curtailable

EVERYTHING_W = 10**12
MAX_WHY = 200


@dataclass(frozen=True, slots=True)
class Now:
    """One look at all outputs and machines."""

    total: Curtailable
    outputs_w: dict[str, int | None]
    """Output → live power behind it by its own meter."""
    why: dict[str, str]
    """Output → why it cannot be opened now."""


def power_behind(fleet: Fleet, live: LiveState, switch: str) -> int | None:
    """What the output's own meter shows now, W; 0 where the switch is read open, ``None`` where nothing tells."""
    state = live.switches.get(switch)
    if state is not None and state.position is Position.OPEN:
        return 0
    point = fleet.meter_of(switch)
    value = None if point is None else live.power(point).value_w
    return None if value is None else max(0, value)


def group_w(live: LiveState, group: str) -> int | None:
    """What the machines of a group say they draw, W; ``None`` where none of them tells."""
    told = [
        seen.status.power_w
        for machine, seen in live.miners.items()
        if machine.rpartition("/")[0] == group and seen.status is not None and seen.status.power_w is not None
    ]
    return round(sum(told)) if told else None


def told_by_machine(machines: list[Machine], live: LiveState) -> list[Machine]:
    """Machines whose draw is their own word (power, or hash rate); the others' nameplate is no measurement."""
    found = []
    for machine in machines:
        seen = live.miners.get(machine.id)
        status = seen.status if seen is not None else None
        if status is not None and (status.power_w is not None or status.hashrate_ths):
            found.append(machine)
    return found


async def look(site: Site, fleet: Fleet, gates: Gates, live: LiveState) -> Now:
    """What an order could take off now, and why the rest not: an agent that is not armed takes off nothing."""
    found = await reach(site, fleet, gates, live)
    if gates.mode == "armed":
        return found
    net = live.power(site.measured_at.net_import).value_w
    why = dict.fromkeys(fleet.switches, f"agent mode is {gates.mode}")
    why |= {s: reason[:MAX_WHY] for s in fleet.switches if (reason := gates.unusable(s)) is not None}
    return Now(Curtailable(sleep_w=0, switch_w=0, floor_sleep_w=net, floor_switch_w=net), found.outputs_w, why)


async def reach(site: Site, fleet: Fleet, gates: Gates, live: LiveState) -> Now:
    """What could be taken off if the agent's mode allowed it. Lets others run between groups of machines."""
    machines: list[Machine] = []
    for group in fleet.groups():
        machines += told_by_machine(fleet.sleepers({}, group), live)
        await asyncio.sleep(0)
    outputs_w = {switch: power_behind(fleet, live, switch) for switch in fleet.switches}
    net = live.power(site.measured_at.net_import).value_w
    why = {s: reason[:MAX_WHY] for s in fleet.switches if (reason := gates.may_open(s)) is not None}
    gains = {m.id: m.gain_w for m in machines}
    # Machines cannot draw more together than the site does: its meter has the last word.
    sleep = None if net is None else min(sum(gains.values()), max(0, net))
    usable = [s for s in fleet.switches if s not in why]
    known = [s for s in usable if outputs_w[s] is not None]
    positions = fleet.positions()
    behind = {s: frozenset(m.id for m in fleet.machines_behind(s, positions)) for s in known}
    chosen = choose_outputs([Output(s, outputs_w[s] or 0, machines=behind[s]) for s in known], EVERYTHING_W)
    switch = None if usable and not known else chosen.expected_w
    for name in usable:
        if outputs_w[name] is None:
            why[name] = "power behind it is not known: no meter of its own answers"
    opened = frozenset().union(*(behind[s] for s in chosen.targets)) if chosen.targets else frozenset()
    beside = sum(gain for name, gain in gains.items() if name not in opened)
    floor_switch = None if net is None or switch is None else min(net, max(0, net - switch - beside))
    floor_sleep = None if net is None or sleep is None else net - sleep
    total = Curtailable(sleep_w=sleep, switch_w=switch, floor_sleep_w=floor_sleep, floor_switch_w=floor_switch)
    return Now(total, outputs_w, why)
