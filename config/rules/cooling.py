"""Cooling loops and miner groups: who cools what, and whether the machines' addresses make sense."""

from __future__ import annotations

from collections.abc import Iterator

from config.addresses import AddressError, AddressRange, count, parse
from config.devices import CoolingLoop
from config.problems import Problem
from config.rules.facts import Facts, listed, megawatts

_NAMEPLATE_MARGIN = 1.05


def loops(facts: Facts) -> Iterator[Problem]:
    """Every mining load has a loop, every loop has members, and both sides agree."""
    for index, loop in enumerate(facts.site.cooling_loops):
        if not loop.members:
            yield facts.error(
                ("cooling_loops", index, "members"), f"loop {loop.id} without members", "its cooling loads", "name them"
            )
        for order, name in enumerate(loop.members):
            other = facts.loads[name].cooling_loop
            if other is not None and other != loop.id:
                yield facts.error(
                    ("cooling_loops", index, "members", order),
                    f"{name}, which names loop {other} as its own",
                    f"a load of loop {loop.id}",
                    "correct one of the two",
                )
        if loop.type in {"hydro", "immersion"} and loop.flow_ok is None:
            yield facts.warning(
                ("cooling_loops", index),
                f"{loop.type} loop {loop.id} without flow_ok",
                "a flow signal",
                "without it no machine of the loop is woken by the agent",
            )
        if loop.min_temp_c is not None and loop.supply_temp is None:
            yield facts.warning(
                ("cooling_loops", index, "min_temp_c"),
                f"min_temp_c of {loop.id} without supply_temp",
                "a temperature that can be read",
                "name the device and point that reads it",
            )
        yield from _dark_sensors(facts, index, loop)
    for load in facts.loads.values():
        if load.kind == "mining" and load.cooling_loop is None:
            yield facts.error(
                facts.node_path(load.id),
                f"mining load {load.id} without cooling_loop",
                "the loop that cools it",
                "add cooling_loop: without it nothing keeps the cooling on for hot machines",
            )
        if load.kind == "cooling" and load.cooling_loop is not None and load.id not in facts.loop_of[load.cooling_loop]:
            yield facts.error(
                facts.node_path(load.id, "cooling_loop"),
                f"{load.cooling_loop}, which does not list {load.id} among its members",
                "a loop that lists it",
                "add it to the members of the loop",
            )


def _dark_sensors(facts: Facts, index: int, loop: CoolingLoop) -> Iterator[Problem]:
    """A sensor that goes dark with an output leaves the loop unknown just when its machines are to be woken."""
    for field, sensor in (("flow_ok", loop.flow_ok), ("supply_temp", loop.supply_temp)):
        feed = facts.devices[sensor.device].fed_from if sensor is not None else None
        above = [switch.id for switch in facts.outputs if feed is not None and feed in facts.dark(switch)]
        if sensor is not None and above:
            yield facts.warning(
                ("cooling_loops", index, field),
                f"{sensor.device}, fed from behind output {listed(above)}",
                "a module that keeps its supply",
                f"while that is open nothing is known of {loop.id}",
            )


def miners(facts: Facts) -> Iterator[Problem]:
    """Ranges can be read, agree in size and do not overlap."""
    seen: list[tuple[str, AddressRange]] = []
    for index, group in enumerate(facts.site.miners):
        broken = False
        for field, text in (("rpc", group.rpc), ("http", group.http)):
            if text is None:
                continue
            try:
                found = parse(text)
            except AddressError as error:
                broken = True
                seen_text, _, expected = str(error).removeprefix("saw ").partition(", expected ")
                yield facts.error(("miners", index, field), seen_text, expected, "correct the range")
                continue
            clash = next((name for name, other in seen if found.overlaps(other)), None)
            if clash is not None:
                yield facts.error(
                    ("miners", index, field), f"{text!r}, which overlaps {clash}", "addresses of its own", "correct it"
                )
            seen.append((f"{field} of {group.id}", found))
        if broken:
            continue
        try:
            count(group)
        except AddressError as error:
            seen_text, _, expected = str(error).removeprefix("saw ").partition(", expected ")
            yield facts.error(("miners", index), seen_text, expected, "correct one of the ranges")
    yield from _coverage(facts)


def _coverage(facts: Facts) -> Iterator[Problem]:
    for load in facts.loads.values():
        if load.kind != "mining":
            continue
        groups = facts.groups_of.get(load.id, [])
        if not groups:
            yield facts.warning(
                facts.node_path(load.id),
                f"mining load {load.id} without miners",
                "the machines behind it",
                "they can be neither seen nor put to sleep: only a switch sheds them",
            )
        watts = sum(group.nameplate_w * facts.machine_count[group.id] for group in groups)
        if watts > load.rated_kw * 1000 * _NAMEPLATE_MARGIN:
            yield facts.warning(
                facts.node_path(load.id, "rated_kw"),
                f"{load.rated_kw:g} kW, and {megawatts(watts)} of nameplate in {listed(g.id for g in groups)}",
                "machines that fit the load",
                "correct rated_kw, nameplate_w or the ranges",
            )
