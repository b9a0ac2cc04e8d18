"""V21: a feeder's meter against its machines' own figures; V22: what is left while an order is held. Pure.

Machines' figures are no measurement: their level is off by a constant of each model. A change of the ratio is what
counts. What all feeders do together (weather, a firmware for the whole site) is taken off where there are enough of
them; the main meter's balance watches the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from statistics import median

import numpy as np

from central.vee.limits import Thresholds
from central.vee.model import Finding, Machines, Point, Said, SiteSlots, Slot, Unjudged, of_run, runs
from central.vee.shift import Numbers, merged, shifts

Rows = dict[str, Numbers]


def ratios(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V21."""
    logs, usual = _logs(site, limits)
    if not logs:
        return
    relative = _without_common(logs, limits.shift.peers)
    begin = (site.start - site.since) // site.slot_s
    for point, values in sorted(relative.items()):
        if usual[point] <= 0:
            yield Unjudged("V21", point, "no_data")
            continue
        least = limits.machines.least_w * site.slot_s / 3600 / usual[point]
        found = shifts(values, begin, site.slot_s, limits.machines.windows, limits.shift, least)
        if not found.judged:
            yield Unjudged("V21", point, "short_history")
            continue
        slots = {s.t0: s for s in site.points[point].slots}
        for group in merged(found.shifts):
            worst = max(group, key=lambda s: abs(s.mean - s.usual) / s.limit)
            first, last = max(begin, min(s.first for s in group)), max(s.last for s in group)
            times = (site.since + i * site.slot_s for i in range(first, last + 1))
            run = [slots[t] for t in times if t in slots]
            if run:
                hour_w = usual[point] * 3600 / site.slot_s
                change = worst.mean - worst.usual
                yield of_run(
                    "V21", "suspect", point, run, round(change * hour_w), round(worst.limit * hour_w), "w",
                    "ratio_up" if change > 0 else "ratio_down", slots=worst.window, permille=round(change * 1000),
                )  # fmt: skip


def feeders(site: SiteSlots) -> tuple[str, ...]:
    """Points that balance records give machines for and that have slots."""
    named = {point for b in site.balances for point in b.asic}
    return tuple(sorted(named & site.points.keys()))


def _logs(site: SiteSlots, limits: Thresholds) -> tuple[Rows, dict[str, float]]:
    """ln(feeder / machines) by point on the slot grid, NaN where it says nothing; and each feeder's usual energy.

    Left out are slots in which machines draw little by their own figures or give none, and those beside them: idle
    machines and ramps have ratios of their own. The meter's own reading decides nothing: a by-passed one is low too.
    """
    size = (site.end - site.since) // site.slot_s
    found: Rows = {}
    usual: dict[str, float] = {}
    for point in feeders(site):
        energies = site.energies(point)
        usual[point] = float(median(energies.values())) if energies else 0.0
        own = np.full(size, np.nan)
        metered = np.full(size, np.nan)
        figures = np.full(size, np.nan)
        for one in site.balances:
            machines, place = one.asic.get(point), (one.t0 - site.since) // site.slot_s
            if machines is None or machines.wh is None:
                continue
            figures[place] = machines.wh
            if machines.expected and machines.seen * 1000 >= machines.expected * limits.shift.seen:
                own[place] = machines.wh
                metered[place] = energies.get(one.t0, np.nan)
        if np.all(np.isnan(figures)):
            found[point] = figures
            continue
        low = ~(figures >= np.nanmedian(figures) * limits.machines.load / 1000)
        # Of the newest slot nobody knows yet what follows: it is judged with the next ones.
        low = low | np.append(True, low[:-1]) | np.append(low[1:], True)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[point] = np.where(low | ~(metered > 0) | ~(own > 0), np.nan, np.log(metered / own))
    return found, usual


def _without_common(logs: Rows, peers: int) -> Rows:
    """Each feeder less the median of the others in the same slot, where at least ``peers`` others are known."""
    if len(logs) <= peers:
        return logs
    table = np.vstack(list(logs.values()))
    out: Rows = {}
    for place, point in enumerate(logs):
        others = np.delete(table, place, axis=0)
        known = np.sum(~np.isnan(others), axis=0)
        common = np.full(table.shape[1], np.nan)
        enough = known >= peers
        if enough.any():
            common[enough] = np.nanmedian(others[:, enough], axis=0)
        out[point] = table[place] - common
    return out


def residuals(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V22: load of a feeder whose machines sleep while an order is held, or of a point whose own switch is open."""
    opened = {name: found for name, p in site.points.items() if (found := _behind_open(site, p))}
    for name, found in opened.items():
        most = limits.orders.least_w * site.slot_s // 3600
        for run in runs(s for s in found if (site.points[name].import_of(s) or 0) > most):
            worst = max(site.points[name].import_of(s) or 0 for s in run)
            yield of_run("V22", "suspect", name, run, worst, most, "wh", "open_load")
    for point in feeders(site):
        said = list(_residual(site, limits, point))
        yield from (one for one in said if isinstance(one, Finding) or point not in opened)


def _behind_open(site: SiteSlots, point: Point) -> list[Slot]:
    """Slots that lie wholly in a time in which the switch at the point's own node was open, by signed events."""
    bind = point.newest_bind
    events = [e for e in site.switched if bind is not None and e.switch == bind.node]
    after = [e.at_ms for e in events[1:]]
    spans = [(e.at_ms, end) for e, end in zip_longest(events, after) if e.now == "open"]
    return [
        s for s in site.judged(point)
        if s.wh is not None and any(a <= s.t0 * 1000 and (b is None or s.t1 * 1000 <= b) for a, b in spans)
    ]  # fmt: skip


def _residual(site: SiteSlots, limits: Thresholds, point: str) -> Iterator[Said]:
    machines = {b.t0: b.asic[point] for b in site.balances if point in b.asic}
    slots = [s for s in site.points[point].slots if s.wh is not None]
    usual = median(s.wh or 0 for s in slots) if slots else 0
    settle = limits.orders.settle_slots * site.slot_s
    off = [s for s in slots if _within(site, s, settle) and _asleep(machines, s, usual, limits)]
    judged = [s for s in off if s.t0 >= site.start]
    if not judged:
        yield Unjudged("V22", point, "no_data")
        return
    declared = site.base_w.get(point)
    before = [_left(s, machines) for s in off if s.t0 < site.start]
    if declared is not None:
        base: float = declared * site.slot_s / 3600
    elif len(before) >= limits.orders.base_slots:
        base = float(median(before))
    else:
        yield Unjudged("V22", point, "unknown_base")
        return
    tolerance = max(limits.orders.least_w * site.slot_s / 3600, usual * limits.orders.share / 1000)
    high = [s for s in judged if _left(s, machines) > base + tolerance]
    for run in runs(high):
        worst = max(_left(s, machines) for s in run)
        yield of_run(
            "V22", "suspect", point, run, worst, round(base + tolerance), "wh", "residual_load",
            order=_order(site, run[0]),
        )  # fmt: skip


def _within(site: SiteSlots, slot: Slot, settle_s: int) -> bool:
    """Does the slot lie wholly in the time in which an order was held?"""
    return any(h.begin_s + settle_s <= slot.t0 and (h.end_s is None or slot.t1 <= h.end_s) for h in site.held)


def _order(site: SiteSlots, slot: Slot) -> str:
    return next((h.order for h in site.held if h.begin_s <= slot.t0 and (h.end_s is None or slot.t1 <= h.end_s)), "")


def _asleep(machines: Mapping[int, Machines], slot: Slot, usual: float, limits: Thresholds) -> bool:
    found = machines.get(slot.t0)
    if found is None or found.wh is None or not found.expected:
        return False
    return found.seen * 1000 >= found.expected * limits.shift.seen and found.wh * 1000 <= usual * limits.orders.asleep


def _left(slot: Slot, machines: Mapping[int, Machines]) -> int:
    """Energy of a slot that its machines do not account for."""
    found = machines.get(slot.t0)
    return (slot.wh or 0) - (found.wh or 0 if found else 0)
