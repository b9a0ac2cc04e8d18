"""V10 to V12, V18, V24: registers against slots, power, the meter's own profile and each other. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from central.vee.limits import Thresholds
from central.vee.model import IMPORT, Point, Said, SiteSlots, Slot, Unjudged, of_run, runs
from central.vee.values import quantum, read
from wire.energy import primary_wh
from wire.errors import BadRecord
from wire.rollup import periods

EXPORT = "energy_export_wh"


def sums(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V10: energies of a day and month, gaps bridged, are the difference of its registers, to the Wh."""
    for point in site.points.values():
        judged = False
        for unit in ("day", "month"):
            for period in periods(site.start, site.end, unit):
                inside = [s for s in point.slots if period.start_s <= s.t0 and s.t1 <= min(period.end_s, site.end)]
                if not any(s.t0 >= site.start for s in inside):
                    continue
                for run in _chains(s for s in inside if s.ty == "interval" and IMPORT in s.reg):
                    told = _sum(point, run)
                    judged = judged or told is not None
                    if told is not None and told[0] != told[1]:
                        yield of_run("V10", "fail", point.id, run, *told, "wh", "sum", period=period.name)
        if not judged:
            yield Unjudged("V10", point.id, "no_data")


def _chains(slots: Iterator[Slot]) -> Iterator[list[Slot]]:
    """Intervals of one bind that follow each other or are bridged; a rollover begins anew."""
    now: list[Slot] = []
    for slot in slots:
        if now and (
            slot.cfg != now[-1].cfg or "rollover" in slot.flags or (slot.t0 != now[-1].t1 and slot.bridge_wh is None)
        ):
            yield now
            now = []
        if "rollover" not in slot.flags:
            now.append(slot)
    if now:
        yield now


def _sum(point: Point, run: list[Slot]) -> tuple[int, int] | None:
    bind = point.binds.get(run[0].cfg or "")
    how = bind.pts.get(IMPORT) if bind else None
    if how is None:
        return None
    try:
        first, last = primary_wh(run[0].reg[IMPORT][0], how), primary_wh(run[-1].reg[IMPORT][1], how)
    except BadRecord:
        return None
    if first is None or last is None:
        return None
    slots = sum(s.wh or 0 for s in run)
    bridges = sum(s.bridge_wh or 0 for before, s in pairwise(run) if s.t0 != before.t1)
    return slots + bridges, math.floor(last) - math.floor(first)


def integral(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V11: the register against the integral of the meter's power."""
    rule = limits.meters
    for point in site.points.values():
        bad: list[Slot] = []
        judged = 0
        for slot in read(site, point):
            count = quantum(point, slot)
            if slot.pi_wh is None or count is None:
                continue
            judged += 1
            net = (slot.wh or 0) - (slot.exp_wh or 0)
            jitter = abs(slot.pi_wh) * rule.jitter_s // (slot.t1 - slot.t0)
            tolerance = abs(slot.pi_wh) * rule.integral_share // 1000 + rule.integral_counts * count + jitter
            if abs(net - slot.pi_wh) > tolerance:
                bad.append(slot)
        if not judged:
            yield Unjudged("V11", point.id, "no_data")
        for run in runs(bad):
            worst = max(run, key=lambda s: abs((s.wh or 0) - (s.exp_wh or 0) - (s.pi_wh or 0)))
            net = (worst.wh or 0) - (worst.exp_wh or 0)
            yield of_run("V11", "suspect", point.id, run, net, worst.pi_wh, "wh", "integral")


def profile(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V12: registers read at the edges against the meter's own load profile."""
    rule = limits.meters
    for point in site.points.values():
        own = {a.t0: a for a in point.archived if site.start <= a.t0 < site.end}
        pairs = [(s, own[s.t0]) for s in read(site, point) if s.t0 in own]
        if not pairs:
            yield Unjudged("V12", point.id, "no_data")
        for slot, archived in pairs:
            apart_ms = rule.jitter_s * 1000 + abs(archived.mto)
            jitter = archived.wh * apart_ms // (1000 * (slot.t1 - slot.t0))
            tolerance = rule.integral_counts * (quantum(point, slot) or 1) + jitter
            if abs((slot.wh or 0) - archived.wh) > tolerance:
                yield of_run("V12", "suspect", point.id, [slot], slot.wh, archived.wh, "wh", "profile")


def export(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V18: energy out of a point that only takes: anything but the boundary of a site."""
    for point in site.points.values():
        counted = [s for s in read(site, point) if s.exp_wh is not None]
        bind = point.newest_bind
        if not counted or bind is None or bind.boundary:
            yield Unjudged("V18", point.id, "no_data")
            continue
        out = [s for s in counted if (_given(point, s) or 0) > (quantum(point, s) or 0)]
        for run in runs(out):
            yield of_run("V18", "suspect", point.id, run, sum(_given(point, s) or 0 for s in run), 0, "wh", "export")


def _given(point: Point, slot: Slot) -> int | None:
    bind = point.bind_of(slot)
    return slot.wh if bind is not None and bind.inverted else slot.exp_wh


def siblings(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V24: a register of the same meter that the bind maps and a slot lacks."""
    for point in site.points.values():
        bad: list[Slot] = []
        judged = False
        for slot in read(site, point):
            bind = point.binds.get(slot.cfg or "")
            if bind is None or not bind.pts:
                continue
            judged = True
            if bind.pts.keys() - slot.reg.keys():
                bad.append(slot)
        if not judged:
            yield Unjudged("V24", point.id, "no_data")
        for run in runs(bad):
            bind = point.binds[run[0].cfg or ""]
            lacking = " ".join(sorted(bind.pts.keys() - run[0].reg.keys()))[:200]
            yield of_run("V24", "warn", point.id, run, None, None, "", "sibling", registers=lacking)
