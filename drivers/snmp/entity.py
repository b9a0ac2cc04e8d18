"""Values from the ENTITY-SENSOR-MIB: a table of sensors that says of each row what it measures and in which unit.

Source: RFC 3433. Value = raw * 10^(3 * (scale - 9)) * 10^-precision; scale 9 is the unit itself. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from drivers.capabilities import Reading
from drivers.snmp.decode import Raw
from wire.quality import Quality

TABLE = "1.3.6.1.2.1.99.1.1.1"
TYPE, SCALE, PRECISION, VALUE, STATUS = (f"{TABLE}.{column}" for column in (1, 2, 3, 4, 5))
COLUMNS = (TYPE, SCALE, PRECISION, VALUE, STATUS)
MOST_ROWS = 256
KINDS = {"volts_ac": 3, "amperes": 5, "watts": 6, "hertz": 7}
_OK = 1
_UNITS = 9
_SCALES = range(1, 18)
_PRECISIONS = range(-8, 10)

Table = Mapping[str, Mapping[int, Raw]]


def sensor_reading(table: Table, kind: str, row: int | None) -> Reading:
    """Reading of the one sensor of a kind, or of a given row.

    Without a row, and with several sensors of the kind, there is no value: which one is meant, a person has to say.
    """
    rows = [n for n, raw in table.get(TYPE, {}).items() if raw == KINDS[kind] and row in {None, n}]
    if len(rows) != 1:
        return Reading(None, Quality.NO_VALUE)
    (found,) = rows
    raw, scale, precision = (table.get(column, {}).get(found) for column in (VALUE, SCALE, PRECISION))
    if table.get(STATUS, {}).get(found) != _OK or raw is None:
        return Reading(None, Quality.NO_VALUE)
    if not isinstance(raw, int) or not isinstance(scale, int) or not isinstance(precision, int):
        return Reading(None, Quality.DECODE)
    if scale not in _SCALES or precision not in _PRECISIONS:
        return Reading(None, Quality.DECODE)
    value = float(Fraction(raw) * Fraction(10) ** (3 * (scale - _UNITS) - precision))
    return Reading(value, Quality.GOOD if value >= 0 else Quality.SUSPECT)


def rows_of(table: Table, kind: str) -> tuple[int, ...]:
    """Rows of all sensors of a kind, for a person who has to choose."""
    return tuple(sorted(n for n, raw in table.get(TYPE, {}).items() if raw == KINDS[kind]))
