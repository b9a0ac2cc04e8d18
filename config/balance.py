"""The balance of a site: its boundary, the meters just below it, and what lies in between. Pure, from the graph alone.

Whatever position switches are in, every way from the boundary to a load has to cross exactly one of the meters below
it; then the sum of them is the boundary less the losses in between, also while a section breaker is switched. Ways are
therefore followed through open and closed switches alike, and through sections both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

from config.devices import MeteringPoint
from config.graph import Graph
from config.nodes import Generator, GridConnection, Line, Load, Node, Storage, Transformer
from config.site import Site
from wire.losses import Element, LineLoss, TransformerLoss


@dataclass(frozen=True, slots=True)
class BalanceScheme:
    """What is balanced against what; ids of metering points, except where nodes are named."""

    main: tuple[str, ...] = ()
    """At the boundary, and where generation of the site's own is measured."""
    transit: tuple[str, ...] = ()
    """At the boundary too, but below another point of it: sub-subscribers that are fed through the site."""
    feeders: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    """Nodes between boundary and meters that have losses."""
    unmetered: tuple[str, ...] = ()
    """Nodes that draw or feed, with no meter between them and the boundary: no balance is possible."""
    twice: tuple[str, ...] = ()
    """Meters that are also behind another meter of the balance."""
    without_data: tuple[str, ...] = ()
    """Nodes of ``between`` whose passport data are not complete: their losses are not known."""

    @property
    def possible(self) -> bool:
        """True where a balance means something."""
        return bool(self.main and self.feeders) and not self.unmetered and not self.twice

    @property
    def why_not(self) -> str | None:
        """Why there is none, for a person; ``None`` where there is one."""
        if not self.main:
            return "no metering point at the boundary is read by the agent (boundary: true, read_by: agent)"
        if self.unmetered:
            return f"no meter between the boundary and {', '.join(self.unmetered)}"
        if self.twice:
            return f"{', '.join(self.twice)} would be counted twice: behind another meter of the balance"
        return None if self.feeders else "no metering point below the boundary is read by the agent"

    @property
    def members(self) -> tuple[str, ...]:
        """Every metering point of it."""
        return (*self.main, *self.transit, *self.feeders)


def balance_scheme(site: Site, graph: Graph) -> BalanceScheme:
    """Find the boundary, the meters just below it, and what is missing."""
    at = _points(site)
    upper = _Upper(graph, at)
    for node in site.nodes:
        if isinstance(node, GridConnection):
            upper.walk(node.id, any_point=False)
        elif isinstance(node, Generator | Storage) and not node.fed_from:
            upper.walk(node.id, any_point=True)
    inside = _Inside(graph, at, frozenset(upper.tops))
    for name in upper.tops:
        inside.walk(name)
    between = [name for name in inside.between if isinstance(graph.nodes[name], Transformer | Line)]
    return BalanceScheme(
        tuple(at[name].id for name in upper.tops),
        tuple(inside.transit),
        tuple(inside.feeders),
        tuple(between),
        tuple(dict.fromkeys([*upper.unmetered, *inside.unmetered])),
        inside.twice(),
        tuple(name for name in between if element_of(graph, name) is None),
    )


def _points(site: Site) -> dict[str, MeteringPoint]:
    """Node → the point that counts there; a check meter beside it does not."""
    found: dict[str, MeteringPoint] = {}
    for point in site.metering_points:
        if point.read_by == "agent" and point.role != "check":
            found.setdefault(point.node, point)
    return found


def _is_end(node: Node) -> bool:
    """Does it draw or feed by itself?"""
    return node.rated_kw > 0 if isinstance(node, Load) else isinstance(node, Generator | Storage)


class _Upper:
    """The walk from the sources down to the first meters: the boundary, and meters of generation."""

    def __init__(self, graph: Graph, at: dict[str, MeteringPoint]) -> None:
        self._graph, self._at = graph, at
        self.tops: list[str] = []
        """Nodes of the points of ``main``."""
        self.unmetered: list[str] = []
        self._seen: set[str] = set()

    def walk(self, source: str, *, any_point: bool) -> None:
        """From one source; above generation no point is a boundary, so the first one counts."""
        pending = [source]
        while pending:
            name = pending.pop()
            if name in self._seen:
                continue
            self._seen.add(name)
            point = self._at.get(name)
            if point is not None and (any_point or point.boundary):
                self.tops.append(name)
            elif name != source and _is_end(self._graph.nodes[name]):
                self.unmetered.append(name)
            else:
                pending.extend(reversed(self._graph.children(name)))


class _Inside:
    """The walk from there to the first meters below."""

    def __init__(self, graph: Graph, at: dict[str, MeteringPoint], tops: frozenset[str]) -> None:
        self._graph, self._at, self._tops = graph, at, tops
        self.transit: list[str] = []
        self.feeders: list[str] = []
        self.between: list[str] = []
        self.unmetered: list[str] = []
        self._ends: list[str] = []
        self._seen: set[str] = set()

    def walk(self, start: str) -> None:
        """From the node of one point of ``main``."""
        pending = [start]
        while pending:
            name = pending.pop()
            if name in self._seen or (name in self._tops and name != start):
                continue
            self._seen.add(name)
            point = self._at.get(name)
            if point is not None and name != start:
                (self.transit if point.boundary else self.feeders).append(point.id)
                self._ends.append(name)
            elif name != start and _is_end(self._graph.nodes[name]):
                self.unmetered.append(name)
            else:
                self.between.append(name)
                pending.extend(reversed(self._graph.children(name)))

    def twice(self) -> tuple[str, ...]:
        """Meters that can be reached through another one."""
        found: list[str] = []
        for start in self._ends:
            pending, seen = list(self._graph.children(start)), {start}
            while pending:
                name = pending.pop()
                if name in seen:
                    continue
                seen.add(name)
                if name in self._ends:
                    found.append(self._at[name].id)
                elif name not in self._seen:
                    pending.extend(self._graph.children(name))
        return tuple(dict.fromkeys(found))


def element_of(graph: Graph, name: str) -> Element | None:
    """Losses of one node; ``None`` where its passport data are not complete."""
    node = graph.nodes[name]
    if isinstance(node, Transformer):
        if node.rated_kva is None or node.no_load_loss_kw is None or node.load_loss_kw is None:
            return None
        losses = round(node.no_load_loss_kw * 1000), round(node.load_loss_kw * 1000)
        return TransformerLoss(name, *losses, round(node.rated_kva * 1000))
    if isinstance(node, Line):
        kv = voltage_kv(graph, name)
        if node.length_km is None or node.r_ohm_per_km is None or kv is None:
            return None
        return LineLoss(name, round(node.length_km * node.r_ohm_per_km * 1_000_000), round(kv * 1000))
    return None


def voltage_kv(graph: Graph, name: str) -> float | None:
    """Voltage at a node: its own, else that of what feeds it, as far as the next transformer."""
    seen: set[str] = set()
    pending = [name]
    while pending:
        here = pending.pop(0)
        node = graph.nodes[here]
        if here in seen:
            continue
        seen.add(here)
        if isinstance(node, Transformer):
            # What a transformer states is its lower side; what is measured at it is the upper one.
            if here != name:
                if node.voltage_kv is not None:
                    return node.voltage_kv
                continue
        elif node.voltage_kv is not None:
            return node.voltage_kv
        pending.extend(graph.parents(here))
    return None
