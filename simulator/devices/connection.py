"""One connection to a simulated machine: one request, one answer."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

IDLE_S = 60.0
MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 256 * 1024


class Connection(asyncio.Protocol, ABC):
    """Collects bytes until :meth:`take` says that a request is whole; reset when nothing comes for a minute.

    Args:
        open_connections: where it is kept while it is open.
        admit: False where the machine takes no connection; it may have reset it.
    """

    def __init__(self, open_connections: set[asyncio.Transport], admit: Callable[[asyncio.Transport], bool]) -> None:
        self._open_connections = open_connections
        self._admit = admit
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answered = False

    @abstractmethod
    def take(self, transport: asyncio.Transport, received: bytes) -> bool:
        """Answer what was received so far; False where more has to come. Resets the connection where it is too much."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or drop it where the machine has no power or a fault says so."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open_connections.add(transport)
        if not self._admit(transport):
            self._answered = True
            return
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        del exc
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._open_connections.discard(self._transport)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Collect a request and answer it once it is whole; what comes after it is ignored."""
        if self._answered or self._transport is None:
            return
        self._received += data
        self._answered = self.take(self._transport, bytes(self._received))

    def later(self, seconds: float, send: Callable[[bytes], None], whole: bytes) -> None:
        """Send that much later, instead of being reset for silence meanwhile."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, send, whole)


class TooLong(ValueError):
    """A request that no machine would take: head or body is too long, or its length is no number."""


@dataclass(frozen=True, slots=True)
class WebRequest:
    """One HTTP request."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @classmethod
    def of(cls, received: bytes) -> WebRequest | None:
        """The request in what was received; ``None`` where more has to come.

        Raises:
            TooLong: it is not to be waited for.
        """
        head, found, body = received.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD_BYTES and not found:
            raise TooLong("head")
        if not found:
            return None
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:9]) > MAX_BODY_BYTES:
            raise TooLong("body")
        if len(body) < int(length):
            return None
        method, _, rest = lines[0].partition(" ")
        return cls(method, rest.split(" ")[0], headers, body)

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


class WebConnection(Connection):
    """A connection whose request is HTTP."""

    @abstractmethod
    def requested(self, request: WebRequest) -> None:
        """Answer a whole request."""

    def take(self, transport: asyncio.Transport, received: bytes) -> bool:
        """See :class:`Connection`."""
        try:
            request = WebRequest.of(received)
        except TooLong:
            transport.abort()
            return False
        if request is not None:
            self._answered = True
            self.requested(request)
        return request is not None
