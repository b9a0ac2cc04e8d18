"""Time limits of one machine, as data."""

from __future__ import annotations

from collections.abc import Mapping
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


SLEEP_SEEN_WITHIN_S: Mapping[str, float] = {
    "luxos": 10.0,
    "braiins": 10.0,
    "whatsminer-v2": 30.0,
    "whatsminer-v3": 30.0,
}
"""From the answer to a sleep command until the hash rate has fallen; vendors' claims and field reports, with room."""
WAKE_SEEN_WITHIN_S: Mapping[str, float] = {
    "luxos": 30.0,
    "braiins": 30.0,
}
"""The same for waking. Others need minutes: a Whatsminer raises its frequency, a stock Antminer boots."""
OTHERS_SLEEP_WITHIN_S = 120.0
OTHERS_WAKE_WITHIN_S = 600.0


def seen_within_s(family: str, *, asleep: bool) -> float:
    """How long machines of a family may take until they show that they sleep (or that they are awake)."""
    if asleep:
        return SLEEP_SEEN_WITHIN_S.get(family, OTHERS_SLEEP_WITHIN_S)
    return WAKE_SEEN_WITHIN_S.get(family, OTHERS_WAKE_WITHIN_S)
