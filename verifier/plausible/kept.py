"""What is kept of a metering point once its records are read: for the rules that look at several points."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from verifier.plausible.rules import RULES
from verifier.plausible.said import NAMES, Said
from verifier.standing import NONE

GOOD = frozenset(b"AB")


@dataclass(slots=True)
class Kept:
    """One point; travels from other processes. Places count slots from the history on."""

    said: Said
    wh: array[int]
    """Import as drawn downwards."""
    first: int
    """Place of the first asked slot."""
    read: int
    """Intervals of the asked period."""
    role: str
    node: str
    count_wh: int
    error: float
    grades: bytearray
    """Of the asked slots."""
    valid: bytes
    """1 for each asked slot whose papers are valid."""
    register_wh: array[int] | None = None
    """As the import register has it, where that is not what was drawn downwards."""

    def hold(
        self,
        rule: str,
        first: int,
        last: int,
        seen: int | None,
        expected: int | None,
        unit: str,
        what: str,
        *,
        told: bool = False,
    ) -> None:
        """A suspicion against the slots at these places, both included."""
        said = self.said
        t0, t1 = (said.start_s + (place - self.first) * said.slot_s for place in (first, last + 1))
        said.hold(rule, "suspect", t0, t1, seen, expected, unit, what, told=told)

    def lower(self) -> tuple[dict[str, int], int]:
        """Make C what was A or B and has something against it: slots by rule, and the Wh no longer verified."""
        counts: dict[str, int] = {}
        lost = 0
        for index, number in enumerate(self.said.against):
            if number and self.grades[index] in GOOD:
                self.grades[index] = ord("C")
                rule = NAMES[number - 1]
                counts[rule] = counts.get(rule, 0) + 1
                wh = (self.wh if self.register_wh is None else self.register_wh)[self.first + index]
                lost += wh if self.valid[index] and wh != NONE else 0
        return {rule: counts[rule] for rule in RULES if rule in counts}, lost
