"""Which addresses a simulation may bind: loopback alone."""

from __future__ import annotations

import ipaddress

from config.addresses import machines as addresses_of
from config.site import Site
from drivers.modbus.url import parse_url

Endpoint = tuple[str, int]


class SimulationError(Exception):
    """The site file cannot be simulated: what was seen, what was expected, what to do."""


def refuse_foreign_addresses(site: Site) -> None:
    """Only loopback may be bound: a simulated site must never be mistaken for, or reached as, a real one.

    Raises:
        SimulationError: an address is not on loopback, or a link is no network link.
    """
    for link in site.links:
        if link.url.startswith("snmp://"):
            host, _ = host_port(link.url, 161)
        else:
            try:
                address, _ = parse_url(link.url)
            except ValueError as error:
                raise SimulationError(f"link {link.id}: {error}") from error
            if address.scheme != "modbus":
                raise SimulationError(
                    f"link {link.id}: saw {link.url}, expected modbus://127.0.0.1:port: serial lines are not simulated"
                )
            host = address.host
        _loopback_only(f"link {link.id}", host)
    for group in site.miners:
        for machine in addresses_of(group):
            _loopback_only(f"miners {group.id}", machine.rpc_host)
            if machine.http_host is not None:
                _loopback_only(f"miners {group.id}", machine.http_host)


def _loopback_only(what: str, host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SimulationError(
            f"{what}: saw address {host}, expected one on loopback (127.0.0.1): "
            "the simulator binds no other, so that nobody takes it for a real device"
        )


def host_port(url: str, default: int) -> Endpoint:
    """``snmp://host:port`` to host and port.

    Raises:
        SimulationError: it is no such address.
    """
    rest = url.partition("://")[2].partition("?")[0].strip("/")
    host, _, port = rest.partition(":")
    if not host or (port and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise SimulationError(f"link address: saw {url!r}, expected snmp://127.0.0.1:port")
    return host, int(port) if port else default
