"""Shares of a zone's or the country's target: what central proposes, unsigned, from what the sites say now.

Pure. Unknown power is never counted as available: a site that says nothing, or that may not act, is left out with the
reason, and its load still counts towards the total, at the last value it said, else at its contracted power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wire.registry import Zone


@dataclass(frozen=True, slots=True)
class SiteNow:
    """One site as central knows it now. Powers in W, ages in ms; ``None`` is unknown."""

    id: str
    zone: str
    presence: str
    mode: str | None
    net_w: int | None
    """Net power, only while it is fresh."""
    age_ms: int | None
    last_w: int | None
    """The last net power it said, however old."""
    contracted_w: int
    floor_w: int
    """Emergency reservation: nothing sheds below it."""
    mining_w: int | None
    awake: int | None
    """Machines that hash now."""
    outputs_usable: int | None
    """Commissioned outputs that may open now."""
    limit_w: int | None = None
    """Limit that it keeps already."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one site should give, or why it gives nothing."""

    site: SiteNow
    available_w: int
    share_w: int
    limit_w: int | None
    code: str | None
    why: str | None

    @property
    def counted_w(self) -> int:
        """Its load in the total: measured, else the last word, else the contract."""
        for value in (self.site.net_w, self.site.last_w):
            if value is not None:
                return value
        return self.site.contracted_w


@dataclass(frozen=True, slots=True)
class Proposal:
    """Shares of a target over some zones."""

    shares: tuple[Share, ...]
    total_w: int
    known_w: int
    """Part of the total that is measured now."""
    target_w: int
    cut_w: int
    shortfall_w: int
    """What is missing when everything available is given."""
    objections: tuple[str, ...]
    """Why it must not be carried out like this."""


def left_out(site: SiteNow, methods: Sequence[str]) -> tuple[str, str] | None:
    """Why a site can give nothing now: code and words; ``None`` where it can."""
    if site.presence != "online":
        return site.presence, f"{site.presence}: call the site"
    if site.net_w is None:
        if site.last_w is None or site.age_ms is None:
            return "no_power", "says no net power"
        return "stale", f"its last power is {site.age_ms // 1000} s old"
    if site.mode != "armed":
        return f"mode_{site.mode or 'unknown'}", f"agent in mode {site.mode or 'unknown'}: it moves nothing"
    sleeps = "sleep" in methods and bool(site.awake)
    switches = "switch" in methods and bool(site.outputs_usable)
    if not sleeps and not switches:
        seen = f"{_or_unknown(site.awake)} machines awake, {_or_unknown(site.outputs_usable)} outputs usable"
        return "nothing_armed", f"nothing can be given by {', '.join(methods)}: {seen}"
    if site.mining_w is None:
        return "mining_unknown", "no machine says what it draws: what can be given is unknown"
    if site.net_w <= site.floor_w:
        return "at_reservation", f"at its reservation: {site.net_w} W of {site.floor_w} W"
    return None


def _or_unknown(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def available_w(site: SiteNow, methods: Sequence[str]) -> int:
    """Most that a site can give now: the machines' draw, and nothing of its reservation."""
    if left_out(site, methods) is not None or site.net_w is None or site.mining_w is None:
        return 0
    return max(0, min(site.net_w - site.floor_w, site.mining_w))


def split(amount_w: int, room_w: Sequence[int]) -> list[int]:
    """An amount in proportion to rooms, none above its room, the sum exact (largest remainders)."""
    total = sum(room_w)
    if amount_w >= total:
        return list(room_w)
    if amount_w <= 0:
        return [0] * len(room_w)
    parts = [amount_w * room // total for room in room_w]
    by_remainder = sorted(range(len(room_w)), key=lambda i: (-(amount_w * room_w[i] % total), i))
    for index in by_remainder[: amount_w - sum(parts)]:
        parts[index] += 1
    return parts


def propose(
    sites: Sequence[SiteNow],
    bounds: Sequence[Zone | None],
    *,
    target_w: int | None = None,
    permille: int | None = None,
    ramp_w_per_min: int | None = None,
    max_cut_w: int | None = None,
    methods: Sequence[str] = ("sleep",),
) -> Proposal:
    """Shares of a target.

    Args:
        sites: all sites of the zones.
        bounds: the register's entry of each zone, ``None`` where it has none.
        target_w: total to reach; or ``permille`` of the total now.
        ramp_w_per_min: the plan's ramp; ``None`` is one step.
        max_cut_w: most that one site may be made to give.
        methods: what the orders may use.
    """
    rooms = [available_w(site, methods) for site in sites]
    if max_cut_w is not None:
        rooms = [min(room, max_cut_w) for room in rooms]
    blank = [_share(site, room, 0, methods) for site, room in zip(sites, rooms, strict=True)]
    total = sum(share.counted_w for share in blank)
    target = target_w if target_w is not None else total * (permille or 0) // 1000
    cut = max(0, total - target)
    parts = split(cut, rooms)
    shares = [_share(site, room, part, methods) for site, room, part in zip(sites, rooms, parts, strict=True)]
    return Proposal(
        tuple(shares),
        total,
        sum(site.net_w or 0 for site in sites if site.net_w is not None),
        target,
        cut,
        cut - sum(parts),
        tuple(_objections(shares, bounds, ramp_w_per_min)),
    )


def _share(site: SiteNow, room: int, part: int, methods: Sequence[str]) -> Share:
    found = left_out(site, methods)
    code, why = found if found is not None else (None, None)
    limit = site.net_w - part if part > 0 and site.net_w is not None else None
    return Share(site, room, part, limit, code, why)


def _objections(shares: Sequence[Share], bounds: Sequence[Zone | None], ramp: int | None) -> list[str]:
    """Steps and ramps above what the register allows in a zone outside a live emergency declaration."""
    if any(zone is None for zone in bounds):
        return ["a zone has no bounds in the register: no plan is possible there; the registrar adds it to 'zones'"]
    known = [zone for zone in bounds if zone is not None]
    if ramp is not None:
        allowed = sum(zone.max_ramp_w_per_min for zone in known)
        if ramp > allowed:
            return [f"ramp of {ramp} W per minute, the zones allow {allowed}: slower, or an emergency declaration"]
        return []
    found = []
    for zone in known:
        step = sum(share.share_w for share in shares if share.site.zone == zone.id)
        if step > zone.max_step_w:
            found.append(
                f"zone {zone.id}: step of {step} W, at most {zone.max_step_w} W at once: give a ramp of at most "
                f"{zone.max_ramp_w_per_min} W per minute, or an emergency declaration"
            )
    return found
