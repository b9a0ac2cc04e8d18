"""Pool addresses judged against the accredited list; accounts masked before anything is logged or sent."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address

from drivers.capabilities import Pool

MAX_HOST = 253
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_SCHEME = re.compile(r"^[a-z0-9+.-]{1,32}://")
_WORKER = re.compile(r"[A-Za-z0-9_-]{1,24}")
_FEE_MARKS = frozenset({"devfee", "dev fee", "dev-fee", "dev_fee"})
"""What some firmwares write instead of an address for the vendor's own share."""
FEE = "devfee"


class Verdict(StrEnum):
    """What the list says of a pool."""

    ACCREDITED = "accredited"
    LAPSED = "lapsed"
    """On the list, and not on this day."""
    FEE = "devfee"
    """The firmware vendor's own share: named apart, no choice of the owner's pool."""
    PROXY = "proxy"
    """The site's own proxy: which pool stands behind it cannot be seen from here."""
    UNLISTED = "unlisted"
    UNKNOWN = "unknown"
    """No address was given, or none that can be understood."""


@dataclass(frozen=True, slots=True)
class ListedPool:
    """One pool of the list.

    ``hosts`` are compared without ports; ``*.pool.kz`` means its subdomains and not itself, ``pool.kz`` itself alone.
    """

    name: str
    hosts: tuple[str, ...]
    kind: Verdict = Verdict.ACCREDITED
    """``ACCREDITED``, ``FEE`` or ``PROXY``."""
    valid_from: date | None = None
    valid_to: date | None = None
    certificate: str | None = None

    def valid(self, day: date) -> bool:
        """True where the accreditation holds on that day."""
        return (self.valid_from is None or self.valid_from <= day) and (self.valid_to is None or day <= self.valid_to)

    def on(self, day: date) -> Verdict:
        """What it is on a day."""
        return Verdict.LAPSED if self.kind is Verdict.ACCREDITED and not self.valid(day) else self.kind


@dataclass(frozen=True, slots=True)
class Judged:
    """One pool address: ``key`` names the pool (its name on the list, else the host), for comparing and for people."""

    key: str
    verdict: Verdict
    host: str | None


_NO_CHOICE = frozenset({Verdict.FEE, Verdict.UNKNOWN})


class PoolList:
    """The accredited list, asked by host; a question costs as much as the host has dots."""

    def __init__(self, pools: Iterable[ListedPool] = ()) -> None:
        self.pools = tuple(pools)
        self._exact: dict[str, ListedPool] = {}
        self._below: dict[str, ListedPool] = {}
        for pool in self.pools:
            for host in pool.hosts:
                (self._below if host.startswith("*.") else self._exact)[host.removeprefix("*.")] = pool

    def find(self, host: str) -> ListedPool | None:
        """The pool of a host; the longest match counts."""
        found = self._exact.get(host)
        rest = host
        while found is None and "." in rest:
            rest = rest.partition(".")[2]
            found = self._below.get(rest)
        return found

    def judge(self, url: str | None, day: date) -> Judged:
        """What the list says of an address on a day."""
        if url is not None and url.strip().casefold() in _FEE_MARKS:
            return Judged(FEE, Verdict.FEE, None)
        host = pool_host(url)
        if host is None:
            return Judged("unknown", Verdict.UNKNOWN, None)
        pool = self.find(host)
        if pool is None:
            return Judged(host, Verdict.UNLISTED, host)
        return Judged(pool.name, pool.on(day), host)


@lru_cache(maxsize=4096)
def pool_host(url: str | None) -> str | None:
    """The host of a pool address without scheme, log-in, port and path, in small ASCII letters; ``None`` where none.

    >>> pool_host("stratum+tcp://EU.Pool.KZ:3333/")
    'eu.pool.kz'
    >>> pool_host("[2001:db8::1]:3333")
    '2001:db8::1'
    """
    if url is None or len(url) > 4 * MAX_HOST:
        return None
    plain = _SCHEME.sub("", url.strip().casefold())
    plain = re.split(r"[/?#\\]", plain, maxsplit=1)[0].rpartition("@")[2]
    if plain.startswith("["):
        plain = plain[1:].partition("]")[0]
    elif plain.count(":") == 1:
        plain = plain.partition(":")[0]
    try:
        return str(ip_address(plain))
    except ValueError:
        pass
    plain = plain.rstrip(".")
    if not plain.isascii():
        try:
            plain = plain.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    return plain if _HOST.fullmatch(plain) else None


def current(pools: Sequence[Pool], judged: Sequence[Judged]) -> tuple[str, ...] | None:
    """The pool a machine works for now, as a tuple of its key; ``None`` where it cannot be told (asleep, or unsaid).

    Firmwares mark every pool that answers, not the one worked for: of several marked the first counts, as they all go
    through their list in order. The vendor's share and addresses that give no pool do not count. Where none is marked
    and none is said to be off, a single one is it.
    """
    own = [(pool, found) for pool, found in zip(pools, judged, strict=True) if found.verdict not in _NO_CHOICE]
    for pool, found in own:
        if pool.active:
            return (found.key,)
    possible = {found.key for pool, found in own if pool.active is None}
    return tuple(possible) if len(possible) == 1 else None


def set_up(judged: Sequence[Judged]) -> tuple[str, ...]:
    """The pools a machine is set up for, whether it works for them or not; sorted keys."""
    return tuple(sorted({found.key for found in judged if found.verdict not in _NO_CHOICE}))


def mask(user: str | None, secret: bytes) -> str | None:
    """A pool account as it may be shown: ``….worker`` where it has a worker's name, else a keyed digest.

    Never the account itself: it is a wallet or a customer's name. Without ``secret`` a digest says nothing about it.

    >>> mask("bc1qar0srrr7xfkvy5l643.rig-07", b"k")
    '….rig-07'
    """
    if not user:
        return None
    account, dot, worker = user.partition(".")
    if dot and account and _WORKER.fullmatch(worker):
        return "…." + worker
    return "#" + hmac.new(secret, user.encode(errors="replace"), hashlib.sha256).hexdigest()[:12]


def hosts_of(text: Iterable[str]) -> Iterator[str]:
    """Hosts of a list as :class:`ListedPool` has them.

    Raises:
        ValueError: one is no host; the message shows it.
    """
    for written in text:
        plain = written.strip()
        below = plain.startswith("*.")
        host = pool_host(plain.removeprefix("*."))
        if host is None or "*" in host or (below and _is_number(host)):
            raise ValueError(
                f"host {written[:60]!r}: expected a host such as eu.pool.kz, or *.pool.kz for all below it"
            )
        yield ("*." if below else "") + host


def _is_number(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
