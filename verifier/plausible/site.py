"""The rules that look at several points at once: V07, V19 to V22."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import hypot
from statistics import median

from verifier.plausible.around import Around, Series
from verifier.plausible.change import NAN, changes, merged
from verifier.plausible.feeders import judge_orders, judge_ratios, judge_zeros
from verifier.plausible.kept import Kept
from verifier.plausible.rules import BALANCE_LOAD, BALANCE_WINDOWS, CHECK_SLOTS, JITTER_S, LEAST_W
from verifier.plausible.said import NUMBERS
from verifier.standing import NONE

CHECK = "check"
STILL = frozenset(NUMBERS[rule] for rule in ("V06", "V07", "V09", "V11"))
"""A meter with one of these against a slot is no reference there."""


def judge_site(points: Mapping[str, Kept], around: Around) -> str | None:
    """Judge the points of a site against each other; why the balance could not be judged, or not wholly."""
    judge_zeros(points, around)
    judge_checks(points, around.slot_s)
    judge_ratios(points, around)
    judge_orders(points, around)
    return judge_balances(points, around)


# V19


def judge_checks(points: Mapping[str, Kept], slot_s: int) -> None:
    """V19: a point against the check meter at its node, over the slots that both have."""
    checks = {point.node: point for point in points.values() if point.role == CHECK and point.read}
    for point in points.values():
        other = checks.get(point.node)
        if other is None or point.role == CHECK or not point.read:
            continue
        both = [
            place
            for place in range(point.first, len(point.wh))
            if point.wh[place] != NONE
            and other.wh[place] != NONE
            and other.said.against[place - other.first] not in STILL
        ]
        if len(both) < CHECK_SLOTS:
            point.said.leave("V19", "too few slots that both meters have")
            continue
        point.said.judged.add("V19")
        _compare(point, other, both, slot_s)


def _compare(point: Kept, other: Kept, both: list[int], slot_s: int) -> None:
    mine, theirs = [point.wh[place] for place in both], [other.wh[place] for place in both]
    what = ""
    if mine == theirs and len(set(mine)) > 1:
        # Two meters never agree to the Wh in every slot: one of them is not a measurement of its own.
        what = "identical to its check meter, to the Wh"
    error = hypot(point.error, other.error)
    jitter = 2 * JITTER_S * max(*mine, *theirs) / slot_s
    allowed = error * max(sum(mine), sum(theirs)) + point.count_wh + other.count_wh + jitter
    if abs(sum(mine) - sum(theirs)) > allowed:
        what = "differs from its check meter"
    if what:
        point.hold("V19", both[0], both[-1], sum(mine), sum(theirs), "Wh", what)


# V20


def judge_balances(points: Mapping[str, Kept], around: Around) -> str | None:
    """V20: by each slot's own tolerance, and against the past. Told at the meters of the boundary.

    Returns:
        why it was not judged, or not wholly.
    """
    first = around.size - (around.end_s - around.start_s) // around.slot_s
    judged, past = False, False
    for main, series in around.balances.items():
        known = [place for place in range(first, around.size) if series.residual_wh[place] != NONE]
        if not known:
            continue
        judged = True
        members = [points[name] for name in main if name in points]
        for point in members:
            point.said.judged.add("V20")
        for place in known:
            residual, tolerance = series.residual_wh[place], series.tol_wh[place]
            if tolerance != NONE and abs(residual) > tolerance:
                for point in members:
                    what = "beyond the tolerance of the balance"
                    point.hold("V20", place, place, residual, tolerance, "Wh", what, told=True)
        past = _against_past(members, series, first, around.slot_s) or past
    if not judged:
        return "no balance"
    return None if past else "against the past: short history"


def _against_past(members: list[Kept], series: Series, first: int, slot_s: int) -> bool:
    mains = [wh for wh in series.main_wh if wh > 0]
    usual = float(median(mains)) if mains else 0.0
    if not usual:
        return False
    values = array("d", [NAN]) * len(series.main_wh)
    for place, (main, residual) in enumerate(zip(series.main_wh, series.residual_wh, strict=True)):
        if residual != NONE and main > 0 and main >= usual * BALANCE_LOAD:
            values[place] = residual / main
    found, judged = changes(values, first, slot_s, BALANCE_WINDOWS, LEAST_W * slot_s / 3600 / usual)
    hour_w = usual * 3600 / slot_s
    for group in merged(found):
        worst = max(group, key=lambda c: abs(c.mean - c.usual) / c.limit)
        begun, last = max(first, min(c.first for c in group)), max(c.last for c in group)
        seen, expected = round((worst.mean - worst.usual) * hour_w), round(worst.limit * hour_w)
        for point in members:
            point.hold("V20", begun, last, seen, expected, "W", "the balance is not what it was before")
    return judged
