"""Values by phase and the meter's clock: what one slot of them says. Pure; shapes were checked before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from verifier.canonical import Object
from verifier.plausible.rules import (
    BACKWARDS,
    BACKWARDS_POWER,
    CLOCK_MS,
    CURRENT_ALONE,
    FEWEST_POLLS,
    HOUR_MS,
    LOST_PHASE,
)

Three = Sequence[int | None]


class Phases(NamedTuple):
    """Values by phase over a slot; ``None`` where a phase's is not known."""

    polls: int
    least_mv: Three
    mean_ma: Three
    mean_w: Three
    alone: Sequence[int]
    """Polls with current and without voltage."""
    against: Sequence[int]
    """Polls with power against that of the sum."""

    def lost(self) -> tuple[int, int] | None:
        """Least voltage of a lost phase, and the least it should have had by the others, in mV."""
        known = [mv for mv in self.least_mv if mv is not None]
        if not known or min(known) * LOST_PHASE[1] >= max(known) * LOST_PHASE[0]:
            return None  # none lies so far below any other
        for phase, own in enumerate(self.least_mv):
            others = [mv for k, mv in enumerate(self.least_mv) if k != phase and mv is not None]
            least = sum(others) * LOST_PHASE[0] // (len(others) * LOST_PHASE[1]) if others else 0
            if own is not None and own < least:
                return own, least
        return None

    def without_voltage(self) -> tuple[int, int] | None:
        """Polls in which a phase had current and no voltage, and from how many on that counts."""
        least, most = _share(self.polls, CURRENT_ALONE), max(self.alone)
        return (most, least) if most >= least else None

    def backwards(self) -> tuple[int, int] | None:
        """Polls in which a phase ran against the sum, and from how many on that counts. A trickle is none."""
        least = _share(self.polls, BACKWARDS)
        if max(self.against) < least:
            return None
        total = sum(abs(w) for w in self.mean_w if w is not None)
        for polls, w in zip(self.against, self.mean_w, strict=True):
            if polls >= least and w is not None and abs(w) * BACKWARDS_POWER[1] >= total * BACKWARDS_POWER[0]:
                return polls, least
        return None


def phases(doc: Object) -> Phases | None:
    """``ph`` of an interval; ``None`` where it has none, or too few polls of any two phases."""
    found = doc.get("ph")
    if found is None or found["n"] < FEWEST_POLLS:
        return None
    read = Phases(found["n"], found["u"], found["i"], found["p"], found["iu"], found["neg"])
    known = read.least_mv, read.mean_ma, read.mean_w
    return read if any(len(three) - three.count(None) > 1 for three in known) else None


def _share(polls: int, share: tuple[int, int]) -> int:
    return max(1, -(-polls * share[0] // share[1]))


def power(doc: Object) -> tuple[int, int] | None:
    """``pi`` of an interval: Wh and the longest time without a reading, ms.

    Raises:
        ValueError: it is no such field.
    """
    found = doc.get("pi")
    if found is None:
        return None
    if not isinstance(found, dict) or type(found.get("wh")) is not int or type(found.get("gap_ms")) is not int:
        raise ValueError("pi has wh and gap_ms in whole numbers")
    return found["wh"], found["gap_ms"]


def zone(away_ms: int) -> bool:
    """Is a clock whole hours away, as in another time zone?"""
    hours, rest = divmod(abs(away_ms) + CLOCK_MS, HOUR_MS)
    return 1 <= hours <= 14 and rest <= 2 * CLOCK_MS
