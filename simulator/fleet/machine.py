"""One machine of a fleet: a body without a plant around it, small enough to be there thirty thousand times."""

from __future__ import annotations

from collections.abc import Callable

from simulator.devices.models import Done, Mode, Nameplate, PoolSetting
from simulator.machine import Machine, MachineState, MachineTimes

MAC_PREFIX = 0x02_54_00_00_00_00
"""Locally administered; the machine's number follows."""


class FleetMachine:
    """:class:`simulator.devices.models.MachineModel` of one machine that stands alone.

    Args:
        number: its place in the fleet, from 0; serial number, MAC and pool user follow from it.
        plate: what all machines of its kind are on paper.
        times: delays of its firmware, shared by its kind.
        clock: monotonic seconds.
    """

    __slots__ = ("_clock", "_mode", "_plate", "body", "mode_only", "number", "pool_lost")

    def __init__(self, number: int, plate: Nameplate, times: MachineTimes, clock: Callable[[], float]) -> None:
        self.number = number
        self.pool_lost = False
        """Fault: no pool can be reached. It hashes nothing and, as the worst case, draws on."""
        self.mode_only = False
        """Fault: a sleep command changes what the firmware says and not what the machine does."""
        self._plate = plate
        self._clock = clock
        self._mode = int(Mode.NORMAL)
        self.body = Machine("", plate.power_w, plate.sleep_w, plate.hashrate_ths, times, clock())
        self.body.start_mining(clock())

    @property
    def nameplate(self) -> Nameplate:
        """Made when asked for: it is needed seldom, and memory always."""
        plate = self._plate
        return Nameplate(
            model=plate.model,
            hashrate_ths=plate.hashrate_ths,
            power_w=plate.power_w,
            sleep_w=plate.sleep_w,
            serial=f"FLEET{self.number:08d}",
            mac=(MAC_PREFIX + self.number).to_bytes(6, "big").hex(":"),
            boards=plate.boards,
            chips_per_board=plate.chips_per_board,
            fans=plate.fans,
        )

    @property
    def pools(self) -> tuple[PoolSetting, ...]:
        """One pool, reachable unless that fault is on."""
        return (PoolSetting(user=f"fleet.{self.number:05d}", alive=not self.pool_lost),)

    @property
    def mode(self) -> int:
        """Work mode as the firmware tells it."""
        return int(Mode.SLEEP) if self._now().sleep_mode else self._mode

    @mode.setter
    def mode(self, value: int) -> None:
        self._mode = value

    def powered(self) -> bool:
        """False without mains and while its control board boots: then nothing answers."""
        return self._now().api_up(self._clock())

    def asleep(self) -> bool:
        """True while the firmware says that it sleeps."""
        return self.mode == Mode.SLEEP

    def hashrate_ths(self) -> float:
        """Hash rate now."""
        return 0.0 if self.pool_lost else self._now().hashrate_ths

    def power_w(self) -> float:
        """Power drawn now."""
        return self._now().draw_w

    def temperature_c(self) -> float:
        """Hottest chip, from the draw."""
        return 22.0 + 50.0 * min(1.0, self._now().draw_w / self._plate.power_w)

    def uptime_s(self) -> float:
        """Since mains on."""
        return max(0.0, self._clock() - self.body.booted_s) if self.body.powered else 0.0

    def request_sleep(self, ready: Done | None = None) -> None:
        """Configure sleep."""
        if self.mode_only:
            self._mode = int(Mode.SLEEP)
        else:
            self.body.request_sleep(self._clock())
        if ready is not None:
            ready()

    def request_wake(self, mode: int = Mode.NORMAL) -> None:
        """Configure a mode that mines."""
        if self.body.request_wake(self._clock()):
            self._mode = int(mode)

    def set_powered(self, powered: bool) -> None:
        """Mains on or off."""
        self.body.set_powered(powered, self._clock())

    def reboot(self) -> None:
        """Mains off and on at once: silent until its control board is up, then it boots."""
        self.set_powered(False)
        self.set_powered(True)

    @property
    def state(self) -> MachineState:
        """What the machine is doing."""
        return self._now().state

    def _now(self) -> Machine:
        self.body.advance(self._clock())
        return self.body
