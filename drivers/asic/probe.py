"""``tizgin probe asic://host[:port]``: who is there, and what does it say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from drivers.asic.credentials import Credentials, credentials_from_environment
from drivers.asic.identify import RPC_PORT, UNREACHABLE, driver_for, families, identify
from drivers.asic.timing import Timeouts
from drivers.errors import DriverError


@dataclass(frozen=True, slots=True)
class AsicUrl:
    """``asic://host[:port][?http=port&cred=NAME]``."""

    host: str
    rpc_port: int = RPC_PORT
    http_port: int | None = None
    """``None`` is the family's own; :data:`UNREACHABLE` where there is none to be reached (``http=none``)."""
    credentials: str | None = None
    """Name of a log-in, never the log-in."""


def parse_url(url: str) -> AsicUrl:
    """Take an ``asic://`` URL apart.

    Raises:
        ValueError: it is none, or it carries a password.
    """
    example = "asic://10.20.1.7:4028?http=80 expected"
    if "@" in url:  # first, so that no other message repeats a password
        raise ValueError(f"an ASIC address carries no log-in; give ?cred=NAME; {example}")
    parts = urlsplit(url)
    if parts.scheme != "asic" or not parts.hostname:
        raise ValueError(f"{url[:100]!r} is no ASIC address; {example}")
    query = parse_qs(parts.query, keep_blank_values=True)
    if unknown := sorted(set(query) - {"http", "cred"}):
        raise ValueError(f"{url[:100]!r}: unknown {', '.join(unknown)}; http and cred are known; {example}")
    http = query.get("http", [None])[-1]
    return AsicUrl(
        host=parts.hostname,
        rpc_port=parts.port or RPC_PORT,
        http_port=None if http is None else UNREACHABLE if http in ("", "none") else _port(http),
        credentials=query.get("cred", [None])[-1],
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:6]) <= 65535:
        raise ValueError(f"port {text[:10]!r}: 1 to 65535 expected")
    return int(text)


async def probe(
    url: str,
    *,
    family: str | None = None,
    credentials: Credentials | None = None,
    timeouts: Timeouts | None = None,
) -> dict[str, Any]:
    """Identify and read one machine, never changing it.

    Args:
        url: ``asic://host[:port][?http=port&cred=NAME]``.
        family: skips identification.
        credentials: log-in; where none is given, the one that the address names is taken from the environment (see
            :func:`~drivers.asic.credentials.credentials_from_environment`).
        timeouts: time limits.

    Returns:
        The JSON object of ``tizgin probe --json`` with ``url`` and ``responds``; where nothing answers only these two
        and ``reason``.

    Raises:
        ValueError: the URL or the family is wrong, or the log-in it names cannot be had.
    """
    address = parse_url(url)
    if family is not None and family not in families():
        raise ValueError(f"ASIC family {family!r} is not known; one of {', '.join(sorted(families()))} expected")
    if credentials is None and address.credentials is not None:
        credentials = credentials_from_environment(address.credentials)
    try:
        found = family or await identify(
            address.host, rpc_port=address.rpc_port, http_port=address.http_port, timeouts=timeouts
        )
        driver = driver_for(
            found,
            address.host,
            rpc_port=address.rpc_port,
            http_port=address.http_port,
            credentials=credentials,
            timeouts=timeouts,
        )
        status = await driver.status()
    except DriverError as error:
        return {"url": url, "responds": False, "reason": str(error)}
    return {"url": url, "responds": True, **asdict(status)}
