"""V01 to V03, V25: is every slot there, once, of the right length, and known by itself? Pure."""

from __future__ import annotations

from collections.abc import Iterator

from central.vee.limits import Thresholds
from central.vee.model import Finding, Point, Said, SiteSlots, Slot, of_run, runs
from wire.rollup import periods

SWITCHED_OFF = "DE_ENERGISED"


def gaps(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V01: slots without a value. A gap that is recorded is a warning; a slot without any record is a failure."""
    for point in site.points.values():
        there = {s.t0: s for s in site.judged(point)}
        empty = [s for _, s in sorted(there.items()) if s.ty == "gap" and s.why != SWITCHED_OFF]
        for run in runs(empty):
            if len(run) >= limits.slots.missing_run_warn:
                reasons = " ".join(sorted({s.why or "?" for s in run}))
                yield of_run("V01", "warn", point.id, run, len(run), 0, "count", "gap", why=reasons)
        silent = [t for t in _expected(site, point) if t not in there]
        for first, last in _stretches(silent, site.slot_s):
            count = (last - first) // site.slot_s + 1
            yield Finding("V01", "fail", point.id, first, last + site.slot_s, count, 0, "count", "no_record")


def _expected(site: SiteSlots, point: Point) -> Iterator[int]:
    """Slots from the point's first one on: before it nobody says that the meter was in service."""
    if point.slots:
        yield from range(max(site.start, point.slots[0].t0), site.end, site.slot_s)


def _stretches(times: list[int], slot_s: int) -> Iterator[tuple[int, int]]:
    first = 0
    for i, t in enumerate(times):
        if i + 1 == len(times) or times[i + 1] != t + slot_s:
            yield times[first], t
            first = i + 1


def doubles(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V02: more than one record of a slot."""
    for point in site.points.values():
        by_t0: dict[int, list[Slot]] = {}
        for slot in site.judged(point):
            by_t0.setdefault(slot.t0, []).append(slot)
        for same in by_t0.values():
            if len(same) > 1:
                yield of_run("V02", "fail", point.id, same, len(same), 1, "count", "double")


def sizes(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V03: a slot that is longer or shorter than the register says, or lies beside the grid."""
    for point in site.points.values():
        for slot in site.judged(point):
            if slot.t1 - slot.t0 != site.slot_s or slot.t0 % site.slot_s:
                yield of_run("V03", "fail", point.id, [slot], slot.t1 - slot.t0, site.slot_s, "s", "size")


def bridged(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V25: what is known from registers on both sides of gaps alone: too long at once, or too much of a month."""
    for point in site.points.values():
        unknown = [s for s in site.judged(point) if s.ty == "gap" and s.why != SWITCHED_OFF]
        for run in runs(unknown):
            long_s = run[-1].t1 - run[0].t0
            if long_s > limits.totals.bridged_s:
                yield of_run("V25", "suspect", point.id, run, long_s, limits.totals.bridged_s, "s", "bridged_run")
        for month in periods(site.start, site.end, "month"):
            # The whole month so far counts, as far as the history reaches.
            slots = {s.t0: s for s in point.slots if month.start_s <= s.t0 < month.end_s}
            lost = [s for s in slots.values() if s.ty == "gap" and s.why != SWITCHED_OFF]
            whole = (month.end_s - month.start_s) // site.slot_s
            share = len(lost) * 1000 // whole
            if share > limits.totals.bridged_month:
                yield of_run(
                    "V25", "fail", point.id, lost, share, limits.totals.bridged_month, "permille", "bridged_month",
                    month=month.name,
                )  # fmt: skip
