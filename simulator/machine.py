"""One mining machine as a body: what it draws, and how long sleeping and waking really take.

The firmware's protocol is not here (:mod:`simulator.devices.asic`); both see the machine through
:class:`simulator.devices.models.MachineModel`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from simulator.latencies import Family

STARTED_BEFORE_S = 86_400.0
"""Uptime of machines when the simulation begins."""

API_BOOT_SHARE = 0.5
"""Share of the boot time after which the control board answers (an assumption)."""


class MachineState(StrEnum):
    """What a machine is doing."""

    UNPOWERED = "unpowered"
    BOOTING = "booting"
    RAMPING = "ramping"
    MINING = "mining"
    FALLING = "falling"
    """Told to sleep, still drawing."""
    ASLEEP = "asleep"


@dataclass(frozen=True, slots=True)
class MachineTimes:
    """Delays of one machine in seconds of the plant's clock, already divided by the time scale."""

    answer_s: float
    sleep_delay_s: float
    sleep_ramp_s: float
    wake_boot_s: float
    wake_ramp_s: float
    power_boot_s: float
    boot_share: float
    sleep_survives_power_loss: bool

    @classmethod
    def of(cls, family: Family, time_scale: float, spread: float = 1.0) -> MachineTimes:
        """Times of a family; ``spread`` makes one machine a little slower or faster than the next."""
        factor = spread / time_scale
        return cls(
            answer_s=family.answer_s.value * factor,
            sleep_delay_s=family.sleep_delay_s.value * factor,
            sleep_ramp_s=family.sleep_ramp_s.value * factor,
            wake_boot_s=family.wake_boot_s.value * factor,
            wake_ramp_s=family.wake_ramp_s.value * factor,
            power_boot_s=family.power_boot_s.value * factor,
            boot_share=family.boot_share.value,
            sleep_survives_power_loss=family.sleep_survives_power_loss.value,
        )


class Machine:
    """State machine of one miner. All times are on the plant's clock; nothing here waits.

    ``draw_w`` is what it takes from the mains now. Faults: ``refuses_sleep`` (the write is accepted and nothing
    happens), ``wakes_itself_s`` (mines again that long after falling asleep).
    """

    __slots__ = (
        "_boot_until_s",
        "_from_w",
        "_noise_w",
        "_since_s",
        "booted_s",
        "draw_w",
        "full_w",
        "id",
        "nominal_ths",
        "refuses_sleep",
        "sleep_mode",
        "sleep_w",
        "state",
        "times",
        "wakes_itself_s",
    )

    def __init__(
        self, machine_id: str, full_w: float, sleep_w: float, nominal_ths: float, times: MachineTimes, now_s: float
    ) -> None:
        self.id = machine_id
        self.full_w = full_w
        self.sleep_w = sleep_w
        self.nominal_ths = nominal_ths
        self.times = times
        self.sleep_mode = False
        self.refuses_sleep = False
        self.wakes_itself_s: float | None = None
        self.state = MachineState.UNPOWERED
        self.draw_w = 0.0
        self.booted_s = now_s
        self._since_s = now_s
        self._boot_until_s = now_s
        self._from_w = 0.0
        self._noise_w = 0.0

    # -- commands -------------------------------------------------------------------------------------------------

    def set_powered(self, powered: bool, now_s: float) -> None:
        """Mains on or off. After mains on it boots, and mines at full power unless its sleep outlived the outage."""
        if powered == (self.state is not MachineState.UNPOWERED):
            return
        if not powered:
            self._enter(MachineState.UNPOWERED, now_s)
            if not self.times.sleep_survives_power_loss:
                self.sleep_mode = False
            self.draw_w = 0.0
            return
        self.booted_s = now_s
        self._boot_until_s = now_s + self.times.power_boot_s
        self._enter(MachineState.BOOTING, now_s)
        self.advance(now_s)

    def start_mining(self, now_s: float) -> None:
        """Be at full power at once: how a plant that has run for days looks when the simulation begins."""
        self.sleep_mode = False
        self.booted_s = now_s - STARTED_BEFORE_S
        self._enter(MachineState.MINING, now_s)
        self.advance(now_s)

    def request_sleep(self, now_s: float) -> bool:
        """The firmware took a sleep command. False where there is no power to take it."""
        if self.state is MachineState.UNPOWERED:
            return False
        if self.refuses_sleep:
            return True
        self.sleep_mode = True
        if self.state in {MachineState.MINING, MachineState.RAMPING}:
            self._from_w = self.draw_w
            self._enter(MachineState.FALLING, now_s)
            self.advance(now_s)
        return True

    def request_wake(self, now_s: float) -> bool:
        """The firmware took a wake command. False where there is no power to take it."""
        if self.state is MachineState.UNPOWERED:
            return False
        self.sleep_mode = False
        if self.state in {MachineState.ASLEEP, MachineState.FALLING}:
            self._boot_until_s = now_s + self.times.wake_boot_s
            self._enter(MachineState.BOOTING, now_s)
            self.advance(now_s)
        return True

    # -- time -----------------------------------------------------------------------------------------------------

    def advance(self, now_s: float) -> None:
        """Bring state and draw to ``now_s``; any step width gives the same states."""
        if self.state is MachineState.FALLING:
            self._fall(now_s)
        if self.state is MachineState.ASLEEP:
            self._sleep(now_s)
        if self.state is MachineState.BOOTING:
            self._boot(now_s)
        if self.state is MachineState.RAMPING:
            self._ramp(now_s)
        if self.state is MachineState.MINING:
            self.draw_w = self.full_w + self._noise_w

    def _fall(self, now_s: float) -> None:
        into_s, ramp_s = now_s - self._since_s - self.times.sleep_delay_s, self.times.sleep_ramp_s
        if into_s >= ramp_s:
            self._enter(MachineState.ASLEEP, self._since_s + self.times.sleep_delay_s + ramp_s)
        elif into_s <= 0:
            self.draw_w = self._from_w
        else:
            self.draw_w = self._from_w + (self.sleep_w - self._from_w) * into_s / ramp_s

    def _sleep(self, now_s: float) -> None:
        self.draw_w = self.sleep_w
        if self.wakes_itself_s is not None and now_s >= self._since_s + self.wakes_itself_s:
            woken_s = self._since_s + self.wakes_itself_s
            self.sleep_mode = False
            self._boot_until_s = woken_s + self.times.wake_boot_s
            self._enter(MachineState.BOOTING, woken_s)

    def _boot(self, now_s: float) -> None:
        self.draw_w = max(self.sleep_w, self.full_w * self.times.boot_share)
        if now_s < self._boot_until_s:
            return
        self._from_w = self.draw_w
        if self.sleep_mode:
            self.draw_w = self.sleep_w
            self._enter(MachineState.ASLEEP, self._boot_until_s)
        else:
            self._enter(MachineState.RAMPING, self._boot_until_s)

    def _ramp(self, now_s: float) -> None:
        into_s = now_s - self._since_s
        if into_s >= self.times.wake_ramp_s:
            self._enter(MachineState.MINING, self._since_s + self.times.wake_ramp_s)
        else:
            self.draw_w = self._from_w + (self.full_w - self._from_w) * into_s / self.times.wake_ramp_s

    def wander(self, rng: random.Random) -> None:
        """New small deviation of the draw, within 0.5 %."""
        self._noise_w = self.full_w * (rng.random() - 0.5) * 0.01

    @property
    def changing(self) -> bool:
        """True while the draw follows a ramp or a state is about to change by itself."""
        return self.state in {MachineState.FALLING, MachineState.BOOTING, MachineState.RAMPING} or (
            self.state is MachineState.ASLEEP and self.wakes_itself_s is not None
        )

    @property
    def powered(self) -> bool:
        """True with mains on."""
        return self.state is not MachineState.UNPOWERED

    def api_up(self, now_s: float) -> bool:
        """True once the control board has booted far enough to answer."""
        return self.powered and now_s >= self.booted_s + self.times.power_boot_s * API_BOOT_SHARE

    @property
    def asleep(self) -> bool:
        """True once the boards are off."""
        return self.state is MachineState.ASLEEP

    @property
    def hashrate_ths(self) -> float:
        """Follows the draw above idling; 0 while booting, asleep or dark."""
        if self.state in {MachineState.UNPOWERED, MachineState.ASLEEP, MachineState.BOOTING}:
            return 0.0
        idle_w = min(self.full_w * self.times.boot_share, self.full_w * 0.99)
        return self.nominal_ths * max(0.0, (self.draw_w - idle_w) / (self.full_w - idle_w))

    def _enter(self, state: MachineState, at_s: float) -> None:
        self.state = state
        self._since_s = at_s
