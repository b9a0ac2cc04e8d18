"""Simulated Whatsminer with API 3: length-framed JSON, writes with a token of command, password, salt and time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from time import time
from typing import Any

from simulator.devices.asic_server import MAX_REQUEST_BYTES, Json, MachineConnection, SocketServer
from simulator.devices.models import MachineModel

FIRMWARE = "20251209.16.Rel2"
ACCOUNTS = ("super", "user1", "user2", "user3")
CLOCK_MARGIN_S = 300.0
FAIL, INVALID, DENIED = -1, -2, -4


class SimulatedWhatsminerV3(SocketServer):
    """One machine. A power limit is taken note of; the draw behind does not follow it.

    Args:
        password: of the account ``super``.
        api_switch: whether the owner switched the write API on.
    """

    def __init__(
        self,
        machine: MachineModel,
        *,
        password: str = "super",  # noqa: S107 - the vendor's default, for a simulated machine
        api_switch: bool = True,
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        super().__init__(machine, time_scale=time_scale, wall=wall)
        self.api_switch = api_switch
        self.power_limit_w = round(machine.nameplate.power_w)
        self.lose_writes = False
        """Takes a write and falls silent."""
        self.errors: dict[str, str] = {}
        """Error codes and their reasons."""
        self.salt = secrets.token_hex(4)
        self._password = password

    def rpc_connection(self) -> asyncio.Protocol:
        """See :class:`AsicServer`."""
        return _FramedConnection(self)

    def framed_answer(self, request: object) -> Json:
        """The answer to one request."""
        command = request.get("cmd") if isinstance(request, dict) else None
        if not isinstance(request, dict) or not isinstance(command, str):
            return self._said(FAIL, "invalid json", "")
        self.commands[command] = self.commands.get(command, 0) + 1
        match command:
            case "get.device.info":
                info = self._info()
                wanted = request.get("param")
                return self._said(0, {wanted: info[wanted]} if wanted in info else info, command)
            case "get.miner.status":
                parts = str(request.get("param", "")).split("+")[:8]
                known = self._status()
                return self._said(0, {name: known[name] for name in parts if name in known}, command)
            case "get.miner.setting":
                return self._said(0, {"power-mode": "normal", "power-limit": self.power_limit_w}, command)
            case "set.miner.service" | "set.miner.power_limit":
                return self._write(command, request)
            case _:
                return self._said(INVALID, "invalid command", "")

    def _said(self, code: int, message: object, command: str) -> Json:
        return {"code": code, "when": int(self._wall()), "msg": message, "desc": command}

    def _write(self, command: str, request: dict[str, Any]) -> Json:
        ts, param = request.get("ts"), request.get("param")
        right = isinstance(ts, int) and abs(ts - self._wall()) <= CLOCK_MARGIN_S
        text = f"{command}{self._password}{self.salt}{ts}"
        token = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()[:8]
        known = request.get("account") in ACCOUNTS and request.get("token") == token
        if not (right and known and self.api_switch):
            return self._said(DENIED, "no permission", command)
        self.faults.silent = self.faults.silent or self.lose_writes
        if command == "set.miner.power_limit":
            if not isinstance(param, int) or isinstance(param, bool) or param <= 0:
                return self._said(FAIL, "fail", command)
            self.power_limit_w = param
        elif param == "stop":
            if self.faults.denies_sleep:
                return self._said(FAIL, "fail", command)
            self.go_to_sleep()
        elif param == "start" and self.machine.asleep():
            self.machine.request_wake()
        return self._said(0, "ok", command)

    def _info(self) -> Json:
        plate = self.machine.nameplate
        info: Json = {
            "miner": {
                "type": plate.model,
                "miner-sn": plate.serial,
                "working": "false" if self.machine.asleep() else "true",
                "fast-boot": "disable",
                "board-num": str(plate.boards),
            },
            "network": {"ip": "127.0.0.1", "mac": plate.mac.upper(), "hostname": "WhatsMiner"},
            "power": {"model": "P221B", "mode": "1"},
            "salt": self.salt,
            "system": {"api": "3.0.2", "apiswitch": "1" if self.api_switch else "0", "fwversion": FIRMWARE},
        }
        if self.errors:
            info["error-code"] = [{code: "2026-01-01 00:00:00", "reason": why} for code, why in self.errors.items()]
        return info

    def _status(self) -> Json:
        machine, plate = self.machine, self.machine.nameplate
        rate, uptime = round(machine.hashrate_ths(), 3), int(machine.uptime_s())
        load = rate / plate.hashrate_ths if plate.hashrate_ths else 0.0
        boards = [
            {
                "id": board,
                "slot": board,
                "hash-average": rate / plate.boards,
                "hash-realtime": rate / plate.boards,
                "effective-chips": plate.chips_per_board,
                "chip-temp-max": 25 + 60 * load,
                "status": "alive",
            }
            for board in range(plate.boards)
        ]
        pools = [
            {
                "id": number,
                "url": pool.url,
                "account": pool.user,
                "status": "alive",
                "stratum-active": number == 0 and not machine.asleep(),
                "reject-percent": 0.02,
            }
            for number, pool in enumerate(machine.pools)
        ]
        summary = {
            "elapsed": uptime,
            "factory-hash": plate.hashrate_ths,
            "hash-realtime": rate,
            "hash-1min": rate,
            "hash-average": rate,
            "power-realtime": round(machine.power_w()),
            "power-limit": self.power_limit_w,
            "chip-temp-max": 25 + 60 * load,
            "board-temperature": [30 + 30 * load] * plate.boards,
            "fan-speed-in": 5400,
            "fan-speed-out": 5280,
            "up-freq-finish": 1,
        }
        return {"summary": summary, "edevs": boards, "pools": pools}


class _FramedConnection(MachineConnection):
    """One connection: one framed request, one framed answer."""

    def __init__(self, device: SimulatedWhatsminerV3) -> None:
        super().__init__(device)
        self._device = device

    def take(self, transport: asyncio.Transport, received: bytes) -> bool:
        length = int.from_bytes(received[:4], "little")
        if length > MAX_REQUEST_BYTES:
            transport.abort()
            return False
        if len(received) < 4 or len(received) < 4 + length:
            return False
        try:
            request = json.loads(received[4 : 4 + length])
        except (ValueError, RecursionError):
            request = None
        body = json.dumps(self._device.framed_answer(request)).encode()
        self.reply(len(body).to_bytes(4, "little") + body)
        return True
