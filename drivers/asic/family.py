"""What a firmware family is to the rest: a name, what it can do, how it is recognised, and what makes its driver.

Each family folder exports one ``FAMILY``; :mod:`drivers.asic.identify` lists them. Nothing else knows a family by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from drivers.asic.given import Given
from drivers.capabilities import MinerReader

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """Where one machine answers. Ports are the family's own where they are ``None``; 0 cannot be reached."""

    host: str
    rpc_port: int | None = None
    http_host: str | None = None
    http_port: int | None = None

    @property
    def web_host(self) -> str:
        """Host of the web interface: the machine itself unless told otherwise."""
        return self.http_host or self.host

    def rpc(self, usual: int = 4028) -> int:
        """Port of the JSON socket, or of what a family has in its place."""
        return self.rpc_port or usual

    def web(self, usual: int = 80) -> int:
        """Port of the web interface; 0 where it cannot be reached."""
        return usual if self.http_port is None else self.http_port


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an unknown address said when it was asked without a log-in; ``None`` is "no answer"."""

    version: Json | None = None
    """Answer to ``version`` on the JSON socket."""
    stats: Json | None = None
    """Answer to ``stats`` on the JSON socket."""
    realm: str | None = None
    """Realm of the web interface's log-in challenge."""
    pages: Mapping[str, Json] = field(default_factory=dict)
    """JSON answers of the web interface by path, of the paths that families asked for."""
    framed: Json | None = None
    """Answer to ``get.device.info`` on the length-framed socket (4433)."""
    raw_version: bytes | None = None
    """The bytes that answered ``version`` where they were no JSON."""


Make = Callable[[Address, Given], MinerReader]
"""Makes a driver: the driver's own class, as a rule."""


@dataclass(frozen=True, slots=True)
class Family:
    """One firmware family.

    ``certainty`` looks at the evidence and says how sure it is, 0 (no) to 100; the surest family wins, and a test holds
    that no two are equally sure of a recorded answer.
    """

    name: str
    title: str
    make: Make
    certainty: Callable[[Evidence], int]
    sleeps: bool
    """Its firmware can sleep; else the planner has only relays."""
    limits_power: bool = False
    """Its firmware can be given a power limit in watts."""
    needs_login_to_read: bool = False
    pages: tuple[str, ...] = ()
    """Web paths worth asking an unknown address for, cheapest first."""
    rpc_port: int | None = 4028
    http_port: int | None = 80
