"""What central says of the sites of a plan: claims, decoded strictly, bounded by the register.

A claim can make the gateway order less or another site, never more than the mandate and the register allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grid.errors import GridError
from wire.registry import RegisteredSite

FRESH_MS = 15_000
"""Older power is no ground for an order."""
MAX_W = 10**10


@dataclass(frozen=True, slots=True)
class Seen:
    """One site as central claims it now. Powers in W; ``None`` is unknown."""

    site: str
    presence: str
    net_w: int | None
    """Power now; ``None`` where it is not fresh."""
    at: int | None
    """When the site measured it, ms of its own clock: tells samples apart."""
    last_w: int | None
    available_w: int
    floor_w: int
    why_not: str | None
    """Why it can give nothing, in words."""
    phone: str | None


@dataclass(frozen=True, slots=True)
class View:
    """All sites of a plan now."""

    sites: Mapping[str, Seen]
    objections: tuple[str, ...] = ()


def unseen(site: RegisteredSite) -> Seen:
    """A site of the register of which central says nothing."""
    return Seen(site.id, "unknown", None, None, None, 0, site.emergency_w, "central does not know this site", None)


def read_view(doc: Mapping[str, Any], sites: Mapping[str, RegisteredSite]) -> View:
    """Central's proposal of shares, for the sites of the register alone.

    Raises:
        GridError: not such a document.
    """
    rows = doc.get("sites")
    if not isinstance(rows, list):
        raise GridError("central's proposal has no list of sites; is its version as new as the gateway's?")
    found: dict[str, Seen] = {}
    for row in rows[:10_000]:
        name = row.get("id") if isinstance(row, dict) else None
        if isinstance(name, str) and name in sites:
            found[name] = _seen(row, sites[name])
    objections = doc.get("objections")
    said = tuple(str(o)[:500] for o in objections[:20]) if isinstance(objections, list) else ()
    return View({name: found.get(name, unseen(entry)) for name, entry in sites.items()}, said)


def _seen(row: Mapping[str, Any], entry: RegisteredSite) -> Seen:
    presence = str(row.get("presence"))[:20]
    age, net = _count(row.get("age_ms")), _watt(row.get("net_w"))
    fresh = net is not None and age is not None and age <= FRESH_MS and presence == "online"
    # The larger of two reservations counts: the register's is signed, the other one can only protect more.
    floor = max(entry.emergency_w, _watt(row.get("floor_w")) or 0)
    why = row.get("why")
    room = min(_count(row.get("available_w")) or 0, (net or 0) - floor) if fresh and why is None else 0
    return Seen(
        entry.id,
        presence,
        net if fresh else None,
        _count(row.get("at")),
        _watt(row.get("last_w")),
        max(0, room),
        floor,
        str(why)[:200] if why is not None else None if fresh else "its power now is not known",
        str(row["phone"])[:60] if row.get("phone") else None,
    )


def _watt(value: Any) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_W
    return value if good else None


def _count(value: Any) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if good else None
