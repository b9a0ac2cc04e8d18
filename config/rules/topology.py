"""The graph is a graph of a plant: fed from somewhere, without loops, loads and compensation at its ends."""

from __future__ import annotations

from collections.abc import Iterator

from config.nodes import Bus, Compensation, Generator, GridConnection, Load, Storage, Switch
from config.problems import Problem
from config.rules.facts import Facts, listed


def shape(facts: Facts) -> Iterator[Problem]:
    """What each node may be fed from; needs good references only."""
    if not any(isinstance(node, GridConnection) for node in facts.site.nodes):
        yield facts.error(("nodes",), "no grid_connection", "at least one", "add the point where the grid ends")
    for node in facts.site.nodes:
        for order, name in enumerate(node.fed_from):
            above = facts.nodes[name]
            if isinstance(above, Load | Compensation):
                yield facts.error(
                    facts.node_path(node.id, "fed_from", order),
                    f"{name}, which is a {above.type}",
                    "a node that passes power on",
                    f"feed {node.id} from the switch or bus that feeds {name}",
                )
        if isinstance(node, GridConnection) and node.fed_from:
            yield facts.error(
                facts.node_path(node.id, "fed_from"),
                listed(node.fed_from),
                "no fed_from: a grid connection is a source",
                "remove it, or make the node a line",
            )
        unfed = not node.fed_from and not isinstance(node, GridConnection | Generator | Storage)
        if unfed and not (isinstance(node, Switch) and node.between):
            yield facts.error(
                facts.node_path(node.id), f"{node.id} without fed_from", "the node that feeds it", "add fed_from"
            )
        if isinstance(node, Switch) and node.between is not None:
            yield from _section(facts, node)


def _section(facts: Facts, switch: Switch) -> Iterator[Problem]:
    first, second = switch.between or ("", "")
    path = facts.node_path(switch.id, "between")
    if first == second:
        yield facts.error(path, f"{first} twice", "two different buses", "name the two sections it joins")
        return
    one, two = facts.nodes[first], facts.nodes[second]
    if isinstance(one, Bus) and isinstance(two, Bus):
        known = one.voltage_kv is not None and two.voltage_kv is not None
        if known and one.voltage_kv != two.voltage_kv:
            yield facts.error(
                path,
                f"{first} at {one.voltage_kv:g} kV and {second} at {two.voltage_kv:g} kV",
                "two buses of one voltage",
                "correct the buses, or the voltage",
            )


def cycles(facts: Facts) -> Iterator[Problem]:
    """No node feeds itself round a loop. Each loop is named once, with its way."""
    done: set[str] = set()
    for start in facts.nodes:
        trail: list[str] = []
        on_trail: set[str] = set()
        # Depth first without recursion: (node, next feeder to look at).
        stack: list[tuple[str, int]] = [(start, 0)] if start not in done else []
        while stack:
            node, position = stack.pop()
            if position == 0:
                trail.append(node)
                on_trail.add(node)
            feeders = facts.nodes[node].fed_from
            if position < len(feeders):
                stack.append((node, position + 1))
                above = feeders[position]
                if above in on_trail:
                    loop = [*trail[trail.index(above) :], above]
                    yield facts.error(
                        facts.node_path(node, "fed_from", position),
                        "a loop: " + " from ".join(loop),
                        "fed_from that ends at a source",
                        "join two buses by a switch with role section and 'between' instead",
                    )
                elif above not in done:
                    stack.append((above, 0))
                continue
            trail.pop()
            on_trail.discard(node)
            done.add(node)


def never_live(facts: Facts) -> Iterator[Problem]:
    """Everything is live in the normal scheme with every source running, except switches that are normally open."""
    live = facts.graph.energised(facts.normal, facts.graph.all_sources())
    dead = {name for name in facts.nodes if name not in live}
    for name in facts.nodes:
        node = facts.nodes[name]
        if name not in dead or (isinstance(node, Switch) and not facts.normal[name]):
            continue
        # By fed_from alone: two dead buses joined by a closed section would else each point to the other.
        parents = node.fed_from
        if (isinstance(node, Switch) and node.between) or any(p in dead and not _open(facts, p) for p in parents):
            continue  # its dead feeder is named; naming the whole branch helps nobody
        above = [p for p in parents if _open(facts, p)]
        yield facts.error(
            facts.node_path(name),
            f"{name} never live in the normal positions" + (f" ({listed(above)} is normally open)" if above else ""),
            "a live feeder",
            "correct fed_from, or the normal position of the switch above it",
        )


def _open(facts: Facts, name: str) -> bool:
    return name in facts.normal and not facts.normal[name]
