"""V26: our totals against what somebody else read at the same meter. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from central.vee.limits import Thresholds
from central.vee.model import Finding, Point, Reading, Said, SiteSlots, Spot, Unjudged
from wire.rollup import Bridge, Period, SlotEnergy, SlotQuality, total


def outside(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V26. A reading whose time has not wholly come in, or has a hole, is not judged."""
    for point in site.points.values():
        readings = [r for r in site.readings if r.point == point.id and site.start < r.t1 <= site.end]
        spots = [s for s in site.spots if s.point == point.id and site.start <= s.at_ms // 1000 < site.end]
        judged = bool(spots)
        for spot in spots:
            most = limits.totals.display_wh + 2 * spot.step_wh + _moved(site, point, spot, limits)
            if abs(spot.diff_wh) > most:
                at = spot.at_ms // 1000 // site.slot_s * site.slot_s
                yield Finding(
                    "V26", "suspect", point.id, at, at + site.slot_s, spot.diff_wh, most, "wh", "display",
                    {}, (spot.hash,),
                )  # fmt: skip
        for reading in readings:
            ours = _ours(site, point, reading)
            judged = judged or ours is not None
            if ours is None:
                continue
            power = max(ours, reading.wh) / (reading.t1 - reading.t0)
            clocks = 2 * power * limits.totals.outside_clock_s
            tolerance = round(reading.wh * limits.totals.outside_class / 1000 + clocks)
            if abs(ours - reading.wh) > tolerance:
                hashes = [s.hash for s in point.slots if reading.t0 <= s.t0 < reading.t1]
                yield Finding(
                    "V26", "suspect", point.id, reading.t0, reading.t1, ours, reading.wh, "wh", "outside",
                    {"source": reading.source, "act": reading.act, "tolerance": tolerance},
                    (*hashes, reading.hash),
                )  # fmt: skip
        if not judged:
            yield Unjudged("V26", point.id, "no_data")


def _moved(site: SiteSlots, point: Point, spot: Spot, limits: Thresholds) -> int:
    """What may have flowed between a person's look at the display and the reading of the register."""
    around = [s.wh for s in point.slots if s.wh is not None and abs(s.t0 - spot.at_ms // 1000) <= 2 * site.slot_s]
    return max(around, default=0) * limits.totals.display_s // site.slot_s


def _ours(site: SiteSlots, point: Point, reading: Reading) -> int | None:
    if reading.t0 < site.since or reading.t0 % site.slot_s or reading.t1 % site.slot_s:
        return None
    slots = {s.t0: SlotEnergy(s.wh, s.exp_wh, SlotQuality.MEASURED) for s in point.slots if s.wh is not None}
    slots |= {s.t0: SlotEnergy(0, 0, SlotQuality.DE_ENERGISED) for s in point.slots if s.why == "DE_ENERGISED"}
    bridges = [
        Bridge(s.bridge_t0, s.t0, s.bridge_wh)
        for s in point.slots
        if s.bridge_wh is not None and s.bridge_t0 is not None
    ]
    return total(Period("reading", reading.t0, reading.t1), site.slot_s, slots, bridges).import_wh
