"""Addresses of Modbus links: ``modbus://host:port/unit``, ``rtu:///dev/ttyUSB0?baud=9600&parity=N/unit``, ``rtutcp://…``.

A unit at the end is optional: in a site file the link has none and each device names its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

Scheme = Literal["modbus", "rtu", "rtutcp"]
DEFAULT_PORT = 502


@dataclass(frozen=True, slots=True)
class LinkUrl:
    """One physical link. ``host``/``port`` for TCP, ``path`` and line settings for a serial line."""

    scheme: Scheme
    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    baud: int = 9600
    parity: str = "N"
    stop_bits: int = 1

    @property
    def rtu_framing(self) -> bool:
        """True where frames carry no transaction number, so that a late answer cannot be told by itself."""
        return self.scheme != "modbus"

    def __str__(self) -> str:
        if self.scheme == "rtu":
            return f"rtu://{self.path}?baud={self.baud}&parity={self.parity}&stop={self.stop_bits}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_url(url: str) -> tuple[LinkUrl, int | None]:
    """Link and unit (``None`` if the address names none).

    Raises:
        ValueError: what was seen and what was expected; the address is repeated without anything like a password.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in {"modbus", "rtu", "rtutcp"}:
        raise ValueError(f"link address: seen scheme {scheme[:20]!r}, expected modbus://, rtu:// or rtutcp://")
    if "@" in rest:
        raise ValueError(f"link address {scheme}://…: a user or password never stands in an address; Modbus has none")
    return _serial(url) if scheme == "rtu" else _tcp(url, "modbus" if scheme == "modbus" else "rtutcp")


def _tcp(url: str, scheme: Scheme) -> tuple[LinkUrl, int | None]:
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError(f"{url}: seen settings after '?', expected {scheme}://host:port/unit")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{url}: port: {error}; expected 1 to 65535") from None
    if not host:
        raise ValueError(f"{url}: no host; expected {scheme}://host:port/unit")
    if port == 0:
        raise ValueError(f"{url}: port 0; expected 1 to 65535")
    unit = parts.path.strip("/")
    return LinkUrl(scheme, host=host, port=port or DEFAULT_PORT), _unit(url, unit) if unit else None


def _serial(url: str) -> tuple[LinkUrl, int | None]:
    rest, _, query = url.removeprefix("rtu://").partition("?")
    unit: str | None = None
    if query:
        query, _, unit_text = query.partition("/")
        unit = unit_text or None
    elif found := re.fullmatch(r"(/.+)/(\d+)", rest):
        rest, unit = found.group(1), found.group(2)
    if not rest.startswith("/") or rest.endswith("/"):
        raise ValueError(f"{url}: seen device {rest!r}, expected an absolute path such as rtu:///dev/ttyUSB0?baud=9600")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    unknown = set(settings) - {"baud", "parity", "stop"}
    if unknown:
        raise ValueError(f"{url}: unknown setting {sorted(unknown)[0]!r}; expected baud, parity, stop")
    baud = _number(url, "baud", settings.get("baud", "9600"), 300, 4_000_000)
    stop = _number(url, "stop", settings.get("stop", "1"), 1, 2)
    parity = settings.get("parity", "N")
    if parity not in {"N", "E", "O"}:
        raise ValueError(f"{url}: parity: seen {parity!r}, expected N, E or O")
    link = LinkUrl("rtu", path=rest, baud=baud, parity=parity, stop_bits=stop)
    return link, _unit(url, unit) if unit is not None else None


def _unit(url: str, text: str) -> int:
    return _number(url, "unit", text, 0, 255)


def _number(url: str, name: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not low <= int(text[:9]) <= high:
        raise ValueError(f"{url}: {name}: seen {text[:20]!r}, expected {low} to {high}")
    return int(text)
