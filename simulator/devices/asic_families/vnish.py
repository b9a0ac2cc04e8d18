"""Simulated VNish: the web interface with open reads and writes behind a token, and a JSON socket that names it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import time
from typing import Any

from simulator.devices.asic_families.session_web import WebAnswer, WebRequest, WebServer
from simulator.devices.asic_server import Json
from simulator.devices.models import MachineModel

ROOT = "/api/v1/"
VERSION = "1.2.7"
PRESETS_W = (1500, 2000, 2500, 3000, 3500)
RAISED_PRESET_W = 4000
"""Only for a modified power supply."""
MAX_LOG_INS = 5


class SimulatedVnish(WebServer):
    """One machine. A preset is taken note of; the draw behind does not follow it.

    Args:
        password: of the web interface; after five wrong ones it answers HTTP 429.
        metered: the power supply measures.
        restart_wanted: says after a saved setting that mining has to be restarted for it.
    """

    description = "cgminer 4.11.1"

    def __init__(
        self,
        machine: MachineModel,
        *,
        password: str = "admin",  # noqa: S107 - the vendor's default, for a simulated machine
        metered: bool = True,
        restart_wanted: bool = False,
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self.overclock: Json = {
            "modded_psu": False,
            "preset": "3000",
            "globals": {"volt": 1270, "freq": 555},
            "preset_switcher": {"enabled": True, "top_preset": "3500", "min_preset": "1500"},
        }
        self.failure: str | None = None
        """Why it failed; then its state is ``failure``."""
        self._password = password
        self._metered = metered
        self._restart_wanted = restart_wanted
        self._sessions: set[str] = set()
        self._wrong = 0

    def forget_sessions(self) -> None:
        """What a restart of the machine does."""
        self._sessions.clear()

    def answer(self, command: str, parameter: str) -> Json:
        """See :class:`AsicServer`."""
        del parameter
        head = {"Type": f"{self.machine.nameplate.model} (Vnish {VERSION})", "Miner": "0.0.0", "Cgminer": VERSION}
        return self.common_reading(command, head) or self.error(0, "Invalid command")

    def page(self, request: WebRequest) -> WebAnswer:
        """See :class:`WebServer`."""
        path = request.path.removeprefix(ROOT)
        if request.method == "GET" and path in ("summary", "info", "status"):
            return WebAnswer(200, {"summary": self._summary, "info": self._info, "status": self._status}[path]())
        if (request.method, path) == ("POST", "unlock"):
            return self._unlock(request)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self._sessions:
            return WebAnswer(401, {"err": "unauthorized"})
        match request.method, path:
            case "GET", "settings":
                return WebAnswer(200, {"miner": {"overclock": self.overclock, "pools": []}})
            case "GET", "autotune/presets":
                return WebAnswer(200, self._presets())
            case "POST", "settings":
                return self._save(request)
            case "POST", "mining/stop":
                if self.faults.denies_sleep:
                    return WebAnswer(200, {"success": False})
                self.go_to_sleep()
            case "POST", "mining/start":
                if self.machine.asleep():
                    self.machine.request_wake()
            case "POST", "mining/restart":
                pass
            case _:
                return WebAnswer(404, {"err": "not found"})
        self.wrote()
        return WebAnswer(200, {"success": True})

    def _unlock(self, request: WebRequest) -> WebAnswer:
        if self._wrong >= MAX_LOG_INS:
            return WebAnswer(429, {"err": "too many requests"}, (("Retry-After", "30"),))
        if request.field("pw") != self._password:
            self._wrong += 1
            return WebAnswer(403, {"err": "wrong password"})
        session = secrets.token_hex(8)
        self._sessions.add(session)
        return WebAnswer(200, {"token": session})

    def _save(self, request: WebRequest) -> WebAnswer:
        miner = request.field("miner")
        overclock = miner.get("overclock") if isinstance(miner, dict) else None
        if not isinstance(overclock, dict) or not isinstance(overclock.get("preset"), str):
            return WebAnswer(500, {"err": "invalid settings"})
        self.overclock = overclock
        self.wrote()
        return WebAnswer(200, {"restart_required": self._restart_wanted, "reboot_required": False})

    def _presets(self) -> list[Json]:
        rows: list[Json] = [
            {"name": "disabled", "pretty": "Disabled", "status": "untuned", "modded_psu_required": False}
        ]
        for watts in (*PRESETS_W, RAISED_PRESET_W):
            raised = watts == RAISED_PRESET_W
            pretty = f"{watts} watt ~ {watts // 15} TH"
            rows.append({"name": str(watts), "pretty": pretty, "status": "tuned", "modded_psu_required": raised})
        return rows

    def _state(self) -> Json:
        if self.failure is not None:
            return {"miner_state": "failure", "miner_state_time": 0, "failure_code": 8, "description": self.failure}
        if self.machine.asleep():
            return {"miner_state": "stopped", "miner_state_time": 0}
        return {"miner_state": "mining", "miner_state_time": int(self.machine.uptime_s())}

    def _status(self) -> Json:
        return {**self._state(), "find_miner": False, "unlocked": False}

    def _info(self) -> Json:
        plate = self.machine.nameplate
        return {
            "miner": plate.model,
            "fw_name": "Vnish",
            "fw_version": VERSION,
            "hr_measure": "GH/s",
            "system": {"network_status": {"mac": plate.mac.upper()}},
            "serial": plate.serial,
        }

    def _summary(self) -> Json:
        machine, plate = self.machine, self.machine.nameplate
        ghs, nominal = machine.hashrate_ths() * 1000, plate.hashrate_ths * 1000
        chain_state = "stopped" if machine.asleep() else "mining"
        chains = [
            {
                "id": n + 1,
                "hashrate_rt": ghs / plate.boards,
                "hashrate_ideal": nominal / plate.boards,
                "chip_temp": {"min": 55, "max": 65},
                "pcb_temp": {"min": 40, "max": 50},
                "chip_statuses": {"red": 0, "orange": 6, "grey": plate.chips_per_board - 6},
                "status": {"state": chain_state},
            }
            for n in range(plate.boards)
        ]
        pools: list[dict[str, Any]] = [
            {
                "id": n,
                "url": pool.url,
                "pool_type": "UserPool",
                "user": pool.user,
                "status": "active" if n == 0 else "working",
                "accepted": 1599,
                "rejected": 9,
            }
            for n, pool in enumerate(machine.pools)
        ]
        pools.append({"id": len(pools), "url": "DevFee", "pool_type": "DevFee", "user": "DevFee", "status": "active"})
        return {
            "miner": {
                "miner_status": self._state(),
                "miner_type": f"{plate.model} (Vnish {VERSION})",
                "hr_realtime": ghs,
                "hr_nominal": nominal,
                "chip_temp": {"min": 54, "max": 65},
                "pcb_temp": {"min": 39, "max": 50},
                "power_usage": round(machine.power_w()),
                "pools": pools,
                "cooling": {"fans": [{"id": n, "rpm": 5880, "status": "ok"} for n in range(plate.fans)]},
                "chains": chains,
                "psu": {"psu_power_metering": self._metered},
            }
        }
