"""Time limits of one machine, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Hard deadlines in seconds, each for a whole exchange (connecting, asking, answering)."""

    rpc_s: float = 3.0
    """One command on the JSON socket."""
    http_s: float = 5.0
    """One reading over HTTP, log-in included."""
    write_s: float = 40.0
    """One configuration write. Stock Antminers were seen to need 21 s; below 30 s good writes look lost."""
    status_s: float = 6.0
    """One whole status reading."""
    read_back_s: tuple[float, ...] = (0.0, 1.0, 3.0)
    """Pauses before each attempt to read a written setting back."""
    mode_max_age_s: float = 300.0
    """How long a sleep mode read over HTTP is believed while the hash rate does not contradict it."""
    identity_max_age_s: float = 3600.0
    """How long serial number, MAC and firmware are kept; a restart of the machine ends it earlier."""
