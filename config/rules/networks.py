"""Links and networks: who may share a wire with what drives breakers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from config.devices import Link, Network
from config.nodes import Switch
from config.problems import Path, Problem
from config.rules.facts import Facts, listed

_SERIAL = re.compile(r"^rtu:///[^?\s]+(\?[a-z]+=[A-Za-z0-9]+(&[a-z]+=[A-Za-z0-9]+)*)?$")
_HOST = re.compile(
    r"^(?P<scheme>modbus|rtutcp|snmp)://(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:(?P<port>\d{1,5}))?/?$"
)
_LOOPBACK = ("127.", "localhost", "[::1]")


def host_of(link: Link) -> str | None:
    """Host of a link's URL; None for a serial line or a URL that cannot be read."""
    match = _HOST.match(link.url)
    return match["host"] if match is not None else None


def subnets(facts: Facts) -> Iterator[Problem]:
    """Every ``cidr`` is a subnet."""
    for index, network in enumerate(facts.site.networks):
        if network.cidr is None:
            continue
        try:
            ip_network(network.cidr)
        except ValueError as error:
            yield facts.error(
                ("networks", index, "cidr"), f"{network.cidr!r}: {error}", "a subnet such as 10.0.1.0/24", "correct it"
            )


def urls(facts: Facts) -> Iterator[Problem]:
    """Every link has a URL that can be opened, and carries kinds of devices that speak on it."""
    for index, link in enumerate(facts.site.links):
        path: Path = ("links", index, "url")
        match = _HOST.match(link.url)
        if "@" in link.url:
            yield facts.error(path, "a URL with '@'", "no user or password in a URL", "use credentials of the device")
        elif match is None and not _SERIAL.match(link.url):
            yield facts.error(
                path,
                repr(link.url[:80]),
                "modbus://host:port, rtutcp://host:port, rtu:///dev/ttyUSB0?baud=9600&parity=N or snmp://host:port",
                "correct it; the unit stands on the device",
            )
        elif match is not None and match["port"] and not 1 <= int(match["port"]) <= 65535:
            yield facts.error(path, match["port"], "a port from 1 to 65535", "correct the port")
    for index, device in enumerate(facts.site.devices):
        snmp = facts.links[device.link].url.startswith("snmp:")
        if snmp and device.kind != "pdu":
            yield facts.error(
                ("devices", index, "link"),
                f"{device.link}, an SNMP link, for a {device.kind}",
                "a Modbus link",
                "correct the link or the kind",
            )


def masters(facts: Facts) -> Iterator[Problem]:
    """RS-485 has one master: with a second one both read damaged frames, and the register's owner loses data."""
    shared = {link.id: link for link in facts.site.links if link.other_master is not None}
    reported: set[str] = set()
    for device in facts.site.devices:
        link = shared.get(device.link)
        if link is None or link.id in reported:
            continue
        serial = link.url.startswith(("rtu:", "rtutcp:"))
        if serial or device.kind == "relay":
            reported.add(link.id)
            index = facts.site.links.index(link)
            yield facts.error(
                ("links", index, "other_master"),
                f"{link.other_master!r} beside the agent on {link.id}, which carries {device.kind} {device.id}",
                "one master on RS-485" if serial else "no other master where switches are driven",
                "read a meter on its own line, or write read_by: uspd and take the meter off the link",
            )


def profiles(facts: Facts) -> Iterator[Problem]:
    """Every device has a profile, of its own kind. Only where the caller can tell."""
    if facts.profiles is None:
        return
    allowed = {"meter": {"meter"}, "relay": {"relay", "breaker"}, "pdu": {"pdu"}}
    for index, device in enumerate(facts.site.devices):
        found = facts.profiles(device.profile)
        path: Path = ("devices", index, "profile")
        if found is None:
            yield facts.error(path, repr(device.profile), "a known profile", "see 'tizgin profile list'")
        elif found.kind not in allowed[device.kind]:
            yield facts.error(
                path,
                f"{device.profile}, a profile of kind {found.kind}",
                f"one of kind {'|'.join(sorted(allowed[device.kind]))}",
                "correct the profile or the kind of the device",
            )


def meters(facts: Facts) -> Iterator[Problem]:
    """What is counted at a metering point has to come from a register whose raw bits are evidence."""
    if facts.profiles is None:
        return
    for index, point in enumerate(facts.site.metering_points):
        device = facts.devices[point.device]
        found = facts.profiles(device.profile)
        if point.read_by == "agent" and found is not None and found.kind == "meter" and found.counts_energy is False:
            yield facts.error(
                ("metering_points", index, "device"),
                f"{device.id} with profile {device.profile}, without an import counter of known scale in one register",
                "a meter whose energy_import_wh can be evidence",
                "see 'tizgin profile show'; use another meter, or read_by: none and count elsewhere",
            )


def control_network_refusals(facts: Facts, switch: Switch) -> Iterator[tuple[Problem, str]]:
    """(problem, reason): an infected miner must not reach what opens a feeder.

    In a simulated plant everything is loopback; :func:`simulation_networks` then says so once as a warning.
    """
    if switch.control is None or facts.site.site.simulation:
        return
    device = facts.devices[switch.control.device]
    link = facts.links[device.link]
    if link.url.startswith("rtu:"):
        return  # a serial line is on no network
    index = facts.site.links.index(link)
    # An outlet is an output on the PDU itself, so that PDUs stand on their own network; miners stay out of both.
    foreign = {"miners", "office"} if device.kind == "pdu" else {"miners", "pdu", "office"}
    if link.network is None:
        problem = facts.error(
            ("links", index),
            f"link {link.id} of control device {device.id} without network",
            "a network of kind control",
            "state the network, so that it can be told apart from the miners'",
        )
        yield problem, f"network of {device.id} not stated"
        return
    own = facts.networks[link.network]
    shared = sorted(_shared(facts, own, link, foreign))
    if shared:
        problem = facts.error(
            ("links", index, "network"),
            f"control device {device.id} of {switch.id} on {own.id}, shared with {listed(shared)}",
            "a network that miners and PDUs do not reach",
            "move the module to its own VLAN and subnet",
        )
        yield problem, f"control network shared with {listed(shared)}"


def _shared(facts: Facts, own: Network, link: Link, foreign: set[str]) -> set[str]:
    found: set[str] = set()
    if own.kind in foreign:
        found.add(f"{own.kind} (network {own.id})")
    mine = facts.cidrs.get(own.id)
    for network in facts.site.networks:
        theirs = facts.cidrs.get(network.id)
        if network.kind not in foreign or theirs is None or network.id == own.id:
            continue
        if (mine is not None and mine.version == theirs.version and mine.overlaps(theirs)) or _inside(link, theirs):
            found.add(f"{network.kind} (network {network.id}, {network.cidr})")
    found.update(f"miners {group.id}" for group in facts.site.miners if group.network == own.id)
    host = host_of(link)
    if host is not None and host in facts.miner_hosts:
        found.add(f"a miner at {host}")
    if foreign >= {"pdu"}:
        found.update(
            f"pdu {d.id}" for d in facts.site.devices if d.kind == "pdu" and facts.links[d.link].network == own.id
        )
    return found


def _inside(link: Link, network: object) -> bool:
    host = host_of(link)
    try:
        return host is not None and ip_address(host.strip("[]")) in network  # type: ignore[operator]  # an ip_network
    except ValueError:
        return False  # a host name: its address is not known here


def simulation_networks(facts: Facts) -> Iterator[Problem]:
    """One warning in place of many refusals where the whole plant is simulated on loopback."""
    if not facts.site.site.simulation:
        return
    controls = {switch.control.device for switch in facts.outputs if switch.control is not None}
    hosts = {host_of(facts.links[facts.devices[name].link]) or "" for name in controls}
    if any(host.startswith(_LOOPBACK) for host in hosts) and facts.site.miners:
        yield facts.warning(
            ("site", "simulation"),
            "control modules and miners on one loopback address",
            "a network of their own for control modules",
            "a simulated plant may; a real one is refused",
        )
