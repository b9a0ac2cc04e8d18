"""Simulated Braiins OS: the JSON socket, and REST (25.07 and later) or GraphQL (before) behind a log-in."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from time import time
from typing import Any

from simulator.devices.asic_families.session_web import WebAnswer, WebRequest, WebServer
from simulator.devices.asic_server import Json
from simulator.devices.models import MachineModel

FIRMWARE = "2025-11-21-0-eb658dcd-25.11-plus"
OLD_FIRMWARE = "2025-04-07-0-424f9a7f-25.03-plus"
REST = "/api/v1/"
NORMAL, PAUSED = 2, 3
MIN_TARGET_SHARE, MAX_TARGET_SHARE = 0.4, 1.2


class SimulatedBraiins(WebServer):
    """One machine. A power target is taken note of; the draw behind does not follow it.

    Args:
        rest: REST as from 25.07; else GraphQL.
        rpc_closed_asleep: closes the JSON socket's connections while paused.
    """

    description = "BOSer boser-buildroot 0.1.0-eb658dcd"

    def __init__(
        self,
        machine: MachineModel,
        *,
        rest: bool = True,
        user: str = "root",
        password: str = "root",  # noqa: S107 - a simulated machine
        rpc_closed_asleep: bool = False,
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self.rest = rest
        self.power_target_w: int | None = round(machine.nameplate.power_w)
        """``None``: tuned to a hash rate."""
        self._user = user
        self._password = password
        self._rpc_closed_asleep = rpc_closed_asleep
        self._sessions: set[str] = set()

    def forget_sessions(self) -> None:
        """What a restart of the machine does."""
        self._sessions.clear()

    # --- JSON socket ---------------------------------------------------------------------------------------------

    def admits(self, transport: asyncio.Transport) -> bool:
        """See :class:`AsicServer`."""
        if self._rpc_closed_asleep and self.machine.asleep():
            transport.abort()
            return False
        return super().admits(transport)

    def answer(self, command: str, parameter: str) -> Json:
        """See :class:`AsicServer`."""
        del parameter
        if "+" in command:
            return {**{name: [self.answer(name, "")] for name in command.split("+")[:16]}, "id": 1}
        plate = self.machine.nameplate
        match command:
            case "version":
                row = {"API": "3.7", "BOSer": "boser-buildroot 0.1.0-eb658dcd"}
                return self.ok(22, "BOSer versions", "VERSION", [row])
            case "summary":
                return self.ok(11, "Summary", "SUMMARY", [self._summary()])
            case "devs":
                return self.ok(9, f"{plate.boards} ASC(s)", "DEVS", self._devs())
            case "temps":
                heat = [{"Board": 55.0, "Chip": 70.0, "ID": n + 1, "TEMP": n} for n in range(plate.boards)]
                return self.ok(201, "Temps", "TEMPS", heat)
            case "fans":
                fans = [{"FAN": n, "ID": n, "RPM": 5800 + n, "Speed": 100} for n in range(plate.fans)]
                return self.ok(202, "Fans", "FANS", fans)
            case "pools":
                return self.common_reading("pools", {}) or {}
            case "tunerstatus":
                tuner = {"ApproximateMinerPowerConsumption": self._watts(), "PowerLimit": self.power_target_w}
                return self.ok(203, "Tuner Status", "TUNERSTATUS", [tuner])
            case "devdetails":
                details = [
                    {"ID": n + 1, "Model": plate.model, "Chips": plate.chips_per_board} for n in range(plate.boards)
                ]
                return self.ok(69, "Device Details", "DEVDETAILS", details)
            case _:
                return self.error(14, "Invalid command")

    def _watts(self) -> int:
        return round(self.machine.power_w())

    def _summary(self) -> Json:
        mhs, uptime = self.machine.hashrate_ths() * 1e6, int(self.machine.uptime_s())
        return {"Elapsed": uptime, "MHS 5s": mhs, "MHS 1m": mhs, "MHS av": mhs, "Accepted": uptime // 4, "Rejected": 0}

    def _devs(self) -> list[Json]:
        plate = self.machine.nameplate
        mhs, nominal = self.machine.hashrate_ths() * 1e6 / plate.boards, plate.hashrate_ths * 1e6 / plate.boards
        return [
            {"ASC": n, "ID": n + 1, "MHS 5s": mhs, "Nominal MHS": nominal, "Status": "Alive"}
            for n in range(plate.boards)
        ]

    # --- web interface -------------------------------------------------------------------------------------------

    def page(self, request: WebRequest) -> WebAnswer:
        """See :class:`WebServer`."""
        if self.rest and request.path.startswith(REST):
            return self._rest_page(request, request.path.removeprefix(REST))
        if not self.rest and request.path == "/graphql" and request.method == "POST":
            return self._graphql(request)
        return WebAnswer(404, {"error": "not found"})

    def _log_in(self, user: object, password: object) -> str | None:
        if (user, password) != (self._user, self._password):
            return None
        session = secrets.token_hex(8)
        self._sessions.add(session)
        return session

    def _rest_page(self, request: WebRequest, path: str) -> WebAnswer:
        if path == "version/":
            return WebAnswer(200, {"major": 1, "minor": 1, "patch": 0})
        if (request.method, path) == ("POST", "auth/login"):
            session = self._log_in(request.field("username"), request.field("password"))
            if session is None:
                return WebAnswer(401, {"error": "unauthorized"})
            return WebAnswer(200, {"token": session, "timeout_s": 3600})
        if request.headers.get("authorization") not in self._sessions:
            return WebAnswer(401, {"error": "unauthorized"})
        if request.method == "PUT":
            return self._rest_write(request, path)
        pages: dict[str, Callable[[], Any]] = {
            "miner/details": self._details,
            "miner/stats": self._stats,
            "miner/hw/hashboards": self._hashboards,
            "cooling/state": self._cooling,
            "pools/": self._pools,
            "miner/errors": lambda: {"errors": []},
            "configuration/miner": self._configuration,
            "configuration/constraints": self._constraints,
        }
        return WebAnswer(200, pages[path]()) if path in pages else WebAnswer(404, {"error": "not found"})

    def _rest_write(self, request: WebRequest, path: str) -> WebAnswer:
        was_asleep = self.machine.asleep()
        match path:
            case "actions/pause":
                if self.faults.denies_sleep:
                    return WebAnswer(400, {"error": "denied"})
                self.go_to_sleep()
                self.wrote()
                return WebAnswer(200, was_asleep)
            case "actions/resume":
                self._resume()
                return WebAnswer(200, not was_asleep)
            case "performance/power-target":
                watts = request.field("watt")
                if not isinstance(watts, int) or not self._target_fits(watts):
                    return WebAnswer(400, {"error": "out of range"})
                self.power_target_w = watts
                self.wrote()
                return WebAnswer(200, {"watt": watts})
            case _:
                return WebAnswer(404, {"error": "not found"})

    def _resume(self) -> None:
        if self.machine.asleep():
            self.machine.request_wake()
        self.wrote()

    def _bounds(self) -> tuple[int, int]:
        full_w = self.machine.nameplate.power_w
        return round(full_w * MIN_TARGET_SHARE), round(full_w * MAX_TARGET_SHARE)

    def _target_fits(self, watts: int) -> bool:
        lowest, highest = self._bounds()
        return lowest <= watts <= highest

    def _details(self) -> Json:
        plate, uptime = self.machine.nameplate, int(self.machine.uptime_s())
        return {
            "bos_version": {"current": FIRMWARE},
            "bosminer_uptime_s": uptime,
            "system_uptime_s": uptime + 60,
            "mac_address": plate.mac,
            "miner_identity": {"miner_model": plate.model, "name": plate.model},
            "serial_number": plate.serial,
            "status": PAUSED if self.machine.asleep() else NORMAL,
            "sticker_hashrate": {"gigahash_per_second": plate.hashrate_ths * 1000},
        }

    def _rates(self, share: int) -> Json:
        plate = self.machine.nameplate
        now = {"gigahash_per_second": self.machine.hashrate_ths() * 1000 / share}
        return {
            "real_hashrate": {"last_5s": now, "last_1m": now},
            "nominal_hashrate": {"gigahash_per_second": plate.hashrate_ths * 1000 / share},
        }

    def _stats(self) -> Json:
        power = {"approximated_consumption": {"watt": self._watts()}}
        return {"miner_stats": self._rates(1), "power_stats": power}

    def _hashboards(self) -> Json:
        plate = self.machine.nameplate
        heat = {"temperature": {"degree_c": 70.0}}
        board = {"enabled": True, "chips_count": plate.chips_per_board, "highest_chip_temp": heat}
        return {
            "hashboards": [{**board, "id": str(n + 1), "stats": self._rates(plate.boards)} for n in range(plate.boards)]
        }

    def _cooling(self) -> Json:
        fans = [{"position": n, "rpm": 5800 + n} for n in range(self.machine.nameplate.fans)]
        return {"fans": fans, "highest_temperature": {"temperature": {"degree_c": 71.5}}}

    def _pools(self) -> list[Json]:
        pools = [
            {
                "url": pool.url,
                "user": pool.user,
                "active": n == 0,
                "stats": {"accepted_shares": 7, "rejected_shares": 0},
            }
            for n, pool in enumerate(self.machine.pools)
        ]
        return [{"name": "group", "pools": pools}]

    def _configuration(self) -> Json:
        by_power = self.power_target_w is not None
        target = {"watt": self.power_target_w} if by_power else None
        return {"tuner": {"enabled": True, "power_target": target, "tuner_mode": 1 if by_power else 2}}

    def _constraints(self) -> Json:
        lowest, highest = self._bounds()
        return {"tuner_constraints": {"power_target": {"min": {"watt": lowest}, "max": {"watt": highest}}}}

    # --- GraphQL -------------------------------------------------------------------------------------------------

    def _graphql(self, request: WebRequest) -> WebAnswer:
        query, variables = request.field("query"), request.field("variables")
        if not isinstance(query, str):
            return WebAnswer(400, {"error": "no query"})
        given = variables if isinstance(variables, dict) else {}
        if "login(" in query:
            session = self._log_in(given.get("username"), given.get("password"))
            cookies = () if session is None else (("Set-Cookie", f"session_id={session}; Path=/; HttpOnly"),)
            return WebAnswer(
                200, {"data": {"auth": {"login": {"message": "wrong"} if session is None else {"void": None}}}}, cookies
            )
        if request.headers.get("cookie", "").removeprefix("session_id=") not in self._sessions:
            return WebAnswer(200, {"errors": [{"message": "Unauthorized: please log in"}], "data": None})
        if "stop{" in query:
            if self.faults.denies_sleep:
                return WebAnswer(200, {"data": {"bosminer": {"stop": {"message": "not now"}}}})
            self.go_to_sleep()
            self.wrote()
            return WebAnswer(200, {"data": {"bosminer": {"stop": {"void": None}}}})
        if "start{" in query:
            self._resume()
            return WebAnswer(200, {"data": {"bosminer": {"start": {"void": None}}}})
        if "updateAutotuning" in query:
            lowest, highest = self._bounds()
            watts = given.get("limit")
            if not isinstance(watts, int) or not lowest <= watts <= highest:
                denied = {"config": {"updateAutotuning": {"message": "out of range"}}}
                return WebAnswer(200, {"data": {"bosminer": denied}})
            self.power_target_w = watts
            self.wrote()
            return WebAnswer(200, {"data": {"bosminer": {"config": {"updateAutotuning": {}}}}})
        return WebAnswer(200, {"data": self._graphql_data(query)})

    def _graphql_data(self, query: str) -> Json:
        asleep, uptime = self.machine.asleep(), int(self.machine.uptime_s())
        bos = {"info": {"version": {"full": OLD_FIRMWARE}}, "uptime": {"durationS": uptime + 3600}}
        if "info" not in query:
            return {"bos": bos, "bosminer": {"uptime": None if asleep else {"durationS": uptime}}}
        if "autotuning" in query:
            lowest, highest = self._bounds()
            mode = "POWER_TARGET" if self.power_target_w is not None else "HASHRATE_TARGET"
            return {
                "bosminer": {
                    "config": {"autotuning": {"mode": mode, "powerTarget": self.power_target_w}},
                    "metadata": {"autotuning": {"powerTarget": {"min": lowest, "max": highest}}},
                }
            }
        plate = self.machine.nameplate
        mhs, nominal = self.machine.hashrate_ths() * 1e6, plate.hashrate_ths * 1e6
        chain = {
            "realHashrate": {"mhs5S": mhs / plate.boards},
            "nominalMhs": nominal / plate.boards,
            "hwDetails": {"chips": plate.chips_per_board},
            "temperatures": [{"name": "Max Chip", "degreesC": 70.0}],
        }
        solver = {"realHashrate": {"mhs5S": mhs}, "nominalMhs": nominal, "childSolvers": [chain] * plate.boards}
        shares = {"acceptedSolutions": 7, "rejectedSolutions": 0}
        pools = [
            {"url": p.url, "user": p.user, "active": n == 0, "shares": shares} for n, p in enumerate(self.machine.pools)
        ]
        info = {
            "modelName": plate.model,
            "fans": [{"name": str(n), "rpm": 5800} for n in range(plate.fans)],
            "summary": {"power": {"limitW": self.power_target_w, "approxConsumptionW": self._watts()}},
            "workSolver": solver,
            "poolGroups": [{"name": "group", "pools": pools}],
        }
        return {"bos": bos, "bosminer": {"info": info}}
