"""Firmware families whose sleep is timed: how long their machines take by themselves, and within what a site has to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulator.latencies import Family, Latencies

STOCK = "antminer-stock"
BARS_S = {"luxos": 15.0, "braiins": 15.0, STOCK: 60.0}
"""Until 95 % of the ordered power is off. No other family has a public figure for how fast it sleeps, nor a bar."""
SHARE = 0.95
LONG_WAKE_S = 30.0
"""Longer waking is shortened."""
SHORT_BOOT_S, SHORT_RAMP_S = 2.0, 7.0


@dataclass(frozen=True, slots=True)
class SleepingSite:
    """A site whose machines, of one family, are put to sleep and woken."""

    family: str
    machines: int
    cuts: int


def alone_s(name: str, family: Family) -> float:
    """From a command until the share of its power is off one machine of usual pace, with no agent in between.

    Stock firmware does what it was told once it answers; the others as soon as they were told.
    """
    answer_s = family.answer_s.value if name == STOCK else 0.0
    return answer_s + family.sleep_delay_s.value + SHARE * family.sleep_ramp_s.value


def wakes_truly(family: Family) -> bool:
    """False where waking takes minutes: it is shortened, for only the way down is timed there."""
    return family.wake_boot_s.value + family.wake_ramp_s.value <= LONG_WAKE_S


def delays_beside(latencies: Latencies, name: str) -> dict[str, Any]:
    """The simulator's data, as ``--latencies`` of ``tizgin simulate`` takes it, with what is not timed in a family
    shortened: the boot after its board was exercised, and waking where it is long. Going to sleep stays as it is."""
    found: dict[str, Any] = latencies.model_dump(mode="json", by_alias=True)
    key = next(key for key, family in latencies.families.items() if name == key or name in family.names)
    shorter = {"power_boot_s": SHORT_BOOT_S}
    if not wakes_truly(latencies.families[key]):
        shorter |= {"wake_boot_s": SHORT_BOOT_S, "wake_ramp_s": SHORT_RAMP_S}
    for time, value in shorter.items():
        found["families"][key][time] = {"value": value, "source": "shortened, for it is not timed"}
    return found
