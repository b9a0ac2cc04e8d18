"""What the order path itself hangs on."""

from __future__ import annotations

from collections.abc import Iterator

from config.devices import Device, Equipment
from config.nodes import Switch
from config.problems import Path, Problem
from config.rules.facts import Facts
from config.rules.outputs import TRIP_SUPPLIED


def order_path(facts: Facts) -> Iterator[Problem]:
    """Host, network, control modules and the meters that prove, each with a supply and a UPS."""
    if not facts.outputs:
        return
    wanted: dict[str, str] = {}
    if facts.site.agent.host is None:
        yield facts.warning(
            ("agent",), "no host", "the equipment the agent runs on", "add it to equipment, with fed_from and ups_min"
        )
    else:
        wanted[facts.site.agent.host] = "the agent's own machine"
    for switch in facts.outputs:
        for name, why in _path_of(facts, switch):
            wanted.setdefault(name, why)
    for name, why in wanted.items():
        yield from _item(facts, facts.devices.get(name) or facts.equipment[name], why)


def _path_of(facts: Facts, switch: Switch) -> Iterator[tuple[str, str]]:
    """(device or equipment, what for). PDUs are left out: they are fed by the branch they measure, by nature."""
    control = facts.devices[switch.control.device] if switch.control is not None else None
    if control is not None and control.kind != "pdu":
        yield control.id, f"control of {switch.id}"
        for name in facts.network_equipment(facts.links[control.link]):
            yield name, f"way to {control.id}"
    if switch.actuator in TRIP_SUPPLIED:
        for item in facts.site.equipment:
            if item.kind == "dc_supply":
                yield item.id, f"trip supply of {switch.id}"
    point = facts.graph.nearest_live_meter(switch.id, {**facts.normal, switch.id: True})
    meter = facts.devices[facts.points[point].device] if point is not None else None
    if meter is not None and meter.kind != "pdu":
        yield meter.id, f"proof of {switch.id}"
        for name in facts.network_equipment(facts.links[meter.link]):
            yield name, f"way to {meter.id}"


def _item(facts: Facts, item: Device | Equipment, why: str) -> Iterator[Problem]:
    if isinstance(item, Device):
        path: Path = facts.device_path(item.id)
    else:
        path = ("equipment", facts.site.equipment.index(item))
    if item.fed_from is None and item.ups_min == 0:
        yield facts.warning(
            path,
            f"{item.id} ({why}) without fed_from",
            "the node that supplies it",
            "add fed_from and ups_min: whether it survives an opening cannot be computed",
        )
    elif item.ups_min == 0:
        yield facts.warning(
            path,
            f"{item.id} ({why}) without UPS",
            "ups_min on everything an order passes through",
            "a dip takes it away just when it is needed",
        )
