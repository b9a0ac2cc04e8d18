"""What all simulated miners share: faults and being without power; and those with the JSON socket of cgminer."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

import msgspec

from simulator.devices import asic_answers as say
from simulator.devices.connection import Connection
from simulator.devices.models import MachineModel

MAX_REQUEST_BYTES = 8 * 1024
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


class MachineConnection(Connection):
    """A connection whose answers the faults of the machine act on."""

    def __init__(self, device: AsicServer, admit: Callable[[asyncio.Transport], bool] | None = None) -> None:
        super().__init__(device.open_connections, admit or device.admits)
        self._server = device

    def reply(self, whole: bytes) -> None:
        """Send an answer as the faults let it."""
        faults = self._server.faults
        if faults.silent:
            return
        if faults.slow_s > 0:
            self.later(faults.slow_s, self._send, whole)
        else:
            self._send(whole)

    def _send(self, whole: bytes) -> None:
        if self._transport is None or not self._server.machine.powered():
            return
        if self._server.faults.half_open:
            self._transport.write(whole[: len(whole) // 2])
            return
        self._transport.write(GARBAGE if self._server.faults.garbage else whole)
        self._transport.close()


class _JsonConnection(MachineConnection):
    """The JSON socket: one command, one answer ending with NUL."""

    def __init__(self, device: JsonServer) -> None:
        super().__init__(device)
        self._device = device

    def take(self, transport: asyncio.Transport, received: bytes) -> bool:
        if len(received) > MAX_REQUEST_BYTES:
            transport.abort()
            return False
        try:
            request = json.loads(received.rstrip(b"\x00"))
        except (ValueError, RecursionError):
            if not received.rstrip().endswith(b"}"):
                return False
            request = None
        self.reply(self._device.answer_bytes(request) + b"\x00")
        return True


class AsicServer(ABC):
    """What all simulated miners share: faults, power, commands that were counted.

    Args:
        machine: the machine behind.
        time_scale: delays of the firmware are divided by it.
        wall: UTC clock in seconds, for the time stamps in answers.
    """

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

    @abstractmethod
    async def start(self, host: str = "127.0.0.1", rpc_port: int = 0, http_port: int = 0) -> None:
        """Listen; port 0 takes any free one.

        Raises:
            OSError: a port is taken.
        """

    def rpc_connection(self) -> asyncio.Protocol | None:
        """One more connection to the API's own port, for whoever listens for this machine; ``None``: it has no such."""
        return None

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

    def go_to_sleep(self) -> None:
        """Take a sleep command, as far as the faults let it."""
        if self.faults.refuses_sleep:
            return
        self.machine.request_sleep()
        if self.faults.wakes_itself_s is not None:
            loop = asyncio.get_running_loop()
            self._waking = loop.call_later(self.faults.wakes_itself_s, self.machine.request_wake)


class SocketServer(AsicServer):
    """A machine with a port of its own for the API, and perhaps a web interface."""

    @abstractmethod
    def rpc_connection(self) -> asyncio.Protocol:
        """See :class:`AsicServer`."""

    async def start(self, host: str = "127.0.0.1", rpc_port: int = 0, http_port: int = 0) -> None:
        """See :class:`AsicServer`."""
        loop = asyncio.get_running_loop()
        self._rpc = await loop.create_server(self.rpc_connection, host, rpc_port, backlog=16)
        try:
            self._http = await self._start_http(loop, host, http_port)
        except OSError:
            await self.stop()
            raise

    async def _start_http(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> asyncio.Server | None:
        """Open the web interface; firmwares without one have nothing to open."""
        del loop, host, port
        return None


class JsonServer(SocketServer):
    """A machine with the JSON socket of cgminer."""

    description = "cgminer"

    def rpc_connection(self) -> asyncio.Protocol:
        """See :class:`AsicServer`."""
        return _JsonConnection(self)

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

    @abstractmethod
    def answer(self, command: str, parameter: str) -> Json:
        """The answer to one command."""

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


def port_of(server: asyncio.Server | None) -> int:
    """The port a started server listens on."""
    if server is None:
        raise RuntimeError("the simulated miner is not started; call start() first")
    return int(server.sockets[0].getsockname()[1])
