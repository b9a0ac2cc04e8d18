"""V01, V04, V25: slots that were not read."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass, field

from verifier.metrology import local
from verifier.plausible.rules import BRIDGED_PERMILLE, BRIDGED_S, DAY_S
from verifier.plausible.said import Said

DARK = "DE_ENERGISED"
ALONE = "known from registers on both sides alone"


@dataclass(slots=True)
class Gaps:
    """Walks the gaps of one point, all of the asked period."""

    said: Said
    _bridged: bytearray = field(init=False)
    """1 for each slot of which registers alone tell anything."""

    def __post_init__(self) -> None:
        self._bridged = bytearray(self.said.slots)

    def gap(self, t0: int, why: str) -> None:
        """A slot that was not read."""
        self.said.slot("V01", "warn", t0, None, None, "", "a recorded gap")
        if why == "COUNTER_RESET":
            self.said.slot("V04 V05", "fail", t0, None, None, "", "the register was found set back")
        if why != DARK:
            self._bridged[self._index(t0)] = 1

    def archived(self, t0: int) -> None:
        """The meter's own profile has the slot."""
        self._bridged[self._index(t0)] = 0

    def finish(self) -> None:
        """After the last record: runs that are too long, and of each month the share."""
        said = self.said
        months: dict[tuple[int, int], list[int]] = {}
        for first, end in self._runs():
            long_s = (end - first) * said.slot_s
            if long_s > BRIDGED_S:
                t0, t1 = self._time(first), self._time(end)
                said.hold("V25", "suspect", t0, t1, long_s, BRIDGED_S, "s", f"{ALONE}, in one run")
            for index in range(first, end):
                here = local(self._time(index))
                month = months.setdefault((here.year, here.month), [0, index, index])
                month[0], month[2] = month[0] + 1, index
        for (year, month_of), (count, first, last) in months.items():
            share = count * 1000 * said.slot_s // (monthrange(year, month_of)[1] * DAY_S)
            if share > BRIDGED_PERMILLE:
                what = f"{ALONE}, so much of {year}-{month_of:02}"
                t0, t1 = self._time(first), self._time(last + 1)
                said.hold("V25", "suspect", t0, t1, share, BRIDGED_PERMILLE, "permille", what)

    def _runs(self) -> Iterator[tuple[int, int]]:
        end = 0
        while (first := self._bridged.find(1, end)) >= 0:
            end = self._bridged.find(0, first)
            end = end if end >= 0 else len(self._bridged)
            yield first, end

    def _index(self, t0: int) -> int:
        return (t0 - self.said.start_s) // self.said.slot_s

    def _time(self, index: int) -> int:
        return self.said.start_s + index * self.said.slot_s
