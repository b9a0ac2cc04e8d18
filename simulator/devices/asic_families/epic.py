"""ePIC's PowerPlay, simulated: HTTP where others have the JSON socket, the password in the body of a command."""

from __future__ import annotations

from collections.abc import Callable
from time import time

from simulator.devices.asic_answers import Json
from simulator.devices.asic_families.web_only import Page, Request, WebMiner
from simulator.devices.models import MachineModel


def summary(machine: MachineModel, *, pool_connected: bool = True) -> Json:
    """``/summary``."""
    plate, rate, uptime = machine.nameplate, machine.hashrate_ths(), int(machine.uptime_s())
    idle = machine.asleep() or not pool_connected
    per_board = 0.0 if idle else rate * 1e6 / plate.boards
    degrees = round(25 + 40 * rate / plate.hashrate_ths, 1)
    speeds = {f"Fans Speed {at}": 5800 if at <= plate.fans else None for at in range(1, 13)}
    pool = machine.pools[0]
    return {
        "Software": "PowerPlay-BMS v1.15.0",
        "Hostname": "sim",
        "Status": {
            "Operating State": "Idling" if idle else "Mining",
            "Last Command": None,
            "Last Command Result": None,
            "Last Error": None,
        },
        "Session": {"Accepted": uptime // 4, "Rejected": uptime // 4000, "Uptime": uptime, "Active HBs": plate.boards},
        "Stratum": {
            "Current Pool": pool.url.partition("//")[2],
            "Current User": pool.user,
            "IsPoolConnected": pool_connected,
        },
        "StratumConfigs": [{"pool": each.url, "login": each.user, "password": "x"} for each in machine.pools],
        "HBStatus": [{"Index": at, "Detected": True, "Enabled": True} for at in range(plate.boards)],
        "HBs": [
            {"Index": at, "Hashrate": [per_board, 100.0, 0.8], "Temperature": degrees, "Input Power": 0.0}
            for at in range(plate.boards)
        ],
        "Fans Rpm": speeds,
        "Power Supply Stats": {"Input Power": round(machine.power_w(), 3), "Output Voltage": 12.6},
        "PerpetualTune": {
            "Running": True,
            "Algorithm": {"ChipTune": {"Target": plate.hashrate_ths, "Unit": "TH/s", "Optimized": True}},
        },
    }


def capabilities(machine: MachineModel) -> Json:
    """``/capabilities``."""
    plate = machine.nameplate
    return {
        "Model": plate.model,
        "Max HBs": plate.boards,
        "Performance Estimator": {"Chip Count": plate.chips_per_board},
        "Control Board Version": {"cpuHardware": "STM32", "cpuSerial": plate.serial},
    }


class EpicMiner(WebMiner):
    """PowerPlay on one machine.

    Args:
        machine: the machine behind.
        password: what a command has to carry.
        time_scale: delays of the firmware are divided by it.
        wall: UTC clock in seconds.
    """

    def __init__(
        self,
        machine: MachineModel,
        *,
        password: str = "letmein",  # noqa: S107 - the vendor's default, for a simulated machine
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self.pool_connected = True
        """False lets it idle without a command, as its firmware does."""
        self._password = password

    def page(self, request: Request) -> Page:
        """See :class:`WebMiner`."""
        match request.method, request.path:
            case "GET", "/summary":
                return Page(summary(self.machine, pool_connected=self.pool_connected))
            case "GET", "/capabilities":
                return Page(capabilities(self.machine))
            case "GET", "/network":
                return Page({"dhcp": {"mac_address": self.machine.nameplate.mac.upper(), "address": "10.0.0.2"}})
            case "POST", "/miner":
                return self._command(request.json())
            case _:
                return Page({"result": False, "error": "not found"}, 404)

    def _command(self, body: Json) -> Page:
        if body.get("password") != self._password:
            # It is said to repeat what it was given; a driver must not pass that on.
            return Page({"result": False, "error": f"invalid password {body.get('password')}"})
        if body.get("param") == "Stop":
            self.go_to_sleep()
        elif body.get("param") == "Autostart":
            self.machine.request_wake()
        else:
            return Page({"result": False, "error": "invalid parameter"})
        return Page({"result": True, "error": None})
