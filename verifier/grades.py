"""Grades of the slots of one metering point.

``A`` as ``B``, and a source outside the site vouches for it (:mod:`verifier.standing`); ``B`` read, and cosigned by the
witnesses in time; ``C`` read, but cosigned late or by too few, or something is held against it
(:mod:`verifier.plausible`); ``Z`` no energy and proven so, ``R`` energy known from registers on both sides or from the
meter's own profile, ``M`` missing, ``X`` a check failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

GRADES = "ABCZRMX"


def counts(grades: bytearray) -> dict[str, int]:
    """Slots per grade."""
    return {grade: grades.count(grade.encode()) for grade in GRADES if grade.encode() in grades}


@dataclass(slots=True)
class Grades:
    """One letter per slot from ``start_s`` on; what lies outside is not kept."""

    start_s: int
    slots: int
    slot_s: int
    letters: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.letters = bytearray(b"?" * self.slots)

    def mark(self, t0: int, grade: str) -> None:
        """The slot that begins at ``t0``."""
        index, rest = divmod(t0 - self.start_s, self.slot_s)
        if rest == 0 and 0 <= index < self.slots:
            self.letters[index] = ord(grade)

    def mark_range(self, start_s: int, end_s: int, grade: str) -> None:
        """Every slot of [``start_s``, ``end_s``)."""
        end_s = min(end_s, self.start_s + self.slots * self.slot_s)
        for t0 in range(max(start_s, self.start_s), end_s, self.slot_s):
            self.mark(t0, grade)

    def told(self, t0: int) -> bool:
        """The meter's profile has this slot: true where it was missing, and it is ``R`` from now on."""
        index = (t0 - self.start_s) // self.slot_s
        missing = 0 <= index < self.slots and self.letters[index] == ord("M")
        if missing:
            self.mark(t0, "R")
        return missing

    def finish(self) -> None:
        """Slots that nothing was said about were not bound, so they are missing."""
        self.letters[:] = self.letters.replace(b"?", b"M")

    def late(self, end_s: int) -> int:
        """Slots read but not witnessed in time, but for the last ones before ``end_s``, which still may be."""
        tail = (end_s - 2 * self.slot_s - 600 - self.start_s) // self.slot_s
        return self.letters[: max(0, tail)].count(b"C")
