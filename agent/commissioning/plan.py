"""What opening an output is expected to do: computed from the graph and the positions as they are. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from config.check import CheckResult
from config.graph import Graph
from config.site import Site


@dataclass(frozen=True, slots=True)
class Plan:
    """One output, and what every meter is expected to do when it opens."""

    output: str
    close: str
    """``auto``, ``by_person`` or ``never``."""
    fingerprint: str
    dark: tuple[str, ...]
    rated_w: int
    meter: str
    """The metering point that has to fall, and still speaks when the output is open."""
    feeder: str | None
    """The metering point that sees just this output, if there is one; it may go silent with the branch."""
    falls: tuple[str, ...]
    """Points that may move: the feeding path above, and what goes dark."""
    still: tuple[str, ...]
    """Points that must not move."""
    without: tuple[str, ...]
    guard_s: float

    @property
    def judged(self) -> tuple[str, ...]:
        """Every point that is watched."""
        return tuple(dict.fromkeys((self.meter, *self.falls, *self.still)))


def feeder_point(site: Site, graph: Graph, switch: str) -> str | None:
    """The metering point that sees just this switch: at it, or at its only child."""
    children = [n for n in graph.nodes if graph.parents(n) == (switch,)]
    nodes = {switch, *(children if len(children) == 1 else ())}
    return next((p.id for p in site.metering_points if p.node in nodes and p.read_by == "agent"), None)


def above(graph: Graph, node: str, positions: Mapping[str, bool]) -> frozenset[str]:
    """Every live node through which the power of a node may come; both sides of closed sections count."""
    live = graph.energised(positions)
    found: set[str] = set()
    queue = deque([node])
    while queue:
        for parent in graph.parents(queue.popleft()):
            if parent in live and parent not in found:
                found.add(parent)
                queue.append(parent)
    return frozenset(found)


def make_plan(
    site: Site,
    graph: Graph,
    check: CheckResult,
    positions: Mapping[str, bool],
    output: str,
    *,
    fingerprint: str,
    without: Iterable[str] = (),
) -> Plan:
    """What is expected when this output opens.

    Args:
        positions: switch id → closed, as read.
        without: points that are left out of the judgement.

    Raises:
        ValueError: the check refuses the output, or no meter proves it; the message says why.
    """
    known = next((o for o in check.outputs if o.id == output), None)
    if known is None:
        raise ValueError(f"{output} is no output of the site file")
    if not known.usable:
        raise ValueError(f"{output} is refused by the site check: {known.why}")
    if known.proved_by is None:
        raise ValueError(f"{output}: no meter still speaks when it is open, so nothing can be proven")
    out = frozenset(without)
    points = {p.id: p for p in site.metering_points if p.read_by == "agent"}
    if known.proved_by in out or out - points.keys():
        wrong = ", ".join(sorted(out - points.keys())) or known.proved_by
        raise ValueError(f"{output}: {wrong} cannot be left out: expected a metering point other than the proving one")
    dark = graph.dark_if_opened(output, positions)
    silent = graph.dark_devices(dark)
    path = above(graph, output, positions)
    may_move = {p.id for p in points.values() if p.node in path or p.node in dark or p.device in silent}
    may_move.add(known.proved_by)
    return Plan(
        output=output,
        close=graph.switches[output].close,
        fingerprint=fingerprint,
        dark=tuple(sorted(dark)),
        rated_w=known.dark_w,
        meter=known.proved_by,
        feeder=feeder_point(site, graph, output),
        falls=tuple(sorted(may_move - out)),
        still=tuple(sorted(points.keys() - may_move - out)),
        without=tuple(sorted(out)),
        guard_s=graph.switches[output].reclose_guard_s,
    )


def owner_of(site: Site, graph: Graph, check: CheckResult, point: str) -> str | None:
    """The output whose opening should make this point fall: the nearest one above it."""
    node = next((p.node for p in site.metering_points if p.id == point), None)
    found = [o for o in check.outputs if node in o.dark or feeder_point(site, graph, o.id) == point]
    return min(found, key=lambda o: len(o.dark)).id if found else None
