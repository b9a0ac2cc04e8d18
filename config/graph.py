"""Arithmetic on the electrical graph: what is live, what goes dark, which meter still sees it.

Pure: positions go in, sets of node ids come out. The graph knows nothing of devices' answers; whoever calls decides
which position it believes. Automatic transfer (АВР) is never assumed to help: a switch is closed only where the
positions say so.

Conduction runs along ``fed_from`` from feeding to fed; a closed section switch conducts both ways between its two
buses. A switch counts as energised where it is closed and something feeds it, so an open switch is dark itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from config.devices import Device, Equipment, MinerGroup
from config.nodes import Generator, GridConnection, Load, Node, Storage, Switch
from config.site import Site


class GraphError(ValueError):
    """The site file names nodes that do not exist; :mod:`config.check` says which, with lines."""


class Graph:
    """The electrical graph of one site, indexed once and never changed.

    Args:
        site: a site whose node references exist.

    Raises:
        GraphError: a ``fed_from`` or ``between`` names no node, or two nodes share an id.
    """

    def __init__(self, site: Site) -> None:
        self.nodes: dict[str, Node] = {node.id: node for node in site.nodes}
        if len(self.nodes) != len(site.nodes):
            raise GraphError("two nodes share one id: run the check of the site file")
        self.switches: dict[str, Switch] = {n.id: n for n in site.nodes if isinstance(n, Switch)}
        self.loads: dict[str, Load] = {n.id: n for n in site.nodes if isinstance(n, Load)}
        self._site = site
        self._parents: dict[str, tuple[str, ...]] = {}
        """Every node a node can be fed from; a section has its two buses, a bus its sections too."""
        self._children: dict[str, list[str]] = {name: [] for name in self.nodes}
        self._grid: tuple[str, ...] = tuple(n.id for n in site.nodes if isinstance(n, GridConnection))
        self._link(site)
        self._points_at: dict[str, list[str]] = {}
        self._device_of_point: dict[str, str] = {}
        for point in site.metering_points:
            if point.read_by == "agent":
                self._points_at.setdefault(point.node, []).append(point.id)
                self._device_of_point[point.id] = point.device
        supplied: list[Equipment | Device] = [*site.equipment, *site.devices]
        self._fed_from_of: dict[str, str | None] = {item.id: item.fed_from for item in supplied}
        self._groups_of: dict[str, list[MinerGroup]] = {}
        for group in site.miners:
            self._groups_of.setdefault(group.load, []).append(group)

    def _link(self, site: Site) -> None:
        extra: dict[str, list[str]] = {}
        for node in site.nodes:
            upstream = node.between if isinstance(node, Switch) and node.between is not None else node.fed_from
            missing = [name for name in upstream if name not in self.nodes]
            if missing:
                raise GraphError(f"{node.id} names {missing[0]}, which is no node: run the check of the site file")
            self._parents[node.id] = tuple(dict.fromkeys(upstream))
            for name in self._parents[node.id]:
                self._children[name].append(node.id)
            if isinstance(node, Switch) and node.between is not None:
                for bus in node.between:
                    extra.setdefault(bus, []).append(node.id)
                    self._children[node.id].append(bus)
        for bus, sections in extra.items():
            self._parents[bus] = (*self._parents.get(bus, ()), *sections)

    def normal_positions(self) -> dict[str, bool]:
        """Switch id → closed, as the site file states its normal scheme."""
        return {name: switch.normal == "closed" for name, switch in self.switches.items()}

    def all_sources(self) -> tuple[str, ...]:
        """Grid connections, generators and storage: everything that could feed."""
        return tuple(n.id for n in self._site.nodes if isinstance(n, GridConnection | Generator | Storage))

    def parents(self, node: str) -> tuple[str, ...]:
        """Nodes that can feed ``node``, sections included, in the order of the site file."""
        return self._parents[node]

    def children(self, node: str) -> tuple[str, ...]:
        """Nodes that ``node`` can feed: of a bus its sections too, of a section both its buses."""
        extra = [name for name in self._parents[node] if self._is_section(name)]
        return (*self._children[node], *(name for name in extra if name not in self._children[node]))

    def feeding_tree(
        self, positions: Mapping[str, bool], sources: Collection[str] | None = None
    ) -> dict[str, str | None]:
        """Live node → the node that feeds it (None for a source), by the fewest elements from a source.

        Args:
            positions: switch id → closed; a switch that is not in it counts as in its normal position.
            sources: live sources; by default the grid connections. A generator or battery that is named also feeds
                the bus it is tied to with its own ``fed_from``, through closed switches, but nothing above that bus.

        Raises:
            KeyError: a source is no node.
        """
        tree: dict[str, str | None] = {}
        queue: deque[str] = deque()
        for source in self._grid if sources is None else sources:
            if self.nodes[source].id not in tree:
                tree[source] = None
                queue.append(source)
        for source in tuple(tree):
            if isinstance(self.nodes[source], Generator | Storage):
                self._feed_upwards(source, positions, tree, queue)
        children, switches = self._children, self.switches
        while queue:
            node = queue.popleft()
            for child in children[node]:
                if child in tree:
                    continue
                switch = switches.get(child)
                if switch is not None and not positions.get(child, switch.normal == "closed"):
                    continue
                tree[child] = node
                queue.append(child)
        return tree

    def _feed_upwards(
        self, source: str, positions: Mapping[str, bool], tree: dict[str, str | None], queue: deque[str]
    ) -> None:
        """Make the bus live that a generator is tied to."""
        pending = deque((parent, source) for parent in self._parents[source])
        while pending:
            node, via = pending.popleft()
            if node in tree or isinstance(self.nodes[node], GridConnection) or not self._conducts(node, positions):
                continue
            tree[node] = via
            queue.append(node)
            if self.nodes[node].type != "bus":
                pending.extend((parent, node) for parent in self._parents[node])

    def _conducts(self, node: str, positions: Mapping[str, bool]) -> bool:
        switch = self.switches.get(node)
        return switch is None or positions.get(node, switch.normal == "closed")

    def energised(self, positions: Mapping[str, bool], sources: Collection[str] | None = None) -> frozenset[str]:
        """Ids of all live nodes; arguments as :meth:`feeding_tree`."""
        return frozenset(self.feeding_tree(positions, sources))

    def dark_if_opened(
        self,
        switch_id: str,
        positions: Mapping[str, bool],
        *,
        sources: Collection[str] | None = None,
        live: frozenset[str] | None = None,
    ) -> frozenset[str]:
        """What is live now and would not be with this switch open (the switch itself included).

        Args:
            live: ``energised(positions, sources)`` if the caller has it already; saves half of the work.

        Raises:
            KeyError: no such switch.
        """
        if switch_id not in self.switches:
            raise KeyError(switch_id)
        before = self.energised(positions, sources) if live is None else live
        if switch_id not in before:
            return frozenset()
        return before - self.energised({**positions, switch_id: False}, sources)

    def behind(
        self, switch_id: str, positions: Mapping[str, bool], sources: Collection[str] | None = None
    ) -> frozenset[str]:
        """What this switch alone keeps live when closed, whether it is closed now or not.

        Raises:
            KeyError: no such switch.
        """
        return self.dark_if_opened(switch_id, {**positions, switch_id: True}, sources=sources)

    def loads_behind(self, switch_id: str, positions: Mapping[str, bool]) -> frozenset[str]:
        """Load nodes in :meth:`behind`."""
        return frozenset(name for name in self.behind(switch_id, positions) if name in self.loads)

    def miners_behind(self, switch_id: str, positions: Mapping[str, bool]) -> tuple[MinerGroup, ...]:
        """Groups of machines on the loads of :meth:`behind`, in the order of the site file."""
        loads = self.loads_behind(switch_id, positions)
        return tuple(group for group in self._site.miners if group.load in loads)

    def downstream(self, node: str) -> frozenset[str]:
        """Everything that can be fed through ``node`` along ``fed_from``, whatever is open; not across sections.

        Raises:
            KeyError: no such node.
        """
        if node not in self.nodes:
            raise KeyError(node)
        found: set[str] = set()
        queue = deque([node])
        while queue:
            current = queue.popleft()
            for child in self._children[current]:
                if child in found or self._is_section(child) or self._is_section(current):
                    continue
                found.add(child)
                queue.append(child)
        return frozenset(found - {node})

    def _is_section(self, node: str) -> bool:
        switch = self.switches.get(node)
        return switch is not None and switch.between is not None

    def upstream_path(
        self, node: str, positions: Mapping[str, bool], sources: Collection[str] | None = None
    ) -> tuple[str, ...]:
        """The way the power comes: from ``node`` itself up to its source; empty where the node is dark.

        Raises:
            KeyError: no such node.
        """
        if node not in self.nodes:
            raise KeyError(node)
        tree = self.feeding_tree(positions, sources)
        if node not in tree:
            return ()
        path = [node]
        while (above := tree[path[-1]]) is not None:
            path.append(above)
        return tuple(path)

    def dark_devices(self, dark: Collection[str]) -> frozenset[str]:
        """Devices and equipment whose supply is in ``dark``.

        A battery (``ups_min``) is not counted: it lasts minutes and an order lasts hours. What has no ``fed_from`` is
        not known to lose anything and is not in the result.
        """
        lost = frozenset(dark)
        return frozenset(name for name, node in self._fed_from_of.items() if node is not None and node in lost)

    def alive_devices(self, live: Collection[str]) -> frozenset[str]:
        """Devices and equipment whose supply is live, or not stated."""
        on = frozenset(live)
        return frozenset(name for name, node in self._fed_from_of.items() if node is None or node in on)

    def nearest_live_meter(
        self,
        node_or_switch: str,
        positions: Mapping[str, bool],
        alive_devices: Collection[str] | None = None,
    ) -> str | None:
        """The metering point that proves what happens at a node: the nearest one at it or above it that still speaks.

        Only points that the agent reads count. Upwards means along live ways under ``positions``, from the node's own
        feeders, whether the node itself is open or closed; at equal distance the order of the site file decides.

        Args:
            alive_devices: devices that can answer. By default those whose supply stays live when the given switch is
                open (a meter behind the opened switch goes silent exactly when it must prove the cut).

        Raises:
            KeyError: no such node.
        """
        node = self.nodes[node_or_switch]
        after = {**positions, node.id: False} if isinstance(node, Switch) else positions
        live = self.energised(after)
        alive = self.alive_devices(live) if alive_devices is None else frozenset(alive_devices)
        seen = {node.id}
        level: list[str] = [node.id]
        while level:
            for name in level:
                for point in self._points_at.get(name, ()):
                    if self._device_of_point[point] in alive:
                        return point
            level = list(self._live_parents(level, live, seen))
        return None

    def _live_parents(self, level: Iterable[str], live: frozenset[str], seen: set[str]) -> Iterable[str]:
        for name in level:
            for parent in self._parents[name]:
                if parent in live and parent not in seen:
                    seen.add(parent)
                    yield parent
