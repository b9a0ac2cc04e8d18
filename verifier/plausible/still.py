"""V07, V09, V11: what was counted against the power that was read beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from verifier.canonical import Object
from verifier.plausible.rules import EQUAL_RUN, FEWEST_INTEGRALS, STILL_COUNTS
from verifier.plausible.said import Said
from verifier.plausible.signs import power


@dataclass(slots=True)
class _Equal:
    """Equal energies one after the other, and what the power did meanwhile."""

    wh: int = 0
    t0: int = 0
    t1: int = -1
    count: int = 0
    low: int = 0
    high: int = 0


@dataclass(slots=True)
class Powered:
    """Walks the slots of one point.

    Args:
        count_wh: the least that the register can move by.
    """

    said: Said
    count_wh: Callable[[], int]
    seen: bool = False
    """Some slot had power beside its register."""
    _equal: _Equal = field(default_factory=_Equal)
    _apart: list[tuple[int, int, int]] = field(default_factory=list)
    """V11: slots that differ, as long as they are few."""

    def interval(self, doc: Object, t0: int, wh: int, *, inverted: bool) -> None:
        """A slot that was read; ``wh`` as drawn downwards.

        Raises:
            ValueError: ``pi`` is not what it should be.
        """
        read = power(doc) if "pi" in doc else None
        flagged = "frozen" in doc["q"]
        if flagged:
            own = None if read is None else read[0]
            self.said.slot("V09", "suspect", t0, 0, own, "Wh", "the register stood still under load")
        if read is None:
            self.end_run()
            return
        self.seen = True
        drawn = -read[0] if inverted else read[0]
        if wh == 0 and not flagged and drawn > STILL_COUNTS * self.count_wh():
            self.said.slot("V07", "suspect", t0, 0, drawn, "Wh", "nothing was counted while power was drawn")
        self._integral(doc, t0, *read)
        run = self._equal
        if run.count and wh == run.wh and t0 == run.t1:
            run.t1, run.count = t0 + self.said.slot_s, run.count + 1
            run.low, run.high = min(run.low, drawn), max(run.high, drawn)
        else:
            self.end_run()
            if wh:
                self._equal = _Equal(wh, t0, t0 + self.said.slot_s, 1, drawn, drawn)

    def end_run(self) -> None:
        """No slot follows that could continue equal energies."""
        run = self._equal
        if not run.count:
            return
        if run.count >= EQUAL_RUN and run.high - run.low > 2 * self.count_wh():
            what = "equal energies while power changed"
            self.said.hold("V09", "suspect", run.t0, run.t1, run.count, EQUAL_RUN - 1, "slots", what)
        self._equal = _Equal()

    def _integral(self, doc: Object, t0: int, own: int, unread_ms: int) -> None:
        net = doc["wh"] - (doc["exp_wh"] or 0)
        apart, larger = abs(net - own), max(abs(net), abs(own))
        unread_wh = larger * 2 * unread_ms // (1000 * self.said.slot_s)
        if apart * 10 <= larger + 10 * unread_wh or apart <= unread_wh + larger // 10 + 4 * self.count_wh():
            return
        self._apart.append((t0, net, own))
        if len(self._apart) < FEWEST_INTEGRALS:
            return
        for slot in self._apart[FEWEST_INTEGRALS - 1 :] if "V11" in self.said.counts else self._apart:
            self.said.slot("V11", "suspect", *slot, "Wh", "energy and the power that was read differ")
        del self._apart[FEWEST_INTEGRALS - 1 :]
