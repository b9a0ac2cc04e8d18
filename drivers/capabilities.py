"""What a device can do, as small capabilities; callers ask for the one they need.

There is no base class of all devices. A meter is something that samples; a relay channel is a ``Switch``; a miner is
something that reports and may be a ``Sleeper``. Meters have no capability that writes, by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from wire.quality import Quality

Value = float | int | str | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one point: SI base unit (see :mod:`wire.points`), ``None`` unless there is a value."""

    value: Value
    quality: Quality


@dataclass(frozen=True, slots=True)
class Sample:
    """One poll of one device, answered or not.

    ``bits`` holds the raw register contents of each answered numeric point as an unsigned integer, most significant
    word first after the point's word order was applied. ``frames`` are the exact request and answer bytes that gave
    them (Modbus: unit, function, data, without MBAP header or CRC), for evidence.
    """

    device: str
    at_ms: int
    """UTC wall clock when the answer was complete (or the poll given up), ms."""
    mono_ns: int
    readings: dict[str, Reading]
    bits: dict[str, int] = field(default_factory=dict)
    frames: tuple[tuple[bytes, bytes], ...] = ()
    latency_ms: float = 0.0
    error: str | None = None
    """Why nothing, or not all, was read; for people."""

    @property
    def ok(self) -> bool:
        """True where every asked block was answered."""
        return self.error is None


class Position(StrEnum):
    """Two-bit position of a switch from its auxiliary contacts (open, closed)."""

    OPEN = "open"
    CLOSED = "closed"
    MOVING = "moving"
    """Both contacts off: between positions, or a broken wire."""
    FAULTY = "faulty"
    """Both contacts on: impossible."""
    UNKNOWN = "unknown"
    """Could not be read."""


@dataclass(frozen=True, slots=True)
class SwitchState:
    """What was read back from a switch. Optional points are ``None`` where the device has none."""

    position: Position
    at_ms: int
    mono_ns: int
    coil: bool | None = None
    """State of the output that drives it."""
    remote: bool | None = None
    lockout: bool | None = None
    protection_trip: bool | None = None
    trip_circuit_ok: bool | None = None
    spring_charged: bool | None = None
    control_voltage_ok: bool | None = None
    service_position: bool | None = None
    trips_total: int | None = None
    """Operations counted by the device, where a counting input is wired for them."""
    detail: str | None = None


class WriteStatus(StrEnum):
    """What is known after a write. ``UNKNOWN`` is a result of its own: never retried blindly."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """Answer of a device to a write; an acknowledgement is never proof of the effect."""

    status: WriteStatus
    at_ms: int
    detail: str = ""


@runtime_checkable
class Switch(Protocol):
    """A switch that is commanded to a level ("be open"), never toggled."""

    async def read(self) -> SwitchState:
        """Read position and readiness. Never raises: what cannot be read is ``UNKNOWN``/``None``."""
        ...

    async def open(self) -> WriteOutcome:
        """Command it open."""
        ...

    async def close(self) -> WriteOutcome:
        """Command it closed."""
        ...


@dataclass(frozen=True, slots=True)
class Board:
    """One hash board."""

    index: int
    hashrate_ths: float | None
    chips: int | None
    temperature_max_c: float | None
    ok: bool | None


@dataclass(frozen=True, slots=True)
class Pool:
    """One configured pool of a machine."""

    url: str | None
    user: str | None
    active: bool | None
    accepted: int | None
    rejected: int | None


@dataclass(frozen=True, slots=True)
class MinerStatus:
    """One machine, as ``tizgin probe asic://…`` prints it. What the machine does not give is ``None``, never 0."""

    family: str
    model: str | None = None
    firmware: str | None = None
    mac: str | None = None
    serial: str | None = None
    uptime_s: int | None = None
    sleeping: bool | None = None
    hashrate_ths: float | None = None
    hashrate_nominal_ths: float | None = None
    power_w: float | None = None
    power_source: str = "none"
    """``measured``, ``estimated`` or ``none``."""
    temperature_max_c: float | None = None
    fans_rpm: tuple[int, ...] = ()
    boards: tuple[Board, ...] = ()
    pools: tuple[Pool, ...] = ()
    errors: tuple[str, ...] = ()
    latency_ms: float = 0.0


@runtime_checkable
class MinerReader(Protocol):
    """A machine that can be asked how it does."""

    family: str

    async def status(self) -> MinerStatus:
        """Read the machine within its deadline.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        ...


@runtime_checkable
class Sleeper(Protocol):
    """A machine that can be put to sleep and woken by its own firmware."""

    async def prior_state(self) -> str:
        """What has to be put back on waking, as compact JSON text; read before any change.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        ...

    async def sleep(self) -> WriteOutcome:
        """Ask it to sleep. Never raises; a time-out is ``UNKNOWN``."""
        ...

    async def wake(self, prior_state: str) -> WriteOutcome:
        """Put the prior state back. A machine that was asleep before stays asleep."""
        ...


@dataclass(frozen=True, slots=True)
class PowerRange:
    """What a machine accepts as its power limit, in watts at the wall; ``None`` where it does not say."""

    lowest_w: int | None
    highest_w: int | None
    now_w: int | None
    """The limit set at the moment; ``None`` also where none is set."""


@runtime_checkable
class PowerLimiter(Protocol):
    """A machine whose firmware keeps its draw under a number of watts."""

    async def power_range(self) -> PowerRange:
        """What it accepts and what is set.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        ...

    async def prior_limit(self) -> str:
        """What has to be put back later, as compact JSON text; read before any change.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        ...

    async def limit_power(self, limit_w: int) -> WriteOutcome:
        """Ask it to stay at or under ``limit_w``. Never raises; a time-out is ``UNKNOWN``."""
        ...

    async def restore_limit(self, prior: str) -> WriteOutcome:
        """Put the prior limit back. Never raises."""
        ...
