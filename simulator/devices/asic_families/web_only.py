"""Simulated miners that speak nothing but HTTP: one request per connection, with the faults that all machines have."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from simulator.devices.asic_http import digest_is_right
from simulator.devices.asic_server import GARBAGE, AsicServer
from simulator.devices.connection import IDLE_S, MAX_BODY_BYTES, MAX_HEAD_BYTES

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 500: "Error"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object; an empty one where it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    value: object
    status: int = 200
    challenge: str | None = None


class WebMiner(AsicServer):
    """A simulated miner whose API is HTTP alone, on the port where others have the JSON socket or the web page.

    ``start`` takes the first port given; both :attr:`rpc_port` and :attr:`http_port` are that one. What is no HTTP is
    answered with 400, as real ones answer a JSON command.
    """

    async def start(self, host: str = "127.0.0.1", rpc_port: int = 0, http_port: int = 0) -> None:
        """Listen; port 0 takes any free one.

        Raises:
            OSError: the port is taken.
        """
        self._talks: set[asyncio.Task[None]] = set()
        self._web = await asyncio.start_server(self._talk, host, rpc_port or http_port, backlog=64)

    async def stop(self) -> None:
        """Close the listener and every open connection."""
        self._web.close()
        for talk in tuple(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await super().stop()

    @property
    def rpc_port(self) -> int:
        """The port it listens on."""
        return int(self._web.sockets[0].getsockname()[1])

    @property
    def http_port(self) -> int | None:
        """The same."""
        return self.rpc_port

    @abstractmethod
    def page(self, request: Request) -> Page:
        """The answer to one request."""

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            self._talks.discard(task)
            if self._is_up():
                writer.close()
            else:
                writer.transport.abort()

    def _is_up(self) -> bool:
        return self.machine.powered() and not self.faults.http_down

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_up():
            return
        async with asyncio.timeout(IDLE_S):
            request = await _read(reader)
            key = "no HTTP" if request is None else f"{request.method} {request.path}"
            self.commands[key] = self.commands.get(key, 0) + 1
            page = Page({"error": "bad request"}, 400) if request is None else self.page(request)
            if self.faults.slow_s:
                await asyncio.sleep(self.faults.slow_s)
            if self.faults.silent:
                await reader.read()  # until the other side gives up
                return
            if not self._is_up():
                return
            if self.faults.write_error and request is not None and request.method == "POST":
                page = Page({"error": "fell over"}, 500)
            await self._send(reader, writer, page)

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, page: Page) -> None:
        body = GARBAGE if self.faults.garbage else json.dumps(page.value).encode()
        head = (
            f"HTTP/1.1 {page.status} {REASONS.get(page.status, 'X')}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        )
        if page.challenge is not None:
            head += f"WWW-Authenticate: {page.challenge}\r\n"
        whole = head.encode() + b"\r\n" + body
        if self.faults.half_open:
            writer.write(whole[: len(whole) - max(1, len(body) // 2)])
            await writer.drain()
            await reader.read()
            return
        writer.write(whole)
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """One request; ``None`` where it is no HTTP, as a JSON command sent to the wrong kind of machine."""
    first = await reader.read(1)
    if first in (b"{", b""):
        return None
    head = first + await reader.readuntil(b"\r\n\r\n")
    if len(head) > MAX_HEAD_BYTES:
        return None
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:9]) > MAX_BODY_BYTES:
        return None
    return Request(parts[0], urlsplit(parts[1]).path, headers, await reader.readexactly(int(length)))


def logged_in(request: Request, *, user: str, password: str, realm: str, nonce: str) -> bool:
    """Whether a request carries the right digest log-in."""
    header = request.headers.get("authorization", "")
    return digest_is_right(header, request.method, user=user, password=password, realm=realm, nonce=nonce)
