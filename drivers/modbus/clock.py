"""Time as the link needs it; passed in, so that tests may own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic and wall clock."""

    def monotonic_ns(self) -> int:
        """Nanoseconds that never run backwards."""
        ...

    def wall_ms(self) -> int:
        """UTC, milliseconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic_ns(self) -> int:
        """Nanoseconds that never run backwards."""
        return time.monotonic_ns()

    def wall_ms(self) -> int:
        """UTC, milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000
