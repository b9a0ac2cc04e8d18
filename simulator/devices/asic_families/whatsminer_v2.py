"""Simulated Whatsminer with API 2: reads in clear, writes with a token, encrypted; boards off, control board on."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Callable
from time import time
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from drivers.asic.md5crypt import md5crypt
from simulator.devices.asic_server import Json, JsonServer
from simulator.devices.models import MachineModel

FIRMWARE = "20230803.11.REL"
MAX_TOKENS = 32
TOKEN_LIFE_S = 1800.0
TOKEN_OK, COMMAND_OK, BAD_COMMAND, DENIED, WRONG_TOKEN, TOO_MANY = 134, 131, 14, 45, 135, 136
READS = ("status", "get_version", "get_miner_info", "get_error_code", "get_token", "get_psu", "devdetails")


class SimulatedWhatsminerV2(JsonServer):
    """One machine. A power limit is taken note of; the draw behind does not follow it.

    Args:
        password: of the account ``admin``.
        api_switch: whether the owner switched the write API on.
    """

    description = "btminer"

    def __init__(
        self,
        machine: MachineModel,
        *,
        password: str = "admin",  # noqa: S107 - the vendor's default, for a simulated machine
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
        """Error codes and when they appeared."""
        self._salt = ""
        self._key = ""
        self.set_password(password)
        self._tokens: dict[str, tuple[bytes, float]] = {}

    def set_password(self, password: str) -> None:
        """Change the password, and with it the salt."""
        self._salt = secrets.token_hex(4)
        self._key = md5crypt(password.encode(), self._salt.encode())

    def forget_tokens(self) -> None:
        """What a restart of the machine does."""
        self._tokens.clear()

    def answer_bytes(self, request: object) -> bytes:
        """See :class:`JsonServer`."""
        if isinstance(request, dict) and request.get("enc") == 1:
            return json.dumps(self._sealed(str(request.get("data", "")))).encode()
        if isinstance(request, dict) and "cmd" in request:
            request = {**request, "command": request["cmd"]}
        return super().answer_bytes(request)

    def answer(self, command: str, parameter: str) -> Json:
        """See :class:`JsonServer`."""
        del parameter
        if "+" in command:
            names = command.split("+")[:16]
            return {**{name: [self.answer(name, "")] for name in names if name not in READS}, "id": 1}
        match command:
            case "summary":
                return self.ok(11, "Summary", "SUMMARY", [self._summary()])
            case "devs" | "edevs":
                return self.ok(9, "Devs", "DEVS", self._devs())
            case "pools":
                return self.common_reading("pools", {}) or {}
            case "devdetails":
                return self.ok(69, "Device Details", "DEVDETAILS", [{"ID": 0, "Model": self.machine.nameplate.model}])
            case _ if command in READS:
                return self._message(command)
            case _:
                return self._flat("E", BAD_COMMAND, "invalid cmd")

    def _message(self, command: str) -> Json:
        plate = self.machine.nameplate
        match command:
            case "status":
                off = "true" if self.machine.asleep() else "false"
                return self._flat("S", COMMAND_OK, {"mineroff": off, "power_limit_set": str(self.power_limit_w)})
            case "get_version":
                return self._flat("S", COMMAND_OK, {"api_ver": "2.0.5", "fw_ver": FIRMWARE, "platform": "H616"})
            case "get_miner_info":
                return self._flat("S", COMMAND_OK, {"mac": plate.mac.upper(), "minersn": plate.serial})
            case "get_error_code":
                return self._flat("S", COMMAND_OK, {"error_code": [{c: t} for c, t in self.errors.items()]})
            case "get_token":
                return self._give_token()
            case _:
                return self._flat("S", COMMAND_OK, {"name": "P222B", "model": "P222B"})

    def _summary(self) -> Json:
        machine, plate = self.machine, self.machine.nameplate
        mhs, uptime = machine.hashrate_ths() * 1e6, int(machine.uptime_s())
        return {
            "Elapsed": uptime,
            "MHS av": mhs,
            "MHS 5s": mhs,
            "MHS 1m": mhs,
            "HS RT": mhs,
            "Accepted": uptime // 4,
            "Rejected": uptime // 4000,
            "Chip Temp Max": 25 + 60 * machine.hashrate_ths() / plate.hashrate_ths,
            "Env Temp": 21.5,
            "Fan Speed In": 5400,
            "Fan Speed Out": 5280,
            "Factory GHS": plate.hashrate_ths * 1000,
            "MAC": plate.mac.upper(),
            "Power": round(machine.power_w()),
            "Power Limit": self.power_limit_w,
            "Power Mode": "Normal",
            "Firmware Version": f"'{FIRMWARE}'",
            "Uptime": uptime,
        }

    def _devs(self) -> list[Json]:
        plate = self.machine.nameplate
        mhs = self.machine.hashrate_ths() * 1e6 / plate.boards
        return [
            {
                "ASC": board,
                "Slot": board,
                "Status": "Alive",
                "Temperature": 65.0,
                "Chip Temp Max": 81.0,
                "MHS av": mhs,
                "MHS 5s": mhs,
                "Effective Chips": plate.chips_per_board,
                "PCB SN": f"{plate.serial}-{board}",
            }
            for board in range(plate.boards)
        ]

    def _flat(self, letter: str, code: int, message: object) -> Json:
        return {
            "STATUS": letter,
            "When": int(self._wall()),
            "Code": code,
            "Msg": message,
            "Description": "whatsminer v2.0.5",
        }

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _give_token(self) -> Json:
        if not self.api_switch:
            return self._flat("E", DENIED, "can't access write cmd")
        now_s = self._now_s()
        self._tokens = {sign: entry for sign, entry in self._tokens.items() if entry[1] > now_s}
        if len(self._tokens) >= MAX_TOKENS:
            return self._flat("E", TOO_MANY, "over max connect")
        newsalt, tail = secrets.token_hex(4), str(int(self._wall()))[-4:]
        sign = md5crypt((self._key + tail).encode(), newsalt.encode())
        self._tokens[sign] = (hashlib.sha256(self._key.encode()).digest(), now_s + TOKEN_LIFE_S)
        return self._flat("S", TOKEN_OK, {"time": tail, "salt": self._salt, "newsalt": newsalt})

    def _sealed(self, data: str) -> Json:
        """Try the live tokens' keys on a request; the one that opens it also has to be named in it."""
        try:
            sealed = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            sealed = b""
        if not sealed or len(sealed) % 16:
            return self._flat("E", 23, "invalid json message")
        now_s = self._now_s()
        for sign, (key, until_s) in self._tokens.items():
            decryptor = _cipher(key).decryptor()
            request = _object(decryptor.update(sealed) + decryptor.finalize())
            if request is not None and request.get("token") == sign and until_s > now_s:
                answer = self._write(str(request.get("cmd")), request)
                plain = json.dumps(answer).encode()
                encryptor = _cipher(key).encryptor()
                closed = encryptor.update(plain + b"\x00" * (-len(plain) % 16)) + encryptor.finalize()
                return {"enc": base64.b64encode(closed).decode()}
        return self._flat("E", WRONG_TOKEN, "check token err")

    def _write(self, command: str, request: dict[str, Any]) -> Json:
        self.commands[command] = self.commands.get(command, 0) + 1
        self.faults.silent = self.faults.silent or self.lose_writes
        match command:
            case "power_off" if request.get("respbefore") in ("true", "false"):
                if self.faults.denies_sleep:
                    return self._flat("E", 132, "command error")
                self.go_to_sleep()
            case "power_on":
                if self.machine.asleep():
                    self.machine.request_wake()
            case "adjust_power_limit" if str(request.get("power_limit", "")).isdecimal():
                self.power_limit_w = int(request["power_limit"])
            case _:
                return self._flat("E", BAD_COMMAND, "invalid cmd")
        return self._flat("S", COMMAND_OK, "API command OK")


def _cipher(key: bytes) -> Cipher[modes.ECB]:
    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 - the machine's protocol


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data.rstrip(b"\x00"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
