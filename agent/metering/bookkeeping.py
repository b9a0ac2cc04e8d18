"""Which slots of a metering point the meter's own load profile may still tell, out of the records themselves. Pure.

Nothing else is kept: what was written is known from the ledger, so that no kill and no start can write a slot twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from drivers.profiles.codec import exact
from drivers.profiles.curvecodec import Entry

NEVER = frozenset({"SERIAL_CHANGED", "RATIO_CHANGED", "COUNTER_RESET", "DE_ENERGISED"})
"""Gaps that no memory fills: another meter or ratio, a register that was reset, a branch proven to draw nothing."""
MAX_TRIES = 5
"""Looks for a slot that the memory does not have, or whose entry is not believed."""


@dataclass(slots=True)
class Book:
    """One metering point. ``since_s``: from here on the slots are those of the meter that is bound."""

    slot_s: int
    since_s: int | None = None
    cursor: int = -1
    """Number of the newest record that was looked at."""
    gaps: set[int] = field(default_factory=set)
    reads: set[int] = field(default_factory=set)
    """Slots that were read, whose profile is the check (V12)."""
    tries: dict[int, int] = field(default_factory=dict)
    _bound: tuple[Any, ...] | None = None

    def take(self, n: int, doc: Mapping[str, Any]) -> None:
        """A record of the point's stream, in their order."""
        self.cursor = max(self.cursor, n)
        ty, t0 = doc["ty"], doc.get("t0")
        if ty == "bind":
            self._bind(doc)
        elif ty == "gap" and doc["why"] not in NEVER:
            self.gaps.add(int(t0 or 0))
        elif ty == "interval":
            self.reads.add(int(t0 or 0))
        elif ty == "archive":
            self._done(int(t0 or 0))

    def _bind(self, doc: Mapping[str, Any]) -> None:
        meter = tuple(doc.get(name) for name in ("device", "sn", "ct", "vt", "pts"))
        if meter == self._bound and doc.get("swap") is None:
            return
        self._bound = meter
        opened_ms = int(doc["open"]["rt"]) if doc.get("open") else int(doc["at"]) + self.slot_s * 1000 - 1
        self.since_s = opened_ms // 1000 // self.slot_s * self.slot_s
        # What is from before belongs to another meter.
        for known in (self.gaps, self.reads):
            known.difference_update([t0 for t0 in known if t0 < self.since_s])

    def _done(self, t0: int) -> None:
        self.gaps.discard(t0)
        self.reads.discard(t0)
        self.tries.pop(t0, None)

    def forget(self, before_s: int) -> None:
        """Slots that the memory no longer holds."""
        for known in (self.gaps, self.reads):
            known.difference_update([t0 for t0 in known if t0 < before_s])
        self.tries = {t0: n for t0, n in self.tries.items() if t0 >= before_s}

    def wanted(self, until_s: int, most: int) -> list[int]:
        """Beginnings of slots to look for, that ended by ``until_s``: gaps before checks, the oldest first."""
        if self.since_s is None:
            return []
        since = self.since_s

        def open_ones(slots: set[int]) -> list[int]:
            return sorted(
                t0 for t0 in slots if since <= t0 and t0 + self.slot_s <= until_s and self.tries.get(t0, 0) < MAX_TRIES
            )

        gaps = open_ones(self.gaps)[:most]
        return gaps or open_ones(self.reads)[:most]

    def missed(self, t0: int) -> None:
        """It was looked for in vain."""
        self.tries[t0] = self.tries.get(t0, 0) + 1


def ends_of(t0: int, slot_s: int, period_s: int, of: str) -> tuple[int, ...]:
    """Ends of the entries that tell of a slot; empty where periods of that length cannot."""
    if period_s <= 0 or slot_s % period_s:
        return ()
    if of == "register":
        return (t0, t0 + slot_s)
    return tuple(range(t0 + period_s, t0 + slot_s + 1, period_s))


def slot_wh(entries: list[Entry], lp: Mapping[str, Any]) -> int | None:
    """Energy of a slot from its entries, in the order of time; ``None`` where they do not give one.

    A register that falls without a known end gives none: a doubt is no energy.
    """
    wh = lp["wh"]
    values = [exact(entry.bits, wh) for entry in entries]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values) or not numbers:
        return None
    if wh["of"] == "period":
        return math.floor(sum(numbers, Fraction(0)))
    first, last = numbers[0], numbers[-1]
    found = math.floor(last) - math.floor(first)
    if found < 0 and "roll" in wh:
        span = wh["roll"] * Fraction(wh["lsb"]["num"], wh["lsb"]["den"])
        found = math.floor(last + span) - math.floor(first) if span / 10 <= first < span else found
    return found if found >= 0 else None
