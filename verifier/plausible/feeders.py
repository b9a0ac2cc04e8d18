"""V07, V21 and V22: feeders against the machines' own figures, and what is left while an order is held.

Machines' figures are no measurement: their level is off by a constant of each model. A change of the ratio is what
counts; what all feeders do together (weather, a firmware for the whole site) is taken off where there are enough.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from math import isnan, log
from statistics import median

from verifier.plausible.around import Around, Figures
from verifier.plausible.change import NAN, changes, merged
from verifier.plausible.kept import Kept
from verifier.plausible.rules import (
    ASLEEP,
    BASE_SLOTS,
    LEAST_W,
    MACHINES_LOAD,
    MACHINES_WINDOWS,
    ORDER_SHARE,
    ORDER_W,
    PEERS,
    STILL_COUNTS,
    UNKNOWN_BASE,
)
from verifier.standing import NONE


def judge_zeros(points: Mapping[str, Kept], around: Around) -> None:
    """V07: nothing counted while machines behind the meter drew."""
    for name, figures in around.feeders.items():
        point = points.get(name)
        if point is None or not point.read:
            continue
        if any(own != NONE for own in figures.wh[point.first :]):
            point.said.judged.add("V07")
        for place, (wh, own) in enumerate(zip(point.wh, figures.wh, strict=True)):
            if wh == 0 and place >= point.first and own > STILL_COUNTS * point.count_wh:
                point.hold("V07", place, place, 0, own, "Wh", "nothing was counted while machines drew")


# V21


def judge_ratios(points: Mapping[str, Kept], around: Around) -> None:
    """V21: a feeder over its machines, against the past."""
    names = [name for name in sorted(around.feeders) if name in points and points[name].read]
    logs = {name: _logs(points[name].wh, around.feeders[name]) for name in names}
    if len(logs) > PEERS:
        take_off_common(list(logs.values()))
    for name, values in logs.items():
        point = points[name]
        known = [wh for wh in point.wh if wh != NONE]
        usual = float(median(known)) if known else 0.0
        if usual <= 0:
            point.said.leave("V21", "no energy")
            continue
        least = LEAST_W * around.slot_s / 3600 / usual
        found, judged = changes(values, point.first, around.slot_s, MACHINES_WINDOWS, least)
        if not judged:
            point.said.leave("V21", "short history")
            continue
        point.said.judged.add("V21")
        hour_w = usual * 3600 / around.slot_s
        for group in merged(found):
            worst = max(group, key=lambda c: abs(c.mean - c.usual) / c.limit)
            change = worst.mean - worst.usual
            what = "more than the machines behind it account for" if change > 0 else "less than its machines draw"
            first, last = max(point.first, min(c.first for c in group)), max(c.last for c in group)
            point.hold("V21", first, last, round(change * hour_w), round(worst.limit * hour_w), "W", what)


def _logs(wh: Sequence[int], figures: Figures) -> array[float]:
    """ln(feeder / machines) slot by slot, NaN where it says nothing.

    Left out are slots in which machines draw little by their own figures or give none, and those beside them: idle
    machines and ramps have ratios of their own. Of the newest slot nobody knows yet what follows. The meter's own
    reading decides nothing: that of a by-passed one is low too.
    """
    known = [own for own in figures.wh if own != NONE]
    least = median(known) * MACHINES_LOAD if known else 0.0
    steady = [own != NONE and own >= least for own in figures.wh]
    size = len(wh)
    out = array("d", [NAN]) * size
    for place in range(size - 1):
        near = steady[place] and steady[place + 1] and (place == 0 or steady[place - 1])
        if near and figures.answered[place] and wh[place] > 0 and figures.wh[place] > 0:
            out[place] = log(wh[place] / figures.wh[place])
    return out


def take_off_common(rows: Sequence[array[float]]) -> None:
    """From each feeder the median of the others in the same slot; unknown where too few others are known."""
    for place, column in enumerate(zip(*rows, strict=True)):
        order = sorted((value, number) for number, value in enumerate(column) if not isnan(value))
        others = len(order) - 1
        for rank, (value, number) in enumerate(order):
            if others < PEERS:
                rows[number][place] = NAN
                continue
            low, high = (at + (at >= rank) for at in ((others - 1) // 2, others // 2))
            rows[number][place] = value - (order[low][0] + order[high][0]) / 2


# V22


def judge_orders(points: Mapping[str, Kept], around: Around) -> None:
    """V22: load behind an open switch, or of a feeder whose machines sleep while an order is held."""
    held = _held_places(around)
    for name, point in points.items():
        looked = _open_load(point, around) if point.read else False
        figures = around.feeders.get(name)
        if figures is not None and point.read:
            looked = _asleep(point, figures, held, around.slot_s) or looked
        if looked:
            point.said.judged.add("V22")


def _open_load(point: Kept, around: Around) -> bool:
    looked = False
    most = ORDER_W * around.slot_s // 3600
    for since_s, until_s in around.opened_s(point.node):
        for place in _whole_slots(around, since_s, until_s):
            if place >= point.first and point.wh[place] != NONE:
                looked = True
                if point.wh[place] > most:
                    point.hold("V22", place, place, point.wh[place], most, "Wh", "load behind an open switch")
    return looked


def _held_places(around: Around) -> frozenset[int]:
    """Slots that lie wholly in the time in which an order was held, but for the first one of each."""
    return frozenset(
        place for since_s, until_s in around.held_s for place in _whole_slots(around, since_s + around.slot_s, until_s)
    )


def _whole_slots(around: Around, since_s: int, until_s: int | None) -> range:
    first = -(-(since_s - around.since_s) // around.slot_s)
    end = around.size if until_s is None else (until_s - around.since_s) // around.slot_s
    return range(max(0, first), min(around.size, end))


def _asleep(point: Kept, figures: Figures, held: frozenset[int], slot_s: int) -> bool:
    awake = [wh for place, wh in enumerate(point.wh) if wh != NONE and place not in held]
    usual = median(awake) if awake else 0
    if not usual:
        return False
    off = [
        place
        for place in sorted(held)
        if point.wh[place] != NONE
        and figures.answered[place]
        and figures.wh[place] != NONE
        and figures.wh[place] <= usual * ASLEEP
    ]
    judged = [place for place in off if place >= point.first]
    if not judged:
        return False
    base, slack = _base(point, figures, held, [place for place in off if place < point.first], usual)
    most = round(base + max(slack, ORDER_W * slot_s / 3600, usual * ORDER_SHARE))
    for place in judged:
        left = point.wh[place] - figures.wh[place]
        if left > most:
            point.hold("V22", place, place, left, most, "Wh", "load stayed while the machines slept by order")
    return True


def _base(
    point: Kept, figures: Figures, held: frozenset[int], before: Sequence[int], usual: float
) -> tuple[float, float]:
    """What the feeder draws besides its machines, and how well that is known; both in Wh of a slot.

    From slots asleep before the period. Without them from those awake, where the figures of machines are off by much.
    """
    if len(before) >= BASE_SLOTS:
        return float(median(point.wh[place] - figures.wh[place] for place in before)), 0.0
    besides = list(_besides(point, figures, held))
    return max(0.0, float(median(besides))) if besides else 0.0, usual * UNKNOWN_BASE


def _besides(point: Kept, figures: Figures, held: frozenset[int]) -> Iterator[int]:
    for place, (wh, own) in enumerate(zip(point.wh, figures.wh, strict=True)):
        if NONE not in {wh, own} and place not in held and figures.answered[place]:
            yield wh - own
