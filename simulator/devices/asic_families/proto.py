"""A Proto rig, simulated: REST with a token for the password; what it is, it tells everybody."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import time

from simulator.devices.asic_answers import Json
from simulator.devices.asic_families.web_only import Page, Request, WebMiner
from simulator.devices.models import MachineModel

ROOT = "/api/v1/"
DENIED = Page({"error": {"code": "UNAUTHORIZED", "message": "token"}}, 401)


def mining(machine: MachineModel) -> Json:
    """``mining``."""
    uptime = int(machine.uptime_s())
    return {
        "mining-status": {
            "status": "Stopped" if machine.asleep() else "Mining",
            "hashrate_ghs": machine.hashrate_ths() * 1000,
            "ideal_hashrate_ghs": machine.nameplate.hashrate_ths * 1000,
            "power_usage_watts": machine.power_w(),
            "average_asic_temp_c": 61.5,
            "mining_uptime_s": uptime,
            "reboot_uptime_s": uptime,
        }
    }


def telemetry(machine: MachineModel) -> Json:
    """``telemetry?level=hashboard``."""
    plate = machine.nameplate
    per_board = machine.hashrate_ths() / plate.boards
    heat = {"average": 55.0, "inlet": 45.0, "outlet": 62.0, "unit": "\N{DEGREE SIGN}C"}
    rows = [
        {"index": at, "hashrate": {"unit": "TH/s", "value": per_board}, "temperature": heat}
        for at in range(plate.boards)
    ]
    return {"hashboards": rows}


class ProtoMiner(WebMiner):
    """One rig.

    Args:
        machine: the machine behind.
        password: of the log-in.
        time_scale: delays of the firmware are divided by it.
        wall: UTC clock in seconds.
    """

    def __init__(
        self,
        machine: MachineModel,
        *,
        password: str = "proto",  # noqa: S107 - for a simulated machine
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self._password = password
        self.token = secrets.token_hex(16)
        """The token that counts; a test makes all others expire by changing it."""

    def page(self, request: Request) -> Page:
        """See :class:`WebMiner`."""
        plate, name = self.machine.nameplate, request.path.removeprefix(ROOT)
        if (request.method, name) == ("POST", "auth/login"):
            right = request.json().get("password") == self._password
            return Page({"access_token": self.token}) if right else DENIED
        if name == "system":
            info = {
                "manufacturer": "Proto",
                "product_name": "Proto Rig",
                "cb_sn": plate.serial,
                "os": {"version": "1.8"},
            }
            return Page({"system-info": info})
        if name == "network":
            return Page({"network-info": {"mac": plate.mac}})
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return DENIED
        return self._inside(request.method, name)

    def _inside(self, method: str, name: str) -> Page:
        machine = self.machine
        match method, name:
            case "GET", "mining":
                return Page(mining(machine))
            case "GET", "telemetry":
                return Page(telemetry(machine))
            case "GET", "cooling":
                fans = [{"slot": at, "rpm": 4300} for at in range(machine.nameplate.fans)]
                return Page({"cooling-status": {"fans": fans}})
            case "GET", "pools":
                rows = [{"url": p.url, "user": p.user, "status": "Active", "accepted": 9} for p in machine.pools]
                return Page({"pools": rows})
            case "POST", "mining/stop":
                self.go_to_sleep()
                return Page({"message": "stopping"})
            case "POST", "mining/start":
                machine.request_wake()
                return Page({"message": "starting"})
            case _:
                return Page({"error": {"code": "NOT_FOUND"}}, 404)
