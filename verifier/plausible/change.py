"""A change of a series against its own past.

A ratio that should stand still (residual over main, feeder over machines) has a level of its own at every site: errors
of meters and of machines' own figures are constant and cancel against the past. The mean over a window is held against
the median of such means over the days before, and their spread (median of the distances from it). A change that stays
becomes the usual after half of the history: it was told by then.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isnan

from verifier.plausible.rules import DAY_S, HISTORY_DAYS, KNOWN, LEAST_DAYS, Window

NAN = float("nan")
TO_SIGMA = 1.4826
"""Median distance of a normal distribution → its standard deviation."""
STEPS = 4
"""Windows of the past overlap by all but one in so many."""


@dataclass(frozen=True, slots=True)
class Change:
    """A window that lies too far from the past: places [``first``, ``last``]; values as the series has them."""

    first: int
    last: int
    mean: float
    usual: float
    limit: float
    width: int


@dataclass(slots=True)
class _Past:
    """Means in a moving stretch of time, sorted."""

    means: Sequence[float]
    step: int
    _sorted: list[float] = field(default_factory=list)
    _from: int = 0
    _to: int = 0

    def move(self, start: int, end: int) -> list[float]:
        """Those that end at places [start, end), one in ``step``; both ends only ever rise."""
        for place in range(-(-max(self._to, start) // self.step) * self.step, end, self.step):
            if not isnan(self.means[place]):
                insort(self._sorted, self.means[place])
        for place in range(-(-self._from // self.step) * self.step, min(start, self._to), self.step):
            if not isnan(self.means[place]):
                del self._sorted[bisect_left(self._sorted, self.means[place])]
        self._from, self._to = max(start, self._from), max(end, self._to)
        return self._sorted


def spread(values: Sequence[float], middle: float) -> float:
    """Median distance of sorted values from their median: the least reach that holds half of them."""
    held = len(values) // 2
    low, high = 0, len(values) - 1 - held
    while low < high:
        at = (low + high) // 2
        if values[at + held] - middle >= middle - values[at]:
            high = at
        else:
            low = at + 1
    return min(max(middle - values[at], values[at + held] - middle) for at in {low, max(0, low - 1)})


def changes(
    values: Sequence[float], begin: int, slot_s: int, windows: Sequence[Window], least: float
) -> tuple[list[Change], bool]:
    """Every window that ends at or after ``begin`` and lies too far from the days before it; and was there a past?

    Args:
        values: one a slot, NaN where it is not known.
        begin: first judged place; each day from there on has a past of its own.
        least: smallest change that counts.
    """
    totals = list(accumulate((0.0 if isnan(v) else v for v in values), initial=0.0))
    counts = list(accumulate((not isnan(v) for v in values), initial=0))
    day = max(1, DAY_S // slot_s)
    found: list[Change] = []
    judged = False
    for window in windows:
        width = max(1, window.width_s // slot_s)
        means = _means(totals, counts, width)
        past = _Past(means, max(1, width // STEPS))
        for first in range(begin, len(values), day):
            end = max(0, first - width + 1)
            start = max(0, end - HISTORY_DAYS * day)
            sorted_means = past.move(start, end)
            if _known(counts, start, end) < LEAST_DAYS * day * KNOWN - width or not sorted_means:
                continue
            usual = sorted_means[len(sorted_means) // 2]
            limit = max(window.sigmas * max(TO_SIGMA * spread(sorted_means, usual), window.floor), least)
            for last in range(first, min(first + day, len(values))):
                mean = means[last]
                if not isnan(mean):
                    judged = True
                    if abs(mean - usual) > limit:
                        found.append(Change(last - width + 1, last, mean, usual, limit, width))
    return found, judged


def _means(totals: Sequence[float], counts: Sequence[int], width: int) -> list[float]:
    """Mean over the ``width`` values that end at each place; NaN where too few are known."""
    means = [NAN] * min(width - 1, len(totals) - 1)
    need = max(1, KNOWN * width)
    ends = zip(totals[width:], totals, counts[width:], counts, strict=False)
    means += [(b - a) / (m - n) if m - n >= need else NAN for b, a, m, n in ends]
    return means


def _known(counts: Sequence[int], start: int, end: int) -> int:
    return counts[end] - counts[start]


def merged(found: Sequence[Change]) -> Iterator[list[Change]]:
    """Windows that overlap or touch, whatever their lengths."""
    now: list[Change] = []
    reach = 0
    for one in sorted(found, key=lambda c: (c.last, c.first)):
        if now and one.first > reach + 1:
            yield now
            now = []
        now.append(one)
        reach = one.last
    if now:
        yield now
