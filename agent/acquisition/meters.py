"""Ports of meters: what was learned of each unit, and where the values are of those that describe themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from config.devices import Device
from drivers.cancellation import cancel_was_lost
from drivers.capabilities import Sample
from drivers.modbus.learned import LearnedRanges, UnitKey, UnitMemory
from drivers.modbus.link import ModbusLink
from drivers.modbus.looking import NobodyThere, Registers
from drivers.modbus.meter import MeterDevice
from drivers.modbus.polling import MeterPoll
from drivers.modbus.sunspec import PROFILES, Layout, NotSunSpec, bind, layout_from, walk
from drivers.profiles.model import MeterProfile
from wire.points import COUNTERS, EVENT_POINTS

log = structlog.get_logger()

UNPOLLED = frozenset({"serial_number", "ct_ratio", "vt_ratio", *EVENT_POINTS})
"""What is read at boundaries and after them alone."""
WALK_S = 5.0
"""The start waits so long for a meter's directory that was never read before."""
WALK_AGAIN_S = 30.0


@dataclass(slots=True)
class MeterPort:
    """One meter: its device, its link, what is polled, and the subscription."""

    device: MeterDevice
    link: ModbusLink
    points: tuple[str, ...]
    energy: tuple[str, ...]
    period_s: float
    serial: bool
    """True on a serial line: boundary readings may be 3 s late."""
    found: bool = True
    """False for a meter that describes itself (SunSpec) and whose directory was never read: it is not polled."""
    subscription: MeterPoll | None = None

    def poll(self, on_sample: Callable[[Sample], None]) -> None:
        """Begin to poll, once it is known where the values are."""
        if self.found and self.subscription is None:
            self.subscription = MeterPoll(self.link, self.device, self.points, self.period_s, on_sample)

    def aim(self, layout: Layout) -> None:
        """Take the values from where the meter's directory says they are."""
        profile, fixed = bind(layout)
        memory = self.device.memory
        self.device = MeterDevice(self.device.id, self.device.unit, profile, memory, fixed)
        self.points, self.energy = _points(profile)
        self.found = True

    async def find(self) -> bool:
        """Read the meter's directory and remember it; False where it cannot be read now."""
        if self.found:
            return True
        try:
            layout = await walk(Registers(self.link, self.device.unit))
        except (NobodyThere, NotSunSpec) as error:
            log.warning("meter_directory_not_read", device=self.device.id, reason=str(error))
            return False
        memory = self.device.memory
        memory.facts.layout = layout.document()
        memory.save()
        self.aim(layout)
        log.info("meter_directory_read", device=self.device.id, model=layout.model, address=layout.addr)
        return True

    async def find_at_start(self) -> None:
        """The same within :data:`WALK_S`, so that a dead meter does not hold up the start."""
        try:
            async with asyncio.timeout(WALK_S):
                await self.find()
        except TimeoutError:
            log.warning("meter_directory_not_read", device=self.device.id, reason=f"no answer within {WALK_S:g} s")

    async def find_later(self, on_sample: Callable[[Sample], None]) -> None:
        """Try until it is found, then poll. Its energies become evidence at the agent's next start."""
        while not cancel_was_lost():
            await asyncio.sleep(WALK_AGAIN_S)
            if await self.find():
                log.warning("meter_found_late", device=self.device.id, advice="restart the agent to bind its energies")
                self.poll(on_sample)
                return


def meter_port(
    device: Device, profile: MeterProfile, link: ModbusLink, *, serial: bool, learned: LearnedRanges | None
) -> MeterPort:
    """The port of one meter of the site file."""
    memory = UnitMemory(UnitKey(device.link, device.unit, profile.id, profile.version), learned)
    points, energy = _points(profile)
    port = MeterPort(
        MeterDevice(device.id, device.unit, profile, memory), link, points, energy, device.period_s, serial
    )
    if profile.id in PROFILES:
        layout = layout_from(memory.facts.layout)
        port.found = False
        if layout is not None:
            port.aim(layout)
    return port


def _points(profile: MeterProfile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is polled, and what is read at the boundaries of slots."""
    known = profile.point_ids
    energy = tuple(p for p in known if p in COUNTERS) + (("serial_number",) if "serial_number" in known else ())
    return tuple(p for p in known if p not in UNPOLLED), energy
