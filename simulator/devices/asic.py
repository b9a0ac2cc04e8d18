"""Simulated ASIC miners: servers on real sockets that speak the firmwares' protocols, over a machine model.

The servers know the protocol, the machine model knows the physics (:mod:`simulator.devices.models`). Without power
nothing answers: connections are reset at once.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from time import time

from simulator.devices import asic_answers as say
from simulator.devices.asic_answers import Json
from simulator.devices.asic_http import DigestSite, HttpConnection
from simulator.devices.asic_server import AsicServer, Faults, JsonServer
from simulator.devices.models import MachineModel, Mode

__all__ = ["AsicServer", "Faults", "LuxosMiner", "StockAntminer"]

PRIVILEGED = ("restart", "quit", "addpool", "removepool", "switchpool", "enablepool", "disablepool")
SESSION_LIFE_S = 60.0
SESSION_MIN_LIFE_S = 3.0
"""However fast machines are made, their clients are not: a session outlives a few slow exchanges."""


class StockAntminer(JsonServer):
    """Bitmain's own firmware: single commands on the JSON socket, sleep and wake over HTTP with digest log-in.

    Args:
        write_answer_s: how long a configuration write takes to be answered, before ``time_scale``; 21 s were seen.
        joins: whether ``a+b`` works on the JSON socket (older models).
        rpc_closed_asleep: closes the JSON socket's connections while asleep, as some firmwares do.
    """

    description = "bmminer"
    realm = "antMiner Configuration"

    def __init__(
        self,
        machine: MachineModel,
        *,
        user: str = "root",
        password: str = "root",  # noqa: S107 - the vendor's default, for a simulated machine
        write_answer_s: float = 21.0,
        joins: bool = False,
        rpc_closed_asleep: bool = False,
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self.write_answer_s = write_answer_s
        self.written: list[Json] = []
        """Bodies of configuration writes; for tests."""
        self._joins = joins
        self._rpc_closed_asleep = rpc_closed_asleep
        self._kept: Json = {}
        self._site = DigestSite(self._page, user=user, password=password, realm=self.realm)

    async def stop(self) -> None:
        """See :class:`AsicServer`."""
        await super().stop()
        await self._site.stop()

    def admits(self, transport: asyncio.Transport) -> bool:
        """See :class:`AsicServer`."""
        if self._rpc_closed_asleep and self.machine.asleep():
            transport.abort()
            return False
        return super().admits(transport)

    def answer(self, command: str, parameter: str) -> Json:
        """See :class:`AsicServer`."""
        del parameter
        if "+" in command and self._joins:
            names = command.split("+")[:16]
            return {**{name: [self.answer(name, "")] for name in names}, "id": 1}
        head = say.stock_head(self.machine)
        reading = self.common_reading(command, head)
        if reading is not None:
            return reading
        if command == "version":
            return self.ok(22, "BMMiner versions", "VERSION", [{"API": "3.1", **head}])
        if command in PRIVILEGED:
            return self.error(say.ACCESS_DENIED, f"Access denied to '{command}' command")
        return self.error(say.INVALID_COMMAND, "Invalid command")

    async def _start_http(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> asyncio.Server | None:
        return await loop.create_server(self.web_connection, host, port, backlog=16)

    def web_connection(self) -> asyncio.Protocol:
        """See :class:`AsicServer`."""
        return HttpConnection(self._site, self._admits_http)

    def _admits_http(self, transport: asyncio.Transport) -> bool:
        if self.machine.powered() and not self.faults.http_down:
            return not self.faults.silent
        transport.abort()
        return False

    async def _page(self, method: str, path: str, body: bytes) -> Json | None:
        match method, path.removeprefix("/cgi-bin/"):
            case "GET", "get_miner_conf.cgi":
                return say.stock_conf(self.machine, self._kept)
            case "GET", "get_system_info.cgi":
                return say.stock_system_info(self.machine)
            case "GET", "stats.cgi":
                return say.stock_web_stats(self.machine, self._wall())
            case "GET", "summary.cgi":
                return say.summary(self.machine, self.description, self._wall())
            case "GET", "pools.cgi":
                return say.pools(self.machine, self.description, self._wall())
            case "POST", "set_miner_conf.cgi":
                return await self._write(body)
            case _:
                raise LookupError(path)

    async def _write(self, body: bytes) -> Json | None:
        try:
            conf = json.loads(body)
        except (ValueError, RecursionError):
            conf = None
        if not isinstance(conf, dict) or not isinstance(conf.get("pools"), list):
            return {"stats": "error", "code": "M001", "msg": "Invalid configuration"}
        self.written.append(conf)
        await asyncio.sleep(self.write_answer_s / self._time_scale)
        if self.faults.denies_sleep and conf.get("miner-mode") == Mode.SLEEP:
            return {"stats": "error", "code": "P001", "msg": "Permission denied"}
        if not self.machine.powered():
            return None
        mode = conf.get("miner-mode")
        # With one of the two names alone it answers "OK" and the mode stays, as seen on real ones.
        if isinstance(mode, int) and not isinstance(mode, bool) and conf.get("bitmain-work-mode") == str(mode):
            self._set_mode(mode)
        if self.faults.write_error:
            raise RuntimeError("set_miner_conf.cgi fell over after writing")
        dropped = ("pools", "miner-mode", "bitmain-work-mode")
        self._kept = {key: value for key, value in conf.items() if key not in dropped}
        return {"stats": "success", "code": "M000", "msg": "OK!"}

    def _set_mode(self, mode: int) -> None:
        if mode == self.machine.mode:
            return
        if mode == Mode.SLEEP:
            self.go_to_sleep()
        else:
            self.machine.request_wake(mode)


class LuxosMiner(JsonServer):
    """LuxOS: joined commands and sessions on the JSON socket; ``curtail`` sleeps and wakes; no web interface.

    Args:
        metered: the power supply measures (``PSU: true``); else watts are an estimate.
    """

    description = f"LUXminer {say.LUX_VERSION}-57b389c7"

    def __init__(
        self,
        machine: MachineModel,
        *,
        metered: bool = False,
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self.events: list[Json] = []
        self._metered = metered
        self._session: str | None = None
        self._session_used_s = 0.0

    def open_session(self) -> str:
        """Open a session as somebody else would; returns its id."""
        self._session = secrets.token_hex(4)
        self._session_used_s = asyncio.get_running_loop().time()
        return self._session

    @property
    def session_open(self) -> bool:
        """True while a session lives."""
        if self._session is None:
            return False
        age_s = asyncio.get_running_loop().time() - self._session_used_s
        return age_s < max(SESSION_MIN_LIFE_S, SESSION_LIFE_S / self._time_scale)

    def answer(self, command: str, parameter: str) -> Json:
        """See :class:`AsicServer`."""
        if "+" in command:
            if parameter:
                return self.error(say.INVALID_COMMAND, "Joined commands take no parameters")
            return {**{name: [self.answer(name, "")] for name in command.split("+")[:16]}, "id": 1}
        if command in ("logon", "session", "logoff", "curtail"):
            return self._session_command(command, parameter)
        answer = self.common_reading(command, say.lux_head(self.machine)) or self._reading(command)
        if command == "stats":
            answer["STATS"][1]["miner_id"] = self.machine.nameplate.mac.replace(":", "")
        return answer

    def _reading(self, command: str) -> Json:
        machine = self.machine
        match command:
            case "version":
                version = {"API": "3.7", "LUXminer": f"{say.LUX_VERSION}-57b389c7", **say.lux_head(machine)}
                return self.ok(22, "LUXminer versions", "VERSION", [version])
            case "power":
                return self.ok(311, "Power usage", "POWER", [{"PSU": self._metered, "Watts": round(machine.power_w())}])
            case "config":
                return self.ok(33, "LUXminer config", "CONFIG", [say.lux_config(machine)])
            case "events":
                return self.ok(357, "Miner Events", "EVENTS", self.events)
            case _:
                return self.error(say.INVALID_COMMAND, "Invalid command")

    def _session_command(self, command: str, parameter: str) -> Json:
        if command == "session":
            session = self._session if self.session_open else ""
            return self.ok(319, "Session information", "SESSION", [{"SessionID": session}])
        if command != "logon":
            return self._in_session(command, parameter)
        if self.session_open:
            return self.error(402, "Another session is active")
        return self.ok(316, "Session created", "SESSION", [{"SessionID": self.open_session()}])

    def _in_session(self, command: str, parameter: str) -> Json:
        session, _, action = parameter.partition(",")
        if not self.session_open or session != self._session:
            return self.error(400, "Invalid session")
        self._session_used_s = asyncio.get_running_loop().time()
        if command == "logoff":
            self._session = None
            return self.ok(317, "Session dropped", "SESSION", [])
        if action == "sleep":
            if self.faults.denies_sleep:
                return self.error(say.ACCESS_DENIED, "Curtail is locked")
            self.go_to_sleep()
        elif action.split(",")[0] == "wakeup":
            self.machine.request_wake()
        else:
            return self.error(say.INVALID_COMMAND, "Invalid action")
        row = {"Action": "sleep mode" if action == "sleep" else "wake up"}
        return self.ok(335, "Curtailment command sent", "CURTAIL", [row])
