"""What all simulated miners share: the JSON socket, its faults, and being without power."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

import msgspec

from simulator.devices import asic_answers as say
from simulator.devices.models import MachineModel

MAX_REQUEST_BYTES = 8 * 1024
IDLE_S = 60.0
GARBAGE = b"\xff\xfe<!DOCTYPE html>\x01\x02 Socket connect failed: Connection refused\n"

Json = dict[str, Any]


@dataclass(slots=True)
class Faults:
    """What is wrong with one machine's firmware; set at run time."""

    silent: bool = False
    """Accepts connections and never answers."""
    slow_s: float = 0.0
    """Answers that much later on the JSON socket."""
    half_open: bool = False
    """Sends half of an answer and then nothing, without closing."""
    garbage: bool = False
    """Answers with bytes that are no JSON."""
    refuses_sleep: bool = False
    """Answers "OK" to a sleep command and does nothing."""
    denies_sleep: bool = False
    """Answers a sleep command with an error and does nothing."""
    wakes_itself_s: float | None = None
    """Mines again that long after each sleep command."""
    write_error: bool = False
    """Takes a configuration write, then answers HTTP 500."""
    http_down: bool = False
    """The web interface resets connections."""


class _RpcConnection(asyncio.Protocol):
    """One connection to the JSON socket: one command, one answer ending with NUL."""

    def __init__(self, device: AsicServer) -> None:
        self._device = device
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._device.open_connections.add(transport)
        if not self._device.admits(transport):
            self._answered = True
            return
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._device.open_connections.discard(self._transport)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._answered or self._transport is None:
            return
        self._received += data
        if len(self._received) > MAX_REQUEST_BYTES:
            self._transport.abort()
            return
        try:
            request = json.loads(self._received.rstrip(b"\x00"))
        except (ValueError, RecursionError):
            if not self._received.rstrip().endswith(b"}"):
                return
            request = None
        self._answered = True
        answer = self._device.answer_bytes(request)
        faults = self._device.faults
        if faults.silent:
            return
        if faults.slow_s > 0:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(faults.slow_s, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        if self._transport is None or not self._device.machine.powered():
            return
        if self._device.faults.half_open:
            self._transport.write(answer[: len(answer) // 2])
            return
        self._transport.write(GARBAGE if self._device.faults.garbage else answer + b"\x00")
        self._transport.close()


class AsicServer:
    """What all simulated miners share: the JSON socket, faults, power.

    Args:
        machine: the machine behind.
        time_scale: delays of the firmware are divided by it.
        wall: UTC clock in seconds, for the time stamps in answers.
    """

    description = "cgminer"

    def __init__(self, machine: MachineModel, *, time_scale: float = 1.0, wall: Callable[[], float] = time) -> None:
        self.machine = machine
        self.faults = Faults()
        self.commands: dict[str, int] = {}
        """How often each command was given; for tests."""
        self._time_scale = time_scale
        self._wall = wall
        self.open_connections: set[asyncio.Transport] = set()
        self._rpc: asyncio.Server | None = None
        self._http: asyncio.Server | None = None
        self._waking: asyncio.TimerHandle | None = None

    async def start(self, host: str = "127.0.0.1", rpc_port: int = 0, http_port: int = 0) -> None:
        """Listen; port 0 takes any free one.

        Raises:
            OSError: a port is taken.
        """
        loop = asyncio.get_running_loop()
        self._rpc = await loop.create_server(self.rpc_connection, host, rpc_port, backlog=16)
        try:
            self._http = await self._start_http(loop, host, http_port)
        except OSError:
            await self.stop()
            raise

    def rpc_connection(self) -> asyncio.Protocol:
        """One more connection to the JSON socket, for whoever listens for this machine."""
        return _RpcConnection(self)

    def web_connection(self) -> asyncio.Protocol | None:
        """One more connection to the web interface; ``None`` for firmwares without one."""
        return None

    async def stop(self) -> None:
        """Close listeners and open connections."""
        if self._waking is not None:
            self._waking.cancel()
        for server in (self._rpc, self._http):
            if server is not None:
                server.close()
        self._rpc = self._http = None
        for transport in tuple(self.open_connections):
            transport.abort()

    @property
    def rpc_port(self) -> int:
        """Port of the JSON socket."""
        return port_of(self._rpc)

    @property
    def http_port(self) -> int | None:
        """Port of the web interface, ``None`` where there is none."""
        return None if self._http is None else port_of(self._http)

    def admits(self, transport: asyncio.Transport) -> bool:
        """True where the machine takes connections; else the connection is reset."""
        if self.machine.powered():
            return True
        transport.abort()
        return False

    def answer_bytes(self, request: object) -> bytes:
        """The answer to one request as sent, without the closing NUL."""
        command = request.get("command") if isinstance(request, dict) else None
        parameter = request.get("parameter", "") if isinstance(request, dict) else ""
        if not isinstance(command, str) or not isinstance(parameter, str | int):
            answer = say.error(23, "Invalid JSON", self.description, self._wall())
        else:
            self.commands[command] = self.commands.get(command, 0) + 1
            answer = self.answer(command, str(parameter))
        return msgspec.json.encode(answer)

    def answer(self, command: str, parameter: str) -> Json:
        """The answer to one command."""
        raise NotImplementedError

    def common_reading(self, command: str, head: Json) -> Json | None:
        """``summary``, ``stats`` and ``pools``, which all firmwares here answer alike."""
        if command == "summary":
            return say.summary(self.machine, self.description, self._wall())
        if command == "stats":
            return say.stats(self.machine, head, self.description, self._wall())
        if command == "pools":
            return say.pools(self.machine, self.description, self._wall())
        return None

    def ok(self, code: int, message: str, name: str, listed: list[Json]) -> Json:
        """A successful answer with rows under ``name``."""
        return {"STATUS": say.status("S", code, message, self.description, self._wall()), name: listed, "id": 1}

    def error(self, code: int, message: str) -> Json:
        """An error answer."""
        return say.error(code, message, self.description, self._wall())

    async def _start_http(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> asyncio.Server | None:
        """Open the web interface; firmwares without one have nothing to open."""
        del loop, host, port
        return None

    def go_to_sleep(self) -> None:
        """Take a sleep command, as far as the faults let it."""
        if self.faults.refuses_sleep:
            return
        self.machine.request_sleep()
        if self.faults.wakes_itself_s is not None:
            loop = asyncio.get_running_loop()
            self._waking = loop.call_later(self.faults.wakes_itself_s, self.machine.request_wake)


def port_of(server: asyncio.Server | None) -> int:
    """The port a started server listens on."""
    if server is None:
        raise RuntimeError("the simulated miner is not started; call start() first")
    return int(server.sockets[0].getsockname()[1])
