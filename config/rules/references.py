"""Every name that is used exists, is of the right kind, and exists once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from config.devices import TemperaturePoint
from config.nodes import Bus, Compensation, Generator, Input, Load, Storage, Switch
from config.problems import Path, Problem
from config.rules.facts import Facts, listed


def duplicates(facts: Facts) -> Iterator[Problem]:
    """Ids are unique within what they share a namespace with; addresses on a link too."""
    site = facts.site
    spaces: tuple[tuple[tuple[str, Sequence[str]], ...], ...] = (
        (("nodes", [item.id for item in site.nodes]),),
        (("devices", [item.id for item in site.devices]), ("equipment", [item.id for item in site.equipment])),
        (("links", [item.id for item in site.links]),),
        (("networks", [item.id for item in site.networks]),),
        (("tenants", [item.id for item in site.tenants]),),
        (("cooling_loops", [item.id for item in site.cooling_loops]),),
        (("miners", [item.id for item in site.miners]),),
        (
            ("metering_points", [item.id for item in site.metering_points]),
            ("virtual_points", [item.id for item in site.virtual_points]),
        ),
    )
    for space in spaces:
        first: dict[str, Path] = {}
        for section, names in space:
            for index, name in enumerate(names):
                path: Path = (section, index, "id")
                if name in first:
                    line = facts.source.line(first[name])
                    seen = f"{name!r} again" + (f", first in line {line}" if line is not None else "")
                    yield facts.error(path, seen, "an id of its own", "rename one of the two")
                first.setdefault(name, path)
    yield from _addresses(facts)


def _addresses(facts: Facts) -> Iterator[Problem]:
    urls: dict[str, str] = {}
    for index, link in enumerate(facts.site.links):
        if link.url in urls:
            yield facts.error(
                ("links", index, "url"),
                f"the url of link {urls[link.url]} again",
                "one link per physical line, because one worker owns it",
                f"put the devices on link {urls[link.url]}",
            )
        urls.setdefault(link.url, link.id)
    units: dict[tuple[str, int], str] = {}
    for index, device in enumerate(facts.site.devices):
        if facts.links.get(device.link) is not None and facts.links[device.link].url.startswith("snmp:"):
            continue  # SNMP has no unit numbers
        key = (device.link, device.unit)
        if key in units:
            yield facts.error(
                ("devices", index, "unit"),
                f"unit {device.unit} on link {device.link}, also that of {units[key]}",
                "each unit once on a link",
                "correct the unit, or the link",
            )
        units.setdefault(key, device.id)
    meters: dict[str, str] = {}
    for index, point in enumerate(facts.site.metering_points):
        if point.device in meters:
            yield facts.error(
                ("metering_points", index, "device"),
                f"{point.device}, also the device of {meters[point.device]}",
                "one metering point per meter",
                "correct one of the two",
            )
        meters.setdefault(point.device, point.id)


def references(facts: Facts) -> Iterator[Problem]:
    """Nothing dangles, and a name of the wrong kind is as bad as none."""
    yield from _nodes(facts)
    yield from _field_side(facts)
    yield from _metering(facts)


def _missing(facts: Facts, path: Path, name: str | None, known: Collection[str], what: str) -> Iterator[Problem]:
    if name is not None and name not in known:
        yield facts.error(path, repr(name), f"the id of {what} in this file", "correct the name, or add what it names")


def _nodes(facts: Facts) -> Iterator[Problem]:
    site = facts.site
    buses = {node.id for node in site.nodes if isinstance(node, Bus)}
    switches = {node.id for node in site.nodes if isinstance(node, Switch)}
    tenants = {tenant.id for tenant in site.tenants}
    points = facts.points.keys() | facts.virtual_points.keys()
    for index, node in enumerate(site.nodes):
        at: Path = ("nodes", index)
        for order, name in enumerate(node.fed_from):
            yield from _missing(facts, (*at, "fed_from", order), name, facts.nodes, "a node")
        if isinstance(node, Switch):
            for order, name in enumerate(node.between or ()):
                yield from _missing(facts, (*at, "between", order), name, buses, "a bus")
            yield from _missing(facts, (*at, "upstream_alternative"), node.upstream_alternative, switches, "a switch")
            yield from _switch_inputs(facts, at, node)
        elif isinstance(node, Load):
            yield from _missing(facts, (*at, "tenant"), node.tenant, tenants, "a tenant")
            yield from _missing(facts, (*at, "cooling_loop"), node.cooling_loop, facts.loop_of, "a cooling loop")
        elif isinstance(node, Generator | Storage):
            yield from _missing(facts, (*at, "metering_point"), node.metering_point, points, "a metering point")
        elif isinstance(node, Compensation) and node.position is not None:
            yield from _input(facts, (*at, "position", "open"), node.position.open)
            yield from _input(facts, (*at, "position", "closed"), node.position.closed)


def _switch_inputs(facts: Facts, at: Path, switch: Switch) -> Iterator[Problem]:
    if switch.control is not None:
        path = (*at, "control", "device")
        device = facts.devices.get(switch.control.device)
        if device is None or device.kind not in {"relay", "pdu"}:
            seen = repr(switch.control.device) + (f", which is a {device.kind}" if device is not None else "")
            yield facts.error(path, seen, "the id of a relay or pdu in devices", "name the module that drives it")
        else:
            yield from _profile_output(facts, (*at, "control", "output"), device.id, switch.control.output)
            if switch.control.close_output is not None:
                yield from _profile_output(
                    facts, (*at, "control", "close_output"), device.id, switch.control.close_output
                )
    if switch.position is not None:
        yield from _input(facts, (*at, "position", "open"), switch.position.open)
        yield from _input(facts, (*at, "position", "closed"), switch.position.closed)
    for name, found in switch.readiness.wired():
        yield from _input(facts, (*at, "readiness", name), found)
    for order, stage in enumerate(switch.saon):
        if stage.operated is not None:
            yield from _input(facts, (*at, "saon", order, "operated"), stage.operated)


def _input(facts: Facts, path: Path, found: Input) -> Iterator[Problem]:
    device = facts.devices.get(found.device)
    if device is None or device.kind == "meter":
        seen = repr(found.device) + (", which is a meter" if device is not None else "")
        yield facts.error(
            (*path, "device"), seen, "the id of a relay or pdu in devices", "name the module it is wired to"
        )
        return
    profile = facts.profiles(device.profile) if facts.profiles is not None else None
    if profile is not None and profile.inputs is not None and found.input not in profile.inputs:
        yield facts.error(
            (*path, "input"),
            f"{found.input!r} of {device.profile}",
            f"an input of that profile: {', '.join(profile.inputs) or 'it has none'}",
            "correct the terminal",
        )


def _temperature(facts: Facts, path: Path, found: TemperaturePoint) -> Iterator[Problem]:
    device = facts.devices.get(found.device)
    if device is None or device.kind != "relay":
        seen = repr(found.device) + (f", which is a {device.kind}" if device is not None else "")
        yield facts.error(
            (*path, "device"), seen, "the id of a relay (remote I/O) in devices", "name the module that measures it"
        )
        return
    profile = facts.profiles(device.profile) if facts.profiles is not None else None
    if profile is not None and found.point not in profile.temperatures:
        yield facts.error(
            (*path, "point"),
            f"{found.point!r} of {device.profile}",
            f"a temperature of that profile: {listed(profile.temperatures) or 'it measures none'}",
            "correct the point, or name a module that measures temperatures",
        )


def _profile_output(facts: Facts, path: Path, device_id: str, output: str) -> Iterator[Problem]:
    device = facts.devices[device_id]
    profile = facts.profiles(device.profile) if facts.profiles is not None else None
    if profile is not None and profile.outputs is not None and output not in profile.outputs:
        yield facts.error(
            path,
            f"{output!r} of {device.profile}",
            f"an output of that profile: {', '.join(profile.outputs) or 'it has none'}",
            "correct the terminal",
        )


def _field_side(facts: Facts) -> Iterator[Problem]:
    site = facts.site
    networks, equipment = facts.networks, facts.equipment
    for index, item in enumerate(site.equipment):
        yield from _missing(facts, ("equipment", index, "fed_from"), item.fed_from, facts.nodes, "a node")
        yield from _missing(facts, ("equipment", index, "network"), item.network, networks, "a network")
    for index, link in enumerate(site.links):
        yield from _missing(facts, ("links", index, "network"), link.network, networks, "a network")
        for order, name in enumerate(link.via):
            yield from _missing(facts, ("links", index, "via", order), name, equipment, "equipment")
    for index, device in enumerate(site.devices):
        yield from _missing(facts, ("devices", index, "link"), device.link, facts.links, "a link")
        yield from _missing(facts, ("devices", index, "fed_from"), device.fed_from, facts.nodes, "a node")
        yield from _missing(
            facts, ("devices", index, "credentials"), device.credentials, site.credentials, "credentials"
        )
    mining = {load.id for load in facts.loads.values() if load.kind == "mining"}
    tenants = {tenant.id for tenant in site.tenants}
    for index, group in enumerate(site.miners):
        at: Path = ("miners", index)
        yield from _missing(facts, (*at, "load"), group.load, mining, "a load of kind mining")
        yield from _missing(facts, (*at, "credentials"), group.credentials, site.credentials, "credentials")
        yield from _missing(facts, (*at, "tenant"), group.tenant, tenants, "a tenant")
        yield from _missing(facts, (*at, "network"), group.network, networks, "a network")
        for order, name in enumerate(group.via):
            yield from _missing(facts, (*at, "via", order), name, equipment, "equipment")
    cooling = {load.id for load in facts.loads.values() if load.kind == "cooling"}
    for index, loop in enumerate(site.cooling_loops):
        for order, name in enumerate(loop.members):
            yield from _missing(
                facts, ("cooling_loops", index, "members", order), name, cooling, "a load of kind cooling"
            )
        if loop.flow_ok is not None:
            yield from _input(facts, ("cooling_loops", index, "flow_ok"), loop.flow_ok)
        if loop.supply_temp is not None:
            yield from _temperature(facts, ("cooling_loops", index, "supply_temp"), loop.supply_temp)
    hosts = {item.id for item in site.equipment if item.kind == "host"}
    yield from _missing(facts, ("agent", "host"), site.agent.host, hosts, "equipment of kind host")


def _metering(facts: Facts) -> Iterator[Problem]:
    site = facts.site
    meters = {device.id for device in site.devices if device.kind == "meter"}
    pdus = {device.id for device in site.devices if device.kind == "pdu"}
    for index, point in enumerate(site.metering_points):
        if point.device in pdus:
            yield facts.error(
                ("metering_points", index, "device"),
                f"{point.device}, which is a pdu",
                "the id of a meter in this file",
                "name a meter: a PDU's counters are shown, and no evidence is made of them",
            )
            continue
        yield from _missing(facts, ("metering_points", index, "device"), point.device, meters, "a meter")
        yield from _missing(facts, ("metering_points", index, "node"), point.node, facts.nodes, "a node")
    for index, virtual in enumerate(site.virtual_points):
        for _sign, name in virtual.terms():
            yield from _missing(facts, ("virtual_points", index, "formula"), name, facts.points, "a metering point")
    known = facts.points.keys() | facts.virtual_points.keys()
    for field, named in (("net_import", site.measured_at.net_import), ("gross_mining", site.measured_at.gross_mining)):
        yield from _missing(facts, ("measured_at", field), named, known, "a metering or virtual point")
