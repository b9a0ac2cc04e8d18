"""What all rules look at: the site, its index, its graph and the dark set of every output, computed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal, Protocol

from config.addresses import AddressError, count
from config.devices import Device, Equipment, Link, MeteringPoint, MinerGroup, Network, VirtualPoint
from config.graph import Graph
from config.nodes import Load, Node, Switch
from config.problems import Path, Problem, SourceMap
from config.site import Site


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """What the checks need to know of a device profile. ``None`` where the profile does not tell."""

    kind: str
    """``meter``, ``relay``, ``breaker`` or ``pdu``."""
    outputs: Mapping[str, bool] | None = None
    """Output name → the device itself times its pulse."""
    inputs: Mapping[str, bool] | None = None
    """Input name → the device itself latches or counts it."""
    counted: frozenset[str] | None = None
    """Inputs whose contacts the device counts."""
    temperatures: frozenset[str] = frozenset()
    """Points at which the device measures a temperature."""
    commands: frozenset[str] = frozenset()
    """Outputs that are commands of a breaker's own electronics: they hold no level and need no pulse."""
    pulse_unit_ms: Mapping[str, int] = field(default_factory=dict)
    """Outputs whose pulse's length is written with each command, in steps of so many ms."""
    counts_energy: bool | None = None
    """A meter whose import counter's raw bits can be evidence; ``None`` where only the meter itself can tell."""
    settings: frozenset[str] | None = None
    """Settings that are read back, each of which the site file may demand otherwise (``options: expect_<id>``)."""

    def counts(self, input_id: str) -> bool:
        """Does the device count the contacts of this input?"""
        if self.counted is not None:
            return input_id in self.counted
        return bool((self.inputs or {}).get(input_id))


Profiles = Callable[[str], ProfileFacts | None]
"""Profile id → its facts, or None where there is no such profile."""


class _Named(Protocol):
    @property
    def id(self) -> str: ...


def _index(items: Iterable[_Named]) -> dict[str, int]:
    found: dict[str, int] = {}
    for position, item in enumerate(items):
        found.setdefault(item.id, position)
    return found


@dataclass(frozen=True)
class Facts:
    """One site, indexed. The graph and all that follows from it exist only after the references were found good."""

    site: Site
    source: SourceMap
    profiles: Profiles | None = None
    _dark: dict[str, frozenset[str]] = field(default_factory=dict)

    def error(self, path: Path, seen: str, expected: str, todo: str) -> Problem:
        """A problem that forbids the file."""
        return self.source.problem("error", path, seen, expected, todo)

    def warning(self, path: Path, seen: str, expected: str, todo: str) -> Problem:
        """A problem a person has to know of."""
        return self.source.problem("warning", path, seen, expected, todo)

    @cached_property
    def node_at(self) -> dict[str, int]:
        """Node id → its index in ``nodes``."""
        return _index(self.site.nodes)

    @cached_property
    def device_at(self) -> dict[str, int]:
        """Device id → its index in ``devices``."""
        return _index(self.site.devices)

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """Nodes by id."""
        return {item.id: item for item in self.site.nodes}

    @cached_property
    def devices(self) -> dict[str, Device]:
        """Devices by id."""
        return {item.id: item for item in self.site.devices}

    @cached_property
    def equipment(self) -> dict[str, Equipment]:
        """Equipment by id."""
        return {item.id: item for item in self.site.equipment}

    @cached_property
    def links(self) -> dict[str, Link]:
        """Links by id."""
        return {item.id: item for item in self.site.links}

    @cached_property
    def networks(self) -> dict[str, Network]:
        """Networks by id."""
        return {item.id: item for item in self.site.networks}

    @cached_property
    def points(self) -> dict[str, MeteringPoint]:
        """Metering points by id."""
        return {item.id: item for item in self.site.metering_points}

    @cached_property
    def virtual_points(self) -> dict[str, VirtualPoint]:
        """Virtual points by id."""
        return {item.id: item for item in self.site.virtual_points}

    @cached_property
    def cidrs(self) -> dict[str, IPv4Network | IPv6Network]:
        """Network id → its subnet, where it is given and can be read."""
        found: dict[str, IPv4Network | IPv6Network] = {}
        for network in self.site.networks:
            if network.cidr is not None:
                try:
                    found[network.id] = ip_network(network.cidr)
                except ValueError:
                    continue  # named by the networks rule
        return found

    @cached_property
    def graph(self) -> Graph:
        """The graph."""
        return Graph(self.site)

    @cached_property
    def normal(self) -> dict[str, bool]:
        """Normal switch positions."""
        return self.graph.normal_positions()

    @cached_property
    def live(self) -> frozenset[str]:
        """Nodes that the grid keeps live in the normal positions."""
        return self.graph.energised(self.normal)

    @cached_property
    def outputs(self) -> tuple[Switch, ...]:
        """Switches that the file wants to use for shedding."""
        return tuple(n for n in self.site.nodes if isinstance(n, Switch) and n.control is not None)

    @cached_property
    def loads(self) -> dict[str, Load]:
        """Loads by id."""
        return {n.id: n for n in self.site.nodes if isinstance(n, Load)}

    @cached_property
    def loop_of(self) -> dict[str, frozenset[str]]:
        """Cooling loop id → its member loads."""
        return {loop.id: frozenset(loop.members) for loop in self.site.cooling_loops}

    @cached_property
    def machine_count(self) -> dict[str, int]:
        """Miner group id → machines in it; 0 where its range cannot be read."""
        found: dict[str, int] = {}
        for group in self.site.miners:
            try:
                found[group.id] = count(group)
            except AddressError:
                found[group.id] = 0  # named by the miners rule
        return found

    @cached_property
    def groups_of(self) -> dict[str, list[MinerGroup]]:
        """Load id → its miner groups."""
        found: dict[str, list[MinerGroup]] = {}
        for group in self.site.miners:
            found.setdefault(group.load, []).append(group)
        return found

    def dark(self, switch: Switch) -> frozenset[str]:
        """What this switch alone keeps live in the normal scheme, with it closed."""
        if switch.id not in self._dark:
            closed = self.normal.get(switch.id, False)
            positions = self.normal if closed else {**self.normal, switch.id: True}
            live = self.live if closed else None
            self._dark[switch.id] = self.graph.dark_if_opened(switch.id, positions, live=live)
        return self._dark[switch.id]

    @cached_property
    def joint_dark(self) -> frozenset[str]:
        """What is dark once every output is open: two outputs may each be harmless and together not."""
        opened = {switch.id: False for switch in self.outputs if switch.role not in {"incomer", "section"}}
        return self.live - self.graph.energised({**self.normal, **opened})

    def watts(self, nodes: Iterable[str]) -> int:
        """Rated W of the loads among ``nodes``. Rated, because at check time no meter has been read."""
        return round(sum(self.loads[name].rated_kw for name in nodes if name in self.loads) * 1000)

    def node_path(self, node: str, *rest: str | int) -> Path:
        """Where a node stands in the file."""
        return ("nodes", self.node_at[node], *rest)

    def device_path(self, device: str, *rest: str | int) -> Path:
        """Where a device stands in the file."""
        return ("devices", self.device_at[device], *rest)

    def network_equipment(self, link: Link) -> tuple[str, ...]:
        """Equipment a link passes through: as written in ``via``, else all network equipment of its subnet."""
        if link.via:
            return link.via
        if link.network is None:
            return ()
        return tuple(
            item.id
            for item in self.site.equipment
            if item.network == link.network and item.kind in {"network", "gateway"}
        )

    @cached_property
    def miner_hosts(self) -> frozenset[str]:
        """First and last hosts of the miners' ranges: enough to see an address shared with them."""
        found: set[str] = set()
        for group in self.site.miners:
            for text in (group.rpc, group.http or ""):
                hosts = text.rsplit(":", 1)[0]
                found.update(part for part in hosts.split("-") if part)
        return frozenset(found)


def repeated(names: Iterable[str]) -> set[str]:
    """Names that occur more than once."""
    return {name for name, times in Counter(names).items() if times > 1}


Kind = Literal["error", "warning"]


def listed(names: Iterable[str], most: int = 6) -> str:
    """``a, b, c and 12 more``."""
    ordered = sorted(names)
    text = ", ".join(ordered[:most])
    return f"{text} and {len(ordered) - most} more" if len(ordered) > most else text


def megawatts(watts: float) -> str:
    """``12.4 MW``, or kW below 1 MW."""
    return f"{watts / 1e6:.1f} MW" if watts >= 1e6 else f"{watts / 1e3:.0f} kW"
