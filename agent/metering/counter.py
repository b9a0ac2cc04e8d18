"""Two readings of one register: what was counted between them, or why nothing may be said. Pure.

A register that falls has run over, was reset, or belongs to another meter. It ran over only where its width is known
*and* the energy that this would mean could have flowed through the connection in that time. Everything else is a
reset, and nothing is claimed for the time in which it happened: a doubt is a gap, never energy.

What cannot be told apart: a register that is set to 0 at the moment when it stands within one slot's energy of its
end. Such a slot then holds at most what the connection carries; a reset anywhere else is always a gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from wire.energy import interval_wh, primary_wh, quantum_wh, span_wh


@dataclass(frozen=True, slots=True)
class Counted:
    """What a register says about the time between two readings."""

    wh: int | None
    """Whole Wh; ``None`` where nothing may be said."""
    why: str | None = None
    """``COUNTER_RESET`` or ``NO_VALUE`` where ``wh`` is ``None``."""
    wrapped: bool = False


def counted(before: int, after: int, how: dict[str, Any], *, seconds: float, limit_w: int | None) -> Counted:
    """Energy between two readings of a register.

    Args:
        before, after: raw bits.
        how: the register's decode map.
        seconds: time between the readings.
        limit_w: the most that the connection can carry; ``None``: not known, and then no rollover is believed.
    """
    wh = interval_wh(before, after, how)
    if wh is None:
        return Counted(None, "NO_VALUE")
    if wh >= 0:
        return Counted(wh)
    span = span_wh(how)
    if span is None or limit_w is None or not _within(before, span, how):
        return Counted(None, "COUNTER_RESET")
    wrapped = interval_wh(before, after, how, wrapped=True)
    most = Fraction(limit_w) * Fraction(seconds) / 3600 + 2 * (quantum_wh(before, how) or 0)
    if wrapped is None or not 0 <= wrapped <= most:
        return Counted(None, "COUNTER_RESET")
    return Counted(wrapped, wrapped=True)


def _within(bits: int, span: Fraction, how: dict[str, Any]) -> bool:
    """True where the register stands in the last nine tenths below its end.

    A register above its own width has another one; and from a decimal register anybody can then see its width in the
    number of its digits.
    """
    value = primary_wh(bits, how)
    return value is not None and span / 10 <= value < span


def stands_still(
    before: dict[str, int], after: dict[str, int], decode: dict[str, dict[str, Any]], power_wh: int | None, counts: int
) -> bool:
    """True where no register moved although the power that was read says that it must have.

    Args:
        before, after: raw bits of every energy register read both times.
        power_wh: energy by the integral of power; ``None``: not known, and then nothing is said.
        counts: how many counts of the register that has to be before it is called frozen.
    """
    both = [p for p in decode if p in before and p in after and p.startswith("energy_") and p.endswith("_wh")]
    if power_wh is None or not both or any(before[p] != after[p] for p in both):
        return False
    quanta = [q for p in both if (q := quantum_wh(after[p], decode[p])) is not None]
    return bool(quanta) and abs(power_wh) >= counts * max(quanta)
