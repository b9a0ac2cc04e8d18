"""The usual case of reading a meter, compiled: whole answers, plain numbers, no ratios to multiply with.

Values and bits are those of :mod:`drivers.profiles.codec`, to the last bit: a count times a ratio of whole numbers,
rounded once. Where that cannot be promised (texts, sums, digits, ratios out of registers, wide floats with a scale), or
an answer is missing, there is no compiled form, and the general way is taken. A test holds the two to each other.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from drivers.capabilities import Reading
from drivers.modbus.scheduler import Answer
from drivers.profiles.codec import lsb_of
from drivers.profiles.points import Point, Variable
from wire.quality import Quality

TINY = 1e-15
"""As in the general way: such a float is other data read as a number."""
_FORMATS = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}
_BITS = {1: "H", 2: "I", 4: "Q"}
_EXACT_FACTOR = 1 << 29
"""A 32-bit float (24 bits) times a smaller whole number is exact in 64 bits."""
_EXACT_DIVISOR = 1 << 53
LARGEST = sys.float_info.max
"""The widest range there is: infinities lie outside it."""
_NO_VALUE = Reading(None, Quality.NO_VALUE)
_DECODE = Reading(None, Quality.DECODE)


@dataclass(frozen=True, slots=True)
class Spot:
    """One point in the answer to one request. ``start``: its first register, counted from the block's."""

    block: int
    start: int
    point: Point


@dataclass(frozen=True, slots=True)
class _Layout:
    """One block: its answer's length, and where its numbers are in it."""

    data_bytes: int
    values: struct.Struct
    bits: struct.Struct


_Step = tuple[str, int, float, int, float, float, frozenset[int]]
"""Point, its place among the numbers, scale (numerator, denominator), range, sentinels."""


class Compiled:
    """Decodes answers in which everything asked was answered. Made once for a set of requests."""

    __slots__ = ("_layouts", "_steps")

    def __init__(self, layouts: Sequence[_Layout], steps: Sequence[_Step]) -> None:
        """See :func:`compile_spots`."""
        self._layouts = tuple(layouts)
        self._steps = tuple(steps)

    def read(self, answers: Sequence[Answer]) -> tuple[dict[str, Reading], dict[str, int]] | None:
        """Readings and raw bits by point, in the order the points were given; ``None``: take the general way."""
        values: list[float] = []
        bits: list[int] = []
        good, suspect = Quality.GOOD, Quality.SUSPECT
        for layout, answer in zip(self._layouts, answers, strict=True):
            if answer.quality is not good or len(answer.answer) != layout.data_bytes + 3:
                return None
            values += layout.values.unpack_from(answer.answer, 3)
            bits += layout.bits.unpack_from(answer.answer, 3)
        readings: dict[str, Reading] = {}
        kept: dict[str, int] = {}
        for name, at, num, den, low, high, sentinels in self._steps:
            raw, kept[name] = values[at], bits[at]
            # The sum with 0.0 turns -0.0 into what an exact zero is.
            value = raw * num / den + 0.0
            if low <= value <= high and kept[name] not in sentinels and not -TINY < value < TINY:
                readings[name] = Reading(value, good)
            else:
                readings[name] = _odd(value, low, high, kept[name] in sentinels, good, suspect)
        return readings, kept


def _odd(value: float, low: float, high: float, is_sentinel: bool, good: Quality, suspect: Quality) -> Reading:
    """What is not plainly good: sentinels, what is no number, zeros, and what lies outside the range."""
    if is_sentinel or value != value or value in {inf, -inf}:  # noqa: PLR0124 - the way to tell NaN without a call
        return _NO_VALUE
    if value and -TINY < value < TINY:
        return _DECODE
    return Reading(value, good if low <= value <= high else suspect)


def compile_spots(order: Iterable[str], counts: Sequence[int], spots: Iterable[Spot]) -> Compiled | None:
    """Compile requests, or ``None`` where one of the points needs the general way.

    ``order``: the points of the sample; ``counts``: registers asked by each request; ``spots``: where each point is.
    """
    wanted = list(order)
    by_block: list[list[Spot]] = [[] for _ in counts]
    for spot in spots:
        if not plain(spot.point):
            return None
        by_block[spot.block].append(spot)
    layouts: list[_Layout] = []
    places: dict[str, tuple[int, Point]] = {}
    for count, found in zip(counts, by_block, strict=True):
        found.sort(key=lambda s: s.start)
        values, bits, end = ">", ">", 0
        for spot in found:
            if spot.start < end or spot.point.id in places:
                return None  # two points over the same registers
            gap = f"{2 * (spot.start - end)}x" if spot.start > end else ""
            values += gap + _FORMATS[spot.point.type]
            bits += gap + _BITS[spot.point.words]
            end = spot.start + spot.point.words
            places[spot.point.id] = (len(places), spot.point)
        layouts.append(_Layout(2 * count, struct.Struct(values), struct.Struct(bits)))
    if any(name not in places for name in wanted):
        return None
    steps: list[_Step] = []
    for name in wanted:
        at, point = places[name]
        lsb = lsb_of(point)
        num: float = float(lsb.numerator) if point.type[0] == "f" else lsb.numerator
        low = -LARGEST if point.min is None else point.min
        high = LARGEST if point.max is None else point.max
        steps.append((name, at, num, lsb.denominator, low, high, frozenset(int(s, 16) for s in point.sentinels)))
    return Compiled(layouts, steps)


def plain(point: Point) -> bool:
    """True where a point is a plain number: its bits and one exact scale give its value."""
    if isinstance(point, Variable) or point.kind == "text" or point.unprovable is not None:
        return False
    if point.type not in _FORMATS:
        return False
    if point.byte_order != "big" or point.mask is not None or (point.word_order != "big" and point.words > 1):
        return False
    lsb = lsb_of(point)
    if point.type == "f64":
        return abs(lsb) == 1
    return abs(lsb.numerator) < _EXACT_FACTOR and lsb.denominator < _EXACT_DIVISOR
