"""Simulated Auradine: the JSON socket for rates and pools, the web interface with a token for everything else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from time import time

from simulator.devices.asic_families.session_web import WebAnswer, WebRequest, WebServer
from simulator.devices.asic_server import Json
from simulator.devices.models import MachineModel

SOFTWARE = "2024-06.11"


class SimulatedAuradine(WebServer):
    """One machine. A power limit is taken note of; the draw behind does not follow it.

    Args:
        rpc_closed_asleep: closes the JSON socket's connections while asleep.
    """

    description = f"FluxOS-{SOFTWARE}-d37c5dd4a7f8"

    def __init__(
        self,
        machine: MachineModel,
        *,
        user: str = "admin",
        password: str = "admin",  # noqa: S107 - the vendor's default, for a simulated machine
        rpc_closed_asleep: bool = False,
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self.mode: Json = {"Mode": "normal"}
        """``Mode``, ``Tune``, ``Power`` and ``Ths`` as configured."""
        self.led = "Normal"
        self._user = user
        self._password = password
        self._rpc_closed_asleep = rpc_closed_asleep
        self._tokens: set[str] = set()

    def forget_sessions(self) -> None:
        """What a restart of the machine does."""
        self._tokens.clear()

    def answer(self, command: str, parameter: str) -> Json:
        """See :class:`AsicServer`."""
        del parameter
        if "+" in command:
            return self.error(14, "Invalid command")
        plate, mhs, uptime = self.machine.nameplate, self.machine.hashrate_ths() * 1e6, int(self.machine.uptime_s())
        match command:
            case "version":
                return self.ok(22, "GCMiner versions", "VERSION", [{"API": "1.0", "GCMiner": "0.5"}])
            case "summary":
                row = {"Elapsed": uptime, "MHS 5s": mhs, "MHS 1m": mhs, "MHS av": mhs, "Accepted": uptime // 4}
                return self.ok(11, "Summary", "SUMMARY", [row])
            case "devs":
                devs = [
                    {"ID": n + 1, "MHS 5s": mhs / plate.boards, "Status": "Alive", "Temperature": 28.25}
                    for n in range(plate.boards)
                ]
                return self.ok(9, f"{plate.boards} Dev(s)", "DEVS", devs)
            case "pools":
                return self.common_reading("pools", {}) or {}
            case _:
                return self.error(14, "Invalid command")

    def admits(self, transport: asyncio.Transport) -> bool:
        """See :class:`AsicServer`."""
        if self._rpc_closed_asleep and self.machine.asleep():
            transport.abort()
            return False
        return super().admits(transport)

    def page(self, request: WebRequest) -> WebAnswer:
        """See :class:`WebServer`."""
        if (request.method, request.path) == ("POST", "/token"):
            if (request.field("user"), request.field("password")) != (self._user, self._password):
                return WebAnswer(200, self.error(500, "Invalid user or password"))
            token = secrets.token_hex(8)
            self._tokens.add(token)
            return WebAnswer(200, self.ok(501, "Token", "Token", [{"Token": token}]))
        if request.headers.get("token") not in self._tokens:
            return WebAnswer(401, self.error(401, "Token expired"))
        if (request.method, request.path) == ("POST", "/mode"):
            return self._set_mode(request)
        pages: dict[str, Callable[[], Json]] = {
            "/psu": lambda: self.ok(570, "PSU status", "PSU", [{"PowerIn": f"{self.machine.power_w():.2f}W"}]),
            "/mode": self._mode,
            "/fan": self._fans,
            "/temperature": self._temperatures,
            "/ipreport": self._report,
            "/led": lambda: self.ok(530, "LEDs", "LED", [{"Code": 2, "Msg": self.led}]),
            "/asccount": self._chips,
        }
        if request.method != "GET" or request.path not in pages:
            return WebAnswer(404, self.error(14, "Invalid command"))
        return WebAnswer(200, pages[request.path]())

    def _set_mode(self, request: WebRequest) -> WebAnswer:
        sleep, mode = request.field("sleep"), request.field("mode")
        if sleep == "on":
            if self.faults.denies_sleep:
                return WebAnswer(200, self.error(541, "Not allowed"))
            self.go_to_sleep()
        elif sleep == "off":
            if self.machine.asleep():
                self.machine.request_wake()
        elif mode in ("eco", "normal", "turbo"):
            self.mode = {"Mode": mode}
        elif mode == "custom" and request.field("tune") == "power" and isinstance(request.field("power"), int):
            self.mode = {"Mode": "custom", "Tune": "power", "Power": request.field("power")}
        elif mode == "custom" and request.field("tune") == "ths":
            self.mode = {"Mode": "custom", "Tune": "ths", "Ths": request.field("ths")}
        else:
            return WebAnswer(200, self.error(541, "Invalid mode"))
        self.wrote()
        return WebAnswer(200, self._mode())

    def _mode(self) -> Json:
        row = {**self.mode, "Sleep": "on" if self.machine.asleep() else "off"}
        return self.ok(540, "Operating mode", "Mode", [row])

    def _fans(self) -> Json:
        fans = [{"ID": n + 1, "Max": 7700, "Speed": 7080} for n in range(self.machine.nameplate.fans)]
        return self.ok(510, "Total fans", "Fan", fans)

    def _temperatures(self) -> Json:
        boards = [
            {
                "ID": n + 1,
                "Name": f"Hash Board {n + 1}",
                "BoardTemp": [{"ID": 0, "Temperature": 41.5}],
                "ChipTemp": [{"ID": 0, "Temperature": 55.25}],
            }
            for n in range(self.machine.nameplate.boards)
        ]
        return self.ok(590, "System temperature", "Temperature", boards)

    def _report(self) -> Json:
        plate = self.machine.nameplate
        row = {"SerialNo": plate.serial, "mac": plate.mac, "model": plate.model, "version": SOFTWARE}
        return self.ok(620, "IP Report", "IPReport", [row])

    def _chips(self) -> Json:
        plate = self.machine.nameplate
        row = {"AsicCount": plate.boards * plate.chips_per_board, "BoardCount": plate.boards}
        return self.ok(104, "ASC count", "ASCCount", [row])
