"""Quality of a value: why it may, or may not, be used.

One small vocabulary from the driver to the report. ``GOOD`` is the only quality whose value may enter energy,
verification or a plan; every other one carries ``value = None`` except ``STALE`` and ``SUSPECT``, which keep the last
or the odd value for people to look at.
"""

from __future__ import annotations

from enum import StrEnum


class Quality(StrEnum):
    """Quality codes, as written into telemetry, records and pages."""

    GOOD = "good"
    STALE = "stale"
    """The value is older than three poll periods."""
    SUSPECT = "suspect"
    """Read well, but outside the profile's plausible range or contradicted by a self-check."""
    NOT_READ = "not_read"
    """No poll has been tried yet."""
    TIMEOUT = "timeout"
    CRC = "crc"
    """A damaged frame: wrong check sum, foreign or short answer."""
    EXCEPTION = "exception"
    """The device answered that it will not (Modbus exception, SNMP error, API error)."""
    NO_CONNECTION = "no_connection"
    NO_VALUE = "no_value"
    """The device said by its own mark (sentinel, null, absent field) that it has no value."""
    DECODE = "decode"
    """The answer could not be understood."""
    NO_POWER = "no_power"
    """The device is fed from behind an open switch."""

    @property
    def usable(self) -> bool:
        """True where the value may be used for control, energy and proof."""
        return self is Quality.GOOD


CODES: dict[Quality, int] = {q: i for i, q in enumerate(Quality)}
"""Stable integer codes for columnar batches; append only."""

BY_CODE: dict[int, Quality] = {i: q for q, i in CODES.items()}
