"""The web interface of simulated machines that use neither digest log-in nor CGIs: JSON in, JSON out, then closed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from simulator.devices.asic_server import GARBAGE, AsicServer

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 256 * 1024
IDLE_S = 60.0


@dataclass(frozen=True, slots=True)
class WebRequest:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        """The JSON value of the body, ``None`` where there is none."""
        try:
            return json.loads(self.body) if self.body else None
        except (ValueError, RecursionError):
            return None

    def field(self, name: str) -> Any:
        """One field of an object in the body."""
        value = self.json()
        return value.get(name) if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """One answer; ``value`` is sent as JSON unless it is bytes."""

    status: int = 200
    value: Any = None
    headers: tuple[tuple[str, str], ...] = ()


class WebServer(AsicServer):
    """A simulated machine with a web interface; the faults of the JSON socket act on it too."""

    lose_writes = False
    """Takes a write and falls silent: its answer and everything after it is lost."""

    async def _start_http(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> asyncio.Server | None:
        return await loop.create_server(self.web_connection, host, port, backlog=16)

    def web_connection(self) -> asyncio.Protocol:
        """See :class:`AsicServer`."""
        return _WebConnection(self)

    def page(self, request: WebRequest) -> WebAnswer:
        """The answer to one request."""
        raise NotImplementedError

    def wrote(self) -> None:
        """Called by families when they took a write."""
        if self.lose_writes:
            self.faults.silent = True


class _WebConnection(asyncio.Protocol):
    """One connection: one request, one answer."""

    def __init__(self, device: WebServer) -> None:
        self._device = device
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._device.open_connections.add(transport)
        if self._device.faults.http_down or not self._device.machine.powered():
            self._answered = True
            transport.abort()
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
        head, found, body = bytes(self._received).partition(b"\r\n\r\n")
        if not found:
            if len(head) > MAX_HEAD_BYTES:
                self._transport.abort()
            return
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:9]) > MAX_BODY_BYTES:
            self._transport.abort()
        elif len(body) >= int(length):
            self._answered = True
            method, _, rest = lines[0].partition(" ")
            self._answer(WebRequest(method, rest.split(" ")[0], headers, body))

    def _answer(self, request: WebRequest) -> None:
        device = self._device
        name = f"{request.method} {request.path}"
        device.commands[name] = device.commands.get(name, 0) + 1
        answer = device.page(request)
        if device.faults.silent:
            return
        if device.faults.write_error and request.method != "GET":
            answer = WebAnswer(500, {"error": "fell over after writing"})
        body = answer.value if isinstance(answer.value, bytes) else json.dumps(answer.value).encode()
        head = f"HTTP/1.1 {answer.status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{key}: {value}\r\n" for key, value in answer.headers) + "Connection: close\r\n\r\n"
        whole = head.encode() + body
        if self._timer is not None:
            self._timer.cancel()
        if device.faults.slow_s > 0:
            self._timer = asyncio.get_running_loop().call_later(device.faults.slow_s, self._send, whole)
        else:
            self._send(whole)

    def _send(self, whole: bytes) -> None:
        if self._transport is None or not self._device.machine.powered():
            return
        if self._device.faults.half_open:
            self._transport.write(whole[: len(whole) // 2])
            return
        self._transport.write(GARBAGE if self._device.faults.garbage else whole)
        self._transport.close()
