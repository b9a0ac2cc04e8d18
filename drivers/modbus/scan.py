"""Who answers on a line or in a network: one read per address, then a closer look at those that answered.

Only functions 3 and 4 are ever sent. A relay board shows itself by answering; its outputs and inputs are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from drivers.modbus.looking import Asker, NobodyThere, Registers
from drivers.modbus.pdu import read_request
from drivers.modbus.probe import guessed, known_meters, look, running
from drivers.modbus.scheduler import Klass
from drivers.modbus.url import LinkUrl, parse_url
from drivers.profiles.model import MeterProfile
from wire.quality import Quality

MAX_HOSTS = 1024
MAX_ADDRESSES = 16_384
UNITS = (1, 247)
"""Addresses that a serial device may have."""
TCP_UNITS = (1, 1)
TCP_SIDE_BY_SIDE = 32
GATEWAY_SILENT = frozenset({10, 11})
"""Exceptions by which a gateway says that nobody answered it."""

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Line:
    """One link and the unit addresses to ask on it."""

    url: LinkUrl
    units: tuple[int, ...]

    def address(self, unit: int) -> str:
        """URL of one unit."""
        return f"{self.url}/{unit}"


def host_range(text: str) -> tuple[str, ...]:
    """``10.0.0.1-50`` or ``10.0.0.1-10.0.0.50`` or one host → hosts.

    Raises:
        ValueError: the ends are no IPv4 addresses in order, or there are too many between them.
    """
    first_text, dash, last_text = text.partition("-")
    if not dash or not re.fullmatch(r"[0-9.]+", first_text):
        if not text or len(text) > 253:
            raise ValueError(f"host: seen {text[:40]!r}, expected a name, an address or a range such as 10.0.0.1-50")
        return (text,)
    if "." not in last_text:
        last_text = f"{first_text.rpartition('.')[0]}.{last_text}"
    try:
        first, last = ipaddress.IPv4Address(first_text), ipaddress.IPv4Address(last_text)
    except ValueError as error:
        raise ValueError(f"host range {text[:40]!r}: {error}; expected for example 10.0.0.1-50") from None
    count = int(last) - int(first) + 1
    if not 1 <= count <= MAX_HOSTS:
        raise ValueError(f"host range {text[:40]!r}: {count} hosts, expected 1 to {MAX_HOSTS}, the lower end first")
    return tuple(str(ipaddress.IPv4Address(int(first) + i)) for i in range(count))


def unit_range(text: str) -> tuple[int, ...]:
    """``1-5`` or ``7`` → units.

    Raises:
        ValueError: they are no unit addresses.
    """
    found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", text, re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (-1, -1)
    if not 0 <= first <= last <= 255:
        raise ValueError(f"units: seen {text[:20]!r}, expected for example 1-247, the lower end first")
    return tuple(range(first, last + 1))


def lines(url: str) -> tuple[Line, ...]:
    """Links and units that a scan address names. Without units: 1 to 247 of a serial line, 1 of a TCP host.

    Raises:
        ValueError: the address is wrong or names too much.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        raise ValueError(f"seen {url[:40]!r}, expected for example modbus://10.0.0.1-50:502/1-5")
    if scheme == "rtu":
        line, units = _serial(url)
        return (Line(line, units),)
    place, _, unit_text = rest.partition("/")
    hosts, port = _place(url, place)
    default = TCP_UNITS if scheme == "modbus" else UNITS
    units = unit_range(unit_text) if unit_text else tuple(range(default[0], default[1] + 1))
    if len(hosts) * len(units) > MAX_ADDRESSES:
        raise ValueError(f"{url[:60]}: {len(hosts) * len(units)} addresses, expected at most {MAX_ADDRESSES}")
    return tuple(Line(parse_url(f"{scheme}://{host}{port}")[0], units) for host in hosts)


def _place(url: str, place: str) -> tuple[tuple[str, ...], str]:
    if "@" in place or "?" in place:
        raise ValueError(f"{url.partition('://')[0]}://…: expected hosts, a port and units, nothing else")
    if place.startswith("["):
        end = place.find("]") + 1
        return (place[:end],), place[end:]
    hosts, colon, port = place.partition(":")
    return host_range(hosts), colon + port


def _serial(url: str) -> tuple[LinkUrl, tuple[int, ...]]:
    head, question, query = url.partition("?")
    if question:
        query, slash, unit_text = query.partition("/")
        bare = f"{head}?{query}"
    else:
        found = re.fullmatch(r"(rtu:///.+)/(\d+(?:-\d+)?)", head, re.ASCII)
        bare, slash, unit_text = (found[1], "/", found[2]) if found else (head, "", "")
    units = unit_range(unit_text) if slash and unit_text else tuple(range(UNITS[0], UNITS[1] + 1))
    return parse_url(bare)[0], units


async def scan(
    url: str, *, timeout_s: float | None = None, closer: bool = True, on_progress: Progress = lambda _count: None
) -> AsyncIterator[dict[str, Any]]:
    """Ask every address; yield one row for each that answered, as it is found.

    ``timeout_s`` is how long an address may be silent (TCP: 0.3 s, lines: 0.2 s). ``closer``: find out what answered.
    ``on_progress`` is told how many addresses were done since it was told last.

    Raises:
        ValueError: the address is wrong.
        ProfileError: one of the shipped profiles is wrong.
    """
    todo = lines(url)
    meters = known_meters() if closer else ()
    found: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    gate = asyncio.Semaphore(TCP_SIDE_BY_SIDE)

    async def one(line: Line) -> None:
        async with gate:
            await _line(line, timeout_s, meters, found.put_nowait, on_progress)

    async def everyone() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for line in todo:
                    group.create_task(one(line), name=f"scan-{line.url}")
        finally:
            found.put_nowait(None)

    work = asyncio.create_task(everyone(), name="scan")
    try:
        while (row := await found.get()) is not None:
            yield row
        await work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def total(url: str) -> int:
    """How many addresses a scan asks.

    Raises:
        ValueError: the address is wrong.
    """
    return sum(len(line.units) for line in lines(url))


async def _line(
    line: Line,
    timeout_s: float | None,
    meters: Sequence[MeterProfile],
    tell: Callable[[dict[str, Any]], None],
    on_progress: Progress,
) -> None:
    wait_s = timeout_s or (0.3 if line.url.scheme == "modbus" else 0.2)
    if line.url.scheme != "rtu" and not await _listens(line.url, max(wait_s, 0.5)):
        on_progress(len(line.units))
        return
    present: list[int] = []
    async with running(line.url, wait_s) as link:
        for unit in line.units:
            pdu = read_request(3, 0, 1)
            deadline_s = 4 * wait_s + 1.0
            (answer,) = await link.exchange(Asker(unit), (pdu,), klass=Klass.VERIFICATION, deadline_s=deadline_s)
            refused = answer.quality is Quality.EXCEPTION and answer.exception not in GATEWAY_SILENT
            if answer.ok or refused:
                present.append(unit)
                if not meters:
                    tell({"url": line.address(unit), "responds": True, "latency_ms": round(answer.latency_ms, 1)})
            on_progress(1)
    for unit in present if meters else ():
        async with running(line.url, max(wait_s, 0.5)) as link:
            try:
                tell(guessed(line.address(unit), await look(Registers(link, unit), meters)))
            except NobodyThere as nobody:
                tell({"url": line.address(unit), "responds": True, "profile": None, "reason": str(nobody)})


async def _listens(url: LinkUrl, wait_s: float) -> bool:
    try:
        async with asyncio.timeout(wait_s):
            _, writer = await asyncio.open_connection(url.host, url.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()  # some gateways take one connection at a time
    return True


def hosts_of(url: str) -> tuple[str, ...]:
    """``asic://10.0.0.1-254:4028?http=80`` or ``snmp://…`` → one address for each host.

    Raises:
        ValueError: the range is wrong.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(f"{parts.scheme}://…: a user or password never stands in an address; give ?cred=NAME")
    hosts, port = _place(url, parts.netloc)
    query = f"?{parts.query}" if parts.query else ""
    return tuple(f"{parts.scheme}://{host}{port}{query}" for host in hosts)
