"""Which metering points carry mining, auxiliary load or one tenant alone. Pure, from the site's graph.

A point counts for a share where every load behind it belongs to that share, in the normal scheme. Of points one behind
the other only the upper one counts. A load of the share that no such point measures makes the share not known: it is
named, and nothing is shared out by guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from config.devices import MeteringPoint
from config.graph import Graph
from config.nodes import Load
from config.site import Site
from wire.rollup import Share

MINING, AUXILIARY, TENANT = "mining", "auxiliary", "tenant:"


def shares(site: Site, graph: Graph) -> tuple[Share, ...]:
    """Mining, auxiliary, and every tenant; loads without power are none of them."""
    tenants_of = _tenants(site)
    behind = {p.id: loads_behind(graph, p) for p in site.metering_points if p.read_by == "agent"}
    nodes = {p.id: p.node for p in site.metering_points}
    found = [
        _share(MINING, lambda load: load.kind == "mining", graph, behind, nodes),
        _share(AUXILIARY, lambda load: load.kind != "mining", graph, behind, nodes),
    ]
    for tenant in site.tenants:
        own = {load for load, owners in tenants_of.items() if owners == {tenant.id}}
        mixed = {load for load, owners in tenants_of.items() if tenant.id in owners and len(owners) > 1}
        share = _share(f"{TENANT}{tenant.id}", _is_in(own), graph, behind, nodes)
        found.append(Share(share.name, share.points, (*share.unmetered, *sorted(mixed))))
    return tuple(share for share in found if share.points or share.unmetered)


def _is_in(names: set[str]) -> Callable[[Load], bool]:
    return lambda load: load.id in names


def _tenants(site: Site) -> dict[str, set[str]]:
    """Load → tenants; of a load without machines its own, of machines those of their groups."""
    found: dict[str, set[str]] = {}
    own = {node.id: node.tenant for node in site.nodes if isinstance(node, Load)}
    for group in site.miners:
        tenant = group.tenant or own.get(group.load)
        found.setdefault(group.load, set()).add(tenant or "")
    for load, tenant in own.items():
        if tenant is not None:
            found.setdefault(load, {tenant})
    return found


def loads_behind(graph: Graph, point: MeteringPoint) -> frozenset[str]:
    """Loads that are fed through the point's node in the normal scheme."""
    tree = graph.feeding_tree(graph.normal_positions(), graph.all_sources())
    if point.node not in tree:  # normally dark: what it would feed
        return frozenset(n for n in graph.downstream(point.node) if n in graph.loads)
    found: set[str] = set()
    for load in graph.loads:
        at: str | None = load if load in tree else None
        while at is not None:
            if at == point.node:
                found.add(load)
                break
            at = tree[at]
    return frozenset(found)


def _share(
    name: str,
    belongs: Callable[[Load], bool],
    graph: Graph,
    behind: Mapping[str, frozenset[str]],
    nodes: Mapping[str, str],
) -> Share:
    wanted = {load for load, node in graph.loads.items() if belongs(node) and node.rated_kw > 0}
    pure = {point: loads for point, loads in behind.items() if loads and loads <= wanted}
    chosen: list[str] = []
    for point, loads in pure.items():
        wider = [
            p
            for p, other in pure.items()
            if p != point and (other > loads or _first(p, point, other == loads, nodes, graph))
        ]
        if not wider:
            chosen.append(point)
    covered = frozenset[str]().union(*(pure[p] for p in chosen))
    return Share(name, tuple(chosen), tuple(sorted(wanted - covered)))


def _first(other: str, point: str, same: bool, nodes: Mapping[str, str], graph: Graph) -> bool:
    """Of two points over the same loads the upper one counts; at one node the one that is written first."""
    if not same:
        return False
    if nodes[other] == nodes[point]:
        order = list(nodes)
        return order.index(other) < order.index(point)
    return nodes[point] in graph.downstream(nodes[other])
