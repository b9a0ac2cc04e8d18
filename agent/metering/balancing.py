"""Writes one ``balance`` record per slot, once every metering point has closed it.

A slot in which the agent did not run has none: its gaps say all there is to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from agent.clock import Clock
from agent.curtailment.fleet import Fleet, draw_w
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.live import Miner
from agent.metering.balance import Balancer, Reading
from agent.metering.machines import MachineEnergy, feeders_of
from agent.metering.shares import loads_behind
from agent.metering.state import PointState
from config.balance import balance_scheme
from config.graph import Graph
from config.site import Site
from wire.record_types import SeenMachines

log = structlog.get_logger()

STREAM = "bal"
MOST_POSITIONS = 16
"""Different positions of the switches that are told apart within a slot."""


@dataclass(slots=True)
class Balancing:
    """Told of positions, machines and slot boundaries."""

    site: Site
    graph: Graph
    ledger: Ledger
    fleet: Fleet
    clock: Clock
    balancer: Balancer | None = field(init=False)
    machines: MachineEnergy = field(init=False)
    _positions: list[dict[str, bool]] = field(default_factory=list)
    _seen: Mapping[str, SeenMachines] = field(default_factory=dict)
    _power: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """Point → (boundary, power there)."""
    _last_t1: int = 0

    def __post_init__(self) -> None:
        scheme = balance_scheme(self.site, self.graph)
        self.balancer = Balancer.of(self.site, self.graph, scheme) if scheme.possible else None
        if self.balancer is None:
            log.warning("no_balance", reason=scheme.why_not)
        feeders = scheme.feeders if self.balancer is not None else ()
        behind = {p.id: loads_behind(self.graph, p) for p in self.site.metering_points if p.id in feeders}
        groups = {group.id: group for group in self.site.miners}
        self.machines = MachineEnergy(feeders_of(groups.values(), behind), groups)

    async def prepare(self) -> None:
        """After a start: which slot was balanced last."""
        rows = await self.ledger.read("SELECT payload FROM record WHERE stream=? ORDER BY n DESC LIMIT 1", STREAM)
        if rows:
            self._last_t1 = int(json.loads(bytes(rows[0][0]))["t1"])

    def miner_read(self, machine: str, seen: Miner) -> None:
        """A machine was polled."""
        group = self.machines.groups.get(machine.partition("/")[0])
        status = seen.status
        self.machines.take(machine, seen, None if status is None or group is None else draw_w(status, group))

    def positions_changed(self) -> None:
        """Switches were read; every new position in a slot counts."""
        now = dict(self.fleet.positions())
        if (not self._positions or self._positions[-1] != now) and len(self._positions) < MOST_POSITIONS:
            self._positions.append(now)

    def begin(self) -> None:
        """A boundary has come: what the machines drew belongs to the slot that ends now."""
        self._seen = self.machines.cut(self.clock.mono_ns())

    async def close(self, t1: int, states: Mapping[str, PointState]) -> None:
        """Every point has closed the slot that ends at ``t1`` (epoch s)."""
        positions = self._positions or [dict(self.fleet.positions())]
        self._positions = [dict(self.fleet.positions())]
        t0 = t1 - self.site.agent.slot_s
        readings = {name: self._reading(state, t0, t1) for name, state in states.items()}
        if self.balancer is None or t1 <= self._last_t1 or all(r.record is None for r in readings.values()):
            return
        record = self.balancer.record(t0, t1, readings, positions, self._seen)
        try:
            await self.ledger.commit(Txn().record(STREAM, "balance", dict(record)))
        except LedgerError as error:
            log.error("balance_not_recorded", t1=t1, error=str(error))
            return
        self._last_t1 = t1

    def _reading(self, state: PointState, t0: int, t1: int) -> Reading:
        newest, chain = state.newest, state.chain
        last = None if chain is None else chain.last
        w1 = None if last is None or last.t != t1 else last.power_w
        at, power = self._power.get(state.point.id, (0, None))
        self._power[state.point.id] = (t1, w1)
        fresh = newest is not None and newest.fields["t1"] == t1
        return Reading(newest if fresh else None, state.decode, power if at == t0 else None, w1)
