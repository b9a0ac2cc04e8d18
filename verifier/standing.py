"""What lifts a slot from B to A, and the other axis: the metrological status of each slot. Changes no energy.

A slot is A where it is B, its metrological status is valid, and a source outside the site vouches for it: the system
operator's own reading of that meter over it, or an inspector's spot reading in the same quarter.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from verifier.canonical import Object
from verifier.energy import DecodeMap
from verifier.independent import Independent, tolerance_wh
from verifier.metrology import STATUSES, VALID, Passport, quarter

NONE = -(2**62)


@dataclass(slots=True)
class Standing:
    """One metering point over the asked period."""

    start_s: int
    slots: int
    slot_s: int
    window_ms: int
    independent: list[dict[str, object]] = field(default_factory=list)
    """The system operator's readings, as they compare; for the report."""
    net: array[int] = field(init=False)
    """Net energy of each slot as drawn downwards; :data:`NONE` where it is not known."""
    _wh: array[int] = field(init=False)
    """Import energy of each slot that was read."""
    _status: bytearray = field(init=False)
    _bridges: list[tuple[int, int, int]] = field(default_factory=list)
    _passport: Passport | None = None
    _inverted: bool = False
    _how: DecodeMap | None = None
    """How the import register is read; of the meter bound last."""
    _last: int | None = None
    """Its newest bits."""

    def __post_init__(self) -> None:
        self.net = array("q", [NONE]) * self.slots
        self._wh = array("q", [NONE]) * self.slots
        self._status = bytearray(self.slots)

    def bind(self, doc: Object, how: DecodeMap, *, registered: bool) -> None:
        """A meter is bound, or its passport anew; ``how`` its import register is read."""
        self._how, self._last = how, None
        self._passport = Passport(doc, registered=registered)
        self._inverted = doc.get("inverted") is True

    def interval(self, t0: int, wh: int, exp_wh: int | None, bits: int) -> None:
        """A slot that was read; ``bits`` of its import register at the end."""
        self._last = bits
        index = self._index(t0)
        if index is None or self._passport is None:
            return
        self._wh[index] = wh
        self._status[index] = STATUSES.index(self._passport.status(t0))
        if not self._inverted:
            self.net[index] = wh - (exp_wh or 0)
        elif exp_wh is not None:
            self.net[index] = exp_wh - wh

    def gap(self, t0: int, why: str) -> None:
        """A slot that was not."""
        index = self._index(t0)
        if index is not None and why == "DE_ENERGISED":
            self.net[index] = 0

    def bridged(self, from_s: int, to_s: int, wh: int) -> None:
        """Energy over the gap slots between two readings."""
        self._bridges.append((from_s, to_s, wh))

    def _index(self, t0: int) -> int | None:
        index, rest = divmod(t0 - self.start_s, self.slot_s)
        return index if rest == 0 and 0 <= index < self.slots else None

    # what vouches

    def lift(self, grades: bytearray, quarters: frozenset[str], readings: tuple[Independent, ...]) -> list[str]:
        """Make A what is worth it; returns doubts.

        Args:
            grades: of every slot, changed here.
            quarters: those with an inspector's reading.
            readings: by the system operator.
        """
        vouched, doubts = self._compare(grades, readings)
        valid = STATUSES.index(VALID)
        for index in range(self.slots):
            if grades[index] != ord("B") or self._status[index] != valid:
                continue
            t0 = self.start_s + index * self.slot_s
            if any(one.from_s <= t0 < one.to_s for one in vouched) or (quarters and quarter(t0) in quarters):
                grades[index] = ord("A")
        return doubts

    def _compare(self, grades: bytearray, readings: tuple[Independent, ...]) -> tuple[list[Independent], list[str]]:
        agreeing: list[Independent] = []
        how, last = self._how, self._last
        quantum_wh = Fraction(1) if how is None or last is None else how.quantum_wh(last)
        doubts: list[str] = []
        for one in readings:
            ours, allowed = self._energy(one, grades), 0
            told: dict[str, object] = {"from": one.from_s, "to": one.to_s, "wh": one.wh, "source": one.source}
            self.independent.append(told | {"who": one.who, "ours_wh": ours, "agrees": None})
            if ours is None:
                doubts.append(f"INDEPENDENT {one.point}: from {one.from_s} to {one.to_s} slots are missing here")
                continue
            first, last = (self._index(t) for t in (one.from_s, one.to_s - self.slot_s))
            edges = tuple(max(0, self._wh[i]) if i is not None else 0 for i in (first, last))
            allowed = tolerance_wh((edges[0], edges[1]), self.slot_s, self.window_ms, quantum_wh)
            agrees = abs(ours - one.wh) <= allowed
            self.independent[-1] |= {"agrees": agrees, "tol_wh": allowed}
            if agrees:
                agreeing.append(one)
            else:
                text = f"{one.who} read {one.wh} Wh from {one.from_s} to {one.to_s}, the records have {ours} Wh"
                doubts.append(f"INDEPENDENT {one.point}: {text}, {allowed} Wh may differ")
        return agreeing, doubts

    def _energy(self, one: Independent, grades: bytearray) -> int | None:
        """Our energy over the same time; ``None`` where some of it is not known."""
        first, end = one.from_s - self.start_s, one.to_s - self.start_s
        if first < 0 or end > self.slots * self.slot_s:
            return None
        slots = range(first // self.slot_s, end // self.slot_s)
        inside = [(a, b, wh) for a, b, wh in self._bridges if a < one.to_s and b > one.from_s]
        if any(a < one.from_s or b > one.to_s for a, b, _ in inside):
            return None
        covered = {t for a, b, _ in inside for t in range(a, b, self.slot_s)}
        total = sum(wh for _, _, wh in inside)
        for index in slots:
            if grades[index] in b"BC":
                total += self._wh[index]
            elif self.start_s + index * self.slot_s not in covered or grades[index] == ord("X"):
                return None
        return total

    # report

    def by_status(self) -> dict[str, dict[str, int]]:
        """Status → slots that were read, and their Wh."""
        found = {name: {"slots": 0, "wh": 0} for name in STATUSES}
        for index, wh in enumerate(self._wh):
            if wh != NONE:
                entry = found[STATUSES[self._status[index]]]
                entry["slots"] += 1
                entry["wh"] += wh
        return {name: entry for name, entry in found.items() if entry["slots"]}

    def verified_wh(self, grades: bytearray) -> int:
        """Energy of slots that are A or B and whose metrological status is valid."""
        valid = STATUSES.index(VALID)
        good = (i for i, grade in enumerate(grades) if grade in b"AB" and self._status[i] == valid)
        return sum(self._wh[i] for i in good if self._wh[i] != NONE)

    def valid(self) -> bytes:
        """1 for each slot that was read with valid papers."""
        valid = STATUSES.index(VALID)
        return bytes(status == valid and wh != NONE for status, wh in zip(self._status, self._wh, strict=True))

    def quarters(self) -> Iterator[str]:
        """Quarters that the asked period touches."""
        seen: set[str] = set()
        step = 86_400
        for t in (*range(self.start_s, self.start_s + self.slots * self.slot_s, step), self._last_s()):
            name = quarter(t)
            if name not in seen:
                seen.add(name)
                yield name

    def _last_s(self) -> int:
        return self.start_s + (self.slots - 1) * self.slot_s
