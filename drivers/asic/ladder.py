"""How far a command to sleep or to wake has come: commanded, acknowledged, seen at the device, seen at the meter.

An acknowledgement is a word, a hash rate that fell is a sign, and only a meter is proof. The rungs are kept apart, so
that nobody takes one for another. Pure functions: times come in as milliseconds of one clock, statuses and outcomes as
the drivers give them.

What counts as seen at the device, from field reports: the hash rate is the sign, because "asleep" in a configuration
was seen on machines that mined on; a *measured* power at or below half of what it was counts as well; an *estimated*
power proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from drivers.capabilities import MinerStatus, WriteOutcome, WriteStatus

HASHING_SHARE = 0.01
"""At or below this share of its nominal hash rate a machine does not hash …"""
HASHING_THS = 0.1
"""… nor at or below this rate, where the nominal one is not known."""
POWER_SHARE = 0.5
"""Measured power at or below this share of the one before the command: asleep."""
AWAKE_SHARE = 0.5
"""At or above this share of its hash rate before (or of the nominal one): awake."""


class Goal(StrEnum):
    """What was asked for."""

    ASLEEP = "asleep"
    AWAKE = "awake"


class Rung(IntEnum):
    """How far it has come; each includes the ones below but for what :class:`Climb` says of the acknowledgement."""

    COMMANDED = 0
    ACKNOWLEDGED = 1
    DEVICE_CONFIRMED = 2
    METER_CONFIRMED = 3


class Verdict(StrEnum):
    """What is to be thought of a machine."""

    PENDING = "pending"
    """Its time is not over yet."""
    OBEYED = "obeyed"
    """Seen at the device or at the meter, whatever it answered."""
    REFUSED = "refused"
    """It said no, and nothing happened."""
    LIED = "lied"
    """It said yes, its time is over, and it was seen since doing what it did before; or it came back by itself."""
    UNKNOWN = "unknown"
    """Nothing can be said: no answer, or nothing seen of it since."""


@dataclass(frozen=True, slots=True)
class Climb:
    """One command to one machine. A lost answer does not keep it from being confirmed: the machine may have obeyed."""

    goal: Goal
    commanded_ms: int
    within_ms: int
    """How long its kind may take from the answer until the device shows it."""
    baseline_ths: float | None = None
    baseline_w: float | None = None
    """Measured power before; ``None`` where it was estimated or unknown."""
    answer: WriteStatus | None = None
    answered_ms: int | None = None
    device_ms: int | None = None
    """When the device first showed it, and since then without contradiction."""
    meter_ms: int | None = None
    """When the meter above it showed it."""
    contrary_ms: int | None = None
    """When it was last seen doing the contrary."""

    @property
    def rung(self) -> Rung:
        """How far it has come."""
        if self.meter_ms is not None:
            return Rung.METER_CONFIRMED
        if self.device_ms is not None:
            return Rung.DEVICE_CONFIRMED
        return Rung.ACKNOWLEDGED if self.answer is WriteStatus.ACKNOWLEDGED else Rung.COMMANDED

    @property
    def due_ms(self) -> int:
        """By when the device has to show it."""
        return (self.commanded_ms if self.answered_ms is None else self.answered_ms) + self.within_ms


def commanded(goal: Goal, at_ms: int, *, within_s: float, before: MinerStatus | None = None) -> Climb:
    """The foot of the ladder; ``before`` is the last status read before the command."""
    measured = before is not None and before.power_source == "measured"
    return Climb(
        goal,
        at_ms,
        round(within_s * 1000),
        baseline_ths=before.hashrate_ths if before is not None else None,
        baseline_w=before.power_w if before is not None and measured else None,
    )


def answered(climb: Climb, outcome: WriteOutcome, at_ms: int) -> Climb:
    """The machine's own word, at ``at_ms`` of the same clock as the command."""
    return replace(climb, answer=outcome.status, answered_ms=at_ms)


def seen(climb: Climb, status: MinerStatus, at_ms: int) -> Climb:
    """A status that was asked for at ``at_ms``; one asked for before the command says nothing and changes nothing."""
    if at_ms <= climb.commanded_ms:
        return climb
    shown = _shows(climb, status)
    if shown is None:
        return climb
    if shown:
        return climb if climb.device_ms is not None else replace(climb, device_ms=at_ms)
    # What a meter saw is over too: the machine does the contrary now.
    return replace(climb, contrary_ms=at_ms, device_ms=None, meter_ms=None)


def metered(climb: Climb, at_ms: int) -> Climb:
    """The meter above it shows it. Only whoever reads meters may say so."""
    return climb if climb.meter_ms is not None else replace(climb, meter_ms=at_ms)


def verdict(climb: Climb, now_ms: int) -> Verdict:
    """What is to be thought of the machine at ``now_ms``."""
    if climb.rung >= Rung.DEVICE_CONFIRMED:
        return Verdict.OBEYED
    if climb.answer is WriteStatus.REFUSED:
        return Verdict.REFUSED
    if now_ms < climb.due_ms:
        return Verdict.PENDING
    contrary = climb.contrary_ms is not None and climb.contrary_ms >= climb.due_ms
    return Verdict.LIED if contrary and climb.answer is WriteStatus.ACKNOWLEDGED else Verdict.UNKNOWN


def _shows(climb: Climb, status: MinerStatus) -> bool | None:
    """Whether a status shows what was asked for; ``None`` where it says neither."""
    hashing = is_hashing(status)
    if climb.goal is Goal.AWAKE:
        if hashing is None:
            return None
        wanted = climb.baseline_ths if climb.baseline_ths and _asleep_rate(climb) else status.hashrate_nominal_ths
        if not hashing:
            return False
        # A ramp is on its way: neither there yet nor contrary.
        return True if not wanted or (status.hashrate_ths or 0.0) >= AWAKE_SHARE * wanted else None
    if hashing:
        return False
    if climb.baseline_w and status.power_source == "measured" and status.power_w is not None:
        # No hash rate while the power stays is a machine without a pool, not one asleep.
        return True if status.power_w <= POWER_SHARE * climb.baseline_w else None
    if status.sleeping is False:
        return None  # it does not hash and says itself that it is awake: booting, or without a pool
    # Many firmwares close their socket while asleep; then their own word over the web is all there is.
    return True if status.sleeping or hashing is False else None


def _asleep_rate(climb: Climb) -> bool:
    """False where the rate before the command was that of a machine asleep: then it is no measure of being awake."""
    return climb.baseline_ths is not None and climb.baseline_ths > HASHING_THS


def is_hashing(status: MinerStatus) -> bool | None:
    """Whether a machine hashes; ``None`` where it does not say."""
    if status.hashrate_ths is None:
        return None
    return status.hashrate_ths > max(HASHING_THS, HASHING_SHARE * (status.hashrate_nominal_ths or 0.0))
