"""The ``balance`` record: one slot of the boundary against the meters just below it. Pure.

Losses follow from the energy that each feeder took and the way it came: under each position of the switches that was
seen in the slot. Where those differ the middle is stated, and half of the difference is part of the tolerance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from agent.metering.slots import SlotRecord
from config.balance import BalanceScheme, element_of, voltage_kv
from config.devices import MeteringPoint, RatioPassport
from config.graph import Graph
from config.site import Site
from wire.energy import quantum_wh
from wire.losses import Chain, Element, Losses, Member, element_losses, loss_id, tolerance_wh
from wire.record_types import Balance, SeenMachines
from wire.rollup import slot_energy

IMPORT = "energy_import_wh"
REFRESH_MS = 1000
"""Meters put new values into their registers about once a second; it matters where power changes at a boundary."""
SECONDARY_A = frozenset({1, 2, 5})
"""Rated secondary currents: a ratio that ends in one of them has the rated primary current in front."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One member's slot: its record, its decode maps, and its power at both boundaries (W, as the meter counts)."""

    record: SlotRecord | None
    decode: Mapping[str, Mapping[str, Any]]
    w0: int | None = None
    w1: int | None = None


@dataclass(frozen=True, slots=True)
class Balancer:
    """What a site's balance is made of, worked out once."""

    scheme: BalanceScheme
    graph: Graph
    points: Mapping[str, MeteringPoint]
    chains: Mapping[str, Chain]
    elements: Mapping[str, Element]

    @classmethod
    def of(cls, site: Site, graph: Graph, scheme: BalanceScheme) -> Balancer:
        """For a site whose scheme makes a balance possible."""
        points = {p.id: p for p in site.metering_points if p.id in scheme.members}
        found = {name: element_of(graph, name) for name in scheme.between}
        elements = {name: element for name, element in found.items() if element is not None}
        return cls(scheme, graph, points, {name: chain_of(graph, p) for name, p in points.items()}, elements)

    def record(
        self,
        t0: int,
        t1: int,
        readings: Mapping[str, Reading],
        positions: Sequence[Mapping[str, bool]],
        machines: Mapping[str, SeenMachines],
    ) -> Balance:
        """The record of one slot.

        Args:
            t0: beginning, epoch s.
            t1: end, epoch s.
            readings: of every member; one that has none is missing.
            positions: every position of the switches that was seen in the slot, at least one.
            machines: feeder → what its machines said.
        """
        scheme = self.scheme
        net = {name: self._net(name, readings.get(name)) for name in scheme.members}
        main = _sum(net[name] for name in scheme.main)
        transit = _sum(net[name] for name in scheme.transit)
        main_wh = None if main is None or transit is None else main - transit
        feeders_wh = _sum(net[name] for name in scheme.feeders)
        losses = self._losses(net, positions, t1 - t0)
        loss_wh = None if losses is None else round(losses.wh)
        residual = tolerance = None
        if main_wh is not None and feeders_wh is not None and losses is not None and loss_wh is not None:
            residual = main_wh - feeders_wh - loss_wh
            members = [self._member(name, readings[name], net[name] or 0, t1 - t0) for name in scheme.members]
            tolerance = tolerance_wh(members, losses)
        return Balance(
            t0=t0,
            t1=t1,
            main=list(scheme.main),
            transit=list(scheme.transit),
            feeders=list(scheme.feeders),
            main_wh=main_wh,
            feeders_wh=feeders_wh,
            loss_wh=loss_wh,
            residual_wh=residual,
            tol_wh=tolerance,
            loss_id=None if scheme.without_data else loss_id(self.elements.values()),
            missing=[name for name in scheme.members if net[name] is None],
            asic=[machines[name] for name in scheme.feeders if name in machines],
        )

    def _net(self, name: str, reading: Reading | None) -> int | None:
        """Energy downwards, Wh; ``None`` where it is not known. A branch that was cut in the slot is not known."""
        record = None if reading is None else reading.record
        if record is None or (record.ty == "gap" and record.fields["why"] != "DE_ENERGISED"):
            return None
        return slot_energy(record.ty, record.fields, inverted=self.points[name].inverted).net_wh

    def _member(self, name: str, reading: Reading, net_wh: int, seconds: int) -> Member:
        error = self.chains[name].error_ppm(net_wh, seconds)
        record = reading.record
        if record is None or record.ty == "gap":
            return Member(net_wh, error)
        fields = record.fields
        quantum = quantum_wh(fields["reg"][IMPORT][1], reading.decode[IMPORT]) or Fraction(0)
        return Member(net_wh, error, quantum, _shift(fields, net_wh, reading.w0, reading.w1))

    def _losses(
        self, net: Mapping[str, int | None], positions: Sequence[Mapping[str, bool]], seconds: int
    ) -> Losses | None:
        taken = {name: wh for name in (*self.scheme.feeders, *self.scheme.transit) if (wh := net[name]) is not None}
        if self.scheme.without_data or len(taken) < len(self.scheme.feeders) + len(self.scheme.transit):
            return None
        found = [self._losses_under(taken, each, seconds) for each in positions]
        low, high = min(f.wh for f in found), max(f.wh for f in found)
        return Losses((low + high) / 2, max(f.slack_wh for f in found) + (high - low) / 2)

    def _losses_under(self, taken: Mapping[str, int], positions: Mapping[str, bool], seconds: int) -> Losses:
        """Losses if the switches had been so for the whole slot."""
        if not self.elements:
            return Losses()
        tree = self.graph.feeding_tree(positions)
        through = {name: 0 for name in self.elements if name in tree}
        for point, wh in taken.items():
            node = self.points[point].node
            at = tree.get(node)
            while at is not None:
                if at in through:
                    through[at] += wh
                at = tree[at]
        parts = (element_losses(self.elements[name], wh, seconds) for name, wh in through.items())
        return sum(parts, Losses())


def chain_of(graph: Graph, point: MeteringPoint) -> Chain:
    """Classes of meter and transformers, and what the current transformers are rated for."""
    passport = point.passport
    kv = voltage_kv(graph, point.node)
    rated: int | None = None
    if passport.ct is not None and kv is not None and passport.ct.den in SECONDARY_A:
        rated = round(kv * 1000 * passport.ct.num * 1.7320508)
    return Chain(
        passport.accuracy_class,
        _class_of(passport.ct),
        _class_of(passport.vt),
        passport.ct is not None,
        passport.vt is not None,
        rated,
    )


def _class_of(ratio: RatioPassport | None) -> str | None:
    """Of the set, else the one that all its transformers have."""
    if ratio is None or ratio.accuracy_class is not None:
        return None if ratio is None else ratio.accuracy_class
    classes = {one.accuracy_class for one in ratio.phases}
    return classes.pop() if len(classes) == 1 else None


def _shift(fields: Mapping[str, Any], net_wh: int, w0: int | None, w1: int | None) -> Fraction:
    """Energy that the instants of the readings may have moved, Wh: the power at each boundary times how late it was
    read, and the change of power times how old a register may be."""
    d0, d1 = fields["rt0"] - fields["t0"] * 1000, fields["rt1"] - fields["t1"] * 1000
    mean = abs(net_wh) * 3_600_000 // max(1, fields["rt1"] - fields["rt0"])
    p0, p1 = (mean if w is None else max(mean, abs(w)) for w in (w0, w1))
    change = mean if w0 is None or w1 is None else abs(w1 - w0)
    return Fraction(p0 * d0 + p1 * d1 + change * REFRESH_MS, 3_600_000)


def _sum(parts: Iterable[int | None]) -> int | None:
    found: Collection[int | None] = list(parts)
    return None if None in found else sum(part for part in found if part is not None)
