"""Which firmware answers there, asked once; and the driver for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from drivers.asic.antminer_stock import FAMILY as ANTMINER_STOCK
from drivers.asic.antminer_stock import AntminerStock
from drivers.asic.cgminer import CgminerClient, error_of
from drivers.asic.credentials import Credentials
from drivers.asic.fields import rows
from drivers.asic.generic import FAMILY as GENERIC
from drivers.asic.generic import GenericCgminer
from drivers.asic.http import HttpClient
from drivers.asic.luxos import FAMILY as LUXOS
from drivers.asic.luxos import LuxOs
from drivers.asic.timing import Timeouts
from drivers.errors import DriverError, NoConnection

Driver = AntminerStock | LuxOs | GenericCgminer
"""Each is a ``MinerReader``; those that also are a ``Sleeper`` say so by having its methods."""

STOCK_REALM = "antMiner Configuration"
"""Realm of the digest log-in of Bitmain's web interface: it answers also while the JSON socket is closed in sleep."""

OTHER_FIRMWARES = ("vnish", "mskminer", "hiveon", "rwglr", "braiins", "bosminer", "boser", "anthill", "asic.to")
"""Words in version answers of firmwares that keep Bitmain's field names but not its web interface."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one machine answers."""

    host: str
    rpc_port: int
    http_host: str
    http_port: int | None


def families() -> dict[str, Callable[[Address, Credentials | None, Timeouts, bool], Driver]]:
    """Name of each family and what makes its driver (address, log-in, time limits, whether writes are allowed)."""
    return {ANTMINER_STOCK: _antminer_stock, LUXOS: _luxos, GENERIC: _generic}


def driver_for(
    family: str,
    host: str,
    *,
    rpc_port: int = 4028,
    http_host: str | None = None,
    http_port: int | None = 80,
    credentials: Credentials | None = None,
    timeouts: Timeouts | None = None,
    writes_allowed: bool = False,
) -> Driver:
    """The driver of one machine; what a family has no use for is ignored.

    Raises:
        ValueError: no such family.
    """
    known = families()
    if family not in known:
        raise ValueError(f"ASIC family {family!r} is not known; one of {', '.join(sorted(known))} expected")
    return known[family](
        Address(host, rpc_port, http_host or host, http_port), credentials, timeouts or Timeouts(), writes_allowed
    )


async def identify(
    host: str, *, rpc_port: int = 4028, http_port: int | None = 80, timeouts: Timeouts | None = None
) -> str:
    """The family that answers at an address: ``version`` first, then ``stats``, then the web page's log-in challenge.

    Raises:
        DriverError: nothing answers, or nothing that can be understood.
    """
    limits = timeouts or Timeouts()
    rpc = CgminerClient(host, rpc_port, timeout_s=limits.rpc_s)
    try:
        version = await rpc.command("version")
        if error_of(version) is None and (family := family_of(version)) != GENERIC:
            return family
        return family_of(await rpc.command("stats"))
    except NoConnection as error:
        if http_port is not None:
            page = HttpClient(host, http_port, timeout_s=limits.http_s)
            try:
                realm = await page.realm()
            except DriverError:
                realm = None
            if realm == STOCK_REALM:
                return ANTMINER_STOCK
        raise error from error.__cause__


def family_of(answer: dict[str, Any]) -> str:
    """The family that a ``version`` or ``stats`` answer speaks of; the generic one where it names no other."""
    parts = [*rows(answer, "VERSION"), *rows(answer, "STATS")[:1], *rows(answer, "STATUS")[:1]]
    keys = {key.lower() for part in parts for key in part}
    said = " ".join(str(value) for part in parts for value in part.values()).lower()
    if "luxminer" in keys or "luxminer" in said:
        return LUXOS
    if any(word in said or word in keys for word in OTHER_FIRMWARES):
        return GENERIC
    type_ = next((str(part["Type"]) for part in parts if "Type" in part), "")
    if type_.lower().startswith("antminer") and ("bmminer" in keys or "btminer" in keys or "bmminer" in said):
        return ANTMINER_STOCK
    return GENERIC


def _antminer_stock(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Driver:
    return AntminerStock(
        at.host,
        rpc_port=at.rpc_port,
        http_host=at.http_host,
        http_port=at.http_port,
        credentials=credentials,
        timeouts=timeouts,
        writes_allowed=writes_allowed,
    )


def _luxos(at: Address, _credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Driver:
    return LuxOs(at.host, rpc_port=at.rpc_port, timeouts=timeouts, writes_allowed=writes_allowed)


def _generic(at: Address, _credentials: Credentials | None, timeouts: Timeouts, _writes_allowed: bool) -> Driver:
    return GenericCgminer(at.host, rpc_port=at.rpc_port, timeouts=timeouts)
