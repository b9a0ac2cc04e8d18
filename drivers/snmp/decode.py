"""What the raw answers of a PDU mean. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from drivers.capabilities import Position, Reading
from drivers.snmp.profile import Measure, OutletState
from wire.quality import Quality

Raw = int | bytes | None
"""An answered value; ``None`` where the device says that there is no such object or row."""

_MOST_DECIMALS = 9
_TEXT_LIMIT = 64
_INTEGER_LIMIT = 2**64
"""SNMP's largest type is Counter64."""


def decode_measure(measure: Measure, answers: Mapping[str, Raw], outlet: int | None = None) -> Reading:
    """Value of one measure from the answers by OID.

    A value that the device disowns (sentinel, not available, no such object) is ``NO_VALUE`` and ``None``, never 0.
    An OID that was not answered at all is ``NO_VALUE`` too.
    """
    row = measure.at(outlet)[len(measure.oid) :]
    raw = answers.get(measure.oid + row)
    if raw is None or (measure.available is not None and answers.get(measure.available + row) != 1):
        return Reading(None, Quality.NO_VALUE)
    if measure.text:
        return _decode_text(raw)
    if not isinstance(raw, int) or abs(raw) >= _INTEGER_LIMIT:
        return Reading(None, Quality.DECODE)
    if raw in measure.sentinels:
        return Reading(None, Quality.NO_VALUE)
    for oid in measure.columns(outlet)[1:] if measure.plus else ():
        other = answers.get(oid)
        if other is None or other in measure.sentinels:
            continue
        if not isinstance(other, int) or abs(other) >= _INTEGER_LIMIT:
            return Reading(None, Quality.DECODE)
        raw += other
    value = raw * measure.factor
    if measure.decimals is not None:
        digits = answers.get(measure.decimals + row)
        if not isinstance(digits, int) or not 0 <= digits <= _MOST_DECIMALS:
            # Without the digits the value may be wrong a thousand times: no number at all.
            return Reading(None, Quality.DECODE)
        value /= Fraction(10) ** digits
    number = float(value)
    odd = number < measure.minimum or (measure.maximum is not None and number > measure.maximum)
    return Reading(number, Quality.SUSPECT if odd else Quality.GOOD)


def _decode_text(raw: int | bytes) -> Reading:
    if not isinstance(raw, bytes):
        return Reading(None, Quality.DECODE)
    text = raw.decode("utf-8", errors="replace").strip().strip("\0")
    if not text:
        return Reading(None, Quality.NO_VALUE)
    if not text.isprintable() or "\ufffd" in text:
        return Reading(None, Quality.DECODE)
    return Reading(text[:_TEXT_LIMIT], Quality.GOOD)


def decode_position(state: OutletState, raw: Raw) -> Position:
    """Off is ``OPEN``, on is ``CLOSED``; a code the profile does not name is ``UNKNOWN``."""
    if raw in state.off:
        return Position.OPEN
    if raw in state.on:
        return Position.CLOSED
    if raw in state.moving:
        return Position.MOVING
    return Position.UNKNOWN


def raw_bits(measure: Measure, answers: Mapping[str, Raw], outlet: int | None = None) -> int | None:
    """Raw content of a numeric answer as an unsigned 32-bit (64-bit if larger) integer; none of a sum."""
    raw = answers.get(measure.at(outlet))
    if not isinstance(raw, int) or measure.plus:
        return None
    return raw & 0xFFFF_FFFF if raw < 0 else raw
