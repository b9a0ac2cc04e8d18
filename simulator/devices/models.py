"""What device servers ask of the simulated machine behind them; the plant answers, or a machine that stands alone."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

Done = Callable[[], None]


class Mode(enum.IntEnum):
    """Configured work mode, in the numbers of Bitmain's firmware."""

    NORMAL = 0
    SLEEP = 1
    HIGH = 2
    LOW = 3


@dataclass(frozen=True, slots=True)
class Nameplate:
    """What a machine is, on paper."""

    model: str = "Antminer S19"
    hashrate_ths: float = 95.0
    power_w: float = 3250.0
    sleep_w: float = 30.0
    serial: str = "SIM0000000000001"
    mac: str = "02:00:00:00:00:01"
    boards: int = 3
    chips_per_board: int = 76
    fans: int = 4


@dataclass(frozen=True, slots=True)
class PoolSetting:
    """One configured pool."""

    url: str = "stratum+tcp://pool.example:3333"
    user: str = "site.rack01.u01"
    alive: bool = True
    """False while it cannot be reached."""


class MachineModel(Protocol):
    """The physics of one machine. Servers read it when asked and never keep what they read."""

    mode: int
    """Work mode as configured; kept over a power cut."""

    @property
    def nameplate(self) -> Nameplate:
        """What it is, on paper."""
        ...

    @property
    def pools(self) -> tuple[PoolSetting, ...]:
        """Its configured pools."""
        ...

    def powered(self) -> bool:
        """False behind an open switch: then nothing answers."""
        ...

    def asleep(self) -> bool:
        """True once the sleep is configured and complete enough to be told so by the firmware."""
        ...

    def hashrate_ths(self) -> float:
        """Hash rate now."""
        ...

    def power_w(self) -> float:
        """Power drawn now."""
        ...

    def uptime_s(self) -> float:
        """Since the mining program started; 0 while unpowered."""
        ...

    def request_sleep(self, ready: Done | None = None) -> None:
        """Configure sleep; ``ready`` is called when it is asleep, by models that can say when."""
        ...

    def request_wake(self, mode: int = Mode.NORMAL) -> None:
        """Configure a mode that mines; the hash rate ramps up."""
        ...


@dataclass(eq=False)
class StandaloneMachine:
    """A machine without a plant around it: linear ramps down and up, a clock that tests own.

    ``time_scale`` makes the ramps that many times quicker.
    """

    nameplate: Nameplate = field(default_factory=Nameplate)
    pools: tuple[PoolSetting, ...] = (PoolSetting(),)
    mode: int = Mode.NORMAL
    sleep_ramp_s: float = 20.0
    wake_ramp_s: float = 120.0
    time_scale: float = 1.0
    clock: Callable[[], float] = monotonic

    def __post_init__(self) -> None:
        self._powered = True
        self._started_s = self.clock() - 3600.0 / self.time_scale
        self._level_from = 0.0 if self.mode == Mode.SLEEP else 1.0
        self._changed_s = float("-inf")

    def powered(self) -> bool:
        """See :class:`MachineModel`."""
        return self._powered

    def set_powered(self, powered: bool) -> None:
        """Close or open the switch that feeds it. The configured mode survives."""
        if powered and not self._powered:
            self._started_s = self.clock()
            self._level_from = 0.0
            self._changed_s = self.clock()
        self._powered = powered

    def asleep(self) -> bool:
        """See :class:`MachineModel`."""
        return self.mode == Mode.SLEEP

    def hashrate_ths(self) -> float:
        """See :class:`MachineModel`."""
        return self.nameplate.hashrate_ths * self._level() if self._powered else 0.0

    def power_w(self) -> float:
        """See :class:`MachineModel`."""
        if not self._powered:
            return 0.0
        return self.nameplate.sleep_w + (self.nameplate.power_w - self.nameplate.sleep_w) * self._level()

    def uptime_s(self) -> float:
        """See :class:`MachineModel`."""
        return (self.clock() - self._started_s) * self.time_scale if self._powered else 0.0

    def request_sleep(self, ready: Done | None = None) -> None:
        """See :class:`MachineModel`."""
        self._change(Mode.SLEEP)
        if ready is not None:
            ready()

    def request_wake(self, mode: int = Mode.NORMAL) -> None:
        """See :class:`MachineModel`."""
        self._change(mode)

    def _change(self, mode: int) -> None:
        if mode == self.mode:
            return
        self._level_from = self._level()
        self._changed_s = self.clock()
        self.mode = mode

    def _level(self) -> float:
        target = 0.0 if self.mode == Mode.SLEEP else 1.0
        ramp_s = (self.sleep_ramp_s if target == 0.0 else self.wake_ramp_s) / self.time_scale
        share = 1.0 if ramp_s <= 0 else min(1.0, (self.clock() - self._changed_s) / ramp_s)
        return self._level_from + (target - self._level_from) * share
