"""The meter's own memory of its slots (``archive`` records) against what was read at the boundaries.

An ``archive`` record says what the load profile has for one slot: ``t0``, ``t1``, ``wh``, ``src`` ``profile``,
``cfg`` the bind in force. It never takes the place of a gap: the gap stays and is shown. Shares made up to
hide a gap add up to the right energy, but not slot by slot.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from verifier.canonical import Object
from verifier.errors import CalendarError, EnergyError, ProfileError, QualityError

UNREAD = -1


@dataclass(slots=True)
class Profile:
    """Collects intervals, bridges and archives of one point over the asked period."""

    start_s: int
    slots: int
    slot_s: int
    _read: array[int] = field(init=False)
    told: dict[int, int] = field(default_factory=dict)
    """Slot → Wh as the meter remembers it."""
    _bridges: list[tuple[int, int, int]] = field(default_factory=list)
    _quantum: Fraction = field(default_factory=lambda: Fraction(1))

    def __post_init__(self) -> None:
        self._read = array("q", [UNREAD]) * self.slots

    def read(self, t0: int, wh: int) -> None:
        """A slot was read at both boundaries."""
        index = (t0 - self.start_s) // self.slot_s
        if 0 <= index < self.slots:
            self._read[index] = wh

    def bridged(self, from_s: int, to_s: int, wh: int) -> None:
        """Energy over the gap slots between two readings."""
        self._bridges.append((from_s, to_s, wh))

    def archive(self, doc: Object, next_s: int | None, quantum_wh: Fraction, where: str) -> None:
        """An ``archive`` record.

        Raises:
            QualityError: it does not say that it comes from the meter's profile.
            CalendarError: its slot is off the grid, not accounted for yet, or told twice.
            EnergyError: no energy.
        """
        t0, wh = doc["t0"], doc["wh"]
        if doc.get("src") != "profile":
            raise QualityError(f"{where}: an archive record of source {str(doc.get('src'))[:40]!r}, expected 'profile'")
        if type(t0) is not int or t0 % self.slot_s or doc["t1"] != t0 + self.slot_s:
            raise CalendarError(f"{where}: slot {t0!r} is not one of {self.slot_s} s on the grid")
        if next_s is None or t0 >= next_s or t0 in self.told:
            raise CalendarError(f"{where}: slot {t0} is neither an interval nor a gap yet, or was told twice")
        if type(wh) is not int or wh < 0:
            raise EnergyError(f"{where}: {wh!r} Wh")
        self.told[t0] = wh
        self._quantum = max(self._quantum, quantum_wh)

    def contradictions(self, point: str) -> Iterator[ProfileError]:
        """Where the profile and the registers cannot both be right."""
        for t0, wh in self.told.items():
            index = (t0 - self.start_s) // self.slot_s
            read = self._read[index] if 0 <= index < self.slots else UNREAD
            if read != UNREAD and abs(read - wh) > self._tolerance(1, max(read, wh)):
                yield ProfileError(f"{point}: slot {t0} was recorded with {read} Wh, the meter's profile has {wh}")
        for from_s, to_s, wh in self._bridges:
            told = [self.told[t0] for t0 in range(from_s, to_s, self.slot_s) if t0 in self.told]
            whole = len(told) == (to_s - from_s) // self.slot_s
            if told and (sum(told) > wh + self._tolerance(len(told), wh) or (whole and self._less(told, wh))):
                yield ProfileError(f"{point}: the profile has {sum(told)} Wh from {from_s} on, the registers {wh}")

    def _less(self, told: list[int], wh: int) -> bool:
        return sum(told) < wh - self._tolerance(len(told), wh)

    def _tolerance(self, slots: int, wh: int) -> Fraction:
        # A boundary reading may come up to 30 s late: its energy belongs to the neighbour.
        jitter = Fraction(2 * min(30_000, self.slot_s * 100) * wh, 1000 * self.slot_s * slots)
        return (slots + 1) * self._quantum + jitter
