"""Slots put together: virtual points, longer periods, shares. Pure, exact, and honest about what is missing.

Energies are whole Wh. What is not known is ``None``, never 0: a sum with a missing part is not known, and the parts
that are known are stated beside it. Hours, days, months and quarters are those of Kazakhstan's one time, UTC+5 since
1 March 2024 (before: the time of Almaty and Astana, UTC+6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from zoneinfo import ZoneInfo

LOCAL = ZoneInfo("Asia/Almaty")
Unit = Literal["hour", "day", "month", "quarter"]
Terms = Sequence[tuple[int, str]]
"""((+1, "M1"), (-1, "M7"), …): signs of the members of a virtual point."""


class SlotQuality(StrEnum):
    """How the energy of a slot is known, the best first."""

    MEASURED = "measured"
    LATE = "late"
    """Read later after a boundary than allowed: some energy may belong to the neighbour."""
    PROFILE = "profile"
    """Not read at its edges; out of the meter's own load profile. Only import is known."""
    DE_ENERGISED = "de_energised"
    """Nothing flowed: the branch was switched off for the whole slot."""
    PARTLY_ENERGISED = "partly_energised"
    """The branch was switched off or on within the slot: energy between the readings while it was live. At most what
    flowed in the seconds from the last reading to the opening, and from the closing to the first one, is not in it."""
    DOUBTFUL = "doubtful"
    """Read, but the register stood still while power was measured."""
    MISSING = "missing"

    @property
    def known(self) -> bool:
        """True where there is a number."""
        return self is not SlotQuality.MISSING


ORDER = {quality: rank for rank, quality in enumerate(SlotQuality)}


def worst(qualities: Iterable[SlotQuality]) -> SlotQuality:
    """The worst of some qualities; ``MISSING`` of none."""
    return max(qualities, key=ORDER.__getitem__, default=SlotQuality.MISSING)


@dataclass(frozen=True, slots=True)
class SlotEnergy:
    """Energy of one slot, Wh.

    ``import_wh`` is ``None`` where it is not known, ``export_wh`` also where nobody counts it.
    """

    import_wh: int | None
    export_wh: int | None
    quality: SlotQuality
    missing: tuple[str, ...] = ()
    """Members whose energy is not known."""

    @property
    def net_wh(self) -> int | None:
        """Import minus export; an export that nobody counts is none."""
        return None if self.import_wh is None else self.import_wh - (self.export_wh or 0)


MISSING = SlotEnergy(None, None, SlotQuality.MISSING)


def slot_energy(ty: str, fields: Mapping[str, Any], *, inverted: bool = False) -> SlotEnergy:
    """Energy of an ``interval`` or ``gap`` record.

    Args:
        inverted: the meter's transformers are connected the other way round: import and export change places.
    """
    if ty == "gap":
        return _gap_energy(fields, inverted=inverted)
    flags = set(fields["q"])
    quality = SlotQuality.MEASURED
    if flags & {"late0", "late1"}:
        quality = SlotQuality.LATE
    if "frozen" in flags:
        quality = SlotQuality.DOUBTFUL
    taken, given = int(fields["wh"]), fields["exp_wh"]
    if not inverted:
        return SlotEnergy(taken, given, quality)
    if given is None:  # what flows downwards would be in a register that this meter does not have
        return MISSING
    return SlotEnergy(int(given), taken, quality)


def _gap_energy(fields: Mapping[str, Any], *, inverted: bool) -> SlotEnergy:
    if fields["why"] == "DE_ENERGISED":
        return SlotEnergy(0, 0, SlotQuality.DE_ENERGISED)
    if "part_wh" in fields and "sw" in fields and not inverted:
        # What flowed in the seconds between the last reading and the opening is in the bridge of the next interval.
        return SlotEnergy(int(fields["part_wh"]), None, SlotQuality.PARTLY_ENERGISED)
    return MISSING


def virtual(terms: Terms, members: Mapping[str, SlotEnergy]) -> SlotEnergy:
    """One slot of a sum of points with signs.

    Import and export are summed each for itself. The quality is the worst member's; one missing member makes the sum
    unknown and is named. A member without an export register adds no export, unless no member has one.
    """
    missing = tuple(name for _, name in terms if members.get(name, MISSING).import_wh is None)
    if missing or not terms:
        return SlotEnergy(None, None, SlotQuality.MISSING, missing)
    parts = [(sign, members[name]) for sign, name in terms]
    exports = [(sign, part.export_wh) for sign, part in parts if part.export_wh is not None]
    return SlotEnergy(
        sum(sign * (part.import_wh or 0) for sign, part in parts),
        sum(sign * wh for sign, wh in exports) if exports else None,
        worst(part.quality for _, part in parts),
    )


# periods -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Period:
    """[start_s, end_s), epoch s, with its name in local time: ``2026-11-21``, ``2026-11``, ``2026-Q4`` …"""

    name: str
    start_s: int
    end_s: int


def period_of(t_s: int, unit: Unit) -> Period:
    """The hour, day, month or quarter in Kazakhstan that holds an instant.

    Raises:
        ValueError: unknown unit.
    """
    local = datetime.fromtimestamp(t_s, UTC).astimezone(LOCAL)
    if unit == "hour":
        # An hour is counted from the instant, so that the one that came twice on 1 March 2024 is two.
        start = t_s - (local.minute * 60 + local.second)
        return Period(local.strftime("%Y-%m-%dT%H:00%z"), start, start + 3600)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if unit == "day":
        return Period(local.strftime("%Y-%m-%d"), _epoch(midnight), _epoch(midnight + timedelta(days=1)))
    if unit == "month":
        first, after, name = midnight.replace(day=1), 1, local.strftime("%Y-%m")
    elif unit == "quarter":
        quarter = (local.month - 1) // 3
        first, after, name = midnight.replace(month=3 * quarter + 1, day=1), 3, f"{local.year}-Q{quarter + 1}"
    else:
        raise ValueError(f"period: saw {unit!r}, expected hour, day, month or quarter")
    year, month = divmod(first.month - 1 + after, 12)
    return Period(name, _epoch(first), _epoch(first.replace(year=first.year + year, month=month + 1)))


def _epoch(local: datetime) -> int:
    return int(local.timestamp())


def periods(start_s: int, end_s: int, unit: Unit) -> Iterator[Period]:
    """All periods that touch [start_s, end_s), in order."""
    t = start_s
    while t < end_s:
        found = period_of(t, unit)
        yield found
        t = found.end_s


@dataclass(frozen=True, slots=True)
class Bridge:
    """What registers counted over a run of gaps [start_s, end_s): between the reading before and the one after."""

    start_s: int
    end_s: int
    wh: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Energy of one point over one period."""

    period: Period
    import_wh: int | None
    """``None`` where a slot is missing that no bridge within the period covers."""
    export_wh: int | None
    known_wh: int
    """Import of the slots that are known by themselves."""
    bridged_wh: int
    """Import of runs of gaps that lie wholly in the period, known from the registers on both sides."""
    slots: int
    counts: dict[SlotQuality, int]
    bridged_slots: int
    missing: tuple[int, ...] = field(default=(), repr=False)
    """Beginnings of the slots that nothing is known of."""
    profile_wh: int = 0
    """What of ``known_wh`` is out of the meter's own load profile."""

    @property
    def complete(self) -> bool:
        """True where every slot is known, alone or within a bridge."""
        return not self.missing

    @property
    def net_wh(self) -> int | None:
        """Import minus export."""
        return None if self.import_wh is None else self.import_wh - (self.export_wh or 0)


def total(period: Period, slot_s: int, slots: Mapping[int, SlotEnergy], bridges: Iterable[Bridge] = ()) -> Sum:
    """Energy of a point over a period.

    Args:
        slots: energy by beginning of the slot, epoch s; a slot that is not in it is missing.
        bridges: what intervals state of the gaps before them (:func:`bridge_of`).

    Raises:
        ValueError: the period does not lie on the slot grid.
    """
    if period.start_s % slot_s or period.end_s % slot_s:
        raise ValueError(f"period {period.name}: {period.start_s} to {period.end_s} is not on the grid of {slot_s} s")
    found = {t: slots.get(t, MISSING) for t in range(period.start_s, period.end_s, slot_s)}
    counts = dict.fromkeys(SlotQuality, 0)
    for one in found.values():
        counts[one.quality] += 1
    covered: set[int] = set()
    bridged = 0
    for bridge in bridges:
        # A bridge over the edge of the period cannot be shared out between the two sides: that would be an estimate.
        if period.start_s <= bridge.start_s and bridge.end_s <= period.end_s:
            run = range(bridge.start_s, bridge.end_s, slot_s)
            covered.update(run)
            bridged += bridge.wh - sum(found[t].import_wh or 0 for t in run)
    missing = tuple(t for t, one in found.items() if one.import_wh is None and t not in covered)
    known = sum(one.import_wh or 0 for one in found.values())
    exports = [one.export_wh for one in found.values()]
    gaps = any(one.import_wh is None or one.quality is SlotQuality.PROFILE for one in found.values())
    counted = [wh for wh in exports if wh is not None]
    return Sum(
        period,
        None if missing else known + bridged,
        None if gaps or not counted else sum(counted),
        known,
        bridged,
        len(found),
        counts,
        len([t for t in covered if found[t].import_wh is None]),
        missing,
        sum(one.import_wh or 0 for one in found.values() if one.quality is SlotQuality.PROFILE),
    )


def filled(
    slots: Mapping[int, SlotEnergy], bridges: Iterable[Bridge], told: Mapping[int, int], slot_s: int, quantum_wh: int
) -> dict[int, SlotEnergy]:
    """Slots with those gaps filled that the meter's own load profile tells of.

    A bridge is what the registers counted over its gaps: where the profile has more than that, beyond what late
    readings and whole counts explain, none of its slots there is believed.

    Args:
        told: import by beginning of the slot, Wh (``archive`` records).
        quantum_wh: the least the register moves by.
    """
    found = dict(slots)
    gaps = {t: wh for t, wh in told.items() if found.get(t) == MISSING}
    for bridge in bridges:
        run = [t for t in range(bridge.start_s, bridge.end_s, slot_s) if t in gaps]
        late_ms = 2 * min(30_000, slot_s * 100)
        tolerance = (len(run) + 1) * max(1, quantum_wh) + late_ms * bridge.wh // (1000 * slot_s * max(1, len(run)))
        if sum(gaps[t] for t in run) > bridge.wh + tolerance:
            for t in run:
                del gaps[t]
    return found | {t: SlotEnergy(wh, None, SlotQuality.PROFILE) for t, wh in gaps.items()}


def bridge_of(fields: Mapping[str, Any], slot_s: int) -> Bridge | None:
    """What an ``interval`` record states of the gaps before it."""
    if "bridge_wh" not in fields:
        return None
    start = int(fields["bridge_rt"]) // 1000 // slot_s * slot_s
    return Bridge(start, int(fields["t0"]), int(fields["bridge_wh"]))


# shares --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the site's energy: mining, auxiliary, or a tenant's. Summed over points that carry nothing else."""

    name: str
    points: tuple[str, ...]
    unmetered: tuple[str, ...] = ()
    """Loads of this share that no point measures apart."""


def share_energy(share: Share, members: Mapping[str, SlotEnergy]) -> SlotEnergy:
    """One slot of a share; unknown where one of its points is missing or a load of it is not metered apart."""
    if share.unmetered:
        return SlotEnergy(None, None, SlotQuality.MISSING, share.unmetered)
    return virtual(tuple((1, point) for point in share.points), members)
