"""V13, V17, V23: what a meter shows beside its registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from verifier.canonical import Object
from verifier.plausible.rules import ALARMING, CLOCK_MS, CLOCK_WARN_MS, LOADED, LOST_SLOTS, READ_AFTER_MS
from verifier.plausible.said import Said
from verifier.plausible.signs import phases, zone

Spans = Mapping[str, Sequence[tuple[int, int]]]


@dataclass(slots=True)
class MeterSide:
    """Walks the slots of one point.

    Args:
        works: by object: when people worked on it, by signed events, ms.
    """

    said: Said
    works: Spans
    clocked: bool = False
    """Some slot had the meter's clock."""
    _lost: list[tuple[int, int, int]] = field(default_factory=list)
    _most: int = 0
    """Energy of the largest slot so far."""
    _counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Event → count, and the end of the slot that had it, s."""

    def other_meter(self) -> None:
        """What was counted before was counted by another one."""
        self._counts.clear()
        self._lost.clear()

    def clock(self, t0: int, away_ms: object) -> None:
        """V13.

        Raises:
            ValueError: no whole number.
        """
        if type(away_ms) is not int:
            raise ValueError("mto is a whole number of ms")
        self.clocked = True
        if -CLOCK_WARN_MS <= away_ms <= CLOCK_WARN_MS:
            return
        if abs(away_ms) > CLOCK_MS:
            what = "the meter's clock has another time zone" if zone(away_ms) else "the meter's clock is off"
            self.said.slot("V13", "suspect", t0, away_ms, CLOCK_MS, "ms", what)
        else:
            self.said.slot("V13", "warn", t0, away_ms, CLOCK_WARN_MS, "ms", "the meter's clock is off a little")

    def by_phase(self, doc: Object, t0: int) -> None:
        """V17."""
        energy = max(doc["wh"], doc["exp_wh"] or 0)
        self._most = max(self._most, energy)
        read = phases(doc)
        if read is None:
            self._lost.clear()
            return
        self.said.judged.add("V17")
        if (alone := read.without_voltage()) is not None:
            self.said.slot("V17", "suspect", t0, *alone, "polls", "current without voltage on a phase")
        lost = read.lost() if energy or any(read.mean_ma) else None
        if lost is None or (self._lost and self._lost[-1][0] + self.said.slot_s != t0):
            self._lost.clear()
        if lost is not None:
            self._lost.append((t0, *lost))
            if len(self._lost) >= LOST_SLOTS:
                for slot in self._lost:
                    self.said.slot("V17", "suspect", *slot, "mV", "a phase has lost its voltage")
                del self._lost[:-1]
        if energy * LOADED[1] >= self._most * LOADED[0] and (against := read.backwards()) is not None:
            self.said.slot("V17", "suspect", t0, *against, "polls", "a phase runs backwards")

    def counters(self, now: Mapping[str, int], t0: int, names: Sequence[str], *, asked: bool) -> None:
        """V23: each counter against the reading before of the same meter.

        Args:
            names: what the meter, its point and its node are called in events of the site.
            asked: the slot is of the asked period.
        """
        end_s = t0 + self.said.slot_s
        for name, count in now.items():
            was, since_s = self._counts.get(name, (count, end_s))
            self._counts[name] = count, end_s
            if not asked:
                continue
            self.said.judged.add("V23")
            if count == was or self._worked(names, since_s * 1000, end_s * 1000 + READ_AFTER_MS):
                continue
            fell = count < was
            what = f"the meter's counter of {name} {'fell' if fell else 'rose'}"
            severity = "suspect" if fell or name in ALARMING else "warn"
            self.said.slot("V23", severity, t0, count, was, "count", what)  # type: ignore[arg-type] # one of two

    def _worked(self, names: Sequence[str], since_ms: int, until_ms: int) -> bool:
        return any(a < until_ms and b > since_ms for name in names for a, b in self.works.get(name, ()))
