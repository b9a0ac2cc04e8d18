"""V20: main meters against feeders and losses, by each slot's own tolerance and against the past. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from central.vee.limits import Thresholds
from central.vee.model import SITE, Balance, Finding, Said, SiteSlots, Unjudged, of_run
from central.vee.shift import Shift, merged, shifts

TOGETHER_S = 21_600


def balance(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V20. Told at the first main meter that the record names."""
    known = [b for b in site.balances if b.residual_wh is not None]
    judged = [b for b in known if b.t0 >= site.start]
    if not judged:
        yield Unjudged("V20", SITE, "no_data")
        return
    yield from _beyond(judged)
    yield from _shifted(site, limits, known)


def _beyond(judged: list[Balance]) -> Iterator[Finding]:
    """Slots whose residual is beyond the tolerance that the record states; near ones are told together."""
    groups: list[list[Balance]] = []
    for one in judged:
        if one.tol_wh is None or abs(one.residual_wh or 0) <= one.tol_wh:
            continue
        if groups and one.t0 - groups[-1][-1].t1 <= TOGETHER_S:
            groups[-1].append(one)
        else:
            groups.append([one])
    for run in groups:
        worst = max(run, key=lambda b: abs(b.residual_wh or 0) - (b.tol_wh or 0))
        yield of_run(
            "V20", "suspect", _main(run), run, worst.residual_wh, worst.tol_wh, "wh", "balance_tolerance",
            slots=len(run),
        )  # fmt: skip


def _main(run: list[Balance]) -> str:
    return run[0].main[0] if run[0].main else SITE


def _shifted(site: SiteSlots, limits: Thresholds, known: list[Balance]) -> Iterator[Said]:
    by_t0 = {b.t0: b for b in known if b.main_wh is not None and b.main_wh > 0}
    usual = float(np.median([b.main_wh or 0 for b in by_t0.values()])) if by_t0 else 0.0
    grid = range(site.since, site.end, site.slot_s)
    values = np.full(len(grid), np.nan)
    for place, t0 in enumerate(grid):
        one = by_t0.get(t0)
        if one is not None and one.main_wh and one.main_wh * 1000 >= usual * limits.balance.load:
            values[place] = (one.residual_wh or 0) / one.main_wh
    begin = (site.start - site.since) // site.slot_s
    least = limits.balance.least_w * site.slot_s / 3600 / usual if usual else 1.0
    found = shifts(values, begin, site.slot_s, limits.balance.windows, limits.shift, least)
    if not found.judged:
        yield Unjudged("V20", SITE, "tolerance_only")
        return
    for group in merged(found.shifts):
        worst = max(group, key=lambda s: abs(s.mean - s.usual) / s.limit)
        run = [by_t0[grid[i]] for i in _span(group, begin) if grid[i] in by_t0]
        if run:
            hour_w = usual * 3600 / site.slot_s
            yield of_run(
                "V20", "suspect", _main(run), run, round((worst.mean - worst.usual) * hour_w),
                round(worst.limit * hour_w), "w", "balance_shift", slots=worst.window,
            )  # fmt: skip


def _span(group: list[Shift], begin: int) -> range:
    """Places of the judged time that a group of windows speaks of."""
    return range(max(begin, min(s.first for s in group)), max(s.last for s in group) + 1)
