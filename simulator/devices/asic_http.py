"""A small HTTP/1.1 server with digest log-in, as a stock Antminer's web interface has it. One answer, then closed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 256 * 1024
IDLE_S = 60.0
_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')

Handler = Callable[[str, str, bytes], Awaitable[dict[str, Any] | None]]
"""Method, path, body → the JSON object to answer, or ``None`` to close without an answer."""


def digest_is_right(header: str, method: str, *, user: str, password: str, realm: str, nonce: str) -> bool:
    """Check an ``Authorization: Digest`` header (RFC 7616, MD5, qop=auth)."""
    fields = {name: quoted or plain for name, quoted, plain in _PAIR.findall(header[:2000])}
    if not header.lower().startswith("digest ") or fields.get("nonce") != nonce or fields.get("username") != user:
        return False

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    ha1 = md5(f"{user}:{realm}:{password}")
    ha2 = md5(f"{method}:{fields.get('uri', '')}")
    wanted = md5(f"{ha1}:{nonce}:{fields.get('nc')}:{fields.get('cnonce')}:{fields.get('qop')}:{ha2}")
    return secrets.compare_digest(wanted, fields.get("response", ""))


class DigestSite:
    """Log-in and handler that all connections of one server share."""

    def __init__(self, handler: Handler, *, user: str, password: str, realm: str) -> None:
        self.handler = handler
        self.user = user
        self.password = password
        self.realm = realm
        self.nonce = secrets.token_hex(16)
        self.tasks: set[asyncio.Task[None]] = set()
        self.open_connections: set[asyncio.Transport] = set()
        self.requests = 0
        """How many requests were answered with a log-in; for tests."""

    def allows(self, method: str, header: str) -> bool:
        """True where the log-in in a header is right."""
        return digest_is_right(
            header, method, user=self.user, password=self.password, realm=self.realm, nonce=self.nonce
        )

    async def stop(self) -> None:
        """End every open request."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for transport in tuple(self.open_connections):
            transport.abort()


class HttpConnection(asyncio.Protocol):
    """One connection: one request, one answer."""

    def __init__(self, site: DigestSite, admit: Callable[[asyncio.Transport], bool]) -> None:
        self._site = site
        self._admit = admit
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or drop it where the machine has no power or a fault says so."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._site.open_connections.add(transport)
        if not self._admit(transport):
            self._busy = True
            return
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        del exc
        if self._idle is not None:
            self._idle.cancel()
        if self._transport is not None:
            self._site.open_connections.discard(self._transport)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Collect a request and start answering it once it is whole."""
        if self._busy or self._transport is None:
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
            self._busy = True
            method, _, rest = lines[0].partition(" ")
            self._answer(method, rest.split(" ")[0], headers.get("authorization", ""), body)

    def _answer(self, method: str, path: str, authorization: str, body: bytes) -> None:
        if not self._site.allows(method, authorization):
            challenge = f'Digest realm="{self._site.realm}", nonce="{self._site.nonce}", qop="auth"'
            self._send(401, b"<html><h1>401 - Unauthorized</h1></html>", challenge)
            return
        self._site.requests += 1
        task = asyncio.get_running_loop().create_task(self._handle(method, path, body))
        self._site.tasks.add(task)
        task.add_done_callback(self._site.tasks.discard)

    async def _handle(self, method: str, path: str, body: bytes) -> None:
        try:
            answer = await self._site.handler(method, path, body)
        except LookupError:
            self._send(404, b"<html><h1>404 - Not Found</h1></html>")
            return
        except RuntimeError:
            self._send(500, b"<html><h1>500 - Internal Server Error</h1></html>")
            return
        if answer is not None:
            self._send(200, json.dumps(answer).encode())
        elif self._transport is not None:
            self._transport.abort()

    def _send(self, code: int, body: bytes, challenge: str | None = None) -> None:
        if self._transport is None:
            return
        kind = "application/json" if code == 200 else "text/html"
        head = f"HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        if challenge is not None:
            head += f"WWW-Authenticate: {challenge}\r\n"
        self._transport.write(head.encode() + b"\r\n" + body)
        self._transport.close()
