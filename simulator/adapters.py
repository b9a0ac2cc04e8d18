"""The plant as the device servers want to see it: one machine, one rack PDU."""

from __future__ import annotations

import re
from collections.abc import Callable

from config.devices import Device, MinerGroup
from config.nodes import Switch
from simulator.devices.models import Done, Mode, Nameplate, PoolSetting
from simulator.faults import DeviceFaults
from simulator.machine import Machine, MachineState
from simulator.plant import Plant


class PlantMachine:
    """:class:`simulator.devices.models.MachineModel` over one machine of the plant."""

    def __init__(self, plant: Plant, machine: Machine, group: MinerGroup, number: int) -> None:
        self.dead = False
        """Fault: its control board does not answer; it goes on drawing power."""
        self._plant = plant
        self._machine = machine
        self._via = group.via
        self._mode = int(Mode.NORMAL)
        code = (sum(group.id.encode()) * 7919 + number) & 0xFFFFFF
        mac = bytes((0x02, 0x53)) + (code << 8 | number & 0xFF).to_bytes(4, "big")
        self.nameplate = Nameplate(
            model=group.model,
            hashrate_ths=group.nominal_ths,
            power_w=group.nameplate_w,
            sleep_w=group.sleep_w,
            serial=f"SIM{code:06X}{number:07d}",
            mac=mac.hex(":"),
        )
        self.pools: tuple[PoolSetting, ...] = (PoolSetting(user=f"{group.id}.{number:04d}"),)

    @property
    def mode(self) -> int:
        """Work mode as configured."""
        return int(Mode.SLEEP) if self._machine.sleep_mode else self._mode

    @mode.setter
    def mode(self, value: int) -> None:
        self._mode = value

    def powered(self) -> bool:
        """False where nothing can answer: no mains, still booting, dead, or its network switch is dark."""
        plant = self._plant
        return not self.dead and self._machine.api_up(plant.now_s) and plant.supplies.reachable(self._via)

    def asleep(self) -> bool:
        """True while the firmware says that it sleeps."""
        return self._machine.sleep_mode

    def hashrate_ths(self) -> float:
        """Hash rate now."""
        return self._machine.hashrate_ths

    def power_w(self) -> float:
        """Power drawn now."""
        return self._machine.draw_w

    def temperature_c(self) -> float:
        """Hottest chip, from the draw."""
        return 22.0 + 50.0 * min(1.0, self._machine.draw_w / self._machine.full_w)

    def uptime_s(self) -> float:
        """Since mains on."""
        return max(0.0, self._plant.now_s - self._machine.booted_s) if self._machine.powered else 0.0

    def request_sleep(self, ready: Done | None = None) -> None:  # noqa: ARG002 - the plant does not say when
        """Configure sleep."""
        self._machine.request_sleep(self._plant.now_s)

    def request_wake(self, mode: int = Mode.NORMAL) -> None:
        """Configure a mode that mines."""
        if self._machine.request_wake(self._plant.now_s):
            self._mode = int(mode)

    @property
    def state(self) -> MachineState:
        """What the machine is doing."""
        return self._machine.state


class PlantPdu:
    """:class:`simulator.devices.snmp_pdu.PduModel` over the switches that the site file puts on one PDU's outlets."""

    def __init__(self, plant: Plant, device: Device, faults: DeviceFaults, changed: Callable[[], None]) -> None:
        self._plant = plant
        self._device = device
        self._faults = faults
        self._changed = changed
        self._outlets: dict[int, str] = {}
        for node in plant.site.nodes:
            if isinstance(node, Switch) and node.control is not None and node.control.device == device.id:
                self._outlets[outlet_number(node.control.output)] = node.id
        self._registers = next((r for r in plant.registers.values() if r.point.device == device.id), None)
        self._counted_wh = 0.0
        plant.on_elapsed.append(self._count)

    @property
    def outlets(self) -> int:
        """How many outlets it has: as many as the site file uses, eight at least."""
        return max(8, *self._outlets, 0)

    def powered(self) -> bool:
        """Its electronics have power and work."""
        plant, device = self._plant, self._device
        return not self._faults.dead and plant.supplies.has_power(device.id) and plant.supplies.link_up(device.link)

    def power_w(self) -> float:
        """What its metering point measures, or else the sum of its outlets."""
        if self._registers is not None:
            return self._registers.power_w
        return sum(self._plant.node_power_w.get(node, 0.0) for node in self._outlets.values())

    def energy_wh(self) -> float:
        """Energy counter."""
        return self._registers.imported.reading if self._registers is not None else self._counted_wh

    def voltage_v(self) -> float:
        """Line to neutral at its inlet."""
        return 230.0 * self._plant.voltage_pu

    def outlet_on(self, outlet: int) -> bool:
        """State of the outlet's relay; an outlet that nothing hangs on is on."""
        node = self._outlets.get(outlet)
        return True if node is None else self._plant.switches[node].closed

    def outlet_power_w(self, outlet: int) -> float:
        """Power of one outlet."""
        return self._plant.node_power_w.get(self._outlets.get(outlet, ""), 0.0)

    def set_outlet(self, outlet: int, on: bool) -> None:
        """Drive the outlet's relay."""
        node = self._outlets.get(outlet)
        if node is not None:
            self._plant.operate(node, on)
            self._changed()

    def _count(self, seconds: float) -> None:
        self._counted_wh += self.power_w() * seconds / 3600.0


def outlet_number(output: str) -> int:
    """Number of an outlet in a site file's ``output``: ``7``, ``outlet_7``, ``outlet-07``.

    Raises:
        ValueError: it ends with no number.
    """
    found = re.search(r"(\d{1,4})$", output)
    if found is None:
        raise ValueError(f"output: saw {output!r}, expected the outlet's number at its end, such as outlet_7")
    return int(found.group(1))
