"""Address ranges of miner groups, written by a person and expanded for the pollers.

A range counts either in hosts (``10.20.1.1-10.20.1.200:4028``) or in ports (``127.0.0.1:24000-24099``), or is a single
address (``10.20.1.7:4028``). Addresses are IPv4 numbers: a name would have to be resolved for each of 30,000 machines.
Hosts are counted numerically, so a range over several /24 nets includes .255 and .0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from config.devices import MinerGroup

MAX_MACHINES = 65_536
"""In one range. The largest site plans for 30,000; a mistyped octet gives millions."""

_SHAPE = re.compile(r"^(?P<first>[0-9.]+)(?:-(?P<last>[0-9.]+))?:(?P<port>\d{1,5})(?:-(?P<last_port>\d{1,5}))?$")


class AddressError(ValueError):
    """A range cannot be understood; the message says what was seen and what was expected."""


@dataclass(frozen=True, slots=True)
class MachineAddress:
    """One machine and where it answers."""

    id: str
    """``<group>/<number from 1>``."""
    rpc_host: str
    rpc_port: int
    http_host: str | None = None
    http_port: int | None = None


@dataclass(frozen=True, slots=True)
class AddressRange:
    """A range, not yet expanded: ``hosts`` × one port, or one host × ``ports``."""

    first: int
    last: int
    port: int
    last_port: int

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return (self.last - self.first + 1) * (self.last_port - self.port + 1)

    def expand(self) -> tuple[tuple[str, int], ...]:
        """(host, port) pairs in counting order."""
        if self.first == self.last:
            host = str(IPv4Address(self.first))
            return tuple((host, port) for port in range(self.port, self.last_port + 1))
        return tuple((str(IPv4Address(host)), self.port) for host in range(self.first, self.last + 1))

    def overlaps(self, other: AddressRange) -> bool:
        """True where both hold one same address."""
        return (
            self.first <= other.last
            and other.first <= self.last
            and self.port <= other.last_port
            and other.port <= self.last_port
        )


def parse(text: str) -> AddressRange:
    """Read a range without expanding it.

    Raises:
        AddressError: not a range, counted in hosts and ports at once, backwards, or larger than ``MAX_MACHINES``.
    """
    match = _SHAPE.match(text.strip())
    if match is None:
        raise AddressError(
            f"saw {text!r}, expected an IPv4 range such as 10.20.1.1-10.20.1.200:4028 or 127.0.0.1:24000-24099"
        )
    first = _host(match["first"], text)
    last = _host(match["last"], text) if match["last"] else first
    port = int(match["port"])
    last_port = int(match["last_port"]) if match["last_port"] else port
    if match["last"] and match["last_port"]:
        raise AddressError(f"saw {text!r}, expected a range of hosts or a range of ports, not both")
    if last < first or last_port < port:
        raise AddressError(f"saw {text!r}, expected the first address before the last")
    if not (1 <= port <= 65535 and last_port <= 65535):
        raise AddressError(f"saw {text!r}, expected ports from 1 to 65535")
    found = AddressRange(first, last, port, last_port)
    if found.size > MAX_MACHINES:
        raise AddressError(f"saw {text!r} with {found.size} addresses, expected at most {MAX_MACHINES}")
    return found


def _host(text: str, whole: str) -> int:
    try:
        return int(IPv4Address(text))
    except AddressValueError as error:
        raise AddressError(f"saw {whole!r}: {error}, expected IPv4 addresses such as 10.20.1.1") from error


def expand(text: str) -> tuple[tuple[str, int], ...]:
    """Range → (host, port) pairs.

    Raises:
        AddressError: see :func:`parse`.
    """
    return parse(text).expand()


def count(group: MinerGroup) -> int:
    """How many machines a group has.

    Raises:
        AddressError: its ranges cannot be understood or differ in size.
    """
    size = parse(group.rpc).size
    if group.http is not None and (other := parse(group.http).size) != size:
        raise AddressError(f"saw {size} addresses in rpc and {other} in http, expected the same number")
    return size


def machines(group: MinerGroup) -> tuple[MachineAddress, ...]:
    """Every machine of a group, numbered from 1 in counting order.

    Raises:
        AddressError: its ranges cannot be understood or differ in size.
    """
    count(group)
    rpc = expand(group.rpc)
    if group.http is None:
        return tuple(MachineAddress(f"{group.id}/{n}", host, port) for n, (host, port) in enumerate(rpc, 1))
    return tuple(
        MachineAddress(f"{group.id}/{n}", host, port, web_host, web_port)
        for n, ((host, port), (web_host, web_port)) in enumerate(zip(rpc, expand(group.http), strict=True), 1)
    )
