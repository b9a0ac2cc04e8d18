"""Time: wall clock, monotonic clock, whether the wall clock can be believed, and the trusted lower bound.

``trusted_low`` never runs backwards over restarts: max(persisted high-water, newest accepted ``issued_at``, start of
this boot + monotonic time since). An order is expired only if it is expired at this bound.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import Protocol

_TIME_ERROR = 5
_STA_UNSYNC = 0x40


class Clock(Protocol):
    """Source of time."""

    def now_ms(self) -> int:
        """UTC wall clock, ms since the Unix epoch."""
        ...

    def mono_ns(self) -> int:
        """Monotonic clock, ns."""
        ...

    def synchronised(self) -> bool:
        """True where the wall clock is known to follow a reference."""
        ...

    @property
    def source(self) -> str:
        """Name of the reference, for records."""
        ...


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("pad", ctypes.c_char * 256),
    )


def kernel_synchronised() -> bool:
    """What adjtimex(2) says: false when the kernel clock is not disciplined, or the call is not there."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        record = _Timex()
        state = libc.adjtimex(ctypes.byref(record))
    except (OSError, AttributeError):
        return False
    return state not in {-1, _TIME_ERROR} and not record.status & _STA_UNSYNC


class SystemClock:
    """The machine's clocks."""

    def __init__(self, source: str = "kernel") -> None:
        self._source = source
        self._checked_ns = 0
        self._state = False

    def now_ms(self) -> int:
        """UTC wall clock, ms."""
        return time.time_ns() // 1_000_000

    def mono_ns(self) -> int:
        """Monotonic clock, ns."""
        return time.monotonic_ns()

    def synchronised(self) -> bool:
        """Kernel's word, asked at most every ten seconds; always true for source ``host``."""
        if self._source == "host":
            return True
        now = time.monotonic_ns()
        if not self._checked_ns or now - self._checked_ns > 10_000_000_000:
            self._checked_ns = now
            self._state = kernel_synchronised()
        return self._state

    @property
    def source(self) -> str:
        """``kernel`` or ``host``."""
        return self._source


def clock_state(clock: Clock) -> dict[str, object]:
    """The ``clk`` field of a record. The offset is null: it is not measured by the agent itself."""
    return {"s": "S" if clock.synchronised() else "U", "src": clock.source, "off_us": None}


STEP_MS = 2000


@dataclass(frozen=True, slots=True)
class Step:
    """The wall clock moved against the monotonic one. Times in ms."""

    was_ms: int
    """What the wall clock would have shown without the step."""
    now_ms: int

    @property
    def step_ms(self) -> int:
        """Positive where the clock went forward."""
        return self.now_ms - self.was_ms


class StepWatch:
    """Sees steps of the wall clock between two looks; slow corrections (slewing) are not steps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall_ms, self._mono_ns = clock.now_ms(), clock.mono_ns()

    def check(self) -> Step | None:
        """The step since the last look, where it is more than two seconds."""
        wall_ms, mono_ns = self._clock.now_ms(), self._clock.mono_ns()
        expected_ms = self._wall_ms + (mono_ns - self._mono_ns) // 1_000_000
        self._wall_ms, self._mono_ns = wall_ms, mono_ns
        return Step(expected_ms, wall_ms) if abs(wall_ms - expected_ms) > STEP_MS else None


@dataclass(slots=True)
class TrustedTime:
    """The trusted lower bound of the present time."""

    clock: Clock
    high_water_ms: int
    """Highest trusted time persisted by an earlier run, 0 for a new ledger."""
    boot_wall_ms: int = 0
    boot_mono_ns: int = 0

    def __post_init__(self) -> None:
        self.boot_mono_ns = self.clock.mono_ns()
        self.boot_wall_ms = self.clock.now_ms() if self.clock.synchronised() else 0

    def raise_to(self, at_ms: int) -> None:
        """A verified statement that the time is at least this."""
        self.high_water_ms = max(self.high_water_ms, at_ms)

    def low_ms(self) -> int:
        """The bound, ms."""
        since = (self.clock.mono_ns() - self.boot_mono_ns) // 1_000_000
        base = max(self.boot_wall_ms + since if self.boot_wall_ms else 0, self.high_water_ms)
        if self.clock.synchronised():
            base = max(base, self.clock.now_ms())
        self.high_water_ms = max(self.high_water_ms, base)
        return base
