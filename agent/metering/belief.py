"""May a reading of the energy register be believed? A meter that answers nonsense must not become evidence. Pure.

What a register has counted since the last good boundary lies between nothing and what the connection could have
carried. A reading outside that is believed only when readings after it say the same: a counter that was reset, or a
meter that was exchanged, goes on counting from where it is; nonsense does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from agent.metering.slots import IMPORT, Boundary
from wire.energy import primary_wh

AGREEING = 3
"""Readings in a row that have to agree before one is believed that does not follow from the last boundary."""
MARGIN = 4
"""How many times its contracted power a connection may carry before a reading is called impossible."""
LEAST_WH = Fraction(1, 1000)
"""No meter counts less than this and more than nothing: such a float is other data read as a number."""
SLACK_S = 60
"""Clocks and late readings: time added to the time between two boundaries."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The import register at one moment: raw bits, monotonic time, and the serial number read with it."""

    bits: int
    mono_ns: int
    sn: str | None = None


def follows(before: Boundary, bits: int, t: int, decode: dict[str, dict[str, Any]], limit_w: int) -> bool:
    """True where the register may have come from the boundary ``before`` to ``bits`` at boundary ``t`` (epoch s)."""
    return _grew(before.bits[IMPORT], bits, t - before.t + SLACK_S, decode, limit_w)


def agree(seen: Sequence[Seen], decode: dict[str, dict[str, Any]], limit_w: int) -> bool:
    """True where the last readings, at least :data:`AGREEING`, follow from each other and are of one meter."""
    last = seen[-AGREEING:]
    if len(last) < AGREEING or len({reading.sn for reading in last}) > 1:
        return False
    return all(_grew(a.bits, b.bits, (b.mono_ns - a.mono_ns) / 1e9 + 1, decode, limit_w) for a, b in pairwise(last))


def _grew(bits0: int, bits1: int, seconds: float, decode: dict[str, dict[str, Any]], limit_w: int) -> bool:
    e0, e1 = primary_wh(bits0, decode[IMPORT]), primary_wh(bits1, decode[IMPORT])
    if e0 is None or e1 is None or 0 < abs(e1) < LEAST_WH:
        return False
    lsb = decode[IMPORT]["lsb"]
    most = Fraction(limit_w) * Fraction(seconds) / 3600 + 2 * abs(Fraction(lsb["num"], lsb["den"]))
    return 0 <= e1 - e0 <= most
