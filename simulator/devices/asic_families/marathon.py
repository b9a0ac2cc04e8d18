"""Marathon's firmware, simulated: everything behind a digest log-in, mode and power target in one configuration."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable
from time import time

from simulator.devices.asic_answers import Json
from simulator.devices.asic_families.web_only import Page, Request, WebMiner, logged_in
from simulator.devices.models import MachineModel

REALM = "kaonsu"
ROOT = "/kaonsu/v1/"


def brief(machine: MachineModel) -> Json:
    """``brief``: rates in TH/s and GH/s side by side, as open tools read them."""
    mining = machine.hashrate_ths() > 0
    return {
        "status": "Mining" if mining else "Sleeping",
        "elapsed": int(machine.uptime_s()),
        "hashrate_realtime": round(machine.hashrate_ths(), 3),
        "hashrate_ideal": machine.nameplate.hashrate_ths * 1000,
        "power_consumption_estimated": round(machine.power_w(), 1),
    }


def hashboards(machine: MachineModel) -> Json:
    """``hashboards``."""
    plate = machine.nameplate
    per_board = machine.hashrate_ths() * 1000 / plate.boards
    return {
        "hashboards": [
            {
                "index": at,
                "hashrate_average": round(per_board, 2),
                "temperature_pcb": [48, 50],
                "temperature_chip": [60, 63],
                "asic_num": plate.chips_per_board,
                "serial_number": f"{plate.serial}-{at}",
            }
            for at in range(plate.boards)
        ]
    }


class MarathonMiner(WebMiner):
    """MARAFW on one machine.

    Args:
        machine: the machine behind.
        user: of the log-in.
        password: of the log-in.
        time_scale: delays of the firmware are divided by it.
        wall: UTC clock in seconds.
    """

    def __init__(
        self,
        machine: MachineModel,
        *,
        user: str = "root",
        password: str = "root",  # noqa: S107 - the vendor's default, for a simulated machine
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self._user = user
        self._password = password
        self._nonce = secrets.token_hex(16)
        self.config: Json = {
            "pools": [{"url": pool.url, "user": pool.user, "pass": "x"} for pool in machine.pools],
            "fan": {"mode": "auto"},
            "mode": {
                "work-mode-selector": "Stock",
                "concorde": {"mode-select": "Hashrate", "power-target": 3000, "hash-target": 90},
            },
        }
        """Its configuration; for tests."""

    def page(self, request: Request) -> Page:
        """See :class:`WebMiner`."""
        if not logged_in(request, user=self._user, password=self._password, realm=REALM, nonce=self._nonce):
            challenge = f'Digest realm="{REALM}", nonce="{self._nonce}", qop="auth"'
            return Page({"error": "unauthorized"}, 401, challenge)
        plate = self.machine.nameplate
        match request.method, request.path.removeprefix(ROOT):
            case "GET", "brief":
                return Page(brief(self.machine))
            case "GET", "hashboards":
                return Page(hashboards(self.machine))
            case "GET", "fans":
                return Page({"fans": [{"current_speed": 4200} for _ in range(plate.fans)]})
            case "GET", "overview":
                return Page({"mac": plate.mac, "version_firmware": "2025.1.0", "model": plate.model})
            case "GET", "miner_config":
                return Page(self.config)
            case "POST", "miner_config":
                return self._write(request.json())
            case _:
                return Page({"error": "not found"}, 404)

    def _write(self, body: Json) -> Page:
        mode = body.get("mode")
        selector = mode.get("work-mode-selector") if isinstance(mode, dict) else None
        if not isinstance(body.get("pools"), list) or not isinstance(selector, str):
            return Page({"error": "invalid configuration"}, 400)
        if self.faults.refuses_sleep and selector == "Sleep":
            return Page({"status": "ok"})
        self.config = copy.deepcopy(body)
        if selector == "Sleep":
            self.go_to_sleep()
        else:
            self.machine.request_wake()
        return Page({"status": "ok"})
