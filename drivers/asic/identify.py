"""Which firmware answers there, asked once; and the driver for it. The one list of families is here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from drivers.asic.antminer_stock import FAMILY as ANTMINER_STOCK
from drivers.asic.auradine import FAMILY as AURADINE
from drivers.asic.avalon import FAMILY as AVALON
from drivers.asic.bitaxe import FAMILY as BITAXE
from drivers.asic.braiins import FAMILY as BRAIINS
from drivers.asic.credentials import Credentials
from drivers.asic.elphapex import FAMILY as ELPHAPEX
from drivers.asic.epic import FAMILY as EPIC
from drivers.asic.exchange import exchange, until_nul
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.generic import FAMILY as GENERIC
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.iceriver import FAMILY as ICERIVER
from drivers.asic.iceriver import INFO_PAGE, ask_info
from drivers.asic.luxos import FAMILY as LUXOS
from drivers.asic.marathon import FAMILY as MARATHON
from drivers.asic.proto import FAMILY as PROTO
from drivers.asic.recheck import IdentifiedMiner
from drivers.asic.repair import MAX_BYTES, parse_answer
from drivers.asic.sealminer import FAMILY as SEALMINER
from drivers.asic.timing import Timeouts
from drivers.asic.vnish import FAMILY as VNISH
from drivers.asic.whatsminer_v2 import FAMILY as WHATSMINER_V2
from drivers.asic.whatsminer_v3 import FAMILY as WHATSMINER_V3
from drivers.capabilities import MinerReader
from drivers.errors import BadAnswer, DriverError, NoAnswer, NoConnection

FAMILIES: tuple[Family, ...] = (
    ANTMINER_STOCK,
    WHATSMINER_V3,
    WHATSMINER_V2,
    BRAIINS,
    LUXOS,
    VNISH,
    AURADINE,
    AVALON,
    EPIC,
    SEALMINER,
    BITAXE,
    ICERIVER,
    MARATHON,
    PROTO,
    ELPHAPEX,
    GENERIC,
)
"""Every firmware family there is a driver for."""

AUTO = "auto"
"""In the place of a family's name: whichever answers there."""
RPC_PORT = 4028
HTTP_PORT = 80
FRAMED_PORT = 4433
UNREACHABLE = 0
"""As a port: this interface of the machine cannot be reached, and its usual port belongs to something else."""
SURE = 80
"""From this certainty on no further question is asked."""
MAX_PAGES = 8


def families() -> dict[str, Family]:
    """Every family by name."""
    return {family.name: family for family in FAMILIES}


def driver_for(
    family: str,
    host: str,
    *,
    rpc_port: int = RPC_PORT,
    http_host: str | None = None,
    http_port: int | None = None,
    credentials: Credentials | None = None,
    timeouts: Timeouts | None = None,
    writes_allowed: bool = False,
) -> MinerReader:
    """The driver of one machine; what a family has no use for is ignored.

    ``http_port`` ``None`` is the family's own port, but only where the JSON socket is on its own port too: behind an
    address translation the usual port is another machine's, so then the web interface counts as unreachable.

    Args:
        family: its name, or :data:`AUTO`: then it is found out at the first use and again when it stops fitting.
        host: address of the machine.
        rpc_port: JSON socket, or whatever a family has in its place.
        http_host: address of the web interface where it is another one.
        http_port: web interface; :data:`UNREACHABLE` where there is none to be reached.
        credentials: log-in.
        timeouts: time limits.
        writes_allowed: the site's allow-list; False makes every write ``REFUSED``.

    Raises:
        ValueError: no such family.
    """
    limits = timeouts or Timeouts()
    given = Given(credentials, limits, writes_allowed)
    known = families()

    def make(name: str) -> MinerReader:
        return known[name].make(address_for(known[name], host, rpc_port, http_host, http_port), given)

    if family == AUTO:
        return IdentifiedMiner(
            f"miner {host}:{rpc_port}",
            lambda: identify(host, rpc_port=rpc_port, http_port=http_port, timeouts=limits),
            make,
        )
    if family not in known:
        raise ValueError(f"ASIC family {family!r} is not known; {AUTO} or one of {', '.join(sorted(known))} expected")
    return make(family)


def address_for(family: Family, host: str, rpc_port: int, http_host: str | None, http_port: int | None) -> Address:
    """Where a family's interfaces are, from what a person configured; :data:`RPC_PORT` is what nobody had to write."""
    rpc = None if rpc_port == RPC_PORT else rpc_port
    if http_port is None and http_host is None and rpc is not None:
        # One address was given and it is not a usual one: it is the only one known of this machine.
        http_port = rpc if family.rpc_port is None else UNREACHABLE
    return Address(host, rpc, http_host, http_port)


async def identify(
    host: str,
    *,
    rpc_port: int = RPC_PORT,
    http_port: int | None = None,
    timeouts: Timeouts | None = None,
) -> str:
    """The family that answers at an address, found with as few questions as it takes. Nothing is ever written.

    ``version`` on the JSON socket, ``stats`` if that leaves a doubt, then the web interface's log-in challenge, then
    pages that families named, then the framed and the line socket. A caller keeps the result; see
    :class:`~drivers.asic.recheck.IdentifiedMiner` for when to ask again.

    Raises:
        DriverError: nothing answers, or nothing that can be understood.
    """
    return await _Enquiry(host, rpc_port, http_port, timeouts or Timeouts()).run()


def best(evidence: Evidence) -> tuple[Family, int]:
    """The surest family and how sure it is; the generic one with 0 where none is."""
    ranked = sorted(FAMILIES, key=lambda family: family.certainty(evidence), reverse=True)
    return ranked[0], ranked[0].certainty(evidence)


def family_of(answer: dict[str, Any]) -> str:
    """The family that one ``version`` or ``stats`` answer speaks of; the generic one where it names no other."""
    evidence = Evidence(stats=answer) if "STATS" in answer else Evidence(version=answer)
    family, certainty = best(evidence)
    return family.name if certainty else GENERIC.name


class _Enquiry:
    """One identification: what was asked, what came back."""

    def __init__(self, host: str, rpc_port: int, http_port: int | None, timeouts: Timeouts) -> None:
        self._host = host
        self._rpc_port = rpc_port
        usual = rpc_port == RPC_PORT
        self._http_port = HTTP_PORT if http_port is None and usual else http_port or None
        self._usual = usual
        self._timeouts = timeouts
        self._seen = Evidence()
        self._first: DriverError | None = None

    async def run(self) -> str:
        for ask in (self._version, self._stats, self._realm, self._pages, self._framed, self._line):
            await ask()
            family, certainty = best(self._seen)
            if certainty >= SURE:
                return await self._newer(family)
        if certainty:
            return family.name
        name = f"miner {self._host}:{self._rpc_port}"
        if self._first is not None:
            raise self._first
        raise BadAnswer(f"{name}: answers, but as no family known here; name its family or leave it out")

    async def _newer(self, family: Family) -> str:
        """The name of the family found, or of the one that replaced it on the same machines.

        Newer Whatsminers answer on both sockets, and take commands on the framed one alone.
        """
        if family is WHATSMINER_V2 and self._usual:
            await self._ask_framed(FRAMED_PORT)
            family, _ = best(self._seen)
        return family.name

    async def _version(self) -> None:
        data = await self._rpc("version")
        if data is None:
            return
        if data.startswith(b"HTTP/"):
            # A web server stands there and says that this was no request; what it says may be JSON all the same.
            self._seen = replace(self._seen, raw_version=data)
            return
        try:
            self._seen = replace(self._seen, version=parse_answer(data, source=f"miner {self._host} version"))
        except BadAnswer as error:
            self._first = self._first or error
            self._seen = replace(self._seen, raw_version=data)

    async def _stats(self) -> None:
        if self._seen.version is None:
            return
        data = await self._rpc("stats")
        if data is None:
            return
        try:
            self._seen = replace(self._seen, stats=parse_answer(data, source=f"miner {self._host} stats"))
        except BadAnswer as error:
            self._first = self._first or error

    async def _realm(self) -> None:
        if self._http_port is None:
            return
        try:
            realm = await HttpClient(self._host, self._http_port, timeout_s=self._timeouts.http_s).realm()
        except DriverError as error:
            self._first = self._first or error
            self._http_port = None  # nothing there, or nothing that answers: its pages are not asked either
            return
        self._seen = replace(self._seen, realm=realm)

    async def _pages(self) -> None:
        asked = 0
        for family in FAMILIES:
            port = self._page_port(family)
            if port is None:
                continue
            web = HttpClient(self._host, port, timeout_s=self._timeouts.http_s)
            for path in family.pages:
                if path in self._seen.pages or asked >= MAX_PAGES:
                    continue
                asked += 1
                try:
                    page = await web.get_json(path)
                except DriverError:
                    continue
                self._seen = replace(self._seen, pages={**self._seen.pages, path: page})
            if best(self._seen)[1] >= SURE:
                return

    def _page_port(self, family: Family) -> int | None:
        """Where a family's pages would be here; ``None`` where they cannot be."""
        if not family.pages:
            return None
        if family.http_port is None or family.http_port == family.rpc_port:
            # Its web interface stands in the place of the JSON socket, so there has to be something that is no JSON.
            spoke = self._seen.raw_version
            return self._rpc_port if spoke is not None and spoke.startswith(b"HTTP/") else None
        if family.rpc_port is None and not self._usual and self._http_port is None:
            return self._rpc_port if self._seen.raw_version is not None else None
        if family.http_port != HTTP_PORT:
            return family.http_port if self._usual else None
        return self._http_port

    async def _framed(self) -> None:
        if self._seen.version is None:
            await self._ask_framed(FRAMED_PORT if self._usual else self._rpc_port)

    async def _ask_framed(self, port: int) -> None:
        body = msgspec.json.encode({"cmd": "get.device.info"})
        data = await self._ask(port, len(body).to_bytes(4, "little") + body, _until_frame)
        if data is not None and len(data) > 4:
            try:
                self._seen = replace(self._seen, framed=parse_answer(data[4:], source=f"miner {self._host}:{port}"))
            except BadAnswer as error:
                self._first = self._first or error

    async def _line(self) -> None:
        if self._seen.version is not None or self._seen.framed is not None:
            return
        port = ICERIVER.rpc_port or 0
        try:
            info = await ask_info(self._host, port if self._usual else self._rpc_port, self._timeouts.rpc_s)
        except DriverError as error:
            self._first = self._first or error
            return
        self._seen = replace(self._seen, pages={**self._seen.pages, INFO_PAGE: info})

    async def _rpc(self, command: str) -> bytes | None:
        return await self._ask(self._rpc_port, msgspec.json.encode({"command": command}), until_nul)

    async def _ask(self, port: int, request: bytes, complete: Any) -> bytes | None:
        try:
            return await exchange(
                self._host,
                port,
                request,
                timeout_s=self._timeouts.rpc_s,
                complete=complete,
                max_bytes=MAX_BYTES,
            )
        except TimeoutError:
            self._first = self._first or NoAnswer(
                f"miner {self._host}:{port}: no complete answer within {self._timeouts.rpc_s:g} s"
            )
        except OSError as error:
            self._first = self._first or NoConnection(f"miner {self._host}:{port}: {error}")
        except BadAnswer as error:
            self._first = self._first or BadAnswer(f"miner {self._host}:{port}: {error}")
        return None


def _until_frame(received: bytearray, newest: int) -> int:
    """A framed answer says its length in its first four bytes, little-endian."""
    del newest
    if len(received) < 4:
        return -1
    length = int.from_bytes(received[:4], "little")
    if length > MAX_BYTES:
        raise BadAnswer(f"frame of {length} bytes announced, at most {MAX_BYTES} expected")
    return 4 + length if len(received) >= 4 + length else -1
