"""Voltages, currents and powers by phase over one slot: what the polls of a meter read anyway. Pure.

A check on the registers, never a replacement. What a restart of the agent loses is the slot it falls into: the polls
before it are gone, and values of a part of a slot are not given out as those of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from agent.metering.registers import ratio_of
from config.devices import MeteringPoint, Passport
from drivers.capabilities import Reading
from wire.points import EVENT_POINTS
from wire.record_types import PhaseValues

PHASES = ("l1", "l2", "l3")
CARRIES = 10
"""A phase carries current from so many parts of the largest phase's on."""
Three = tuple[int | None, int | None, int | None]


def phase_ratios(passport: Passport) -> tuple[Fraction, Fraction]:
    """What the agent multiplies voltages and currents by to get primary values; powers by both."""
    applied = passport.ratio_applied_in
    one = Fraction(1)
    return (one if applied == "meter" else ratio_of(passport.vt), ratio_of(passport.ct) if applied == "agent" else one)


def read_events(readings: Mapping[str, Reading]) -> dict[str, int]:
    """The meter's event counters of a sample, by event; those that were not read are left out."""
    found: dict[str, int] = {}
    for point, event in EVENT_POINTS.items():
        reading = readings.get(point)
        value = None if reading is None or not reading.quality.usable else reading.value
        if isinstance(value, int | float) and value >= 0 and value == int(value):
            found[event] = int(value)
    return found


@dataclass(slots=True)
class _Mean:
    """Sum and number of whole values."""

    total: int = 0
    n: int = 0

    def add(self, value: int | None) -> None:
        if value is not None:
            self.total, self.n = self.total + value, self.n + 1

    @property
    def value(self) -> int | None:
        return round(Fraction(self.total, self.n)) if self.n else None


@dataclass(slots=True)
class _Sums:
    """What one slot's polls add up to."""

    n: int = 0
    least_mv: list[int | None] = field(default_factory=lambda: [None] * 3)
    ma: tuple[_Mean, ...] = field(default_factory=lambda: tuple(_Mean() for _ in PHASES))
    w: tuple[_Mean, ...] = field(default_factory=lambda: tuple(_Mean() for _ in PHASES))
    unfed: list[int] = field(default_factory=lambda: [0] * 3)
    backwards: list[int] = field(default_factory=lambda: [0] * 3)


class PhaseWatch:
    """Collects the phases of one meter; :meth:`close` gives the slot's values and begins the next."""

    def __init__(self, point: MeteringPoint) -> None:
        volts, amps = phase_ratios(point.passport)
        self._milli_v, self._milli_a, self._w = volts * 1000, amps * 1000, volts * amps
        self._sign = -1 if point.inverted else 1
        self._sums: _Sums | None = None
        """``None`` until the first boundary: what was polled before it belongs to no whole slot."""

    def add(self, readings: Mapping[str, Reading]) -> None:
        """One poll, whatever it read."""
        sums = self._sums
        if sums is None:
            return
        mv = _three(readings, "voltage_{}_n_v", self._milli_v)
        ma = _three(readings, "current_{}_a", self._milli_a)
        w = _three(readings, "power_{}_w", self._w)
        if all(value is None for value in (*mv, *ma, *w)):
            return
        sums.n += 1
        total = whole(readings.get("power_w"), self._w)
        if total is None and None not in w:
            total = sum(value or 0 for value in w)
        largest = max((abs(value) for value in ma if value is not None), default=0)
        for k in range(3):
            volts, amps, power = mv[k], ma[k], w[k]
            if volts is not None:
                least = sums.least_mv[k]
                sums.least_mv[k] = volts if least is None else min(least, volts)
            sums.ma[k].add(None if amps is None else abs(amps))
            sums.w[k].add(power)
            carries = amps is not None and largest > 0 and abs(amps) * CARRIES >= largest
            sums.unfed[k] += carries and _without(mv, k)
            sums.backwards[k] += power is not None and total is not None and power * self._sign < 0 < total * self._sign

    def close(self) -> PhaseValues | None:
        """The values since the boundary before; ``None`` where nothing was read by phase or not from its beginning."""
        done, self._sums = self._sums, _Sums()
        if done is None or not done.n:
            return None
        return {
            "n": done.n,
            "u": done.least_mv,
            "i": [mean.value for mean in done.ma],
            "p": [mean.value for mean in done.w],
            "iu": done.unfed,
            "neg": done.backwards,
        }


def whole(reading: Reading | None, factor: Fraction) -> int | None:
    """A reading on the primary side in whole units, half to even; ``None`` where it was not read."""
    if reading is None or not reading.quality.usable or not isinstance(reading.value, int | float):
        return None
    return round(Fraction(reading.value) * factor)


def _three(readings: Mapping[str, Reading], name: str, factor: Fraction) -> Three:
    first, second, third = (whole(readings.get(name.format(phase)), factor) for phase in PHASES)
    return first, second, third


def _without(mv: Three, phase: int) -> bool:
    """True where a phase has less than half of the median of the others' voltage; false where that is not known."""
    own, others = mv[phase], [value for k, value in enumerate(mv) if k != phase and value is not None]
    return own is not None and bool(others) and own * 2 * len(others) < sum(others)
