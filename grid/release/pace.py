"""How fast each site of a plan may return, and when each begins, so that a zone's return stays below its bound. Pure.

A site's return is made of stages of its order's size. Stages of all sites at one moment would exceed the bound in that
minute although each keeps its part: so the first stages are spread over the time that one stage takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from grid.gateway.signing import return_part
from grid.release.collect import Found
from wire.registry import KeysDocument

GOLDEN_PPM = 618_034
"""Multiples of the golden ratio spread any number of sites evenly, and every run of neighbours among them."""
MAX_DELAY_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Pace:
    """The return of one order."""

    found: Found
    rate_w: int | None
    """W per minute; ``None``: neither the register nor the order bounds it."""
    delay_ms: int
    """How long after the signature it begins."""


def paces(live: Sequence[Found], register: KeysDocument) -> list[Pace]:
    """Rate and beginning of every order, sites in order of their names."""
    count = Counter(found.site.id for found in live)
    rated = [(found, _rate_w(found, register, count[found.site.id])) for found in live]
    rated.sort(key=lambda pair: (pair[0].site.zone, _stage_ms(*pair), pair[0].site.id, pair[0].id))
    made = []
    for rank, (found, rate) in enumerate(rated):
        made.append(Pace(found, rate, _stage_ms(found, rate) * (rank * GOLDEN_PPM % 1_000_000) // 1_000_000))
    return sorted(made, key=lambda pace: (pace.found.site.id, pace.found.id))


def _rate_w(found: Found, register: KeysDocument, orders: int) -> int | None:
    """The site's part of its zone's return, never above what its order allows: a release's rate takes its place."""
    zone = register.zone(found.site.zone)
    part = None if zone is None else return_part(register, zone, found.site.contracted_w)
    own = found.signed.order.restore.max_w_per_min
    bounds = [bound for bound in (None if part is None else max(1, part // orders), own) if bound]
    return min(bounds, default=None)


def _stage_ms(found: Found, rate_w: int | None) -> int:
    """How long one stage of its return takes; 0 where nothing bounds it."""
    if rate_w is None:
        return 0
    restore = found.signed.order.restore
    held = found.site.contracted_w if found.off_w is None else found.off_w
    stage_w = held * restore.stage_permille // 1000
    return min(MAX_DELAY_MS, max(restore.stage_delay_s * 1000, stage_w * 60_000 // rate_w))
