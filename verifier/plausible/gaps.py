"""V01, V04, V25: slots that were not read."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass, field

from verifier.metrology import local
from verifier.plausible.rules import BRIDGED_PERMILLE, BRIDGED_S, DAY_S
from verifier.plausible.said import Said

DARK = "DE_ENERGISED"


@dataclass(slots=True)
class Gaps:
    """Walks the gaps of one point."""

    said: Said
    _begun: int = 0
    """Beginning of the run that ends at ``_end``."""
    _end: int = -1
    _months: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """Month in Kazakhstan → gap slots, beginning of the first and end of the last."""

    def gap(self, t0: int, why: str) -> None:
        """A slot of the asked period."""
        end = t0 + self.said.slot_s
        self.said.slot("V01", "warn", t0, None, None, "", "a recorded gap")
        if why == "COUNTER_RESET":
            self.said.slot("V04 V05", "fail", t0, None, None, "", "the register was found set back")
        if why == DARK:
            return
        if self._end != t0:
            self._begun = t0
        self._end = end
        long_s = end - self._begun
        if long_s > BRIDGED_S:
            # The slots before it are told once it is too long; from then on each continues the finding.
            since = t0 if long_s - self.said.slot_s > BRIDGED_S else self._begun
            what = "known from registers on both sides alone"
            self.said.hold("V25", "suspect", since, end, long_s, BRIDGED_S, "s", what)
        here = local(t0)
        month = self._months.setdefault((here.year, here.month), [0, t0, end])
        month[0], month[2] = month[0] + 1, end

    def finish(self) -> None:
        """Of each whole month."""
        for (year, month), (count, t0, end) in self._months.items():
            share = count * 1000 * self.said.slot_s // (monthrange(year, month)[1] * DAY_S)
            if share > BRIDGED_PERMILLE:
                what = f"so much of {year}-{month:02} is known from registers on both sides alone"
                self.said.hold("V25", "suspect", t0, end, share, BRIDGED_PERMILLE, "permille", what)
