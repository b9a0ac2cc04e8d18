"""What every driver is given besides the address of its machine, whatever its family."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic, time

from drivers.asic.credentials import Credentials
from drivers.asic.outcome import Wall, sleep_for
from drivers.asic.timing import Timeouts


@dataclass(frozen=True, slots=True)
class Given:
    """Log-in, time limits, leave to write, and the clocks. A family ignores what it has no use for."""

    credentials: Credentials | None = None
    """``None`` where none is configured."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    writes_allowed: bool = False
    """The site's allow-list; False makes every write ``REFUSED``."""
    wall: Wall = time
    """UTC clock in seconds."""
    mono: Callable[[], float] = monotonic
    """Monotonic clock in seconds."""
    pause: Callable[[float], Awaitable[None]] = sleep_for
    """Waits for seconds."""
