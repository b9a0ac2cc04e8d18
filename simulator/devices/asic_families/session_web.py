"""The web interface of simulated machines that use neither digest log-in nor CGIs: JSON in, JSON out, then closed."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from simulator.devices.asic_server import JsonServer, MachineConnection
from simulator.devices.connection import WebConnection, WebRequest

__all__ = ["WebAnswer", "WebRequest", "WebServer"]


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """One answer; ``value`` is sent as JSON unless it is bytes."""

    status: int = 200
    value: Any = None
    headers: tuple[tuple[str, str], ...] = ()


class WebServer(JsonServer):
    """A simulated machine with a web interface; the faults of the JSON socket act on it too."""

    lose_writes = False
    """Takes a write and falls silent: its answer and everything after it is lost."""

    async def _start_http(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> asyncio.Server | None:
        return await loop.create_server(self.web_connection, host, port, backlog=16)

    def web_connection(self) -> asyncio.Protocol:
        """See :class:`AsicServer`."""
        return _SessionConnection(self)

    def admits_web(self, transport: asyncio.Transport) -> bool:
        """True where the web interface takes connections; else the connection is reset."""
        if self.faults.http_down or not self.machine.powered():
            transport.abort()
            return False
        return True

    @abstractmethod
    def page(self, request: WebRequest) -> WebAnswer:
        """The answer to one request."""

    def wrote(self) -> None:
        """Called by families when they took a write."""
        if self.lose_writes:
            self.faults.silent = True


class _SessionConnection(WebConnection, MachineConnection):
    """One connection: one request, one answer."""

    def __init__(self, device: WebServer) -> None:
        super().__init__(device, device.admits_web)
        self._device = device

    def requested(self, request: WebRequest) -> None:
        device = self._device
        name = f"{request.method} {request.path}"
        device.commands[name] = device.commands.get(name, 0) + 1
        answer = device.page(request)
        if device.faults.write_error and request.method != "GET":
            answer = WebAnswer(500, {"error": "fell over after writing"})
        body = answer.value if isinstance(answer.value, bytes) else json.dumps(answer.value).encode()
        head = f"HTTP/1.1 {answer.status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{key}: {value}\r\n" for key, value in answer.headers) + "Connection: close\r\n\r\n"
        self.reply(head.encode() + body)
