"""Energy by the integral of power: a check on the registers, never a replacement. Pure.

Between two readings the power is taken as the mean of both. Time for which no readings stand close enough together is
left out and its longest stretch is stated, so that a reader can weigh the number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

FEWEST = 3
"""Readings without which nothing is said about a slot."""


@dataclass(frozen=True, slots=True)
class Integral:
    """Power integrated over one slot."""

    wh: int
    """Net, import positive, as the meter sees it."""
    n: int
    """Readings that it stands on."""
    gap_ms: int
    """Longest time without a reading."""

    def doc(self) -> dict[str, int]:
        """For a record."""
        return {"wh": self.wh, "n": self.n, "gap_ms": self.gap_ms}


@dataclass(slots=True)
class PowerIntegral:
    """Collects the power of one meter; :meth:`close` gives the slot's integral and begins the next."""

    longest_s: float
    """Readings further apart than this are not connected."""
    _watt_ns: Fraction = field(default_factory=lambda: Fraction(0))
    _n: int = 0
    _last: tuple[int, Fraction] | None = None
    _begun_ns: int | None = None
    _covered_ns: int = 0
    _gap_ns: int = 0

    def add(self, mono_ns: int, power_w: float) -> None:
        """A usable reading of power."""
        power = Fraction(power_w)
        if self._last is not None:
            apart = mono_ns - self._last[0]
            if apart <= 0:
                return
            self._gap_ns = max(self._gap_ns, apart)
            if apart <= self.longest_s * 1e9:
                self._watt_ns += (self._last[1] + power) / 2 * apart
                self._covered_ns += apart
        self._last = (mono_ns, power)
        self._n += 1

    def close(self, mono_ns: int) -> Integral | None:
        """The integral up to this moment; ``None`` where readings cover too little of it."""
        begun, self._begun_ns = self._begun_ns, mono_ns
        covered, gap_ns, n, total = self._covered_ns, self._gap_ns, self._n, self._watt_ns
        last = self._last
        if last is not None:
            gap_ns = max(gap_ns, mono_ns - last[0])
        self._watt_ns, self._covered_ns, self._gap_ns, self._n = Fraction(0), 0, 0, 0
        if begun is None or n < FEWEST or covered * 10 < (mono_ns - begun) * 8:
            return None
        return Integral(round(total / 3_600_000_000_000), n, gap_ns // 1_000_000)
