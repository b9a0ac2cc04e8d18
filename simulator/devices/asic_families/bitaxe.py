"""ESP-Miner, simulated: one page of everything, pause and resume from version 2.14 on."""

from __future__ import annotations

from collections.abc import Callable
from time import time

from simulator.devices.asic_answers import Json
from simulator.devices.asic_families.web_only import Page, Request, WebMiner
from simulator.devices.models import MachineModel


def system_info(machine: MachineModel, *, pauses: bool) -> Json:
    """``/api/system/info``; ``miningPaused`` only from versions that can be paused."""
    plate, uptime = machine.nameplate, int(machine.uptime_s())
    host, _, port = machine.pools[0].url.partition("//")[2].partition(":")
    info: Json = {
        "ASICModel": "BM1370",
        "asicCount": plate.boards * plate.chips_per_board,
        "boardVersion": "601",
        "version": "v2.14.0" if pauses else "v2.9.0",
        "hostname": "sim",
        "macAddr": plate.mac.upper(),
        "hashRate": round(machine.hashrate_ths() * 1000, 3),
        "expectedHashrate": plate.hashrate_ths * 1000,
        "power": round(machine.power_w(), 3),
        "voltage": 5175,
        "temp": 55.5,
        "vrTemp": 60,
        "fanrpm": 3500,
        "uptimeSeconds": uptime,
        "sharesAccepted": uptime // 4,
        "sharesRejected": 0,
        "stratumURL": host,
        "stratumPort": int(port or 3333),
        "stratumUser": machine.pools[0].user,
        "isUsingFallbackStratum": 0,
        "overheat_mode": 0,
    }
    if pauses:
        info["miningPaused"] = machine.asleep()
    return info


class BitaxeMiner(WebMiner):
    """ESP-Miner on one machine.

    Args:
        machine: the machine behind.
        pauses: whether its version knows pause and resume.
        time_scale: delays of the firmware are divided by it.
        wall: UTC clock in seconds.
    """

    def __init__(
        self,
        machine: MachineModel,
        *,
        pauses: bool = True,
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self._pauses = pauses

    def page(self, request: Request) -> Page:
        """See :class:`WebMiner`."""
        match request.method, request.path:
            case "GET", "/api/system/info":
                return Page(system_info(self.machine, pauses=self._pauses))
            case "POST", "/api/system/pause" if self._pauses:
                self.go_to_sleep()
                return Page({"message": "paused"})
            case "POST", "/api/system/resume" if self._pauses:
                self.machine.request_wake()
                return Page({"message": "resumed"})
            case _:
                return Page({"error": "not found"}, 404)
